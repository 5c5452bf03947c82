#include "frontend/fresh.h"

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

double unit(uint32_t word) { return static_cast<double>(word >> 8) * 0x1p-24; }  // in [0, 1)

PhiloxBlock block(uint64_t seed, uint64_t name, uint64_t index) {
  return philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(name),
                 static_cast<uint32_t>(name >> 32)},
                seed);
}

// The sum of twelve uniform numbers, less 6: variance 1, and only exact arithmetic.
double near_normal(uint64_t seed, uint64_t name, uint64_t index) {
  double sum = -6;
  for (uint64_t i = 0; i < 3; ++i)
    for (uint32_t word : block(seed, name, 3 * index + i)) sum += unit(word);
  return sum;
}

}  // namespace

FreshRule fan_in_uniform(int64_t fan_in) {
  return {FreshRule::uniform, fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0};
}

FreshRule default_rule(const Shape& shape) {
  if (shape.size() < 2) return {FreshRule::constant, 0};
  return fan_in_uniform(TensorType{DType::f32, Shape(shape.begin() + 1, shape.end())}.element_count());
}

Tensor fresh_tensor(const TensorType& type, FreshRule rule, uint64_t seed, std::string_view name) {
  Tensor tensor(type);
  const uint64_t hash = stable_hash(name);
  const auto value = [&](int64_t i) {
    const auto index = static_cast<uint64_t>(i);
    switch (rule.kind) {
      case FreshRule::constant:
        return rule.parameter;
      case FreshRule::uniform:
        return rule.parameter * (2 * unit(block(seed, hash, index)[0]) - 1);
      case FreshRule::normal:
        return rule.parameter * near_normal(seed, hash, index);
    }
    return 0.0;
  };
  parallel_stretches(type.element_count(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) tensor.set(i, value(i));
  });
  return tensor;
}

}  // namespace halfstep
