#include "data/resample.h"

#include <algorithm>
#include <cmath>

#include "base/clones.h"
#include "base/error.h"

namespace halfstep {
namespace {

constexpr int64_t kMostBytes = int64_t{1} << 30;  // of what is made of an image
constexpr int kFraction = 22;                     // bits behind the point of a weight: 8 of a pixel, and 2 to spare

// Which pixels along an axis a pixel of the result is made of, and how much of each.
struct Weights {
  struct Taps {
    int64_t first, count;
  };
  std::vector<Taps> taps;
  std::vector<int32_t> values;  // `most` for each
  int64_t most = 0;
};

Weights weights_of(int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to), support = std::max(scale, 1.0);
  Weights weights;
  weights.most = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  weights.values.resize(static_cast<size_t>(to * weights.most));
  std::vector<double> shares(static_cast<size_t>(weights.most));
  for (int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(std::floor(center - support + 0.5)), 0);
    const int64_t count = std::min(static_cast<int64_t>(std::floor(center + support + 0.5)), from) - first;
    double sum = 0;
    for (int64_t j = 0; j < count; ++j) {
      const double distance = std::abs((static_cast<double>(j + first) - center + 0.5) * (1.0 / support));
      shares[static_cast<size_t>(j)] = std::max(1 - distance, 0.0);
      sum += shares[static_cast<size_t>(j)];
    }
    int32_t* values = weights.values.data() + i * weights.most;
    for (int64_t j = 0; j < count; ++j) {
      const double share = sum != 0 ? shares[static_cast<size_t>(j)] / sum : shares[static_cast<size_t>(j)];
      values[j] = static_cast<int32_t>(std::floor(0.5 + share * (1 << kFraction)));
    }
    weights.taps.push_back({first, count});
  }
  return weights;
}

uint8_t rounded(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kFraction, 0, 255)); }

constexpr int32_t kHalf = 1 << (kFraction - 1);

// Rows [0, rows) of `from`, `stride` bytes apart, to width pixels each.
template <int64_t Channels>
void resize_rows(const uint8_t* from, int64_t stride, int64_t rows, const Weights& weights, uint8_t* to) {
  for (int64_t y = 0; y < rows; ++y, from += stride)
    for (size_t x = 0; x < weights.taps.size(); ++x) {
      const auto [first, count] = weights.taps[x];
      const int32_t* values = weights.values.data() + static_cast<int64_t>(x) * weights.most;
      const uint8_t* pixel = from + first * Channels;
      int32_t sums[Channels];
      std::fill_n(sums, Channels, kHalf);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t c = 0; c < Channels; ++c) sums[c] += pixel[i * Channels + c] * values[i];
      for (int64_t c = 0; c < Channels; ++c) *to++ = rounded(sums[c]);
    }
}

// Weighted sums of rows, each `bytes` long.
HALFSTEP_CLONES("avx2", "default")
void sum_rows(const uint8_t* __restrict from, int64_t count, int64_t bytes, const int32_t* __restrict values,
              int32_t* __restrict sums, uint8_t* __restrict to) {
  for (int64_t x = 0; x < bytes; ++x) sums[x] = kHalf;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t x = 0; x < bytes; ++x) sums[x] += from[i * bytes + x] * values[i];
  for (int64_t x = 0; x < bytes; ++x) {
    const int32_t value = sums[x] >> kFraction;
    to[x] = static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
  }
}

}  // namespace

Image resize(const Image& image, const ImagePart& part, int64_t height, int64_t width) {
  require(part.top >= 0 && part.left >= 0 && part.height > 0 && part.width > 0 && height > 0 && width > 0 &&
              part.top <= image.height - part.height && part.left <= image.width - part.width,
          "a part lies inside the image");
  require(image.channels == 1 || image.channels == 3, "an image is grey or has colours");
  const int64_t stride = image.width * image.channels, bytes = width * image.channels;
  // One long and narrow becomes much larger on its way.
  if (part.height > kMostBytes / bytes || height > kMostBytes / bytes)
    throw Error("its sides, " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                ", differ too much for one of " + std::to_string(width) + " x " + std::to_string(height));
  const uint8_t* begin = image.pixels.data() + part.top * stride + part.left * image.channels;
  std::vector<uint8_t> narrow(static_cast<size_t>(part.height * bytes));
  if (width == part.width) {
    for (int64_t y = 0; y < part.height; ++y) std::copy_n(begin + y * stride, bytes, narrow.data() + y * bytes);
  } else {
    const Weights weights = weights_of(part.width, width);
    image.channels == 1 ? resize_rows<1>(begin, stride, part.height, weights, narrow.data())
                        : resize_rows<3>(begin, stride, part.height, weights, narrow.data());
  }
  Image result{height, width, image.channels, std::move(narrow)};
  if (height == part.height) return result;
  const Weights weights = weights_of(part.height, height);
  std::vector<uint8_t> pixels(static_cast<size_t>(height * bytes));
  std::vector<int32_t> sums(static_cast<size_t>(bytes));
  for (int64_t y = 0; y < height; ++y) {
    const auto [first, count] = weights.taps[static_cast<size_t>(y)];
    sum_rows(result.pixels.data() + first * bytes, count, bytes, weights.values.data() + y * weights.most, sums.data(),
             pixels.data() + y * bytes);
  }
  result.pixels = std::move(pixels);
  return result;
}

}  // namespace halfstep
