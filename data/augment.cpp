#include "data/augment.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/philox.h"

namespace halfstep {
namespace {

// Keeps these random numbers apart from the others of the seed.
constexpr uint64_t kAugmentKey = 0x7365676e61686320;
constexpr int kAttempts = 10;
constexpr int64_t kMostElongated = 1000;

uint8_t grey_of(const uint8_t* rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

// Pillow's blend: from `from` (factor 0) over `to` (factor 1) and beyond, towards zero.
uint8_t blend(uint8_t from, uint8_t to, float factor) {
  const float value = static_cast<float>(from) + factor * static_cast<float>(static_cast<int>(to) - from);
  return static_cast<uint8_t>(std::clamp(value, 0.0f, 255.0f));
}

// Python's round of a half: to the even one.
int64_t half_of(int64_t rest) {
  const int64_t half = rest / 2;
  return rest % 2 == 0 ? half : half + half % 2;
}

// Pillow's conversion to and from HSV in bytes (after Python's colorsys), in its mixture of float and double.
struct Hsv {
  uint8_t hue = 0, saturation = 0, value = 0;
};

Hsv hsv_of(const uint8_t* rgb) {
  const int r = rgb[0], g = rgb[1], b = rgb[2], most = std::max({r, g, b}), least = std::min({r, g, b});
  if (most == least) return {0, 0, static_cast<uint8_t>(most)};
  const auto range = static_cast<float>(most - least);
  const float saturation = range / static_cast<float>(most), rc = static_cast<float>(most - r) / range,
              gc = static_cast<float>(most - g) / range, bc = static_cast<float>(most - b) / range;
  float hue = r == most ? bc - gc : g == most ? static_cast<float>(2.0 + rc - bc) : static_cast<float>(4.0 + gc - rc);
  hue = static_cast<float>(std::fmod(hue / 6.0 + 1.0, 1.0));
  return {static_cast<uint8_t>(hue * 255.0), static_cast<uint8_t>(saturation * 255.0), static_cast<uint8_t>(most)};
}

std::array<uint8_t, 3> rgb_of(const Hsv& hsv) {
  const uint8_t v = hsv.value;
  if (hsv.saturation == 0) return {v, v, v};
  const double sixths = hsv.hue * 6.0 / 255.0;
  const int sixth = static_cast<int>(sixths);
  const auto f = static_cast<float>(sixths - sixth), saturation = static_cast<float>(hsv.saturation / 255.0);
  const auto part = [v](double share) { return static_cast<uint8_t>(std::clamp(std::round(v * share), 0.0, 255.0)); };
  const uint8_t p = part(1.0 - saturation), q = part(1.0 - saturation * f), t = part(1.0 - saturation * (1.0 - f));
  const std::array<uint8_t, 3> of_sixth[] = {{v, t, p}, {q, v, p}, {p, v, t}, {p, q, v}, {t, p, v}, {v, p, q}};
  return of_sixth[sixth % 6];
}

// In an order by chance, as ColorJitter does them.
void change_colours(Image& image, const AugmentOptions& o, AugmentRandom& random) {
  struct Change {
    void (*make)(Image&, double);
    double least, most;
  };
  std::vector<Change> changes;
  if (o.color) changes = {{change_brightness, 0.6, 1.4}, {change_contrast, 0.6, 1.4}, {change_saturation, 0.6, 1.4}};
  if (o.hue) changes.push_back({change_hue, -0.1, 0.1});
  for (size_t i = changes.size(); i-- > 1;)
    std::swap(changes[i], changes[static_cast<size_t>(random.below(static_cast<int64_t>(i) + 1))]);
  for (const Change& change : changes) change.make(image, random.between(change.least, change.most));
}

Image middle(const Image& image, int64_t height, int64_t width) {
  const ImagePart part{half_of(image.height - height), half_of(image.width - width), height, width};
  return resize(image, part, height, width);
}

}  // namespace

double AugmentRandom::unit() {
  const PhiloxBlock block =
      philox({drawn_++, static_cast<uint32_t>(place_),
              static_cast<uint32_t>(place_ >> 32) ^ static_cast<uint32_t>(epoch_ >> 32), static_cast<uint32_t>(epoch_)},
             seed_ ^ kAugmentKey);
  return static_cast<double>((uint64_t{block[1]} << 32 | block[0]) >> 11) * 0x1p-53;
}

int64_t AugmentRandom::below(int64_t limit) {
  return std::min(static_cast<int64_t>(unit() * static_cast<double>(limit)), limit - 1);
}

AugmentOptions augment_options(const std::vector<std::string>& names, double crop_scale) {
  AugmentOptions options;
  options.crop_scale = crop_scale;
  const std::pair<const char*, bool AugmentOptions::*> kNames[] = {
      {"crop", &AugmentOptions::crop},   {"flip", &AugmentOptions::flip}, {"shift", &AugmentOptions::shift},
      {"color", &AugmentOptions::color}, {"hue", &AugmentOptions::hue},   {"cutout", &AugmentOptions::cutout}};
  Problems problems;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(kNames, name, [](const auto& entry) { return std::string(entry.first); });
    if (found != std::end(kNames)) {
      options.*found->second = true;
      continue;
    }
    const std::string near = nearest(name, {"crop", "flip", "shift", "color", "hue", "cutout"});
    problems.add("augment: crop, flip, shift, color, hue or cutout expected, found '" + name + "'" +
                 (near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  problems.throw_if_any();
  return options;
}

ImagePart random_part(int64_t height, int64_t width, double least_area, AugmentRandom& random) {
  const double area = static_cast<double>(height) * static_cast<double>(width);
  const double narrowest = std::log(3.0 / 4), widest = std::log(4.0 / 3);
  for (int i = 0; i < kAttempts; ++i) {
    const double target = area * random.between(least_area, 1), ratio = std::exp(random.between(narrowest, widest));
    const auto w = static_cast<int64_t>(std::nearbyint(std::sqrt(target * ratio))),
               h = static_cast<int64_t>(std::nearbyint(std::sqrt(target / ratio)));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    const int64_t top = random.below(height - h + 1), left = random.below(width - w + 1);
    return {top, left, h, w};
  }
  // The largest one of the middle that is neither too narrow nor too wide.
  int64_t w = width, h = height;
  if (const double ratio = static_cast<double>(width) / static_cast<double>(height); ratio < 3.0 / 4)
    h = std::max<int64_t>(static_cast<int64_t>(std::nearbyint(static_cast<double>(width) / 0.75)), 1);
  else if (ratio > 4.0 / 3)
    w = std::max<int64_t>(static_cast<int64_t>(std::nearbyint(static_cast<double>(height) * 4 / 3)), 1);
  h = std::min(h, height), w = std::min(w, width);
  return {(height - h) / 2, (width - w) / 2, h, w};
}

void flip(Image& image) {
  for (int64_t y = 0; y < image.height; ++y) {
    uint8_t* row = image.pixels.data() + y * image.width * image.channels;
    for (int64_t x = 0; x < image.width / 2; ++x)
      std::swap_ranges(row + x * image.channels, row + (x + 1) * image.channels,
                       row + (image.width - 1 - x) * image.channels);
  }
}

void shift(Image& image, int64_t down, int64_t right) {
  std::vector<uint8_t> moved(image.pixels.size());
  const int64_t width = std::max<int64_t>(image.width - std::abs(right), 0);
  for (int64_t y = std::max<int64_t>(down, 0); y < std::min(image.height + down, image.height); ++y)
    std::copy_n(image.pixels.begin() + ((y - down) * image.width + std::max<int64_t>(-right, 0)) * image.channels,
                width * image.channels,
                moved.begin() + (y * image.width + std::max<int64_t>(right, 0)) * image.channels);
  image.pixels = std::move(moved);
}

void change_brightness(Image& image, double factor) {
  for (uint8_t& value : image.pixels) value = blend(0, value, static_cast<float>(factor));
}

void change_contrast(Image& image, double factor) {
  uint64_t sum = 0;
  const auto pixels = static_cast<size_t>(image.height * image.width);
  for (size_t i = 0; i < pixels; ++i)
    sum += image.channels == 1 ? image.pixels[i] : grey_of(image.pixels.data() + 3 * i);
  const auto mean = static_cast<uint8_t>(std::floor(static_cast<double>(sum) / static_cast<double>(pixels) + 0.5));
  for (uint8_t& value : image.pixels) value = blend(mean, value, static_cast<float>(factor));
}

void change_saturation(Image& image, double factor) {
  if (image.channels == 1) return;
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    const uint8_t grey = grey_of(image.pixels.data() + i);
    for (size_t c = 0; c < 3; ++c) image.pixels[i + c] = blend(grey, image.pixels[i + c], static_cast<float>(factor));
  }
}

void change_hue(Image& image, double turn) {
  if (image.channels == 1) return;
  const auto by = static_cast<uint8_t>(static_cast<int32_t>(turn * 255));
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    Hsv hsv = hsv_of(image.pixels.data() + i);
    hsv.hue = static_cast<uint8_t>(hsv.hue + by);
    std::ranges::copy(rgb_of(hsv), image.pixels.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void cut_out(Image& image, const std::array<uint8_t, 3>& fill, AugmentRandom& random) {
  const double area = static_cast<double>(image.height) * static_cast<double>(image.width);
  for (int i = 0; i < kAttempts; ++i) {
    const double target = area * random.between(0.02, 0.33);
    const double ratio = std::exp(random.between(std::log(0.3), std::log(3.3)));
    const auto h = static_cast<int64_t>(std::nearbyint(std::sqrt(target * ratio))),
               w = static_cast<int64_t>(std::nearbyint(std::sqrt(target / ratio)));
    if (h < 1 || w < 1 || h >= image.height || w >= image.width) continue;
    const int64_t top = random.below(image.height - h + 1), left = random.below(image.width - w + 1);
    for (int64_t y = top; y < top + h; ++y)
      for (int64_t x = left; x < left + w; ++x)
        std::copy_n(fill.begin(), image.channels, image.pixels.begin() + (y * image.width + x) * image.channels);
    return;
  }
}

Image fitted(const Image& image, const ImageGeometry& g) {
  const ImagePart whole{0, 0, image.height, image.width};
  if (g.stretch) return resize(image, whole, g.height, g.width);
  // Both sides must reach the input's.
  int64_t shorter = std::max(g.resize, int64_t{1});
  const int64_t least = std::min(image.height, image.width), longest = std::max(image.height, image.width);
  const auto longer = [&](int64_t side) {
    return static_cast<int64_t>(static_cast<double>(side) * static_cast<double>(longest) / static_cast<double>(least));
  };
  if (g.resize == 0) {
    const bool tall = image.height >= image.width;
    const int64_t of_short = tall ? g.width : g.height, of_long = tall ? g.height : g.width;
    shorter = of_short;
    if (longest > kMostElongated * least)
      throw Error("its sides, " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                  ", differ too much");
    while (longer(shorter) < of_long) ++shorter;
  }
  const int64_t height = image.height <= image.width ? shorter : longer(shorter),
                width = image.height <= image.width ? longer(shorter) : shorter;
  if (height < g.height || width < g.width)
    throw Error("resized to " + std::to_string(height) + " x " + std::to_string(width) +
                " it is smaller than the model's input, " + std::to_string(g.height) + " x " + std::to_string(g.width) +
                ": choose a larger resize, or image_fit stretch");
  return middle(resize(image, whole, height, width), g.height, g.width);
}

Image augmented(const Image& image, const ImageGeometry& g, const AugmentOptions& o, AugmentRandom random) {
  Image result = o.crop ? resize(image, random_part(image.height, image.width, o.crop_scale, random), g.height, g.width)
                        : fitted(image, g);
  if (o.flip && random.unit() < 0.5) flip(result);
  if (o.shift) {
    const int64_t down = g.height / 8, right = g.width / 8;
    const int64_t by_rows = random.below(2 * down + 1) - down, by_columns = random.below(2 * right + 1) - right;
    shift(result, by_rows, by_columns);
  }
  if (o.color || o.hue) change_colours(result, o, random);
  if (o.cutout && random.unit() < 0.5) cut_out(result, o.fill, random);
  return result;
}

}  // namespace halfstep
