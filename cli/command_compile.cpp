#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/bytes_text.h"
#include "base/error.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"
#include "codegen/target/target.h"
#include "compiler/cubins.h"
#include "ir/text.h"
#include "program/signature.h"
#include "runtime/cuda_probe.h"
#include "runtime/executor.h"

namespace halfstep {

ExitCode run_info(const CommandOptions& options) {
  const CudaProbe cuda = probe_cuda(0);
  if (options.format == Format::json) {
    print_out("{}\n", json_text({{"version", version_and_commit()},
                                 {"models", onnx_versions()},
                                 {"compiler", llvm_version()},
                                 {"cpu", {{"name", host_cpu()}, {"libraries", cpu_libraries()}}},
                                 {"cuda",
                                  {{"available", cuda.available},
                                   {"device", cuda.device},
                                   {"architecture", cuda.architecture},
                                   {"memory_bytes", cuda.memory_bytes},
                                   {"libraries", cuda.libraries},
                                   {"reason", cuda.reason}}}}));
    return ExitCode::success;
  }
  print_out("halfstep  {}\n", version_and_commit());
  print_out("models    {}\n", onnx_versions());
  print_out("compiler  {}\n", llvm_version());
  print_out("cpu       {}; {}\n", host_cpu(), cpu_libraries());
  if (cuda.available)
    print_out("cuda      {}, {}, {}\n          {}\n", cuda.device, cuda.architecture, bytes_text(cuda.memory_bytes),
              cuda.libraries);
  else
    print_out("cuda      {}\n", cuda.reason);
  return ExitCode::success;
}

ExitCode run_compile(const Recipe& recipe, const CommandOptions& options) {
  if (options.target.empty() && options.compile.stop_after.empty() && options.compile.dump.empty())
    throw Error("no target is given: name the directory to write with -o");
  CompileOptions compile = options.compile;
  compile.model_outputs = outputs_of_runs(recipe);
  if (recipe.init != "from_file") compile.constants = MissingConstants::zeros;  // runs refuse the step
  const DeviceKind device = choose_device(recipe);
  CompiledTraining compiled =
      compile_training(options.target.empty() ? recipe : portable(recipe, device), device, compile);
  if (options.format == Format::text)
    for (const std::string& remark : compiled.report.remarks) print_err("halfstep: note: {}\n", remark);
  if (options.timing == CommandOptions::time_passes) print_err("{}", pass_times_table(compiled.report));
  if (!options.compile.stop_after.empty()) {
    for (const Graph& graph : compiled.stopped.graphs) print_out("{}", print(graph));
    return ExitCode::success;
  }
  if (!options.cubins.empty()) add_cubins(compiled.model, options.cubins);
  if (!options.target.empty()) save_compiled(compiled.model, options.target, options.sign);
  if (options.format == Format::json) {
    nlohmann::json json = compile_json(compiled.report);
    json["model"] = recipe.model, json["target"] = options.target;
    json["device"] = name(compiled.model.device), json["architecture"] = compiled.model.architecture;
    print_out("{}\n", json_text(json));
    return ExitCode::success;
  }
  print_out("{}", compile_summary(compiled.report));
  if (!options.target.empty())
    print_err("halfstep: wrote {} for {} ({}); next: halfstep train {}\n", options.target, name(compiled.model.device),
              compiled.model.architecture, options.target);
  return ExitCode::success;
}

}  // namespace halfstep
