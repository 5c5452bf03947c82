#include "codegen/kernel/kernel.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace halfstep {

int64_t Kernel::points(const std::vector<AtomId>& variables) const {
  int64_t n = 1;
  for (AtomId v : variables) n *= extent(v);
  return n;
}

AtomId Kernel::lane_variable() const {
  const std::vector<AtomId>& along = form == Form::rows ? reduced : kept;
  return along.empty() ? -1 : along.back();
}

int32_t Kernel::argument(KernelArgument::Kind kind, int32_t number, const TensorType& type, const Tensor* table) {
  for (size_t i = 0; i < arguments.size(); ++i)
    if (arguments[i].kind == kind && arguments[i].number == number) return static_cast<int32_t>(i);
  arguments.push_back({kind, number, type, table});
  return static_cast<int32_t>(arguments.size()) - 1;
}

ExpressionId Kernel::constant(DType dtype, double number) {
  Expression e;
  e.kind = Expression::Kind::constant;
  e.dtype = computed_as(dtype);
  e.number = number;
  return expressions.add(std::move(e), space);
}

ExpressionId Kernel::load(int32_t argument, Index index, ExpressionId guard) {
  Expression e;
  e.kind = Expression::Kind::load;
  e.dtype = computed_as(arguments[static_cast<size_t>(argument)].type.dtype);
  e.id = argument;
  e.index = std::move(index);
  if (guard != kNoExpression) e.operands = {guard};
  return expressions.add(std::move(e), space);
}

ExpressionId Kernel::index(DType dtype, Index index) {
  if (index.is_constant()) return constant(dtype, static_cast<double>(index.offset));
  Expression e;
  e.kind = Expression::Kind::index;
  e.dtype = dtype;
  e.index = std::move(index);
  return expressions.add(std::move(e), space);
}

ExpressionId Kernel::in_range(const Index& index, int64_t low, int64_t high) {
  const IndexSpace::Range range = space.range(index);
  if (range.low >= low && range.high < high) return kNoExpression;
  if (range.high < low || range.low >= high) return constant(DType::boolean, 0);
  Expression e;
  e.kind = Expression::Kind::in_range;
  e.dtype = DType::boolean;
  e.index = index;
  e.low = low;
  e.high = high;
  return expressions.add(std::move(e), space);
}

ExpressionId Kernel::primitive(ScalarOp op, std::vector<ExpressionId> operands) {
  Expression e;
  e.kind = Expression::Kind::primitive;
  e.dtype = op == ScalarOp::equal || op == ScalarOp::less || op == ScalarOp::less_equal
                ? DType::boolean
                : expressions[operands[0]].dtype;
  e.op = op;
  e.operands = std::move(operands);
  return expressions.add(std::move(e), space);
}

ExpressionId Kernel::sum(ExpressionId carried, ExpressionId term) {
  Expression e;
  e.kind = Expression::Kind::sum;
  e.dtype = expressions[carried].dtype;
  e.operands = {carried, term};
  return expressions.add(std::move(e), space);
}

ExpressionId Kernel::select(ExpressionId condition, ExpressionId if_true, ExpressionId if_false) {
  if (condition == kNoExpression) return if_true;
  const Expression& known = expressions[condition];
  if (known.kind == Expression::Kind::constant) return known.number != 0 ? if_true : if_false;
  const Expression& otherwise = expressions[if_false];
  if (otherwise.kind == Expression::Kind::constant && otherwise.number == 0 && !std::signbit(otherwise.number))
    if (Expression load = expressions[if_true];
        load.kind == Expression::Kind::load && load.operands == std::vector{condition}) {
      load.outside = Expression::zero;
      return expressions.add(std::move(load), space);
    }
  Expression e;
  e.kind = Expression::Kind::select;
  e.dtype = expressions[if_true].dtype;
  e.operands = {condition, if_true, if_false};
  return expressions.add(std::move(e), space);
}

ExpressionId Kernel::rounded(DType type, ExpressionId x) {
  if (!is_low(type)) return x;
  Expression e;
  e.kind = Expression::Kind::rounded;
  e.stored = type;
  e.operands = {x};
  return expressions.add(std::move(e), space);
}

ExpressionId Kernel::both(ExpressionId a, ExpressionId b) {
  if (a == kNoExpression || a == b) return b;
  if (b == kNoExpression) return a;
  for (const ExpressionId e : {a, b})
    if (never(e)) return e;
  return primitive(ScalarOp::logical_and, {a, b});
}

bool Kernel::never(ExpressionId condition) const {
  return condition != kNoExpression && expressions[condition].kind == Expression::Kind::constant &&
         expressions[condition].number == 0;
}

ExpressionId Kernel::value_in_range(ExpressionId value, int64_t limit) {
  const DType type = expressions[value].dtype;
  return both(primitive(ScalarOp::less_equal, {constant(type, 0), value}),
              primitive(ScalarOp::less, {value, constant(type, static_cast<double>(limit))}));
}

Index Kernel::clamped(const Index& at, int64_t limit) {
  const ExpressionId position = index(DType::i32, at);
  return space.value(position, limit, expressions.variables(position));
}

namespace {

// Merges one neighbouring pair of `variables`; false if none can be.
bool merge_one(Kernel& kernel, std::vector<AtomId>& variables) {
  for (size_t i = 0; i + 1 < variables.size(); ++i) {
    const AtomId outer = variables[i], inner = variables[i + 1];
    if (outer == kernel.chunk || inner == kernel.chunk) continue;
    bool allowed = kernel.space.atoms_merge(outer, inner);
    const auto check = [&](const Index& index) { allowed = allowed && kernel.space.merges(index, outer, inner); };
    for (ExpressionId id = 0; id < kernel.expressions.size() && allowed; ++id) check(kernel.expressions[id].index);
    for (const Store& s : kernel.stores) check(s.index);
    if (!allowed) continue;
    const AtomId merged = kernel.space.variable(kernel.extent(outer) * kernel.extent(inner));
    for (ExpressionId id = 0; id < kernel.expressions.size(); ++id)
      kernel.space.merge(kernel.expressions.edit(id).index, outer, inner, merged);
    for (Store& s : kernel.stores) kernel.space.merge(s.index, outer, inner, merged);
    kernel.space.merge_atoms(outer, inner, merged);
    kernel.expressions.replace_variables(kernel.space.atom(outer).variables | kernel.space.atom(inner).variables,
                                         kernel.space.atom(merged).variables);
    variables[i] = merged;
    variables.erase(variables.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    return true;
  }
  return false;
}

}  // namespace

void merge_variables(Kernel& kernel) {
  while (merge_one(kernel, kernel.kept) || merge_one(kernel, kernel.reduced)) {
  }
}

}  // namespace halfstep
