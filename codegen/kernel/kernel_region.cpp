#include "codegen/kernel/kernel_region.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "ir/op.h"
#include "ir/ops/families.h"

namespace halfstep {

double identity_of(ScalarOp combine, DType dtype) {
  if (combine == ScalarOp::add) return 0;
  const double infinity = std::numeric_limits<double>::infinity();
  return round_to(dtype, combine == ScalarOp::maximum ? -infinity : infinity);
}

namespace {

constexpr int64_t kMostInt32 = std::numeric_limits<int32_t>::max();

// Whether an op's result is a value of `type` without being rounded, as those operands are that `exact` says: it
// selects among them and constants, or is a remainder. Found by running the body over a carrier whose number says so.
bool is_exact(const Node& node, DType type, const std::vector<bool>& exact) {
  class Exactness final : public ScalarArithmetic {
   public:
    explicit Exactness(DType type) : type_(type) {}
    Scalar constant(double value) override { return exact(round_to(type_, value) == value); }
    Scalar unary(ScalarOp op, Scalar x) override {
      return exact(x.number != 0 && (op == ScalarOp::negate || op == ScalarOp::absolute || op >= ScalarOp::round_down));
    }
    Scalar binary(ScalarOp op, Scalar x, Scalar y) override {
      const bool keeps = op == ScalarOp::maximum || op == ScalarOp::minimum || op == ScalarOp::remainder;
      return exact(keeps && x.number != 0 && y.number != 0);
    }
    Scalar select(Scalar, Scalar x, Scalar y) override { return exact(x.number != 0 && y.number != 0); }
    Scalar convert(DType to, Scalar x) override {
      return exact(to == type_ || (x.number != 0 && (to == DType::f32 || to == DType::f64)));
    }
    Scalar exact(bool is) { return {this, is ? 1.0 : 0.0, nullptr}; }

   private:
    DType type_;
  } arithmetic(type);
  std::vector<Scalar> operands;
  for (const bool is : exact) operands.push_back(arithmetic.exact(is));
  return node.op->body(node.attributes, operands).number != 0;
}

// What a body makes of its operands, found in the same way.
enum class Form : uint8_t { other, operand, rectified, less, equal, selected };

Form form_of(const Node& node) {
  constexpr double kOther = 0, kZero = 1, kFirst = 2, kSecond = 3, kThird = 4, kRectified = 5, kLess = 6, kEqual = 7,
                   kSelected = 8;
  class Recogniser final : public ScalarArithmetic {
   public:
    Scalar constant(double value) override { return is(value == 0 ? kZero : kOther); }
    Scalar unary(ScalarOp, Scalar) override { return is(kOther); }
    Scalar binary(ScalarOp op, Scalar x, Scalar y) override {
      const bool zero = (x.number == kFirst && y.number == kZero) || (x.number == kZero && y.number == kFirst);
      if (op == ScalarOp::maximum && zero) return is(kRectified);
      if (x.number != kFirst || y.number != kSecond) return is(kOther);
      return is(op == ScalarOp::less ? kLess : op == ScalarOp::equal ? kEqual : kOther);
    }
    Scalar select(Scalar c, Scalar x, Scalar y) override {
      return is(c.number == kFirst && x.number == kSecond && y.number == kThird ? kSelected : kOther);
    }
    Scalar convert(DType, Scalar x) override { return x; }
    Scalar is(double number) { return {this, number, nullptr}; }
  } arithmetic;
  std::vector<Scalar> operands;
  for (size_t i = 0; i < node.operands.size(); ++i)
    operands.push_back(arithmetic.is(i < 3 ? kFirst + static_cast<double>(i) : kOther));
  const double found = node.op->body(node.attributes, operands).number;
  return found == kFirst       ? Form::operand
         : found == kRectified ? Form::rectified
         : found == kLess      ? Form::less
         : found == kEqual     ? Form::equal
         : found == kSelected  ? Form::selected
                               : Form::other;
}

bool all_in_range(const Tensor& indices, int64_t limit) {
  for (int64_t i = 0; i < indices.type.element_count(); ++i)
    if (indices.at(i) < 0 || indices.at(i) >= static_cast<double>(limit)) return false;
  return true;
}

}  // namespace

ExpressionId RegionReader::evaluate(Value v, const std::vector<Index>& index, ExpressionId guard) {
  const std::tuple key{v, index, guard};
  if (const auto known = known_.find(key); known != known_.end()) return known->second;
  const ExpressionId result = read(v, {region_.node(v), index, guard});
  known_.emplace(key, result);
  return result;
}

ExpressionId RegionReader::read(Value v, const Point& p) {
  const Op& op = *p.node.op;
  const DType type = p.node.results[static_cast<size_t>(v.result)].dtype;
  switch (op.kernel) {
    case KernelKind::leaf:
      if (op.leaf == Leaf::input) return read_leaf(p);
      if (op.leaf == Leaf::constant) return read_constant(p);
      break;
    case KernelKind::pointwise:
      return read_pointwise(p, type);
    case KernelKind::movement:
      if (op.index_map != IndexMap::scattered) return read_movement(p);
      break;
    case KernelKind::reduction:
      return kernel_.rounded(type, read_reduction_(v.node, kernel_.space.linear(p.index, p.node.results[0].shape)));
    case KernelKind::window:
      return read_window(v, p);
    case KernelKind::random:
      return read_random(p);
    default:
      break;
  }
  throw InternalError("region '" + region_.name() + "' holds '" + std::string(op.name) +
                      "', which kernels cannot compute");
}

ExpressionId RegionReader::read_pointwise(const Point& p, DType type) {
  Expression e;
  e.kind = Expression::Kind::node;
  e.dtype = computed_as(p.node.results[0].dtype);
  e.node = &p.node;
  for (Value operand : p.node.operands) e.operands.push_back(evaluate(operand, p.index, p.guard));
  const Form form = form_of(p.node);
  if (form == Form::operand && is_low(type) && kernel_.expressions[e.operands[0]].dtype == e.dtype &&
      is_of(type, e.operands[0]))
    return e.operands[0];
  if (form == Form::operand && kernel_.expressions[e.operands[0]].kind == Expression::Kind::index) {
    const Index& at = kernel_.expressions[e.operands[0]].index;
    const IndexSpace::Range range = kernel_.space.range(at);
    if (type == DType::i64 || (type == DType::i32 && -kMostInt32 <= range.low && range.high <= kMostInt32))
      return kernel_.index(type, at);
  }
  if (form == Form::less) {
    compare_unrounded(e.operands);
    return kernel_.primitive(ScalarOp::less, std::move(e.operands));
  }
  if (form == Form::equal) {  // a place stands first
    if (kernel_.expressions[e.operands[1]].kind == Expression::Kind::index) std::swap(e.operands[0], e.operands[1]);
    return kernel_.primitive(ScalarOp::equal, std::move(e.operands));
  }
  const ExpressionId result = form == Form::selected ? kernel_.select(e.operands[0], e.operands[1], e.operands[2])
                                                     : kernel_.expressions.add(std::move(e), kernel_.space);
  const bool exact = is_low(type) && is_exact(p.node, type, std::vector<bool>(p.node.operands.size(), true));
  return exact ? result : kernel_.rounded(type, result);
}

// Whether a value is one of `type` as it is: loaded or rounded as such, or chosen among such.
bool RegionReader::is_of(DType type, ExpressionId id, int depth) const {
  constexpr int kDeepest = 6;
  const Expression& e = kernel_.expressions[id];
  switch (e.kind) {
    case Expression::Kind::constant:
      return round_to(type, e.number) == e.number;
    case Expression::Kind::load:
      return kernel_.arguments[static_cast<size_t>(e.id)].type.dtype == type;
    case Expression::Kind::rounded:
      return e.stored == type;
    case Expression::Kind::node: {
      if (depth == kDeepest) return false;
      std::vector<bool> exact;
      for (const ExpressionId operand : e.operands) exact.push_back(is_of(type, operand, depth + 1));
      return is_exact(*e.node, type, exact);
    }
    case Expression::Kind::select:
      return depth < kDeepest && is_of(type, e.operands[1], depth + 1) && is_of(type, e.operands[2], depth + 1);
    default:
      return false;
  }
}

// 0 < round(x) in f16 is 2^-25 < x, which is the half of its least number and rounds to 0; and max(x, 0) is positive
// where x is. So a mask of what was computed again needs no rounding.
void RegionReader::compare_unrounded(std::vector<ExpressionId>& operands) {
  const Expression& zero = kernel_.expressions[operands[0]];
  if (zero.kind != Expression::Kind::constant || zero.number != 0 || zero.dtype != DType::f32) return;
  bool is_rounded = false;
  for (ExpressionId id = operands[1];;) {
    const Expression& e = kernel_.expressions[id];
    const bool one = e.operands.size() == 1 && kernel_.expressions[e.operands[0]].dtype == DType::f32;
    if (e.dtype != DType::f32 || !one) break;
    if (e.kind == Expression::Kind::rounded) {
      if (e.stored != DType::f16) break;
      is_rounded = true;
    } else if (e.kind == Expression::Kind::node) {
      const Form form = form_of(*e.node);
      const DType type = e.node->results[0].dtype;
      if (type == DType::bf16 || (form != Form::operand && form != Form::rectified)) break;
      is_rounded |= type == DType::f16 && form == Form::operand;
    } else {
      break;
    }
    id = e.operands[0];
    operands[1] = id;
  }
  if (is_rounded) operands[0] = kernel_.constant(DType::f32, 0x1p-25);
}

ExpressionId RegionReader::load_argument(int32_t argument, const Point& p) {
  const Shape& shape = p.node.results[0].shape;
  bool inside = true;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) return kernel_.constant(p.node.results[0].dtype, 0);  // never read
    const IndexSpace::Range r = kernel_.space.range(p.index[i]);
    inside = inside && r.low >= 0 && r.high < shape[i];
  }
  require(inside || p.guard != kNoExpression, "a region reads outside an operand");
  return kernel_.load(argument, kernel_.space.linear(p.index, shape), inside ? kNoExpression : p.guard);
}

ExpressionId RegionReader::read_leaf(const Point& p) {
  const std::string& name = p.node.attributes.text("name");
  int32_t number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  require(error == std::errc() && end == name.data() + name.size() && number >= 0,
          "the inputs of a region are named by operand number");
  return load_argument(kernel_.argument(KernelArgument::Kind::operand, number, p.node.results[0]), p);
}

ExpressionId RegionReader::read_constant(const Point& p) {
  const Tensor& value = p.node.attributes.tensor("value");
  const int64_t count = value.type.element_count();
  bool uniform = count > 0;
  const size_t size = static_cast<size_t>(size_of(value.type.dtype));
  for (int64_t i = 1; i < count && uniform; ++i)
    uniform = std::equal(value.data.begin(), value.data.begin() + static_cast<std::ptrdiff_t>(size),
                         value.data.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(i) * size));
  if (uniform) return kernel_.constant(value.type.dtype, value.at(0));
  const int32_t number = static_cast<int32_t>(&p.node - region_.nodes().data());
  return load_argument(kernel_.argument(KernelArgument::Kind::table, number, value.type, &value), p);
}

ExpressionId RegionReader::read_movement(const Point& p) {
  switch (p.node.op->index_map) {
    case IndexMap::row_major: {
      const Index position = kernel_.space.linear(p.index, p.node.results[0].shape);
      return evaluate(p.node.operands[0], kernel_.space.split(position, operand_shape(p, 0)), p.guard);
    }
    case IndexMap::coordinate:
      return kernel_.index(DType::i64, p.index[static_cast<size_t>(p.node.attributes.integer("axis"))]);
    case IndexMap::indirect:
      return read_rows(p);
    default: {
      std::vector<const TensorType*> operands;
      for (Value operand : p.node.operands) operands.push_back(&region_.type(operand));
      return read_operands(p, p.node.op->reads({p.node.attributes, operands}));
    }
  }
}

ExpressionId RegionReader::read_operands(const Point& p, const IndexReads& reads) {
  const DType type = p.node.results[0].dtype;
  const auto fill = [&] { return kernel_.constant(type, round_to(type, reads.fill.value_or(0))); };
  ExpressionId result = kNoExpression;
  for (size_t operand = 0; operand < reads.operands.size(); ++operand) {
    const Shape& shape = operand_shape(p, operand);
    std::vector<Index> from;
    ExpressionId inside = kNoExpression;
    for (size_t i = 0; i < shape.size(); ++i) {
      const AxisRead& axis = reads.operands[operand][i];
      Index at = p.index[axis.axis] * axis.step + axis.offset;
      if (axis.divisor > 1) {
        inside = kernel_.both(inside, kernel_.in_range(kernel_.space.remainder(at, axis.divisor), 0, 1));
        at = kernel_.space.quotient(at, axis.divisor);
      }
      if (axis.bounded) inside = kernel_.both(inside, kernel_.in_range(at, 0, shape[i]));
      from.push_back(std::move(at));
    }
    if (kernel_.never(inside) || std::ranges::count(shape, 0) > 0) continue;
    const ExpressionId value = evaluate(p.node.operands[operand], from, kernel_.both(p.guard, inside));
    if (result == kNoExpression && !reads.fill)
      result = value;
    else
      result = kernel_.select(inside, value, result == kNoExpression ? fill() : result);
  }
  return result == kNoExpression ? fill() : result;  // no operand can have it where the guard never lets it be read
}

// A row that is not there reads 0.
ExpressionId RegionReader::read_rows(const Point& p) {
  const auto axis = static_cast<std::ptrdiff_t>(p.node.attributes.integer("axis"));
  const auto rank = static_cast<std::ptrdiff_t>(operand_shape(p, 1).size());
  const auto first = p.index.begin() + axis;
  const int64_t rows = operand_shape(p, 0)[static_cast<size_t>(axis)];
  const ExpressionId row = evaluate(p.node.operands[1], {first, first + rank}, p.guard);
  const Node& indices = region_.node(p.node.operands[1]);
  const bool known = indices.op->leaf == Leaf::constant && all_in_range(indices.attributes.tensor("value"), rows);
  const ExpressionId inside = known ? kNoExpression : kernel_.value_in_range(row, rows);
  std::vector<Index> from(p.index.begin(), first);
  from.push_back(kernel_.space.value(row, rows, kernel_.expressions.variables(row)));
  from.insert(from.end(), first + rank, p.index.end());
  const ExpressionId value = evaluate(p.node.operands[0], from, kernel_.both(p.guard, inside));
  return kernel_.select(inside, value, kernel_.constant(p.node.results[0].dtype, 0));
}

ExpressionId RegionReader::read_random(const Point& p) {
  Expression e;
  e.kind = Expression::Kind::uniform;
  e.id = static_cast<int32_t>(p.node.attributes.integer("site"));
  e.index = kernel_.space.linear(p.index, p.node.results[0].shape);
  e.operands = {evaluate(p.node.operands[0], {}), evaluate(p.node.operands[1], {})};
  return kernel_.expressions.add(std::move(e), kernel_.space);
}

}  // namespace halfstep
