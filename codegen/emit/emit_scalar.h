// Scalar bodies as LLVM instructions, on single values or vectors of lanes.
#pragma once

#include <llvm/IR/IRBuilder.h>

#include <deque>

#include "ir/op.h"
#include "ir/scalar.h"
#include "program/program.h"

namespace halfstep {

// The LLVM type of `lanes` values as they are computed: f16 and bf16 as float, bool as i1.
llvm::Type* computed_type(llvm::LLVMContext& context, DType dtype, unsigned lanes);
// In memory bool is i8; on the host, where they have no masked accesses of their own, f16 and bf16 are i16.
llvm::Type* stored_type(llvm::LLVMContext& context, DType dtype, unsigned lanes, DeviceKind device);
unsigned lanes_of(const llvm::Value* value);  // 1 for a scalar
// A vector of `lanes` from a scalar; a vector stays as it is.
llvm::Value* splat(llvm::IRBuilder<>& ir, llvm::Value* value, unsigned lanes);

// Operands of different widths are widened to the wider.
class ScalarEmitter final : public ScalarArithmetic {
 public:
  ScalarEmitter(llvm::IRBuilder<>& ir, DeviceKind device) : ir_(ir), device_(device) {}

  Scalar constant(double value) override;
  Scalar unary(ScalarOp op, Scalar x) override;
  Scalar binary(ScalarOp op, Scalar x, Scalar y) override;
  Scalar select(Scalar condition, Scalar if_true, Scalar if_false) override;
  Scalar convert(DType to, Scalar x) override;

  // The same on LLVM values of computed types.
  llvm::Value* literal(DType dtype, double value);
  llvm::Value* unary(ScalarOp op, DType dtype, llvm::Value* x);
  llvm::Value* binary(ScalarOp op, DType dtype, llvm::Value* x, llvm::Value* y);
  // `binary` for reductions: a product is added without being rounded. Not for other sums, where equal expressions must
  // give equal values.
  llvm::Value* accumulate(ScalarOp op, DType dtype, llvm::Value* x, llvm::Value* y);
  llvm::Value* select(llvm::Value* condition, llvm::Value* if_true, llvm::Value* if_false);
  llvm::Value* convert(DType from, DType to, llvm::Value* x);
  llvm::Value* apply(const Node& node, std::span<const DType> dtypes, std::span<llvm::Value* const> operands);

  // Between memory and registers.
  llvm::Value* from_stored(DType dtype, llvm::Value* x);
  llvm::Value* to_stored(DType dtype, llvm::Value* x);

 private:
  // What a Scalar's handle points to. A literal takes the type of what it meets.
  struct Entry {
    llvm::Value* value = nullptr;
    DType dtype = DType::f32;
    double literal = 0;
    bool is_literal() const { return value == nullptr; }
  };
  Scalar wrap(Entry entry);
  Scalar wrap(llvm::Value* value, DType dtype) { return wrap(Entry{value, dtype, 0}); }
  static const Entry& entry(Scalar x) { return *static_cast<const Entry*>(x.handle); }
  llvm::Value* value_as(const Entry& e, DType dtype);
  void widen(llvm::Value*& x, llvm::Value*& y);
  llvm::Type* retyped(llvm::Value* x, llvm::Type* scalar) { return x->getType()->getWithNewType(scalar); }
  llvm::Value* integer_like(llvm::Value* x, int64_t number);

  llvm::Value* floating_unary(ScalarOp op, DType dtype, llvm::Value* x);
  llvm::Value* distribution(ScalarOp op, DType dtype, llvm::Value* x);
  llvm::Value* floating_binary(ScalarOp op, DType dtype, llvm::Value* x, llvm::Value* y);
  llvm::Value* integer_binary(ScalarOp op, DType dtype, llvm::Value* x, llvm::Value* y);
  llvm::Value* integer_divide(DType dtype, llvm::Value* x, llvm::Value* y);
  llvm::Value* extremum(ScalarOp op, llvm::Value* x, llvm::Value* y);
  llvm::Value* call_library(const char* function, std::span<llvm::Value* const> operands);
  llvm::Value* known_low(llvm::Type* type, llvm::Value* x);
  llvm::Value* narrow_on_device(DType low, llvm::Value* x);
  llvm::Value* saturate_integer(DType from, DType to, llvm::Value* x);

  llvm::IRBuilder<>& ir_;
  DeviceKind device_;
  std::deque<Entry> entries_;
};

}  // namespace halfstep
