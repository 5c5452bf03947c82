// Scalar expressions over loop variables, each kept once: what a kernel computes.
#pragma once

#include <map>
#include <vector>

#include "codegen/kernel/kernel_index.h"
#include "ir/graph.h"
#include "ir/scalar.h"

namespace halfstep {

using ExpressionId = int32_t;
inline constexpr ExpressionId kNoExpression = -1;

// f16 and bf16 are computed as f32; every other type as itself.
inline DType computed_as(DType dtype) { return is_low(dtype) ? DType::f32 : dtype; }

struct Expression {
  enum class Kind : uint8_t {
    constant,   // `number`
    load,       // argument `id` at `index`; operand 0, if any, guards it: where false the value is `outside`
    index,      // `index` as dtype
    in_range,   // low <= index < high
    primitive,  // `op` of the operands
    select,     // operands: condition, if true, if false
    sum,        // operand 0 + operand 1, to which a product may be added without being rounded
    rounded,    // operand 0 as a value of the low type `stored`
    node,       // the body of `node`'s op on the operands
    uniform,    // philox_element(operand 0: seed, operand 1: step, site `id`, index)
    reduction,  // the result of reduction `id`
    carried,    // slot `slot` of fold `id`, inside its loop
    fold,       // slot `slot` of fold `id`, after its loop
  };
  Kind kind = Kind::constant;
  DType dtype = DType::f32;   // never f16 or bf16
  DType stored = DType::f32;  // rounded: f16 or bf16
  ScalarOp op = ScalarOp::add;
  enum Outside : uint8_t { unspecified, zero } outside = unspecified;
  int32_t id = 0;
  int32_t slot = 0;
  double number = 0;
  Index index;
  int64_t low = 0, high = 0;
  const Node* node = nullptr;
  std::vector<ExpressionId> operands;

  friend bool operator<(const Expression& a, const Expression& b);
};

// The expressions of one kernel, each kept once.
class Expressions {
 public:
  ExpressionId add(Expression e, const IndexSpace& space, VariableSet own_variables = 0, int own_level = 0);

  const Expression& operator[](ExpressionId id) const { return at(id).expression; }
  Expression& edit(ExpressionId id) { return rows_[static_cast<size_t>(id)].expression; }
  ExpressionId size() const { return static_cast<ExpressionId>(rows_.size()); }
  // The loop variables it depends on.
  VariableSet variables(ExpressionId id) const { return at(id).variables; }
  // 0: no reduction below it; n: one of phase n - 1.
  int level(ExpressionId id) const { return at(id).level; }
  void replace_variables(VariableSet old, VariableSet now);

 private:
  struct Row {
    Expression expression;
    VariableSet variables = 0;
    int level = 0;
  };
  const Row& at(ExpressionId id) const { return rows_[static_cast<size_t>(id)]; }

  std::vector<Row> rows_;
  std::map<Expression, ExpressionId> known_;
};

}  // namespace halfstep
