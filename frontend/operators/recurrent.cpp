// Recurrent layers: LSTM, GRU and RNN, unrolled over the sequence. The inputs of all steps are projected by one matrix
// product; what remains in a step is the product with the state, and pointwise arithmetic that becomes one kernel.
#include <algorithm>
#include <cmath>

#include "frontend/import/operators.h"
#include "frontend/operators/activations.h"

namespace halfstep {
namespace {

constexpr int64_t kLongestSequence = 8192;

struct State {
  Value h, c;  // [N, H]; absent: zero
};

// One direction of a layer, with G gates of H hidden values.
struct Direction {
  NodeContext& layer;
  int64_t hidden = 0;
  Value recurrence = {};      // [G H, H]
  Value recurrent_bias = {};  // [H] of the hidden gate, where a GRU's reset gate scales it; else part of the projection
  Value peephole = {};        // [3 H] or absent
  std::vector<Activation> activations = {};
  std::optional<double> clip = {};
  State initial = {};

  Builder& b() const { return layer.b; }

  Value activated(size_t i, Value x) const {
    if (clip) {
      const auto bound = [&](double v) { return b().constant_like(x, v); };
      x = b().select(b().binary("less", x, bound(-*clip)), bound(-*clip), x);
      x = b().select(b().binary("less", bound(*clip), x), bound(*clip), x);
    }
    return activate(b(), x, activations[i]);
  }
  // Gate i of gates side by side: [N, G H] -> [N, H], or [G H] -> [H].
  Value gate(Value gates, int64_t i) const {
    Shape limits = b().shape(gates);
    Ints starts(limits.size(), 0);
    starts.back() = i * hidden, limits.back() = (i + 1) * hidden;
    return b().slice(gates, starts, limits);
  }
  // h times the transposed rows of gates [first, last).
  Value recur(Value h, int64_t first, int64_t last) const {
    const Value rows = b().slice(recurrence, {first * hidden, 0}, {last * hidden, hidden});
    return b().matmul(h, rows, {{"transpose_b", int64_t{1}}});
  }
  // The recurrent part is absent in the first step if the state starts at zero.
  Value plus(Value x, Value recurrent) const { return recurrent ? b().add(x, recurrent) : x; }
  Value complement(Value x) const { return b().sub(b().constant_like(x, 1), x); }
};

// x: [N, G H], the projected input of the step.
using Cell = State (*)(const Direction&, Value x, const State& before);

// Hochreiter and Schmidhuber 1997 with forget gates; gates in the order input, output, forget, cell. `accumulate` keeps
// the cell in f32 under autocast: rounded to half precision in each step, it would lose what a step adds once that is
// below 2^-11 of it, and the gates, which are bounded, lose nothing by being low.
State lstm_cell(const Direction& d, Value x, const State& before) {
  Builder& b = d.b();
  const Value recurrent = before.h ? d.recur(before.h, 0, 4) : Value{};
  const auto gate = [&](int64_t i) { return d.plus(d.gate(x, i), recurrent ? d.gate(recurrent, i) : Value{}); };
  const auto peep = [&](int64_t i, Value c) {
    return d.peephole && c ? b.add(gate(i), b.mul(d.gate(d.peephole, i), c)) : gate(i);
  };
  const Value input = d.activated(0, peep(0, before.c));
  const Value forget =
      d.layer.integer("input_forget", 0) != 0 ? d.complement(input) : d.activated(0, peep(2, before.c));
  const Value added = b.mul(input, d.activated(1, gate(3)));
  const Value kept = before.c ? b.mul(forget, before.c) : b.constant_like(added, 0);
  const Value c = b.binary("accumulate", kept, added);
  const Value output = d.activated(0, peep(1, c));
  return {b.mul(output, d.activated(2, c)), c};
}

// Cho et al. 2014; gates in the order update, reset, hidden. Its state is carried on like an LSTM's cell.
State gru_cell(const Direction& d, Value x, const State& before) {
  Builder& b = d.b();
  const bool reset_after = d.layer.integer("linear_before_reset", 0) != 0;
  const Value recurrent = before.h ? d.recur(before.h, 0, reset_after ? 3 : 2) : Value{};
  const auto gate = [&](int64_t i) { return d.plus(d.gate(x, i), recurrent ? d.gate(recurrent, i) : Value{}); };
  const Value update = d.activated(0, gate(0)), reset = d.activated(0, gate(1));
  Value hidden;  // the recurrent part of the hidden gate
  if (!reset_after && before.h) hidden = d.recur(b.mul(reset, before.h), 2, 3);
  if (reset_after && recurrent) hidden = d.gate(recurrent, 2);
  if (reset_after && d.recurrent_bias) hidden = hidden ? b.add(hidden, d.recurrent_bias) : d.recurrent_bias;
  if (reset_after && hidden) hidden = b.mul(reset, hidden);
  const Value candidate = d.activated(1, d.plus(d.gate(x, 2), hidden));
  const Value added = b.mul(d.complement(update), candidate);
  const Value kept = before.h ? b.mul(update, before.h) : b.constant_like(added, 0);
  return {b.binary("accumulate", kept, added), {}};
}

// Elman 1990.
State rnn_cell(const Direction& d, Value x, const State& before) {
  return {d.activated(0, d.plus(x, before.h ? d.recur(before.h, 0, 1) : Value{})), {}};
}

struct Kind {
  Cell cell;
  int64_t gates;
  size_t states;                         // initial_h and, of an LSTM, initial_c
  std::vector<std::string> activations;  // of one direction, in lower case
  std::string call;                      // the cell of `recurrent`, with these activations
  Ints order;                            // which of ONNX's gates each of its gates is
};

class RecurrentLayer {
 public:
  RecurrentLayer(NodeContext& c, const Kind& kind) : c_(c), kind_(kind) {
    read_direction();
    read_geometry();
  }

  std::vector<Value> build() {
    std::vector<Value> outputs, last_h, last_c;
    const Value x = batch_first_ ? c_.b.transpose(c_.operand(0), {1, 0, 2}) : c_.operand(0);
    const std::vector<Activation> activations = all_activations();
    if (c_.importer().inputs().options.recurrent == ImportOptions::as_calls)
      if (const std::string cell = call_cell(activations); !cell.empty()) return call(x, cell);
    for (int64_t d = 0; d < directions_; ++d) {
      Direction direction{.layer = c_, .hidden = hidden_, .recurrence = part(2, d, 0, kind_.gates)};
      const auto first = activations.begin() + d * static_cast<std::ptrdiff_t>(kind_.activations.size());
      direction.activations.assign(first, first + static_cast<std::ptrdiff_t>(kind_.activations.size()));
      if (c_.has_attribute("clip")) direction.clip = c_.number("clip", 0);
      if (c_.has_operand(7)) direction.peephole = part(7, d, 0, 3);
      direction.initial.h = initial(5, d);
      if (kind_.states == 2) direction.initial.c = initial(6, d);
      const Value projected = project(x, d, direction);
      const bool reverse = only_reverse_ || d == 1;
      const auto [output, last] = unroll(direction, projected, reverse);
      outputs.push_back(output);
      last_h.push_back(c_.b.reshape(last.h, {1, batch_, hidden_}));
      if (last.c) last_c.push_back(c_.b.reshape(last.c, {1, batch_, hidden_}));
    }
    return results(outputs, last_h, last_c);
  }

 private:
  void read_direction() {
    const std::string direction = c_.text("direction", "forward");
    if (direction != "forward" && direction != "reverse" && direction != "bidirectional")
      c_.fail("attribute 'direction' is '" + direction + "'; 'forward', 'reverse' or 'bidirectional' expected");
    directions_ = direction == "bidirectional" ? 2 : 1;
    only_reverse_ = direction == "reverse";
    batch_first_ = c_.integer("layout", 0) != 0;
  }

  void read_geometry() {
    const size_t batch_axis = batch_first_ ? 0 : 1;
    std::vector<std::optional<size_t>> axes(c_.operand_count());
    axes[0] = batch_axis;
    for (size_t i : {5u, 6u})
      if (c_.has_operand(i) && !c_.starts_at_zero(i) && c_.shape(i).size() == 3) axes[i] = batch_axis;
    if (c_.shape(0).size() == 3) c_.align(axes);
    const Shape x = c_.shape(0), r = c_.shape(2);
    if (x.size() != 3) c_.fail("X of three axes expected, found " + to_string(x));
    if (r.size() != 3) c_.fail("R of three axes expected, found " + to_string(r));
    steps_ = x[batch_first_ ? 1 : 0], batch_ = x[batch_first_ ? 0 : 1], hidden_ = r[2];
    if (c_.integer("hidden_size", hidden_) != hidden_)
      c_.fail("hidden_size " + std::to_string(c_.integer("hidden_size", 0)) + " and R " + to_string(r) + " differ");
    if (steps_ < 1 || steps_ > kLongestSequence)
      c_.fail("a sequence of " + std::to_string(steps_) + " steps; 1 to " + std::to_string(kLongestSequence) +
              " can be unrolled");
    const int64_t rows = kind_.gates * hidden_;
    expect_shape(1, "W", {directions_, rows, x[2]});
    expect_shape(2, "R", {directions_, rows, hidden_});
    expect_shape(3, "B", {directions_, 2 * rows});
    expect_shape(4, "sequence_lens", {batch_});
    if (c_.has_operand(4) && c_.is_constant(4)) lengths_ = c_.ints(4, "sequence_lens");
    expect_shape(7, "P", {directions_, 3 * hidden_});
    // As in PyTorch's recurrent layers.
    const Initializer fresh = fan_in_uniform(hidden_);
    for (size_t i : {1u, 2u, 3u, 7u})
      if (c_.has_operand(i)) c_.initialise(c_.operand(i), fresh);
  }

  void expect_shape(size_t operand, const std::string& name, const Shape& shape) {
    if (c_.has_operand(operand) && c_.shape(operand) != shape)
      c_.fail(name + " " + to_string(shape) + " expected, found " + to_string(c_.shape(operand)));
  }

  std::vector<Activation> all_activations() {
    std::vector<std::string> defaults;
    for (int64_t d = 0; d < directions_; ++d)
      defaults.insert(defaults.end(), kind_.activations.begin(), kind_.activations.end());
    return read_activations(c_, defaults);
  }

  // The cell of the library's that the layer is; empty: it is none, sequences end early, or all of it runs backwards.
  std::string call_cell(const std::vector<Activation>& activations) {
    const auto ends_early = [&](int64_t length) { return length < steps_; };
    if (c_.has_operand(4) && (!lengths_ || std::ranges::any_of(*lengths_, ends_early))) return "";
    if (only_reverse_ || c_.has_operand(7) || c_.has_attribute("clip") || c_.integer("input_forget", 0) != 0) return "";
    if (kind_.cell == gru_cell && c_.integer("linear_before_reset", 0) == 0) return "";
    if (batch_ < 1 || c_.shape(0)[2] < 1 || hidden_ < 1) return "";
    const auto are = [&](const std::vector<std::string>& names) {
      for (size_t i = 0; i < activations.size(); ++i)
        if (activations[i].name != names[i % names.size()]) return false;
      return true;
    };
    return are(kind_.activations) ? kind_.call : kind_.cell == rnn_cell && are({"relu"}) ? "relu" : "";
  }

  // The layer as one node, its weights in one vector in the order of base/recurrent.h.
  std::vector<Value> call(Value x, const std::string& cell) {
    Builder& b = c_.b;
    std::vector<Value> blocks;
    const bool biased = c_.has_operand(3);
    // Gates are put in order before a matrix is made flat: where the exporter exchanged them, that is the matrix as it
    // was.
    const auto add_gates = [&](size_t operand, int64_t d, int64_t first) {
      std::vector<Value> gates;
      for (int64_t gate : kind_.order) gates.push_back(part(operand, d, first + gate, first + gate + 1));
      const Value block = gates.size() == 1 ? gates[0] : b.call("concat", std::move(gates), {{"axis", int64_t{0}}});
      blocks.push_back(b.reshape(block, {b.type(block).element_count()}));
    };
    for (int64_t d = 0; d < directions_; ++d) add_gates(1, d, 0), add_gates(2, d, 0);
    for (int64_t d = 0; biased && d < directions_; ++d) add_gates(3, d, 0), add_gates(3, d, kind_.gates);
    std::vector<Value> operands{x, b.call("concat", std::move(blocks), {{"axis", int64_t{0}}})};
    for (size_t i = 0; i < kind_.states; ++i) operands.push_back(initial(5 + i));
    while (!operands.back()) operands.pop_back();
    std::vector<Value> all =
        b.call_all(op("recurrent"), std::move(operands),
                   {{"cell", cell}, {"hidden", hidden_}, {"directions", directions_}, {"bias", int64_t{biased}}});
    all.pop_back();  // what its gradient wants
    all[0] = b.transpose(b.reshape(all[0], {steps_, batch_, directions_, hidden_}), {0, 2, 1, 3});
    return batch_first_results(std::move(all));
  }

  // Rows [first, last) H of direction d of a weight, without the direction's axis.
  Value part(size_t operand, int64_t d, int64_t first, int64_t last) {
    const Value weight = c_.operand(operand);
    Shape limits = c_.b.shape(weight);
    Ints starts(limits.size(), 0);
    starts[0] = d, limits[0] = d + 1, starts[1] = first * hidden_, limits[1] = last * hidden_;
    const Value rows = c_.b.slice(weight, starts, limits);
    const Shape shape = c_.b.shape(rows);
    return c_.b.reshape(rows, Shape(shape.begin() + 1, shape.end()));
  }

  // [D, N, H]; absent: zero.
  Value initial(size_t operand) {
    if (!c_.has_operand(operand) || c_.starts_at_zero(operand)) return {};
    const Shape shape = batch_first_ ? Shape{batch_, directions_, hidden_} : Shape{directions_, batch_, hidden_};
    expect_shape(operand, operand == 5 ? "initial_h" : "initial_c", shape);
    return batch_first_ ? c_.b.transpose(c_.operand(operand), {1, 0, 2}) : c_.operand(operand);
  }
  Value initial(size_t operand, int64_t d) {
    const Value all = initial(operand);
    if (!all) return {};
    return c_.b.reshape(c_.b.slice(all, {d, 0, 0}, {d + 1, batch_, hidden_}), {batch_, hidden_});
  }

  // The inputs of all steps: [T, N, G H], with the biases that do not wait for the state.
  Value project(Value x, int64_t d, Direction& direction) {
    Builder& b = c_.b;
    const int64_t inputs = b.shape(x)[2], rows = kind_.gates * hidden_;
    const Value flat = b.reshape(x, {steps_ * batch_, inputs});
    Value y = b.matmul(flat, part(1, d, 0, kind_.gates), {{"transpose_b", int64_t{1}}});
    if (c_.has_operand(3)) {
      const Value input_bias = part(3, d, 0, kind_.gates), recurrent = part(3, d, kind_.gates, 2 * kind_.gates);
      if (kind_.cell == gru_cell && c_.integer("linear_before_reset", 0) != 0) {
        direction.recurrent_bias = b.slice(recurrent, {2 * hidden_}, {3 * hidden_});
        const Value early =
            b.call("pad", {b.slice(recurrent, {0}, {2 * hidden_})}, {{"low", Ints{0}}, {"high", Ints{hidden_}}});
        y = b.add(y, b.add(input_bias, early));
      } else {
        y = b.add(y, b.add(input_bias, recurrent));
      }
    }
    return b.reshape(y, {steps_, batch_, rows});
  }

  // Whether step t is inside each sequence, [N, H]; absent: it is inside all of them.
  Value inside(int64_t t) {
    if (!c_.has_operand(4)) return {};
    if (lengths_ && std::ranges::all_of(*lengths_, [&](int64_t n) { return n > t; })) return {};
    Builder& b = c_.b;
    const Value lengths = c_.operand(4);
    const Value now = b.constant_like(lengths, static_cast<double>(t));
    return b.broadcast(b.reshape(b.call("less", {now, lengths}), {batch_, 1}), {batch_, hidden_});
  }

  // Y of one direction, [T, N, H], and the last state. Past the end of a sequence the state is held and Y is zero.
  std::pair<Value, State> unroll(const Direction& direction, Value projected, bool reverse) {
    Builder& b = c_.b;
    const auto zeros = [&] { return b.broadcast(b.constant(b.dtype(projected), 0), {batch_, hidden_}); };
    const auto held = [&](Value mask, Value next, Value before) {
      return next ? b.select(mask, next, before ? before : zeros()) : next;
    };
    std::vector<Value> outputs(static_cast<size_t>(steps_));
    State state = direction.initial;
    const int64_t width = b.shape(projected)[2];
    for (int64_t i = 0; i < steps_; ++i) {
      const int64_t t = reverse ? steps_ - 1 - i : i;
      const Value x = b.reshape(b.slice(projected, {t, 0, 0}, {t + 1, batch_, width}), {batch_, width});
      State next = kind_.cell(direction, x, state);
      Value output = next.h;
      if (const Value mask = inside(t)) {
        output = b.select(mask, next.h, zeros());
        next = {held(mask, next.h, state.h), held(mask, next.c, state.c)};
      }
      outputs[static_cast<size_t>(t)] = b.reshape(output, {batch_ * hidden_});
      state = next;
    }
    // Side by side in one flat tensor: each step's kernel writes its piece in place.
    const Value y = b.call("concat", std::move(outputs), {{"axis", int64_t{0}}});
    return {b.reshape(y, {steps_, batch_, hidden_}), state};
  }

  // Y [T, D, N, H] and the last states [D, N, H], or with the batch first.
  std::vector<Value> results(std::vector<Value> outputs, std::vector<Value> last_h, std::vector<Value> last_c) {
    Builder& b = c_.b;
    for (Value& y : outputs) y = b.reshape(y, {steps_, 1, batch_, hidden_});
    const auto joined = [&](std::vector<Value> parts, int64_t axis) {
      return parts.size() == 1 ? parts[0] : b.call("concat", std::move(parts), {{"axis", axis}});
    };
    std::vector<Value> all{joined(std::move(outputs), 1), joined(std::move(last_h), 0)};
    if (!last_c.empty()) all.push_back(joined(std::move(last_c), 0));
    return batch_first_results(std::move(all));
  }
  std::vector<Value> batch_first_results(std::vector<Value> all) {
    Builder& b = c_.b;
    if (!batch_first_) return all;
    all[0] = b.transpose(all[0], {2, 0, 1, 3});
    for (size_t i = 1; i < all.size(); ++i) all[i] = b.transpose(all[i], {1, 0, 2});
    return all;
  }

  NodeContext& c_;
  const Kind& kind_;
  int64_t directions_ = 1, steps_ = 0, batch_ = 0, hidden_ = 0;
  bool only_reverse_ = false, batch_first_ = false;
  std::optional<Ints> lengths_;  // of the sequences, where known when the model is compiled
};

std::vector<Value> import_lstm(NodeContext& c) {
  static const Kind kind{lstm_cell, 4, 2, {"sigmoid", "tanh", "tanh"}, "lstm", {0, 2, 3, 1}};
  c.ignore({"input_forget"});
  return RecurrentLayer(c, kind).build();
}

std::vector<Value> import_gru(NodeContext& c) {
  static const Kind kind{gru_cell, 3, 1, {"sigmoid", "tanh"}, "gru", {1, 0, 2}};
  return RecurrentLayer(c, kind).build();
}

std::vector<Value> import_rnn(NodeContext& c) {
  static const Kind kind{rnn_cell, 1, 1, {"tanh"}, "tanh", {0}};
  return RecurrentLayer(c, kind).build();
}

constexpr std::string_view kLimits =
    "at most 8192 steps, unrolled unless a library has the layer; an initial state of zeros is not trained";

const std::vector<OnnxOperator> kRows{
    {"GRU", {7}, 3, 6, import_gru, kLimits},
    {"LSTM", {7}, 3, 8, import_lstm, kLimits},
    {"RNN", {7}, 3, 6, import_rnn, kLimits},
};

}  // namespace

std::span<const OnnxOperator> recurrent_operators() { return kRows; }

}  // namespace halfstep
