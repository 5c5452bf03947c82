// Host schedules: loops over units, vectors along the lane variable, masks for what is left of it.
#include <llvm/IR/Module.h>

#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "codegen/emit/emit_kernel.h"

namespace halfstep {
namespace {

// A unit of a long vector, and the least number of elements that a unit of short rows should have.
constexpr int64_t kBlock = 16384, kUnitElements = 2048;
constexpr int64_t kWantedUnits = 64;

// Lanes for a loop over `extent`: a number that divides it if there is a good one, else the last step is masked.
unsigned choose_lanes(int64_t extent, unsigned vector_floats, unsigned most) {
  for (unsigned lanes = most; lanes >= vector_floats / 2; lanes /= 2)
    if (extent % lanes == 0) return lanes;
  return static_cast<unsigned>(std::min<uint64_t>(most, std::bit_ceil(static_cast<uint64_t>(extent))));
}

class HostKernel {
 public:
  HostKernel(llvm::Module& module, const Kernel& kernel, const std::string& name, unsigned vector_floats)
      : kernel_(kernel), ir_(module.getContext()) {
    llvm::LLVMContext& context = module.getContext();
    llvm::Type* i64 = llvm::Type::getInt64Ty(context);
    const std::vector<ArgumentUse> uses = argument_uses(kernel);
    body_ = declare_kernel(module, kernel, name + ".body", uses, 0, {i64, i64});
    body_->setLinkage(llvm::GlobalValue::InternalLinkage);
    body_->addFnAttr(llvm::Attribute::NoInline);
    ir_.SetInsertPoint(llvm::BasicBlock::Create(context, "entry", body_));
    lane_ = kernel.lane_variable();
    if (lane_ >= 0) {
      lane_extent_ = kernel.extent(lane_);
      const unsigned most = vector_floats * (kernel.form == Kernel::Form::columns ? 4 : 2);
      lanes_ = choose_lanes(lane_extent_, vector_floats, most);
    }
    LaneConfig config{DeviceKind::cpu, lane_, lanes_, llvm::Type::getInt64Ty(context),
                      vector_floats * static_cast<unsigned>(sizeof(float))};
    emitter_ = make_emitter(ir_, kernel, config, argument_pointers(module, kernel, body_, 0), uses);
    begin_ = body_->getArg(body_->arg_size() - 2);
    end_ = body_->getArg(body_->arg_size() - 1);
    emit_entry(module, name);
  }

  LaunchShape emit() {
    LaunchShape shape;
    switch (kernel_.form) {
      case Kernel::Form::pointwise:
        shape.units = pointwise();
        break;
      case Kernel::Form::rows:
        shape.units = rows();
        break;
      case Kernel::Form::columns:
        shape.units = columns();
        break;
      case Kernel::Form::scatter:
        shape.units = scatter();
        break;
    }
    ir_.CreateRetVoid();
    return shape;
  }

 private:
  // void name(void* const* arguments, int64_t begin, int64_t end)
  void emit_entry(llvm::Module& module, const std::string& name) {
    llvm::LLVMContext& context = module.getContext();
    llvm::Type *pointer = llvm::PointerType::get(context, 0), *i64 = llvm::Type::getInt64Ty(context);
    auto* entry =
        llvm::Function::Create(llvm::FunctionType::get(llvm::Type::getVoidTy(context), {pointer, i64, i64}, false),
                               llvm::GlobalValue::ExternalLinkage, name, module);
    llvm::IRBuilder<> ir(llvm::BasicBlock::Create(context, "entry", entry));
    Values arguments;
    for (unsigned i = 0; i + 2 < body_->arg_size(); ++i)
      arguments.push_back(ir.CreateLoad(pointer, ir.CreateConstGEP1_64(pointer, entry->getArg(0), i)));
    arguments.insert(arguments.end(), {entry->getArg(1), entry->getArg(2)});
    ir.CreateCall(body_, arguments);
    ir.CreateRetVoid();
  }

  ExpressionEmitter& e() { return *emitter_; }
  llvm::Value* constant(int64_t v) { return e().index(v); }
  llvm::Value* least(llvm::Value* a, int64_t b) {
    return ir_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, a, constant(b));
  }

  // Vectors over [begin, end) of the lane variable, where begin is a multiple of the lanes and end too unless it is
  // the variable's extent. body(carried) -> next.
  using Body = std::function<Values(const Values&)>;
  Values for_lanes(llvm::Value* begin, llvm::Value* end, Values carried, const Body& body) {
    if (lane_ < 0) return body(carried);
    llvm::Value* whole = end;
    const bool tail = lane_extent_ % lanes_ != 0;
    if (tail) whole = ir_.CreateSub(end, ir_.CreateURem(end, constant(lanes_)));
    if (lane_extent_ >= lanes_)
      carried = e().loop(begin, whole, lanes_, carried, [&](llvm::Value* at, const Values& now) {
        e().bind(lane_, at);
        return body(now);
      });
    if (!tail) return carried;
    return e().when(ir_.CreateICmpSLT(whole, end), carried, [&] {
      bind_masked(whole, end);
      return body(carried);
    });
  }

  void bind_masked(llvm::Value* base, llvm::Value* end) {
    e().bind(lane_, base);
    if (lanes_ == 1) return;
    e().set_active(ir_.CreateSub(end, base));
  }

  int64_t pointwise();
  void pointwise_loops(const std::vector<AtomId>& outer, size_t depth, llvm::Value* begin, llvm::Value* end);
  int64_t rows();
  void row();
  Values row_pass(Values carried, const Body& body);
  int64_t columns();
  int64_t scatter();
  std::pair<llvm::Value*, llvm::Value*> chunk_range(int64_t positions);

  const Kernel& kernel_;
  llvm::IRBuilder<> ir_;
  llvm::Function* body_ = nullptr;
  std::unique_ptr<ExpressionEmitter> emitter_;
  AtomId lane_ = -1;
  int64_t lane_extent_ = 1;
  unsigned lanes_ = 1;
  llvm::Value *begin_ = nullptr, *end_ = nullptr;
};

int64_t HostKernel::pointwise() {
  std::vector<AtomId> outer = kernel_.kept;
  if (lane_ >= 0) outer.pop_back();
  const int64_t block = lane_extent_ > 2 * kBlock ? kBlock : lane_extent_;
  const int64_t blocks = ceil_div(lane_extent_, block);
  // A unit is one index of the outermost variables, and one block.
  std::vector<AtomId> prefix;
  int64_t units = blocks;
  while (units < kWantedUnits && prefix.size() < outer.size()) {
    prefix.push_back(outer[prefix.size()]);
    units *= kernel_.extent(prefix.back());
  }
  e().hoist_stores(Store::Domain::kept, variables_of(kernel_, kernel_.kept));
  e().loop(begin_, end_, 1, {}, [&](llvm::Value* unit, const Values&) {
    llvm::Value *begin = constant(0), *end = constant(lane_extent_);
    if (blocks > 1) {
      begin = ir_.CreateMul(prefix.empty() ? unit : ir_.CreateURem(unit, constant(blocks)), constant(block));
      end = least(ir_.CreateAdd(begin, constant(block)), lane_extent_);
      if (!prefix.empty()) unit = ir_.CreateUDiv(unit, constant(blocks));
    }
    e().bind_linear(prefix, unit);
    pointwise_loops(outer, prefix.size(), begin, end);
    return Values{};
  });
  return units;
}

void HostKernel::pointwise_loops(const std::vector<AtomId>& outer, size_t depth, llvm::Value* begin, llvm::Value* end) {
  std::vector<AtomId> inner(outer.begin() + static_cast<std::ptrdiff_t>(depth), outer.end());
  if (lane_ >= 0) inner.push_back(lane_);
  e().hoist_stores(Store::Domain::kept, variables_of(kernel_, inner));
  if (depth == outer.size()) {
    for_lanes(begin, end, {}, [&](const Values&) {
      e().emit_stores(Store::Domain::kept);
      return Values{};
    });
    return;
  }
  e().loop(constant(0), constant(kernel_.extent(outer[depth])), 1, {}, [&](llvm::Value* at, const Values&) {
    e().bind(outer[depth], at);
    pointwise_loops(outer, depth + 1, begin, end);
    return Values{};
  });
}

// The reduced positions of this kernel point.
std::pair<llvm::Value*, llvm::Value*> HostKernel::chunk_range(int64_t positions) {
  if (kernel_.chunk < 0) return {constant(0), constant(positions)};
  llvm::Value* chunk = e().scope().variables.at(kernel_.chunk);
  llvm::Value* begin = ir_.CreateMul(chunk, constant(kernel_.chunk_length));
  return {begin, least(ir_.CreateAdd(begin, constant(kernel_.chunk_length)), positions)};
}

int64_t HostKernel::rows() {
  const int64_t count = kernel_.points(kernel_.kept);
  const int64_t length = kernel_.chunk >= 0 ? kBlock : kernel_.points(kernel_.reduced);
  const int64_t per_unit = std::max<int64_t>(1, kUnitElements / std::max<int64_t>(length, 1));
  llvm::Value* end = least(ir_.CreateMul(end_, constant(per_unit)), count);
  e().loop(ir_.CreateMul(begin_, constant(per_unit)), end, 1, {}, [&](llvm::Value* position, const Values&) {
    e().bind_linear(kernel_.kept, position);
    row();
    return Values{};
  });
  return ceil_div(count, per_unit);
}

Values HostKernel::row_pass(Values carried, const Body& body) {
  if (kernel_.reduced.empty()) return body(carried);  // all points of a row stand together
  std::vector<AtomId> outer = kernel_.reduced;
  outer.pop_back();
  if (outer.empty()) {
    const auto [begin, end] = chunk_range(lane_extent_);
    return for_lanes(begin, end, std::move(carried), body);
  }
  const auto [begin, end] = chunk_range(kernel_.points(outer));
  return e().loop(begin, end, 1, std::move(carried), [&](llvm::Value* at, const Values& now) {
    e().bind_linear(outer, at);
    return for_lanes(constant(0), constant(lane_extent_), now, body);
  });
}

void HostKernel::row() {
  // A row that fits one vector stays in registers: every pass works on the same lanes, without a loop.
  const bool single = kernel_.reduced.size() == 1 && kernel_.chunk < 0 && lane_extent_ <= lanes_;
  if (single) bind_masked(constant(0), constant(lane_extent_));
  if (single && lane_extent_ == lanes_) e().set_active(nullptr);
  const VariableSet reduced = variables_of(kernel_, kernel_.reduced);
  const auto pass = [&](Values carried, const Body& body) {
    return single ? body(carried) : row_pass(std::move(carried), body);
  };
  for (int phase = 0; phase < phase_count(kernel_); ++phase) {
    const std::vector<size_t> reductions = reductions_of_phase(kernel_, phase);
    e().hoist(operands_of(kernel_, reductions), reduced);
    const Values sums = pass(initial_accumulators(e(), kernel_, reductions, lanes_), [&](const Values& now) {
      return accumulate(e(), kernel_, reductions, now, e().scope().active);
    });
    for (size_t i = 0; i < reductions.size(); ++i)
      e().bind_reduction(reductions[i], combine_lanes(e(), kernel_.reductions[reductions[i]], sums[i]));
  }
  e().hoist_stores(Store::Domain::full, reduced);
  if (std::any_of(kernel_.stores.begin(), kernel_.stores.end(),
                  [](const Store& s) { return s.domain == Store::Domain::full; }))
    pass({}, [&](const Values&) {
      e().emit_stores(Store::Domain::full);
      return Values{};
    });
  e().emit_stores(Store::Domain::kept);
}

int64_t HostKernel::columns() {
  std::vector<AtomId> outer = kernel_.kept;
  outer.pop_back();
  const int64_t tiles = ceil_div(lane_extent_, lanes_);
  e().loop(begin_, end_, 1, {}, [&](llvm::Value* unit, const Values&) {
    llvm::Value* tile = outer.empty() ? unit : tiles == 1 ? constant(0) : ir_.CreateURem(unit, constant(tiles));
    e().bind_linear(outer, tiles == 1 ? unit : ir_.CreateUDiv(unit, constant(tiles)));
    llvm::Value* base = ir_.CreateMul(tile, constant(lanes_));
    if (lane_extent_ % lanes_ == 0)
      e().bind(lane_, base);
    else
      bind_masked(base, constant(lane_extent_));
    const std::vector<size_t> reductions = reductions_of_phase(kernel_, 0);
    const VariableSet reduced = variables_of(kernel_, kernel_.reduced);
    e().hoist(operands_of(kernel_, reductions), reduced);
    e().hoist_stores(Store::Domain::full, reduced);
    const auto [begin, end] = chunk_range(kernel_.points(kernel_.reduced));
    const Values sums = e().loop(begin, end, 1, initial_accumulators(e(), kernel_, reductions, lanes_),
                                 [&](llvm::Value* position, const Values& now) {
                                   e().bind_linear(kernel_.reduced, position);
                                   const Values next = accumulate(e(), kernel_, reductions, now, nullptr);
                                   e().emit_stores(Store::Domain::full);
                                   return next;
                                 });
    for (size_t i = 0; i < reductions.size(); ++i) e().bind_reduction(reductions[i], sums[i]);
    e().emit_stores(Store::Domain::kept);
    return Values{};
  });
  return tiles * kernel_.points(outer);
}

int64_t HostKernel::scatter() {
  std::vector<AtomId> outer = kernel_.kept;
  outer.pop_back();
  const AtomId step = kernel_.reduced.front();
  const VariableSet lane = kernel_.space.atom(lane_).variables, steps = kernel_.space.atom(step).variables;
  e().loop(begin_, end_, 1, {}, [&](llvm::Value* unit, const Values&) {
    e().bind_linear(outer, unit);
    e().hoist({&kernel_.condition, 1}, steps);
    e().loop(constant(0), constant(kernel_.extent(step)), 1, {}, [&](llvm::Value* at, const Values&) {
      e().bind(step, at);
      e().when(e().emit(kernel_.condition), [&] {
        e().hoist_stores(Store::Domain::kept, lane);
        for_lanes(constant(0), constant(lane_extent_), {}, [&](const Values&) {
          e().emit_stores(Store::Domain::kept);
          return Values{};
        });
      });
      return Values{};
    });
    return Values{};
  });
  return kernel_.points(outer);
}

}  // namespace

LaunchShape emit_host_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name,
                             unsigned vector_floats) {
  return HostKernel(module, kernel, name, vector_floats).emit();
}

}  // namespace halfstep
