// Images of another size, and cut out of larger ones.
#pragma once

#include "data/image.h"

namespace halfstep {

// A rectangle of an image.
struct ImagePart {
  int64_t top = 0, left = 0, height = 0, width = 0;
};

// The part, which lies inside, stretched to height x width: bilinear, over as many pixels as one of the result covers,
// in the fixed point of Pillow and so of torchvision (Image.resize with BILINEAR), bit for bit.
// Error where that would take more than a gigabyte.
Image resize(const Image& image, const ImagePart& part, int64_t height, int64_t width);

}  // namespace halfstep
