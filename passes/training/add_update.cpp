#include "passes/training/add_update.h"

#include <cmath>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr OwnName kMomentumArena{Role::slot, "momentum"}, kMomentumStarted{Role::slot, "momentum.started"},
    kAdamFirst{Role::slot, "adam.m"}, kAdamSecond{Role::slot, "adam.v"}, kAdamStep{Role::slot, "adam.step"};
constexpr double kNoLabels = 1e-20;    // below any count; gradients are zero then
constexpr double kClipEpsilon = 1e-6;  // torch.nn.utils.clip_grad_norm_

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
    const Value p = b_.state(arena_name(DType::f32), arena(DType::f32));
    const Value rate = b_.input(kStepLearningRate, {DType::f32, {}});
    Value before = p;
    if (options_.weight_decay != 0 && layout_.decayed > 0) {
      if (options_.kind == OptimizerKind::adamw)
        before = where_decayed(b_.mul(p, b_.sub(scalar(1), b_.mul(rate, options_.weight_decay))), p);
      else
        g = where_decayed(b_.add(g, b_.mul(p, options_.weight_decay)), g);
    }
    const Value step = options_.kind == OptimizerKind::sgd ? b_.mul(sgd_direction(g), rate) : adam_step(g, rate);
    const Value after = kept_on_overflow(p, b_.sub(before, step));
    b_.update(p, after);
    for (DType low : {DType::f16, DType::bf16})
      if (graph_.leaf(arena_name(low))) b_.update(b_.state(arena_name(low), arena(low)), b_.cast(after, low));
  }

  Value where_decayed(Value decayed, Value other) {
    if (layout_.decayed == layout_.size) return decayed;
    const Value index = b_.call("iota", {}, {{"shape", Shape{layout_.size}}, {"axis", int64_t{0}}});
    const Value limit = b_.constant_like(index, static_cast<double>(layout_.decayed));
    return b_.select(b_.call("less", {index, limit}), decayed, other);
  }

  Value sgd_direction(Value g) {
    if (options_.momentum == 0) return g;
    const Value before = b_.state(kMomentumArena, arena(DType::f32));
    Value after = b_.add(b_.mul(before, options_.momentum), b_.mul(g, 1 - options_.dampening));
    if (options_.dampening != 0) {
      // The first step's buffer is the gradient itself.
      const Value started = b_.state(kMomentumStarted, {DType::f32, {}});
      after = b_.select(b_.call("less", {scalar(0), started}), after, g);
      update(started, scalar(1));
    }
    update(before, after);
    return options_.acceleration == OptimizerOptions::nesterov ? b_.add(g, b_.mul(after, options_.momentum)) : after;
  }

  // 1 - beta^step, without cancellation: with y = step log(beta), a Taylor series of -(e^y - 1) near 0.
  Value bias_correction(Value step, double beta) {
    constexpr int kTerms = 5;
    const Value y = b_.mul(step, std::log(beta));
    Value series = scalar(1);  // (e^y - 1) / y = 1 + y/2 (1 + y/3 (1 + ...))
    for (int k = kTerms; k > 1; --k) series = b_.add(b_.mul(b_.mul(y, series), 1.0 / k), 1);
    const Value near = b_.unary("neg", b_.mul(y, series));
    const Value far = b_.sub(scalar(1), b_.unary("exp", y));
    return b_.select(b_.call("less", {scalar(-0.125), y}), near, far);
  }

  Value adam_step(Value g, Value rate) {
    const Value m = b_.state(kAdamFirst, arena(DType::f32)), v = b_.state(kAdamSecond, arena(DType::f32));
    const Value count = b_.state(kAdamStep, {DType::f32, {}});
    const Value step = b_.add(count, 1);
    const Value first = b_.add(m, b_.mul(b_.sub(g, m), 1 - options_.beta1));
    const Value second = b_.add(b_.mul(v, options_.beta2), b_.mul(b_.mul(g, g), 1 - options_.beta2));
    update(m, first);
    update(v, second);
    update(count, step);
    const Value size = b_.div(rate, bias_correction(step, options_.beta1));
    const Value spread = b_.unary("sqrt", bias_correction(step, options_.beta2));
    const Value denominator = b_.add(b_.div(b_.unary("sqrt", second), spread), options_.epsilon);
    return b_.mul(b_.div(first, denominator), size);
  }

  void update_scale(Value scale) {
    const LossScaling& s = options_.scaling;
    const Value tracker = b_.state(kLossScaleTracker, {DType::i32, {}});
    const Value zero = b_.constant(DType::i32, 0), next = b_.add(tracker, b_.constant(DType::i32, 1));
    const Value full = b_.call("eq", {next, b_.constant(DType::i32, static_cast<double>(s.interval))});
    const Value grown = b_.mul(scale, s.growth);
    const Value grows = b_.call("and", {full, b_.unary("is_finite", grown)});
    const Value shrunk = b_.call("max", {b_.mul(scale, s.backoff), scalar(s.floor)});
    b_.update(scale, b_.select(overflow_, shrunk, b_.select(grows, grown, scale)));
    b_.update(tracker, b_.select(b_.call("or", {overflow_, full}), zero, next));
  }

  Graph finish(Value scale) {
    // The model's own updates. While accumulating, this batch's gradients alone decide.
    for (const StateUpdate& u : graph_.updates()) update(mapped(u.state), mapped(u.value));
    for (const OwnName& name : {kLoss, kCorrect, kCounted})
      if (const Value v = graph_.output(name)) b_.output(name, mapped(v));
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
  return {{kLossScaleState, Tensor::scalar(DType::f32, options.scaling.initial)}};
}

}  // namespace halfstep
