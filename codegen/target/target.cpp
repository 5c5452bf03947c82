#include "codegen/target/target.h"

#include <lld/Common/Driver.h>
#include <llvm/Analysis/CGSCCPassManager.h>
#include <llvm/Analysis/LoopAnalysisManager.h>
#include <llvm/Config/llvm-config.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/MC/MCSubtargetInfo.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/TargetParser/Host.h>

#include <mutex>

#include "base/error.h"
#include "base/file.h"
#include "codegen/target/constant_divisions.h"
#include "codegen/target/target_machine.h"

LLD_HAS_DRIVER(elf)

namespace halfstep {
namespace {

constexpr const char* kHostTriple = "x86_64-unknown-linux-gnu";
constexpr const char* kDeviceTriple = "nvptx64-nvidia-cuda";
constexpr int kOldestDevice = 80;

void initialise_llvm() {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
  });
}

// What this processor and its operating system really offer; its name alone may promise more or, if LLVM does not know
// it, less.
std::string host_features() {
  std::string text;
  for (const auto& feature : llvm::sys::getHostCPUFeatures())
    text += (text.empty() ? "" : ",") + std::string(feature.getValue() ? "+" : "-") + feature.getKey().str();
  return text;
}

void check_device(const std::string& architecture) {
  int number = 0;
  size_t at = 3;
  if (architecture.rfind("sm_", 0) == 0)
    for (; at < architecture.size() && std::isdigit(static_cast<unsigned char>(architecture[at])) && at < 7; ++at)
      number = number * 10 + (architecture[at] - '0');
  if (number < kOldestDevice || (at != architecture.size() && architecture.substr(at) != "a"))
    throw Error("GPU architecture '" + architecture + "' is not supported: sm_80 or later is needed");
}

}  // namespace

std::string host_cpu() { return llvm::sys::getHostCPUName().str(); }

std::string llvm_version() { return "LLVM " LLVM_VERSION_STRING; }

std::unique_ptr<llvm::TargetMachine> create_target_machine(const KernelTarget& target) {
  initialise_llvm();
  const bool host = target.device == DeviceKind::cpu;
  if (!host) check_device(target.architecture);
  const char* triple = host ? kHostTriple : kDeviceTriple;
  std::string problem;
  const llvm::Target* llvm_target = llvm::TargetRegistry::lookupTarget(triple, problem);
  require(llvm_target != nullptr, "LLVM was built without one of the kernel targets");
  const std::string features = !host ? "+ptx80" : target.architecture == host_cpu() ? host_features() : "";
  // Asking a subtarget about an unknown CPU prints to stderr: ask whether it knows it first.
  const std::unique_ptr<llvm::MCSubtargetInfo> plain(llvm_target->createMCSubtargetInfo(triple, "", ""));
  if (!plain->isCPUStringValid(target.architecture))
    throw Error(std::string(host ? "CPU" : "GPU architecture") + " '" + target.architecture +
                "' is unknown to the compiler; the one at hand is '" + host_cpu() + "'");
  std::unique_ptr<llvm::TargetMachine> machine(llvm_target->createTargetMachine(
      triple, target.architecture, features, {}, llvm::Reloc::PIC_, std::nullopt, llvm::CodeGenOptLevel::Default));
  if (host && !machine->getMCSubtargetInfo()->checkFeatures("+avx2,+fma,+f16c"))
    throw Error("CPU '" + target.architecture + "' lacks AVX2, FMA or F16C: x86-64-v3 or later is needed");
  return machine;
}

unsigned vector_floats(const llvm::TargetMachine& machine) {
  return machine.getMCSubtargetInfo()->checkFeatures("+avx512f,+avx512bw,+avx512dq,+avx512vl") ? 16 : 8;
}

// Vectors are explicit and loops short: what would vectorise or unroll again only costs time.
std::string compile_module(llvm::Module& module, llvm::TargetMachine& machine, DeviceKind device) {
  llvm::PipelineTuningOptions tuning;
  tuning.LoopVectorization = tuning.SLPVectorization = tuning.LoopInterleaving = tuning.LoopUnrolling = false;
  llvm::PassBuilder builder(&machine, tuning);
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager components;
  llvm::ModuleAnalysisManager modules;
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O1).run(module, modules);
  if (device == DeviceKind::cuda) multiply_for_divisions(module);

  llvm::SmallString<0> code;
  llvm::raw_svector_ostream stream(code);
  llvm::legacy::PassManager passes;
  const auto kind =
      device == DeviceKind::cuda ? llvm::CodeGenFileType::AssemblyFile : llvm::CodeGenFileType::ObjectFile;
  require(!machine.addPassesToEmitFile(passes, stream, nullptr, kind), "the target cannot emit this kind of file");
  passes.run(module);
  return code.str().str();
}

std::string link_shared_object(const std::string& object) {
  // lld keeps its state in globals.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const TemporaryDirectory directory;
  const std::string from = directory.path() / "kernels.o", to = directory.path() / "kernels.so";
  std::error_code failure;
  llvm::raw_fd_ostream file(from, failure);
  file << object;
  file.close();
  if (!failure) failure = file.error();
  file.clear_error();  // else it is fatal when the stream goes
  if (failure) throw Error("cannot write '" + from + "': " + failure.message());
  std::string text;
  llvm::raw_string_ostream messages(text);
  const lld::Result result = lld::lldMain(
      {"ld.lld", "-shared", "--build-id=none", "--hash-style=gnu", "--threads=1", "-o", to.c_str(), from.c_str()},
      messages, messages, {{lld::Gnu, &lld::elf::link}});
  if (result.retCode != 0) throw InternalError("kernels do not link: " + text);
  return read_file(to);
}

}  // namespace halfstep
