// What long rows of low values take less for: their softmax, their extrema, and the memory that has them on the
// processor.
#include <llvm/IR/Intrinsics.h>

#include <algorithm>

#include "codegen/emit/emit_expression.h"
#include "codegen/emit/emit_math.h"

namespace halfstep {
namespace {

// What a body makes of its operands, numbered from 1: -1 - op if it is one operation of all of them in their order, the
// number of one that it returns as it is or widened to f32, else 0. Found by running it over a carrier of such numbers.
double form_of(const Expression& e) {
  if (e.kind == Expression::Kind::primitive) return -1 - static_cast<double>(e.op);
  if (e.kind != Expression::Kind::node || !e.node->op->body) return 0;
  class Finder final : public ScalarArithmetic {
   public:
    Scalar constant(double) override { return is(0); }
    Scalar unary(ScalarOp op, Scalar x) override { return is(x.number == 1 ? result(op) : 0); }
    Scalar binary(ScalarOp op, Scalar x, Scalar y) override {
      return is(x.number == 1 && y.number == 2 ? result(op) : 0);
    }
    Scalar select(Scalar, Scalar, Scalar) override { return is(0); }
    Scalar convert(DType to, Scalar x) override { return is(to == DType::f32 && x.number > 0 ? x.number : 0); }
    Scalar is(double number) { return {this, number, nullptr}; }
    static double result(ScalarOp op) { return -1 - static_cast<double>(op); }
  } finder;
  std::vector<Scalar> operands;
  for (size_t i = 1; i <= e.operands.size(); ++i) operands.push_back(finder.is(static_cast<double>(i)));
  return e.node->op->body(e.node->attributes, operands).number;
}

bool is_op(const Expression& e, ScalarOp op) { return form_of(e) == -1 - static_cast<double>(op); }

// `id`, or what it widens to f32.
ExpressionId unwidened(const Expressions& expressions, ExpressionId id) {
  while (expressions[id].operands.size() == 1 && expressions[id].dtype == DType::f32 &&
         expressions[expressions[id].operands[0]].dtype == DType::f32 && form_of(expressions[id]) == 1)
    id = expressions[id].operands[0];
  return id;
}

// The low type whose values `id` has alone: loaded or rounded as such, or chosen among such and constants, and widened.
std::optional<DType> low_type(const Kernel& kernel, ExpressionId id) {
  const Expression& e = kernel.expressions[unwidened(kernel.expressions, id)];
  std::optional<DType> type;
  if (e.kind == Expression::Kind::load) type = kernel.arguments[static_cast<size_t>(e.id)].type.dtype;
  if (e.kind == Expression::Kind::rounded) type = e.stored;
  if (e.kind == Expression::Kind::select) {
    for (const size_t i : {1, 2})
      if (kernel.expressions[e.operands[i]].kind != Expression::Kind::constant) {
        const auto side = low_type(kernel, e.operands[i]);
        if (!side || (type && *type != *side)) return {};
        type = side;
      }
    for (const size_t i : {1, 2}) {
      const Expression& side = kernel.expressions[e.operands[i]];
      if (side.kind == Expression::Kind::constant && (!type || round_to(*type, side.number) != side.number)) return {};
    }
  }
  return type && is_low(*type) ? type : std::nullopt;
}

// The reduction whose result `id` is, where rounding does not change that.
const Reduction* reduction_of(const Kernel& kernel, ExpressionId id) {
  const Expression& e = kernel.expressions[id];
  if (e.kind == Expression::Kind::rounded) {
    const Reduction* r = reduction_of(kernel, e.operands[0]);
    return r && r->combine != ScalarOp::add &&
                   std::ranges::all_of(r->operands, [&](ExpressionId o) { return low_type(kernel, o) == e.stored; })
               ? r
               : nullptr;
  }
  return e.kind == Expression::Kind::reduction ? &kernel.reductions[static_cast<size_t>(e.id)] : nullptr;
}

}  // namespace

std::optional<DType> ExpressionEmitter::low_extremum(const Reduction& reduction) const {
  if (!config_.long_rows || reduction.combine == ScalarOp::add || reduction.dtype != DType::f32) return {};
  std::optional<DType> type;
  for (const ExpressionId operand : reduction.operands) {
    const auto own = low_type(kernel_, operand);
    if (!own || (type && *type != *own) || !varies(operand)) return {};
    type = own;
  }
  return type;
}

// Of a comparison of a row's elements with what they were reduced to: whether this thread may find any; nullptr: not
// known.
llvm::Value* ExpressionEmitter::met(const Expression& e) const {
  if (e.kind != Expression::Kind::primitive || e.op != ScalarOp::equal) return nullptr;
  for (const size_t i : {0, 1}) {
    const Reduction* r = reduction_of(kernel_, e.operands[i]);
    if (!r || r->operands.size() != 1 || r->operands[0] != e.operands[1 - i]) continue;
    const auto found = met_.find(static_cast<int32_t>(r - kernel_.reductions.data()));
    if (found != met_.end()) return found->second;
  }
  return nullptr;
}

// exp(x - greatest) of low values x is what a softmax sums. Their own rounding is 2^-9 or 2^-12 of them, so that it
// needs no more than the GPU's power of two; the interval keeps it from overflow.
llvm::Value* ExpressionEmitter::emit_exp_below_greatest(const Expression& e) {
  if (!config_.long_rows || !is_op(e, ScalarOp::exponential)) return nullptr;
  const Expression& below = kernel_.expressions[e.operands[0]];
  if (below.dtype != DType::f32 || !is_op(below, ScalarOp::subtract)) return nullptr;
  const auto side = [&](size_t i) { return unwidened(kernel_.expressions, below.operands[i]); };
  const Reduction* greatest = low_type(kernel_, side(0)) ? reduction_of(kernel_, side(1)) : nullptr;
  if (!greatest || greatest->combine != ScalarOp::maximum) return nullptr;
  return emit_exp_below(Lane(ir_, emit(e.operands[0]), config_.device)).value();
}

// Where the lanes at hand are kept.
llvm::Value* ExpressionEmitter::kept_place() {
  const Expression& e = kernel_.expressions[kept_];
  return ir_.CreateGEP(memory_type(kernel_.arguments[static_cast<size_t>(e.id)].type.dtype, 1), kept_memory_,
                       scope_.variables.at(config_.variable));
}

void ExpressionEmitter::write_kept() {
  const DType dtype = kernel_.arguments[static_cast<size_t>(kernel_.expressions[kept_].id)].type.dtype;
  ir_.CreateAlignedStore(scalars_.to_stored(dtype, emit_lanes(kept_)), kept_place(), llvm::Align(16));
}

}  // namespace halfstep
