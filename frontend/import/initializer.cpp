#include "frontend/import/initializer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/parallel.h"
#include "base/philox.h"

namespace halfstep {
namespace {

// FNV-1a: a stable hash, unlike std::hash.
uint64_t stable_hash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

PhiloxBlock block(uint64_t seed, uint64_t name, int64_t index) {
  const auto i = static_cast<uint64_t>(index);
  return philox({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), static_cast<uint32_t>(name),
                 static_cast<uint32_t>(name >> 32)},
                seed);
}

constexpr int64_t kGroup = 4;  // values that are drawn together
using Group = std::array<double, kGroup>;

// In [-1, 1): the words of one block.
Group uniform_group(uint64_t seed, uint64_t name, int64_t group) {
  Group values;
  const PhiloxBlock words = block(seed, name, group);
  for (size_t i = 0; i < words.size(); ++i) values[i] = static_cast<double>(words[i] >> 8) * 0x1p-23 - 1;
  return values;
}

// Sums of twelve uniform numbers, less their mean: variance 1, and only exact arithmetic. The halves of the words of
// three blocks are two sums.
Group near_normal_group(uint64_t seed, uint64_t name, int64_t group) {
  Group values;
  for (int64_t pair = 0; pair < kGroup / 2; ++pair) {
    uint32_t low = 0, high = 0;
    for (int64_t i = 0; i < 3; ++i)
      for (uint32_t word : block(seed, name, 3 * (kGroup / 2 * group + pair) + i))
        low += word & 0xffff, high += word >> 16;
    const auto centred = [](uint32_t sum) { return (static_cast<double>(sum) + 6) * 0x1p-16 - 6; };
    values[static_cast<size_t>(2 * pair)] = centred(low);
    values[static_cast<size_t>(2 * pair + 1)] = centred(high);
  }
  return values;
}

Group draw(Initializer::Kind kind, uint64_t seed, uint64_t name, int64_t group) {
  switch (kind) {
    case Initializer::uniform:
      return uniform_group(seed, name, group);
    case Initializer::normal:
      return near_normal_group(seed, name, group);
    case Initializer::constant:
      break;
  }
  return {1, 1, 1, 1};
}

}  // namespace

Initializer fan_in_uniform(int64_t fan_in, Initializer::Role role, int64_t fan_out) {
  return {Initializer::uniform, fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0, role, fan_in, fan_out};
}

Initializer default_rule(const Shape& shape) {
  if (shape.size() < 2) return {Initializer::constant, 0};
  return fan_in_uniform(TensorType{DType::f32, Shape(shape.begin() + 1, shape.end())}.element_count());
}

Tensor fresh_tensor(const TensorType& type, Initializer rule, uint64_t seed, std::string_view name) {
  Tensor tensor(type);
  const uint64_t hash = stable_hash(name);
  const int64_t count = type.element_count();
  float* const floats = type.dtype == DType::f32 ? tensor.as<float>().data() : nullptr;
  parallel_stretches((count + kGroup - 1) / kGroup, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const Group values = draw(rule.kind, seed, hash, group);
      for (int64_t i = kGroup * group; i < std::min(count, kGroup * (group + 1)); ++i) {
        const double value = rule.parameter * values[static_cast<size_t>(i - kGroup * group)];
        if (floats)
          floats[i] = static_cast<float>(value);
        else
          tensor.set(i, value);
      }
    }
  });
  return tensor;
}

}  // namespace halfstep
