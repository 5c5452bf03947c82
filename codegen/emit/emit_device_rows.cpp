// GPU schedules of rows: in registers, or over memory, of which a processor keeps what fits.
#include <llvm/IR/InlineAsm.h>
#include <llvm/IR/IntrinsicsNVPTX.h>
#include <llvm/IR/Module.h>

#include <algorithm>

#include "base/checked.h"
#include "codegen/emit/device_kernel.h"
#include "codegen/kernel/columns_tile.h"

namespace halfstep {
namespace {

constexpr int64_t kRowsBlock = 128;
constexpr int64_t kVectorBytes = 16;  // of a long row, kept

}  // namespace

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
                                      llvm::GlobalValue::NotThreadLocal, kSharedSpace);
    memory->setAlignment(llvm::Align(kVectorBytes));
  }
  e().keep(kept_load(), memory);
  auto* size = llvm::InlineAsm::get(llvm::FunctionType::get(ir_.getInt32Ty(), false), "mov.u32 $0, %dynamic_smem_size;",
                                    "=r", false);
  llvm::Value* room = ir_.CreateUDiv(ir_.CreateCall(size), ir_.getInt32(row.threads * kVectorBytes));
  room = ir_.CreateBinaryIntrinsic(llvm::Intrinsic::umin, room, ir_.getInt32(steps));
  row.kept = ir_.CreateZExtOrTrunc(ir_.CreateMul(room, ir_.getInt32(row.threads)), index_type_);
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
}  // namespace halfstep
