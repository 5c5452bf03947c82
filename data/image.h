// Pictures as bytes, and how they come out of PNG and JPEG files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace halfstep {

struct Image {
  int64_t height = 0, width = 0, channels = 0;  // 1: grey, 3: red, green, blue
  std::vector<uint8_t> pixels;                  // [height, width, channels]
};

// The picture of a PNG or JPEG file, grey or in colour as asked for, upright as EXIF says. Colour becomes grey as ITU-R
// 601 weighs it; transparency is left out; 16 bits become 8; a palette and CMYK become colours. Throws Error beginning
// with `name` where the file is of another form, corrupt or cut off, or has more than `most_pixels`, which is known
// before anything is allocated.
Image decode_image(std::span<const std::byte> file, const std::string& name, int64_t channels, int64_t most_pixels);

// The decoders, without rotation: an image of 1, 3 or (CMYK) 4 channels as the file has it. `orientation` is EXIF's, 1
// to 8. What is wrong is thrown as an Error without the file's name.
Image decode_png(std::span<const std::byte> file, int64_t most_pixels);
Image decode_jpeg(std::span<const std::byte> file, int64_t most_pixels, int& orientation);
// Error where the size is none, or more than `most_pixels`.
void check_image_size(uint64_t width, uint64_t height, int64_t most_pixels);

}  // namespace halfstep
