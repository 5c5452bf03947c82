// Kernel: one launch as scalar expressions over loop variables, before a target and a launch shape are chosen.
//
//   softmax over f16[1024,10]:  kept [r:1024], reduced [c:10]
//     e0 = load operand 0 [10 r + c]     m = reduce max e0     e2 = exp(e0 - m)     s = reduce sum e2
//     store output 0 [10 r + c] = e2 / s
#pragma once

#include <string>
#include <vector>

#include "codegen/kernel/expression.h"

namespace halfstep {

struct KernelArgument {
  enum class Kind : uint8_t { operand, output, partial, table };
  Kind kind = Kind::operand;
  int32_t number = 0;
  TensorType type;
  const Tensor* table = nullptr;  // table: a constant of the region, kept in the module
};

struct Reduction {
  ScalarOp combine = ScalarOp::add;    // add, maximum or minimum
  DType dtype = DType::f32;            // of the accumulator
  std::vector<ExpressionId> operands;  // one for each of the points that stand together
  int phase = 0;
};

// A loop inside an expression: for each point of `variables`, carried[i] = next[i].
struct Fold {
  std::vector<AtomId> variables;
  std::vector<ExpressionId> initial, next;
};

struct Store {
  enum class Domain : uint8_t { full, kept };
  Domain domain = Domain::full;  // at every point, or once the reductions of a kept point are known
  int32_t argument = 0;
  Index index;
  ExpressionId value = kNoExpression;
};

struct Kernel {
  // pointwise: no reductions, lanes along the last kept variable. rows: lanes along the last reduced variable.
  // columns: one phase of reductions, lanes along the last kept variable. scatter: no reductions; every kept position
  // walks the reduced variable in order and stores where `condition` holds, which does not depend on the last kept
  // variable, along which the lanes are. It may load what it stored.
  enum class Form : uint8_t { pointwise, rows, columns, scatter };
  Form form = Form::pointwise;
  std::vector<KernelArgument> arguments;
  IndexSpace space;
  Expressions expressions;
  std::vector<AtomId> kept, reduced;  // row-major; no variable has extent 1, but for those of a scatter
  // Points of the domain at each position of the variables: neighbours that share what they read stand together, as
  // several operands of each reduction and several stores.
  int64_t together = 1;
  // With a chunk variable (one of `kept`) a kernel reduces only positions [chunk * length, (chunk + 1) * length) of
  // the reduced variables: of all of them in columns; in rows of the last one, or if there are several, of the others.
  AtomId chunk = -1;
  int64_t chunk_length = 0;
  ExpressionId condition = kNoExpression;  // of a scatter's stores
  std::vector<Reduction> reductions;
  std::vector<Fold> folds;
  std::vector<Store> stores;

  int64_t extent(AtomId variable) const { return space.atom(variable).limit; }
  int64_t points(const std::vector<AtomId>& variables) const;
  AtomId lane_variable() const;  // -1: a single point
  int32_t argument(KernelArgument::Kind kind, int32_t number, const TensorType& type, const Tensor* table = nullptr);

  ExpressionId constant(DType dtype, double number);
  ExpressionId load(int32_t argument, Index index, ExpressionId guard = kNoExpression);
  ExpressionId index(DType dtype, Index index);
  ExpressionId in_range(const Index& index, int64_t low, int64_t high);  // kNoExpression where it always holds
  ExpressionId primitive(ScalarOp op, std::vector<ExpressionId> operands);
  ExpressionId sum(ExpressionId carried, ExpressionId term);  // `term` may be an unrounded product
  ExpressionId select(ExpressionId condition, ExpressionId if_true, ExpressionId if_false);
  // `x` as every reader of a value of `type` sees it: rounded, if the type is low.
  ExpressionId rounded(DType type, ExpressionId x);
  // Conditions, where kNoExpression means "holds".
  ExpressionId both(ExpressionId a, ExpressionId b);
  bool never(ExpressionId condition) const;
  ExpressionId value_in_range(ExpressionId value, int64_t limit);  // in [0, limit)
  Index clamped(const Index& index, int64_t limit);                // to [0, limit)
};

// Joins neighbouring variables wherever every index of the kernel allows it, so that the inner loops are long.
void merge_variables(Kernel& kernel);

}  // namespace halfstep
