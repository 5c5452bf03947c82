#include "frontend/import/respecialise.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "ir/slicewise.h"

namespace halfstep {
namespace {

constexpr int kDeepest = 200;  // of an expression that is made again

// A tensor as [outer, size, inner] around one axis.
struct AxisView {
  AxisView(const Shape& shape, size_t axis) : size(shape[axis]) {
    for (size_t i = 0; i < axis; ++i) outer *= shape[i];
    for (size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  }
  int64_t at(int64_t o, int64_t i, int64_t k) const { return (o * size + i) * inner + k; }
  template <typename Visit>  // whether every pair of an outer and an inner position passes
  bool all_lines(Visit&& visit) const {
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t k = 0; k < inner; ++k)
        if (!visit(o, k)) return false;
    return true;
  }
  int64_t outer = 1, size, inner = 1;
};

Shape with_size(Shape shape, size_t axis, int64_t size) {
  shape[axis] = size;
  return shape;
}

// `tensor` resized, its elements given by (outer, place along the axis, inner).
template <typename Element>
Tensor resized(const Tensor& tensor, size_t axis, int64_t size, Element&& element) {
  Tensor result(TensorType{tensor.type.dtype, with_size(tensor.type.shape, axis, size)});
  const AxisView view(result.type.shape, axis);
  view.all_lines([&](int64_t o, int64_t k) {
    for (int64_t i = 0; i < size; ++i) result.set(view.at(o, i, k), element(o, i, k));
    return true;
  });
  return result;
}

constexpr int64_t kFewestProving = 3;  // two elements are always a sequence

// Of two elements only multiples of the place, as the rows of a batch in x[arange(batch), i].
bool is_arithmetic(const Tensor& tensor, const AxisView& view) {
  if (is_floating(tensor.type.dtype) || tensor.type.dtype == DType::boolean || view.size < 2) return false;
  return view.all_lines([&](int64_t o, int64_t k) {
    const double first = tensor.at(view.at(o, 0, k)), step = tensor.at(view.at(o, 1, k)) - first;
    if (view.size < kFewestProving && (first != 0 || step < 1)) return false;
    for (int64_t i = 2; i < view.size; ++i)
      if (tensor.at(view.at(o, i, k)) - tensor.at(view.at(o, i - 1, k)) != step) return false;
    return true;
  });
}

// Elements of `tensor` as [outer, size, middle, other, inner], a function of the distance between two axes.
class Distances {
 public:
  Distances(const Tensor& tensor, size_t axis, size_t other)
      : tensor_(tensor), strides_(row_major_strides(tensor.type.shape)), axis_(axis), other_(other) {}

  bool proven() const {
    const Shape& shape = tensor_.type.shape;
    if (shape[axis_] < kFewestProving || shape[other_] < kFewestProving) return false;
    return all_planes([&](int64_t base) {
      for (int64_t i = 0; i + 1 < shape[axis_]; ++i)
        for (int64_t j = 0; j + 1 < shape[other_]; ++j)
          if (at(base, i, j) != at(base, i + 1, j + 1)) return false;
      return true;
    });
  }

  // Whether each plane has one value before a distance and one behind it, so that both go on.
  bool is_single_step() const {
    const Shape& shape = tensor_.type.shape;
    return all_planes([&](int64_t base) {
      int64_t changes = 0;
      for (int64_t d = 1 - shape[axis_]; d + 1 < shape[other_]; ++d)
        changes += at_distance(base, d) != at_distance(base, d + 1);
      return changes <= 1;
    });
  }

  // At an index along the axis that may lie behind its end.
  double continued(int64_t base, int64_t i, int64_t j) const {
    const int64_t size = tensor_.type.shape[axis_];
    return i < size ? at(base, i, j) : at_distance(base, std::max(j - i, 1 - size));
  }

 private:
  double at(int64_t base, int64_t i, int64_t j) const {
    return tensor_.at(base + i * strides_[axis_] + j * strides_[other_]);
  }
  double at_distance(int64_t base, int64_t d) const { return d < 0 ? at(base, -d, 0) : at(base, 0, d); }

  template <typename Visit>
  bool all_planes(Visit&& visit) const {
    const Shape& shape = tensor_.type.shape;
    Ints index(shape.size(), 0);
    for (;;) {
      int64_t base = 0;
      for (size_t i = 0; i < shape.size(); ++i) base += index[i] * strides_[i];
      if (!visit(base)) return false;
      size_t i = shape.size();
      while (i-- > 0) {
        if (i == axis_ || i == other_) continue;
        if (++index[i] < shape[i]) break;
        index[i] = 0;
      }
      if (i == SIZE_MAX) return true;
    }
  }

  const Tensor& tensor_;
  const std::vector<int64_t> strides_;
  const size_t axis_, other_;
};

// Another axis to which the distance decides, and whether `axis` may then have `size` elements.
std::optional<size_t> distance_axis(const Tensor& tensor, size_t axis, int64_t size) {
  for (size_t other = 0; other < tensor.type.shape.size(); ++other) {
    if (other == axis) continue;
    const Distances distances(tensor, axis, other);
    if (distances.proven() && (size <= tensor.type.shape[axis] || distances.is_single_step())) return other;
  }
  return std::nullopt;
}

Tensor continue_distances(const Tensor& tensor, size_t axis, size_t other, int64_t size) {
  const std::vector<int64_t> strides = row_major_strides(tensor.type.shape);
  const AxisView view(tensor.type.shape, axis);
  const Distances distances(tensor, axis, other);
  return resized(tensor, axis, size, [&](int64_t o, int64_t i, int64_t k) {
    const int64_t line = view.at(o, 0, k), j = line / strides[other] % tensor.type.shape[other];
    return distances.continued(line - j * strides[other], i, j);
  });
}

std::string quoted(const Node& leaf) { return "'" + leaf.attributes.text("name") + "'"; }

// Where a part of an axis of `to` was before a reshape from `from`, if one axis holds it.
std::optional<AxisPart> before_reshape(const Shape& from, const Shape& to, const AxisPart& part) {
  if (part.from <= 1) return std::nullopt;
  const int64_t apart = AxisView(to, part.axis).inner * part.inner;  // elements from one of the part to the next
  if (apart == 0) return std::nullopt;
  for (size_t i = 0; i < from.size(); ++i) {
    const AxisView source(from, i);
    const int64_t whole = source.size * source.inner;
    if (source.inner > 0 && apart % source.inner == 0 && whole % (apart * part.from) == 0)
      return AxisPart{i, part.from, part.to, whole / (apart * part.from), apart / source.inner};
  }
  return std::nullopt;
}

Tensor reshaped(Tensor tensor, Shape shape) {
  tensor.type.shape = std::move(shape);
  return tensor;
}

// The axis as three: outer, the part, inner.
Shape split(Shape shape, const AxisPart& part, int64_t size) {
  shape[part.axis] = part.inner;
  const auto at = shape.begin() + static_cast<std::ptrdiff_t>(part.axis);
  shape.insert(at, {part.outer, size});
  return shape;
}

}  // namespace

bool repeats(const Tensor& tensor, size_t axis) {
  const AxisView view(tensor.type.shape, axis);
  if (view.size < 1) return false;
  if (tensor.data.empty()) return true;
  const size_t slice = static_cast<size_t>(view.inner) * static_cast<size_t>(size_of(tensor.type.dtype));
  const std::byte* bytes = tensor.data.data();
  for (int64_t o = 0; o < view.outer; ++o)
    for (int64_t i = 1; i < view.size; ++i) {
      const size_t block = static_cast<size_t>(o * view.size) * slice;
      if (std::memcmp(bytes + block, bytes + block + static_cast<size_t>(i) * slice, slice) != 0) return false;
    }
  return true;
}

Tensor repeat(const Tensor& tensor, size_t axis, int64_t size) {
  const AxisView view(tensor.type.shape, axis);
  return resized(tensor, axis, size, [&](int64_t o, int64_t, int64_t k) { return tensor.at(view.at(o, 0, k)); });
}

std::optional<Tensor> continue_pattern(const Tensor& tensor, size_t axis, int64_t size, const Tensor& proof) {
  const AxisView view(tensor.type.shape, axis);
  if (repeats(proof, axis)) return repeat(tensor, axis, size);
  if (is_arithmetic(proof, AxisView(proof.type.shape, axis)))
    return resized(tensor, axis, size, [&](int64_t o, int64_t i, int64_t k) {
      const double first = tensor.at(view.at(o, 0, k));
      return first + static_cast<double>(i) * (tensor.at(view.at(o, 1, k)) - first);
    });
  const std::optional<size_t> other = distance_axis(proof, axis, size);
  return other ? std::optional(continue_distances(tensor, axis, *other, size)) : std::nullopt;
}

Value Respecialisation::resize(Value v, const AxisPart& part) {
  const Shape shape = builder_.shape(v);
  if (shape[part.axis] == part.size()) return v;
  if (shape[part.axis] == 1) return builder_.broadcast(v, with_size(shape, part.axis, part.size()));
  const auto key = std::pair(v, part);
  if (const auto found = resized_.find(key); found != resized_.end()) return found->second;
  if (depth_ == kDeepest) throw Error("the expression that makes it is too deep");
  ++depth_;
  Value result;
  try {
    result = resize_node(v, part);
  } catch (const Error&) {
    --depth_;
    throw;
  }
  --depth_;
  resized_[key] = result;
  return result;
}

Value Respecialisation::resize_node(Value v, const AxisPart& part) {
  const Node node = builder_.graph().node(v);
  const Leaf leaf = node.op->leaf;
  const IndexMap map = node.op->index_map;
  const Shape shape = with_size(node.results[0].shape, part.axis, part.size());
  if (leaf == Leaf::parameter || leaf == Leaf::state) return builder_.broadcast(repeated_leaf_(node, part.axis), shape);
  if (map == IndexMap::row_major) return resize_reshape(node, part);
  if (map == IndexMap::part) return resize_slice(node, part);
  if (map == IndexMap::indirect) return resize_gather(node, part);
  if (map == IndexMap::permuted) {
    const Ints& permutation = node.attributes.ints("permutation");
    AxisPart before = part;
    before.axis = static_cast<size_t>(permutation[part.axis]);
    return builder_.transpose(resize(node.operands[0], before), permutation);
  }
  if (node.op->kernel == KernelKind::random) {
    Attributes attributes = node.attributes;
    attributes.set("shape", shape);
    return builder_.call_all(*node.op, node.operands, std::move(attributes)).front();
  }
  if (leaf == Leaf::input)
    throw Error("it comes from input " + quoted(node) + " of " + to_string(node.results[0].shape) +
                "; give that input's shape too");
  // Copies of one slice need no computing; anything else that does not depend on data may be a pattern.
  const std::optional<Tensor> value = constants_.evaluate(v);
  if (const auto axes = slicewise(builder_.graph(), node, part.axis); axes && !(value && repeats(*value, part.axis)))
    return resize_operands(node, *axes, part);
  if (!value) throw Error("it is computed by '" + *node.origin.name + "' from the model's data or weights");
  return resize_constant(v, *value, part);
}

Value Respecialisation::resize_constant(Value v, const Tensor& value, const AxisPart& part) {
  const Shape shape = with_size(value.type.shape, part.axis, part.size());
  if (repeats(value, part.axis)) return builder_.broadcast(builder_.constant(first_slice(value, part.axis)), shape);
  const auto found = proofs_.find(v);
  const Tensor proof = found == proofs_.end() ? value : found->second;
  std::optional<Tensor> continued;
  if (!part.is_whole())  // the elements inside and outside of the part are what they are
    continued = continue_pattern(reshaped(value, split(value.type.shape, part, part.from)), part.axis + 1, part.to,
                                 reshaped(proof, split(proof.type.shape, part, part.from)));
  if (!continued) continued = continue_pattern(value, part.axis, part.size(), proof);
  if (!continued)
    throw Error("its content is no repetition, sequence or causal mask that could be continued from " +
                std::to_string(value.type.shape[part.axis]) + " to " + std::to_string(part.size()));
  const Value result = builder_.constant(reshaped(std::move(*continued), shape));
  proofs_.emplace(result, proof);
  return result;
}

Value Respecialisation::resize_operands(const Node& node, const OperandAxes& axes, const AxisPart& part) {
  Attributes attributes = node.attributes;
  std::vector<Value> operands = node.operands;
  if (node.op->index_map == IndexMap::repeated)
    attributes.set("shape", with_size(attributes.ints("shape"), part.axis, part.size()));
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!axes[i] || !operands[i]) continue;
    AxisPart own = part;
    own.axis = *axes[i];
    operands[i] = resize(operands[i], own);
  }
  return builder_.call_all(*node.op, operands, attributes).front();
}

Value Respecialisation::resize_reshape(const Node& node, const AxisPart& part) {
  const Value from = node.operands[0];
  const Shape& to = node.results[0].shape;
  const std::optional<AxisPart> before = before_reshape(builder_.shape(from), to, part);
  if (!before) throw Error("it was reshaped from " + to_string(builder_.shape(from)) + " to " + to_string(to));
  return builder_.reshape(resize(from, *before), with_size(to, part.axis, part.size()));
}

// The first elements of an axis: a table of positions, of which a shorter or longer piece is taken.
Value Respecialisation::resize_slice(const Node& node, const AxisPart& part) {
  Ints starts = node.attributes.ints("starts"), limits = node.attributes.ints("limits");
  const Ints& steps = node.attributes.ints("steps");
  Value x = node.operands[0];
  const Shape shape = builder_.shape(x);
  const size_t axis = part.axis;
  const bool whole = limits[axis] == shape[axis];
  if (starts[axis] != 0 || steps[axis] != 1 || (!whole && !part.is_whole()))
    throw Error("it is a piece from " + std::to_string(starts[axis]) + " on, not the beginning, of " +
                to_string(shape));
  if (whole) {
    x = resize(x, part);
  } else if (part.size() > shape[axis]) {
    const Node& table = builder_.graph().node(x);
    throw Error("it is read from a table" + (is_leaf(*table.op) ? " " + quoted(table) : "") + " of " +
                std::to_string(shape[axis]) + " positions; choose at most that many");
  }
  limits[axis] = part.size();
  return builder_.slice(x, starts, limits, steps);
}

Value Respecialisation::resize_gather(const Node& node, const AxisPart& part) {
  const Value x = node.operands[0], indices = node.operands[1];
  const auto gathered = static_cast<size_t>(node.attributes.integer("axis"));
  const size_t rank = builder_.shape(indices).size();
  AxisPart own = part;
  if (part.axis < gathered || part.axis >= gathered + rank) {
    if (part.axis > gathered) own.axis = part.axis - rank + 1;
    return builder_.call_all(*node.op, {resize(x, own), indices}, node.attributes).front();
  }
  own.axis = part.axis - gathered;
  const Value wider = resize(indices, own);
  const int64_t rows = builder_.shape(x)[gathered];
  const std::optional<Tensor> value = constants_.evaluate(wider);
  if (!value) throw Error("its indices are computed by '" + *node.origin.name + "'");
  for (double index : value->values())
    if (index >= static_cast<double>(rows))
      throw Error("it would read position " + std::to_string(static_cast<int64_t>(index)) + " of a table of " +
                  std::to_string(rows) + "; choose at most that many");
  return builder_.call_all(*node.op, {x, wider}, node.attributes).front();
}

}  // namespace halfstep
