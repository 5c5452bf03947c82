// The activations that recurrent layers name in an attribute.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/builder.h"

namespace halfstep {

class NodeContext;

struct Activation {
  std::string name;  // in lower case
  double alpha = 0, beta = 0;
};

// The attribute 'activations' with the coefficients of 'activation_alpha' and 'activation_beta', which the functions
// that have such a coefficient take in turn; `defaults` where the attribute is left out. Error if their number differs.
std::vector<Activation> read_activations(NodeContext& c, const std::vector<std::string>& defaults);

Value activate(Builder& b, Value x, const Activation& activation);

}  // namespace halfstep
