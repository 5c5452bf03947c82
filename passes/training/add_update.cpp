#include "passes/training/add_update.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/rewrite/rules.h"
#include "passes/training/tap_values.h"

namespace halfstep {
namespace {

constexpr double kNoLabels = 1e-20;    // below any count; gradients are zero then
constexpr double kClipEpsilon = 1e-6;  // torch.nn.utils.clip_grad_norm_

// The terms of a row's update as values of the graph.
class UpdateNodes final : public UpdateContext {
 public:
  struct Operands {
    Value gradient, rate;
    TensorType arena;
  };
  // `set` gives a state the value that it takes.
  UpdateNodes(Builder& builder, const OptimizerRow& row, const HyperParameters& given, const Operands& operands,
              std::function<void(Value state, Value after)> set)
      : b_(builder), row_(row), given_(given), operands_(operands), set_(std::move(set)) {}

  double parameter(std::string_view name) const override { return value_of(row_, name, given_); }
  Term gradient() override { return term(operands_.gradient); }
  Term learning_rate() override { return term(operands_.rate); }
  Term slot(std::string_view name) override { return term(b_.state({Role::slot, std::string(name)}, operands_.arena)); }
  Term count(std::string_view name) override {
    return term(b_.state({Role::slot, std::string(name)}, {DType::f32, {}}));
  }
  void set(Term state, Term after) override { set_(value(state), value(after)); }
  Term constant(double number) override { return term(b_.constant(DType::f32, number)); }
  Term apply(std::string_view op, std::initializer_list<Term> terms) override {
    std::vector<Value> v;
    for (const Term& t : terms) v.push_back(value(t));
    return term(v.size() == 1   ? b_.unary(op, v[0])
                : v.size() == 2 ? b_.binary(op, v[0], v[1])
                                : b_.select(v[0], v[1], v[2]));
  }
  Value value(Term term) const { return values_[static_cast<size_t>(term.id())]; }

 private:
  Term term(Value v) {
    values_.push_back(v);
    return {*this, static_cast<int32_t>(values_.size()) - 1};
  }

  Builder& b_;
  const OptimizerRow& row_;
  const HyperParameters& given_;
  const Operands operands_;
  const std::function<void(Value, Value)> set_;
  std::vector<Value> values_;
};

// Copies a differentiated graph, and gathers its gradients.
class Update {
 public:
  Update(const Graph& graph, const OptimizerOptions& options, const ArenaLayout& layout, std::string name)
      : graph_(graph), options_(options), layout_(layout), b_(std::move(name)), map_(copy_nodes(graph, b_)) {
    b_.set_origin({"optimizer", Phase::update});
    gradients_ = flat_gradients();
    if (options.scaling.mode != LossScaleMode::none) overflow_ = any_not_finite(gradients_);
  }

  Graph train() {
    if (options_.accumulation > 1) {
      const Value sum = b_.state(kGradientArena, arena(DType::f32));
      gradients_ = b_.add(gradients_, sum);
      if (overflow_) overflow_ = any_not_finite(gradients_);
      b_.update(sum, b_.broadcast(b_.constant(DType::f32, 0), {layout_.size}));
    }
    const Value scale = loss_scale(b_, options_.scaling);
    Value g = unscaled(scale);
    if (const Value counted = counted_labels()) {
      const Value before = b_.state(kCountedLabels, {DType::f32, {}});
      g = b_.mul(g, b_.div(scalar(labels_of_step()), b_.call("max", {b_.add(before, counted), scalar(kNoLabels)})));
      b_.update(before, scalar(0));
    }
    if (options_.clip_norm) g = clipped(g);
    update_parameters(g);
    if (options_.scaling.mode == LossScaleMode::dynamic) update_scale(scale);
    return finish(scale);
  }

  Graph accumulate() {
    const Value sum = b_.state(kGradientArena, arena(DType::f32));
    b_.update(sum, b_.add(sum, gradients_));
    if (const Value counted = counted_labels()) {
      const Value before = b_.state(kCountedLabels, {DType::f32, {}});
      b_.update(before, b_.add(before, counted));
    }
    return finish({});
  }

  Graph gradients() {
    const Value scale = loss_scale(b_, options_.scaling);
    b_.update(b_.state(kGradientArena, arena(DType::f32)), unscaled(scale));
    for (const NamedValue& o : graph_.outputs())
      if (!o.name.is(Role::gradient)) b_.output(o.name, mapped(o.value));
    report_scale(scale);
    return std::move(b_).finish();
  }

 private:
  TensorType arena(DType dtype) const { return {dtype, {layout_.size}}; }
  Value mapped(Value v) const { return map_(v); }
  // How many of this batch's labels count, in samples; absent where all do, or where one batch is a step.
  Value counted_labels() const {
    const Value counted = graph_.output(kCounted);
    return counted && options_.accumulation > 1 ? mapped(counted) : Value{};
  }
  bool is_tapped() const {
    return std::ranges::any_of(graph_.outputs(), [](const NamedValue& o) { return is_tap(o.name); });
  }
  double labels_of_step() const {
    const int64_t rows = graph_.type(graph_.output(kRowCounted)).element_count();
    return static_cast<double>(rows * options_.accumulation);
  }
  Value scalar(double value) { return b_.constant(DType::f32, value); }

  // All gradients in the arenas' order. A concat along axis 0, so that each piece can be written in its place.
  Value flat_gradients() {
    std::vector<Value> pieces;
    int64_t at = 0;
    const auto fill_to = [&](int64_t offset) {
      if (offset > at) pieces.push_back(b_.broadcast(scalar(0), {offset - at}));
    };
    for (const ArenaSlice& slice : layout_.slices) {
      const Value gradient = graph_.output({Role::gradient, slice.name});
      require(static_cast<bool>(gradient), "a gradient for each parameter");
      fill_to(slice.offset);
      pieces.push_back(b_.reshape(mapped(gradient), {slice.size()}));
      at = slice.offset + slice.size();
    }
    fill_to(layout_.size);
    if (pieces.empty()) return b_.broadcast(scalar(0), {0});  // all parameters are empty
    return pieces.size() == 1 ? pieces[0] : b_.call("concat", pieces, {{"axis", int64_t{0}}});
  }

  // bool[]: exact for infinities and NaN, which a maximum of |g| might lose.
  Value any_not_finite(Value flat) {
    const Value bad = b_.select(b_.unary("is_finite", flat), b_.constant_like(flat, 0), b_.constant_like(flat, 1));
    return b_.call("less", {scalar(0), b_.reshape(b_.reduce("reduce_max", bad, {0}), {})});
  }

  Value unscaled(Value scale) {
    if (options_.scaling.mode == LossScaleMode::none) return gradients_;
    return b_.mul(gradients_, b_.unary("reciprocal", scale));
  }

  Value clipped(Value g) {
    const Value norm = b_.unary("sqrt", b_.sum_to(b_.mul(g, g), {}));
    const Value factor = b_.div(scalar(*options_.clip_norm), b_.add(norm, kClipEpsilon));
    return b_.mul(g, b_.call("min", {factor, scalar(1)}));
  }

  // On overflow a state keeps its value.
  Value kept_on_overflow(Value before, Value after) { return overflow_ ? b_.select(overflow_, before, after) : after; }
  void update(Value state, Value after) { b_.update(state, kept_on_overflow(state, after)); }

  void update_parameters(Value g) {
    const OptimizerRow* row = find_optimizer(options_.name);
    require(row != nullptr, "options name an optimizer of the table");
    const Value p = b_.state(arena_name(DType::f32), arena(DType::f32));
    const Value rate = b_.input(kStepLearningRate, {DType::f32, {}});
    Value before = p;
    if (options_.weight_decay != 0 && layout_.decayed > 0) {
      if (row->decay == OptimizerRow::of_weights)
        before = where_decayed(b_.mul(p, b_.sub(scalar(1), b_.mul(rate, options_.weight_decay))), p);
      else
        g = where_decayed(b_.add(g, b_.mul(p, options_.weight_decay)), g);
    }
    UpdateNodes nodes(b_, *row, options_.parameters, {.gradient = g, .rate = rate, .arena = arena(DType::f32)},
                      [this](Value state, Value after) { update(state, after); });
    const Value step = nodes.value(row->step(nodes));
    Value moved = b_.sub(before, step);
    if (options_.weights) moved = b_.cast(b_.cast(moved, *options_.weights), DType::f32);
    const Value after = kept_on_overflow(p, moved);
    b_.update(p, after);
    if (is_tapped()) {
      b_.output(kTapGradients, gradients_);
      b_.output(kTapUpdate, before == p ? step : b_.add(step, b_.sub(p, before)));
      b_.output(kTapAfter, moved);
    }
    for (DType low : {DType::f16, DType::bf16})
      if (graph_.leaf(arena_name(low))) b_.update(b_.state(arena_name(low), arena(low)), b_.cast(after, low));
  }

  Value where_decayed(Value decayed, Value other) {
    if (layout_.decayed == layout_.size) return decayed;
    const Value index = b_.call("iota", {}, {{"shape", Shape{layout_.size}}, {"axis", int64_t{0}}});
    const Value limit = b_.constant_like(index, static_cast<double>(layout_.decayed));
    return b_.select(b_.call("less", {index, limit}), decayed, other);
  }

  void update_scale(Value scale) {
    const LossScaling& s = options_.scaling;
    const Value tracker = b_.state(kLossScaleTracker, {DType::i32, {}});
    const auto count = [this](int64_t value) { return b_.constant(DType::i32, static_cast<double>(value)); };
    const Value zero = count(0);
    // A tracker from elsewhere may be beyond the interval, or any number.
    const Value before = b_.call("max", {b_.call("min", {tracker, count(s.interval - 1)}), zero});
    const Value next = b_.add(before, count(1));
    const Value full = b_.unary("not", b_.call("less", {next, count(s.interval)}));
    const Value grown = b_.mul(scale, s.growth);
    const Value grows = b_.call("and", {full, b_.unary("is_finite", grown)});
    Value shrunk = b_.call("max", {b_.mul(scale, s.backoff), scalar(s.floor)});
    if (s.hysteresis > 1) shrunk = b_.select(spared(full), scale, shrunk);
    b_.update(scale, b_.select(overflow_, shrunk, b_.select(grows, grown, scale)));
    b_.update(tracker, b_.select(b_.call("or", {overflow_, full}), zero, next));
  }

  // Whether an overflow of this step leaves the scale; counts it. `full`: the scale grows unless the step overflowed.
  Value spared(Value full) {
    const auto count = [this](int64_t value) { return b_.constant(DType::i32, static_cast<double>(value)); };
    const Value left = b_.state(kLossScaleHysteresis, {DType::i32, {}}), all = count(options_.scaling.hysteresis);
    const Value is_spared = b_.call("less", {count(1), left});
    const Value fewer = b_.select(is_spared, b_.call("sub", {left, count(1)}), left);
    const Value restored = options_.scaling.spares == LossScaling::after_growth ? b_.select(full, all, left) : all;
    b_.update(left, b_.select(overflow_, fewer, restored));
    return is_spared;
  }

  Graph finish(Value scale) {
    // The model's own updates. While accumulating, this batch's gradients alone decide.
    for (const StateUpdate& u : graph_.updates()) update(mapped(u.state), mapped(u.value));
    for (const OwnName& name : {kLoss, kCorrect, kCounted}) {
      if (const Value v = graph_.output(name)) b_.output(name, mapped(v));
      for (const NamedValue& o : graph_.outputs())
        if (is_of_a_loss(o.name, name)) b_.output(o.name, mapped(o.value));
    }
    if (is_tapped())
      for (const NamedValue& o : graph_.outputs())
        if (is_tap(o.name)) b_.output(o.name, mapped(o.value));
    if (scale) report_scale(scale);
    return std::move(b_).finish();
  }

  void report_scale(Value scale) {
    if (!overflow_) return;
    b_.output(kOverflow, b_.cast(overflow_, DType::f32));
    b_.output(kUsedLossScale, scale);
  }

  const Graph& graph_;
  const OptimizerOptions& options_;
  const ArenaLayout& layout_;
  Builder b_;
  const ValueMap map_;
  Value gradients_;  // [P], scaled
  Value overflow_;   // bool[]; absent without a loss scale
};

}  // namespace

Graph add_update(const Graph& graph, const OptimizerOptions& options, const ArenaLayout& layout) {
  return Update(graph, options, layout, "train").train();
}

Graph add_accumulation(const Graph& graph, const OptimizerOptions& options, const ArenaLayout& layout) {
  return Update(graph, options, layout, "accumulate").accumulate();
}

Graph add_gradients(const Graph& graph, const OptimizerOptions& options, const ArenaLayout& layout) {
  return Update(graph, options, layout, "gradients").gradients();
}

std::vector<Name> arena_states(const Graph& graph, const ArenaLayout& layout) {
  std::vector<Name> names;
  for (const Node& node : graph.nodes())
    if (is(node, "state") && is_floating(node.results[0].dtype) && node.results[0].shape == Shape{layout.size})
      if (const Name name = leaf_name(node); name.is(Role::slot)) names.push_back(name);
  return names;
}

NamedTensors initial_states(const OptimizerOptions& options) {
  if (options.scaling.mode != LossScaleMode::dynamic) return {};
  NamedTensors states{{kLossScaleState, Tensor::scalar(DType::f32, options.scaling.initial)}};
  if (const int64_t count = options.scaling.hysteresis; count > 1)
    states.emplace(kLossScaleHysteresis, Tensor::scalar(DType::i32, static_cast<double>(count)));
  return states;
}

}  // namespace halfstep
