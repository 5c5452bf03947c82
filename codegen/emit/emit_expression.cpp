#include "codegen/emit/emit_expression.h"

#include <llvm/Analysis/VectorUtils.h>
#include <llvm/IR/Intrinsics.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace halfstep {
namespace {

// Buffers and their pieces begin at multiples of this.
constexpr int64_t kArgumentAlignment = 16;
// Of a vector load on the GPU: below it, the lanes are loaded one by one anyway.
constexpr uint64_t kWorthwhileAlignment = 4;

llvm::SmallVector<int> lane_range(unsigned first, unsigned count) {
  llvm::SmallVector<int> lanes(count);
  std::iota(lanes.begin(), lanes.end(), static_cast<int>(first));
  return lanes;
}

// Whether the lanes are false whatever is computed: beyond the active ones, or in a padding whose width is known.
bool never(const llvm::Value* mask, unsigned first, unsigned lanes) {
  if (const auto* both = llvm::dyn_cast<llvm::BinaryOperator>(mask);
      both && both->getOpcode() == llvm::Instruction::And)
    return never(both->getOperand(0), first, lanes) || never(both->getOperand(1), first, lanes);
  const auto* constant = llvm::dyn_cast<llvm::Constant>(mask);
  for (unsigned i = first; constant && i < first + lanes; ++i) {
    const llvm::Constant* lane = constant->getAggregateElement(i);
    if (!lane || !lane->isNullValue()) return false;
  }
  return constant;
}

}  // namespace

ExpressionEmitter::ExpressionEmitter(llvm::IRBuilder<>& ir, const Kernel& kernel, LaneConfig config, Values arguments,
                                     std::vector<bool> read_only)
    : ir_(ir),
      kernel_(kernel),
      config_(config),
      arguments_(std::move(arguments)),
      read_only_(std::move(read_only)),
      scalars_(ir, config.device) {
  if (config.variable >= 0 && config.lanes > 1) lane_set_ = kernel.space.atom(config.variable).variables;
}

void ExpressionEmitter::bind_linear(const std::vector<AtomId>& variables, llvm::Value* linear) {
  for (size_t i = variables.size(); i-- > 0;) {
    const AtomId v = variables[i];
    const int64_t lanes = v == config_.variable ? config_.lanes : 1;
    llvm::Value* extent = index(kernel_.extent(v) / lanes);
    llvm::Value* position = i == 0 ? linear : ir_.CreateURem(linear, extent);
    bind(v, lanes == 1 ? position : ir_.CreateMul(position, index(lanes)));
    if (i > 0) linear = ir_.CreateUDiv(linear, extent);
  }
}

void ExpressionEmitter::bind_reduction(size_t reduction, llvm::Value* value) {
  for (ExpressionId id = 0; id < kernel_.expressions.size(); ++id) {
    const Expression& e = kernel_.expressions[id];
    if (e.kind == Expression::Kind::reduction && e.id == static_cast<int32_t>(reduction)) scope_.values[id] = value;
  }
}

void ExpressionEmitter::set_active(llvm::Value* count) {
  scope_.active_count = count;
  scope_.active = count ? ir_.CreateICmpSLT(lane_numbers(config_.lanes), splat(ir_, count, config_.lanes)) : nullptr;
}

llvm::Value* ExpressionEmitter::lane_numbers(unsigned count) {
  std::vector<llvm::Constant*> numbers;
  for (unsigned i = 0; i < count; ++i) numbers.push_back(llvm::ConstantInt::get(config_.index_type, i));
  return llvm::ConstantVector::get(numbers);
}

Values ExpressionEmitter::loop(llvm::Value* begin, llvm::Value* end, int64_t step, Values carried,
                               const LoopBody& body) {
  llvm::Function* function = ir_.GetInsertBlock()->getParent();
  llvm::BasicBlock* before = ir_.GetInsertBlock();
  const auto block = [&](const char* name) { return llvm::BasicBlock::Create(ir_.getContext(), name, function); };
  llvm::BasicBlock *head = block("loop"), *inside = block("body"), *after = block("done");
  ir_.CreateBr(head);
  ir_.SetInsertPoint(head);
  llvm::PHINode* position = ir_.CreatePHI(config_.index_type, 2);
  position->addIncoming(begin, before);
  std::vector<llvm::PHINode*> phis;
  Values current;
  for (llvm::Value* v : carried) {
    phis.push_back(ir_.CreatePHI(v->getType(), 2));
    phis.back()->addIncoming(v, before);
    current.push_back(phis.back());
  }
  ir_.CreateCondBr(ir_.CreateICmpSLT(position, end), inside, after);
  ir_.SetInsertPoint(inside);
  Scope outer = scope_;
  const Values next = body(position, current);
  restore(std::move(outer));
  position->addIncoming(ir_.CreateNSWAdd(position, index(step)), ir_.GetInsertBlock());
  for (size_t i = 0; i < phis.size(); ++i) phis[i]->addIncoming(next[i], ir_.GetInsertBlock());
  ir_.CreateBr(head);
  ir_.SetInsertPoint(after);
  return current;
}

Values ExpressionEmitter::when(llvm::Value* condition, const Values& otherwise, const std::function<Values()>& body) {
  if (!condition) return body();
  llvm::Function* function = ir_.GetInsertBlock()->getParent();
  llvm::BasicBlock* before = ir_.GetInsertBlock();
  llvm::BasicBlock* inside = llvm::BasicBlock::Create(ir_.getContext(), "then", function);
  llvm::BasicBlock* after = llvm::BasicBlock::Create(ir_.getContext(), "done", function);
  ir_.CreateCondBr(condition, inside, after);
  ir_.SetInsertPoint(inside);
  Scope outer = scope_;
  const Values values = body();
  restore(std::move(outer));
  inside = ir_.GetInsertBlock();
  ir_.CreateBr(after);
  ir_.SetInsertPoint(after);
  Values merged;
  for (size_t i = 0; i < values.size(); ++i) {
    llvm::PHINode* phi = ir_.CreatePHI(values[i]->getType(), 2);
    phi->addIncoming(otherwise[i], before);
    phi->addIncoming(values[i], inside);
    merged.push_back(phi);
  }
  return merged;
}

void ExpressionEmitter::when(llvm::Value* condition, const std::function<void()>& body) {
  when(condition, {}, [&] { return body(), Values{}; });
}

// Indices.

ExpressionEmitter::LaneIndex ExpressionEmitter::emit_index(const Index& affine) {
  LaneIndex sum{index(affine.offset), 0, nullptr};
  for (const Index::Term& t : affine.terms) {
    const LaneIndex atom = emit_atom(t.atom);
    const auto scaled = [&](llvm::Value* v) {
      return t.factor == 1 ? v : ir_.CreateMul(v, llvm::ConstantInt::getSigned(v->getType(), t.factor));
    };
    if (atom.each) {
      sum.each = sum.each ? ir_.CreateAdd(sum.each, scaled(atom.each)) : scaled(atom.each);
    } else {
      sum.base = ir_.CreateAdd(sum.base, scaled(atom.base));
      sum.step += t.factor * atom.step;
    }
  }
  if (sum.each) sum.each = ir_.CreateAdd(sum.each, lane_values({sum.base, sum.step, nullptr}));
  return sum;
}

llvm::Value* ExpressionEmitter::lane_values(const LaneIndex& at) {
  if (at.each) return at.each;
  if (config_.lanes == 1) return at.base;
  llvm::Value* base = splat(ir_, at.base, config_.lanes);
  if (at.step == 0) return base;
  llvm::Value* numbers = lane_numbers(config_.lanes);
  return ir_.CreateAdd(base, ir_.CreateMul(numbers, llvm::ConstantInt::getSigned(numbers->getType(), at.step)));
}

ExpressionEmitter::LaneIndex ExpressionEmitter::emit_atom(AtomId id) {
  const Atom& atom = kernel_.space.atom(id);
  switch (atom.kind) {
    case Atom::Kind::variable: {
      const auto bound = scope_.variables.find(id);
      require(bound != scope_.variables.end(), "a loop variable is used outside its loop");
      return {bound->second, id == config_.variable && config_.lanes > 1 ? 1 : 0, nullptr};
    }
    case Atom::Kind::value:
      return emit_value_atom(atom);
    default:
      return emit_division(atom);
  }
}

ExpressionEmitter::LaneIndex ExpressionEmitter::emit_division(const Atom& atom) {
  const bool quotient = atom.kind == Atom::Kind::quotient;
  const auto divide = [&](llvm::Value* v) {
    llvm::Constant* divisor = llvm::ConstantInt::getSigned(v->getType(), atom.divisor);
    return quotient ? ir_.CreateUDiv(v, divisor) : ir_.CreateURem(v, divisor);
  };
  const LaneIndex dividend = emit_index(atom.dividend);
  if (dividend.uniform()) return {divide(dividend.base), 0, nullptr};
  // Lanes that start at a multiple of their number do not cross a multiple of it.
  if (!dividend.each && dividend.step == 1 && atom.divisor % config_.lanes == 0 &&
      kernel_.space.multiple(atom.dividend, config_.variable, config_.lanes) % config_.lanes == 0)
    return {divide(dividend.base), quotient ? 0 : 1, nullptr};
  return {nullptr, 0, divide(lane_values(dividend))};
}

// An index from memory is clamped, so that no value of it reads outside its operand.
ExpressionEmitter::LaneIndex ExpressionEmitter::emit_value_atom(const Atom& atom) {
  llvm::Value* v = emit(atom.value);
  llvm::Type* type = v->getType();
  v = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, v, llvm::ConstantInt::get(type, 0));
  v = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, v,
                                llvm::ConstantInt::get(type, static_cast<uint64_t>(atom.limit - 1)));
  v = ir_.CreateSExtOrTrunc(v, type->getWithNewType(config_.index_type));
  if (v->getType()->isVectorTy()) return {nullptr, 0, v};
  return {v, 0, nullptr};
}

// Memory.

llvm::Value* ExpressionEmitter::pointer(int32_t argument, llvm::Value* position) {
  const DType dtype = kernel_.arguments[static_cast<size_t>(argument)].type.dtype;
  return ir_.CreateGEP(memory_type(dtype, 1), arguments_[static_cast<size_t>(argument)], position);
}

llvm::Align ExpressionEmitter::alignment(int32_t argument, const Index& at) const {
  const int64_t size = size_of(kernel_.arguments[static_cast<size_t>(argument)].type.dtype);
  const int64_t bytes = kernel_.space.multiple(at, config_.variable, config_.lanes) * size;
  return llvm::Align(static_cast<uint64_t>(std::gcd(bytes, kArgumentAlignment)));
}

llvm::Instruction* ExpressionEmitter::load(int32_t argument, llvm::Type* type, llvm::Value* position,
                                           llvm::Align align) {
  llvm::LoadInst* load = ir_.CreateAlignedLoad(type, pointer(argument, position), align);
  if (read_only_[static_cast<size_t>(argument)])
    load->setMetadata(llvm::LLVMContext::MD_invariant_load, llvm::MDNode::get(ir_.getContext(), {}));
  return load;
}

// A GPU loads 16 bytes at once. LLVM 19 splits wider loads itself, but crashes where the value is then made f64.
llvm::Value* ExpressionEmitter::load_pieces(int32_t argument, llvm::Value* position, llvm::Align align) {
  const DType dtype = kernel_.arguments[static_cast<size_t>(argument)].type.dtype;
  const auto size = static_cast<unsigned>(size_of(dtype));
  const unsigned lanes = std::min(config_.lanes, 16 / size);
  Values loads;
  for (unsigned first = 0; first < config_.lanes; first += lanes)
    loads.push_back(load(argument, memory_type(dtype, lanes), ir_.CreateAdd(position, index(first)),
                         llvm::commonAlignment(align, first * size)));
  return loads.size() == 1 ? loads[0] : llvm::concatenateVectors(ir_, loads);
}

unsigned ExpressionEmitter::lanes_of_piece(int32_t argument) const {
  const int64_t size = size_of(kernel_.arguments[static_cast<size_t>(argument)].type.dtype);
  return std::min(config_.lanes, config_.register_bytes / static_cast<unsigned>(size));
}

// LLVM 19 gives the halves of a masked access that it must split the wrong memory operands: lanes of one half read or
// write what belongs to others. So none is wider than a register. And where nobody asks for any lane of a load it takes
// the mask for undefined and reads without one, beyond what is mapped: so none is made whose lanes are all false.
std::vector<ExpressionEmitter::Piece> ExpressionEmitter::pieces(int32_t argument, llvm::Value* position,
                                                                llvm::Align align, llvm::Value* mask) {
  const auto size = static_cast<unsigned>(size_of(kernel_.arguments[static_cast<size_t>(argument)].type.dtype));
  const unsigned lanes = lanes_of_piece(argument);
  std::vector<Piece> result;
  for (unsigned first = 0; first < config_.lanes; first += lanes)
    if (!never(mask, first, lanes))
      result.push_back({pointer(argument, ir_.CreateAdd(position, index(first))),
                        ir_.CreateShuffleVector(mask, lane_range(first, lanes)), first, lanes,
                        llvm::commonAlignment(align, first * size)});
  return result;
}

llvm::Value* ExpressionEmitter::masked_load(int32_t argument, llvm::Value* position, llvm::Align align,
                                            llvm::Value* mask) {
  const DType dtype = kernel_.arguments[static_cast<size_t>(argument)].type.dtype;
  const unsigned lanes = lanes_of_piece(argument);
  llvm::Type* type = memory_type(dtype, lanes);
  llvm::Value* const nothing = llvm::Constant::getNullValue(type);
  Values loads(config_.lanes / lanes, nothing);
  for (const Piece& p : pieces(argument, position, align, mask))
    loads[p.first / lanes] = ir_.CreateMaskedLoad(type, p.pointer, p.align, p.mask, nothing);
  return loads.size() == 1 ? loads[0] : llvm::concatenateVectors(ir_, loads);
}

void ExpressionEmitter::masked_store(int32_t argument, llvm::Value* value, llvm::Value* position, llvm::Align align,
                                     llvm::Value* mask) {
  for (const Piece& p : pieces(argument, position, align, mask))
    ir_.CreateMaskedStore(ir_.CreateShuffleVector(value, lane_range(p.first, p.lanes)), p.pointer, p.align, p.mask);
}

llvm::Value* ExpressionEmitter::emit_load(const Expression& e) {
  const LaneIndex at = emit_index(e.index);
  llvm::Value* guard = e.operands.empty() ? nullptr : emit(e.operands[0]);
  const DType dtype = kernel_.arguments[static_cast<size_t>(e.id)].type.dtype;
  llvm::Value* raw = nullptr;
  if (at.uniform()) {
    llvm::Value* any = guard && guard->getType()->isVectorTy() ? ir_.CreateOrReduce(guard) : guard;
    llvm::Value* position = any ? ir_.CreateSelect(any, at.base, index(0)) : at.base;
    raw = load(e.id, memory_type(dtype, 1), position, llvm::Align(static_cast<uint64_t>(size_of(dtype))));
  } else {
    raw = load_lanes(e, at, guard);
  }
  if (guard && e.outside == Expression::zero) raw = zero_unless(guard, raw);
  return scalars_.from_stored(dtype, raw);
}

// In memory's types: of narrow ones a register holds several.
llvm::Value* ExpressionEmitter::zero_unless(llvm::Value* condition, llvm::Value* v) {
  llvm::Type* type = v->getType();
  const unsigned bits = lanes_of(v) * type->getScalarSizeInBits();
  if (condition->getType()->isVectorTy())
    v = splat(ir_, v, config_.lanes);
  else if (type->isVectorTy() && bits % 32 == 0)
    v = ir_.CreateBitCast(v, llvm::FixedVectorType::get(ir_.getInt32Ty(), bits / 32));
  v = ir_.CreateSelect(condition, v, llvm::Constant::getNullValue(v->getType()));
  return condition->getType()->isVectorTy() ? v : ir_.CreateBitCast(v, type);
}

llvm::Value* ExpressionEmitter::load_lanes(const Expression& e, const LaneIndex& at, llvm::Value* guard) {
  const bool each_guarded = guard && guard->getType()->isVectorTy();
  if (at.each || at.step != 1) return load_each(e, at, guard);
  const DType dtype = kernel_.arguments[static_cast<size_t>(e.id)].type.dtype;
  llvm::Type* type = memory_type(dtype, config_.lanes);
  const llvm::Align align = alignment(e.id, e.index);
  if (each_guarded && config_.device == DeviceKind::cuda) {
    if (align.value() < kWorthwhileAlignment) return load_each(e, at, guard);
    // Rarely are some lanes in range and others not.
    llvm::Value* all = ir_.CreateAndReduce(guard);
    const Values whole =
        when(all, {llvm::PoisonValue::get(type)}, [&] { return Values{load_pieces(e.id, at.base, align)}; });
    return when(ir_.CreateNot(all), whole, [&] { return Values{load_each(e, at, guard)}; })[0];
  }
  llvm::Value* mask = scope_.active;
  if (each_guarded) mask = mask ? ir_.CreateAnd(mask, guard) : guard;
  llvm::Value* position = guard && !each_guarded ? ir_.CreateSelect(guard, at.base, index(0)) : at.base;
  if (!mask && config_.device == DeviceKind::cuda) return load_pieces(e.id, position, align);
  if (!mask) return load(e.id, type, position, align);
  return masked_load(e.id, position, align, mask);
}

llvm::Value* ExpressionEmitter::load_each(const Expression& e, const LaneIndex& at, llvm::Value* guard) {
  const DType dtype = kernel_.arguments[static_cast<size_t>(e.id)].type.dtype;
  llvm::Value* result = llvm::PoisonValue::get(memory_type(dtype, config_.lanes));
  for (unsigned i = 0; i < config_.lanes; ++i) {
    llvm::Value* position = at.each ? ir_.CreateExtractElement(at.each, i)
                                    : ir_.CreateAdd(at.base, index(at.step * static_cast<int64_t>(i)));
    if (scope_.active_count)
      position = ir_.CreateSelect(ir_.CreateICmpSGT(scope_.active_count, index(i)), position, index(0));
    if (guard) {
      llvm::Value* here = guard->getType()->isVectorTy() ? ir_.CreateExtractElement(guard, i) : guard;
      position = ir_.CreateSelect(here, position, index(0));
    }
    llvm::Value* one = load(e.id, memory_type(dtype, 1), position, llvm::Align(static_cast<uint64_t>(size_of(dtype))));
    result = ir_.CreateInsertElement(result, one, i);
  }
  return result;
}

void ExpressionEmitter::emit_stores(Store::Domain domain) {
  // All values first: an output may lie over an operand that is read at the same index.
  Values values;
  for (const Store& s : kernel_.stores) values.push_back(s.domain == domain ? emit(s.value) : nullptr);
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i]) emit_store(kernel_.stores[i], values[i]);
}

void ExpressionEmitter::emit_store(const Store& s, llvm::Value* value) {
  const DType dtype = kernel_.arguments[static_cast<size_t>(s.argument)].type.dtype;
  const LaneIndex at = emit_index(s.index);
  const llvm::Align element(static_cast<uint64_t>(size_of(dtype)));
  if (at.uniform()) {
    require(!value->getType()->isVectorTy(), "lanes are stored at one place");
    ir_.CreateAlignedStore(scalars_.to_stored(dtype, value), pointer(s.argument, at.base), element);
    return;
  }
  value = scalars_.to_stored(dtype, splat(ir_, value, config_.lanes));
  llvm::Value* mask = scope_.active;
  if (!at.each && at.step == 1) {
    const llvm::Align align = alignment(s.argument, s.index);
    if (!mask) {
      ir_.CreateAlignedStore(value, pointer(s.argument, at.base), align);
      return;
    }
    masked_store(s.argument, value, at.base, align, mask);
    return;
  }
  llvm::Value* positions = lane_values(at);
  if (mask) {
    ir_.CreateMaskedScatter(value, pointer(s.argument, positions), element, mask);
    return;
  }
  for (unsigned i = 0; i < config_.lanes; ++i)
    ir_.CreateAlignedStore(ir_.CreateExtractElement(value, i),
                           pointer(s.argument, ir_.CreateExtractElement(positions, i)), element);
}

// Values.

llvm::Value* ExpressionEmitter::emit(ExpressionId id) {
  if (const auto known = scope_.values.find(id); known != scope_.values.end()) return known->second;
  llvm::Value* value = emit_new(id);
  scope_.values[id] = value;
  return value;
}

llvm::Value* ExpressionEmitter::emit_new(ExpressionId id) {
  const Expression& e = kernel_.expressions[id];
  switch (e.kind) {
    case Expression::Kind::constant:
      return scalars_.literal(e.dtype, e.number);
    case Expression::Kind::load: {
      if (id != kept_ || !scope_.reads_kept) return emit_load(e);
      const DType dtype = kernel_.arguments[static_cast<size_t>(e.id)].type.dtype;
      return scalars_.from_stored(
          dtype, ir_.CreateAlignedLoad(memory_type(dtype, config_.lanes), kept_place(), llvm::Align(16)));
    }
    case Expression::Kind::index: {
      const LaneIndex at = emit_index(e.index);
      llvm::Value* v = at.uniform() ? at.base : lane_values(at);
      llvm::Type* type = computed_type(ir_.getContext(), e.dtype, 1);
      return ir_.CreateSExtOrTrunc(v, v->getType()->getWithNewType(type));
    }
    case Expression::Kind::in_range:
      return emit_in_range(e);
    case Expression::Kind::primitive: {
      if (const auto limit = lane_limit(e); limit && scope_.lane_limit <= *limit) return ir_.getTrue();
      if (is_rare(id) && is_one_place(e)) {
        llvm::Value* place = splat(ir_, emit_place(e), config_.lanes);
        return ir_.CreateICmpEQ(place, ir_.CreateSExtOrTrunc(lane_numbers(config_.lanes), place->getType()));
      }
      const DType dtype = kernel_.expressions[e.operands[0]].dtype;
      llvm::Value* x = emit(e.operands[0]);
      return e.operands.size() == 1 ? scalars_.unary(e.op, dtype, x)
                                    : scalars_.binary(e.op, dtype, x, emit(e.operands[1]));
    }
    case Expression::Kind::select:
      return emit_select(e);
    case Expression::Kind::sum: {
      llvm::Value *sum = emit(e.operands[0]), *term = emit(e.operands[1]);
      return scalars_.accumulate(ScalarOp::add, e.dtype, sum, term);
    }
    case Expression::Kind::rounded:
      return scalars_.convert(DType::f32, e.stored, emit(e.operands[0]));
    case Expression::Kind::node: {
      if (llvm::Value* power = emit_exp_below_greatest(e)) return power;
      std::vector<DType> dtypes;
      Values operands;
      for (ExpressionId operand : e.operands) {
        dtypes.push_back(kernel_.expressions[operand].dtype);
        operands.push_back(emit(operand));
      }
      return scalars_.apply(*e.node, dtypes, operands);
    }
    case Expression::Kind::uniform:
      return emit_uniform(e);
    case Expression::Kind::fold:
      return emit_fold(e);
    case Expression::Kind::reduction:
    case Expression::Kind::carried:
      break;
  }
  throw InternalError("a value is used before its loop has computed it");
}

// The number below which the lane variable makes `e`, a comparison of it with a constant, true for all lanes.
std::optional<int64_t> ExpressionEmitter::lane_limit(const Expression& e) const {
  if (e.kind != Expression::Kind::primitive || e.op != ScalarOp::less) return {};
  const Expression &at = kernel_.expressions[e.operands[0]], &limit = kernel_.expressions[e.operands[1]];
  if (at.kind != Expression::Kind::index || limit.kind != Expression::Kind::constant) return {};
  if (at.index.terms.size() != 1 || at.index.factor(config_.variable) != 1) return {};
  constexpr double kExact = 0x1p53;
  if (!(std::abs(limit.number) < kExact)) return {};
  return static_cast<int64_t>(limit.number) - at.index.offset;
}

// A label's place, and the elements that are what the row was reduced to, such as its greatest one.
bool ExpressionEmitter::is_rare(ExpressionId condition) const {
  const Expression& e = kernel_.expressions[condition];
  if (!config_.rare_equalities || e.kind != Expression::Kind::primitive || e.op != ScalarOp::equal ||
      !varies(condition))
    return false;
  return is_one_place(e) || std::ranges::any_of(e.operands, [&](ExpressionId operand) {
           return kernel_.expressions.level(operand) > 0 && !varies(operand);
         });
}

// The number of the lane that is at the place of which `e` tells, if it is one.
llvm::Value* ExpressionEmitter::emit_place(const Expression& e) {
  llvm::Value *number = emit(e.operands[1]), *first = emit_index(kernel_.expressions[e.operands[0]].index).base;
  return ir_.CreateSub(number, ir_.CreateSExtOrTrunc(first, number->getType()));
}

llvm::Value* ExpressionEmitter::emit_any(ExpressionId condition) {
  const Expression& e = kernel_.expressions[condition];
  if (is_one_place(e)) {
    llvm::Value* place = emit_place(e);
    return ir_.CreateICmpULT(place, llvm::ConstantInt::get(place->getType(), config_.lanes));
  }
  return when(met(e), {ir_.getFalse()}, [&] {
    // One by one, as a GPU's comparisons do: LLVM would make a number of the lanes' bits.
    llvm::Value* lanes = emit(condition);
    if (!lanes->getType()->isVectorTy()) return Values{lanes};  // one for all, as of a quotient of the place
    llvm::Value* any = ir_.CreateExtractElement(lanes, uint64_t{0});
    for (unsigned i = 1; i < lanes_of(lanes); ++i) any = ir_.CreateOr(any, ir_.CreateExtractElement(lanes, i));
    return Values{any};
  })[0];
}

// Whether `e` tells which lane is at a place, if any.
bool ExpressionEmitter::is_one_place(const Expression& e) const {
  const Expression& at = kernel_.expressions[e.operands[0]];
  return at.kind == Expression::Kind::index && at.index.terms.size() == 1 && at.index.factor(config_.variable) == 1 &&
         !varies(e.operands[1]);
}

llvm::Value* ExpressionEmitter::emit_select(const Expression& e) {
  if (!is_rare(e.operands[0]) || !is_one_place(kernel_.expressions[e.operands[0]])) {
    llvm::Value *condition = emit(e.operands[0]), *if_true = emit(e.operands[1]);
    return scalars_.select(condition, if_true, emit(e.operands[2]));
  }
  llvm::Value* usual = emit_lanes(e.operands[2]);
  return when(emit_any(e.operands[0]), {usual},
              [&] { return Values{scalars_.select(emit(e.operands[0]), emit(e.operands[1]), usual)}; })[0];
}

// Whether all lanes are in the range or none is: they start at a multiple of their number, and so do the range and what
// follows it.
bool ExpressionEmitter::one_side(const Expression& e, const LaneIndex& at) const {
  const int64_t lanes = config_.lanes;
  return !at.each && at.step == 1 && e.low % lanes == 0 && e.high % lanes == 0 && e.high > e.low &&
         kernel_.space.multiple(e.index, config_.variable, lanes) % lanes == 0;
}

llvm::Value* ExpressionEmitter::emit_in_range(const Expression& e) {
  const LaneIndex at = emit_index(e.index);
  llvm::Value* v = at.uniform() || one_side(e, at) ? at.base : lane_values(at);
  const auto number = [&](int64_t n) { return llvm::ConstantInt::getSigned(v->getType(), n); };
  return ir_.CreateICmpULT(ir_.CreateSub(v, number(e.low)), number(e.high - e.low));
}

llvm::Value* ExpressionEmitter::emit_fold(const Expression& e) {
  const Fold& fold = kernel_.folds[static_cast<size_t>(e.id)];
  VariableSet own = 0;
  for (AtomId v : fold.variables) own |= kernel_.space.atom(v).variables;
  hoist(fold.next, own);
  std::vector<ExpressionId> carried_ids(fold.next.size(), kNoExpression), result_ids(fold.next.size(), kNoExpression);
  for (ExpressionId id = 0; id < kernel_.expressions.size(); ++id) {
    const Expression& slot = kernel_.expressions[id];
    if (slot.id != e.id) continue;
    if (slot.kind == Expression::Kind::carried) carried_ids[static_cast<size_t>(slot.slot)] = id;
    if (slot.kind == Expression::Kind::fold) result_ids[static_cast<size_t>(slot.slot)] = id;
  }
  const auto widened = [&](size_t i, llvm::Value* v) {
    return varies(result_ids[i]) ? splat(ir_, v, config_.lanes) : v;
  };
  Values initial;
  for (size_t i = 0; i < fold.initial.size(); ++i) initial.push_back(widened(i, emit(fold.initial[i])));
  const Values results = loop(index(0), index(kernel_.points(fold.variables)), 1, initial,
                              [&](llvm::Value* position, const Values& carried) {
                                bind_linear(fold.variables, position);
                                for (size_t i = 0; i < carried.size(); ++i) scope_.values[carried_ids[i]] = carried[i];
                                Values next;
                                for (size_t i = 0; i < carried.size(); ++i)
                                  next.push_back(widened(i, emit(fold.next[i])));
                                return next;
                              });
  for (size_t i = 0; i < results.size(); ++i) scope_.values[result_ids[i]] = results[i];
  return results[static_cast<size_t>(e.slot)];
}

void ExpressionEmitter::hoist(std::span<const ExpressionId> expressions, VariableSet variables) {
  for (const Fold& fold : kernel_.folds)
    for (AtomId v : fold.variables)
      if (!scope_.variables.count(v)) variables |= kernel_.space.atom(v).variables;
  std::vector<ExpressionId> stack(expressions.begin(), expressions.end());
  std::vector<char> seen(static_cast<size_t>(kernel_.expressions.size()), 0);
  const auto visit = [&](ExpressionId id) {
    if (!std::exchange(seen[static_cast<size_t>(id)], 1)) stack.push_back(id);
  };
  while (!stack.empty()) {
    const ExpressionId id = stack.back();
    stack.pop_back();
    const Expression& e = kernel_.expressions[id];
    if ((kernel_.expressions.variables(id) & variables) == 0) {
      if (e.kind != Expression::Kind::constant) emit(id);
      continue;
    }
    for (ExpressionId operand : e.operands) visit(operand);
    if (e.kind == Expression::Kind::fold)
      for (const auto* list :
           {&kernel_.folds[static_cast<size_t>(e.id)].initial, &kernel_.folds[static_cast<size_t>(e.id)].next})
        for (ExpressionId inner : *list) visit(inner);
  }
}

void ExpressionEmitter::hoist_stores(Store::Domain domain, VariableSet variables) {
  std::vector<ExpressionId> values;
  for (const Store& s : kernel_.stores)
    if (s.domain == domain) values.push_back(s.value);
  hoist(values, variables);
}

}  // namespace halfstep
