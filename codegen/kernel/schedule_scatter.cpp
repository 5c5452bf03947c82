// A scatter updates in place the rows that its indices choose, without atomics: the same bits in every run. Rows are
// dealt to buckets; each bucket (a warp for every 32 vectors of a row, or a unit of the host) walks all indices in
// their order and takes the updates of its rows. What it reads again is the index list, from the cache.
//
// Many updates of one row (a common token) would be one long chain of sums. So long lists are first summed within
// segments of positions, into the place of the row's first update in the segment (its leader), by many buckets a
// segment; the rows then get one summand a segment.
//
//   embedding gradient, table [V, D] f32, K updates of f16: the zeros V D 4 bytes, the updates K D 2, their sums by
//   segment written and read K D 8, the rows read and written K D 8. The zeros alone are the floor: 154 MB for GPT-2,
//   beside 25 MB of all else for each 1,800 tokens.
#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "base/error.h"
#include "codegen/kernel/kernel_region.h"
#include "codegen/kernel/schedule.h"
#include "ir/op.h"
#include "ir/views.h"

namespace halfstep {
namespace {

constexpr int64_t kSegment = 256, kLongList = 1024;  // positions

const Node* scatter_of(const Graph& region) {
  if (region.outputs().size() != 1) return nullptr;
  const Node& maker = region.node(region.outputs()[0].value);
  return writes_in_place(maker) ? &maker : nullptr;
}

bool accumulates(const Node& scatter) {
  const auto combine = update_combine(scatter);
  return combine == ScalarOp::add || combine == ScalarOp::multiply;
}

// Low sums and products are made in f32 beside the output, and rounded once.
bool rounds_at_the_end(const Node& scatter) { return accumulates(scatter) && is_low(scatter.results[0].dtype); }

class ScatterScheduler {
 public:
  ScatterScheduler(const Graph& region, DeviceKind device)
      : region_(region),
        device_(device),
        node_(*scatter_of(region)),
        shape_(node_.results[0].shape),
        dtype_(computed_as(node_.results[0].dtype)) {
    const size_t axis = static_cast<size_t>(node_.attributes.integer("axis"));
    for (size_t i = 0; i < axis; ++i) outer_ *= shape_[i];
    for (size_t i = axis + 1; i < shape_.size(); ++i) inner_ *= shape_[i];
    rows_ = shape_[axis];
    positions_ = region.type(node_.operands[1]).element_count();
  }

  Schedule run() {
    if (node_.results[0].element_count() == 0) return {};
    const bool rounds = rounds_at_the_end(node_),
               segmented = positions_ >= kLongList && update_combine(node_) == ScalarOp::add;
    if (rounds) accumulator_ = add_partial({dtype_, shape_});
    if (rounds || !operand_written_over(region_)) add(initial());
    if (positions_ > 0) {
      if (segmented) {
        leaders_ = add_partial({DType::i32, {positions_}});
        sums_ = add_partial({dtype_, {outer_ * positions_ * inner_}});
        add(leaders());
        add(segments());
      }
      add(rows());
    }
    if (rounds) add(rounded());
    return std::move(schedule_);
  }

 private:
  void add(Kernel kernel) { schedule_.kernels.push_back(std::move(kernel)); }
  int32_t add_partial(TensorType type) {
    schedule_.partials.push_back(std::move(type));
    return static_cast<int32_t>(schedule_.partials.size()) - 1;
  }
  int32_t partial(Kernel& k, int32_t number) const {
    return k.argument(KernelArgument::Kind::partial, number, schedule_.partials[static_cast<size_t>(number)]);
  }
  int32_t target(Kernel& k) const {
    return accumulator_ >= 0 ? partial(k, accumulator_) : k.argument(KernelArgument::Kind::output, 0, node_.results[0]);
  }
  RegionReader reader(Kernel& k) const {
    return {region_, k, [](NodeId, const Index&) -> ExpressionId {
              throw InternalError("a reduction stands in a scatter's region");
            }};
  }
  ExpressionId value_at(Kernel& k, Value v, const Index& position, ExpressionId guard = kNoExpression) const {
    return reader(k).evaluate(v, k.space.split(position, region_.type(v).shape), guard);
  }

  static Index new_variable(Kernel& k, std::vector<AtomId>& list, int64_t extent) {
    list.push_back(k.space.variable(extent));
    return k.space.of(list.back());
  }

  template <typename Fill>
  Kernel pointwise(const Shape& shape, Fill&& fill) const {
    Kernel k;
    std::vector<Index> at;
    for (int64_t extent : shape) at.push_back(new_variable(k, k.kept, extent));
    std::erase_if(k.kept, [&](AtomId v) { return k.extent(v) == 1; });
    fill(k, k.space.linear(at, shape));
    merge_variables(k);
    return k;
  }

  Kernel initial() const {
    return pointwise(shape_, [&](Kernel& k, const Index& at) {
      k.stores.push_back({Store::Domain::kept, target(k), at, value_at(k, node_.operands[0], at)});
    });
  }

  Kernel rounded() const {
    return pointwise(shape_, [&](Kernel& k, const Index& at) {
      const ExpressionId value = k.load(target(k), at);
      k.stores.push_back(
          {Store::Domain::kept, k.argument(KernelArgument::Kind::output, 0, node_.results[0]), at, value});
    });
  }

  // For each position the first one of its segment with the same row; -1 where that does not exist.
  Kernel leaders() const {
    return pointwise({positions_}, [&](Kernel& k, const Index& at) {
      RegionReader read = reader(k);
      const Value indices = node_.operands[1];
      const ExpressionId row = value_at(k, indices, at), none = k.constant(DType::i32, -1);
      const Index first = k.space.quotient(at, kSegment) * kSegment;
      const ExpressionId leader =
          read.fold({kSegment}, {k.index(DType::i32, at)}, [&](const auto& step, const auto& now) {
            const Index other = first + step[0];
            const ExpressionId inside = k.in_range(other, 0, positions_), number = k.index(DType::i32, other);
            const ExpressionId same =
                k.both(inside, k.primitive(ScalarOp::equal, {value_at(k, indices, other, inside), row}));
            return std::vector{k.select(same, k.primitive(ScalarOp::minimum, {now[0], number}), now[0])};
          })[0];
      k.stores.push_back(
          {Store::Domain::kept, partial(k, leaders_), at, k.select(k.value_in_range(row, rows_), leader, none)});
    });
  }

  // Walks `count` positions for each of `others` places, dealing what `of` can be to buckets.
  struct Walk {
    Index outer, segment, bucket, inner, step;
    int64_t buckets = 1;
  };
  Walk walk(Kernel& k, int64_t segments, int64_t steps, int64_t choices) const {
    const int64_t vectors = device_ == DeviceKind::cpu ? 1 : ceil_div(inner_, 128);
    const int64_t wanted = (device_ == DeviceKind::cpu ? 64 : 4096) / std::max<int64_t>(1, outer_ * segments * vectors);
    Walk w;
    w.buckets = std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(wanted, 1, choices)));
    k.form = Kernel::Form::scatter;
    w.outer = new_variable(k, k.kept, outer_);
    w.segment = new_variable(k, k.kept, segments);
    w.bucket = new_variable(k, k.kept, w.buckets);
    w.inner = new_variable(k, k.kept, inner_);
    w.step = new_variable(k, k.reduced, steps);
    return w;
  }
  ExpressionId in_bucket(Kernel& k, const Walk& w, const Index& choice) const {
    if (w.buckets == 1) return kNoExpression;
    return k.primitive(ScalarOp::equal,
                       {k.index(DType::i32, k.space.remainder(choice, w.buckets)), k.index(DType::i32, w.bucket)});
  }
  static Index chosen(Kernel& k, ExpressionId from, int64_t limit) {
    return k.space.value(from, limit, k.expressions.variables(from));
  }

  Kernel segments() const {
    Kernel k;
    const Walk w = walk(k, ceil_div(positions_, kSegment), kSegment, kSegment);
    const Index at = w.segment * kSegment + w.step;
    const ExpressionId inside = k.in_range(at, 0, positions_);
    const ExpressionId leader = k.load(partial(k, leaders_), at, inside);
    const Index first = chosen(k, leader, positions_);
    const auto place = [&](const Index& position) { return (w.outer * positions_ + position) * inner_ + w.inner; };
    k.condition = k.both(k.both(inside, k.primitive(ScalarOp::less_equal, {k.constant(DType::i32, 0), leader})),
                         in_bucket(k, w, first));
    const ExpressionId update = value_at(k, node_.operands[2], place(at), inside);
    const ExpressionId more = k.primitive(ScalarOp::add, {k.load(partial(k, sums_), place(first)), update});
    const ExpressionId leads = k.primitive(ScalarOp::equal, {leader, k.index(DType::i32, at)});
    k.stores.push_back({Store::Domain::kept, partial(k, sums_), place(first), k.select(leads, update, more)});
    return k;
  }

  Kernel rows() const {
    Kernel k;
    const Walk w = walk(k, 1, positions_, rows_);
    const ExpressionId row = value_at(k, node_.operands[1], w.step);
    const Index to = chosen(k, row, rows_), from = (w.outer * positions_ + w.step) * inner_ + w.inner;
    const Index at = (w.outer * rows_ + to) * inner_ + w.inner;
    const ExpressionId taken =
        sums_ >= 0 ? k.primitive(ScalarOp::equal, {k.load(partial(k, leaders_), w.step), k.index(DType::i32, w.step)})
                   : k.value_in_range(row, rows_);
    k.condition = k.both(taken, in_bucket(k, w, to));
    const ExpressionId update = sums_ >= 0 ? k.load(partial(k, sums_), from) : value_at(k, node_.operands[2], from);
    k.stores.push_back({Store::Domain::kept, target(k), at, combine(k, at, update)});
    return k;
  }

  ExpressionId combine(Kernel& k, const Index& at, ExpressionId update) const {
    const auto op = update_combine(node_);
    return op ? k.primitive(*op, {k.load(target(k), at), update}) : update;
  }

  const Graph& region_;
  DeviceKind device_;
  const Node& node_;
  const Shape shape_;
  const DType dtype_;
  int64_t outer_ = 1, rows_ = 1, inner_ = 1, positions_ = 0;
  int32_t accumulator_ = -1, leaders_ = -1, sums_ = -1;  // partials
  Schedule schedule_;
};

}  // namespace

bool is_scatter(const Graph& region) { return scatter_of(region) != nullptr; }

std::optional<size_t> operand_written_over(const Graph& region) {
  const Node* scatter = scatter_of(region);
  if (!scatter || rounds_at_the_end(*scatter)) return std::nullopt;
  const Value data = scatter->operands[0];
  if (region.node(data).op->leaf != Leaf::input) return std::nullopt;
  // What indices or updates read of the data is its old value.
  int64_t reads = 0;
  for (NodeId id = 0; id < region.size(); ++id) reads += std::ranges::count(region.node(id).operands, data);
  if (reads > 1) return std::nullopt;
  return std::stoul(region.node(data).attributes.text("name"));
}

Schedule schedule_scatter(const Graph& region, DeviceKind device) { return ScatterScheduler(region, device).run(); }

}  // namespace halfstep
