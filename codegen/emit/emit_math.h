// Elementary functions of f32 as arithmetic on scalars or vectors, without calls: the same code on the host and on the
// GPU, but for the powers of two and reciprocals that a GPU has instructions for. Straight-line, but that sine,
// cosine and remainder end in another block, behind a branch for huge numbers. Errors are below 2.5 units in the last
// place, of the logistic function below 4 and those of the normal distribution and density below 2^-22; subnormals are
// kept, but as results of these three, which may be 0 there; infinities and NaN are.
#pragma once

#include <llvm/IR/IRBuilder.h>

#include "program/program.h"

namespace halfstep {

// An f32 value, or a vector of them, that builds instructions.
class Lane {
 public:
  Lane(llvm::IRBuilder<>& ir, llvm::Value* value, DeviceKind device) : ir_(&ir), value_(value), device_(device) {}

  llvm::Value* value() const { return value_; }
  llvm::IRBuilder<>& ir() const { return *ir_; }
  DeviceKind device() const { return device_; }
  Lane with(llvm::Value* value) const { return {*ir_, value, device_}; }
  // A constant of this value's type.
  Lane constant(double number) const { return with(llvm::ConstantFP::get(value_->getType(), number)); }
  llvm::Constant* integer(int64_t number) const;  // of as many bits and lanes
  llvm::Value* bits() const;                      // the value as integers
  Lane from_bits(llvm::Value* integers) const { return with(ir_->CreateBitCast(integers, value_->getType())); }
  Lane fused(Lane factor, Lane addend) const;  // this * factor + addend, rounded once

  friend Lane operator+(Lane a, Lane b) { return a.with(a.ir_->CreateFAdd(a.value_, b.value_)); }
  friend Lane operator-(Lane a, Lane b) { return a.with(a.ir_->CreateFSub(a.value_, b.value_)); }
  friend Lane operator*(Lane a, Lane b) { return a.with(a.ir_->CreateFMul(a.value_, b.value_)); }
  friend Lane operator/(Lane a, Lane b) { return a.with(a.ir_->CreateFDiv(a.value_, b.value_)); }
  friend Lane operator+(Lane a, double b) { return a + a.constant(b); }
  friend Lane operator-(Lane a, double b) { return a - a.constant(b); }
  friend Lane operator*(Lane a, double b) { return a * a.constant(b); }
  friend Lane operator-(double a, Lane b) { return b.constant(a) - b; }
  friend Lane operator/(double a, Lane b) { return b.constant(a) / b; }
  // Ordered comparisons: false on NaN.
  friend llvm::Value* operator<(Lane a, double b) { return a.ir_->CreateFCmpOLT(a.value_, a.constant(b).value_); }
  friend llvm::Value* operator>(Lane a, double b) { return a.ir_->CreateFCmpOGT(a.value_, a.constant(b).value_); }
  friend llvm::Value* operator==(Lane a, double b) { return a.ir_->CreateFCmpOEQ(a.value_, a.constant(b).value_); }

 private:
  llvm::IRBuilder<>* ir_;
  llvm::Value* value_;
  DeviceKind device_;
};

Lane emit_exp(Lane x);
// On the GPU, of x <= 0: the relative error is below |x| 2^-23.7 + 2^-22, and what is below 2^-126 is 0.
Lane emit_exp_below(Lane x);
Lane emit_log(Lane x);
Lane emit_sin(Lane x);
Lane emit_cos(Lane x);
Lane emit_tanh(Lane x);
Lane emit_erf(Lane x);
Lane emit_logistic(Lane x);  // 1 / (1 + e^-x); below f32's normal numbers it may be 0
Lane emit_normal_distribution(Lane x);
Lane emit_normal_density(Lane x);
Lane emit_pow(Lane x, Lane y);
Lane emit_remainder(Lane x, Lane y);  // exact, as fmod

}  // namespace halfstep
