#include "codegen/kernel/schedule.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "codegen/kernel/columns_tile.h"
#include "codegen/kernel/kernel_region.h"
#include "ir/op.h"
#include "ir/ops/families.h"
#include "ir/reduction_split.h"

namespace halfstep {
namespace {

int64_t count(const Shape& shape) { return TensorType{DType::u8, shape}.element_count(); }

// The iteration space: axes fine enough that the shapes of the region are groups of them.
struct Axis {
  int64_t extent;
  bool reduced;
  bool together;  // its points stand together at one position of the variables
};

class Axes {
 public:
  Axes(const Shape& shape, const std::vector<bool>& reduced) {
    int64_t position = count(shape);
    for (size_t i = 0; i < shape.size(); ++i) {
      boundaries_.insert(position);
      reduced_[position] = reduced[i];
      position /= shape[i];
    }
    boundaries_.insert(1);
  }

  // Adds the boundaries of a shape of as many elements, scaled, where they fit between the known ones.
  void refine(const Shape& shape, int64_t scale) {
    int64_t position = scale;
    for (size_t i = shape.size(); i-- > 0;) {
      position *= shape[i];
      const auto above = boundaries_.lower_bound(position);
      if (above == boundaries_.end() || *above == position) continue;
      const auto below = std::prev(above);
      if (position % *below != 0 || *above % position != 0) continue;
      reduced_[position] = reduced_.at(*above);
      boundaries_.insert(position);
    }
  }

  // Splits the axis of `inner` elements a position, where there is one, into groups of `size` points that stand
  // together.
  void group(int64_t inner, int64_t size) {
    const auto above = boundaries_.upper_bound(inner);
    if (!boundaries_.count(inner) || above == boundaries_.end() || *above % (inner * size) != 0) return;
    const bool reduced = reduced_.at(*above);
    boundaries_.insert(inner * size);
    reduced_[inner * size] = reduced;
    groups_.insert(inner * size);
  }

  std::vector<Axis> list() const {
    std::vector<Axis> axes;
    for (auto at = boundaries_.rbegin(); std::next(at) != boundaries_.rend(); ++at)
      axes.push_back({*at / *std::next(at), reduced_.at(*at), groups_.count(*at) > 0});
    return axes;
  }

 private:
  std::set<int64_t> boundaries_;     // elements from an axis's start to the end of the tensor
  std::map<int64_t, bool> reduced_;  // of the axis that starts there
  std::set<int64_t> groups_;         // where axes start whose points stand together
};

enum class Part : uint8_t { whole, partial, combination };

// Points that stand together at most: each has its own accumulators, or its own values to store.
constexpr int64_t kMostTogether = 4;

class Scheduler {
 public:
  Scheduler(const Graph& region, DeviceKind device) : region_(region), device_(device) { find_reductions(); }

  Schedule run() {
    Schedule s;
    if (std::all_of(region_.outputs().begin(), region_.outputs().end(),
                    [&](const NamedValue& o) { return region_.type(o.value).element_count() == 0; }))
      return s;
    find_axes();
    s.kernels.push_back(build(Part::whole, 0));
    const Kernel& whole = s.kernels[0];
    const int64_t length = chunk_length(whole);
    if (length == 0) return s;
    const int64_t positions = chunk_positions(whole), chunks = ceil_div(positions, length);
    const Kernel::Form form = whole.form;
    s.kernels.clear();
    s.kernels.push_back(build(Part::partial, length, chunks, form));
    require(chunk_positions(s.kernels[0]) == positions, "a region and its first part walk different positions");
    s.kernels.push_back(build(Part::combination, 0, chunks, form));
    for (const Reduction& r : s.kernels[0].reductions) s.partials.push_back({r.dtype, {kept_ * chunks}});
    return s;
  }

 private:
  [[noreturn]] void reject(const std::string& why) const {
    throw InternalError("region '" + region_.name() + "' is no kernel: " + why);
  }

  void find_reductions() {
    for (NodeId id = 0; id < region_.size(); ++id) {
      const Node& node = region_.node(id);
      if (node.op->kernel != KernelKind::reduction) continue;
      const int64_t from = region_.type(node.operands[0]).element_count(), to = node.results[0].element_count();
      if (to > 0 && from > to) reductions_.push_back(id);
    }
  }

  void find_axes() {
    const Ints* reduced_axes = nullptr;
    Shape domain;
    if (reductions_.empty()) {
      for (const NamedValue& o : region_.outputs())
        if (region_.type(o.value).element_count() > 0) domain = region_.type(o.value).shape;
    } else {
      const Node& first = region_.node(reductions_[0]);
      reduced_axes = &first.attributes.ints("axes");
      domain = region_.type(first.operands[0]).shape;
      for (NodeId id : reductions_)
        if (reduction_runs(region_.type(region_.node(id).operands[0]).shape,
                           region_.node(id).attributes.ints("axes")) != reduction_runs(domain, *reduced_axes))
          reject("its reductions do not share rows and columns");
      kept_ = first.results[0].element_count();
    }
    std::vector<bool> reduced(domain.size(), false);
    if (reduced_axes)
      for (int64_t axis : *reduced_axes) reduced[static_cast<size_t>(axis)] = true;
    full_ = count(domain);
    if (!reduced_axes) kept_ = full_;
    Axes axes(domain, reduced);
    const auto pattern = reduced_axes ? reduction_runs(domain, *reduced_axes) : ReductionRuns{};
    const bool trailing = !pattern.empty() && pattern.size() <= 2 && pattern.back().second;
    // The shapes that a row-major walk over the domain goes through: up to the first node that changes the order.
    std::set<std::pair<Value, int64_t>> seen;
    const std::function<void(Value, int64_t)> visit = [&](Value v, int64_t scale) {
      const Node& node = region_.node(v);
      const bool kept = scale > 1;
      if (region_.type(v).element_count() != (kept ? kept_ : full_) || (kept && !trailing) ||
          !seen.insert({v, scale}).second)
        return;
      axes.refine(region_.type(v).shape, scale);
      if (!kept) group_windows(axes, node);
      const bool in_order = node.op->kernel == KernelKind::pointwise || node.op->index_map == IndexMap::row_major;
      const bool of_rows = !kept && reduced_axes && node.op->index_map == IndexMap::repeated;
      for (Value operand : node.operands)
        if (in_order || of_rows) visit(operand, of_rows ? full_ / kept_ : scale);
    };
    for (NodeId id : reductions_) {
      visit(region_.node(id).operands[0], 1);
      visit({id, 0}, full_ / kept_);
    }
    for (const NamedValue& o : region_.outputs())
      if (region_.type(o.value).element_count() > 0)
        visit(o.value, region_.type(o.value).element_count() == full_ ? 1 : full_ / kept_);
    if (!reductions_.empty()) group_slices(axes);
    axes_ = axes.list();
    find_group();
    inner_begin_ = axes_.size();
    while (inner_begin_ > 0 && !axes_[inner_begin_ - 1].reduced) --inner_begin_;
  }

  // As many neighbours as divide `size`, along the axis of `inner` elements a position.
  static void group_neighbours(Axes& axes, int64_t inner, int64_t size) {
    for (int64_t count = kMostTogether; count > 1; count /= 2)
      if (size % count == 0) return axes.group(inner, count);
  }

  // Windows that overlap share elements, which are converted and weighted for several neighbours at once. The gradient
  // of strided windows: a stride's positions are held by the same windows, and which of their elements they are is
  // known when they are read.
  static void group_windows(Axes& axes, const Node& node) {
    if (node.op->kernel != KernelKind::window) return;
    const ops::WindowGeometry g = ops::window_geometry(node.attributes, node.attributes.ints("window"));
    const bool strided = std::ranges::any_of(g.strides, [](int64_t stride) { return stride > 1; });
    if (ops::has_filter(*node.op) && g.window.back() > g.strides.back() && g.dilations.back() == 1 &&
        (node.op->gradient == Gradient::none || !strided))
      group_neighbours(axes, node.results[0].shape.back(), node.results[0].shape.end()[-2]);
    if (node.op->gradient == Gradient::none) return;
    const Shape& shape = node.results[0].shape;
    const Ints strides = ops::per_axis(node.attributes, "strides", shape.size() - 2, 1);
    int64_t inner = shape.back(), points = 1;
    for (size_t i = strides.size(); i-- > 0;) {
      if (strides[i] > 1 && points * strides[i] <= kMostTogether && shape[i + 1] % strides[i] == 0) {
        axes.group(inner, strides[i]);
        points *= strides[i];
      }
      inner *= shape[i + 1];
    }
  }

  // Slices of one value that begin beside each other, as the taps of a filter's gradient: neighbours read the same.
  void group_slices(Axes& axes) const {
    std::map<Value, const Node*> seen;
    for (const Node& node : region_.nodes()) {
      if (node.op->index_map != IndexMap::part || node.results[0].element_count() != full_) continue;
      const auto [first, is_new] = seen.emplace(node.operands[0], &node);
      const Ints &starts = node.attributes.ints("starts"), &others = first->second->attributes.ints("starts");
      int64_t inner = 1;
      for (size_t i = is_new ? 0 : starts.size(); i-- > 0; inner *= node.results[0].shape[i]) {
        if (starts[i] == others[i] || node.attributes.ints("steps")[i] != 1) continue;
        if (inner > 1) group_neighbours(axes, inner, node.results[0].shape[i]);
        return;
      }
    }
  }

  // Reduced points may stand together, or all points where nothing is reduced.
  void find_group() {
    int64_t stride = full_;
    for (Axis& axis : axes_) {
      stride /= axis.extent;
      axis.together = axis.together && axis.reduced == !reductions_.empty();
      if (!axis.together) continue;
      const std::vector<int64_t> outer = std::exchange(group_, {});
      for (int64_t offset : outer)
        for (int64_t i = 0; i < axis.extent; ++i) group_.push_back(offset + i * stride);
    }
  }

  // Positions of the reduced variables that chunks are made of.
  static int64_t chunk_positions(const Kernel& k) {
    const int64_t all = k.points(k.reduced);
    return k.form == Kernel::Form::rows && k.reduced.size() > 1 ? all / k.extent(k.reduced.back()) : all;
  }

  // 0: do not split.
  int64_t chunk_length(const Kernel& k) const {
    if (k.form == Kernel::Form::pointwise) return 0;
    for (const Reduction& r : k.reductions)
      if (r.phase > 0) return 0;
    for (const Store& s : k.stores)
      if (s.domain == Store::Domain::full && k.expressions.level(s.value) > 0) return 0;
    const int64_t positions = chunk_positions(k), reduced = full_ / kept_, each = reduced / positions;
    if (full_ < int64_t{1} << 15 || positions < 32) return 0;
    if (k.form == Kernel::Form::columns && few_steps(k, positions)) return 0;
    const ChunkRule rule = k.form == Kernel::Form::rows ? row_chunks() : column_chunks();
    // A long serial sum loses digits.
    const int64_t least = ceil_div(positions, std::max<int64_t>(1, rule.longest / each));
    int64_t chunks = std::max(rule.wanted, least);
    chunks = std::min(chunks, positions / std::max<int64_t>(1, rule.shortest / each));
    if (device_ == DeviceKind::cpu) chunks = std::min(chunks, std::max<int64_t>(full_ / 32768, least));
    if (chunks < 2) return 0;
    // Rows whose lanes are chunked begin each at a whole vector; the threads of a column get equal shares.
    const int64_t length = ceil_div(positions, chunks), share = std::max<int64_t>(1, rule.shortest / each / 2);
    if (k.form == Kernel::Form::rows) {
      const int64_t whole = k.reduced.size() == 1 ? round_up(length, 64) : length;
      return whole < positions ? whole : 0;
    }
    return std::max((length + share / 2) / share * share, int64_t{1});
  }

  // Whether the threads of the GPU have so few positions each without chunks that a second launch, some two
  // microseconds, would take longer than they do. Of vectors of eight lanes, and of full blocks.
  bool few_steps(const Kernel& k, int64_t positions) const {
    if (device_ == DeviceKind::cpu) return false;
    constexpr int64_t kLanes = 8, kFewSteps = 8;
    const int64_t inner = k.extent(k.kept.back());
    return positions <= kFewSteps * (kColumnsBlock / columns_width(ceil_div(inner, kLanes), kept_ / inner));
  }

  // Chunks of a row or column and the reduced elements they may have.
  struct ChunkRule {
    int64_t wanted, shortest, longest;
  };
  ChunkRule row_chunks() const {
    if (device_ == DeviceKind::cpu) return {256 / kept_, 16384, 16384};
    return {512 / kept_, 4096, 65536};
  }
  // On the GPU as few as fill the processors, one to four blocks each: the partials are read again.
  ChunkRule column_chunks() const {
    if (device_ == DeviceKind::cpu) return {256 / ceil_div(kept_, 64), 16, 4096};
    constexpr int64_t kTile = 256, kStep = 2048;                    // kStep: elements a block reads at once
    const int64_t waves = (full_ / (kProcessors * kStep) + 4) / 8;  // of blocks with eight steps
    const int64_t blocks = kProcessors * std::clamp<int64_t>(waves, 1, 4);
    return {blocks / ceil_div(kept_, kTile), kStep / std::min(kept_, kTile), 16384};
  }

  Kernel build(Part part, int64_t chunk_length, int64_t chunks = 1, Kernel::Form form = Kernel::Form::pointwise) {
    Kernel k;
    k.form = form;
    if (part != Part::combination) k.together = std::ssize(group_);
    std::vector<Index> full, kept, with_chunk;
    Shape full_shape, kept_shape, chunked_shape;
    const auto add_chunk = [&] {
      const AtomId v = k.space.variable(chunks);
      with_chunk.push_back(k.space.of(v));
      chunked_shape.push_back(chunks);
      if (part == Part::partial) {
        k.chunk = v;
        k.chunk_length = chunk_length;
        k.kept.push_back(v);
      } else {
        k.reduced.push_back(v);
      }
    };
    for (size_t i = 0; i <= axes_.size(); ++i) {
      if (i == inner_begin_ && part != Part::whole) add_chunk();
      if (i == axes_.size()) break;
      if (part == Part::combination && axes_[i].reduced) continue;
      full.emplace_back();  // of an axis whose points stand together: the first one
      full_shape.push_back(axes_[i].extent);
      if (!axes_[i].together) {
        const AtomId v = k.space.variable(axes_[i].extent);
        full.back() = k.space.of(v);
        (axes_[i].reduced ? k.reduced : k.kept).push_back(v);
      }
      if (axes_[i].reduced) continue;
      for (auto [index, shape] : {std::pair{&kept, &kept_shape}, std::pair{&with_chunk, &chunked_shape}}) {
        index->push_back(full.back());
        shape->push_back(axes_[i].extent);
      }
    }
    const Index full_position = k.space.linear(full, full_shape), kept_position = k.space.linear(kept, kept_shape),
                chunk_position = k.space.linear(with_chunk, chunked_shape);
    VariableSet kept_variables = 0;
    for (AtomId v : k.kept) kept_variables |= k.space.atom(v).variables;

    k.reductions.resize(reductions_.size());
    RegionReader* reader_pointer = nullptr;
    const auto result_of = [&](size_t i) {
      const Node& node = region_.node(reductions_[i]);
      Reduction& r = k.reductions[i];
      if (r.operands.empty()) {
        r.combine = node.op->combine;
        r.dtype = computed_as(node.results[0].dtype);
        const TensorType &from = region_.type(node.operands[0]), partial{r.dtype, {kept_ * chunks}};
        std::vector<ExpressionId> operands;
        if (part == Part::combination)
          operands = {
              k.load(k.argument(KernelArgument::Kind::partial, static_cast<int32_t>(i), partial), chunk_position)};
        else
          for (int64_t offset : group_)
            operands.push_back(
                reader_pointer->evaluate(node.operands[0], k.space.split(full_position + offset, from.shape)));
        for (ExpressionId operand : operands)
          k.reductions[i].phase = std::max(k.reductions[i].phase, k.expressions.level(operand));
        k.reductions[i].operands = std::move(operands);
      }
      Expression e;
      e.kind = Expression::Kind::reduction;
      e.dtype = k.reductions[i].dtype;
      e.id = static_cast<int32_t>(i);
      return k.expressions.add(std::move(e), k.space, kept_variables, k.reductions[i].phase + 1);
    };
    RegionReader reader(region_, k, [&](NodeId id, const Index& position) {
      const Node& node = region_.node(id);
      const auto at = std::find(reductions_.begin(), reductions_.end(), id);
      if (at == reductions_.end()) {  // of no or single elements
        const TensorType& from = region_.type(node.operands[0]);
        if (from.element_count() == 0)
          return k.constant(node.results[0].dtype, identity_of(node.op->combine, node.results[0].dtype));
        return reader_pointer->evaluate(node.operands[0], k.space.split(position, from.shape));
      }
      if (position != kept_position) reject("a reduction's result is read at another row");
      return result_of(static_cast<size_t>(at - reductions_.begin()));
    });
    reader_pointer = &reader;

    if (part == Part::partial)
      for (size_t i = 0; i < reductions_.size(); ++i) {
        const ExpressionId value = result_of(i);
        const TensorType type{k.reductions[i].dtype, {kept_ * chunks}};
        k.stores.push_back({Store::Domain::kept,
                            k.argument(KernelArgument::Kind::partial, static_cast<int32_t>(i), type), chunk_position,
                            value});
      }
    for (size_t i = 0; i < region_.outputs().size(); ++i) {
      const Value v = region_.outputs()[i].value;
      const TensorType& type = region_.type(v);
      const int64_t elements = type.element_count();
      if (elements == 0) continue;
      if (elements != full_ && elements != kept_) reject("its outputs differ in size");
      const bool is_full = elements == full_ && !reductions_.empty();
      if (!reductions_.empty() && part != Part::whole && (part == Part::partial) != is_full) continue;
      const int32_t argument = k.argument(KernelArgument::Kind::output, static_cast<int32_t>(i), type);
      const auto store = [&](const Index& position) {
        const ExpressionId value = reader.evaluate(v, k.space.split(position, type.shape));
        k.stores.push_back({is_full ? Store::Domain::full : Store::Domain::kept, argument, position, value});
      };
      if (elements != full_) store(kept_position);
      for (int64_t offset : group_)
        if (elements == full_) store(full_position + offset);
    }
    if (part == Part::whole) k.form = form_of(k);
    const auto is_point = [&](AtomId v) { return k.extent(v) == 1 && v != k.chunk; };
    std::erase_if(k.kept, is_point);
    std::erase_if(k.reduced, is_point);
    merge_variables(k);
    return k;
  }

  // Columns where lanes can run along kept positions and no position waits for a reduction.
  Kernel::Form form_of(const Kernel& k) const {
    if (reductions_.empty()) return Kernel::Form::pointwise;
    bool single_pass = kept_ > 1 && inner_begin_ < axes_.size();
    for (const Reduction& r : k.reductions) single_pass = single_pass && r.phase == 0;
    for (const Store& s : k.stores)
      single_pass = single_pass && !(s.domain == Store::Domain::full && k.expressions.level(s.value) > 0);
    return single_pass ? Kernel::Form::columns : Kernel::Form::rows;
  }

  const Graph& region_;
  DeviceKind device_;
  std::vector<NodeId> reductions_;  // those that combine several elements
  std::vector<Axis> axes_;
  std::vector<int64_t> group_{0};  // offsets in the domain of the points that stand together
  size_t inner_begin_ = 0;         // first of the kept axes that follow the last reduced one
  int64_t full_ = 1, kept_ = 1;
};

}  // namespace

Schedule schedule(const Graph& region, DeviceKind device) {
  return is_scatter(region) ? schedule_scatter(region, device) : Scheduler(region, device).run();
}

}  // namespace halfstep
