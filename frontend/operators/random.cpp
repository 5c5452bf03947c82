// Random numbers and what is made of them. They are drawn anew in every step, from the step's seed: attributes `seed`
// are not followed.
#include <cmath>
#include <numbers>

#include "frontend/import/operators.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {
namespace {

void ignore_seed(NodeContext& c) {
  if (c.has_attribute("seed"))
    c.importer().add_remark("random operators with a seed of their own draw from the run's seed, as all others");
  c.ignore({"seed"});
}

Value uniform(NodeContext& c, const Shape& shape) {
  return c.b.call("uniform", {c.step_seed(), c.step_iteration()},
                  {{"shape", shape}, {"site", c.importer().next_random_site()}});
}

// Box and Muller 1958, of 1 - u in (0, 1]: at most 5.8.
Value normal(NodeContext& c, const Shape& shape) {
  Builder& b = c.b;
  const Value u = uniform(c, shape), turn = uniform(c, shape);
  const Value radius = b.unary("sqrt", b.mul(b.unary("log", b.sub(b.constant_like(u, 1), u)), -2));
  return b.mul(radius, b.unary("cos", b.mul(turn, 2 * std::numbers::pi)));
}

// The type named by the attribute, or `otherwise`.
DType read_dtype(NodeContext& c, DType otherwise) {
  if (!c.has_attribute("dtype")) return otherwise;
  const int64_t code = c.integer("dtype");
  const std::optional<DType> type = element_type(static_cast<int32_t>(code));
  if (!type) c.fail("element type " + std::to_string(code) + " is not supported");
  return *type;
}

void require_floating(NodeContext& c) {
  if (!is_floating(read_dtype(c, DType::f32))) c.fail("a floating dtype expected");
}

// The attribute of an operator of fixed shape, or that of operand 0 of one that is like another.
Shape result_shape(NodeContext& c) {
  if (c.op_type().ends_with("Like")) return c.shape(0);
  const Shape shape = c.int_list("shape");
  for (int64_t size : shape)
    if (size < 0) c.fail("shape " + to_string(shape) + " has a negative entry");
  return shape;
}

Value scaled_and_shifted(Builder& b, Value v, double factor, double offset) {
  if (factor != 1) v = b.mul(v, factor);
  return offset == 0 ? v : b.add(v, offset);
}

std::vector<Value> import_random_uniform(NodeContext& c) {
  ignore_seed(c);
  require_floating(c);
  const double low = c.number("low", 0), high = c.number("high", 1);
  return {scaled_and_shifted(c.b, uniform(c, result_shape(c)), high - low, low)};
}

std::vector<Value> import_random_normal(NodeContext& c) {
  ignore_seed(c);
  require_floating(c);
  return {scaled_and_shifted(c.b, normal(c, result_shape(c)), c.number("scale", 1), c.number("mean", 0))};
}

std::vector<Value> import_bernoulli(NodeContext& c) {
  ignore_seed(c);
  const Value p = c.operand(0), drawn = uniform(c, c.shape(0));
  return {c.b.cast(c.b.binary("less", drawn, c.b.cast(p, DType::f32)), read_dtype(c, c.b.dtype(p)))};
}

// The largest of the log probabilities, each with noise of a Gumbel distribution: a draw from the categorical one.
std::vector<Value> import_multinomial(NodeContext& c) {
  ignore_seed(c);
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  const int64_t samples = c.integer("sample_size", 1);
  const DType type = read_dtype(c, DType::i32);
  if (shape.size() != 2 || shape[1] == 0) c.fail("log probabilities [N, classes] expected, found " + to_string(shape));
  if (samples < 1 || is_floating(type)) c.fail("sample_size or dtype is out of range");
  const Shape drawn{shape[0], samples, shape[1]};
  const Value noise = b.unary("log", b.unary("neg", b.unary("log", uniform(c, drawn))));
  const Value log_p = b.broadcast(b.reshape(b.cast(c.operand(0), DType::f32), {shape[0], 1, shape[1]}), drawn);
  const Value largest = b.call("argmax", {b.sub(log_p, noise)}, {{"axis", int64_t{2}}});
  return {b.cast(b.reshape(largest, {shape[0], samples}), type)};
}

std::vector<Value> import_dropout(NodeContext& c) {
  ignore_seed(c);
  Builder& b = c.b;
  const Value x = c.operand(0);
  const bool operands = c.version >= 12;
  const double exported = operands ? (c.has_operand(1) ? c.number(1, "ratio") : 0.5) : c.number("ratio", 0.5);
  const double ratio = c.importer().inputs().options.dropout.value_or(exported);
  const bool exported_active = operands && c.has_operand(2) && c.number(2, "training_mode") != 0;
  if (!(ratio >= 0 && ratio < 1)) c.fail("ratio " + std::to_string(ratio) + " is outside [0, 1)");
  if (ratio == 0 || !(c.training() || exported_active))
    return {x, b.broadcast(b.constant(DType::boolean, 1), b.shape(x))};
  const int64_t site = c.importer().next_random_site();
  const Value seed = c.step_seed(), iteration = c.step_iteration();
  const Value dropped = b.call("dropout", {x, seed, iteration}, {{"ratio", ratio}, {"site", site}});
  const Value u = b.call("uniform", {seed, iteration}, {{"shape", b.shape(x)}, {"site", site}});
  return {dropped, b.call("less_equal", {b.constant_like(u, ratio), u})};
}

constexpr std::string_view kSeed = "the seed is the step's";

const std::vector<OnnxOperator> kRows{
    {"Bernoulli", {15}, 1, 1, import_bernoulli, kSeed},
    {"Dropout", {7, 12}, 1, 3, import_dropout, "in training always active; the seed is the step's"},
    {"Multinomial", {7}, 1, 1, import_multinomial, kSeed},
    {"RandomNormal", {1}, 0, 0, import_random_normal, kSeed},
    {"RandomNormalLike", {1}, 1, 1, import_random_normal, kSeed},
    {"RandomUniform", {1}, 0, 0, import_random_uniform, kSeed},
    {"RandomUniformLike", {1}, 1, 1, import_random_uniform, kSeed},
};

}  // namespace

std::span<const OnnxOperator> random_operators() { return kRows; }

}  // namespace halfstep
