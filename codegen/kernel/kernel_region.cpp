#include "codegen/kernel/kernel_region.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "ir/op.h"
#include "ir/ops/families.h"

namespace halfstep {

ScalarOp combine_of(const Op& reduction) {
  if (reduction.name == "reduce_sum") return ScalarOp::add;
  if (reduction.name == "reduce_max") return ScalarOp::maximum;
  if (reduction.name == "reduce_min") return ScalarOp::minimum;
  throw InternalError("no kernel for reduction '" + std::string(reduction.name) + "'");
}

double identity_of(ScalarOp combine, DType dtype) {
  if (combine == ScalarOp::add) return 0;
  const double infinity = std::numeric_limits<double>::infinity();
  return round_to(dtype, combine == ScalarOp::maximum ? -infinity : infinity);
}

namespace {

// Whether an op's result is a value of `type` without being rounded, as its operands are: it selects among them and
// constants, or is a remainder. Found by running the body over a carrier whose number says so.
bool is_exact(const Node& node, DType type) {
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
    Scalar convert(DType to, Scalar) override { return exact(to == type_); }
    Scalar exact(bool is) { return {this, is ? 1.0 : 0.0, nullptr}; }

   private:
    DType type_;
  } arithmetic(type);
  std::vector<Scalar> operands;
  for (size_t i = 0; i < node.operands.size(); ++i) operands.push_back(arithmetic.exact(true));
  return node.op->body(node.attributes, operands).number != 0;
}

bool all_in_range(const Tensor& indices, int64_t limit) {
  for (int64_t i = 0; i < indices.type.element_count(); ++i)
    if (indices.at(i) < 0 || indices.at(i) >= static_cast<double>(limit)) return false;
  return true;
}

}  // namespace

const std::vector<RegionReader::Row>& RegionReader::rows() {
  static const std::vector<Row> rows{
      {"input", &RegionReader::read_leaf},          {"constant", &RegionReader::read_constant},
      {"broadcast", &RegionReader::read_broadcast}, {"reshape", &RegionReader::read_reshape},
      {"after", &RegionReader::read_after},         {"transpose", &RegionReader::read_transpose},
      {"slice", &RegionReader::read_slice},         {"pad", &RegionReader::read_pad},
      {"concat", &RegionReader::read_concat},       {"iota", &RegionReader::read_iota},
      {"gather", &RegionReader::read_gather},       {"uniform", &RegionReader::read_uniform},
      {"max_pool", &RegionReader::read_max_pool},   {"max_pool_grad", &RegionReader::read_max_pool_grad},
      {"avg_pool", &RegionReader::read_avg_pool},   {"avg_pool_grad", &RegionReader::read_avg_pool_grad}};
  return rows;
}

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
  if (op.kernel == KernelKind::reduction)
    return kernel_.rounded(type, read_reduction_(v.node, kernel_.space.linear(p.index, p.node.results[0].shape)));
  if (op.kernel == KernelKind::pointwise) {
    Expression e;
    e.kind = Expression::Kind::node;
    e.dtype = computed_as(p.node.results[0].dtype);
    e.node = &p.node;
    for (Value operand : p.node.operands) e.operands.push_back(evaluate(operand, p.index, p.guard));
    const ExpressionId result = kernel_.expressions.add(std::move(e), kernel_.space);
    return is_low(type) && is_exact(p.node, type) ? result : kernel_.rounded(type, result);
  }
  for (const Row& row : rows()) {
    if (row.op != op.name) continue;
    const ExpressionId first = (this->*row.read)(p);
    // The one op with several results: max_pool's index is slot 1 of the fold that gives its maximum.
    if (v.result == 0) return op.kernel == KernelKind::window ? kernel_.rounded(type, first) : first;
    return known_.at({Value{v.node, v.result}, p.index, p.guard});
  }
  throw InternalError("region '" + region_.name() + "' holds '" + std::string(op.name) +
                      "', which kernels cannot compute");
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

ExpressionId RegionReader::read_broadcast(const Point& p) {
  std::vector<Index> from = p.index;
  const Shape& shape = operand_shape(p, 0);
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] == 1) from[i] = {};
  return evaluate(p.node.operands[0], from, p.guard);
}

ExpressionId RegionReader::read_reshape(const Point& p) {
  const Index position = kernel_.space.linear(p.index, p.node.results[0].shape);
  return evaluate(p.node.operands[0], kernel_.space.split(position, operand_shape(p, 0)), p.guard);
}

ExpressionId RegionReader::read_after(const Point& p) { return evaluate(p.node.operands[0], p.index, p.guard); }

ExpressionId RegionReader::read_transpose(const Point& p) {
  std::vector<Index> from(p.index.size());
  const Ints& permutation = p.node.attributes.ints("permutation");
  for (size_t i = 0; i < from.size(); ++i) from[static_cast<size_t>(permutation[i])] = p.index[i];
  return evaluate(p.node.operands[0], from, p.guard);
}

ExpressionId RegionReader::read_slice(const Point& p) {
  std::vector<Index> from;
  const Ints &starts = p.node.attributes.ints("starts"), &steps = p.node.attributes.ints("steps");
  for (size_t i = 0; i < starts.size(); ++i) from.push_back(p.index[i] * steps[i] + starts[i]);
  return evaluate(p.node.operands[0], from, p.guard);
}

ExpressionId RegionReader::read_pad(const Point& p) {
  const Shape& shape = operand_shape(p, 0);
  const Ints low = ops::per_axis(p.node.attributes, "low", shape.size(), 0),
             interior = ops::per_axis(p.node.attributes, "interior", shape.size(), 0);
  std::vector<Index> from;
  ExpressionId inside = kNoExpression;
  for (size_t i = 0; i < shape.size(); ++i) {
    Index at = p.index[i] + -low[i];
    if (interior[i] > 0) {
      inside = kernel_.both(inside, kernel_.in_range(kernel_.space.remainder(at, interior[i] + 1), 0, 1));
      at = kernel_.space.quotient(at, interior[i] + 1);
    }
    inside = kernel_.both(inside, kernel_.in_range(at, 0, shape[i]));
    from.push_back(std::move(at));
  }
  const ExpressionId value = evaluate(p.node.operands[0], from, kernel_.both(p.guard, inside));
  const DType type = p.node.results[0].dtype;
  const double fill = round_to(type, p.node.attributes.number("value"));
  return kernel_.select(inside, value, kernel_.constant(type, fill));
}

ExpressionId RegionReader::read_concat(const Point& p) {
  const size_t axis = static_cast<size_t>(p.node.attributes.integer("axis"));
  std::vector<Index> from = p.index;
  ExpressionId result = kNoExpression;
  for (size_t i = 0; i < p.node.operands.size(); ++i) {
    const int64_t size = operand_shape(p, i)[axis];
    const ExpressionId inside = kernel_.in_range(from[axis], 0, size);
    if (size > 0 && !kernel_.never(inside)) {
      const ExpressionId value = evaluate(p.node.operands[i], from, kernel_.both(p.guard, inside));
      result = result == kNoExpression ? value : kernel_.select(inside, value, result);
    }
    from[axis] = from[axis] + -size;
  }
  // No piece can hold the point where the guard never lets it be read.
  return result == kNoExpression ? kernel_.constant(p.node.results[0].dtype, 0) : result;
}

ExpressionId RegionReader::read_iota(const Point& p) {
  return kernel_.index(DType::i64, p.index[static_cast<size_t>(p.node.attributes.integer("axis"))]);
}

// A row that is not there reads 0.
ExpressionId RegionReader::read_gather(const Point& p) {
  const auto axis = static_cast<std::ptrdiff_t>(p.node.attributes.integer("axis"));
  const auto rank = static_cast<std::ptrdiff_t>(operand_shape(p, 1).size());
  const auto first = p.index.begin() + axis;
  const int64_t rows = operand_shape(p, 0)[static_cast<size_t>(axis)];
  const ExpressionId row = evaluate(p.node.operands[1], {first, first + rank}, p.guard);
  const Node& indices = region_.node(p.node.operands[1]);
  const bool known = indices.op->name == "constant" && all_in_range(indices.attributes.tensor("value"), rows);
  const ExpressionId inside = known ? kNoExpression : kernel_.value_in_range(row, rows);
  std::vector<Index> from(p.index.begin(), first);
  from.push_back(kernel_.space.value(row, rows, kernel_.expressions.variables(row)));
  from.insert(from.end(), first + rank, p.index.end());
  const ExpressionId value = evaluate(p.node.operands[0], from, kernel_.both(p.guard, inside));
  return kernel_.select(inside, value, kernel_.constant(p.node.results[0].dtype, 0));
}

ExpressionId RegionReader::read_uniform(const Point& p) {
  Expression e;
  e.kind = Expression::Kind::uniform;
  e.id = static_cast<int32_t>(p.node.attributes.integer("site"));
  e.index = kernel_.space.linear(p.index, p.node.results[0].shape);
  e.operands = {evaluate(p.node.operands[0], {}), evaluate(p.node.operands[1], {})};
  return kernel_.expressions.add(std::move(e), kernel_.space);
}

}  // namespace halfstep
