#include "codegen/kernel/expression.h"

#include <algorithm>
#include <compare>
#include <tuple>

namespace halfstep {

bool operator<(const Expression& a, const Expression& b) {
  const auto key = [](const Expression& e) {
    return std::tie(e.kind, e.dtype, e.stored, e.op, e.id, e.slot, e.low, e.high, e.outside, e.node, e.operands,
                    e.index);
  };
  if (key(a) < key(b)) return true;
  if (key(b) < key(a)) return false;
  return std::strong_order(a.number, b.number) < 0;
}

ExpressionId Expressions::add(Expression e, const IndexSpace& space, VariableSet own_variables, int own_level) {
  if (const auto known = known_.find(e); known != known_.end()) return known->second;
  Row row{e, own_variables | space.variables(e.index), own_level};
  const auto depend_on = [&](ExpressionId id) {
    row.variables |= variables(id);
    row.level = std::max(row.level, level(id));
  };
  for (ExpressionId operand : e.operands) depend_on(operand);
  std::vector<const Index*> indices{&e.index};
  while (!indices.empty()) {
    const Index& index = *indices.back();
    indices.pop_back();
    for (const Index::Term& t : index.terms) {
      const Atom& atom = space.atom(t.atom);
      if (atom.kind == Atom::Kind::value) depend_on(atom.value);
      indices.push_back(&atom.dividend);
    }
  }
  rows_.push_back(std::move(row));
  const ExpressionId id = size() - 1;
  known_.emplace(std::move(e), id);
  return id;
}

void Expressions::replace_variables(VariableSet old, VariableSet now) {
  for (Row& row : rows_)
    if (row.variables & old) row.variables = (row.variables & ~old) | now;
}

}  // namespace halfstep
