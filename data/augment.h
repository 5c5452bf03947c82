// From a decoded image to the pixels that a model takes: its size, and changes by chance.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/resample.h"

namespace halfstep {

// Numbers of one sample: by (seed, epoch, place in the epoch's order) alone.
class AugmentRandom {
 public:
  AugmentRandom(uint64_t seed, int64_t epoch, int64_t place) : seed_(seed), epoch_(epoch), place_(place) {}
  double unit();  // in [0, 1)
  double between(double least, double most) { return least + (most - least) * unit(); }
  int64_t below(int64_t limit);  // in [0, limit)

 private:
  uint64_t seed_;
  int64_t epoch_, place_;
  uint32_t drawn_ = 0;
};

struct AugmentOptions {
  bool crop = false;    // a part of crop_scale to all of the area, of sides 3:4 to 4:3 (RandomResizedCrop)
  bool flip = false;    // left to right, every other one
  bool shift = false;   // by up to an eighth of each side; what comes in is 0
  bool color = false;   // brightness, contrast and saturation times 0.6 to 1.4, in any order (ColorJitter)
  bool hue = false;     // by up to a tenth of the circle, in any order with these (ColorJitter)
  bool cutout = false;  // every other one: a rectangle of 2 to 33 % of the area becomes `fill` (RandomErasing)
  double crop_scale = 0.08;
  std::array<uint8_t, 3> fill{};
};
// Of the names crop, flip, shift, color, hue, cutout. Error naming one that is none.
AugmentOptions augment_options(const std::vector<std::string>& names, double crop_scale);

struct ImageGeometry {
  int64_t height = 0, width = 0;  // of the model's input
  int64_t resize = 0;             // of the shorter side first; 0: as large as the input needs
  bool stretch = false;           // to the input's sides, whatever the image's are, instead of cutting out its middle
};

// As every look at data but training has it (torchvision's Resize and CenterCrop).
Image fitted(const Image& image, const ImageGeometry& geometry);
Image augmented(const Image& image, const ImageGeometry& geometry, const AugmentOptions& options, AugmentRandom random);

// The parts, each a function of its own for tests.
ImagePart random_part(int64_t height, int64_t width, double least_area, AugmentRandom& random);
void flip(Image& image);
void shift(Image& image, int64_t down, int64_t right);
// Pillow's ImageEnhance: 1 leaves the image as it is.
void change_brightness(Image& image, double factor);
void change_contrast(Image& image, double factor);
void change_saturation(Image& image, double factor);
// torchvision's adjust_hue: by a part of the circle, -0.5 to 0.5, of the 256 that Pillow's HSV has, whose rounding
// changes colours a little at any turn.
void change_hue(Image& image, double turn);
void cut_out(Image& image, const std::array<uint8_t, 3>& fill, AugmentRandom& random);

}  // namespace halfstep
