#include "passes/training/update_nodes.h"

#include <utility>

#include "base/error.h"
#include "passes/rewrite/rules.h"

namespace halfstep {

Value ArenaValues::by_segment(const std::function<Value(const ArenaSegment&)>& value) {
  std::vector<std::pair<int64_t, Value>> runs;  // of equal values: where each ends
  for (const ArenaSegment& segment : layout_.segments) {
    const Value v = value(segment);
    if (!runs.empty() && runs.back().second == v)
      runs.back().first = segment.end;
    else
      runs.emplace_back(segment.end, v);
  }
  Value chosen = runs.back().second;
  if (runs.size() == 1) return chosen;
  const Value index = b_.call("iota", {}, {{"shape", Shape{layout_.size}}, {"axis", int64_t{0}}});
  chosen = b_.broadcast(chosen, {layout_.size});
  for (size_t i = runs.size() - 1; i-- > 0;) {
    const Value limit = b_.constant_like(index, static_cast<double>(runs[i].first));
    chosen = b_.select(b_.call("less", {index, limit}), b_.broadcast(runs[i].second, {layout_.size}), chosen);
  }
  return chosen;
}

Value ArenaValues::by_segment(const std::function<double(const ArenaSegment&)>& number) {
  return by_segment([&](const ArenaSegment& s) -> Value { return b_.constant(DType::f32, number(s)); });
}

Value ArenaValues::by_parameter(const std::function<Value(const ArenaSlice&)>& value) {
  std::vector<Value> pieces;
  int64_t at = 0;
  const auto fill_to = [&](int64_t offset) {
    if (offset > at) pieces.push_back(b_.broadcast(b_.constant(DType::f32, 0), {offset - at}));
  };
  for (const ArenaSlice& slice : layout_.slices) {
    if (slice.size() == 0) continue;
    Value v = value(slice);
    fill_to(slice.offset);
    if (b_.type(v).element_count() == 1) {
      v = b_.broadcast(b_.reshape(v, {}), {slice.size()});
    } else {
      require(b_.type(v).element_count() == slice.size(), "a parameter's term has its elements");
      v = b_.reshape(v, slice.file_shape());
      if (!slice.permutation.empty()) v = b_.transpose(v, slice.permutation);
      v = b_.reshape(v, {slice.size()});
    }
    pieces.push_back(v);
    at = slice.offset + slice.size();
  }
  fill_to(layout_.size);
  if (pieces.empty()) return b_.broadcast(b_.constant(DType::f32, 0), {0});
  return pieces.size() == 1 ? pieces[0] : b_.call("concat", pieces, {{"axis", int64_t{0}}});
}

Value ArenaValues::part(Value elements, const ArenaSlice& slice) {
  if (b_.shape(elements).empty()) return elements;
  require(b_.shape(elements) == Shape{layout_.size}, "a term for each element of the arenas, or one number");
  const Value stored = b_.reshape(b_.slice(elements, {slice.offset}, {slice.offset + slice.size()}), slice.shape);
  return slice.permutation.empty() ? stored : b_.transpose(stored, inverse(slice.permutation));
}

Value ArenaValues::rate(size_t index) {
  const auto count = static_cast<int64_t>(layout_.rates.size()), at = static_cast<int64_t>(index);
  if (count == 1) return b_.input(kStepLearningRate, {DType::f32, {}});
  return b_.reshape(b_.slice(b_.input(kStepLearningRate, {DType::f32, {count}}), {at}, {at + 1}), {});
}

// One parameter's terms.
class UpdateNodes::OfParameter final : public ParameterContext {
 public:
  OfParameter(UpdateNodes& update, const ArenaSlice& slice)
      : update_(update), slice_(slice), segment_(update.layout_.segments[slice.segment]), shape_(slice.file_shape()) {}

  const Shape& shape() const override { return shape_; }
  size_t output_axis() const override { return static_cast<size_t>(slice_.output_axis); }
  double weight_decay() const override { return segment_.weight_decay; }
  bool is_apart() const override { return segment_.apart; }
  Term learning_rate() override { return update_.term(update_.arenas_.rate(segment_.rate)); }
  Term of(Term elements) override { return update_.term(update_.arenas_.part(update_.value(elements), slice_)); }
  Term sum(Term x, const std::vector<int64_t>& axes) override {
    Ints of = axes;
    for (size_t i = 0; axes.empty() && i < b().shape(update_.value(x)).size(); ++i)
      of.push_back(static_cast<int64_t>(i));
    return update_.term(b().reduce("reduce_sum", update_.value(x), of));
  }
  Term product(Term a, Term c) override { return update_.term(b().matmul(update_.value(a), update_.value(c))); }
  Term transposed(Term matrix) override { return update_.term(b().transpose(update_.value(matrix), {1, 0})); }
  Term slot(std::string_view name, const Shape& shape) override {
    require(shape.size() > 1, "a parameter's own state has two axes, so that none is taken for an arena");
    return update_.term(b().state({Role::slot, std::string(name) + "/" + slice_.name}, {DType::f32, shape}));
  }

 private:
  Builder& b() { return update_.b_; }

  UpdateNodes& update_;
  const ArenaSlice& slice_;
  const ArenaSegment& segment_;
  const Shape shape_;
};

UpdateNodes::UpdateNodes(Builder& builder, const OptimizerRow& row, const HyperParameters& given,
                         const ArenaLayout& layout, const Operands& operands,
                         std::function<void(Value state, Value after)> set)
    : TermNodes(builder),
      row_(row),
      given_(given),
      layout_(layout),
      operands_(operands),
      set_(std::move(set)),
      arenas_(builder, layout) {}

Term UpdateNodes::learning_rate() {
  return term(arenas_.by_segment([&](const ArenaSegment& s) { return arenas_.rate(s.rate); }));
}

Term UpdateNodes::weight_decay() {
  return term(arenas_.by_segment([](const ArenaSegment& s) { return s.weight_decay; }));
}

Term UpdateNodes::each(const std::function<Term(ParameterContext&)>& of_each) {
  return term(arenas_.by_parameter([&](const ArenaSlice& slice) {
    OfParameter parameter(*this, slice);
    return value(of_each(parameter));
  }));
}

Term UpdateNodes::where_apart(Term apart, Term others) {
  const Value yes = b_.broadcast(value(apart), operands_.arena.shape),
              no = b_.broadcast(value(others), operands_.arena.shape);
  Value chosen = layout_.segments.back().apart ? yes : no;
  const Value index = b_.call("iota", {}, {{"shape", operands_.arena.shape}, {"axis", int64_t{0}}});
  for (size_t i = layout_.segments.size() - 1; i-- > 0;) {
    const ArenaSegment& segment = layout_.segments[i];
    if (segment.apart == layout_.segments[i + 1].apart && chosen == (segment.apart ? yes : no)) continue;
    const Value limit = b_.constant_like(index, static_cast<double>(segment.end));
    chosen = b_.select(b_.call("less", {index, limit}), segment.apart ? yes : no, chosen);
  }
  return term(chosen);
}

}  // namespace halfstep
