#include "codegen/emit/emit_kernel.h"

#include <llvm/IR/Module.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "codegen/kernel/kernel_region.h"

namespace halfstep {

namespace {

struct SharedPair {
  size_t operand = 0, output = 0;  // arguments
};

// Each operand with each output whose every element is stored where the operand is read.
std::vector<SharedPair> shared_pairs(const Kernel& kernel) {
  std::vector<SharedPair> pairs;
  std::map<int32_t, std::set<Index>> stored;  // by argument: at all of its stores
  for (const Store& s : kernel.stores) stored[s.argument].insert(s.index);
  for (const auto& [argument, indices] : stored) {
    const size_t output = static_cast<size_t>(argument);
    if (kernel.arguments[output].kind != KernelArgument::Kind::output) continue;
    for (size_t a = 0; a < kernel.arguments.size(); ++a) {
      if (kernel.arguments[a].kind != KernelArgument::Kind::operand) continue;
      bool shareable = size_of(kernel.arguments[a].type.dtype) == size_of(kernel.arguments[output].type.dtype);
      for (ExpressionId id = 0; id < kernel.expressions.size() && shareable; ++id) {
        const Expression& e = kernel.expressions[id];
        if (e.kind == Expression::Kind::load && e.id == static_cast<int32_t>(a)) shareable = indices.count(e.index) > 0;
      }
      if (shareable) pairs.push_back({a, output});
    }
  }
  return pairs;
}

// Stored at points of which each is visited once, and after all reductions. Elements stored once for a row are not:
// other threads may still read the row.
bool stored_point_by_point(const Kernel& kernel, size_t output) {
  if (kernel.form == Kernel::Form::pointwise) return true;
  if (kernel.form == Kernel::Form::scatter || kernel.points(kernel.reduced) == 1) return false;
  return std::ranges::all_of(kernel.stores, [&](const Store& s) {
    return s.argument != static_cast<int32_t>(output) || s.domain == Store::Domain::full;
  });
}

bool has_argument(const Kernel& kernel, KernelArgument::Kind kind, int32_t number) {
  return std::ranges::any_of(kernel.arguments,
                             [&](const KernelArgument& a) { return a.kind == kind && a.number == number; });
}

}  // namespace

std::vector<ArgumentUse> argument_uses(const Kernel& kernel) {
  std::vector<ArgumentUse> uses(kernel.arguments.size());
  for (const Store& s : kernel.stores) uses[static_cast<size_t>(s.argument)].written = true;
  for (const SharedPair& pair : shared_pairs(kernel)) uses[pair.operand].shared = uses[pair.output].shared = true;
  return uses;
}

std::vector<Overlay> overlays(std::span<const Kernel> kernels) {
  std::vector<Overlay> found;
  for (size_t k = 0; k < kernels.size(); ++k)
    for (const SharedPair& pair : shared_pairs(kernels[k])) {
      const KernelArgument &operand = kernels[k].arguments[pair.operand], &output = kernels[k].arguments[pair.output];
      const auto elsewhere = [&](size_t other) {
        return other != k &&
               (has_argument(kernels[other], KernelArgument::Kind::output, output.number) ||
                (other > k && has_argument(kernels[other], KernelArgument::Kind::operand, operand.number)));
      };
      bool alone = true;
      for (size_t other = 0; other < kernels.size(); ++other) alone &= !elsewhere(other);
      if (alone && operand.type.byte_count() == output.type.byte_count() &&
          stored_point_by_point(kernels[k], pair.output))
        found.push_back({operand.number, output.number});
    }
  return found;
}

llvm::Function* declare_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name,
                               const std::vector<ArgumentUse>& uses, unsigned address_space,
                               const std::vector<llvm::Type*>& more) {
  llvm::LLVMContext& context = module.getContext();
  std::vector<llvm::Type*> types;
  for (const KernelArgument& a : kernel.arguments)
    if (a.kind != KernelArgument::Kind::table) types.push_back(llvm::PointerType::get(context, address_space));
  types.insert(types.end(), more.begin(), more.end());
  auto* function = llvm::Function::Create(llvm::FunctionType::get(llvm::Type::getVoidTy(context), types, false),
                                          llvm::GlobalValue::ExternalLinkage, name, module);
  function->setDoesNotThrow();
  unsigned at = 0;
  for (size_t i = 0; i < kernel.arguments.size(); ++i) {
    if (kernel.arguments[i].kind == KernelArgument::Kind::table) continue;
    const unsigned parameter = at++;
    function->addParamAttr(parameter, llvm::Attribute::NoCapture);
    function->addParamAttr(parameter, llvm::Attribute::getWithAlignment(context, llvm::Align(16)));
    if (!uses[i].shared) function->addParamAttr(parameter, llvm::Attribute::NoAlias);
    if (!uses[i].written) function->addParamAttr(parameter, llvm::Attribute::ReadOnly);
  }
  return function;
}

Values argument_pointers(llvm::Module& module, const Kernel& kernel, llvm::Function* function, unsigned address_space) {
  Values pointers;
  unsigned at = 0;
  for (const KernelArgument& a : kernel.arguments) {
    if (a.kind != KernelArgument::Kind::table) {
      pointers.push_back(function->getArg(at++));
      continue;
    }
    llvm::LLVMContext& context = module.getContext();
    const auto* bytes = reinterpret_cast<const char*>(a.table->data.data());
    llvm::Constant* data = llvm::ConstantDataArray::getRaw({bytes, a.table->data.size()}, a.table->data.size(),
                                                           llvm::Type::getInt8Ty(context));
    auto* global = new llvm::GlobalVariable(module, data->getType(), true, llvm::GlobalValue::PrivateLinkage, data,
                                            function->getName() + "_table", nullptr, llvm::GlobalValue::NotThreadLocal,
                                            address_space);
    global->setAlignment(llvm::Align(16));
    pointers.push_back(global);
  }
  return pointers;
}

std::unique_ptr<ExpressionEmitter> make_emitter(llvm::IRBuilder<>& ir, const Kernel& kernel, LaneConfig config,
                                                Values pointers, const std::vector<ArgumentUse>& uses) {
  std::vector<bool> read_only;
  for (const ArgumentUse& u : uses) read_only.push_back(!u.written && !u.shared);
  return std::make_unique<ExpressionEmitter>(ir, kernel, config, std::move(pointers), std::move(read_only));
}

int phase_count(const Kernel& kernel) {
  int count = 0;
  for (const Reduction& r : kernel.reductions) count = std::max(count, r.phase + 1);
  return count;
}

std::vector<size_t> reductions_of_phase(const Kernel& kernel, int phase) {
  std::vector<size_t> reductions;
  for (size_t i = 0; i < kernel.reductions.size(); ++i)
    if (kernel.reductions[i].phase == phase && !kernel.reductions[i].operands.empty()) reductions.push_back(i);
  return reductions;
}

std::vector<ExpressionId> operands_of(const Kernel& kernel, const std::vector<size_t>& reductions) {
  std::vector<ExpressionId> operands;
  for (size_t r : reductions)
    operands.insert(operands.end(), kernel.reductions[r].operands.begin(), kernel.reductions[r].operands.end());
  return operands;
}

namespace {

// Whether the operand is what a select takes from few points and the constant that all others give: to an accumulator
// that begins with it, that adds nothing; it is one number for all lanes. Of a least place the constant is behind the
// last one.
std::optional<double> usual_term(const ExpressionEmitter& emitter, const Kernel& kernel, const Reduction& reduction) {
  if (reduction.operands.size() != 1) return {};
  const Expression& e = kernel.expressions[reduction.operands[0]];
  if (e.kind != Expression::Kind::select || !emitter.is_rare(e.operands[0])) return {};
  const Expression &term = kernel.expressions[e.operands[1]], &usual = kernel.expressions[e.operands[2]];
  if (usual.kind != Expression::Kind::constant) return {};
  if (reduction.combine == ScalarOp::add && usual.number == 0) return 0;
  const bool place = reduction.combine == ScalarOp::minimum && term.kind == Expression::Kind::index;
  if (place && static_cast<double>(kernel.space.range(term.index).high) <= usual.number) return usual.number;
  return {};
}

}  // namespace

Values initial_accumulators(ExpressionEmitter& emitter, const Kernel& kernel, const std::vector<size_t>& reductions,
                            unsigned lanes) {
  Values values;
  for (size_t r : reductions) {
    const Reduction& reduction = kernel.reductions[r];
    const auto usual = usual_term(emitter, kernel, reduction);
    llvm::Value* begin =
        emitter.scalars().literal(reduction.dtype, usual.value_or(identity_of(reduction.combine, reduction.dtype)));
    if (const auto low = emitter.low_extremum(reduction)) begin = emitter.scalars().to_stored(*low, begin);
    values.push_back(usual ? begin : splat(emitter.ir(), begin, lanes));
  }
  return values;
}

Values accumulate(ExpressionEmitter& emitter, const Kernel& kernel, const std::vector<size_t>& reductions,
                  const Values& accumulators, llvm::Value* counts) {
  Values next;
  for (size_t i = 0; i < reductions.size(); ++i) {
    const Reduction& r = kernel.reductions[reductions[i]];
    llvm::Value* value = accumulators[i];
    const auto add = [&](llvm::Value* term) { value = emitter.scalars().accumulate(r.combine, r.dtype, value, term); };
    if (usual_term(emitter, kernel, r)) {
      const Expression& e = kernel.expressions[r.operands[0]];
      value = emitter.when(emitter.emit_any(e.operands[0]), {value}, [&] {
        add(combine_lanes(emitter, r, emitter.emit_lanes(r.operands[0])));
        return Values{value};
      })[0];
    } else {
      const auto low = emitter.low_extremum(r);
      for (ExpressionId operand : r.operands) {
        llvm::Value* term = emitter.emit_lanes(operand);
        add(low ? emitter.scalars().to_stored(*low, term) : term);
      }
    }
    next.push_back(counts ? emitter.scalars().select(counts, value, accumulators[i]) : value);
  }
  return next;
}

llvm::Value* combine_lanes(ExpressionEmitter& emitter, const Reduction& reduction, llvm::Value* vector) {
  for (unsigned lanes = lanes_of(vector); lanes > 1; lanes /= 2) {
    std::vector<int> low, high;
    for (unsigned i = 0; i < lanes / 2; ++i) {
      low.push_back(static_cast<int>(i));
      high.push_back(static_cast<int>(i + lanes / 2));
    }
    llvm::IRBuilder<>& ir = emitter.ir();
    llvm::Value* first =
        lanes == 2 ? ir.CreateExtractElement(vector, uint64_t{0}) : ir.CreateShuffleVector(vector, low);
    llvm::Value* second = lanes == 2 ? ir.CreateExtractElement(vector, 1) : ir.CreateShuffleVector(vector, high);
    vector = emitter.scalars().binary(reduction.combine, reduction.dtype, first, second);
  }
  return vector;
}

bool fits_32_bits(const Kernel& kernel) {
  constexpr int64_t kLimit = int64_t{1} << 30;
  int64_t points = kernel.points(kernel.kept) * kernel.points(kernel.reduced);
  if (kernel.chunk >= 0) points /= kernel.extent(kernel.chunk);
  if (kernel.form == Kernel::Form::scatter)
    points = std::max(kernel.points(kernel.kept), kernel.points(kernel.reduced));
  bool fits = points < kLimit;
  for (const KernelArgument& a : kernel.arguments) fits = fits && a.type.element_count() < kLimit;
  return fits;
}

int64_t loads_along(const Kernel& kernel, VariableSet walked) {
  int64_t loads = 0;
  for (ExpressionId id = 0; id < kernel.expressions.size(); ++id)
    loads += kernel.expressions[id].kind == Expression::Kind::load && (kernel.expressions.variables(id) & walked);
  return loads;
}

VariableSet variables_of(const Kernel& kernel, std::span<const AtomId> variables) {
  VariableSet set = 0;
  for (AtomId v : variables) set |= kernel.space.atom(v).variables;
  return set;
}

}  // namespace halfstep
