#include "frontend/operators/activations.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "frontend/import/node_context.h"

namespace halfstep {
namespace {

Value affine(Builder& b, Value x, const Activation& a) { return b.add(b.mul(x, a.alpha), a.beta); }

Value clip(Builder& b, Value x, const Activation& a) {
  return b.binary("min", b.binary("max", x, b.constant_like(x, a.alpha)), b.constant_like(x, a.beta));
}

Value elu(Builder& b, Value x, const Activation& a) {
  return where_negative(b, x, b.mul(negative_curve(b, x), a.alpha), x);
}

Value hard_sigmoid(Builder& b, Value x, const Activation& a) {
  const Value line = affine(b, x, a);
  return b.binary("max", b.binary("min", line, b.constant_like(x, 1)), b.constant_like(x, 0));
}

Value hard_swish(Builder& b, Value x, const Activation&) { return b.mul(x, hard_sigmoid(b, x, {"", 1.0 / 6, 0.5})); }

Value leaky_relu(Builder& b, Value x, const Activation& a) { return where_negative(b, x, b.mul(x, a.alpha), x); }

Value thresholded_relu(Builder& b, Value x, const Activation& a) {
  return b.select(b.binary("less", b.constant_like(x, a.alpha), x), x, b.constant_like(x, 0));
}

Value scaled_tanh(Builder& b, Value x, const Activation& a) {
  return b.mul(b.unary("tanh", b.mul(x, a.beta)), a.alpha);
}

Value softsign(Builder& b, Value x, const Activation&) { return b.div(x, b.add(b.unary("abs", x), 1)); }

struct Row {
  std::string_view name;  // in lower case: the attribute is read without regard to case
  Value (*build)(Builder&, Value, const Activation&);
  std::optional<double> alpha, beta;  // the defaults of the coefficients that the function has
};

const Row kRows[] = {
    {"affine", affine, 1, 0},
    {"clip", clip, std::numeric_limits<float>::lowest(), std::numeric_limits<float>::max()},
    {"elu", elu, 1, {}},
    {"hardsigmoid", hard_sigmoid, 0.2, 0.5},
    {"hardswish", hard_swish, {}, {}},
    {"leakyrelu", leaky_relu, 0.01, {}},
    {"relu", [](Builder& b, Value x, const Activation&) { return b.unary("relu", x); }, {}, {}},
    {"scaledtanh", scaled_tanh, 1, 1},
    {"sigmoid", [](Builder& b, Value x, const Activation&) { return b.unary("sigmoid", x); }, {}, {}},
    {"softplus", [](Builder& b, Value x, const Activation&) { return b.unary("softplus", x); }, {}, {}},
    {"softsign", softsign, {}, {}},
    {"tanh", [](Builder& b, Value x, const Activation&) { return b.unary("tanh", x); }, {}, {}},
    {"thresholdedrelu", thresholded_relu, 1, {}},
};

std::string lower_case(std::string name) {
  for (char& letter : name) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  return name;
}

const Row* find_row(std::string_view name) {
  const auto* found = std::ranges::find(kRows, name, &Row::name);
  return found == std::end(kRows) ? nullptr : found;
}

}  // namespace

std::vector<Activation> read_activations(NodeContext& c, const std::vector<std::string>& defaults) {
  const std::vector<std::string> names = c.text_list("activations", defaults);
  const std::vector<double> alphas = c.number_list("activation_alpha"), betas = c.number_list("activation_beta");
  if (names.size() != defaults.size())
    c.fail(std::to_string(names.size()) + " activations given, " + std::to_string(defaults.size()) + " expected");
  auto alpha = alphas.begin(), beta = betas.begin();
  std::vector<Activation> result;
  for (const std::string& name : names) {
    Activation a{lower_case(name)};
    const Row* row = find_row(a.name);
    if (!row) c.fail("activation '" + name + "' is not known");
    if (row->alpha) a.alpha = alpha != alphas.end() ? *alpha++ : *row->alpha;
    if (row->beta) a.beta = beta != betas.end() ? *beta++ : *row->beta;
    result.push_back(std::move(a));
  }
  return result;
}

Activation activation_named(NodeContext& c, const std::string& name, const std::vector<double>& coefficients) {
  Activation a{lower_case(name)};
  const Row* row = find_row(a.name);
  if (!row) c.fail("activation '" + name + "' is not known");
  auto next = coefficients.begin();
  if (row->alpha) a.alpha = next != coefficients.end() ? *next++ : *row->alpha;
  if (row->beta) a.beta = next != coefficients.end() ? *next++ : *row->beta;
  if (next != coefficients.end())
    c.fail("activation '" + name + "' takes no " + std::to_string(coefficients.size()) + " coefficients");
  return a;
}

Value activate(Builder& b, Value x, const Activation& activation) {
  const Row* row = find_row(activation.name);
  require(row != nullptr, "an activation comes from the table");
  return row->build(b, x, activation);
}

Value activate(NodeContext& c) {
  Activation a{lower_case(c.op_type())};
  const Row* row = find_row(a.name);
  require(row != nullptr, "the operator is in the table");
  if (row->alpha) a.alpha = c.number("alpha", *row->alpha);
  if (row->beta) a.beta = c.number("beta", *row->beta);
  return row->build(c.b, c.operand(0), a);
}

Value swish(NodeContext& c, double default_alpha) {
  const Value x = c.operand(0);
  const double alpha = c.number("alpha", default_alpha);
  if (alpha == 1) return c.b.unary("silu", x);
  return c.b.mul(x, c.b.unary("sigmoid", c.b.mul(x, alpha)));
}

Value where_negative(Builder& b, Value x, Value if_negative, Value otherwise) {
  return b.select(b.binary("less", x, b.constant_like(x, 0)), if_negative, otherwise);
}

Value negative_curve(Builder& b, Value x) { return b.unary("expm1", b.binary("min", x, b.constant_like(x, 0))); }

}  // namespace halfstep
