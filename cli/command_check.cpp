#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"
#include "compiler/check.h"
#include "frontend/diagnose/diagnostics.h"

namespace halfstep {
namespace {

nlohmann::json readiness_json(const Recipe& recipe, const Readiness& ready) {
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& f : ready.findings)
    findings.push_back({{"kind", f.kind}, {"text", f.text}, {"remedy", f.remedy}});
  const auto weights = [](const WeightCount& count) {
    return nlohmann::json{{"tensors", count.tensors}, {"values", count.elements}};
  };
  return {{"model", recipe.model},
          {"ready", ready.problems.empty()},
          {"problems", ready.problems},
          {"findings", findings},
          {"remarks", ready.remarks},
          {"producer", ready.producer},
          {"opset", ready.opset},
          {"nodes", ready.nodes},
          {"inputs", ready.inputs},
          {"weights",
           {{"trainable", weights(ready.trainable)},
            {"frozen", weights(ready.frozen)},
            {"statistics", weights(ready.statistics)}}},
          {"operators", ready.operators}};
}

std::string weights_text(const Readiness& ready) {
  std::string text;
  const auto add = [&](const WeightCount& count, std::string_view what) {
    if (count.tensors == 0) return;
    text +=
        fmt::format("{}{} values in {} {}", text.empty() ? "" : "; ", count_text(count.elements), count.tensors, what);
  };
  add(ready.trainable, "trainable tensors");
  add(ready.frozen, "frozen tensors");
  add(ready.statistics, "running statistics");
  return text;
}

void print_readiness(const Recipe& recipe, const Readiness& ready) {
  print_out("{}\n  {} nodes of opset {}{}\n", recipe.model, count_text(ready.nodes), ready.opset,
            ready.producer.empty() ? "" : ", written by " + ready.producer);
  for (const auto& [name, type] : ready.inputs) print_out("  input {}: {}\n", name, type);
  if (const std::string weights = weights_text(ready); !weights.empty()) print_out("  {}\n", weights);
  Table operators({"operator", "nodes"});
  for (const auto& [op, count] : ready.operators) operators.add({op, std::to_string(count)});
  if (!operators.empty()) print_out("{}", operators.text());
  for (const Finding& f : ready.findings)
    print_out("  {}: {}{}{}\n", f.kind, f.text, f.remedy.empty() ? "" : "; ", f.remedy);
  for (const std::string& remark : ready.remarks) print_out("  note: {}\n", remark);
  for (const std::string& problem : ready.problems) print_out("  problem: {}\n", problem);
  const size_t count = ready.problems.size();
  print_out("{}\n", count == 0 ? "ready to train"
                               : fmt::format("not ready to train: {} {}", count, count == 1 ? "problem" : "problems"));
}

}  // namespace

ExitCode run_check(const Recipe& recipe, const CommandOptions& options) {
  const Readiness ready = check_recipe(recipe, options.compile);
  if (options.format == Format::json)
    print_out("{}\n", json_text(readiness_json(recipe, ready)));
  else
    print_readiness(recipe, ready);
  return ready.problems.empty() ? ExitCode::success : ExitCode::not_ready;
}

}  // namespace halfstep
