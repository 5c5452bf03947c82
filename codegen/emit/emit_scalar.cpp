#include "codegen/emit/emit_scalar.h"

#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/IntrinsicsNVPTX.h>
#include <llvm/IR/Module.h>
#include <llvm/IR/PatternMatch.h>

#include <algorithm>
#include <limits>
#include <numbers>
#include <string>

#include "base/error.h"
#include "codegen/emit/emit_math.h"

namespace halfstep {
namespace {

llvm::Type* scalar_type(llvm::LLVMContext& context, DType dtype) {
  switch (dtype) {
    case DType::f16:
      return llvm::Type::getHalfTy(context);
    case DType::bf16:
      return llvm::Type::getBFloatTy(context);
    case DType::f32:
      return llvm::Type::getFloatTy(context);
    case DType::f64:
      return llvm::Type::getDoubleTy(context);
    case DType::boolean:
      return llvm::Type::getInt1Ty(context);
    default:
      return llvm::Type::getIntNTy(context, static_cast<unsigned>(size_of(dtype)) * 8);
  }
}

llvm::Type* with_lanes(llvm::Type* scalar, unsigned lanes) {
  return lanes == 1 ? scalar : llvm::FixedVectorType::get(scalar, lanes);
}

bool is_unsigned(DType dtype) { return dtype == DType::u8 || dtype == DType::boolean; }

// Limits of an integer type as 64-bit values.
std::pair<int64_t, int64_t> limits(DType dtype) {
  if (dtype == DType::u8) return {0, 255};
  const auto bits = static_cast<unsigned>(size_of(dtype)) * 8;
  const int64_t high = static_cast<int64_t>(~uint64_t{0} >> (65 - bits));
  return {-high - 1, high};
}

// A product that may go unrounded into a sum that allows it.
llvm::Value* contractible(llvm::Value* v) {
  if (auto* instruction = llvm::dyn_cast<llvm::Instruction>(v)) instruction->setHasAllowContract(true);
  return v;
}

}  // namespace

llvm::Type* computed_type(llvm::LLVMContext& context, DType dtype, unsigned lanes) {
  return with_lanes(scalar_type(context, is_low(dtype) ? DType::f32 : dtype), lanes);
}

llvm::Type* stored_type(llvm::LLVMContext& context, DType dtype, unsigned lanes, DeviceKind device) {
  if (is_low(dtype) && device == DeviceKind::cpu) return with_lanes(llvm::Type::getInt16Ty(context), lanes);
  return with_lanes(scalar_type(context, dtype == DType::boolean ? DType::u8 : dtype), lanes);
}

unsigned lanes_of(const llvm::Value* value) {
  const auto* vector = llvm::dyn_cast<llvm::FixedVectorType>(value->getType());
  return vector ? vector->getNumElements() : 1;
}

llvm::Value* splat(llvm::IRBuilder<>& ir, llvm::Value* value, unsigned lanes) {
  return lanes == 1 || value->getType()->isVectorTy() ? value : ir.CreateVectorSplat(lanes, value);
}

Scalar ScalarEmitter::wrap(Entry entry) {
  entries_.push_back(entry);
  return {this, 0, &entries_.back()};
}

llvm::Value* ScalarEmitter::integer_like(llvm::Value* x, int64_t number) {
  return llvm::ConstantInt::get(x->getType(), static_cast<uint64_t>(number), true);
}

llvm::Value* ScalarEmitter::literal(DType dtype, double value) {
  llvm::Type* type = scalar_type(ir_.getContext(), is_low(dtype) ? DType::f32 : dtype);
  if (is_floating(dtype)) return llvm::ConstantFP::get(type, value);
  if (dtype == DType::boolean) return llvm::ConstantInt::get(type, value != 0);
  const auto [low, high] = limits(dtype);
  const int64_t number = value != value                       ? 0
                         : value <= static_cast<double>(low)  ? low
                         : value >= static_cast<double>(high) ? high
                                                              : static_cast<int64_t>(value);
  return llvm::ConstantInt::get(type, static_cast<uint64_t>(number));
}

llvm::Value* ScalarEmitter::value_as(const Entry& e, DType dtype) {
  return e.is_literal() ? literal(dtype, e.literal) : e.value;
}

void ScalarEmitter::widen(llvm::Value*& x, llvm::Value*& y) {
  const unsigned lanes = std::max(lanes_of(x), lanes_of(y));
  x = splat(ir_, x, lanes);
  y = splat(ir_, y, lanes);
}

Scalar ScalarEmitter::constant(double value) { return wrap(Entry{nullptr, DType::f32, value}); }

Scalar ScalarEmitter::unary(ScalarOp op, Scalar x) {
  const Entry e = entry(x);
  return wrap(unary(op, e.dtype, value_as(e, e.dtype)), e.dtype);
}

Scalar ScalarEmitter::binary(ScalarOp op, Scalar x, Scalar y) {
  const Entry a = entry(x), b = entry(y);
  const DType dtype = a.is_literal() ? b.dtype : a.dtype;
  require(a.is_literal() || b.is_literal() || a.dtype == b.dtype, "a scalar body mixes types");
  llvm::Value* result = binary(op, dtype, value_as(a, dtype), value_as(b, dtype));
  const bool compares = op == ScalarOp::equal || op == ScalarOp::less || op == ScalarOp::less_equal;
  return wrap(result, compares ? DType::boolean : dtype);
}

Scalar ScalarEmitter::select(Scalar condition, Scalar if_true, Scalar if_false) {
  const Entry a = entry(if_true), b = entry(if_false);
  const DType dtype = a.is_literal() ? b.dtype : a.dtype;
  return wrap(select(value_as(entry(condition), DType::boolean), value_as(a, dtype), value_as(b, dtype)), dtype);
}

Scalar ScalarEmitter::convert(DType to, Scalar x) {
  const Entry e = entry(x);
  return wrap(convert(e.dtype, to, value_as(e, e.dtype)), is_low(to) ? DType::f32 : to);
}

llvm::Value* ScalarEmitter::apply(const Node& node, std::span<const DType> dtypes,
                                  std::span<llvm::Value* const> operands) {
  entries_.clear();
  std::vector<Scalar> arguments;
  for (size_t i = 0; i < operands.size(); ++i) arguments.push_back(wrap(operands[i], dtypes[i]));
  const DType wanted = node.results[0].dtype;
  return value_as(entry(node.op->body(node.attributes, arguments)), is_low(wanted) ? DType::f32 : wanted);
}

llvm::Value* ScalarEmitter::select(llvm::Value* condition, llvm::Value* if_true, llvm::Value* if_false) {
  widen(if_true, if_false);
  if (condition->getType()->isVectorTy()) {
    widen(condition, if_true);
    widen(condition, if_false);
  }
  return ir_.CreateSelect(condition, if_true, if_false);
}

llvm::Value* ScalarEmitter::unary(ScalarOp op, DType dtype, llvm::Value* x) {
  if (op == ScalarOp::logical_not) return ir_.CreateNot(x);
  if (is_floating(dtype)) return floating_unary(op, dtype, x);
  switch (op) {
    case ScalarOp::negate:
      return ir_.CreateNeg(x);
    case ScalarOp::absolute:
      return is_unsigned(dtype) ? x : ir_.CreateBinaryIntrinsic(llvm::Intrinsic::abs, x, ir_.getFalse());
    case ScalarOp::round_down:
    case ScalarOp::round_up:
    case ScalarOp::round_even:
      return x;
    default:  // as the interpreter: in floating point, then back
      return convert(DType::f32, dtype, floating_unary(op, DType::f32, convert(dtype, DType::f32, x)));
  }
}

llvm::Value* ScalarEmitter::floating_unary(ScalarOp op, DType dtype, llvm::Value* x) {
  const auto intrinsic = [&](llvm::Intrinsic::ID id) { return ir_.CreateUnaryIntrinsic(id, x); };
  const auto function = [&](Lane (*emit)(Lane), const char* library) {
    return dtype == DType::f64 ? call_library(library, {{x}}) : emit(Lane(ir_, x, device_)).value();
  };
  switch (op) {
    case ScalarOp::negate:
      return ir_.CreateFNeg(x);
    case ScalarOp::absolute:
      return intrinsic(llvm::Intrinsic::fabs);
    case ScalarOp::square_root:
      return intrinsic(llvm::Intrinsic::sqrt);
    case ScalarOp::round_down:
      return intrinsic(llvm::Intrinsic::floor);
    case ScalarOp::round_up:
      return intrinsic(llvm::Intrinsic::ceil);
    case ScalarOp::round_even:
      return intrinsic(llvm::Intrinsic::rint);
    case ScalarOp::exponential:
      return function(emit_exp, "exp");
    case ScalarOp::logarithm:
      return function(emit_log, "log");
    case ScalarOp::sine:
      return function(emit_sin, "sin");
    case ScalarOp::cosine:
      return function(emit_cos, "cos");
    case ScalarOp::hyperbolic_tangent:
      return function(emit_tanh, "tanh");
    case ScalarOp::error_function:
      return function(emit_erf, "erf");
    case ScalarOp::logistic:
    case ScalarOp::normal_distribution:
    case ScalarOp::normal_density:
      return distribution(op, dtype, x);
    default:
      throw InternalError("not a unary scalar op");
  }
}

// Of f64 the C library has none.
llvm::Value* ScalarEmitter::distribution(ScalarOp op, DType dtype, llvm::Value* x) {
  const Lane v(ir_, x, device_);
  if (dtype != DType::f64)
    return (op == ScalarOp::logistic              ? emit_logistic(v)
            : op == ScalarOp::normal_distribution ? emit_normal_distribution(v)
                                                  : emit_normal_density(v))
        .value();
  if (op == ScalarOp::normal_distribution)
    return (v.with(call_library("erfc", {{(v * (std::numbers::sqrt2 / -2)).value()}})) * 0.5).value();
  const Lane exponent = op == ScalarOp::logistic ? v * -1.0 : v * v * -0.5;
  const Lane power = v.with(call_library("exp", {{exponent.value()}}));
  if (op == ScalarOp::logistic) return (1.0 / (power + 1.0)).value();
  return (power * (std::numbers::inv_sqrtpi / std::numbers::sqrt2)).value();
}

llvm::Value* ScalarEmitter::binary(ScalarOp op, DType dtype, llvm::Value* x, llvm::Value* y) {
  widen(x, y);
  if (op == ScalarOp::logical_and) return ir_.CreateAnd(x, y);
  if (op == ScalarOp::logical_or) return ir_.CreateOr(x, y);
  return is_floating(dtype) ? floating_binary(op, dtype, x, y) : integer_binary(op, dtype, x, y);
}

llvm::Value* ScalarEmitter::accumulate(ScalarOp op, DType dtype, llvm::Value* x, llvm::Value* y) {
  llvm::Value* result = binary(op, dtype, x, y);
  return op == ScalarOp::add && is_floating(dtype) ? contractible(result) : result;
}

llvm::Value* ScalarEmitter::floating_binary(ScalarOp op, DType dtype, llvm::Value* x, llvm::Value* y) {
  switch (op) {
    case ScalarOp::add:
      return ir_.CreateFAdd(x, y);
    case ScalarOp::subtract:
      return ir_.CreateFSub(x, y);
    case ScalarOp::multiply:
      return contractible(ir_.CreateFMul(x, y));
    case ScalarOp::divide:
      return ir_.CreateFDiv(x, y);
    case ScalarOp::power:
      if (dtype == DType::f64) return call_library("pow", {{x, y}});
      return emit_pow(Lane(ir_, x, device_), Lane(ir_, y, device_)).value();
    case ScalarOp::remainder:
      if (dtype == DType::f64) return call_library("fmod", {{x, y}});
      return emit_remainder(Lane(ir_, x, device_), Lane(ir_, y, device_)).value();
    case ScalarOp::maximum:
    case ScalarOp::minimum:
      return extremum(op, x, y);
    case ScalarOp::equal:
      return ir_.CreateFCmpOEQ(x, y);
    case ScalarOp::less:
      return ir_.CreateFCmpOLT(x, y);
    case ScalarOp::less_equal:
      return ir_.CreateFCmpOLE(x, y);
    default:
      throw InternalError("not a binary scalar op");
  }
}

// NaN if either is. On the GPU one instruction; on the host a compare and a select for each operand that may be NaN.
llvm::Value* ScalarEmitter::extremum(ScalarOp op, llvm::Value* x, llvm::Value* y) {
  const bool greatest = op == ScalarOp::maximum;
  if (device_ == DeviceKind::cuda && !x->getType()->getScalarType()->isDoubleTy())
    return ir_.CreateBinaryIntrinsic(greatest ? llvm::Intrinsic::maximum : llvm::Intrinsic::minimum, x, y);
  const auto number = [](llvm::Value* v) {
    const auto* c = llvm::dyn_cast<llvm::Constant>(v);
    if (c && v->getType()->isVectorTy()) c = c->getSplatValue();
    const auto* f = llvm::dyn_cast_or_null<llvm::ConstantFP>(c);
    return f && !f->isNaN();
  };
  if (number(x)) std::swap(x, y);
  // Taken where y is NaN only if y may be: then x would be lost.
  llvm::Value* beyond = greatest ? ir_.CreateFCmpOGT(y, x) : ir_.CreateFCmpOLT(y, x);
  llvm::Value* result = ir_.CreateSelect(beyond, y, x);
  return number(y) ? result : ir_.CreateSelect(ir_.CreateFCmpUNO(y, y), y, result);
}

llvm::Value* ScalarEmitter::integer_binary(ScalarOp op, DType dtype, llvm::Value* x, llvm::Value* y) {
  const bool plain = is_unsigned(dtype);
  switch (op) {
    case ScalarOp::add:
      return dtype == DType::boolean ? ir_.CreateOr(x, y) : ir_.CreateAdd(x, y);
    case ScalarOp::subtract:
      return ir_.CreateSub(x, y);
    case ScalarOp::multiply:
      return ir_.CreateMul(x, y);
    case ScalarOp::divide:
      return integer_divide(dtype, x, y);
    case ScalarOp::power:
      return convert(DType::f32, dtype,
                     floating_binary(op, DType::f32, convert(dtype, DType::f32, x), convert(dtype, DType::f32, y)));
    case ScalarOp::maximum:
      return ir_.CreateBinaryIntrinsic(plain ? llvm::Intrinsic::umax : llvm::Intrinsic::smax, x, y);
    case ScalarOp::minimum:
      return ir_.CreateBinaryIntrinsic(plain ? llvm::Intrinsic::umin : llvm::Intrinsic::smin, x, y);
    case ScalarOp::equal:
      return ir_.CreateICmpEQ(x, y);
    case ScalarOp::less:
      return plain ? ir_.CreateICmpULT(x, y) : ir_.CreateICmpSLT(x, y);
    case ScalarOp::less_equal:
      return plain ? ir_.CreateICmpULE(x, y) : ir_.CreateICmpSLE(x, y);
    default:
      throw InternalError("not a binary scalar op");
  }
}

// Towards zero; what would trap saturates: x / 0, and the smallest number / -1.
llvm::Value* ScalarEmitter::integer_divide(DType dtype, llvm::Value* x, llvm::Value* y) {
  const auto [low, high] = limits(dtype);
  llvm::Value *zero = integer_like(x, 0), *one = integer_like(x, 1);
  llvm::Value* by_zero = ir_.CreateICmpEQ(y, zero);
  llvm::Value* above = integer_like(x, high);
  if (is_unsigned(dtype)) {
    llvm::Value* quotient = ir_.CreateUDiv(x, ir_.CreateSelect(by_zero, one, y));
    return ir_.CreateSelect(by_zero, ir_.CreateSelect(ir_.CreateICmpEQ(x, zero), zero, above), quotient);
  }
  llvm::Value* below = integer_like(x, low);
  llvm::Value* overflow = ir_.CreateAnd(ir_.CreateICmpEQ(x, below), ir_.CreateICmpEQ(y, integer_like(x, -1)));
  llvm::Value* quotient = ir_.CreateSDiv(x, ir_.CreateSelect(ir_.CreateOr(by_zero, overflow), one, y));
  llvm::Value* signed_limit =
      ir_.CreateSelect(ir_.CreateICmpSLT(x, zero), below, ir_.CreateSelect(ir_.CreateICmpEQ(x, zero), zero, above));
  return ir_.CreateSelect(by_zero, signed_limit, ir_.CreateSelect(overflow, above, quotient));
}

llvm::Value* ScalarEmitter::call_library(const char* function, std::span<llvm::Value* const> operands) {
  if (device_ == DeviceKind::cuda)
    throw InternalError(std::string("'") + function + "' of f64 is not available on the GPU");
  llvm::Module* module = ir_.GetInsertBlock()->getModule();
  const std::vector<llvm::Type*> types(operands.size(), ir_.getDoubleTy());
  const llvm::FunctionCallee callee =
      module->getOrInsertFunction(function, llvm::FunctionType::get(ir_.getDoubleTy(), types, false));
  const unsigned lanes = lanes_of(operands[0]);
  if (lanes == 1) return ir_.CreateCall(callee, {operands.data(), operands.size()});
  llvm::Value* result = llvm::PoisonValue::get(operands[0]->getType());
  for (unsigned i = 0; i < lanes; ++i) {
    std::vector<llvm::Value*> arguments;
    for (llvm::Value* operand : operands) arguments.push_back(ir_.CreateExtractElement(operand, i));
    result = ir_.CreateInsertElement(result, ir_.CreateCall(callee, arguments), i);
  }
  return result;
}

llvm::Value* ScalarEmitter::convert(DType from, DType to, llvm::Value* x) {
  if (is_low(from)) from = DType::f32;
  if (is_low(to)) {
    if (from != DType::f32) x = convert(from, DType::f32, x);
    return from_stored(to, to_stored(to, x));
  }
  if (from == to) return x;
  llvm::Type* type = retyped(x, scalar_type(ir_.getContext(), to));
  if (is_floating(from)) {
    if (is_floating(to)) return ir_.CreateFPCast(x, type);
    if (to == DType::boolean) return ir_.CreateFCmpUNE(x, llvm::ConstantFP::get(x->getType(), 0));
    const auto id = is_unsigned(to) ? llvm::Intrinsic::fptoui_sat : llvm::Intrinsic::fptosi_sat;
    return ir_.CreateIntrinsic(id, {type, x->getType()}, {x});
  }
  if (is_floating(to)) return is_unsigned(from) ? ir_.CreateUIToFP(x, type) : ir_.CreateSIToFP(x, type);
  if (to == DType::boolean) return ir_.CreateICmpNE(x, integer_like(x, 0));
  return saturate_integer(from, to, x);
}

llvm::Value* ScalarEmitter::saturate_integer(DType from, DType to, llvm::Value* x) {
  llvm::Type* type = retyped(x, scalar_type(ir_.getContext(), to));
  if (from == DType::boolean) return ir_.CreateZExt(x, type);
  const auto [from_low, from_high] = limits(from);
  const auto [to_low, to_high] = limits(to);
  if (from == DType::u8) {
    if (to != DType::i8) return ir_.CreateZExt(x, type);
    return ir_.CreateBinaryIntrinsic(llvm::Intrinsic::umin, x, integer_like(x, to_high));
  }
  if (to_low > from_low) x = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, x, integer_like(x, to_low));
  if (to_high < from_high) x = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, x, integer_like(x, to_high));
  return ir_.CreateSExtOrTrunc(x, type);
}

// bf16 is the upper half of an f32. The GPU converts it; on the host a shift does, and keeps subnormals where
// AVX512-BF16 would flush them.
llvm::Value* ScalarEmitter::from_stored(DType dtype, llvm::Value* x) {
  if (dtype == DType::boolean) return ir_.CreateICmpNE(x, integer_like(x, 0));
  if (!is_low(dtype)) return x;
  llvm::Type* single = retyped(x, ir_.getFloatTy());
  if (device_ == DeviceKind::cuda) return ir_.CreateFPExt(x, single);
  if (dtype == DType::f16) {
    // The fence costs nothing; it keeps LLVM from moving comparisons and selections back to halves, which most CPUs
    // would take one by one.
    llvm::Value* half = ir_.CreateBitCast(x, retyped(x, ir_.getHalfTy()));
    return ir_.CreateArithmeticFence(ir_.CreateFPExt(half, single), single);
  }
  llvm::Value* bits = ir_.CreateZExt(x, retyped(x, ir_.getInt32Ty()));
  return ir_.CreateBitCast(ir_.CreateShl(bits, integer_like(bits, 16)), single);
}

llvm::Value* ScalarEmitter::to_stored(DType dtype, llvm::Value* x) {
  if (dtype == DType::boolean) return ir_.CreateZExt(x, retyped(x, ir_.getInt8Ty()));
  if (!is_low(dtype)) return x;
  if (device_ == DeviceKind::cuda) return narrow_on_device(dtype, x);
  llvm::Type* half_bits = retyped(x, ir_.getInt16Ty());
  if (dtype == DType::f16) {
    // A value that was just rounded (see from_stored) is there already.
    llvm::Value* half = nullptr;
    using namespace llvm::PatternMatch;
    if (!match(x, m_Intrinsic<llvm::Intrinsic::arithmetic_fence>(m_FPExt(m_Value(half)))) ||
        !half->getType()->getScalarType()->isHalfTy())
      half = ir_.CreateFPTrunc(x, retyped(x, ir_.getHalfTy()));
    return ir_.CreateBitCast(half, half_bits);
  }
  llvm::Value* bits = ir_.CreateBitCast(x, retyped(x, ir_.getInt32Ty()));
  const auto shifted = [&](llvm::Value* v) { return ir_.CreateLShr(v, integer_like(v, 16)); };
  llvm::Value* tie = ir_.CreateAnd(shifted(bits), integer_like(bits, 1));
  llvm::Value* rounded = shifted(ir_.CreateAdd(bits, ir_.CreateAdd(tie, integer_like(bits, 0x7fff))));
  llvm::Value* nan = ir_.CreateOr(shifted(bits), integer_like(bits, 0x40));
  return ir_.CreateTrunc(ir_.CreateSelect(ir_.CreateFCmpUNO(x, x), nan, rounded), half_bits);
}

// `x` in the low type `type` where it is one of its values already: rounded, or chosen among such and constants.
llvm::Value* ScalarEmitter::known_low(llvm::Type* type, llvm::Value* x) {
  if (auto* constant = llvm::dyn_cast<llvm::Constant>(x)) {
    const auto* number =
        llvm::dyn_cast_or_null<llvm::ConstantFP>(x->getType()->isVectorTy() ? constant->getSplatValue() : constant);
    if (!number || number->isNaN()) return nullptr;
    llvm::APFloat low = number->getValueAPF();
    bool loses = false;
    low.convert(type->getFltSemantics(), llvm::APFloat::rmNearestTiesToEven, &loses);
    return loses ? nullptr : llvm::ConstantFP::get(retyped(x, type), low);
  }
  if (auto* wide = llvm::dyn_cast<llvm::FPExtInst>(x))
    return wide->getSrcTy()->getScalarType() == type ? wide->getOperand(0) : nullptr;
  auto* chosen = llvm::dyn_cast<llvm::SelectInst>(x);
  if (!chosen) return nullptr;
  llvm::Value *if_true = known_low(type, chosen->getTrueValue()), *if_false = known_low(type, chosen->getFalseValue());
  return if_true && if_false ? ir_.CreateSelect(chosen->getCondition(), if_true, if_false) : nullptr;
}

// LLVM converts lane by lane; the instruction takes two.
llvm::Value* ScalarEmitter::narrow_on_device(DType low, llvm::Value* x) {
  llvm::Type* type = retyped(x, scalar_type(ir_.getContext(), low));
  if (llvm::Value* known = known_low(type->getScalarType(), x)) return known;
  const unsigned lanes = lanes_of(x);
  if (lanes == 1) return ir_.CreateFPTrunc(x, type);
  const auto id = low == DType::f16 ? llvm::Intrinsic::nvvm_ff2f16x2_rn : llvm::Intrinsic::nvvm_ff2bf16x2_rn;
  llvm::Value* result = llvm::PoisonValue::get(type);
  for (unsigned i = 0; i < lanes; i += 2) {
    llvm::Value* pair =
        ir_.CreateIntrinsic(id, {}, {ir_.CreateExtractElement(x, i + 1), ir_.CreateExtractElement(x, i)});
    for (unsigned k = 0; k < 2; ++k) result = ir_.CreateInsertElement(result, ir_.CreateExtractElement(pair, k), i + k);
  }
  return result;
}

}  // namespace halfstep
