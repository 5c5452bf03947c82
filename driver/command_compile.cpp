#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "codegen/target.h"
#include "driver/commands.h"
#include "driver/report.h"
#include "driver/session.h"
#include "driver/table.h"
#include "ir/text.h"
#include "runtime/cuda_probe.h"
#include "runtime/executor.h"

namespace halfstep {
namespace {

void print_remarks(const std::vector<std::string>& remarks) {
  for (const std::string& remark : remarks) fmt::print(stderr, "halfstep: note: {}\n", remark);
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

nlohmann::json calls_json(const std::vector<StepTime>& calls) {
  nlohmann::json rows = nlohmann::json::array();
  for (const StepTime& c : calls)
    rows.push_back({{"node", c.origin},
                    {"call", c.call},
                    {"microseconds", c.microseconds},
                    {"bytes", c.bytes},
                    {"flops", c.flops}});
  return rows;
}

std::string calls_table(const std::vector<StepTime>& calls) {
  Table table({"us", "GB/s", "TFLOP/s", "call", "node"});
  for (const StepTime& c : calls)
    table.add({fmt::format("{:.1f}", c.microseconds),
               fmt::format("{:.0f}", static_cast<double>(c.bytes) / c.microseconds / 1e3),
               c.flops > 0 ? fmt::format("{:.2f}", c.flops / c.microseconds / 1e6) : "-", c.call, c.origin});
  return table.text();
}

}  // namespace

ExitCode run_info(const CommandOptions& options) {
  const CudaProbe cuda = probe_cuda(0);
  if (options.format == Format::json) {
    fmt::print("{}\n", nlohmann::json{{"version", HALFSTEP_VERSION},
                                      {"cpu", host_cpu()},
                                      {"cuda",
                                       {{"available", cuda.available},
                                        {"device", cuda.device},
                                        {"architecture", cuda.architecture},
                                        {"memory_bytes", cuda.memory_bytes},
                                        {"libraries", cuda.libraries},
                                        {"reason", cuda.reason}}}}
                           .dump());
    return ExitCode::success;
  }
  fmt::print("halfstep {}\n", HALFSTEP_VERSION);
  fmt::print("cpu   {} (oneDNN, OpenMP)\n", host_cpu());
  if (cuda.available)
    fmt::print("cuda  {}, {}, {}\n      {}\n", cuda.device, cuda.architecture, bytes_text(cuda.memory_bytes),
               cuda.libraries);
  else
    fmt::print("cuda  not available: {}\n", cuda.reason);
  return ExitCode::success;
}

ExitCode run_check(const Recipe& recipe, const CommandOptions& options) {
  ImportOptions import;
  import.batch = recipe.batch, import.shapes = recipe.shapes, import.freeze = recipe.freeze;
  import.weights = recipe.init == "from_file" ? InitialWeights::from_file : InitialWeights::fresh_where_absent;
  Readiness ready = check_model(read_onnx_file(recipe.model), import);
  // What imports may still lack a gradient or a loss: the passes say so.
  if (ready.problems.empty()) try {
      CompileOptions compile;
      compile.stop_after = "differentiate";
      compile_training(recipe, DeviceKind::cpu, compile);
    } catch (const Error& e) {
      ready.problems.push_back(e.what());
    }
  if (options.format == Format::json) {
    fmt::print("{}\n", nlohmann::json{{"model", recipe.model},
                                      {"ready", ready.problems.empty()},
                                      {"problems", ready.problems},
                                      {"remarks", ready.remarks},
                                      {"parameters", ready.parameters},
                                      {"operators", ready.operators}}
                           .dump());
  } else {
    Table table({"operator", "nodes"});
    for (const auto& [op, count] : ready.operators) table.add({op, std::to_string(count)});
    fmt::print("{}\n{}  {} trainable values\n", recipe.model, table.text(), count_text(ready.parameters));
    for (const std::string& remark : ready.remarks) fmt::print("  note: {}\n", remark);
    for (const std::string& problem : ready.problems) fmt::print("  problem: {}\n", problem);
    fmt::print("{}\n", ready.problems.empty() ? "ready to train"
                                              : fmt::format("not ready: {} problems", ready.problems.size()));
  }
  return ready.problems.empty() ? ExitCode::success : ExitCode::not_ready;
}

ExitCode run_inspect(const Recipe& recipe, const CommandOptions& options) {
  CompileOptions compile = options.compile;
  if (compile.stop_after.empty()) compile.stop_after = "autocast";
  Recipe graph_only = recipe;
  if (graph_only.init == "from_file") graph_only.init = "absent";
  const CompiledTraining compiled = compile_training(graph_only, DeviceKind::cpu, compile);
  if (options.format == Format::json) {
    fmt::print("{}\n",
               nlohmann::json{{"model", recipe.model}, {"nodes", precision_json(compiled.report.precision)}}.dump());
    return ExitCode::success;
  }
  print_remarks(compiled.report.remarks);
  fmt::print("{}  {}\n", precision_table(compiled.report.precision), precision_summary(compiled.report.precision));
  return ExitCode::success;
}

ExitCode run_compile(const Recipe& recipe, const CommandOptions& options) {
  if (options.target.empty() && options.compile.stop_after.empty() && options.compile.dump.empty())
    throw Error("no target given: name the directory to write with -o");
  const CompiledTraining compiled = compile_training(recipe, choose_device(recipe), options.compile);
  print_remarks(compiled.report.remarks);
  if (options.timing == CommandOptions::time_passes) fmt::print(stderr, "{}", pass_times_table(compiled.report));
  if (!options.compile.stop_after.empty()) {
    for (const Graph& graph : compiled.stopped.graphs) fmt::print("{}", print(graph));
    return ExitCode::success;
  }
  if (!options.target.empty()) save_compiled(compiled.model, options.target);
  if (options.format == Format::json)
    fmt::print("{}\n", compile_json(compiled.report).dump());
  else
    fmt::print("{}", compile_summary(compiled.report));
  return ExitCode::success;
}

ExitCode run_bench(Recipe recipe, const CommandOptions& options) {
  if (recipe.init == "from_file") recipe.init = "absent";
  Session session = open_session(recipe, options.compile);
  Executor& executor = *session.executor;
  const CompiledModel& model = executor.model();
  const auto train =
      std::find_if(model.programs.begin(), model.programs.end(), [](const Program& p) { return p.name == "train"; });
  if (train == model.programs.end()) throw Error("the compiled step has no program 'train'");
  const int program = static_cast<int>(train - model.programs.begin());
  const int repeats = executor.model().device == DeviceKind::cuda ? options.repeats : std::min(options.repeats, 20);
  executor.time_steps(program, std::max(3, repeats / 10));  // warm-up
  const std::vector<double> ms = executor.time_steps(program, repeats);
  const double median = percentile(ms, 0.5), p90 = percentile(ms, 0.9);
  const double per_second = static_cast<double>(recipe.batch) / median * 1e3;
  const MemoryReport memory = executor.memory();
  std::vector<StepTime> calls;
  if (options.detail == CommandOptions::per_call) calls = executor.profile(program, std::max(3, repeats / 10));
  if (options.format == Format::json) {
    nlohmann::json json{{"model", recipe.model},
                        {"device", name(model.device)},
                        {"batch", recipe.batch},
                        {"precision", recipe.precision},
                        {"median_ms", median},
                        {"p90_ms", p90},
                        {"samples_per_second", per_second},
                        {"repeats", repeats},
                        {"calls", train->steps.size()},
                        {"planned_bytes", memory.state_bytes + memory.scratch_bytes},
                        {"workspace_bytes", memory.workspace_bytes},
                        {"measured_bytes", memory.measured_bytes}};
    if (session.report)
      json["compile_seconds"] = session.report->seconds, json["compile"] = compile_json(*session.report);
    if (!calls.empty()) json["profile"] = calls_json(calls);
    fmt::print("{}\n", json.dump());
    return ExitCode::success;
  }
  Table table({"model", "device", "precision", "batch", "median ms", "p90 ms", "samples/s", "planned", "measured",
               "compile s"});
  table.add({recipe.model, std::string(name(model.device)), recipe.precision, std::to_string(recipe.batch),
             fmt::format("{:.4f}", median), fmt::format("{:.4f}", p90), fmt::format("{:.0f}", per_second),
             bytes_text(memory.state_bytes + memory.scratch_bytes), bytes_text(memory.measured_bytes),
             session.report ? fmt::format("{:.2f}", session.report->seconds) : "-"});
  fmt::print("{}", table.text(""));
  if (!calls.empty()) fmt::print("\n{}", calls_table(calls));
  return ExitCode::success;
}

}  // namespace halfstep
