// GPU schedules: one vector of lanes a thread and step, sized for 16-byte accesses.
#include <llvm/IR/IntrinsicsNVPTX.h>
#include <llvm/IR/Module.h>

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "codegen/emit/device_kernel.h"
#include "codegen/kernel/columns_tile.h"

namespace halfstep {
namespace {

constexpr int64_t kPointwiseBlock = 256, kRowsBlock = 128, kScatterBlock = 128;
constexpr int64_t kLooks = 8;                          // of a scatter
constexpr int64_t kManyLoads = 4;                      // of each position
constexpr int64_t kBlocksOfColumns = 4;                // a processor: ptxas has registers for the loads that come first
constexpr int64_t kSharedBytes = 32 * 1024;            // at most, for combining columns
constexpr int64_t kThreadsOfSteps = int64_t{1} << 19;  // at least, where a thread does several vectors: two waves
constexpr int64_t kSharingSteps = 4, kPlainSteps = 2;

}  // namespace

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
  auto* global = new llvm::GlobalVariable(module_, type, false, llvm::GlobalValue::InternalLinkage,
                                          llvm::UndefValue::get(type), function_->getName() + "_shared", nullptr,
                                          llvm::GlobalValue::NotThreadLocal, kSharedSpace);
  global->setAlignment(llvm::Align(16));
  return global;
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

LaunchShape emit_device_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name) {
  return DeviceKernel(module, kernel, name).emit();
}

}  // namespace halfstep
