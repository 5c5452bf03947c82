// Activation functions by name: operators of their own, and what recurrent layers name in an attribute.
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

// The function of that name with its coefficients in order, the others their defaults. Error if there is none.
Activation activation_named(NodeContext& c, const std::string& name, const std::vector<double>& coefficients);
Value activate(Builder& b, Value x, const Activation& activation);
// What the operator of that name makes of operand 0, with its attributes 'alpha' and 'beta'.
Value activate(NodeContext& c);
// x * sigmoid(alpha * x), with the attribute 'alpha'.
Value swish(NodeContext& c, double default_alpha);

Value where_negative(Builder& b, Value x, Value if_negative, Value otherwise);
// e^x - 1 of what is negative, 0 elsewhere: of a large positive x it would overflow, and its gradient be 0 * inf.
Value negative_curve(Builder& b, Value x);

}  // namespace halfstep
