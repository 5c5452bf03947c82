// GPU schedules: one vector of lanes a thread and step, sized for 16-byte accesses.
#include <llvm/IR/InlineAsm.h>
#include <llvm/IR/IntrinsicsNVPTX.h>
#include <llvm/IR/Module.h>

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "codegen/emit/device_shape.h"
#include "codegen/emit/emit_kernel.h"
#include "codegen/kernel/columns_tile.h"

namespace halfstep {
namespace {

constexpr unsigned kShared = 3, kGlobal = 1;  // address spaces
constexpr int64_t kPointwiseBlock = 256, kRowsBlock = 128, kScatterBlock = 128;
constexpr int64_t kVectorBytes = 16;                   // of a long row, kept
constexpr int64_t kLooks = 8;                          // of a scatter
constexpr int64_t kManyLoads = 4;                      // of each position
constexpr int64_t kBlocksOfColumns = 4;                // a processor: ptxas has registers for the loads that come first
constexpr int64_t kSharedBytes = 32 * 1024;            // at most, for combining columns
constexpr int64_t kThreadsOfSteps = int64_t{1} << 19;  // at least, where a thread does several vectors: two waves
constexpr int64_t kSharingSteps = 4, kPlainSteps = 2;

class DeviceKernel {
 public:
  DeviceKernel(llvm::Module& module, const Kernel& kernel, const std::string& name)
      : module_(module), kernel_(kernel), ir_(module.getContext()), lane_(kernel.lane_variable()) {
    const std::vector<ArgumentUse> uses = argument_uses(kernel);
    function_ = declare_kernel(module, kernel, name, uses, kGlobal, {});
    function_->setCallingConv(llvm::CallingConv::PTX_Kernel);
    ir_.SetInsertPoint(llvm::BasicBlock::Create(module.getContext(), "entry", function_));
    lanes_ = choose_lanes(kernel);
    index_type_ = fits_32_bits(kernel) ? ir_.getInt32Ty() : ir_.getInt64Ty();
    LaneConfig config{DeviceKind::cuda, lane_, lanes_, index_type_};
    config.rare_equalities =
        kernel.form == Kernel::Form::rows && lanes_ > 1 && row_shape(kernel, lanes_).threads > kWarp;
    config.long_rows = config.rare_equalities && !row_shape(kernel, lanes_).cached;
    emitter_ = make_emitter(ir_, kernel, config, argument_pointers(module, kernel, function_, kGlobal), uses);
  }

  LaunchShape emit() {
    LaunchShape shape;
    switch (kernel_.form) {
      case Kernel::Form::pointwise:
        shape = pointwise();
        break;
      case Kernel::Form::rows:
        shape = rows();
        break;
      case Kernel::Form::columns:
        shape = columns();
        break;
      case Kernel::Form::scatter:
        shape = scatter();
        break;
    }
    ir_.CreateRetVoid();
    const auto annotate = [&](const char* name, int64_t n) {
      llvm::LLVMContext& context = module_.getContext();
      llvm::Metadata* number = llvm::ConstantAsMetadata::get(ir_.getInt32(static_cast<uint32_t>(n)));
      module_.getOrInsertNamedMetadata("nvvm.annotations")
          ->addOperand(llvm::MDNode::get(
              context, {llvm::ConstantAsMetadata::get(function_), llvm::MDString::get(context, name), number}));
    };
    annotate("maxntidx", shape.block);
    if (shape.resident > 1) annotate("minctasm", shape.resident);
    return shape;
  }

 private:
  ExpressionEmitter& e() { return *emitter_; }
  llvm::Value* constant(int64_t v) { return e().index(v); }
  llvm::Value* special(llvm::Intrinsic::ID id) {
    return ir_.CreateZExtOrTrunc(ir_.CreateIntrinsic(id, {}, {}), index_type_);
  }
  llvm::Value* thread() { return special(llvm::Intrinsic::nvvm_read_ptx_sreg_tid_x); }
  llvm::Value* block() { return special(llvm::Intrinsic::nvvm_read_ptx_sreg_ctaid_x); }
  void barrier() { ir_.CreateIntrinsic(llvm::Intrinsic::nvvm_barrier0, {}, {}); }
  int64_t vectors(const std::vector<AtomId>& variables) const {
    return std::max<int64_t>(kernel_.points(variables) / lanes_, 1);
  }

  LaunchShape pointwise();
  int64_t shared_row() const;
  int64_t pointwise_steps(int64_t count, int64_t row) const;
  LaunchShape rows();
  LaunchShape columns();
  LaunchShape scatter();

  // enter(position) and body(carried, counts) at begin, begin + step, ... before end, of which there are at most
  // `most`. Several steps stand together, all entered before the first one's body, so that they do not wait for each
  // other's loads; one whose `counts` is false is past the end and at some other position.
  using Enter = std::function<void(llvm::Value* position)>;
  using Body = std::function<Values(const Values& carried, llvm::Value* counts)>;
  Values strided_loop(llvm::Value* begin, llvm::Value* end, int64_t step, int64_t most, Values carried,
                      const Enter& enter, const Body& body);

  // One thread's share of a row: step i works on vector i * threads + number of those the row has.
  struct Row : RowShape {
    int64_t plain = 0;              // of these first vectors the lane variable is below every limit it is compared with
    llvm::Value* number = nullptr;  // of the thread in its row
    llvm::Value* end = nullptr;     // vectors of this row
    llvm::Value* begin = nullptr;   // first vector, counted over the whole reduced extent
    int64_t most_kept = 0;          // whole steps over vectors that shared memory has from the first pass on
    llvm::Value* kept = nullptr;    // those it has room for
  };
  int64_t plain_vectors(const RowShape& row) const;
  ExpressionId kept_load() const;
  void keep(Row& row);
  enum class Pass : uint8_t { first, later };
  Values row_pass(const Row& row, Pass pass, Values carried, const Body& body);
  Values own_results(const std::vector<size_t>& reductions, const Values& sums);
  Values combine_row(const Row& row, const std::vector<size_t>& reductions, Values sums);
  Values combine_columns(const std::vector<size_t>& reductions, Values sums, int64_t width, int64_t block);
  llvm::Value* shuffle(llvm::Value* value, int64_t distance);
  llvm::GlobalVariable* shared(DType dtype, int64_t count);

  llvm::Module& module_;
  const Kernel& kernel_;
  llvm::IRBuilder<> ir_;
  AtomId lane_;
  llvm::Function* function_ = nullptr;
  unsigned lanes_ = 1;
  llvm::IntegerType* index_type_ = nullptr;
  std::unique_ptr<ExpressionEmitter> emitter_;
  std::vector<std::unordered_map<ExpressionId, llvm::Value*>> cached_steps_;  // what each step of a cached row knows
};

// A thread does several vectors, whole rows apart: what depends on the lane variable alone, as a channel's scale, is
// loaded once for all of them, and their own loads stand before the first store.
LaunchShape DeviceKernel::pointwise() {
  const int64_t count = vectors(kernel_.kept), row = shared_row(), steps = pointwise_steps(count, row);
  LaunchShape shape;
  shape.block = count >= kEnoughThreads ? kPointwiseBlock : kRowsBlock;
  const int64_t stride = row * ceil_div(shape.block, row), group = steps * stride;
  shape.grid[0] = ceil_div(ceil_div(count, group) * stride, shape.block);
  llvm::Value *number = block(), *offset = thread();  // of the group, and of the vector in its first stride
  if (stride != shape.block) {
    llvm::Value* at = ir_.CreateAdd(ir_.CreateMul(number, constant(shape.block)), offset);
    number = ir_.CreateUDiv(at, constant(stride)), offset = ir_.CreateURem(at, constant(stride));
  }
  llvm::Value* first = ir_.CreateAdd(ir_.CreateMul(number, constant(group)), offset);
  const bool exact = count % group == 0;
  e().when(exact && stride == shape.block ? nullptr : ir_.CreateICmpSLT(first, constant(count)), [&] {
    std::vector<AtomId> outer = kernel_.kept;
    if (row > 1) {
      outer.pop_back();
      e().bind(lane_, ir_.CreateMul(ir_.CreateURem(offset, constant(row)), constant(lanes_)));
      e().hoist_stores(Store::Domain::kept, variables_of(kernel_, outer));
    }
    const ExpressionEmitter::Scope shared = e().scope();
    std::vector<std::pair<ExpressionEmitter::Scope, llvm::Value*>> done;
    for (int64_t i = 0; i < steps; ++i) {
      llvm::Value *position = ir_.CreateAdd(first, constant(i * stride)), *exists = nullptr;
      if (i > 0 && !exact) {
        exists = ir_.CreateICmpSLT(position, constant(count));
        position = ir_.CreateSelect(exists, position, first);
      }
      e().bind_linear(outer, row > 1 ? ir_.CreateUDiv(position, constant(row)) : position);
      if (steps > 1) e().hoist_stores(Store::Domain::kept, 0);
      done.emplace_back(e().scope(), exists);
      e().restore(shared);
    }
    for (auto& [scope, exists] : done) {
      e().restore(std::move(scope));
      e().when(exists, [&] { e().emit_stores(Store::Domain::kept); });
    }
  });
  return shape;
}

// Vectors along the lane variable, where something is loaded that depends on it alone, so that rows share it; else 1.
int64_t DeviceKernel::shared_row() const {
  if (lane_ < 0 || kernel_.kept.size() < 2 || kernel_.kept.back() != lane_ || kernel_.together > 1) return 1;
  const VariableSet lane = kernel_.space.atom(lane_).variables;
  for (ExpressionId id = 0; id < kernel_.expressions.size(); ++id)
    if (kernel_.expressions[id].kind == Expression::Kind::load && kernel_.expressions.variables(id) == lane)
      return kernel_.extent(lane_) / lanes_;
  return 1;
}

int64_t DeviceKernel::pointwise_steps(int64_t count, int64_t row) const {
  if (kernel_.together > 1 || lanes_ == 1) return 1;
  const VariableSet shared = row > 1 ? kernel_.space.atom(lane_).variables : 0;
  // Many loads of one vector are enough in flight; a second one's registers would cost half the threads (AdamW).
  const int64_t most = row > 1 ? kSharingSteps : loads_along(kernel_, ~shared) >= kManyLoads ? 1 : kPlainSteps;
  return std::clamp<int64_t>(count / kThreadsOfSteps, 1, steps_together(kernel_, lanes_, ~shared, most));
}

Values DeviceKernel::strided_loop(llvm::Value* begin, llvm::Value* end, int64_t step, int64_t most, Values carried,
                                  const Enter& enter, const Body& body) {
  // Large blocks have fewer registers a thread, and more threads to load.
  const int64_t steps =
      steps_together(kernel_, lanes_, variables_of(kernel_, kernel_.reduced), step > kColumnsBlock ? 2 : 4);
  const int64_t together = steps * step;
  using Step = std::pair<llvm::Value*, llvm::Value*>;  // position, counts
  const auto run = [&](const std::vector<Step>& group, Values now) {
    const ExpressionEmitter::Scope before = e().scope();
    std::vector<ExpressionEmitter::Scope> entered;
    for (const auto& [position, counts] : group) {
      enter(position);
      entered.push_back(e().scope());
      e().restore(before);
    }
    for (size_t i = 0; i < group.size(); ++i) {
      e().restore(std::move(entered[i]));
      now = body(now, group[i].second);
    }
    e().restore(before);
    return now;
  };
  llvm::Value* rest = begin;
  if (most >= steps) {
    // Whole groups of the ceil((end - begin) / step) steps, none if that is negative.
    llvm::Value* length = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, ir_.CreateSub(end, begin), constant(0));
    llvm::Value* groups = ir_.CreateUDiv(ir_.CreateAdd(length, constant(step - 1)), constant(together));
    rest = ir_.CreateAdd(begin, ir_.CreateMul(groups, constant(together)));
    carried = e().loop(begin, rest, together, std::move(carried), [&](llvm::Value* position, const Values& now) {
      std::vector<Step> group;
      for (int64_t i = 0; i < steps; ++i) group.emplace_back(ir_.CreateAdd(position, constant(i * step)), nullptr);
      return run(group, now);
    });
  }
  if (steps == 1) return carried;
  return e().when(ir_.CreateICmpSLT(rest, end), carried, [&] {
    std::vector<Step> group{{rest, nullptr}};
    for (int64_t i = 1; i < std::min(steps - 1, most); ++i) {
      llvm::Value* position = ir_.CreateAdd(rest, constant(i * step));
      llvm::Value* counts = ir_.CreateICmpSLT(position, end);
      group.emplace_back(ir_.CreateSelect(counts, position, rest), counts);
    }
    return run(group, carried);
  });
}

Values DeviceKernel::row_pass(const Row& row, Pass pass, Values carried, const Body& body) {
  const bool first = pass == Pass::first;
  const auto bind = [&](llvm::Value* vector) { e().bind_linear(kernel_.reduced, ir_.CreateAdd(row.begin, vector)); };
  const auto bind_plain = [&](llvm::Value* vector) {
    bind(vector);
    if (row.plain > 0) e().limit_lanes(row.plain * lanes_);
  };
  if (!row.cached) {
    const int64_t plain = row.plain > 0 || !row.kept ? row.plain : row.vectors, rest = row.vectors - plain;
    llvm::Value* begin = row.number;
    if (row.kept) {
      const auto bind_kept = [&](llvm::Value* vector) {
        bind_plain(vector);
        if (!first) return e().read_kept();
        e().emit(kept_load());  // several of the loads in flight
      };
      const Body keeping = [&](const Values& now, llvm::Value* counts) {
        e().write_kept();
        return body(now, counts);
      };
      carried = strided_loop(begin, row.kept, row.threads, row.most_kept / row.threads, std::move(carried), bind_kept,
                             first ? keeping : body);
      begin = ir_.CreateAdd(begin, row.kept);
    }
    if (plain > 0)
      carried = strided_loop(begin, constant(plain), row.threads, ceil_div(plain, row.threads), std::move(carried),
                             bind_plain, body);
    if (rest == 0) return carried;
    return strided_loop(ir_.CreateAdd(row.number, constant(plain)), row.end, row.threads, ceil_div(rest, row.threads),
                        std::move(carried), bind, body);
  }
  const VariableSet reduced = variables_of(kernel_, kernel_.reduced);
  const int64_t steps = ceil_div(row.vectors, row.threads);
  cached_steps_.resize(static_cast<size_t>(steps));
  for (int64_t i = 0; i < steps; ++i) {
    llvm::Value* vector = ir_.CreateAdd(row.number, constant(i * row.threads));
    const bool certain = kernel_.chunk < 0 && (i + 1) * row.threads <= row.vectors;
    llvm::Value* counts = certain ? nullptr : ir_.CreateICmpSLT(vector, row.end);
    const ExpressionEmitter::Scope outer = e().scope();
    const bool plain = (i + 1) * row.threads <= row.plain;
    bind(certain ? vector : ir_.CreateSelect(counts, vector, constant(0)));
    if (plain) e().limit_lanes(row.plain * lanes_);
    auto inner = e().scope();
    inner.values.insert(cached_steps_[static_cast<size_t>(i)].begin(), cached_steps_[static_cast<size_t>(i)].end());
    e().restore(std::move(inner));
    carried = body(carried, counts);
    for (const auto& [id, value] : e().scope().values)
      if (kernel_.expressions.variables(id) & reduced) cached_steps_[static_cast<size_t>(i)][id] = value;
    e().restore(outer);
  }
  return carried;
}

// Vectors of which all lanes are below the greatest limit within the row that the lane variable is compared with, where
// these are most; else 0.
int64_t DeviceKernel::plain_vectors(const RowShape& row) const {
  if (kernel_.chunk >= 0 || kernel_.reduced.size() != 1) return 0;
  int64_t limit = 0;
  for (ExpressionId id = 0; id < kernel_.expressions.size(); ++id)
    if (const auto l = emitter_->lane_limit(kernel_.expressions[id]); l && *l < row.vectors * lanes_)
      limit = std::max(limit, *l);
  return limit / lanes_ < row.vectors / 2 ? 0 : limit / lanes_;
}

// The one load of a long row, if it brings whole vectors and is read again by later passes.
ExpressionId DeviceKernel::kept_load() const {
  ExpressionId found = kNoExpression;
  const VariableSet reduced = variables_of(kernel_, kernel_.reduced);
  for (ExpressionId id = 0; id < kernel_.expressions.size(); ++id) {
    const Expression& load = kernel_.expressions[id];
    if (load.kind != Expression::Kind::load || !(kernel_.expressions.variables(id) & reduced)) continue;
    if (found != kNoExpression || !load.operands.empty() || load.index.factor(lane_) != 1) return kNoExpression;
    for (const Index::Term& t : load.index.terms)
      if (t.atom != lane_ && (kernel_.space.atom(t.atom).variables & reduced)) return kNoExpression;
    if (size_of(kernel_.arguments[static_cast<size_t>(load.id)].type.dtype) * lanes_ != kVectorBytes)
      return kNoExpression;
    found = id;
  }
  return found;
}

// Shared memory that a launch gives beyond what the kernel names has the row's first steps, as many as fit.
void DeviceKernel::keep(Row& row) {
  const bool again = phase_count(kernel_) > 1 || std::ranges::any_of(kernel_.stores, [](const Store& s) {
                       return s.domain == Store::Domain::full;
                     });
  if (kernel_.chunk >= 0 || kernel_.reduced.size() != 1 || !again || kept_load() == kNoExpression) return;
  const int64_t steps = (row.plain > 0 ? row.plain : row.vectors) / row.threads;
  row.most_kept = steps * row.threads;
  constexpr const char* kName = "kept_row";
  llvm::GlobalVariable* memory = module_.getNamedGlobal(kName);
  if (!memory) {
    llvm::Type* type = llvm::ArrayType::get(ir_.getInt8Ty(), 0);
    memory = new llvm::GlobalVariable(module_, type, false, llvm::GlobalValue::ExternalLinkage, nullptr, kName, nullptr,
                                      llvm::GlobalValue::NotThreadLocal, kShared);
    memory->setAlignment(llvm::Align(kVectorBytes));
  }
  e().keep(kept_load(), memory);
  auto* size = llvm::InlineAsm::get(llvm::FunctionType::get(ir_.getInt32Ty(), false), "mov.u32 $0, %dynamic_smem_size;",
                                    "=r", false);
  llvm::Value* room = ir_.CreateUDiv(ir_.CreateCall(size), ir_.getInt32(row.threads * kVectorBytes));
  room = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::umin, room, ir_.getInt32(steps));
  row.kept = ir_.CreateZExtOrTrunc(ir_.CreateMul(room, ir_.getInt32(row.threads)), index_type_);
}

// The value of the thread whose number differs in the bit `distance`.
llvm::Value* DeviceKernel::shuffle(llvm::Value* value, int64_t distance) {
  llvm::Type* type = value->getType();
  if (type->isVectorTy()) {
    llvm::Value* result = llvm::PoisonValue::get(type);
    for (unsigned i = 0; i < lanes_of(value); ++i)
      result = ir_.CreateInsertElement(result, shuffle(ir_.CreateExtractElement(value, i), distance), i);
    return result;
  }
  const auto exchange = [&](llvm::Value* v) {
    const auto id =
        v->getType()->isFloatTy() ? llvm::Intrinsic::nvvm_shfl_sync_bfly_f32 : llvm::Intrinsic::nvvm_shfl_sync_bfly_i32;
    return ir_.CreateIntrinsic(id, {},
                               {ir_.getInt32(~0u), v, ir_.getInt32(static_cast<uint32_t>(distance)), ir_.getInt32(31)});
  };
  if (type->isFloatTy() || type->isIntegerTy(32)) return exchange(value);
  if (type->getScalarSizeInBits() < 32) return ir_.CreateTrunc(exchange(ir_.CreateZExt(value, ir_.getInt32Ty())), type);
  llvm::Value* bits = ir_.CreateBitCast(value, ir_.getInt64Ty());
  llvm::Value* low = exchange(ir_.CreateTrunc(bits, ir_.getInt32Ty()));
  llvm::Value* high = exchange(ir_.CreateTrunc(ir_.CreateLShr(bits, 32), ir_.getInt32Ty()));
  bits = ir_.CreateOr(ir_.CreateZExt(low, ir_.getInt64Ty()), ir_.CreateShl(ir_.CreateZExt(high, ir_.getInt64Ty()), 32));
  return ir_.CreateBitCast(bits, type);
}

llvm::GlobalVariable* DeviceKernel::shared(DType dtype, int64_t count) {
  llvm::Type* type =
      llvm::ArrayType::get(stored_type(module_.getContext(), dtype, 1, DeviceKind::cuda), static_cast<uint64_t>(count));
  auto* global =
      new llvm::GlobalVariable(module_, type, false, llvm::GlobalValue::InternalLinkage, llvm::UndefValue::get(type),
                               function_->getName() + "_shared", nullptr, llvm::GlobalValue::NotThreadLocal, kShared);
  global->setAlignment(llvm::Align(16));
  return global;
}

// The lanes of each, together.
Values DeviceKernel::own_results(const std::vector<size_t>& reductions, const Values& sums) {
  Values own;
  for (size_t i = 0; i < sums.size(); ++i) {
    const Reduction& r = kernel_.reductions[reductions[i]];
    llvm::Value* result = combine_lanes(e(), r, sums[i]);
    if (const auto low = e().low_extremum(r)) result = e().scalars().from_stored(*low, result);
    own.push_back(result);
  }
  return own;
}

// Every thread of the row gets the same result: the threads of a warp, then the warps.
Values DeviceKernel::combine_row(const Row& row, const std::vector<size_t>& reductions, Values sums) {
  const auto reduction = [&](size_t i) -> const Reduction& { return kernel_.reductions[reductions[i]]; };
  const auto across = [&](size_t i, llvm::Value* v, int64_t threads) {
    for (int64_t distance = threads / 2; distance > 0; distance /= 2)
      v = e().scalars().binary(reduction(i).combine, reduction(i).dtype, v, shuffle(v, distance));
    return v;
  };
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = across(i, sums[i], std::min(row.threads, kWarp));
  if (row.threads <= kWarp) return sums;
  const int64_t warps = row.threads / kWarp;
  llvm::Value* warp = ir_.CreateUDiv(row.number, constant(kWarp));
  llvm::Value* lane = ir_.CreateURem(row.number, constant(kWarp));
  const auto place = [&](llvm::GlobalVariable* global, llvm::Value* at) {
    return ir_.CreateGEP(global->getValueType(), global, {constant(0), at});
  };
  std::vector<llvm::GlobalVariable*> globals;
  for (size_t i = 0; i < sums.size(); ++i) globals.push_back(shared(reduction(i).dtype, warps));
  e().when(ir_.CreateICmpEQ(lane, constant(0)), [&] {
    for (size_t i = 0; i < sums.size(); ++i)
      ir_.CreateStore(e().scalars().to_stored(reduction(i).dtype, sums[i]), place(globals[i], warp));
  });
  barrier();
  llvm::Value* mine = ir_.CreateURem(lane, constant(warps));
  for (size_t i = 0; i < sums.size(); ++i) {
    llvm::Type* type = stored_type(module_.getContext(), reduction(i).dtype, 1, DeviceKind::cuda);
    llvm::Value* v = e().scalars().from_stored(reduction(i).dtype, ir_.CreateLoad(type, place(globals[i], mine)));
    sums[i] = across(i, v, warps);
  }
  return sums;
}

LaunchShape DeviceKernel::rows() {
  const int64_t count = kernel_.points(kernel_.kept), all = vectors(kernel_.reduced);
  const bool split = kernel_.chunk >= 0;
  Row row{row_shape(kernel_, lanes_)};
  row.plain = plain_vectors(row);
  LaunchShape shape;
  shape.block = std::max(kRowsBlock, row.threads);
  const int64_t rows_per_block = row.threads > kWarp ? 1 : shape.block / row.threads;
  if (row.threads > kWarp) shape.block = row.threads;
  if (!row.cached) shape.resident = kBlocksOfLongRows;
  shape.grid[0] = ceil_div(count, rows_per_block);

  row.number = rows_per_block == 1 ? thread() : ir_.CreateURem(thread(), constant(row.threads));
  llvm::Value* position = block();
  llvm::Value* valid = nullptr;
  if (rows_per_block > 1) {
    position = ir_.CreateAdd(ir_.CreateMul(position, constant(rows_per_block)),
                             ir_.CreateUDiv(thread(), constant(row.threads)));
    // Threads beyond the last row go along with it, for the shuffles, and store nothing.
    if (count % rows_per_block != 0) {
      valid = ir_.CreateICmpSLT(position, constant(count));
      position = ir_.CreateSelect(valid, position, constant(0));
    }
  }
  e().bind_linear(kernel_.kept, position);
  row.begin = constant(0);
  row.end = constant(row.vectors);
  if (split) {
    row.begin = ir_.CreateMul(e().scope().variables.at(kernel_.chunk), constant(row.vectors));
    row.end = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, row.end, ir_.CreateSub(constant(all), row.begin));
  }

  if (!row.cached) keep(row);
  if (row.kept) shape.shared = row.most_kept * kVectorBytes;

  const VariableSet reduced = variables_of(kernel_, kernel_.reduced);
  for (int phase = 0; phase < phase_count(kernel_); ++phase) {
    const std::vector<size_t> reductions = reductions_of_phase(kernel_, phase);
    e().hoist(operands_of(kernel_, reductions), reduced);
    const Values sums = row_pass(
        row, phase == 0 ? Pass::first : Pass::later, initial_accumulators(e(), kernel_, reductions, lanes_),
        [&](const Values& now, llvm::Value* counts) { return accumulate(e(), kernel_, reductions, now, counts); });
    const Values own = own_results(reductions, sums), all_threads = combine_row(row, reductions, own);
    for (size_t i = 0; i < reductions.size(); ++i) {
      e().bind_reduction(reductions[i], all_threads[i]);
      const Reduction& r = kernel_.reductions[reductions[i]];
      if (e().config().long_rows && r.combine != ScalarOp::add)
        e().bind_met(reductions[i], e().scalars().binary(ScalarOp::equal, r.dtype, own[i], all_threads[i]));
    }
  }
  e().hoist_stores(Store::Domain::full, reduced);
  e().when(valid, [&] {
    if (std::any_of(kernel_.stores.begin(), kernel_.stores.end(),
                    [](const Store& s) { return s.domain == Store::Domain::full; }))
      row_pass(row, Pass::later, {}, [&](const Values&, llvm::Value* counts) {
        e().when(counts, [&] { e().emit_stores(Store::Domain::full); });
        return Values{};
      });
    e().when(ir_.CreateICmpEQ(row.number, constant(0)), [&] { e().emit_stores(Store::Domain::kept); });
  });
  return shape;
}

// A warp is 32 vectors along the lane variable. Its threads look at 32 steps at once, and at kLooks times 32 before
// they wait for what they see; then all of them take the steps whose condition holds, in order.
LaunchShape DeviceKernel::scatter() {
  std::vector<AtomId> outer = kernel_.kept;
  outer.pop_back();
  const AtomId step = kernel_.reduced.front();
  const int64_t steps = kernel_.extent(step), lane_vectors = kernel_.extent(lane_) / lanes_;
  const int64_t tiles = ceil_div(lane_vectors, kWarp), warps = kernel_.points(outer) * tiles;
  LaunchShape shape;
  shape.block = kScatterBlock;
  shape.grid[0] = ceil_div(warps, shape.block / kWarp);
  llvm::Value *number = ir_.CreateURem(thread(), constant(kWarp)),
              *warp = ir_.CreateAdd(ir_.CreateMul(block(), constant(shape.block / kWarp)),
                                    ir_.CreateUDiv(thread(), constant(kWarp)));
  e().when(warps % (shape.block / kWarp) == 0 ? nullptr : ir_.CreateICmpSLT(warp, constant(warps)), [&] {
    llvm::Value* vector = number;
    if (tiles > 1)
      vector = ir_.CreateAdd(ir_.CreateMul(ir_.CreateURem(warp, constant(tiles)), constant(kWarp)), number);
    llvm::Value* valid = nullptr;
    if (lane_vectors % kWarp != 0) {
      valid = ir_.CreateICmpSLT(vector, constant(lane_vectors));
      vector = ir_.CreateSelect(valid, vector, constant(0));
    }
    e().bind(lane_, ir_.CreateMul(vector, constant(lanes_)));
    e().bind_linear(outer, ir_.CreateUDiv(warp, constant(tiles)));
    const VariableSet walked = kernel_.space.atom(step).variables;
    e().hoist({&kernel_.condition, 1}, walked);
    // What is stored reads what earlier steps stored, also where its place is the same for all steps: it stays inside.
    const int64_t looks = std::min(kLooks, ceil_div(steps, kWarp));
    e().loop(constant(0), constant(steps), kWarp * looks, {}, [&](llvm::Value* first, const Values&) {
      Values masks, begins;
      for (int64_t i = 0; i < looks; ++i) {
        begins.push_back(ir_.CreateAdd(first, constant(i * kWarp)));
        llvm::Value* mine = ir_.CreateAdd(begins.back(), number);
        llvm::Value* exists = ir_.CreateICmpSLT(mine, constant(steps));
        const ExpressionEmitter::Scope before = e().scope();
        e().bind(step, ir_.CreateSelect(exists, mine, constant(0)));
        llvm::Value* taken = ir_.CreateAnd(e().emit(kernel_.condition), exists);
        e().restore(before);
        masks.push_back(ir_.CreateIntrinsic(llvm::Intrinsic::nvvm_vote_ballot_sync, {}, {ir_.getInt32(~0u), taken}));
      }
      for (size_t i = 0; i < masks.size(); ++i) {
        llvm::Value* taken = ir_.CreateUnaryIntrinsic(llvm::Intrinsic::ctpop, masks[i]);
        llvm::Value* count = ir_.CreateZExtOrTrunc(taken, index_type_);
        e().loop(constant(0), count, 1, {masks[i]}, [&](llvm::Value*, const Values& left) {
          llvm::Value* bit = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::cttz, left[0], ir_.getFalse());
          e().bind(step, ir_.CreateAdd(begins[i], ir_.CreateZExtOrTrunc(bit, index_type_)));
          e().when(valid, [&] { e().emit_stores(Store::Domain::kept); });
          return Values{ir_.CreateAnd(left[0], ir_.CreateSub(left[0], ir_.getInt32(1)))};
        });
      }
      return Values{};
    });
  });
  return shape;
}

// Threads are a grid of `width` vectors along the lane variable by `height` reduced positions.
LaunchShape DeviceKernel::columns() {
  std::vector<AtomId> outer = kernel_.kept;
  outer.pop_back();
  const int64_t lane_vectors = kernel_.extent(lane_) / lanes_;
  const int64_t width = columns_width(lane_vectors, kernel_.points(outer));
  const std::vector<size_t> reductions = reductions_of_phase(kernel_, 0);
  int64_t bytes = 0;  // of shared memory for a warp
  for (size_t r : reductions) bytes += size_of(kernel_.reductions[r].dtype) * lanes_ * width;
  LaunchShape shape;
  shape.block = kColumnsBlock;
  while (shape.block > kWarp && shape.block / kWarp * bytes > kSharedBytes) shape.block /= 2;
  const int64_t height = shape.block / width, tiles = ceil_div(lane_vectors, width);
  shape.grid[0] = tiles * kernel_.points(outer);

  llvm::Value *x = ir_.CreateURem(thread(), constant(width)), *y = ir_.CreateUDiv(thread(), constant(width));
  llvm::Value* vector = x;
  if (tiles > 1) vector = ir_.CreateAdd(ir_.CreateMul(ir_.CreateURem(block(), constant(tiles)), constant(width)), x);
  llvm::Value* valid = nullptr;
  if (lane_vectors % width != 0) {
    valid = ir_.CreateICmpSLT(vector, constant(lane_vectors));
    vector = ir_.CreateSelect(valid, vector, constant(0));
  }
  e().bind(lane_, ir_.CreateMul(vector, constant(lanes_)));
  e().bind_linear(outer, ir_.CreateUDiv(block(), constant(tiles)));

  const int64_t positions = kernel_.points(kernel_.reduced);
  int64_t length = positions;
  llvm::Value *begin = y, *end = constant(positions);
  if (kernel_.chunk >= 0) {
    length = kernel_.chunk_length;
    llvm::Value* first = ir_.CreateMul(e().scope().variables.at(kernel_.chunk), constant(kernel_.chunk_length));
    begin = ir_.CreateAdd(first, y);
    end = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, ir_.CreateAdd(first, constant(kernel_.chunk_length)), end);
  }
  const VariableSet reduced = variables_of(kernel_, kernel_.reduced);
  e().hoist(operands_of(kernel_, reductions), reduced);
  const bool stores_full = std::any_of(kernel_.stores.begin(), kernel_.stores.end(),
                                       [](const Store& s) { return s.domain == Store::Domain::full; });
  if (stores_full) e().hoist_stores(Store::Domain::full, reduced);
  // What is stored may lie over an operand, so that no later load could come before it. Where little is loaded, the
  // registers of what is computed ahead would cost more threads than that is worth: there the loads alone come first.
  const bool ahead = stores_full && kernel_.together == 1;
  const bool computes_first = ahead && loads_along(kernel_, reduced) >= kManyLoads;
  const bool loads_first = ahead && !computes_first && kernel_.folds.empty();
  if (loads_first && reductions.size() == 1 && shape.block == kColumnsBlock && !has_large_functions(kernel_))
    shape.resident = kBlocksOfColumns;
  const auto enter = [&](llvm::Value* position) {
    e().bind_linear(kernel_.reduced, position);
    if (computes_first) e().hoist(operands_of(kernel_, reductions), 0), e().hoist_stores(Store::Domain::full, 0);
    for (ExpressionId id = 0; loads_first && id < kernel_.expressions.size(); ++id)
      if (kernel_.expressions[id].kind == Expression::Kind::load && (kernel_.expressions.variables(id) & reduced))
        e().emit(id);
  };
  Values sums =
      strided_loop(begin, end, height, ceil_div(length, height), initial_accumulators(e(), kernel_, reductions, lanes_),
                   enter, [&](const Values& now, llvm::Value* counts) {
                     const Values next = accumulate(e(), kernel_, reductions, now, counts);
                     if (!stores_full) return next;
                     e().when(valid, [&] { e().when(counts, [&] { e().emit_stores(Store::Domain::full); }); });
                     return next;
                   });

  sums = combine_columns(reductions, std::move(sums), width, shape.block);
  for (size_t i = 0; i < reductions.size(); ++i) e().bind_reduction(reductions[i], sums[i]);
  e().when(valid, [&] { e().when(ir_.CreateICmpEQ(y, constant(0)), [&] { e().emit_stores(Store::Domain::kept); }); });
  return shape;
}

// The first `width` threads of a block get the results: the threads of a column within a warp, then the warps.
Values DeviceKernel::combine_columns(const std::vector<size_t>& reductions, Values sums, int64_t width, int64_t block) {
  const auto combine = [&](size_t i, llvm::Value* a, llvm::Value* b) {
    const Reduction& r = kernel_.reductions[reductions[i]];
    return e().scalars().binary(r.combine, r.dtype, a, b);
  };
  for (int64_t distance = width; distance < kWarp; distance *= 2)
    for (size_t i = 0; i < sums.size(); ++i) sums[i] = combine(i, sums[i], shuffle(sums[i], distance));
  const int64_t warps = block / kWarp;
  if (warps == 1) return sums;
  llvm::Value *warp = ir_.CreateUDiv(thread(), constant(kWarp)), *x = ir_.CreateURem(thread(), constant(kWarp));
  llvm::Value* row = ir_.CreateMul(warp, constant(width));
  const auto dtype = [&](size_t i) { return kernel_.reductions[reductions[i]].dtype; };
  std::vector<llvm::GlobalVariable*> globals;
  for (size_t i = 0; i < sums.size(); ++i) globals.push_back(shared(dtype(i), warps * width * lanes_));
  const auto place = [&](size_t i, int64_t distance) {
    llvm::Value* vector = ir_.CreateAdd(ir_.CreateAdd(row, x), constant(distance * width));
    return ir_.CreateGEP(globals[i]->getValueType(), globals[i],
                         {constant(0), ir_.CreateMul(vector, constant(lanes_))});
  };
  const auto put = [&](const Values& values) {
    for (size_t i = 0; i < values.size(); ++i)
      ir_.CreateStore(e().scalars().to_stored(dtype(i), values[i]), place(i, 0));
  };
  const auto get = [&](size_t i, int64_t distance) {
    llvm::Type* type = stored_type(module_.getContext(), dtype(i), lanes_, DeviceKind::cuda);
    return e().scalars().from_stored(dtype(i), ir_.CreateLoad(type, place(i, distance)));
  };
  llvm::Value* first = ir_.CreateICmpSLT(x, constant(width));
  e().when(first, [&] { put(sums); });
  barrier();
  // All warps' results are read at once, and summed in their order by the threads that go on.
  return e().when(ir_.CreateAnd(first, ir_.CreateICmpEQ(warp, constant(0))), sums, [&] {
    Values total;
    for (size_t i = 0; i < sums.size(); ++i) {
      total.push_back(get(i, 0));
      for (int64_t w = 1; w < warps; ++w) total[i] = combine(i, total[i], get(i, w));
    }
    return total;
  });
}

}  // namespace

LaunchShape emit_device_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name) {
  return DeviceKernel(module, kernel, name).emit();
}

}  // namespace halfstep
