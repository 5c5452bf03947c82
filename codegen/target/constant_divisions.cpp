#include "codegen/target/constant_divisions.h"

#include <llvm/ADT/STLExtras.h>
#include <llvm/Analysis/ValueTracking.h>
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/InstIterator.h>
#include <llvm/IR/Module.h>
#include <llvm/IR/PatternMatch.h>
#include <llvm/Support/KnownBits.h>

#include <algorithm>

namespace halfstep {
namespace {

// x, a number or a vector of 32 bits, over the divisor.
llvm::Value* quotient(llvm::IRBuilder<>& ir, llvm::Value* x, const DivisionProduct& product) {
  llvm::Type* wide = x->getType()->getWithNewBitWidth(64);
  llvm::Value* whole = ir.CreateMul(ir.CreateZExt(x, wide), llvm::ConstantInt::get(wide, product.factor));
  if (!product.beyond) return ir.CreateTrunc(ir.CreateLShr(whole, 32 + product.shift), x->getType());
  // (high + x) >> shift, whose sum may have 33 bits.
  llvm::Value* high = ir.CreateTrunc(ir.CreateLShr(whole, 32), x->getType());
  return ir.CreateLShr(ir.CreateAdd(ir.CreateLShr(ir.CreateSub(x, high), 1), high), product.shift - 1);
}

void replace(llvm::BinaryOperator& division, const llvm::APInt& divisor) {
  llvm::Value* x = division.getOperand(0);
  const unsigned width = x->getType()->getScalarSizeInBits();
  const unsigned bits = width - llvm::computeKnownBits(x, division.getDataLayout()).countMinLeadingZeros();
  if ((width != 32 && width != 64) || bits > 32 || divisor.getActiveBits() > 32) return;
  const DivisionProduct product = division_product(static_cast<uint32_t>(divisor.getZExtValue()), bits);
  llvm::IRBuilder<> ir(&division);
  llvm::Value* result = quotient(ir, ir.CreateTrunc(x, x->getType()->getWithNewBitWidth(32)), product);
  result = ir.CreateZExt(result, x->getType());
  if (division.getOpcode() == llvm::Instruction::URem)
    result = ir.CreateSub(x, ir.CreateMul(result, division.getOperand(1)));
  division.replaceAllUsesWith(result);
  division.eraseFromParent();
}

}  // namespace

// Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994: the factor is 2^(32 + shift) /
// divisor, rounded up, if that is too much by so little that no x of these bits sees it.
DivisionProduct division_product(uint32_t divisor, unsigned bits) {
  for (unsigned shift = 1;; ++shift) {
    const unsigned __int128 power = static_cast<unsigned __int128>(1) << (32 + shift);
    const unsigned __int128 factor = (power + divisor - 1) / divisor;
    if (factor * divisor - power <= power >> bits) return {static_cast<uint32_t>(factor), shift, factor >> 32 != 0};
  }
}

void multiply_for_divisions(llvm::Module& module) {
  using namespace llvm::PatternMatch;
  for (llvm::Function& function : module)
    for (llvm::Instruction& instruction : llvm::make_early_inc_range(llvm::instructions(function))) {
      const llvm::APInt* divisor = nullptr;
      if (match(&instruction, m_CombineOr(m_UDiv(m_Value(), m_APInt(divisor)), m_URem(m_Value(), m_APInt(divisor)))) &&
          divisor->ugt(2) && !divisor->isPowerOf2())
        replace(llvm::cast<llvm::BinaryOperator>(instruction), *divisor);
    }
}

}  // namespace halfstep
