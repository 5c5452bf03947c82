// Fresh weights: counter-based, so that a seed and a name give the same values on every machine and in any order.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/tensor.h"

namespace halfstep {

struct Initializer {
  enum Kind : uint8_t { constant, uniform, normal } kind = constant;
  double parameter = 0;  // the value; the bound of [-bound, bound); the standard deviation
  // What it is to its operator, for schemes that draw such otherwise (initial_scheme.h); layer: a product.
  enum Role : uint8_t { other, layer, layer_bias, convolution, convolution_bias, table } role = other;
  int64_t fan_in = 0, fan_out = 0;  // of the weights
  friend bool operator==(const Initializer&, const Initializer&) = default;
};

// He et al. 2015 with a = sqrt(5), the default of PyTorch's linear and convolution layers, for weight and bias.
Initializer fan_in_uniform(int64_t fan_in, Initializer::Role role = Initializer::other, int64_t fan_out = 0);
// For a parameter whose operator has no rule of its own: vectors 0, matrices by the product of their trailing axes.
Initializer default_rule(const Shape& shape);

Tensor fresh_tensor(const TensorType& type, Initializer rule, uint64_t seed, std::string_view name);

}  // namespace halfstep
