// Random numbers in kernels.
#include "codegen/emit/emit_expression.h"

namespace halfstep {

// base/philox.h on vectors: the words of the blocks `block`.
std::array<llvm::Value*, 4> ExpressionEmitter::emit_philox(const Expression& e, llvm::Value* block) {
  llvm::Type* narrow = block->getType()->getWithNewType(ir_.getInt32Ty());
  llvm::Type* wide = block->getType()->getWithNewType(ir_.getInt64Ty());
  const unsigned lanes = lanes_of(block);
  block = ir_.CreateZExtOrTrunc(block, wide);
  const auto low = [&](llvm::Value* v) { return ir_.CreateTrunc(v, narrow); };
  const auto high = [&](llvm::Value* v) { return low(ir_.CreateLShr(v, llvm::ConstantInt::get(wide, 32))); };
  const auto spread = [&](llvm::Value* v) { return splat(ir_, v, lanes); };
  llvm::Value *seed = emit(e.operands[0]), *step = emit(e.operands[1]);
  llvm::Value* c0 = low(block);
  llvm::Value* c1 = high(block);
  llvm::Value* c2 = llvm::ConstantInt::get(narrow, static_cast<uint32_t>(e.id));
  llvm::Value* c3 = spread(step);
  llvm::Value* k0 = ir_.CreateTrunc(seed, ir_.getInt32Ty());
  llvm::Value* k1 = ir_.CreateTrunc(ir_.CreateLShr(seed, 32), ir_.getInt32Ty());
  const auto product = [&](llvm::Value* c, uint64_t factor) {
    return ir_.CreateMul(ir_.CreateZExt(c, wide), llvm::ConstantInt::get(wide, factor));
  };
  for (int round = 0; round < 10; ++round) {
    llvm::Value *p0 = product(c0, 0xD2511F53u), *p1 = product(c2, 0xCD9E8D57u);
    llvm::Value* n0 = ir_.CreateXor(ir_.CreateXor(high(p1), c1), spread(k0));
    llvm::Value* n2 = ir_.CreateXor(ir_.CreateXor(high(p0), c3), spread(k1));
    c0 = n0, c1 = low(p1), c2 = n2, c3 = low(p0);
    k0 = ir_.CreateAdd(k0, ir_.getInt32(0x9E3779B9u));
    k1 = ir_.CreateAdd(k1, ir_.getInt32(0xBB67AE85u));
  }
  return {c0, c1, c2, c3};
}

// Lanes that start at a multiple of four take all words of a block each four; else each lane one of its own block's.
llvm::Value* ExpressionEmitter::emit_uniform(const Expression& e) {
  constexpr unsigned kWords = 4;
  const LaneIndex at = emit_index(e.index);
  const auto quarter = [&](llvm::Value* v) { return ir_.CreateUDiv(v, llvm::ConstantInt::get(v->getType(), kWords)); };
  llvm::Value* word = nullptr;
  if (!at.each && at.step == 1 && config_.lanes % kWords == 0 &&
      kernel_.space.multiple(e.index, config_.variable, config_.lanes) % kWords == 0) {
    const unsigned blocks = config_.lanes / kWords;
    llvm::Value* block = splat(ir_, quarter(at.base), blocks);
    if (blocks > 1) block = ir_.CreateAdd(block, lane_numbers(blocks));
    const auto words = emit_philox(e, block);
    word = llvm::PoisonValue::get(llvm::FixedVectorType::get(ir_.getInt32Ty(), config_.lanes));
    for (unsigned i = 0; i < config_.lanes; ++i) {
      llvm::Value* one = words[i % kWords];
      word = ir_.CreateInsertElement(word, blocks > 1 ? ir_.CreateExtractElement(one, i / kWords) : one, i);
    }
  } else {
    llvm::Value* position = at.uniform() ? at.base : lane_values(at);
    const auto words = emit_philox(e, quarter(position));
    const auto bit = [&](uint64_t b) {
      llvm::Value* masked = ir_.CreateAnd(position, llvm::ConstantInt::get(position->getType(), b));
      return ir_.CreateICmpNE(masked, llvm::ConstantInt::get(position->getType(), 0));
    };
    llvm::Value *odd = bit(1), *upper = bit(2);
    word =
        ir_.CreateSelect(upper, ir_.CreateSelect(odd, words[3], words[2]), ir_.CreateSelect(odd, words[1], words[0]));
  }
  llvm::Value* bits = ir_.CreateLShr(word, llvm::ConstantInt::get(word->getType(), 8));
  llvm::Type* single = word->getType()->getWithNewType(ir_.getFloatTy());
  return ir_.CreateFMul(ir_.CreateUIToFP(bits, single), llvm::ConstantFP::get(single, 0x1p-24));
}

}  // namespace halfstep
