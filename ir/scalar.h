// Scalar arithmetic over an unknown carrier: a pointwise op states its meaning once, as a body over Scalars. The
// interpreter evaluates it on doubles, the kernel emitter turns it into LLVM instructions.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace halfstep {

enum class ScalarOp : uint8_t {
  // clang-format off
  negate, absolute, square_root, exponential, logarithm, sine, cosine, hyperbolic_tangent, error_function,
  logistic, normal_distribution, normal_density,
  round_down, round_up, round_even, logical_not,                                                             // one operand
  add, subtract, multiply, divide, power, maximum, minimum, equal, less, less_equal, logical_and, logical_or,  // two
  remainder  // two; exact and of the first's sign, as fmod
  // clang-format on
};

class ScalarArithmetic;

// maximum and minimum return NaN if either operand is NaN.
struct Scalar {
  ScalarArithmetic* arithmetic = nullptr;
  double number = 0;       // the interpreter's carrier
  void* handle = nullptr;  // the emitter's carrier
};

class ScalarArithmetic {
 public:
  virtual ~ScalarArithmetic() = default;
  virtual Scalar constant(double value) = 0;
  virtual Scalar unary(ScalarOp op, Scalar x) = 0;
  virtual Scalar binary(ScalarOp op, Scalar x, Scalar y) = 0;
  virtual Scalar select(Scalar condition, Scalar if_true, Scalar if_false) = 0;
  virtual Scalar convert(DType to, Scalar x) = 0;
};

inline Scalar operator-(Scalar x) { return x.arithmetic->unary(ScalarOp::negate, x); }
inline Scalar operator!(Scalar x) { return x.arithmetic->unary(ScalarOp::logical_not, x); }
inline Scalar operator+(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::add, x, y); }
inline Scalar operator-(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::subtract, x, y); }
inline Scalar operator*(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::multiply, x, y); }
inline Scalar operator/(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::divide, x, y); }
inline Scalar operator==(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::equal, x, y); }
inline Scalar operator<(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::less, x, y); }
inline Scalar operator<=(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::less_equal, x, y); }
inline Scalar operator&(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::logical_and, x, y); }
inline Scalar operator|(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::logical_or, x, y); }
inline Scalar operator+(Scalar x, double y) { return x + x.arithmetic->constant(y); }
inline Scalar operator-(Scalar x, double y) { return x - x.arithmetic->constant(y); }
inline Scalar operator*(Scalar x, double y) { return x * x.arithmetic->constant(y); }
inline Scalar operator/(Scalar x, double y) { return x / x.arithmetic->constant(y); }
inline Scalar operator<(Scalar x, double y) { return x < x.arithmetic->constant(y); }
inline Scalar operator-(double x, Scalar y) { return y.arithmetic->constant(x) - y; }
inline Scalar operator/(double x, Scalar y) { return y.arithmetic->constant(x) / y; }

inline Scalar max(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::maximum, x, y); }
inline Scalar min(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::minimum, x, y); }
inline Scalar pow(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::power, x, y); }
inline Scalar fmod(Scalar x, Scalar y) { return x.arithmetic->binary(ScalarOp::remainder, x, y); }
inline Scalar abs(Scalar x) { return x.arithmetic->unary(ScalarOp::absolute, x); }
inline Scalar sqrt(Scalar x) { return x.arithmetic->unary(ScalarOp::square_root, x); }
inline Scalar exp(Scalar x) { return x.arithmetic->unary(ScalarOp::exponential, x); }
inline Scalar log(Scalar x) { return x.arithmetic->unary(ScalarOp::logarithm, x); }
inline Scalar sin(Scalar x) { return x.arithmetic->unary(ScalarOp::sine, x); }
inline Scalar cos(Scalar x) { return x.arithmetic->unary(ScalarOp::cosine, x); }
inline Scalar tanh(Scalar x) { return x.arithmetic->unary(ScalarOp::hyperbolic_tangent, x); }
inline Scalar erf(Scalar x) { return x.arithmetic->unary(ScalarOp::error_function, x); }
inline Scalar logistic(Scalar x) { return x.arithmetic->unary(ScalarOp::logistic, x); }
inline Scalar normal_cdf(Scalar x) { return x.arithmetic->unary(ScalarOp::normal_distribution, x); }
inline Scalar normal_density(Scalar x) { return x.arithmetic->unary(ScalarOp::normal_density, x); }
inline Scalar floor(Scalar x) { return x.arithmetic->unary(ScalarOp::round_down, x); }
inline Scalar ceil(Scalar x) { return x.arithmetic->unary(ScalarOp::round_up, x); }
inline Scalar round_even(Scalar x) { return x.arithmetic->unary(ScalarOp::round_even, x); }
inline Scalar select(Scalar c, Scalar t, Scalar f) { return c.arithmetic->select(c, t, f); }
inline Scalar convert(DType to, Scalar x) { return x.arithmetic->convert(to, x); }

}  // namespace halfstep
