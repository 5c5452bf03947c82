// Constants, shapes and what only carries values along.
#include <cmath>

#include "frontend/import/operators.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

std::vector<Value> import_constant(NodeContext& c) {
  if (c.has_attribute("value")) return {c.b.constant(c.tensor("value"))};
  if (c.has_attribute("value_int")) return {c.b.constant(integers({c.integer("value_int")}, {}))};
  if (c.has_attribute("value_float")) return {c.b.constant(DType::f32, c.number("value_float", 0))};
  if (c.has_attribute("value_ints")) {
    const Ints values = c.int_list("value_ints");
    return {c.b.constant(integers(values, {static_cast<int64_t>(values.size())}))};
  }
  if (c.has_attribute("value_floats")) {
    const std::vector<double> values = c.number_list("value_floats");
    return {c.b.constant(Tensor::from_values({DType::f32, {static_cast<int64_t>(values.size())}}, values))};
  }
  c.fail("a dense constant of numbers expected; strings and sparse tensors are not supported");
}

std::vector<Value> import_constant_of_shape(NodeContext& c) {
  const Value value = c.has_attribute("value") ? c.b.constant(c.tensor("value")) : c.b.constant(DType::f32, 0);
  const Shape shape = c.ints(0, "shape");
  if (c.b.type(value).element_count() != 1) c.fail("attribute 'value' has more than one element");
  return {c.b.broadcast(c.b.reshape(value, {}), shape)};
}

std::vector<Value> import_shape_of(NodeContext& c) {
  const Shape shape = c.shape(0);
  const auto rank = static_cast<int64_t>(shape.size());
  const auto clamped = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank); };
  const int64_t start = clamped(c.integer("start", 0)), end = std::max(start, clamped(c.integer("end", rank)));
  return {c.b.constant(integers(Shape(shape.begin() + start, shape.begin() + end), {end - start}))};
}

std::vector<Value> import_size(NodeContext& c) {
  return {c.b.constant(integers({c.b.type(c.operand(0)).element_count()}, {}))};
}

// A start or step that is trained gives values; how many there are is what the file makes of it.
std::vector<Value> import_range(NodeContext& c) {
  c.ignore({"stash_type"});
  const DType type = c.b.dtype(c.operand(0));
  const double start = c.number(0, "start"), limit = c.number(1, "limit"), delta = c.number(2, "delta");
  if (delta == 0) c.fail("operand delta is zero");
  constexpr double kLongest = 1 << 24;
  const double length = std::max(0.0, std::ceil((limit - start) / delta));
  if (!(length <= kLongest)) c.fail("a range of " + std::to_string(length) + " elements is too long");
  if (is_floating(type) && (!c.is_constant(0) || !c.is_constant(2))) {
    const Shape shape{static_cast<int64_t>(length)};
    const Value at = c.b.cast(c.b.call("iota", {}, {{"shape", shape}, {"axis", int64_t{0}}}), type);
    return {c.b.add(c.b.reshape(c.operand(0), {}), c.b.mul(at, c.b.reshape(c.operand(2), {})))};
  }
  Tensor values = table_of({type, {static_cast<int64_t>(length)}});
  for (int64_t i = 0; i < values.type.element_count(); ++i) values.set(i, start + static_cast<double>(i) * delta);
  return {c.b.constant(values)};
}

// Precision is assigned by the compiler: floating casts of an export under autocast are decisions of its exporter.
Value cast_to(NodeContext& c, Value x, DType to) {
  return is_floating(c.b.dtype(x)) && is_floating(to) ? x : c.b.cast(x, to);
}

std::vector<Value> narrow_cast(NodeContext& c, const NarrowType& type) {
  c.set_narrow_type(0, type);
  const bool saturates = c.integer("saturate", 1) != 0;
  return {narrowed(c.b, c.operand(0), type, saturates ? OutOfRange::saturates : OutOfRange::overflows)};
}

std::vector<Value> import_cast(NodeContext& c) {
  const auto to = static_cast<int32_t>(c.integer("to"));
  c.ignore({"saturate", "round_mode"});  // of narrow floating types only
  if (const NarrowType* narrow = find_narrow_type(to)) return narrow_cast(c, *narrow);
  const std::optional<DType> type = element_type(to);
  if (!type) c.fail("a cast to " + element_type_name(to) + " is not supported");
  const Value x = c.operand(0);
  if (is_floating(c.b.dtype(x)) && (to == onnx::TensorProto::FLOAT16 || to == onnx::TensorProto::BFLOAT16))
    c.importer().count_dropped_cast();
  return {cast_to(c, x, *type)};
}

std::vector<Value> import_cast_like(NodeContext& c) {
  c.ignore({"saturate", "round_mode"});
  if (const NarrowType* narrow = c.narrow_type(1)) return narrow_cast(c, *narrow);
  return {cast_to(c, c.operand(0), c.b.dtype(c.operand(1)))};
}

const std::vector<OnnxOperator> kRows{
    {"Cast",
     {6},
     1,
     1,
     import_cast,
     "among 16 bits and more of floating types nothing is cast: precision is assigned by Halfstep; to and from 8- and "
     "4-bit floating types, 4- and 2-bit integers, which only quantisation reads otherwise",
     nullptr,
     OnnxOperator::read},
    {"CastLike", {15}, 2, 2, import_cast_like, "as Cast", nullptr, OnnxOperator::read},
    {"Constant", {1}, 0, 0, import_constant, "no strings, no sparse tensors"},
    {"ConstantOfShape", {9}, 1, 1, import_constant_of_shape, "the shape must be known when the model is compiled"},
    {"Range", {11}, 3, 3, import_range, "the length must be known when the model is compiled"},
    {"Shape", {1}, 1, 1, import_shape_of},
    {"Size", {1}, 1, 1, import_size},
};

}  // namespace

std::span<const OnnxOperator> shape_operators() { return kRows; }

}  // namespace halfstep
