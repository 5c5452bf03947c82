#include "data/mix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "data/image_loader.h"

namespace halfstep {
namespace {

// Keeps these random numbers apart from those of each sample.
constexpr uint64_t kMixKey = 0x78696d2068637461;
constexpr int64_t kBytesWorthAThread = 1 << 20;

double draw_normal(AugmentRandom& random) {
  const double radius = std::sqrt(-2 * std::log(1 - random.unit()));
  return radius * std::cos(2 * std::numbers::pi * random.unit());
}

// Its logarithm, of Gamma(a, 1), a >= 1 (Marsaglia and Tsang 2000).
double draw_log_gamma(double a, AugmentRandom& random) {
  const double d = a - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = draw_normal(random), root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log(1 - random.unit()) < x * x / 2 + d - d * v + d * std::log(v)) return std::log(d * v);
  }
}

template <typename T>
T mixed(T own, T partner, float share, float rest) {
  const float value = static_cast<float>(own) * share + static_cast<float>(partner) * rest;
  // Adding 2^23 leaves an f32 of this size no fraction: nearbyint, which is a call where there is no SSE 4.1.
  if constexpr (std::is_same_v<T, uint8_t>) return static_cast<uint8_t>(value + 0x1p23f - 0x1p23f);
  return static_cast<T>(value);
}

// Both of a pair at once.
template <typename T>
void mix_pair(T* a, T* b, int64_t elements, float share, float rest) {
  for (int64_t i = 0; i < elements; ++i) {
    const T x = a[i], y = b[i];
    a[i] = mixed(x, y, share, rest), b[i] = mixed(y, x, share, rest);
  }
}

void mix_pair(std::byte* a, std::byte* b, DType dtype, int64_t elements, float share, float rest) {
  if (dtype == DType::u8)
    return mix_pair(reinterpret_cast<uint8_t*>(a), reinterpret_cast<uint8_t*>(b), elements, share, rest);
  if (dtype == DType::f32)
    return mix_pair(reinterpret_cast<float*>(a), reinterpret_cast<float*>(b), elements, share, rest);
  const int64_t size = size_of(dtype);
  for (int64_t i = 0; i < elements; ++i) {
    const auto x = static_cast<float>(load_as_double(dtype, a + i * size)),
               y = static_cast<float>(load_as_double(dtype, b + i * size));
    store_from_double(dtype, a + i * size, mixed(x, y, share, rest));
    store_from_double(dtype, b + i * size, mixed(y, x, share, rest));
  }
}

void swap_part(std::byte* a, std::byte* b, int64_t pixel_bytes, const MixGeometry& g, const ImagePart& part) {
  for (int64_t plane = 0; plane < g.planes; ++plane)
    for (int64_t y = part.top; y < part.top + part.height; ++y) {
      const int64_t at = ((plane * g.height + y) * g.width + part.left) * pixel_bytes;
      std::swap_ranges(a + at, a + at + part.width * pixel_bytes, b + at);
    }
}

}  // namespace

double draw_beta(double a, AugmentRandom& random) {
  // A gamma of a below 1 is one of a + 1 times u^(1/a), which only its logarithm holds where a is small.
  const auto log_gamma = [&] {
    if (a >= 1) return draw_log_gamma(a, random);
    const double more = draw_log_gamma(a + 1, random);
    return more + std::log(1 - random.unit()) / a;
  };
  const double x = log_gamma(), y = log_gamma();
  return 1 / (1 + std::exp(y - x));
}

ImagePart cut_part(const MixGeometry& g, double share, int64_t y, int64_t x) {
  const double side = std::sqrt(1 - share);
  const auto height = static_cast<int64_t>(static_cast<double>(g.height) * side),
             width = static_cast<int64_t>(static_cast<double>(g.width) * side);
  const int64_t top = std::max<int64_t>(y - height / 2, 0), left = std::max<int64_t>(x - width / 2, 0);
  return {top, left, std::min(y + (height + 1) / 2, g.height) - top, std::min(x + (width + 1) / 2, g.width) - left};
}

BatchMix draw_mix(const MixOptions& options, const MixGeometry& g, uint64_t seed, int64_t iteration) {
  AugmentRandom random(seed ^ kMixKey, 0, iteration);
  BatchMix mix;
  mix.cuts = options.cutmix > 0 && (options.mixup == 0 || random.unit() < 0.5);
  const double share = draw_beta(mix.cuts ? options.cutmix : options.mixup, random);
  if (!mix.cuts) {
    mix.share = static_cast<float>(share);
    return mix;
  }
  const int64_t y = random.below(g.height), x = random.below(g.width);
  mix.part = cut_part(g, share, y, x);
  const auto area = static_cast<double>(mix.part.height * mix.part.width);
  mix.share = static_cast<float>(1 - area / static_cast<double>(g.height * g.width));
  return mix;
}

void mix_batch(std::span<std::byte> samples, DType dtype, int64_t batch, const MixGeometry& g, const BatchMix& mix) {
  const int64_t bytes = g.elements() * size_of(dtype);
  require(static_cast<int64_t>(samples.size()) == batch * bytes, "a batch has the size of its samples");
  if (mix.share == 1) return;
  const auto share = static_cast<float>(mix.share), rest = 1 - share;
  const auto mix_rows = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::byte *a = samples.data() + row * bytes, *b = samples.data() + (batch - 1 - row) * bytes;
      if (mix.cuts)
        swap_part(a, b, g.depth * size_of(dtype), g, mix.part);
      else
        mix_pair(a, b, dtype, g.elements(), share, rest);
    }
  };
  parallel_stretches(batch / 2, mix_rows, kBytesWorthAThread / std::max<int64_t>(2 * bytes, 1));
}

BatchMixer::BatchMixer(const MixOptions& options, size_t share_input, Problems& problems)
    : options_(options), share_input_(share_input) {
  constexpr double kLeast = 0.001;  // below it every share is 0 or 1
  for (const auto& [key, alpha] : {std::pair{"mixup", options.mixup}, {"cutmix", options.cutmix}})
    if (alpha != 0 && alpha < kLeast) problems.add(std::string(key) + ": 0, or at least 0.001 expected");
}

void BatchMixer::add(const Buffer& input, size_t place, Problems& problems) {
  const std::string where =
      std::string(options_.cutmix > 0 ? "cutmix" : "mixup") + ": input '" + input.name.text + "' ";
  const Shape& shape = input.type.shape;
  if (!is_floating(input.type.dtype) && !takes_images(input)) {
    problems.add(where + "takes " + to_string(input.type) + ", and images or floating numbers are mixed: leave it out");
    return;
  }
  if (shape[0] == 1) problems.add(where + "takes a batch of 1, which has nothing to mix with: choose a larger batch");
  Input mixed{place, input.type.dtype, shape[0], {}};
  mixed.geometry.planes = input.type.element_count() / shape[0];
  if (options_.cutmix > 0 && (shape.size() < 3 || shape.size() > 4)) {
    problems.add(where + "takes " + to_string(input.type) +
                 ", and a part is cut out of [batch, channels, height, width], [batch, height, width, channels] or "
                 "[batch, height, width]: take mixup");
    return;
  }
  if (options_.cutmix > 0 && !inputs_.empty())
    problems.add(where + "is the second that would be mixed, and cutmix takes one: leave it out");
  if (options_.cutmix > 0) {
    const auto is_channels = [](int64_t size) { return size == 1 || size == 3; };
    const bool last = shape.size() == 4 && !is_channels(shape[1]) && is_channels(shape[3]);
    const size_t height = shape.size() == 3 || last ? 1 : 2;
    mixed.geometry = {.planes = height == 1 ? 1 : shape[1],
                      .height = shape[height],
                      .width = shape[height + 1],
                      .depth = last ? shape[3] : 1};
  }
  inputs_.push_back(mixed);
}

BatchMix BatchMixer::draw(uint64_t seed, int64_t iteration) const {
  if (inputs_.empty()) return {};
  return draw_mix(options_, inputs_.front().geometry, seed, iteration);
}

void BatchMixer::apply(const BatchMix& mix, std::span<const std::span<std::byte>> staging) const {
  for (const Input& input : inputs_) mix_batch(staging[input.place], input.dtype, input.batch, input.geometry, mix);
  const auto share = static_cast<float>(mix.share);
  require(staging[share_input_].size() == sizeof share, "staging span has the input's size");
  std::memcpy(staging[share_input_].data(), &share, sizeof share);
}

}  // namespace halfstep
