#include "passes/training/add_update.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/rewrite/rules.h"
#include "passes/training/counted_labels.h"
#include "passes/training/tap_values.h"
#include "passes/training/update_nodes.h"

namespace halfstep {
namespace {

constexpr double kNoLabels = 1e-20;    // below any count; gradients are zero then
constexpr double kClipEpsilon = 1e-6;  // torch.nn.utils.clip_grad_norm_

// Copies a differentiated graph, and gathers its gradients.
class Update {
 public:
  Update(const Graph& graph, const OptimizerOptions& options, const ArenaLayout& layout, std::string name)
      : graph_(graph),
        options_(options),
        layout_(layout),
        b_(std::move(name)),
        map_(copy_nodes(graph, b_)),
        arenas_(b_, layout) {
    b_.set_origin({"optimizer", Phase::update});
    for (const LossIndex& loss : halfstep::backwards(options.scaling))
      backwards_.push_back({.loss = loss, .gradients = flat_gradients(loss), .scale = {}, .overflow = {}});
    check_overflow();
  }

  Graph train() {
    if (options_.accumulation > 1) {
      for (Backward& back : backwards_) {
        const Value sum = b_.state(of(kGradientArena, back.loss), arena(DType::f32));
        back.gradients = b_.add(back.gradients, sum);
        b_.update(sum, b_.broadcast(b_.constant(DType::f32, 0), {layout_.size}));
      }
      check_overflow();
    }
    read_scales();
    Value g = unscaled_sum([&](const Backward& back, Value unscaled) {
      const Value labels = counted(back);
      if (!labels) return unscaled;
      const Value before = b_.state(of(kCountedLabels, back.loss), {DType::f32, {}});
      b_.update(before, scalar(0));
      const Value all = b_.call("max", {b_.add(before, labels), scalar(kNoLabels)});
      return b_.mul(unscaled, b_.div(scalar(labels_of_step(back)), all));
    });
    if (options_.clip_adaptive) g = adaptively_clipped(g);
    if (options_.clip_value) g = clipped_elements(g);
    if (options_.clip_norm) g = clipped(g);
    update_parameters(g);
    if (options_.scaling.mode == LossScaleMode::dynamic) {
      if (options_.scaling.scales == LossScaling::shared)
        update_scale(backwards_.front().scale, overflow_, std::nullopt);
      else
        for (const Backward& back : backwards_) update_scale(back.scale, back.overflow, back.loss);
    }
    return finish();
  }

  Graph accumulate() {
    for (const Backward& back : backwards_) {
      const Value sum = b_.state(of(kGradientArena, back.loss), arena(DType::f32));
      b_.update(sum, b_.add(sum, back.gradients));
      if (const Value labels = counted(back)) {
        const Value before = b_.state(of(kCountedLabels, back.loss), {DType::f32, {}});
        b_.update(before, b_.add(before, labels));
      }
    }
    return finish();
  }

  Graph gradients() {
    read_scales();
    const double batches = static_cast<double>(options_.accumulation);
    b_.update(b_.state(kGradientArena, arena(DType::f32)), unscaled_sum([&](const Backward& back, Value unscaled) {
                if (const Value labels = counted(back))
                  return b_.mul(unscaled,
                                b_.div(scalar(labels_of_step(back)), b_.call("max", {labels, scalar(kNoLabels)})));
                return batches > 1 ? b_.mul(unscaled, batches) : unscaled;
              }));
    for (const NamedValue& o : graph_.outputs())
      if (!o.name.is(Role::gradient)) b_.output(o.name, mapped(o.value));
    report_scale();
    return std::move(b_).finish();
  }

 private:
  TensorType arena(DType dtype) const { return {dtype, {layout_.size}}; }
  Value mapped(Value v) const { return map_(v); }
  // What is differentiated by itself: the sum of the losses, or one of them.
  struct Backward {
    LossIndex loss;
    Value gradients;  // [P], scaled
    Value scale;
    Value overflow;  // bool[]; absent without a loss scale
  };

  // Of this batch; absent where all labels are alike, or where one batch is a step.
  Value counted(const Backward& back) const {
    return options_.accumulation > 1 ? mapped(counted_labels(graph_, back.loss).total) : Value{};
  }
  bool is_tapped() const {
    return std::ranges::any_of(graph_.outputs(), [](const NamedValue& o) { return is_tap(o.name); });
  }
  double labels_of_step(const Backward& back) const {
    return static_cast<double>(counted_labels(graph_, back.loss).samples * options_.accumulation);
  }
  Value scalar(double value) { return b_.constant(DType::f32, value); }

  // All gradients in the arenas' order. A concat along axis 0, so that each piece can be written in its place.
  Value flat_gradients(const LossIndex& loss) {
    std::vector<Value> pieces;
    int64_t at = 0;
    const auto fill_to = [&](int64_t offset) {
      if (offset > at) pieces.push_back(b_.broadcast(scalar(0), {offset - at}));
    };
    for (const ArenaSlice& slice : layout_.slices) {
      const Value gradient = graph_.output(gradient_name(slice.name, loss));
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

  void check_overflow() {
    if (options_.scaling.mode == LossScaleMode::none) return;
    overflow_ = {};
    for (Backward& back : backwards_) {
      back.overflow = any_not_finite(back.gradients);
      overflow_ = overflow_ ? b_.call("or", {overflow_, back.overflow}) : back.overflow;
    }
  }

  void read_scales() {
    for (Backward& back : backwards_) back.scale = loss_scale(b_, options_.scaling, back.loss);
  }

  // The gradients of all losses; `weighed`: each by the labels that count.
  Value unscaled_sum(const std::function<Value(const Backward&, Value)>& weighed) {
    Value sum;
    for (const Backward& back : backwards_) {
      Value g = back.gradients;
      if (options_.scaling.mode != LossScaleMode::none) g = b_.mul(g, b_.unary("reciprocal", back.scale));
      g = weighed(back, g);
      sum = sum ? b_.add(sum, g) : g;
    }
    return sum;
  }

  Value clipped(Value g) {
    const Value norm = b_.unary("sqrt", b_.sum_to(b_.mul(g, g), {}));
    const Value factor = b_.div(scalar(*options_.clip_norm), b_.add(norm, kClipEpsilon));
    return b_.mul(g, b_.call("min", {factor, scalar(1)}));
  }

  Value clipped_elements(Value g) {
    const double most = *options_.clip_value;
    return b_.call("max", {b_.call("min", {g, b_.constant_like(g, most)}), b_.constant_like(g, -most)});
  }

  // Adaptive gradient clipping (Brock et al. 2021) as timm has it: of each output's weights the gradient's norm is at
  // most a share of their own.
  Value adaptively_clipped(Value g) {
    constexpr double kLeastWeights = 1e-3, kLeastGradient = 1e-6;
    const Value p = weights();
    return arenas_.by_parameter([&](const ArenaSlice& slice) {
      const Value x = arenas_.part(g, slice), w = arenas_.part(p, slice);
      const Shape shape = slice.file_shape();
      Ints axes;
      for (int64_t axis = 0; axis < static_cast<int64_t>(shape.size()); ++axis)
        if (shape.size() < 2 || axis != slice.output_axis) axes.push_back(axis);
      const auto norm = [&](Value v) { return b_.unary("sqrt", b_.reduce("reduce_sum", b_.mul(v, v), axes)); };
      const auto at_least = [&](Value v, double least) { return b_.binary("max", v, scalar(least)); };
      const Value most = b_.mul(at_least(norm(w), kLeastWeights), *options_.clip_adaptive), is = norm(x);
      const Value smaller = b_.mul(x, b_.div(most, at_least(is, kLeastGradient)));
      const Value fits = b_.binary("less", is, most);
      return b_.select(b_.broadcast(fits, shape), x, smaller);
    });
  }

  Value weights() { return b_.state(arena_name(DType::f32), arena(DType::f32)); }

  // On overflow a state keeps its value.
  Value kept_on_overflow(Value before, Value after) { return overflow_ ? b_.select(overflow_, before, after) : after; }
  void update(Value state, Value after) { b_.update(state, kept_on_overflow(state, after)); }

  void update_parameters(Value g) {
    const OptimizerRow* row = find_optimizer(options_.name);
    require(row != nullptr, "options name an optimizer of the table");
    const Value p = weights();
    const Value rate = arenas_.by_segment([&](const ArenaSegment& s) { return arenas_.rate(s.rate); });
    Value before = p;
    const bool decays = std::ranges::any_of(layout_.segments, [](const auto& s) { return s.weight_decay != 0; });
    if (decays && row->decay != OptimizerRow::of_step) {
      const Value decay = arenas_.by_segment([](const ArenaSegment& s) { return s.weight_decay; });
      if (row->decay == OptimizerRow::of_weights)
        before = b_.mul(p, b_.sub(scalar(1), b_.mul(rate, decay)));
      else
        g = b_.add(g, b_.mul(p, decay));
    }
    UpdateNodes nodes(b_, *row, options_.parameters, layout_, {.gradient = g, .weights = p, .arena = arena(DType::f32)},
                      [this](Value state, Value after) { update(state, after); });
    const Value step = nodes.value(row->step(nodes));
    Value moved = b_.sub(before, step);
    if (options_.weights) moved = b_.cast(b_.cast(moved, *options_.weights), DType::f32);
    const Value after = kept_on_overflow(p, moved);
    b_.update(p, after);
    if (is_tapped()) {
      b_.output(kTapGradients, backwards_.front().gradients);
      b_.output(kTapUpdate, before == p ? step : b_.add(step, b_.sub(p, before)));
      b_.output(kTapAfter, moved);
    }
    for (DType low : {DType::f16, DType::bf16})
      if (graph_.leaf(arena_name(low))) b_.update(b_.state(arena_name(low), arena(low)), b_.cast(after, low));
    if (options_.ema) average(moved);
  }

  // torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn: the first average is the first weights.
  void average(Value moved) {
    const Value mean = b_.state(kAverageArena, arena(DType::f32));
    const Value count = b_.state(kAverageCount, {DType::f32, {}});
    const Value nearer = b_.add(mean, b_.mul(b_.sub(moved, mean), 1 - *options_.ema));
    update(mean, b_.select(b_.call("less", {scalar(0), count}), nearer, moved));
    update(count, b_.add(count, 1));
  }

  // By the overflows of what it scaled.
  void update_scale(Value scale, Value overflow, const LossIndex& loss) {
    const LossScaling& s = options_.scaling;
    const Value tracker = b_.state(of(kLossScaleTracker, loss), {DType::i32, {}});
    const auto count = [this](int64_t value) { return b_.constant(DType::i32, static_cast<double>(value)); };
    const Value zero = count(0);
    // A tracker from elsewhere may be beyond the interval, or any number.
    const Value before = b_.call("max", {b_.call("min", {tracker, count(s.interval - 1)}), zero});
    const Value next = b_.add(before, count(1));
    const Value full = b_.unary("not", b_.call("less", {next, count(s.interval)}));
    const Value grown = b_.mul(scale, s.growth);
    const Value grows = b_.call("and", {full, b_.unary("is_finite", grown)});
    Value shrunk = b_.call("max", {b_.mul(scale, s.backoff), scalar(s.floor)});
    if (s.hysteresis > 1) shrunk = b_.select(spared(full, overflow, loss), scale, shrunk);
    b_.update(scale, b_.select(overflow, shrunk, b_.select(grows, grown, scale)));
    b_.update(tracker, b_.select(b_.call("or", {overflow, full}), zero, next));
  }

  // Whether an overflow of this step leaves the scale; counts it. `full`: the scale grows unless the step overflowed.
  Value spared(Value full, Value overflow, const LossIndex& loss) {
    const auto count = [this](int64_t value) { return b_.constant(DType::i32, static_cast<double>(value)); };
    const Value left = b_.state(of(kLossScaleHysteresis, loss), {DType::i32, {}}),
                all = count(options_.scaling.hysteresis);
    const Value is_spared = b_.call("less", {count(1), left});
    const Value fewer = b_.select(is_spared, b_.call("sub", {left, count(1)}), left);
    const Value restored = options_.scaling.spares == LossScaling::after_growth ? b_.select(full, all, left) : all;
    b_.update(left, b_.select(overflow, fewer, restored));
    return is_spared;
  }

  Graph finish() {
    // The model's own updates. While accumulating, this batch's gradients alone decide.
    for (const StateUpdate& u : graph_.updates()) update(mapped(u.state), mapped(u.value));
    for (const OwnName& name : {kLoss, kCorrect, kCounted, kWeighed}) {
      if (const Value v = graph_.output(name)) b_.output(name, mapped(v));
      for (const NamedValue& o : graph_.outputs())
        if (is_of_a_loss(o.name, name)) b_.output(o.name, mapped(o.value));
    }
    if (is_tapped())
      for (const NamedValue& o : graph_.outputs())
        if (is_tap(o.name)) b_.output(o.name, mapped(o.value));
    report_scale();
    return std::move(b_).finish();
  }

  // Of losses with a scale each, its own too; "loss_scale" is then the least of those that overflowed, or of all.
  void report_scale() {
    if (!overflow_ || !backwards_.front().scale) return;
    const bool each = options_.scaling.scales == LossScaling::of_each;
    Value scale = backwards_.front().scale;
    if (each) {
      scale = {};
      for (const Backward& back : backwards_) {
        const Value matters = b_.call("or", {back.overflow, b_.unary("not", overflow_)});
        const Value own = b_.select(matters, back.scale, scalar(std::numeric_limits<float>::max()));
        scale = scale ? b_.call("min", {scale, own}) : own;
      }
    }
    b_.output(kOverflow, b_.cast(overflow_, DType::f32));
    b_.output(kUsedLossScale, scale);
    if (!each) return;
    for (const Backward& back : backwards_) {
      b_.output(of(kOverflow, back.loss), b_.cast(back.overflow, DType::f32));
      b_.output(of(kUsedLossScale, back.loss), back.scale);
    }
  }

  const Graph& graph_;
  const OptimizerOptions& options_;
  const ArenaLayout& layout_;
  Builder b_;
  const ValueMap map_;
  ArenaValues arenas_;
  std::vector<Backward> backwards_;
  Value overflow_;  // bool[], of any; absent without a loss scale
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

ArenaOrder arena_order(const OptimizerOptions& options) {
  const OptimizerRow* row = find_optimizer(options.name);
  require(row != nullptr, "options name an optimizer of the table");
  return {.weight_decay = options.weight_decay,
          .no_decay = options.no_decay,
          .groups = options.groups,
          .unfreeze = options.unfreeze,
          .apart = row->apart};
}

std::vector<Name> arena_states(const Graph& graph, const ArenaLayout& layout) {
  std::vector<Name> names;
  for (const Node& node : graph.nodes())
    if (is(node, "state") && is_floating(node.results[0].dtype) && node.results[0].shape == Shape{layout.size})
      if (const Name name = leaf_name(node); name.is(Role::slot)) names.push_back(name);
  return names;
}

NamedTensors initial_states(const OptimizerOptions& options) {
  const LossScaling& scaling = options.scaling;
  if (scaling.mode != LossScaleMode::dynamic) return {};
  NamedTensors states;
  const bool each = scaling.scales == LossScaling::of_each;
  for (const LossIndex& loss : each ? backwards(scaling) : std::vector<LossIndex>{std::nullopt}) {
    states.emplace(of(kLossScaleState, loss), Tensor::scalar(DType::f32, scaling.initial));
    if (scaling.hysteresis > 1)
      states.emplace(of(kLossScaleHysteresis, loss),
                     Tensor::scalar(DType::i32, static_cast<double>(scaling.hysteresis)));
  }
  return states;
}

}  // namespace halfstep
