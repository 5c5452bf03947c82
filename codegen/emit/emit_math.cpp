// The polynomials named "minimax" were fitted for this file with a Remez exchange in 160-bit arithmetic, weighted for
// relative error, and then rounded to f32; their error is given beside them. Range reductions follow Cody and Waite,
// "Software Manual for the Elementary Functions", 1980.
#include "codegen/emit/emit_math.h"

#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/IntrinsicsNVPTX.h>
#include <llvm/IR/MDBuilder.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>
#include <vector>

namespace halfstep {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Lane select(llvm::Value* condition, Lane if_true, Lane if_false) {
  return if_true.with(if_true.ir().CreateSelect(condition, if_true.value(), if_false.value()));
}

Lane unary(llvm::Intrinsic::ID id, Lane x) { return x.with(x.ir().CreateUnaryIntrinsic(id, x.value())); }
Lane magnitude(Lane x) { return unary(llvm::Intrinsic::fabs, x); }
Lane with_sign_of(Lane x, Lane sign) {
  return x.with(x.ir().CreateBinaryIntrinsic(llvm::Intrinsic::copysign, x.value(), sign.value()));
}
llvm::Value* is_nan(Lane x) { return x.ir().CreateFCmpUNO(x.value(), x.value()); }

// An instruction of the GPU that has no vectors.
Lane each_lane(llvm::Intrinsic::ID id, const std::vector<Lane>& operands) {
  llvm::IRBuilder<>& ir = operands[0].ir();
  llvm::Type* type = operands[0].value()->getType();
  const auto* vector = llvm::dyn_cast<llvm::FixedVectorType>(type);
  const auto call = [&](const auto& lane_of) {
    std::vector<llvm::Value*> lanes;
    for (const Lane& operand : operands) lanes.push_back(lane_of(operand.value()));
    return ir.CreateIntrinsic(id, {}, lanes);
  };
  if (!vector) return operands[0].with(call([](llvm::Value* v) { return v; }));
  llvm::Value* result = llvm::PoisonValue::get(type);
  for (unsigned i = 0; i < vector->getNumElements(); ++i)
    result = ir.CreateInsertElement(result, call([&](llvm::Value* v) { return ir.CreateExtractElement(v, i); }), i);
  return operands[0].with(result);
}

// 1 / x of x >= 1. On the GPU to one unit in the last place, and 0 where it would be subnormal.
Lane reciprocal_of_large(Lane x) {
  return x.device() == DeviceKind::cuda ? each_lane(llvm::Intrinsic::nvvm_rcp_approx_ftz_f, {x}) : 1.0 / x;
}

// c[0] + c[1] x + ... by Horner's rule.
Lane polynomial(Lane x, std::span<const double> c) {
  Lane p = x.constant(c.back());
  for (size_t i = c.size() - 1; i-- > 0;) p = p.fused(x, x.constant(c[i]));
  return p;
}

llvm::Type* retyped(Lane x, llvm::Type* scalar) { return x.value()->getType()->getWithNewType(scalar); }
Lane to_double(Lane x) { return x.with(x.ir().CreateFPExt(x.value(), retyped(x, x.ir().getDoubleTy()))); }
Lane to_float(Lane x) { return x.with(x.ir().CreateFPTrunc(x.value(), retyped(x, x.ir().getFloatTy()))); }

// Rounds to an integer by adding 1.5 * 2^(fraction bits): the sum's low bits are then that integer. Unlike a
// conversion this is defined for NaN.
struct Rounded {
  Lane number;
  llvm::Value* integer;
};
Rounded round_by_shift(Lane x, double factor, double shifter) {
  const Lane shifted = x.fused(x.constant(factor), x.constant(shifter));
  llvm::Value* integer = x.ir().CreateSub(
      shifted.bits(), llvm::ConstantExpr::getBitCast(llvm::cast<llvm::Constant>(x.constant(shifter).value()),
                                                     shifted.bits()->getType()));
  return {shifted - shifter, integer};
}
// ln 2 in two parts; the first has trailing zeros, so that small integers times it are exact.
constexpr double kLn2High = 0.693145751953125, kLn2Low = 1.42860682e-06;
constexpr double kFloatShifter = 0x1.8p23, kDoubleShifter = 0x1.8p52;

// Quadrant and remainder of x / (pi / 2).
struct Quadrant {
  Lane remainder;
  llvm::Value* odd;       // sine and cosine change places
  llvm::Value* sin_sign;  // sign bits to flip
  llvm::Value* cos_sign;
};

struct Reduced {
  Lane remainder;
  llvm::Value* number;  // of quadrants, modulo 4
};

// In double: the product with a pi / 2 of 107 bits is exact to far below f32's precision. NaN for an infinity.
constexpr double kHugeAngle = 0x1p32;
Reduced reduce_by_subtraction(Lane x) {
  constexpr double kHalfPiHigh = 0x1.921fb54442d18p+0, kHalfPiLow = 0x1.1a62633145c07p-54;
  const Lane wide = to_double(x);
  const Rounded n = round_by_shift(wide, 2 / std::numbers::pi, kDoubleShifter);
  const Lane high = n.number.fused(wide.constant(-kHalfPiHigh), wide);
  return {to_float(n.number.fused(wide.constant(-kHalfPiLow), high)),
          x.ir().CreateTrunc(n.integer, retyped(x, x.ir().getInt32Ty()))};
}

// Payne and Hanek, "Radian Reduction for Trigonometric Functions", 1983. |x| = m 2^q, m of 24 bits: of 2 / pi the bits
// that make multiples of 4 of it are left out, and of the 96 behind them the product has 64 that hold. Finite |x| >=
// 2^32.
Reduced reduce_by_digits(Lane x) {
  constexpr std::array<uint32_t, 7> kTwoOverPi{0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0,
                                               0xdb629599, 0x3c439041, 0xfe5163ab};
  llvm::IRBuilder<>& ir = x.ir();
  llvm::Value* bits = x.bits();
  llvm::Type *narrow = bits->getType(), *wide = retyped(x, ir.getInt64Ty());
  const auto number = [&](uint64_t n) { return llvm::ConstantInt::get(wide, n); };
  llvm::Value* mantissa = ir.CreateOr(ir.CreateAnd(bits, x.integer(0x7fffff)), x.integer(0x800000));
  // Digits left out: q - 2.
  llvm::Value* skipped = ir.CreateSub(ir.CreateAnd(ir.CreateLShr(bits, 23), x.integer(0xff)), x.integer(152));
  const auto has = [&](int64_t bit) { return ir.CreateICmpNE(ir.CreateAnd(skipped, x.integer(bit)), x.integer(0)); };
  llvm::Value *one_word = has(32), *two_words = has(64);
  std::array<llvm::Value*, 4> words;
  for (size_t i = 0; i < words.size(); ++i) {
    const auto either = [&](size_t k) {
      return ir.CreateSelect(one_word, x.integer(kTwoOverPi[k + 1]), x.integer(kTwoOverPi[k]));
    };
    words[i] = ir.CreateSelect(two_words, either(i + 2), either(i));
  }
  const auto product = [&](size_t i) {
    llvm::Value* digits = ir.CreateIntrinsic(llvm::Intrinsic::fshl, {narrow}, {words[i], words[i + 1], skipped});
    return ir.CreateMul(ir.CreateZExt(mantissa, wide), ir.CreateZExt(digits, wide));
  };
  llvm::Value* turns = ir.CreateAdd(ir.CreateShl(product(0), number(32)),
                                    ir.CreateAdd(product(1), ir.CreateLShr(product(2), number(32))));
  turns = ir.CreateSelect(ir.CreateICmpSLT(bits, x.integer(0)), ir.CreateNeg(turns), turns);
  llvm::Value* quadrant = ir.CreateLShr(ir.CreateAdd(turns, number(uint64_t{1} << 61)), number(62));
  llvm::Value* rest = ir.CreateSub(turns, ir.CreateShl(quadrant, number(62)));
  const Lane angle = x.with(ir.CreateSIToFP(rest, retyped(x, ir.getDoubleTy()))) * (std::numbers::pi / 2 * 0x1p-62);
  return {to_float(angle), ir.CreateTrunc(quadrant, narrow)};
}

// `ordinary`, but what `compute` gives where `rare` holds: behind a branch, as hardly ever any lane has it.
template <typename Compute>
std::vector<llvm::Value*> unless_rare(llvm::IRBuilder<>& ir, llvm::Value* rare,
                                      const std::vector<llvm::Value*>& ordinary, Compute&& compute) {
  llvm::Value* any = ir.CreateFreeze(rare->getType()->isVectorTy() ? ir.CreateOrReduce(rare) : rare);
  llvm::BasicBlock* before = ir.GetInsertBlock();
  const auto block = [&](const char* name) {
    return llvm::BasicBlock::Create(ir.getContext(), name, before->getParent());
  };
  llvm::BasicBlock *inside = block("rare"), *after = block("either");
  ir.CreateCondBr(any, inside, after, llvm::MDBuilder(ir.getContext()).createUnlikelyBranchWeights());
  ir.SetInsertPoint(inside);
  std::vector<llvm::Value*> values = compute();
  for (size_t i = 0; i < values.size(); ++i) values[i] = ir.CreateSelect(rare, values[i], ordinary[i]);
  ir.CreateBr(after);
  ir.SetInsertPoint(after);
  for (size_t i = 0; i < values.size(); ++i) {
    llvm::PHINode* phi = ir.CreatePHI(ordinary[i]->getType(), 2);
    phi->addIncoming(ordinary[i], before);
    phi->addIncoming(values[i], inside);
    values[i] = phi;
  }
  return values;
}

// By digits where an angle is huge.
Reduced reduce(Lane x) {
  llvm::IRBuilder<>& ir = x.ir();
  const Reduced plain = reduce_by_subtraction(x);
  const Lane a = magnitude(x);
  llvm::Value* huge = ir.CreateAnd(ir.CreateFCmpOGE(a.value(), a.constant(kHugeAngle).value()), a < kInfinity);
  const auto values = unless_rare(ir, huge, {plain.remainder.value(), plain.number}, [&] {
    const Reduced digits = reduce_by_digits(x);
    return std::vector{digits.remainder.value(), digits.number};
  });
  return {x.with(values[0]), values[1]};
}

Quadrant reduce_angle(Lane x) {
  llvm::IRBuilder<>& ir = x.ir();
  const auto [remainder, quadrant] = reduce(x);
  const auto sign = [&](llvm::Value* q) { return ir.CreateAnd(ir.CreateShl(q, x.integer(30)), x.integer(0x80000000)); };
  llvm::Value* odd = ir.CreateICmpNE(ir.CreateAnd(quadrant, x.integer(1)), x.integer(0));
  return {remainder, odd, sign(quadrant), sign(ir.CreateAdd(quadrant, x.integer(1)))};
}

// Minimax on [-pi/4, pi/4]: 2^-28 and 2^-33.
Lane sin_near_zero(Lane r) {
  constexpr std::array c{-0.166666545, 0.00833215606, -0.000195146323};
  const Lane square = r * r;
  return (polynomial(square, c) * square).fused(r, r);
}
Lane cos_near_zero(Lane r) {
  constexpr std::array c{0.0416666456, -0.00138873099, 2.44324129e-05};
  const Lane square = r * r;
  return (polynomial(square, c) * square).fused(square, square.fused(r.constant(-0.5), r.constant(1)));
}

}  // namespace

llvm::Constant* Lane::integer(int64_t number) const {
  const unsigned width = value_->getType()->getScalarSizeInBits();
  return llvm::ConstantInt::get(value_->getType()->getWithNewType(ir_->getIntNTy(width)),
                                static_cast<uint64_t>(number));
}

llvm::Value* Lane::bits() const {
  const unsigned width = value_->getType()->getScalarSizeInBits();
  return ir_->CreateBitCast(value_, value_->getType()->getWithNewType(ir_->getIntNTy(width)));
}

Lane Lane::fused(Lane factor, Lane addend) const {
  return with(ir_->CreateIntrinsic(llvm::Intrinsic::fma, {value_->getType()}, {value_, factor.value_, addend.value_}));
}

// e^x = 2^n 2^r, n = floor(x log2(e)) held to [-126, 126], so that r is in [0, 1) but for results that are subnormal or
// overflow: the GPU's 2^r has an error of 2^-22.5. As CUDA's expf: the sum with the shifter leaves n, biased as an
// exponent is, in the low bits, of which it keeps nine.
Lane emit_device_exp(Lane x) {
  constexpr double kRange = 252, kBias = 127, kLog2e = 0x1.715476p+0, kLog2eLow = std::numbers::log2e - kLog2e;
  const Lane share =
      each_lane(llvm::Intrinsic::nvvm_saturate_f, {x.fused(x.constant(std::numbers::log2e / kRange), x.constant(0.5))});
  const Lane shifted =
      each_lane(llvm::Intrinsic::nvvm_fma_rm_f, {share, x.constant(kRange), x.constant(kFloatShifter + 1)});
  const Lane n = shifted - (kFloatShifter + kBias);
  const Lane r = x.fused(x.constant(kLog2eLow), x.fused(x.constant(kLog2e), n * -1.0));
  const Lane power = each_lane(llvm::Intrinsic::nvvm_ex2_approx_ftz_f, {r});
  return x.from_bits(x.ir().CreateShl(shifted.bits(), x.integer(23))) * power;
}

// x = n ln 2 + r; e^r = 1 + r + r^2 P(r), minimax to 2^-28. 2^n is applied in two factors, so that results may be
// subnormal or overflow.
Lane emit_exp(Lane x) {
  if (x.device() == DeviceKind::cuda) return emit_device_exp(x);
  constexpr std::array c{0.50000001, 0.166665129, 0.0416661875, 0.00836959791, 0.00139517031};
  const Lane high = select(x > 89.0, x.constant(89), x), bounded = select(high < -104.0, x.constant(-104), high);
  const Rounded n = round_by_shift(bounded, std::numbers::log2e, kFloatShifter);
  const Lane r = n.number.fused(x.constant(-kLn2Low), n.number.fused(x.constant(-kLn2High), bounded));
  const Lane p = polynomial(r, c).fused(r * r, r) + 1.0;
  llvm::IRBuilder<>& ir = x.ir();
  llvm::Value* half = ir.CreateAShr(n.integer, x.integer(1));
  const auto power = [&](llvm::Value* k) {
    return x.from_bits(ir.CreateShl(ir.CreateAdd(k, x.integer(127)), x.integer(23)));
  };
  return p * power(half) * power(ir.CreateSub(n.integer, half));
}

Lane emit_exp_below(Lane x) { return each_lane(llvm::Intrinsic::nvvm_ex2_approx_ftz_f, {x * std::numbers::log2e}); }

// x = 2^n (1 + f), 1 + f in [sqrt(1/2), sqrt 2]; log(1 + f) = f - f^2 / 2 + f^3 Q(f), minimax to 2^-30.
Lane emit_log(Lane x) {
  constexpr std::array c{0.333333126,  -0.250000096, 0.200021185,  -0.166679959, 0.142195549,
                         -0.124055896, 0.118881451,  -0.116756402, 0.067466634};
  llvm::IRBuilder<>& ir = x.ir();
  llvm::Value* subnormal = x < 0x1p-126;
  const Lane normal = select(subnormal, x * 0x1p23, x);
  // Subtracting the bits of sqrt(1/2) makes the exponent field round at it.
  constexpr int64_t kRootHalf = 0x3f3504f3;
  llvm::Value* from_root = ir.CreateSub(normal.bits(), x.integer(kRootHalf));
  llvm::Value* exponent = ir.CreateAShr(from_root, x.integer(23));
  const Lane mantissa = x.from_bits(ir.CreateAdd(ir.CreateAnd(from_root, x.integer(0x7fffff)), x.integer(kRootHalf)));
  Lane n = x.with(ir.CreateSIToFP(exponent, x.value()->getType()));
  n = n - select(subnormal, x.constant(23), x.constant(0));
  const Lane f = mantissa - 1.0, square = f * f;
  const Lane tail = (polynomial(f, c) * f).fused(square, n * kLn2Low);
  const Lane result = n.fused(x.constant(kLn2High), square.fused(x.constant(-0.5), tail) + f);
  const Lane nan = x.constant(std::numeric_limits<double>::quiet_NaN());
  const Lane finite = select(x == kInfinity, x, select(is_nan(x), x, result));
  return select(x == 0.0, x.constant(-kInfinity), select(x < 0.0, nan, finite));
}

Lane emit_sin(Lane x) {
  const Quadrant q = reduce_angle(x);
  const Lane value = select(q.odd, cos_near_zero(q.remainder), sin_near_zero(q.remainder));
  return x.from_bits(x.ir().CreateXor(value.bits(), q.sin_sign));
}

Lane emit_cos(Lane x) {
  const Quadrant q = reduce_angle(x);
  const Lane value = select(q.odd, sin_near_zero(q.remainder), cos_near_zero(q.remainder));
  return x.from_bits(x.ir().CreateXor(value.bits(), q.cos_sign));
}

// |x| < 0.65: x + x^3 P(x^2), minimax to 2^-27; above 1 - 2 / (e^2|x| + 1).
Lane emit_tanh(Lane x) {
  constexpr std::array c{-0.333332598, 0.133308303, -0.0536880193, 0.0204694099, -0.00551515481};
  const Lane a = magnitude(x), square = x * x;
  const Lane small = (polynomial(square, c) * square).fused(x, x);
  const Lane large = 1.0 - reciprocal_of_large(emit_exp(a * 2.0) + 1.0) * 2.0;
  return select(a < 0.65, small, with_sign_of(large, x));
}

// |x| < 0.92: x + x P(x^2), minimax to 2^-30; above 1 - exp(-G(|x|)), G minimax on [0.9, 3.95] to 2^-34 of the result.
Lane emit_erf(Lane x) {
  constexpr std::array c{0.128379166,   -0.376126316,    0.11283664,    -0.0268577048,
                         0.00519695155, -0.000809769846, 8.18507597e-05};
  constexpr std::array g{-0.000169208486, 1.12948842,    0.633400815,     0.108220424,
                         -0.0250806434,   0.00415626536, -0.000431395764, 2.08288114e-05};
  const Lane a = magnitude(x);
  const Lane small = polynomial(x * x, c).fused(x, x);
  const Lane bounded = select(a > 3.95, x.constant(3.95), a);
  const Lane large = 1.0 - emit_exp(polynomial(bounded, g) * -1.0);
  return select(a < 0.92, small, with_sign_of(large, x));
}

Lane emit_logistic(Lane x) { return reciprocal_of_large(emit_exp(x * -1.0) + 1.0); }

// The tail beyond |x| is 2^G(|x|). G is minimax for the tail on [0, 6], to 2^-26, and falls for ever behind; where the
// host takes e^G, its coefficients are in units of log2(e).
Lane emit_normal_distribution(Lane x) {
  std::array g{-1.0,           -1.15110572,     -0.459202005,    -0.0525199081,
               0.00710457651,  -0.000173501035, -0.000169029285, 3.53616833e-05,
               -2.46718202e-06};
  const bool device = x.device() == DeviceKind::cuda;
  if (!device)
    for (double& c : g) c *= std::numbers::ln2;
  const Lane exponent = polynomial(magnitude(x), g);
  const Lane tail = device ? each_lane(llvm::Intrinsic::nvvm_ex2_approx_ftz_f, {exponent}) : emit_exp(exponent);
  return select(x < 0.0, tail, 1.0 - tail);
}

Lane emit_normal_density(Lane x) {
  constexpr double kMost = std::numbers::inv_sqrtpi / std::numbers::sqrt2;
  if (x.device() == DeviceKind::cpu) return emit_exp(x * x * -0.5) * kMost;
  return each_lane(llvm::Intrinsic::nvvm_ex2_approx_ftz_f, {x * x * (std::numbers::log2e * -0.5)}) * kMost;
}

// 2^(y log2 |x|) in double: log2 from the series of atanh(s), s = (m - 1) / (m + 1), and 2^f from that of exp, both to
// below 2^-35 of the result. Special cases as in C.
Lane emit_pow(Lane x, Lane y) {
  llvm::IRBuilder<>& ir = x.ir();
  const Lane wide = to_double(magnitude(x));
  constexpr int64_t kRootHalf = 0x3fe6a09e667f3bcd;
  llvm::Value* from_root = ir.CreateSub(wide.bits(), wide.integer(kRootHalf));
  const Lane n = wide.with(ir.CreateSIToFP(ir.CreateAShr(from_root, wide.integer(52)), wide.value()->getType()));
  const Lane m =
      wide.from_bits(ir.CreateAdd(ir.CreateAnd(from_root, wide.integer(0xfffffffffffff)), wide.integer(kRootHalf)));
  const Lane s = (m - 1.0) / (m + 1.0);
  std::array<double, 8> log_series;
  for (size_t k = 0; k < log_series.size(); ++k)
    log_series[k] = 2 * std::numbers::log2e / static_cast<double>(2 * k + 1);
  const Lane log2 = polynomial(s * s, log_series).fused(s, n);

  const Lane product = log2 * to_double(y);
  const Lane high = select(product > 160.0, product.constant(160), product),
             bounded = select(high < -160.0, product.constant(-160), high);
  const Rounded whole = round_by_shift(bounded, 1, kDoubleShifter);
  std::array<double, 11> exp_series;
  double term = 1;
  for (size_t k = 0; k < exp_series.size(); ++k) {
    exp_series[k] = term;
    term *= std::numbers::ln2 / static_cast<double>(k + 1);
  }
  const Lane scale = wide.from_bits(ir.CreateShl(ir.CreateAdd(whole.integer, wide.integer(1023)), wide.integer(52)));
  const Lane power = to_float(polynomial(bounded - whole.number, exp_series) * scale);

  const auto is_integer = [&](Lane v) { return ir.CreateFCmpOEQ(unary(llvm::Intrinsic::trunc, v).value(), v.value()); };
  llvm::Value* whole_y = is_integer(y);
  llvm::Value* odd_y = ir.CreateAnd(whole_y, ir.CreateNot(is_integer(y * 0.5)));
  llvm::Value* negative = ir.CreateICmpSLT(x.bits(), x.integer(0));
  const Lane zero = x.constant(0), infinity = x.constant(kInfinity), one = x.constant(1);
  const Lane nan = x.constant(std::numeric_limits<double>::quiet_NaN());
  const Lane a = magnitude(x);
  Lane result = power;
  result = select(ir.CreateAnd(x < 0.0, ir.CreateNot(whole_y)), nan, result);
  // |x| or |y| infinite, x zero: the magnitude is 0, 1 or infinity.
  result = select(a == 0.0, select(y < 0.0, infinity, zero), result);
  result = select(a == kInfinity, select(y < 0.0, zero, infinity), result);
  llvm::Value* grows = ir.CreateXor(a > 1.0, y < 0.0);
  result = select(magnitude(y) == kInfinity, select(a == 1.0, one, select(grows, infinity, zero)), result);
  result = select(ir.CreateAnd(negative, odd_y), result * -1.0, result);
  result = select(ir.CreateOr(is_nan(x), is_nan(y)), nan, result);
  return select(ir.CreateOr(x == 1.0, y == 0.0), one, result);
}

// Long division in double: of |x| the largest multiples of |y| 2^k are taken away, k = 240, 192, ..., 0, as a quotient
// of two f32 is below 2^277. Each digit is below 2^48, so that its rounding makes it at most one too large; what is
// left is a multiple of the operands' units, and of so few of them that it is exact.
Lane emit_remainder(Lane x, Lane y) {
  constexpr int kDigit = 48, kDigits = 5;
  llvm::IRBuilder<>& ir = x.ir();
  const Lane a = to_double(magnitude(x)), b = to_double(magnitude(y));
  const auto without_multiples = [&](Lane rest, Lane of) {
    const Lane digit = unary(llvm::Intrinsic::floor, rest / of);
    const Lane less = (digit * -1.0).fused(of, rest);
    return select(less < 0.0, less + of, less);
  };
  llvm::Value* huge = ir.CreateFCmpOGE(a.value(), (b * std::ldexp(1, kDigit)).value());
  const auto begun = unless_rare(ir, huge, {a.value()}, [&] {
    Lane rest = a;
    for (int k = kDigits; k > 0; --k) rest = without_multiples(rest, b * std::ldexp(1, k * kDigit));
    return std::vector{rest.value()};
  });
  const Lane rest = with_sign_of(to_float(without_multiples(a.with(begun[0]), b)), x);
  // Nothing finite has a multiple of infinity.
  return select(ir.CreateAnd(magnitude(y) == kInfinity, magnitude(x) < kInfinity), x, rest);
}

}  // namespace halfstep
