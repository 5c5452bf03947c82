#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes_text.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"
#include "compiler/inspect/call_estimate.h"
#include "compiler/session.h"
#include "training/random_inputs.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

struct Measurement {
  double median_ms = 0, p90_ms = 0;
  int64_t repeats = 0;
  std::vector<StepTime> calls;
};

double percentile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

// Without a number of repeats: some seconds' worth, at least 10 and at most 1000.
Measurement measure(Executor& executor, const Recipe& recipe, const CommandOptions& options) {
  constexpr double kMilliseconds = 3000;
  const int program = program_index(executor.model(), "train");
  fill_random(executor.model(), executor.model().programs[static_cast<size_t>(program)], recipe.learning_rate,
              executor.begin_step(program));
  executor.time_steps(program, 3);  // warm-up
  const double estimate = percentile(executor.time_steps(program, 3), 0.5);
  const int repeats =
      options.repeats > 0 ? options.repeats : static_cast<int>(std::clamp(kMilliseconds / estimate, 10.0, 1000.0));
  const std::vector<double> ms = executor.time_steps(program, repeats);
  Measurement m{percentile(ms, 0.5), percentile(ms, 0.9), repeats, {}};
  if (options.detail != CommandOptions::summary || !options.trace_file.empty())
    m.calls = executor.profile(program, std::max(3, repeats / 10));
  return m;
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

// Kernels bound by traffic that move less than this share of the bandwidth are counted.
constexpr double kWellUsed = 0.85;
constexpr size_t kMostGroups = 30;

bool is_slow_kernel(const CallGroup& group) {
  return group.bound == CallEstimate::traffic && group.call.starts_with("kernel") && group.share() < kWellUsed;
}

struct Explanation {
  Machine machine;
  std::vector<CallGroup> groups;
  double measured = 0, predicted = 0;  // us, of all calls, one after the other

  Explanation(const CompiledModel& model, const std::vector<StepTime>& times)
      : machine(machine_of(model.device)), groups(compare_with_estimate(*model.find("train"), times, machine)) {
    for (const CallGroup& group : groups) measured += group.microseconds, predicted += group.predicted;
  }
};

std::string explanation_text(const Explanation& e) {
  std::string text = fmt::format(
      "\n  predicted   {:.3f} ms of {:.3f} that all calls take one after the other ({:.0f}%), reckoned as {}:\n"
      "              {:.3g} GB/s, {:.3g} TFLOP/s in low types, {:.3g} in f32, {:.1f} us a launch\n\n",
      e.predicted / 1e3, e.measured / 1e3, 100 * e.predicted / e.measured, e.machine.name,
      e.machine.bytes_per_second / 1e9, e.machine.low_rate / 1e12, e.machine.full_rate / 1e12,
      e.machine.launch_seconds * 1e6);
  Table table({"us lost", "us", "predicted", "share", "bound by", "calls", "call", "node"});
  double slow = 0, slow_predicted = 0;
  size_t slow_kernels = 0;
  for (size_t i = 0; i < e.groups.size(); ++i) {
    const CallGroup& g = e.groups[i];
    if (is_slow_kernel(g)) ++slow_kernels, slow += g.microseconds, slow_predicted += g.predicted;
    if (i < kMostGroups)
      table.add({fmt::format("{:.1f}", g.microseconds - g.predicted), fmt::format("{:.1f}", g.microseconds),
                 fmt::format("{:.1f}", g.predicted), fmt::format("{:.0f}%", 100 * g.share()),
                 std::string(name(g.bound)), std::to_string(g.calls), g.call, g.origin});
  }
  text += table.text("  ", output_width());
  if (e.groups.size() > kMostGroups)
    text += fmt::format("  and {} more, which lose less each; --json has all\n", e.groups.size() - kMostGroups);
  return text + fmt::format(
                    "\n  {} kinds of kernels move less than {:.0f}% of the bandwidth: {:.1f} us, at all of it {:.1f}\n",
                    slow_kernels, 100 * kWellUsed, slow, slow_predicted);
}

nlohmann::json explanation_json(const Explanation& e) {
  nlohmann::json rows = nlohmann::json::array();
  for (const CallGroup& g : e.groups)
    rows.push_back({{"node", g.origin},
                    {"call", g.call},
                    {"calls", g.calls},
                    {"microseconds", g.microseconds},
                    {"predicted", g.predicted},
                    {"bound", name(g.bound)},
                    {"below_bandwidth", is_slow_kernel(g)}});
  return {{"machine",
           {{"name", e.machine.name},
            {"bytes_per_second", e.machine.bytes_per_second},
            {"low_flops_per_second", e.machine.low_rate},
            {"full_flops_per_second", e.machine.full_rate},
            {"launch_seconds", e.machine.launch_seconds}}},
          {"microseconds", e.measured},
          {"predicted", e.predicted},
          {"calls", rows}};
}

// Of Chrome's trace event format, which Perfetto opens: one call after the other, each as long as it takes by itself.
nlohmann::json trace_of(const std::vector<StepTime>& calls, const std::string& model, const CompiledModel& compiled) {
  nlohmann::json events = nlohmann::json::array();
  const auto name_track = [&](const char* what, int thread, const std::string& text) {
    events.push_back({{"ph", "M"}, {"name", what}, {"pid", 1}, {"tid", thread}, {"args", {{"name", text}}}});
  };
  name_track("process_name", 0, fmt::format("{} on {}", model, compiled.architecture));
  name_track("thread_name", 1, "step, call by call");
  double start = 0;
  for (const StepTime& call : calls) {
    events.push_back({{"ph", "X"},
                      {"name", call.origin.empty() ? call.call : call.origin},
                      {"cat", call.origin.find("(backward)") == std::string::npos ? "forward" : "backward"},
                      {"pid", 1},
                      {"tid", 1},
                      {"ts", start},
                      {"dur", call.microseconds},
                      {"args", {{"call", call.call}, {"bytes", call.bytes}, {"flops", call.flops}}}});
    start += call.microseconds;
  }
  return {{"traceEvents", events}, {"displayTimeUnit", "ns"}};
}

// The same step with taps, beside its time without; 0: not asked for.
double tapped_ms(const Recipe& given, const CommandOptions& options) {
  if (!options.compile.taps) return 0;
  Job job = open_job(given);
  if (job.compiled) throw Error("--taps: a compiled step has none; name the model or the recipe");
  if (job.recipe.init == "from_file") job.recipe.init = "absent";
  CompileOptions compile = options.compile;
  compile.taps = TapOptions{.low = job.recipe.precision == "bf16" ? DType::bf16 : DType::f16,
                            .most_counted = options.tap_elements < 0 ? int64_t{1} << 20 : options.tap_elements,
                            .samples = 4096};
  compile.constants = MissingConstants::zeros;
  const Session session = open_session(job, compile);
  return measure(*session.executor, job.recipe, options).median_ms;
}

std::string calls_table(const std::vector<StepTime>& calls) {
  Table table({"us", "GB/s", "TFLOP/s", "call", "node"});
  for (const StepTime& c : calls)
    table.add({fmt::format("{:.1f}", c.microseconds),
               fmt::format("{:.1f}", static_cast<double>(c.bytes) / c.microseconds / 1e3),
               c.flops > 0 ? fmt::format("{:.3f}", c.flops / c.microseconds / 1e6) : "-", c.call, c.origin});
  return table.text();
}

}  // namespace

ExitCode run_bench(const Recipe& given, const CommandOptions& options) {
  Job job = open_job(given);
  Recipe& recipe = job.recipe;
  if (recipe.init == "from_file") recipe.init = "absent";
  CompileOptions compile = options.compile;
  compile.taps.reset();
  compile.constants = MissingConstants::zeros;  // values do not matter for times
  const Session session = open_session(job, compile);
  if (options.format == Format::text) print_remarks(*session.executor);
  const CompiledModel& model = session.executor->model();
  const Measurement m = measure(*session.executor, recipe, options);
  const double tapped = tapped_ms(given, options);
  const int64_t samples = recipe.batch;
  const double per_second = static_cast<double>(samples) / m.median_ms * 1e3;
  const MemoryReport memory = session.executor->memory();
  const LoadTimes start = session.executor->load_times();
  const int64_t planned = memory.state_bytes + memory.scratch_bytes;
  const size_t calls = model.find("train")->steps.size();
  if (session.report && options.timing == CommandOptions::time_passes)
    print_err("{}", pass_times_table(*session.report));
  if (!options.trace_file.empty())
    write_file_atomically(options.trace_file, json_text(trace_of(m.calls, given.model, model)) + "\n");
  if (options.format == Format::json) {
    nlohmann::json json{{"model", given.model},
                        {"device", name(model.device)},
                        {"architecture", model.architecture},
                        {"batch", samples},
                        {"precision", recipe.precision},
                        {"median_ms", m.median_ms},
                        {"p90_ms", m.p90_ms},
                        {"samples_per_second", per_second},
                        {"repeats", m.repeats},
                        {"calls", calls},
                        {"planned_bytes", planned},
                        {"workspace_bytes", memory.workspace_bytes},
                        {"measured_bytes", memory.measured_bytes}};
    if (model.device == DeviceKind::cuda)
      json["start_ms"] = {{"kernels", start.kernels}, {"libraries", start.libraries}, {"graphs", start.graphs}};
    if (session.report)
      json["compile_seconds"] = session.report->seconds, json["compile"] = compile_json(*session.report);
    if (tapped > 0) json["tapped_ms"] = tapped, json["taps_cost"] = tapped / m.median_ms;
    if (!m.calls.empty()) json["profile"] = calls_json(m.calls);
    if (options.detail == CommandOptions::explained) json["explained"] = explanation_json(Explanation(model, m.calls));
    print_out("{}\n", json_text(json));
    return ExitCode::success;
  }
  const auto row = [](const char* label, const std::string& value, const std::string& meaning) {
    print_out("  {:<10}  {:>12}  {}\n", label, value, meaning);
  };
  print_out("{}: {} at batch {} on {} ({})\n", given.model, recipe.precision, samples, name(model.device),
            model.architecture);
  row("step", fmt::format("{:.4f} ms", m.median_ms),
      fmt::format("median of {} steps, {} calls each", m.repeats, calls));
  row("", fmt::format("{:.4f} ms", m.p90_ms), "nine of ten are faster");
  if (tapped > 0)
    row("taps", fmt::format("{:.4f} ms", tapped),
        fmt::format("with the taps that doctor reads: {:.2f} times the step", tapped / m.median_ms));
  row("throughput", count_text(static_cast<int64_t>(per_second)), "samples/s");
  row("memory", bytes_text(planned),
      fmt::format("planned: {} of state, {} of scratch", bytes_text(memory.state_bytes),
                  bytes_text(memory.scratch_bytes)));
  row("", bytes_text(memory.workspace_bytes), "for the libraries' workspaces");
  row("", bytes_text(memory.measured_bytes), "measured");
  if (model.device == DeviceKind::cuda)
    row("start", fmt::format("{:.3f} s", (start.kernels + start.libraries + start.graphs) / 1e3),
        fmt::format("kernels {:.3f}, libraries {:.3f}, graphs {:.3f}", start.kernels / 1e3, start.libraries / 1e3,
                    start.graphs / 1e3));
  if (session.report) row("compile", fmt::format("{:.3f} s", session.report->seconds), "passes and kernels");
  if (options.detail == CommandOptions::all) print_out("\n{}", calls_table(m.calls));
  if (options.detail == CommandOptions::explained) print_out("{}", explanation_text(Explanation(model, m.calls)));
  if (!options.trace_file.empty())
    print_err("halfstep: the trace is '{}': open it in https://ui.perfetto.dev\n", options.trace_file);
  return ExitCode::success;
}

}  // namespace halfstep
