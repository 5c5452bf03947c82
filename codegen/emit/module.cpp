#include "codegen/emit/module.h"

#include <llvm/IR/LLVMContext.h>
#include <llvm/IR/Verifier.h>

#include <algorithm>
#include <limits>
#include <map>

#include "base/error.h"
#include "codegen/emit/emit_kernel.h"
#include "codegen/kernel/schedule.h"
#include "codegen/target/target_machine.h"
#include "ir/op.h"

namespace halfstep {
namespace {

void append(std::string& key, const std::string& text) { key += text + ","; }
void append(std::string& key, int64_t number) { append(key, std::to_string(number)); }
void append(std::string& key, double number) { key.append(reinterpret_cast<const char*>(&number), sizeof number); }
void append(std::string& key, DType dtype) { append(key, std::string(name(dtype))); }
void append(std::string& key, const Ints& numbers) { append(key, to_string(numbers)); }
void append(std::string& key, const Tensor& tensor) {
  append(key, to_string(tensor.type));
  key.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
}
void append(std::string&, const Region&) { throw InternalError("a region within a region"); }

// Equal for regions that differ in names and origins only.
std::string structure(const Graph& region) {
  std::string key;
  for (const Node& node : region.nodes()) {
    append(key, std::string(node.op->name));
    for (Value v : node.operands) append(key, int64_t{v.node} * 16 + v.result);
    for (const TensorType& type : node.results) append(key, to_string(type));
    for (const auto& [name, value] : node.attributes) {
      append(key, name);
      std::visit([&](const auto& v) { append(key, v); }, value);
    }
    key += '\n';
  }
  for (const NamedValue& o : region.outputs()) append(key, int64_t{o.value.node} * 16 + o.value.result);
  return key;
}

std::string_view form_name(Kernel::Form form) {
  switch (form) {
    case Kernel::Form::pointwise:
      return "pointwise";
    case Kernel::Form::rows:
      return "rows";
    case Kernel::Form::columns:
      return "columns";
    case Kernel::Form::scatter:
      return "scatter";
  }
  return "";
}

// What each access reaches, no argument more than once as a whole: what a broadcast reads again comes from a cache.
int64_t bytes_moved(const Kernel& kernel) {
  std::vector<int64_t> elements(kernel.arguments.size(), 0);
  // Of a row that memory chooses, no more than there are positions.
  double positions = std::numeric_limits<double>::infinity();
  if (kernel.form == Kernel::Form::scatter) {
    const std::vector<AtomId> places{kernel.kept[0], kernel.kept[1], kernel.kept.back(), kernel.reduced.front()};
    positions = static_cast<double>(kernel.points(places));
  }
  const auto access = [&](int32_t argument, const Index& index) {
    int64_t& known = elements[static_cast<size_t>(argument)];
    double reached = 1;
    for (const Index::Term& t : index.terms) reached *= static_cast<double>(kernel.space.atom(t.atom).limit);
    const int64_t all = kernel.arguments[static_cast<size_t>(argument)].type.element_count();
    reached = std::min(reached, positions) + static_cast<double>(known);
    known = reached < static_cast<double>(all) ? static_cast<int64_t>(reached) : all;
  };
  for (ExpressionId id = 0; id < kernel.expressions.size(); ++id)
    if (kernel.expressions[id].kind == Expression::Kind::load)
      access(kernel.expressions[id].id, kernel.expressions[id].index);
  for (const Store& s : kernel.stores) access(s.argument, s.index);
  int64_t bytes = 0;
  for (size_t i = 0; i < elements.size(); ++i) bytes += elements[i] * size_of(kernel.arguments[i].type.dtype);
  return bytes;
}

}  // namespace

struct KernelModule::State {
  KernelTarget target;
  std::unique_ptr<llvm::TargetMachine> machine;
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> module;
  std::map<std::string, EmittedRegion> regions;  // by structure
  int kernel_count = 0;

  EmittedLaunch emit(const Kernel& kernel);
};

KernelModule::KernelModule(KernelTarget target) : state_(std::make_unique<State>()) {
  state_->machine = create_target_machine(target);
  state_->module = std::make_unique<llvm::Module>("kernels", state_->context);
  state_->module->setTargetTriple(state_->machine->getTargetTriple().str());
  state_->module->setDataLayout(state_->machine->createDataLayout());
  state_->target = std::move(target);
}

KernelModule::~KernelModule() = default;

const KernelTarget& KernelModule::target() const { return state_->target; }

EmittedLaunch KernelModule::State::emit(const Kernel& kernel) {
  EmittedLaunch launch;
  launch.kernel = std::string(form_name(kernel.form)) + "_" + std::to_string(kernel_count++);
  const LaunchShape shape = target.device == DeviceKind::cpu
                                ? emit_host_kernel(*module, kernel, launch.kernel, vector_floats(*machine))
                                : emit_device_kernel(*module, kernel, launch.kernel);
  launch.grid = shape.grid;
  launch.block = shape.block;
  launch.units = shape.units;
  launch.shared = shape.shared;
  launch.bytes = bytes_moved(kernel);
  const std::vector<ArgumentUse> uses = argument_uses(kernel);
  for (size_t i = 0; i < kernel.arguments.size(); ++i) {
    const KernelArgument& a = kernel.arguments[i];
    if (a.kind == KernelArgument::Kind::table) continue;
    const auto kind = a.kind == KernelArgument::Kind::operand  ? EmittedArgument::Kind::operand
                      : a.kind == KernelArgument::Kind::output ? EmittedArgument::Kind::output
                                                               : EmittedArgument::Kind::partial;
    launch.arguments.push_back({kind, a.number, uses[i].written});
  }
  return launch;
}

const EmittedRegion& KernelModule::emit(const Graph& region) {
  require(state_->module != nullptr, "a finished kernel module takes no more regions");
  const auto [at, is_new] = state_->regions.try_emplace(structure(region));
  if (!is_new) return at->second;
  try {
    const Schedule plan = schedule(region, state_->target.device);
    for (const Kernel& kernel : plan.kernels) at->second.launches.push_back(state_->emit(kernel));
    at->second.overlays = overlays(plan.kernels);
    for (const TensorType& partial : plan.partials) at->second.partial_bytes.push_back(partial.byte_count());
  } catch (...) {
    state_->regions.erase(at);
    throw;
  }
  return at->second;
}

std::string KernelModule::ir_text() const {
  require(state_->module != nullptr, "a finished kernel module has no text");
  std::string text;
  llvm::raw_string_ostream stream(text);
  state_->module->print(stream, nullptr);
  return text;
}

std::string KernelModule::finish() {
  require(state_->module != nullptr, "a kernel module is finished once");
  std::string problem;
  llvm::raw_string_ostream stream(problem);
  if (llvm::verifyModule(*state_->module, &stream)) throw InternalError("emitted kernels are malformed: " + problem);
  const std::string code = compile_module(*state_->module, *state_->machine, state_->target.device);
  state_->module.reset();
  return state_->target.device == DeviceKind::cuda ? code : link_shared_object(code);
}

}  // namespace halfstep
