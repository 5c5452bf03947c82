#include "ir/fold.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>

#include "base/error.h"
#include "ir/interpret.h"
#include "ir/op.h"

namespace halfstep {
namespace {

bool is_integer(DType dtype) { return !is_floating(dtype) && dtype != DType::boolean; }

int64_t load_integer(const Tensor& t, int64_t at) {
  switch (t.type.dtype) {
    case DType::i64:
      return t.as<int64_t>()[static_cast<size_t>(at)];
    case DType::i32:
      return t.as<int32_t>()[static_cast<size_t>(at)];
    case DType::i8:
      return t.as<int8_t>()[static_cast<size_t>(at)];
    default:
      return t.as<uint8_t>()[static_cast<size_t>(at)];
  }
}

void store_integer(Tensor& t, int64_t at, int64_t value) {  // its low bytes
  const auto size = static_cast<size_t>(size_of(t.type.dtype));
  std::memcpy(t.data.data() + static_cast<size_t>(at) * size, &value, size);
}

std::pair<int64_t, int64_t> limits(DType dtype) {
  if (dtype == DType::u8) return {0, 255};
  const int64_t high = std::numeric_limits<int64_t>::max() >> (64 - 8 * size_of(dtype));
  return {-high - 1, high};
}

int64_t saturated(DType dtype, double value) {
  const auto [low, high] = limits(dtype);
  if (std::isnan(value)) return 0;
  if (value <= static_cast<double>(low)) return low;
  return value >= static_cast<double>(high) ? high : static_cast<int64_t>(value);
}

// Scalar bodies as kernels compute them (codegen/emit/emit_scalar.h): integers in their own type. A scalar without an
// integer behind its handle is a number or a truth value.
class ExactArithmetic final : public ScalarArithmetic {
 public:
  struct Integer {
    DType dtype;
    int64_t value;
  };

  Scalar constant(double value) override { return {this, value, nullptr}; }
  Scalar integer(DType dtype, int64_t value) {
    switch (dtype) {
      case DType::i32:
        value = static_cast<int32_t>(value);
        break;
      case DType::i8:
        value = static_cast<int8_t>(value);
        break;
      case DType::u8:
        value = static_cast<uint8_t>(value);
        break;
      default:
        break;
    }
    integers_.push_back({dtype, value});
    return {this, static_cast<double>(value), &integers_.back()};
  }
  static const Integer* integer_of(Scalar s) { return static_cast<const Integer*>(s.handle); }
  void forget() { integers_.clear(); }

  Scalar unary(ScalarOp op, Scalar x) override {
    const Integer* i = integer_of(x);
    if (!i || op == ScalarOp::logical_not) return constant(of_numbers_.unary(op, x.number));
    switch (op) {
      case ScalarOp::negate:
        return wrapped(*i, 0 - bits(*i));
      case ScalarOp::absolute:
        return wrapped(*i, i->value < 0 ? 0 - bits(*i) : bits(*i));
      case ScalarOp::round_down:
      case ScalarOp::round_up:
      case ScalarOp::round_even:
        return x;
      default:  // in single precision, then back
        return convert(i->dtype, constant(static_cast<float>(of_numbers_.unary(op, static_cast<float>(i->value)))));
    }
  }

  Scalar binary(ScalarOp op, Scalar x, Scalar y) override {
    const Integer* like = integer_of(x) ? integer_of(x) : integer_of(y);
    if (!like || op == ScalarOp::logical_and || op == ScalarOp::logical_or)
      return constant(of_numbers_.binary(op, x.number, y.number));
    const Integer a = as(*like, x), b = as(*like, y);
    switch (op) {
      case ScalarOp::add:
        return wrapped(a, bits(a) + bits(b));
      case ScalarOp::subtract:
        return wrapped(a, bits(a) - bits(b));
      case ScalarOp::multiply:
        return wrapped(a, bits(a) * bits(b));
      case ScalarOp::divide:
        return integer(a.dtype, quotient(a, b.value));
      case ScalarOp::maximum:
        return integer(a.dtype, std::max(a.value, b.value));
      case ScalarOp::minimum:
        return integer(a.dtype, std::min(a.value, b.value));
      case ScalarOp::equal:
        return constant(a.value == b.value);
      case ScalarOp::less:
        return constant(a.value < b.value);
      case ScalarOp::less_equal:
        return constant(a.value <= b.value);
      default:
        return convert(a.dtype, constant(static_cast<float>(
                                    of_numbers_.binary(op, static_cast<float>(a.value), static_cast<float>(b.value)))));
    }
  }

  Scalar select(Scalar condition, Scalar if_true, Scalar if_false) override {
    const Scalar chosen = condition.number != 0 ? if_true : if_false,
                 other = condition.number != 0 ? if_false : if_true;
    const Integer* like = integer_of(other);
    return integer_of(chosen) || !like ? chosen : integer(like->dtype, saturated(like->dtype, chosen.number));
  }

  Scalar convert(DType to, Scalar x) override {
    const Integer* i = integer_of(x);
    if (is_integer(to)) {
      const auto [low, high] = limits(to);
      return integer(to, i ? std::clamp(i->value, low, high) : saturated(to, std::trunc(x.number)));
    }
    if (!i || to == DType::boolean || to == DType::f64) return constant(round_to(to, x.number));
    return constant(round_to(to, static_cast<float>(i->value)));
  }

 private:
  // What holds of numbers is the interpreter's.
  struct Numbers {
    std::unique_ptr<ScalarArithmetic> arithmetic = double_arithmetic();
    double unary(ScalarOp op, double x) const { return arithmetic->unary(op, arithmetic->constant(x)).number; }
    double binary(ScalarOp op, double x, double y) const {
      return arithmetic->binary(op, arithmetic->constant(x), arithmetic->constant(y)).number;
    }
  };

  static uint64_t bits(const Integer& i) { return static_cast<uint64_t>(i.value); }
  Scalar wrapped(const Integer& like, uint64_t sum) { return integer(like.dtype, static_cast<int64_t>(sum)); }
  static Integer as(const Integer& like, Scalar s) {
    return integer_of(s) ? *integer_of(s) : Integer{like.dtype, saturated(like.dtype, s.number)};
  }
  static int64_t quotient(const Integer& a, int64_t b) {
    const auto [low, high] = limits(a.dtype);
    if (b == 0) return a.value == 0 ? 0 : a.value < 0 ? low : high;
    return b == -1 && a.value == low && low < 0 ? high : a.value / b;
  }

  std::deque<Integer> integers_;
  Numbers of_numbers_;
};

std::vector<Tensor> fold_body(const Node& node, std::span<const Tensor* const> operands) {
  ExactArithmetic arithmetic;
  std::vector<Scalar> arguments(operands.size());
  Tensor result(node.results[0]);
  for (int64_t i = 0; i < result.type.element_count(); ++i) {
    arithmetic.forget();
    for (size_t k = 0; k < operands.size(); ++k)
      arguments[k] = is_integer(operands[k]->type.dtype)
                         ? arithmetic.integer(operands[k]->type.dtype, load_integer(*operands[k], i))
                         : arithmetic.constant(operands[k]->at(i));
    const Scalar s = node.op->body(node.attributes, arguments);
    if (const ExactArithmetic::Integer* integer = ExactArithmetic::integer_of(s))
      store_integer(result, i, integer->value);
    else
      result.set(i, s.number);
  }
  return {result};
}

bool in_doubles(const Tensor& t) {
  constexpr int64_t kMost = int64_t{1} << 53;
  return t.type.dtype != DType::i64 ||
         std::ranges::all_of(t.as<int64_t>(), [](int64_t v) { return v >= -kMost && v <= kMost; });
}

std::vector<Tensor> interpreted(const Node& node, const std::vector<InterpretedTensor>& operands,
                                std::span<const Tensor* const> present) {
  std::vector<const InterpretedTensor*> values;
  for (size_t i = 0; i < operands.size(); ++i) values.push_back(present[i] ? &operands[i] : nullptr);
  std::vector<Tensor> results;
  for (const InterpretedTensor& r : interpret_node(node, values, Rounding::to_type))
    results.push_back(Tensor::from_values(r.type, r.values));
  return results;
}

// What only moves values moves their numbers alike.
std::optional<std::vector<Tensor>> fold_movement(const Node& node, std::span<const Tensor* const> operands) {
  if (node.op->kernel != KernelKind::movement || !node.op->evaluate || node.results.size() != 1) return std::nullopt;
  if (node.attributes.find("reduction") && node.attributes.text("reduction") != "set") return std::nullopt;
  constexpr double kFirst = 0x1p40;  // no filler of a pad
  std::vector<int64_t> moved;
  std::vector<InterpretedTensor> numbers;
  for (size_t i = 0; i < operands.size(); ++i) {
    numbers.push_back({operands[i] ? operands[i]->type : TensorType(), {}});
    if (!operands[i]) continue;
    const size_t spec = std::min(i, node.op->operands.size() - 1);
    numbers[i].values = operands[i]->values();
    if (operands[i]->type.dtype != node.results[0].dtype || node.op->operands[spec].name == "indices") continue;
    for (size_t k = 0; k < numbers[i].values.size(); ++k) {
      numbers[i].values[k] = kFirst + static_cast<double>(moved.size());
      moved.push_back(load_integer(*operands[i], static_cast<int64_t>(k)));
    }
  }
  std::vector<Tensor> results = interpreted(node, numbers, operands);
  for (int64_t& v : results[0].as<int64_t>()) {
    const double number = static_cast<double>(v) - kFirst;
    if (number >= 0 && number < static_cast<double>(moved.size())) v = moved[static_cast<size_t>(number)];
  }
  return results;
}

}  // namespace

std::optional<std::vector<Tensor>> fold_node(const Node& node, std::span<const Tensor* const> operands) {
  if (node.op->name == "constant") return std::vector{node.attributes.tensor("value")};
  bool integers = std::ranges::any_of(node.results, [](const TensorType& t) { return is_integer(t.dtype); });
  bool exact = true;
  for (const Tensor* t : operands)
    if (t) integers |= is_integer(t->type.dtype), exact &= in_doubles(*t);
  if (integers && node.op->body) return fold_body(node, operands);
  if (!exact && node.results[0].dtype == DType::i64) return fold_movement(node, operands);
  if (!exact) return std::nullopt;
  std::vector<InterpretedTensor> values;
  for (const Tensor* t : operands) values.push_back(t ? InterpretedTensor{t->type, t->values()} : InterpretedTensor{});
  std::vector<Tensor> results = interpreted(node, values, operands);
  // Sums and products that reach the ends of a type may have passed them.
  for (const Tensor& r : results) {
    if (!is_integer(r.type.dtype) || node.op->kernel == KernelKind::movement) continue;
    const auto [low, high] = limits(r.type.dtype);
    for (int64_t i = 0; i < r.type.element_count(); ++i) {
      const int64_t v = load_integer(r, i);
      if (v == high || (v == low && low < 0) || !in_doubles(r)) return std::nullopt;
    }
  }
  return results;
}

}  // namespace halfstep
