// Operators that carry a state from one call to the next: linear attention, causal convolutions, caches.
#include <cmath>

#include "frontend/import/indices.h"
#include "frontend/import/operators.h"
#include "frontend/operators/window.h"

namespace halfstep {
namespace {

// ---- LinearAttention ----

enum Operand : size_t { kQuery, kKey, kValue, kState, kDecay, kBeta };

struct Rule {
  bool gated, delta;
};

Rule read_rule(NodeContext& c) {
  const std::string name = c.text("update_rule", "gated_delta");
  if (name != "linear" && name != "gated" && name != "delta" && name != "gated_delta")
    c.fail("update_rule '" + name + "' is unknown; 'linear', 'gated', 'delta' or 'gated_delta' expected");
  const Rule rule{name.starts_with("gated"), name.ends_with("delta")};
  if (rule.gated != c.has_operand(kDecay)) c.fail("decay belongs to the gated rules and to no others");
  if (rule.delta != c.has_operand(kBeta)) c.fail("beta belongs to the delta rules and to no others");
  return rule;
}

struct Sizes {
  int64_t batch, length, heads, key_heads, depth, value_depth;
  int64_t states() const { return batch * key_heads; }
};

Sizes read_sizes(NodeContext& c) {
  const Shape q = c.shape(kQuery), k = c.shape(kKey), v = c.shape(kValue);
  Sizes s{.batch = 0,
          .length = 0,
          .heads = c.integer("q_num_heads"),
          .key_heads = c.integer("kv_num_heads"),
          .depth = 0,
          .value_depth = 0};
  const bool fits = q.size() == 3 && k.size() == 3 && v.size() == 3 && s.heads > 0 && s.key_heads > 0 &&
                    s.heads % s.key_heads == 0 && q[2] % s.heads == 0 && v[2] % s.key_heads == 0 &&
                    k == Shape{q[0], q[1], q[2] / s.heads * s.key_heads} && v[0] == q[0] && v[1] == q[1];
  if (!fits)
    c.fail("query " + to_string(q) + ", key " + to_string(k) + " and value " + to_string(v) +
           " are not [batch, length, " + "heads * depth] of " + std::to_string(s.heads) + " and " +
           std::to_string(s.key_heads) + " heads");
  s.batch = q[0], s.length = q[1], s.depth = q[2] / s.heads, s.value_depth = v[2] / s.key_heads;
  constexpr int64_t kLongest = 1024;
  if (s.length == 0 || s.length > kLongest)
    c.fail(std::to_string(s.length) + " tokens; 1 to " + std::to_string(kLongest) + " expected");
  return s;
}

// Token t of operand i as one matrix for each state.
Value token(NodeContext& c, size_t i, int64_t t, const Shape& matrices) {
  const Shape shape = c.shape(i);
  return c.b.reshape(c.b.slice(c.operand(i), {0, t, 0}, {shape[0], t + 1, shape[2]}), matrices);
}

// exp of the log decay: [states, depth, 1], or [states, 1, 1] for one factor a head.
Value decay_at(NodeContext& c, int64_t t, const Sizes& s) {
  const Shape shape = c.shape(kDecay);
  const int64_t columns = shape.size() == 3 ? shape[2] / s.key_heads : 0;
  if (shape != Shape{s.batch, s.length, columns * s.key_heads} || (columns != 1 && columns != s.depth))
    c.fail("decay [batch, length, heads] or [batch, length, heads * depth] expected, found " + to_string(shape));
  return c.b.unary("exp", token(c, kDecay, t, {s.states(), columns, 1}));
}

Value beta_at(NodeContext& c, int64_t t, const Sizes& s) {
  const Shape shape = c.shape(kBeta);
  if (shape == Shape{s.batch, s.length, s.key_heads}) return token(c, kBeta, t, {s.states(), 1, 1});
  if (shape != Shape{s.batch, s.length, 1})
    c.fail("beta [batch, length, heads] or [batch, length, 1] expected, found " + to_string(shape));
  return c.b.reshape(c.b.broadcast(token(c, kBeta, t, {s.batch, 1, 1}), {s.batch, s.key_heads, 1}), {s.states(), 1, 1});
}

// Token after token; the state [states, depth, value depth] stays in f32.
std::vector<Value> import_linear_attention(NodeContext& c) {
  Builder& b = c.b;
  c.ignore({"chunk_size"});
  const Rule rule = read_rule(c);
  const Sizes s = read_sizes(c);
  const auto product = [&](Value x, Value y, bool transposed = false) {
    return b.call("full_matmul", {x, y}, {{"transpose_a", int64_t{transposed}}});
  };
  Value state;
  if (c.has_operand(kState)) {
    const Shape whole{s.batch, s.key_heads, s.depth, s.value_depth};
    if (c.shape(kState) != whole) c.fail("past_state " + to_string(whole) + " expected");
    state = b.reshape(c.operand(kState), {s.states(), s.depth, s.value_depth});
  }
  std::vector<Value> rows;
  for (int64_t t = 0; t < s.length; ++t) {
    const Value key = token(c, kKey, t, {s.states(), s.depth, 1});
    Value value = token(c, kValue, t, {s.states(), 1, s.value_depth});
    if (state && rule.gated) state = b.mul(state, decay_at(c, t, s));
    if (state && rule.delta) value = b.sub(value, product(key, state, true));
    if (rule.delta) value = b.mul(value, beta_at(c, t, s));
    const Value written = product(key, value);
    state = state ? b.add(state, written) : written;
    const Value read = product(token(c, kQuery, t, {s.states(), s.heads / s.key_heads, s.depth}), state);
    rows.push_back(b.reshape(read, {s.batch, 1, s.heads * s.value_depth}));
  }
  const double scale = c.number("scale", 0);
  const Value y = rows.size() == 1 ? rows[0] : b.call("concat", rows, {{"axis", int64_t{1}}});
  return {b.mul(y, scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(s.depth))),
          b.reshape(state, {s.batch, s.key_heads, s.depth, s.value_depth})};
}

// ---- CausalConvWithState ----

std::vector<Value> import_causal_conv(NodeContext& c) {
  Builder& b = c.b;
  const std::string activation = c.text("activation", "none");
  if (activation != "none" && activation != "silu" && activation != "swish")
    c.fail("activation '" + activation + "' is unknown; 'silu', 'swish' or 'none' expected");
  const Shape x = c.shape(0), w = c.shape(1);
  if (x.size() != 3 || w.size() != 3 || w[0] != x[1] || w[1] != 1 || w[2] < 1)
    c.fail("x [batch, channels, length] and w [channels, 1, k] expected, found " + to_string(x) + " and " +
           to_string(w));
  const int64_t before = w[2] - 1;
  if (c.has_operand(3) && c.shape(3) != Shape{x[0], x[1], before})
    c.fail("past_state " + to_string(Shape{x[0], x[1], before}) + " expected, found " + to_string(c.shape(3)));
  const Initializer fresh = fan_in_uniform(w[2]);
  c.initialise(c.operand(1), fresh);
  Value whole = c.operand(0);
  if (before > 0)
    whole = c.has_operand(3) ? b.call("concat", {c.operand(3), whole}, {{"axis", int64_t{2}}})
                             : b.call("pad", {whole}, {{"low", Ints{0, 0, before}}, {"high", Ints{0, 0, 0}}});
  Value y = b.call(
      "convolution", {to_channels_last(b, whole), to_channels_last(b, c.operand(1))},
      {{"strides", Ints{1}}, {"pads_begin", Ints{0}}, {"pads_end", Ints{0}}, {"dilations", Ints{1}}, {"groups", x[1]}});
  if (c.has_operand(2)) {
    if (c.shape(2) != Shape{x[1]}) c.fail("bias " + to_string(Shape{x[1]}) + " expected");
    c.initialise(c.operand(2), fresh);
    y = b.add(y, c.operand(2));
  }
  if (activation != "none") y = b.unary("silu", y);
  return {to_channels_first(b, y), b.slice(whole, {0, 0, x[2]}, {x[0], x[1], x[2] + before})};
}

// ---- TensorScatter ----

// Every place of the cache takes the update's element that is written there, or keeps its own.
std::vector<Value> import_tensor_scatter(NodeContext& c) {
  Builder& b = c.b;
  const std::string mode = c.text("mode", "linear");
  if (mode != "linear" && mode != "circular") c.fail("mode '" + mode + "' is unknown; 'linear' or 'circular' expected");
  const Shape cache = c.shape(0), update = c.shape(1);
  const size_t axis = c.axis(c.integer("axis", -2), cache.size());
  Shape expected = cache;
  if (update.size() == cache.size()) expected[axis] = update[axis];
  if (axis == 0 || update != expected || update[axis] > cache[axis])
    c.fail("update " + to_string(update) + " does not fit into " + to_string(cache) + " along axis " +
           std::to_string(axis));
  if (update[axis] == 0) return {c.operand(0)};
  Value from = positions(b, cache, axis);
  if (c.has_operand(2)) {
    if (c.shape(2) != Shape{cache[0]}) c.fail("write_indices " + to_string(Shape{cache[0]}) + " expected");
    Shape beside(cache.size(), 1);
    beside[0] = cache[0];
    from = b.sub(from, b.broadcast(b.reshape(b.cast(c.operand(2), DType::i64), beside), cache));
  }
  const Value zero = b.constant_like(from, 0), count = b.constant_like(from, static_cast<double>(cache[axis]));
  if (mode == "circular") {  // division truncates
    const Value rest = b.sub(from, b.mul(b.div(from, count), count));
    from = b.select(b.binary("less", rest, zero), b.add(rest, count), rest);
  }
  const Value written = b.binary("and", b.binary("less_equal", zero, from),
                                 b.binary("less", from, b.constant_like(from, static_cast<double>(update[axis]))));
  const Value numbers = element_numbers(b, b.select(written, from, zero), update, axis);
  return {b.select(written, gather(b, flat(b, c.operand(1)), numbers), c.operand(0))};
}

const std::vector<OnnxOperator> kRows{
    {"CausalConvWithState", {27}, 2, 4, import_causal_conv},
    {"LinearAttention", {27}, 3, 6, import_linear_attention, "at most 1024 tokens"},
    {"TensorScatter", {24}, 2, 3, import_tensor_scatter},
};

}  // namespace

std::span<const OnnxOperator> state_operators() { return kRows; }

}  // namespace halfstep
