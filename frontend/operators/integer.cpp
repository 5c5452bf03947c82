// Bits of integers, which are known when the model is compiled.
#include <algorithm>
#include <bit>
#include <functional>

#include "frontend/import/operators.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

// How many bits an element has in the file, and whether one of them is a sign.
struct Width {
  int bits;
  bool is_signed;
};

// Unsigned and 16-bit integers are wider ones here, so that only an initializer tells.
std::optional<Width> width_of(NodeContext& c, size_t i) {
  using onnx::TensorProto;
  if (c.is_initializer(i)) switch (c.binding(i).tensor->data_type()) {
      case TensorProto::UINT8:
        return Width{8, false};
      case TensorProto::UINT16:
        return Width{16, false};
      case TensorProto::UINT32:
        return Width{32, false};
      case TensorProto::UINT64:
        return Width{64, false};
      case TensorProto::INT8:
        return Width{8, true};
      case TensorProto::INT16:
        return Width{16, true};
      case TensorProto::INT32:
        return Width{32, true};
      case TensorProto::INT64:
        return Width{64, true};
      default:
        return std::nullopt;
    }
  if (c.b.dtype(c.operand(i)) == DType::u8) return Width{8, false};
  if (c.b.dtype(c.operand(i)) == DType::i8) return Width{8, true};
  return std::nullopt;
}

Width known_width(NodeContext& c, size_t i) {
  const std::optional<Width> width = width_of(c, i);
  if (!width) c.fail("how many bits operand " + std::to_string(i) + " has is known of initializers, u8 and i8 only");
  return *width;
}

Tensor known_integers(NodeContext& c, size_t i) {
  const Tensor value = c.constant(i, std::to_string(i));
  if (is_floating(value.type.dtype) || value.type.dtype == DType::boolean)
    c.fail("integers expected, found " + to_string(value.type));
  const Tensor wide = value.type.dtype == DType::i64 ? value : value.cast(DType::i64);
  if (const std::optional<Width> width = width_of(c, i); width && width->bits == 64 && !width->is_signed)
    for (int64_t v : wide.as<int64_t>())
      if (v > (int64_t{1} << 53))
        c.fail("operand " + std::to_string(i) + ": 64-bit unsigned integers above 2^53 are not supported");
  return wide;
}

// The low bits of `value` as an integer of that width.
int64_t narrowed(NodeContext& c, uint64_t value, Width width) {
  const int unused = 64 - width.bits;
  if (width.is_signed) return std::bit_cast<int64_t>(value << unused) >> unused;
  const uint64_t kept = value << unused >> unused;
  if (kept > static_cast<uint64_t>(INT64_MAX)) c.fail("a result of 2^63 or more is not supported");
  return static_cast<int64_t>(kept);
}

using Combine = std::function<int64_t(int64_t, int64_t)>;

// Both operands broadcast, element by element.
std::vector<Value> combined(NodeContext& c, const Combine& combine) {
  const std::vector<Value> shaped = c.broadcast_operands();
  if (shaped.size() != 2 || c.b.dtype(shaped[0]) != c.b.dtype(shaped[1]))
    c.fail("two operands of one type expected, found " + to_string(c.b.type(c.operand(0))) + " and " +
           to_string(c.b.type(c.operand(1))));
  const Shape joint = c.b.shape(shaped[0]);
  const Tensor x = known_integers(c, 0), y = known_integers(c, 1);
  const auto steps = [&](const Tensor& t) {  // 0 along what is repeated
    std::vector<int64_t> own = row_major_strides(t.type.shape), result(joint.size(), 0);
    for (size_t k = 1; k <= own.size(); ++k)
      if (t.type.shape[own.size() - k] != 1) result[joint.size() - k] = own[own.size() - k];
    return result;
  };
  const std::vector<int64_t> x_steps = steps(x), y_steps = steps(y), strides = row_major_strides(joint);
  Tensor result = table_of({DType::i64, joint});
  for (int64_t i = 0; i < result.type.element_count(); ++i) {
    int64_t at_x = 0, at_y = 0;
    for (size_t k = 0; k < joint.size(); ++k) {
      const int64_t place = i / strides[k] % joint[k];
      at_x += place * x_steps[k], at_y += place * y_steps[k];
    }
    result.as<int64_t>()[static_cast<size_t>(i)] =
        combine(x.as<int64_t>()[static_cast<size_t>(at_x)], y.as<int64_t>()[static_cast<size_t>(at_y)]);
  }
  const DType type = c.b.dtype(c.operand(0));
  return {c.b.constant(type == DType::i64 ? result : result.cast(type))};
}

std::vector<Value> import_and(NodeContext& c) {
  return combined(c, [](int64_t x, int64_t y) { return x & y; });
}
std::vector<Value> import_or(NodeContext& c) {
  return combined(c, [](int64_t x, int64_t y) { return x | y; });
}
std::vector<Value> import_xor(NodeContext& c) {
  return combined(c, [](int64_t x, int64_t y) { return x ^ y; });
}

std::vector<Value> import_not(NodeContext& c) {
  const Width width = known_width(c, 0);
  const DType type = c.b.dtype(c.operand(0));
  Tensor result = known_integers(c, 0);
  for (int64_t& v : result.as<int64_t>()) v = narrowed(c, ~static_cast<uint64_t>(v), width);
  return {c.b.constant(type == DType::i64 ? result : result.cast(type))};
}

// By more places than there are, only the sign's extension stays.
std::vector<Value> import_shift(NodeContext& c) {
  const std::string direction = c.text("direction", "");
  if (direction != "LEFT" && direction != "RIGHT")
    c.fail("attribute 'direction' is '" + direction + "'; 'LEFT' or 'RIGHT' expected");
  const Width width = known_width(c, 0);
  const bool left = direction == "LEFT";
  return combined(c, [&](int64_t x, int64_t places) -> int64_t {
    const bool beyond = places < 0 || places >= width.bits;
    if (beyond) return !left && x < 0 ? -1 : 0;
    return left ? narrowed(c, static_cast<uint64_t>(x) << places, width) : x >> places;
  });
}

// The bytes of an initializer, read as elements of another type of that size.
std::vector<Value> import_bit_cast(NodeContext& c) {
  const auto to = static_cast<int32_t>(c.integer("to"));
  if (!element_type(to)) c.fail("elements of type " + element_type_name(to) + " are not supported");
  if (!c.has_operand(0) || !c.is_initializer(0))
    c.fail("the bits of an initializer only are known when the model is compiled");
  const onnx::TensorProto& from = *c.binding(0).tensor;
  const TensorReader& reader = c.importer().inputs().reader;
  if (reader.missing_file(from)) c.fail("the data of '" + from.name() + "' is missing");
  onnx::TensorProto cast;
  cast.set_name(from.name());
  const bool is_unsigned = to == onnx::TensorProto::UINT64;  // read as i64, which holds it
  cast.set_data_type(is_unsigned ? onnx::TensorProto::INT64 : to);
  *cast.mutable_dims() = from.dims();
  cast.set_raw_data(reader.read_bytes(from));
  const Tensor result = reader.read(cast);
  if (is_unsigned && std::ranges::any_of(result.as<int64_t>(), [](int64_t v) { return v < 0; }))
    c.fail("a result of 2^63 or more is not supported");
  return {c.b.constant(result)};
}

constexpr std::string_view kLimits = "operands must be known when the model is compiled";

const std::vector<OnnxOperator> kRows{
    {"BitCast", {26}, 1, 1, import_bit_cast, "of an initializer"},
    {"BitShift", {11}, 2, 2, import_shift, kLimits},
    {"BitwiseAnd", {18}, 2, 2, import_and, kLimits},
    {"BitwiseNot", {18}, 1, 1, import_not, kLimits},
    {"BitwiseOr", {18}, 2, 2, import_or, kLimits},
    {"BitwiseXor", {18}, 2, 2, import_xor, kLimits},
};

}  // namespace

std::span<const OnnxOperator> integer_operators() { return kRows; }

}  // namespace halfstep
