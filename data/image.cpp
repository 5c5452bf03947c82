#include "data/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace halfstep {
namespace {

struct Form {
  std::string_view magic, name;
  size_t at = 0;  // where the magic stands
};
constexpr Form kOthers[] = {{"GIF8", "GIF"},        {"BM", "BMP"},       {"RIFF", "WebP"},       {{"II*\0", 4}, "TIFF"},
                            {{"MM\0*", 4}, "TIFF"}, {"ftyp", "HEIF", 4}, {"\xff\x0a", "JPEG XL"}};

// ITU-R 601, in integers.
uint8_t grey_of(const uint8_t* rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

uint8_t product(uint32_t a, uint32_t b) {  // a * b / 255, rounded
  const uint32_t t = a * b + 128;
  return static_cast<uint8_t>((t + (t >> 8)) >> 8);
}

Image with_channels(Image image, int64_t channels) {
  if (image.channels == channels) return image;
  const auto pixels = static_cast<size_t>(image.height * image.width);
  if (image.channels == 4) {
    Image rgb{image.height, image.width, 3, std::vector<uint8_t>(pixels * 3)};
    for (size_t i = 0; i < pixels; ++i) {
      const uint8_t* cmyk = image.pixels.data() + 4 * i;
      const uint32_t light = 255u - cmyk[3];
      for (size_t c = 0; c < 3; ++c) rgb.pixels[3 * i + c] = static_cast<uint8_t>(light - product(cmyk[c], light));
    }
    return with_channels(std::move(rgb), channels);
  }
  Image result{image.height, image.width, channels, std::vector<uint8_t>(pixels * static_cast<size_t>(channels))};
  for (size_t i = 0; i < pixels; ++i)
    if (channels == 1)
      result.pixels[i] = grey_of(image.pixels.data() + 3 * i);
    else
      std::fill_n(result.pixels.begin() + static_cast<std::ptrdiff_t>(3 * i), 3, image.pixels[i]);
  return result;
}

// As it is to be looked at: EXIF's orientations 2 to 8 are flips and turns.
Image upright(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool turned = orientation > 4;
  Image result{turned ? image.width : image.height, turned ? image.height : image.width, image.channels,
               std::vector<uint8_t>(image.pixels.size())};
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  for (int64_t y = 0; y < result.height; ++y)
    for (int64_t x = 0; x < result.width; ++x) {
      const int64_t row = turned ? x : y, column = turned ? y : x;
      const int64_t from_row = from_bottom ? image.height - 1 - row : row,
                    from_column = from_right ? image.width - 1 - column : column;
      std::copy_n(image.pixels.begin() + (from_row * image.width + from_column) * image.channels, image.channels,
                  result.pixels.begin() + (y * result.width + x) * image.channels);
    }
  return result;
}

}  // namespace

void check_image_size(uint64_t width, uint64_t height, int64_t most_pixels) {
  if (width == 0 || height == 0) throw Error(fmt::format("its size is {} x {}", width, height));
  if (height > static_cast<uint64_t>(most_pixels) / width)
    throw Error(fmt::format("its {} x {} pixels are more than max_image_pixels, {}", width, height, most_pixels));
}

Image decode_image(std::span<const std::byte> file, const std::string& name, int64_t channels,
                   int64_t most_pixels) try {
  const std::string_view head(reinterpret_cast<const char*>(file.data()), std::min<size_t>(file.size(), 16));
  if (head.starts_with("\x89PNG\r\n\x1a\n")) return with_channels(decode_png(file, most_pixels), channels);
  if (head.starts_with("\xff\xd8\xff")) {
    int orientation = 1;
    Image image = decode_jpeg(file, most_pixels, orientation);
    return upright(with_channels(std::move(image), channels), orientation);
  }
  if (file.empty()) throw Error("it is empty");
  for (const Form& form : kOthers)
    if (head.size() > form.at && head.substr(form.at).starts_with(form.magic))
      throw Error(fmt::format("it is {}: PNG and JPEG are read, convert it", form.name));
  throw Error("it is neither PNG nor JPEG");
} catch (const Error& e) {
  throw Error(name + ": " + e.what());
}

}  // namespace halfstep
