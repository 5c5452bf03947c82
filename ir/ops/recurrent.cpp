// Recurrent layers as one call of a library. The import makes it of plain ones where the target has such a library;
// elsewhere, and in all other forms, layers are unrolled there (frontend/operators/recurrent.cpp).
#include "ir/recurrent.h"

#include <algorithm>

#include "ir/gradients.h"
#include "ir/ops/families.h"
#include "ir/views.h"

namespace halfstep {
namespace {

using ops::expect;
using ops::rank;

Shape y_shape(const RecurrentSizes& s) { return {s.steps, s.batch, s.directions * s.hidden}; }
Shape state_shape(const RecurrentSizes& s) { return {s.layers * s.directions, s.batch, s.hidden}; }

// What cuDNN's standard algorithm keeps of a step for its gradient, in bytes, rounded up: of each layer its gates, an
// lstm's c and a gru's gates of the state, and what one layer gives the next (cuDNN 9.19; the runtime asks the
// library).
int64_t reserve_bytes(const RecurrentSizes& s, DType type) {
  constexpr int64_t kRounding = 4096;
  const int64_t gates = s.rows() / s.hidden, kept = s.has_c() ? gates + 1 : gates == 1 ? 1 : 2 * gates;
  const int64_t values = s.steps * s.batch * s.hidden * s.directions;
  return values * (kept * s.layers + s.layers - 1) * size_of(type) + kRounding;
}

void check_operands(const TypeContext& c, const RecurrentSizes& s, size_t x, size_t weights, size_t states) {
  const DType type = c.operand(x).dtype;
  const auto check = [&](size_t i, const char* what, const TensorType& expected) {
    if (i < c.operands.size() && c.operands[i])
      expect(c.operand(i) == expected, [&] {
        return std::string(what) + " " + to_string(expected) + " expected, found " + to_string(c.operand(i));
      });
  };
  check(weights, "weights", {type, {weight_count(s)}});
  check(states, "h", {type, state_shape(s)});
  check(states + 1, "c", {type, state_shape(s)});
  expect(s.has_c() || states + 1 >= c.operands.size() || !c.operands[states + 1], "c belongs to an lstm");
}

// Results y, the last h, of an lstm the last c, and what the gradient wants.
std::vector<TensorType> recurrent_type(const TypeContext& c) {
  const RecurrentSizes s = recurrent_sizes(c.attributes, c.operand(0));
  const DType type = c.operand(0).dtype;
  check_operands(c, s, 0, 1, 2);
  std::vector<TensorType> results{{type, y_shape(s)}, {type, state_shape(s)}};
  if (s.has_c()) results.push_back({type, state_shape(s)});
  results.push_back({DType::u8, {c.attributes.integer("training") != 0 ? reserve_bytes(s, type) : 0}});
  return results;
}

// Operands of recurrent_grad.
enum GradOperand : size_t { kDy, kDh, kDc, kX, kWeights, kY, kReserve, kH, kC };

// Results dx, dweights, and dh and dc where there are h and c.
std::vector<TensorType> recurrent_grad_type(const TypeContext& c) {
  const RecurrentSizes s = recurrent_sizes(c.attributes, c.operand(kX));
  const DType type = c.operand(kX).dtype;
  check_operands(c, s, kX, kWeights, kH);
  const TensorType y{type, y_shape(s)}, state{type, state_shape(s)};
  const auto is = [&](size_t i, const TensorType& expected) { return !c.operands[i] || c.operand(i) == expected; };
  expect(is(kDy, y) && is(kY, y) && is(kDh, state) && is(kDc, state),
         [&] { return "dy and y " + to_string(y) + ", dh and dc " + to_string(state) + " expected"; });
  expect(c.operand(kReserve).dtype == DType::u8 && rank(c.operand(kReserve)) == 1, "reserve u8[bytes] expected");
  std::vector<TensorType> results{c.operand(kX), c.operand(kWeights)};
  for (const GradOperand i : {kH, kC})
    if (i < c.operands.size() && c.operands[i]) results.push_back(c.operand(i));
  return results;
}

Value operand_or_none(std::span<const Value> operands, size_t i) { return i < operands.size() ? operands[i] : Value{}; }

std::vector<Value> recurrent_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const size_t reserve = c.results.size() - 1;
  expect(c.node.attributes.integer("training") != 0, "a gradient needs what the forward of training keeps");
  std::vector<Value> gradients(c.operands.size());
  if (std::ranges::none_of(c.cotangents, [](Value v) { return static_cast<bool>(v); })) return gradients;
  const bool has_c = reserve == 3;
  const Value dy = c.cotangents[0] ? c.cotangents[0] : b.constant_like(c.results[0], 0);
  const Value h = operand_or_none(c.operands, 2), cell = operand_or_none(c.operands, 3);
  const std::vector<Value> found = b.call_all(op("recurrent_grad"),
                                              {dy, c.cotangents[1], has_c ? c.cotangents[2] : Value{}, c.operands[0],
                                               c.operands[1], c.results[0], c.results[reserve], h, cell},
                                              c.node.attributes);
  gradients[0] = found[0], gradients[1] = found[1];
  size_t next = 2;
  for (size_t i : {2u, 3u})
    if (operand_or_none(c.operands, i)) gradients[i] = found[next++];
  return gradients;
}

std::vector<Value> recurrent_inference(const ExpandContext& c) {
  Attributes attributes = c.node.attributes;
  attributes.set("training", int64_t{0});
  return c.builder.call_all(op("recurrent"), {c.operands.begin(), c.operands.end()}, std::move(attributes));
}

// The reference: step by step, with f32 between the products of low values.
class Unrolled {
 public:
  Unrolled(Builder& b, const RecurrentSizes& s, Value weights)
      : b_(b), s_(s), weights_(weights), type_(b.dtype(weights)), wide_(is_low(type_) ? DType::f32 : type_) {}

  // y, the last h and, of an lstm, the last c.
  std::vector<Value> build(Value x, Value h, Value c) {
    std::vector<Value> last_h, last_c;
    for (int64_t layer = 0; layer < s_.layers; ++layer) {
      std::vector<Value> outputs;
      for (int64_t direction = 0; direction < s_.directions; ++direction) {
        const int64_t number = layer * s_.directions + direction;
        State state{state_of(h, number), s_.has_c() ? b_.cast(state_of(c, number), wide_) : Value{}};
        outputs.push_back(run(x, layer, direction, state));
        last_h.push_back(b_.reshape(state.h, {1, s_.batch, s_.hidden}));
        if (state.c) last_c.push_back(b_.reshape(b_.cast(state.c, type_), {1, s_.batch, s_.hidden}));
      }
      x = joined(std::move(outputs), 2);
    }
    std::vector<Value> results{x, joined(std::move(last_h), 0)};
    if (!last_c.empty()) results.push_back(joined(std::move(last_c), 0));
    return results;
  }

 private:
  struct State {
    Value h, c;
  };

  Value joined(std::vector<Value> parts, int64_t axis) {
    return parts.size() == 1 ? parts[0] : b_.call("concat", std::move(parts), {{"axis", axis}});
  }
  Value zeros(DType type, Shape shape) { return b_.broadcast(b_.constant(type, 0), std::move(shape)); }
  Value state_of(Value states, int64_t number) {
    if (!states) return zeros(type_, {s_.batch, s_.hidden});
    return b_.reshape(b_.slice(states, {number, 0, 0}, {number + 1, s_.batch, s_.hidden}), {s_.batch, s_.hidden});
  }
  Value matrix(int64_t layer, int64_t direction, RecurrentPart part) {
    const int64_t rows = s_.rows(), from = matrix_offset(s_, layer, direction, part),
                  columns = part == RecurrentPart::input ? s_.inputs_of(layer) : s_.hidden;
    return b_.reshape(b_.slice(weights_, {from}, {from + rows * columns}), {rows, columns});
  }
  // v [rows, columns] times the transposed matrix, with its bias.
  Value product(Value v, int64_t layer, int64_t direction, RecurrentPart part) {
    const Value y = b_.cast(b_.matmul(v, matrix(layer, direction, part), {{"transpose_b", int64_t{1}}}), wide_);
    if (!s_.biased) return y;
    const int64_t from = bias_offset(s_, layer, direction, part);
    return b_.add(y, b_.cast(b_.slice(weights_, {from}, {from + s_.rows()}), wide_));
  }
  Value gate(Value gates, int64_t i) { return b_.slice(gates, {0, i * s_.hidden}, {s_.batch, (i + 1) * s_.hidden}); }

  // Its output [steps, batch, hidden]; `state` is the last one then.
  Value run(Value x, int64_t layer, int64_t direction, State& state) {
    const int64_t rows = s_.rows();
    const Value flat = b_.reshape(x, {s_.steps * s_.batch, s_.inputs_of(layer)});
    const Value projected =
        b_.reshape(product(flat, layer, direction, RecurrentPart::input), {s_.steps, s_.batch, rows});
    std::vector<Value> outputs(static_cast<size_t>(s_.steps));
    for (int64_t i = 0; i < s_.steps; ++i) {
      const int64_t t = direction == 1 ? s_.steps - 1 - i : i;
      const Value step = b_.reshape(b_.slice(projected, {t, 0, 0}, {t + 1, s_.batch, rows}), {s_.batch, rows});
      advance(step, product(state.h, layer, direction, RecurrentPart::recurrent), state);
      outputs[static_cast<size_t>(t)] = b_.reshape(state.h, {1, s_.batch, s_.hidden});
    }
    return outputs.empty() ? zeros(type_, {0, s_.batch, s_.hidden}) : joined(std::move(outputs), 0);
  }

  void advance(Value x, Value r, State& state) {
    const auto sum = [&](int64_t i) { return b_.add(gate(x, i), gate(r, i)); };
    const auto sigmoid = [&](int64_t i) { return b_.unary("sigmoid", sum(i)); };
    if (s_.cell == RecurrentCell::lstm) {
      state.c = b_.add(b_.mul(sigmoid(1), state.c), b_.mul(sigmoid(0), b_.unary("tanh", sum(2))));
      state.h = b_.cast(b_.mul(sigmoid(3), b_.unary("tanh", state.c)), type_);
    } else if (s_.cell == RecurrentCell::gru) {
      const Value update = sigmoid(1);
      const Value fresh = b_.unary("tanh", b_.add(gate(x, 2), b_.mul(sigmoid(0), gate(r, 2))));
      const Value kept = b_.mul(update, b_.cast(state.h, wide_));
      state.h = b_.cast(b_.add(kept, b_.mul(b_.sub(b_.constant_like(update, 1), update), fresh)), type_);
    } else {
      state.h = b_.cast(b_.unary(name(s_.cell), sum(0)), type_);
    }
  }

  Builder& b_;
  const RecurrentSizes& s_;
  Value weights_;
  DType type_, wide_;
};

std::vector<Value> expand_recurrent(const ExpandContext& c) {
  Builder& b = c.builder;
  const RecurrentSizes s = recurrent_sizes(c.node.attributes, b.type(c.operands[0]));
  std::vector<Value> results =
      Unrolled(b, s, c.operands[1])
          .build(c.operands[0], operand_or_none(c.operands, 2), operand_or_none(c.operands, 3));
  // Nothing of the expansion reads what a library keeps.
  results.push_back(b.broadcast(b.constant(DType::u8, 0), c.node.results[results.size()].shape));
  return results;
}

// Through the steps, which are computed again when dy is there, so that nothing before them is differentiated.
std::vector<Value> expand_recurrent_grad(const ExpandContext& c) {
  Builder& b = c.builder;
  const RecurrentSizes s = recurrent_sizes(c.node.attributes, b.type(c.operands[kX]));
  std::vector<Value> sources;
  const auto again = [&](size_t i) {
    const Value v = operand_or_none(c.operands, i);
    if (v) sources.push_back(after(b, v, c.operands[kDy]));
    return v ? sources.back() : v;
  };
  const Value x = again(kX), weights = again(kWeights), h = again(kH), cell = again(kC);
  const std::vector<Value> results = Unrolled(b, s, weights).build(x, h, cell);
  Value sum;
  for (size_t i = 0; i < results.size(); ++i) {
    const Value cotangent = c.operands[kDy + i];
    if (!cotangent) continue;
    const Value product = b.mul(results[i], cotangent);
    const int64_t count = b.type(product).element_count();
    const Value part = b.reshape(b.call("reduce_sum", {b.reshape(product, {count})}, {{"axes", Ints{0}}}), {});
    sum = sum ? b.add(sum, part) : part;
  }
  std::vector<Value> found = gradients(b, {sum, b.constant_like(sum, 1), sources, "y", "an operand"});
  for (size_t i = 0; i < found.size(); ++i)
    found[i] = found[i] ? b.cast(found[i], b.dtype(sources[i])) : b.constant_like(sources[i], 0);
  return found;
}

// Multiplications and additions of all products, so many times.
double products_cost(const Node& node, const TensorType& x, double times) {
  const RecurrentSizes s = recurrent_sizes(node.attributes, x);
  double inputs = 0;
  for (int64_t layer = 0; layer < s.layers; ++layer) inputs += static_cast<double>(s.inputs_of(layer) + s.hidden);
  return 2 * times * inputs * static_cast<double>(s.directions * s.rows()) * static_cast<double>(s.steps * s.batch);
}

const std::vector<AttributeSpec> kAttributes{{"cell", std::string("lstm")},
                                             {"hidden", int64_t{1}},
                                             {"layers", int64_t{1}, AttributeSpec::defaulted},
                                             {"directions", int64_t{1}, AttributeSpec::defaulted},
                                             {"bias", int64_t{1}, AttributeSpec::defaulted},
                                             {"training", int64_t{1}, AttributeSpec::defaulted}};

const std::vector<Op> kOps{
    {.name = "recurrent",
     .operands = {{"x"}, {"weights"}, {"h", OperandSpec::optional}, {"c", OperandSpec::optional}},
     .attributes = kAttributes,
     .type = recurrent_type,
     .precision = Precision::low,
     .vjp = recurrent_vjp,
     .kernel = KernelKind::recurrent,
     .expand = expand_recurrent,
     .inference = recurrent_inference,
     .cost = [](const Node& node, std::span<const TensorType> t) { return products_cost(node, t[0], 1); }},
    {.name = "recurrent_grad",
     .operands = {{"dy"},
                  {"dh", OperandSpec::optional},
                  {"dc", OperandSpec::optional},
                  {"x"},
                  {"weights"},
                  {"y"},
                  {"reserve"},
                  {"h", OperandSpec::optional},
                  {"c", OperandSpec::optional}},
     .attributes = kAttributes,
     .type = recurrent_grad_type,
     .precision = Precision::low,
     .not_differentiable = "second derivatives are not built",
     .kernel = KernelKind::recurrent,
     .gradient = Gradient::data,
     .expand = expand_recurrent_grad,
     .cost = [](const Node& node, std::span<const TensorType> t) { return products_cost(node, t[kX], 2); }},
};

}  // namespace

RecurrentSizes recurrent_sizes(const Attributes& attributes, const TensorType& x) {
  const auto cell = recurrent_cell(attributes.text("cell"));
  expect(cell.has_value(), [&] { return "there is no recurrent cell '" + attributes.text("cell") + "'"; });
  expect(ops::rank(x) == 3 && is_floating(x.dtype),
         [&] { return "x [steps, batch, inputs] expected, found " + to_string(x); });
  RecurrentSizes s{.cell = *cell, .steps = x.shape[0], .batch = x.shape[1], .inputs = x.shape[2]};
  s.hidden = attributes.integer("hidden"), s.layers = attributes.integer("layers");
  s.directions = attributes.integer("directions"), s.biased = attributes.integer("bias") != 0;
  expect(s.hidden > 0 && s.layers > 0 && s.layers <= kMostRecurrentLayers && (s.directions == 1 || s.directions == 2),
         "hidden values, 1 to 64 layers and 1 or 2 directions expected");
  return s;
}

std::span<const Op> recurrent_ops() { return kOps; }

}  // namespace halfstep
