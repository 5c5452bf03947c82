#include "passes/rewrite/simplify.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ir/fold.h"
#include "ir/views.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

using Context = RuleContext;

std::optional<double> splat_operand(const Context& c, size_t i) { return splat(c.builder.graph(), c.operands[i]); }
bool is_splat(const Context& c, size_t i, double value) { return splat_operand(c, i) == std::optional(value); }

// Whether every value of type `from` is a value of type `to`.
bool holds(DType to, DType from) {
  if (to == from || to == DType::f64) return to == from || from != DType::i64;
  switch (from) {
    case DType::f16:
    case DType::bf16:
      return to == DType::f32;
    case DType::boolean:
      return true;
    case DType::u8:
    case DType::i8:
      return to == DType::f32 || to == DType::i32 || to == DType::i64 || (to == DType::f16);
    case DType::i32:
      return to == DType::i64;
    default:
      return false;
  }
}

Value identity_cast(const Context& c) {
  return is(c.node, "cast") && c.builder.dtype(c.operands[0]) == c.node.attributes.dtype("to") ? c.operands[0]
                                                                                               : Value{};
}

// A cast of a cast that lost nothing is a cast of the original.
Value cast_of_cast(const Context& c) {
  if (!is(c.node, "cast") || !is(c.maker(0), "cast")) return {};
  const Value original = c.maker(0).operands[0];
  if (!holds(c.builder.dtype(c.operands[0]), c.builder.dtype(original))) return {};
  return c.builder.cast(original, c.node.attributes.dtype("to"));
}

Value neutral_element(const Context& c) {
  if (c.node.operands.size() != 2) return {};
  const bool product = is(c.node, "mul"), sum = is(c.node, "add");
  if ((product && is_splat(c, 1, 1)) || (sum && is_splat(c, 1, 0)) || (is(c.node, "sub") && is_splat(c, 1, 0)) ||
      (is(c.node, "div") && is_splat(c, 1, 1)) || (is(c.node, "pow") && is_splat(c, 1, 1)))
    return c.operands[0];
  if ((product && is_splat(c, 0, 1)) || (sum && is_splat(c, 0, 0))) return c.operands[1];
  return {};
}

Value small_power(const Context& c) {
  if (!is(c.node, "pow")) return {};
  if (is_splat(c, 1, 2)) return c.builder.mul(c.operands[0], c.operands[0]);
  if (is_splat(c, 1, 0.5)) return c.builder.unary("sqrt", c.operands[0]);
  if (is_splat(c, 1, -0.5)) return c.builder.unary("rsqrt", c.operands[0]);
  return is_splat(c, 1, -1) ? c.builder.unary("reciprocal", c.operands[0]) : Value{};
}

// x / 2^n = x * 2^-n exactly.
Value division_by_power_of_two(const Context& c) {
  if (!is(c.node, "div") || !is_floating(c.node.results[0].dtype)) return {};
  const std::optional<double> divisor = splat_operand(c, 1);
  int exponent = 0;
  if (!divisor || std::abs(std::frexp(*divisor, &exponent)) != 0.5 || std::abs(exponent) > 14) return {};
  return c.builder.mul(c.operands[0], 1 / *divisor);
}

// (x * a) * b = x * (a * b), where the product in between is no low value.
Value product_of_products(const Context& c) {
  if (!is(c.node, "mul") || (c.node.results[0].dtype != DType::f32 && c.node.results[0].dtype != DType::f64)) return {};
  for (size_t i : {0u, 1u}) {
    const std::optional<double> outer = splat_operand(c, i);
    const Node& inner = c.maker(1 - i);
    if (!outer || !is(inner, "mul")) continue;
    for (size_t j : {0u, 1u})
      if (const auto factor = splat(c.builder.graph(), inner.operands[j])) {
        const double product = *outer * *factor;
        if (!std::isnormal(static_cast<float>(product))) return {};
        return c.builder.mul(inner.operands[1 - j], product);
      }
  }
  return {};
}

Value double_inverse(const Context& c) {
  return (is(c.node, "neg") || is(c.node, "not")) && is(c.maker(0), c.node.op->name) ? c.maker(0).operands[0] : Value{};
}

Value decided_select(const Context& c) {
  if (!is(c.node, "select")) return {};
  if (c.operands[1] == c.operands[2]) return c.operands[1];
  const std::optional<double> condition = splat_operand(c, 0);
  return condition ? c.operands[*condition != 0 ? 1 : 2] : Value{};
}

Value idle_movement(const Context& c) {
  if (c.node.op->kernel != KernelKind::movement || c.operands.size() != 1) return {};
  const bool idle = is(c.node, "transpose") ? is_identity(c.node.attributes.ints("permutation"))
                                            : c.builder.type(c.operands[0]) == c.node.results[0];
  return idle ? c.operands[0] : Value{};
}

Value movement_of_same_movement(const Context& c) {
  if (c.operands.size() != 1 || c.maker(0).operands.size() != 1) return {};
  const Value x = c.maker(0).operands[0];
  const Shape& shape = c.node.results[0].shape;
  if (is(c.node, "reshape") && is(c.maker(0), "reshape")) return c.builder.reshape(x, shape);
  if (is(c.node, "broadcast") && is(c.maker(0), "broadcast")) return c.builder.broadcast(x, shape);
  if (is(c.node, "transpose") && is(c.maker(0), "transpose"))
    return c.builder.transpose(
        x, compose(c.maker(0).attributes.ints("permutation"), c.node.attributes.ints("permutation")));
  return {};
}

// Widening keeps the order: the extremum is found among the narrow values, and widened.
Value extremum_of_cast(const Context& c) {
  if ((!is(c.node, "reduce_max") && !is(c.node, "reduce_min")) || !is(c.maker(0), "cast")) return {};
  const Value narrow = c.maker(0).operands[0];
  const DType from = c.builder.dtype(narrow), to = c.builder.dtype(c.operands[0]);
  if (!is_floating(from) || !is_floating(to) || !holds(to, from)) return {};
  return c.builder.cast(c.builder.call(c.node.op->name, {narrow}, c.node.attributes), to);
}

Value transpose_of_ones(const Context& c) {
  if (!is(c.node, "transpose")) return {};
  const Shape from = c.builder.shape(c.operands[0]);
  return keeps_order(from, c.node.attributes.ints("permutation"))
             ? c.builder.reshape(c.operands[0], c.node.results[0].shape)
             : Value{};
}

// A reduction over axes of size 1 moves nothing.
Value idle_reduction(const Context& c) {
  if (c.node.op->kernel != KernelKind::reduction) return {};
  const Shape shape = c.builder.shape(c.operands[0]);
  Ints axes = c.node.attributes.ints("axes");
  if (std::erase_if(axes, [&](int64_t a) { return shape[static_cast<size_t>(a)] == 1; }) == 0 && !axes.empty())
    return {};
  return c.builder.reduce(c.node.op->name, c.operands[0], axes);
}

// Matrix products read transposed operands as they are.
Value transposed_operand(const Context& c) {
  if (c.node.op->kernel != KernelKind::gemm) return {};
  const int64_t rank = static_cast<int64_t>(c.node.results[0].shape.size());
  Ints swapped = rank == 3 ? Ints{0, 2, 1} : Ints{1, 0};
  for (size_t i : {0u, 1u}) {
    if (!is(c.maker(i), "transpose") || c.maker(i).attributes.ints("permutation") != swapped) continue;
    std::vector<Value> operands(c.operands.begin(), c.operands.end());
    operands[i] = c.maker(i).operands[0];
    Attributes attributes = c.node.attributes;
    const char* flag = i == 0 ? "transpose_a" : "transpose_b";
    attributes.set(flag, int64_t{attributes.integer(flag) == 0});
    return c.builder.call_all(*c.node.op, std::move(operands), std::move(attributes)).front();
  }
  return {};
}

// A sum of rows into zeros: the gradient of a gather.
bool sums_into_zeros(const Context& c, const Node& node) {
  return is(node, "scatter") && node.attributes.text("reduction") == "add" &&
         splat(c.builder.graph(), node.operands[0]) == std::optional(0.0);
}

// The value added to it is the one it may sum into: a table that is read by a gather and by a contraction.
Value sum_into_scatter(const Context& c) {
  if (!is(c.node, "add")) return {};
  for (size_t i : {0u, 1u}) {
    if (!sums_into_zeros(c, c.maker(i))) continue;
    const Node scatter = c.maker(i);
    const OriginScope scope(c.builder, scatter.origin);
    return c.builder.call("scatter", {c.operands[1 - i], scatter.operands[1], scatter.operands[2]}, scatter.attributes);
  }
  return {};
}

// A low gradient that is read as f32 is made as such: it is summed in f32 anyway.
Value wide_scatter(const Context& c) {
  if (!is(c.node, "cast") || c.node.attributes.dtype("to") != DType::f32) return {};
  if (c.maker(0).origin.phase == Phase::forward || !is_low(c.maker(0).results[0].dtype) ||
      !sums_into_zeros(c, c.maker(0)))
    return {};
  const Node scatter = c.maker(0);
  const Value zeros = c.builder.broadcast(c.builder.constant(DType::f32, 0), scatter.results[0].shape);
  return c.builder.call("scatter", {zeros, scatter.operands[1], scatter.operands[2]}, scatter.attributes);
}

// Whether a slice only takes off what pad_channels or pad_classes put behind a weight, less than eight of an axis.
bool cuts_padding(const Context& c, const Node& slice) {
  const Shape& from = c.builder.shape(slice.operands[0]);
  const Ints &starts = slice.attributes.ints("starts"), &limits = slice.attributes.ints("limits");
  for (size_t i = 0; i < from.size(); ++i)
    if (starts[i] != 0 || from[i] - limits[i] >= 8) return false;
  return slice.attributes.ints("steps") == Ints(from.size(), 1);
}

// A weight's gradient on its way into the flat f32 arena, or into the table that a scatter adds to: the contraction
// writes f32 itself, one rounding and one copy less. A padded weight's gradient is cut on that way. Activations that
// are read as f32 stay low: they are stored, and other readers have the rounded value. What is added to a product has
// its type.
Value wide_gradient(const Context& c) {
  const bool flat = is(c.node, "reshape") && c.node.results[0].shape.size() == 1;
  if (!flat && !is(c.node, "scatter")) return {};
  std::optional<Node> cut;
  if (flat && is(c.maker(0), "slice") && cuts_padding(c, c.maker(0))) cut = c.maker(0);
  const Node& cast = cut ? c.builder.graph().node(cut->operands[0]) : c.maker(0);
  if (!is(cast, "cast")) return {};
  const Value low = cast.operands[0];
  const Node& made = c.builder.graph().node(low);
  if (made.origin.phase == Phase::forward || cast.attributes.dtype("to") != DType::f32 ||
      !is_low(c.builder.dtype(low)) || !made.attributes.find("result") || made.operands.size() > 2)
    return {};
  const Node contraction = made;
  Attributes attributes = contraction.attributes;
  attributes.set("result", std::string(name(DType::f32)));
  Value wide = [&] {
    const OriginScope scope(c.builder, contraction.origin);
    return c.builder.call_all(*contraction.op, contraction.operands, std::move(attributes)).front();
  }();
  if (cut) wide = c.builder.call_all(*cut->op, {wide}, cut->attributes).front();
  if (flat) return c.builder.reshape(wide, c.node.results[0].shape);
  return c.builder.call("scatter", {wide, c.operands[1], c.operands[2]}, c.node.attributes);
}

// A slice of one piece of a concat is a slice of the piece.
Value slice_of_concat(const Context& c) {
  if (!is(c.node, "slice") || !is(c.maker(0), "concat")) return {};
  const Node concat = c.maker(0);
  const auto axis = static_cast<size_t>(concat.attributes.integer("axis"));
  Ints starts = c.node.attributes.ints("starts"), limits = c.node.attributes.ints("limits");
  for (Value piece : concat.operands) {
    const int64_t size = c.builder.shape(piece)[axis];
    if (starts[axis] >= 0 && limits[axis] <= size && starts[axis] < size)
      return c.builder.slice(piece, starts, limits, c.node.attributes.ints("steps"));
    starts[axis] -= size, limits[axis] -= size;
    if (starts[axis] < 0) return {};
  }
  return {};
}

// A slice of a view stays apart, unless it is one itself: the view costs nothing, and the readers of the steps of a
// sequence differ in it alone.
Value slice_of_slice(const Context& c) {
  if (!is(c.node, "slice") || !is(c.maker(0), "slice")) return {};
  const Node inner = c.maker(0);
  Node outer = c.node;
  outer.operands.assign(c.operands.begin(), c.operands.end());
  if (is_view(c.builder.graph(), inner) && !is_view(c.builder.graph(), outer)) return {};
  const Ints &from = inner.attributes.ints("starts"), &by = inner.attributes.ints("steps");
  Ints starts = c.node.attributes.ints("starts"), steps = c.node.attributes.ints("steps"), limits;
  for (size_t i = 0; i < starts.size(); ++i) {
    starts[i] = from[i] + starts[i] * by[i], steps[i] *= by[i];
    const int64_t count = c.node.results[0].shape[i];
    limits.push_back(count == 0 ? starts[i] : starts[i] + (count - 1) * steps[i] + 1);
  }
  return c.builder.slice(inner.operands[0], starts, limits, steps);
}

// Concats along one axis are one concat.
Value concat_of_concat(const Context& c) {
  if (!is(c.node, "concat")) return {};
  std::vector<Value> pieces;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const Node& piece = c.maker(i);
    if (is(piece, "concat") && piece.attributes == c.node.attributes)
      pieces.insert(pieces.end(), piece.operands.begin(), piece.operands.end());
    else
      pieces.push_back(c.operands[i]);
  }
  if (pieces.size() == c.operands.size()) return {};
  return c.builder.call_all(*c.node.op, std::move(pieces), c.node.attributes).front();
}

// Slices of one value that follow on one another are one slice.
Value concat_of_slices(const Context& c) {
  if (!is(c.node, "concat")) return {};
  const auto axis = static_cast<size_t>(c.node.attributes.integer("axis"));
  struct Piece {
    Value whole, value;  // what it is a slice of, if it is one
    Ints starts, limits;
  };
  std::vector<Piece> pieces;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const Node piece = c.maker(i);
    const bool cut = is(piece, "slice") &&
                     std::ranges::all_of(piece.attributes.ints("steps"), [](int64_t step) { return step == 1; });
    if (!cut) {
      pieces.push_back({{}, c.operands[i], {}, {}});
      continue;
    }
    Ints starts = piece.attributes.ints("starts"), limits = piece.attributes.ints("limits");
    if (!pieces.empty() && pieces.back().whole == piece.operands[0]) {
      Piece& last = pieces.back();
      Ints from = last.starts, to = limits;
      from[axis] = starts[axis], to[axis] = last.limits[axis];
      if (from == starts && to == last.limits && to[axis] == starts[axis]) {
        last.limits = limits, last.value = {};
        continue;
      }
    }
    pieces.push_back({piece.operands[0], c.operands[i], std::move(starts), std::move(limits)});
  }
  if (pieces.size() == c.operands.size()) return {};
  std::vector<Value> values;
  for (const Piece& p : pieces)
    values.push_back(p.value ? p.value : c.builder.slice(p.whole, p.starts, p.limits, Ints(p.starts.size(), 1)));
  return c.builder.call_all(*c.node.op, std::move(values), c.node.attributes).front();
}

Value single_concat(const Context& c) {
  return is(c.node, "concat") && c.operands.size() == 1 ? c.operands[0] : Value{};
}

// Pointwise arithmetic of broadcast scalars is done on the scalars.
Value pointwise_of_splats(const Context& c) {
  const Shape& shape = c.node.results[0].shape;
  if (c.node.op->kernel != KernelKind::pointwise || shape.empty()) return {};
  std::vector<Value> scalars;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const std::optional<double> value = splat_operand(c, i);
    if (!value) return {};
    scalars.push_back(c.builder.constant(c.builder.dtype(c.operands[i]), *value));
  }
  return c.builder.broadcast(c.builder.call_all(*c.node.op, scalars, c.node.attributes).front(), shape);
}

// A contraction over nothing is what is added to it, and of nothing an empty tensor: there is no product to call a
// library for.
Value empty_contraction(const Context& c) {
  if (c.node.op->kernel != KernelKind::gemm && c.node.op->kernel != KernelKind::convolution) return {};
  const TensorType& result = c.node.results[0];
  bool empty = result.element_count() == 0;
  for (Value v : c.operands) empty |= v && c.builder.type(v).element_count() == 0;
  if (!empty) return {};
  Value sum = c.builder.broadcast(c.builder.constant(result.dtype, 0), result.shape);
  for (size_t i = 2; i < c.operands.size(); ++i)
    if (c.operands[i]) sum = c.builder.add(sum, c.operands[i]);
  const bool rectified = c.node.attributes.find("rectified") && c.node.attributes.integer("rectified") != 0;
  return rectified ? c.builder.unary("relu", sum) : sum;
}

// Folds small constants; never into something larger than its operands.
Value folded_constant(const Context& c) {
  // The later in a graph, the smaller: so all together stay few.
  constexpr int64_t kLargest = 1 << 16, kMostTogether = 1 << 24;
  const int64_t most = std::min<int64_t>(kLargest, kMostTogether / std::max<NodeId>(c.builder.graph().size(), 1));
  const KernelKind kind = c.node.op->kernel;
  if (c.operands.empty() ||
      (kind != KernelKind::pointwise && kind != KernelKind::movement && kind != KernelKind::reduction))
    return {};
  int64_t elements = 0;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    if (!c.operands[i] || !is(c.maker(i), "constant")) return {};
    elements += c.builder.type(c.operands[i]).element_count();
  }
  if (c.node.results[0].element_count() > std::min(elements, most)) return {};
  std::vector<const Tensor*> values;
  for (size_t i = 0; i < c.operands.size(); ++i) values.push_back(&c.maker(i).attributes.tensor("value"));
  const std::optional<std::vector<Tensor>> results = fold_node(c.node, values);
  return results ? c.builder.constant(results->front()) : Value{};
}

constexpr Rule kRules[] = {
    identity_cast,     cast_of_cast,        neutral_element,    small_power,         division_by_power_of_two,
    double_inverse,    decided_select,      idle_movement,      single_concat,       movement_of_same_movement,
    transpose_of_ones, idle_reduction,      sum_into_scatter,   wide_scatter,        wide_gradient,
    folded_constant,   pointwise_of_splats, transposed_operand, product_of_products, concat_of_concat,
    extremum_of_cast,  concat_of_slices,    slice_of_concat,    slice_of_slice,      empty_contraction,
};

}  // namespace

std::span<const Rule> simplify_rules() { return kRules; }

Graph simplify(const Graph& graph) { return apply_rules(graph, kRules); }

}  // namespace halfstep
