#include "passes/training/tap_values.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr std::string_view kForward = "tap.forward ", kBackward = "tap.backward ";

bool starts_with(const Name& name, std::string_view prefix) {
  return name.is(Role::measure) && name.text.starts_with(prefix);
}

// The value of a user's node: the last that another node reads, or an output.
class NodeValues {
 public:
  explicit NodeValues(const Graph& graph) : graph_(graph) {
    const std::vector<std::vector<NodeId>> users = graph.users();
    std::set<NodeId> delivered;
    for (const NamedValue& o : graph.outputs()) delivered.insert(o.value.node);
    for (NodeId id = 0; id < graph.size(); ++id) {
      const Node& node = graph.node(id);
      if (!is_of_user(node)) continue;
      bool leaves = delivered.contains(id);
      for (NodeId user : users[static_cast<size_t>(id)]) leaves |= graph.node(user).origin.name != node.origin.name;
      Found& found = by_name_[node.origin.name];
      if (leaves || !found.leaves) found = {id, leaves};
    }
  }

  std::vector<std::pair<std::string, Value>> list() const {
    std::vector<std::pair<std::string, Value>> values;
    for (const auto& [name, found] : by_name_) values.push_back({name, {found.node, 0}});
    std::ranges::sort(values, {}, [](const auto& named) { return named.second; });
    return values;
  }

 private:
  struct Found {
    NodeId node = -1;
    bool leaves = false;
  };

  static bool is_of_user(const Node& node) {
    const TensorType& type = node.results[0];
    return node.op->kernel != KernelKind::leaf && node.origin.phase == Phase::forward &&
           !static_cast<const std::string&>(node.origin.name).empty() && is_floating(type.dtype) &&
           type.element_count() > 0;
  }

  const Graph& graph_;
  std::map<std::string, Found> by_name_;
};

double smallest_kept(DType low) { return low == DType::f16 ? 0x1p-25 : 0x1p-134; }
double first_normal(DType low) { return low == DType::f16 ? 0x1p-14 : 0x1p-126; }
double first_infinite(DType low) { return low == DType::f16 ? 65520 : 0x1.ffp127; }

// Replaces marked outputs by what is said of them.
class TapValues {
 public:
  TapValues(const Graph& graph, const ArenaLayout& layout, const TapOptions& options, std::vector<Tap>& taps)
      : graph_(graph),
        layout_(layout),
        options_(options),
        taps_(taps),
        b_(graph.name()),
        map_(copy_nodes(graph, b_)),
        bins_(tap_bins(options.low)) {}

  Graph run() {
    b_.set_origin({"taps", Phase::update});
    Tensor thresholds({DType::f32, {1, kTapThresholds}});
    for (size_t i = 0; i < kTapThresholds; ++i) thresholds.set(static_cast<int64_t>(i), bins_.thresholds[i]);
    thresholds_ = b_.constant(std::move(thresholds));
    std::vector<NamedValue> marked;
    for (const NamedValue& o : graph_.outputs()) (is_tap(o.name) ? marked : kept_).push_back(o);
    std::ranges::stable_sort(marked, {}, [](const NamedValue& o) { return o.value; });
    for (const NamedValue& o : marked) {
      if (starts_with(o.name, kForward)) add_node(Tap::forward, o.name.text.substr(kForward.size()), o.value);
      if (starts_with(o.name, kBackward)) add_node(Tap::backward, o.name.text.substr(kBackward.size()), o.value);
    }
    add_arena(Tap::gradient, graph_.output(kTapGradients));
    add_arena(Tap::update, graph_.output(kTapUpdate));
    find_inputs();
    find_parameters();
    for (const NamedValue& o : kept_) b_.output(o.name, map_(o.value));
    for (const StateUpdate& u : graph_.updates()) b_.update(map_(u.state), map_(u.value));
    if (!rows_.empty()) b_.output(kTaps, joined(rows_));
    if (!samples_.empty()) b_.output(kTapSamples, joined(samples_));
    return std::move(b_).finish();
  }

 private:
  Value scalar(double value) { return b_.constant(DType::f32, value); }
  Value joined(const std::vector<Value>& pieces) {
    return pieces.size() == 1 ? pieces[0] : b_.call("concat", pieces, {{"axis", int64_t{0}}});
  }
  Value filled(double value, int64_t count) { return b_.broadcast(scalar(value), {count}); }
  Value repeated(Value one, int64_t count) { return b_.broadcast(b_.reshape(one, {1}), {count}); }
  // Every k-th element, so that at most `most` are left.
  Value spread(Value flat, int64_t most) {
    const int64_t size = b_.shape(flat)[0];
    return most > 0 && size > most ? b_.slice(flat, {0}, {size}, {ceil_div(size, most)}) : flat;
  }

  void add_node(Tap::Kind kind, std::string node, Value v) {
    const TensorType& type = graph_.type(v);
    made_by_.emplace(v, static_cast<int32_t>(taps_.size()));
    add({.kind = kind, .node = std::move(node), .type = type}, b_.reshape(map_(v), {type.element_count()}), {});
    values_.push_back(v);
  }

  void add_arena(Tap::Kind kind, Value arena) {
    if (!arena) return;
    const Value after = graph_.output(kTapAfter);
    for (const ArenaSlice& slice : layout_.slices) {
      if (slice.size() == 0) continue;
      const auto part = [&](Value whole) { return b_.slice(whole, {slice.offset}, {slice.offset + slice.size()}); };
      const Value x = part(map_(arena));
      std::vector<Value> lost;
      if (kind == Tap::update) {
        const Value before = part(b_.state(arena_name(DType::f32), {DType::f32, {layout_.size}}));
        lost = {lost_in(options_.low, x, before), lost_in_master(x, before, part(map_(after)))};
      }
      add({.kind = kind, .node = slice.name, .type = {DType::f32, slice.shape}}, x, lost);
      values_.push_back({});
    }
  }

  Value count_where(Value condition) { return b_.reduce("reduce_sum", b_.cast(condition, DType::f32), {0}); }
  Value is_not_zero(Value x) { return b_.call("less", {b_.constant_like(x, 0), b_.unary("abs", x)}); }
  // Of updates that are not zero, those that a weight kept in `low` would not notice.
  Value lost_in(DType low, Value update, Value before) {
    const Value weight = b_.cast(before, low);
    const Value moved = b_.cast(b_.sub(b_.cast(weight, DType::f32), update), low);
    return count_where(b_.call("and", {is_not_zero(update), b_.call("eq", {moved, weight})}));
  }
  Value lost_in_master(Value update, Value before, Value after) {
    return count_where(b_.call("and", {is_not_zero(update), b_.call("eq", {before, after})}));
  }

  void add(Tap tap, Value flat, const std::vector<Value>& lost) {
    const Value wide = b_.cast(flat, DType::f32);
    const Value largest = b_.reduce("reduce_max", b_.unary("abs", wide), {0});
    const Value some = spread(wide, options_.most_counted);
    tap.counted = b_.shape(some)[0];
    const Shape grid{tap.counted, kTapThresholds};
    const Value magnitude = b_.broadcast(b_.reshape(b_.unary("abs", some), {tap.counted, 1}), grid);
    const Value reached = b_.call("less_equal", {b_.broadcast(thresholds_, grid), magnitude});
    const Value counts = b_.reduce("reduce_sum", b_.cast(reached, DType::f32), {0});
    rows_.push_back(b_.reshape(counts, {kTapThresholds}));
    if (lost.empty()) {
      rows_.push_back(repeated(largest, 16));
    } else {
      for (Value v : {largest, lost[0], lost[1]}) rows_.push_back(repeated(v, 4));
      rows_.push_back(filled(0, 4));
    }
    if (options_.samples > 0) {
      const Value sample = spread(wide, options_.samples);
      tap.samples = b_.shape(sample)[0], tap.first_sample = samples_end_;
      samples_end_ = round_up(samples_end_ + tap.samples, kSliceAlignment);
      samples_.push_back(sample);
      if (const int64_t gap = samples_end_ - tap.first_sample - tap.samples; gap > 0)
        samples_.push_back(filled(0, gap));
    }
    taps_.push_back(std::move(tap));
  }

  // For each tapped node value the taps before it and the nodes behind it.
  void find_inputs() {
    const std::vector<std::vector<NodeId>> users = graph_.users();
    for (size_t i = 0; i < values_.size(); ++i) {
      if (!values_[i]) continue;
      Tap& tap = taps_[i];
      std::set<int32_t> inputs;
      std::set<NodeId> seen;
      std::vector<NodeId> stack{values_[i].node};
      while (!stack.empty()) {
        const NodeId at = stack.back();
        stack.pop_back();
        if (!seen.insert(at).second) continue;
        const Node& node = graph_.node(at);
        for (Value v : node.operands) {
          if (!v) continue;
          const auto made = made_by_.find(v);
          if (made != made_by_.end() && made->second != static_cast<int32_t>(i))
            inputs.insert(made->second);
          else
            stack.push_back(v.node);
        }
      }
      tap.inputs.assign(inputs.begin(), inputs.end());
      std::set<std::string> readers;
      if (tap.kind == Tap::forward)
        for (NodeId user : users[static_cast<size_t>(values_[i].node)]) {
          const Origin& origin = graph_.node(user).origin;
          if (origin.phase == Phase::forward && origin.name != graph_.node(values_[i]).origin.name)
            readers.insert(origin.name);
        }
      tap.readers.assign(readers.begin(), readers.end());
    }
  }

  // A parameter belongs to the user's node that reads it first, past views and casts.
  void find_parameters() {
    const std::vector<std::vector<NodeId>> users = graph_.users();
    std::map<int64_t, std::pair<std::string, int64_t>> slices;  // by offset
    for (const ArenaSlice& slice : layout_.slices) slices[slice.offset] = {slice.name, slice.size()};
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      if (!is(node, "slice") || !is(graph_.node(node.operands[0]), "state")) continue;
      const auto found = slices.find(node.attributes.ints("starts")[0]);
      if (found == slices.end() || found->second.second != node.results[0].element_count()) continue;
      std::vector<NodeId> readers{id};
      for (size_t i = 0; i < readers.size(); ++i) {
        const Node& reader = graph_.node(readers[i]);
        const bool passes = is(reader, "slice") || is(reader, "reshape") || is(reader, "cast") ||
                            is(reader, "transpose") || is(reader, "broadcast");
        const auto tap = std::ranges::find_if(taps_, [&](const Tap& t) {
          return t.kind == Tap::forward && t.node == *reader.origin.name && reader.origin.phase == Phase::forward;
        });
        if (tap != taps_.end()) {
          if (!std::ranges::count(tap->parameters, found->second.first)) tap->parameters.push_back(found->second.first);
          break;
        }
        if (passes)
          readers.insert(readers.end(), users[static_cast<size_t>(readers[i])].begin(),
                         users[static_cast<size_t>(readers[i])].end());
      }
    }
  }

  const Graph& graph_;
  const ArenaLayout& layout_;
  const TapOptions& options_;
  std::vector<Tap>& taps_;
  Builder b_;
  const ValueMap map_;
  const TapBins bins_;
  Value thresholds_;
  std::vector<NamedValue> kept_;
  std::vector<Value> rows_, samples_, values_;
  std::map<Value, int32_t> made_by_;
  int64_t samples_end_ = 0;
};

}  // namespace

TapBins tap_bins(DType low) {
  TapBins bins{};
  const bool f16 = low == DType::f16;
  bins.first = f16 ? -64 : -136, bins.width = f16 ? 2 : 8, bins.count = f16 ? 40 : 33;
  std::set<float> all{0.0F, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::infinity()};
  for (int i = 0; i < bins.count; ++i) all.insert(static_cast<float>(std::exp2(bins.first + i * bins.width)));
  const float vanish = std::nextafter(static_cast<float>(smallest_kept(low)), 1.0F);
  const float normal = static_cast<float>(first_normal(low)), overflow = static_cast<float>(first_infinite(low));
  all.insert({vanish, normal, overflow});
  // What is left of the row: more of what lies beyond.
  for (float beyond = overflow; all.size() < kTapThresholds && beyond < 0x1p120F; all.insert(beyond)) beyond *= 0x1p8F;
  std::vector<float> sorted(all.begin(), all.end());
  sorted.resize(kTapThresholds, std::numeric_limits<float>::infinity());
  std::ranges::copy(sorted, bins.thresholds.begin());
  const auto place = [&](float of) { return static_cast<size_t>(std::ranges::find(sorted, of) - sorted.begin()); };
  bins.vanish = place(vanish), bins.normal = place(normal), bins.overflow = place(overflow);
  return bins;
}

TapCounts read_tap(const TapBins& bins, std::span<const float> row, int64_t counted) {
  TapCounts c;
  c.counted = static_cast<double>(counted);
  const auto reached = [&](size_t i) { return static_cast<double>(row[i]); };
  const double infinite = reached(kTapThresholds - 1);
  c.nan = c.counted - reached(0);
  c.infinite = infinite;
  c.zero = reached(0) - reached(1);
  c.underflow = reached(1) - reached(bins.vanish);
  c.subnormal = reached(bins.vanish) - reached(bins.normal);
  c.overflow = reached(bins.overflow) - infinite;
  c.exponents.assign(static_cast<size_t>(bins.count), 0);
  for (size_t i = 2; i < bins.overflow; ++i) {
    const int exponent = std::ilogb(bins.thresholds[i]);
    if (exponent < bins.first) continue;
    const size_t bin = std::min(static_cast<size_t>((exponent - bins.first) / bins.width), c.exponents.size() - 1);
    c.exponents[bin] += reached(i) - reached(i + 1);
  }
  c.largest = row[kTapThresholds];
  c.lost_low = row[kTapThresholds + 4], c.lost_master = row[kTapThresholds + 8];
  return c;
}

bool is_tap(const Name& output) { return starts_with(output, "tap."); }

Name gradient_tap(const Name& forward) {
  return {Role::measure, std::string(kBackward) + forward.text.substr(kForward.size())};
}

Graph mark_taps(const Graph& graph) {
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b);
  for (const NamedValue& o : graph.outputs()) b.output(o.name, map(o.value));
  for (const StateUpdate& u : graph.updates()) b.update(map(u.state), map(u.value));
  for (const auto& [name, value] : NodeValues(graph).list())
    b.output({Role::measure, std::string(kForward) + name}, map(value));
  if (const Value loss = graph.output(kLoss)) b.output({Role::measure, std::string(kForward) + "loss"}, map(loss));
  return std::move(b).finish();
}

Graph tap_values(const Graph& graph, const ArenaLayout& layout, const TapOptions& options, std::vector<Tap>& taps) {
  taps.clear();
  return TapValues(graph, layout, options, taps).run();
}

}  // namespace halfstep
