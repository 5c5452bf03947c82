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

nlohmann::json diagnostics_json(const Recipe& recipe, const Diagnostics& found) {
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& f : found.findings)
    findings.push_back({{"kind", f.kind}, {"text", f.text}, {"remedy", f.remedy}});
  const auto weights = [](const WeightCount& count) {
    return nlohmann::json{{"tensors", count.tensors}, {"values", count.elements}};
  };
  return {{"model", recipe.model},
          {"ready", found.problems.empty()},
          {"problems", found.problems},
          {"findings", findings},
          {"remarks", found.remarks},
          {"producer", found.producer},
          {"opset", found.opset},
          {"nodes", found.nodes},
          {"inputs", found.inputs},
          {"weights",
           {{"trainable", weights(found.trainable)},
            {"frozen", weights(found.frozen)},
            {"statistics", weights(found.statistics)}}},
          {"operators", found.operators}};
}

std::string weights_text(const Diagnostics& found) {
  std::string text;
  const auto add = [&](const WeightCount& count, std::string_view what) {
    if (count.tensors == 0) return;
    text +=
        fmt::format("{}{} values in {} {}", text.empty() ? "" : "; ", count_text(count.elements), count.tensors, what);
  };
  add(found.trainable, "trainable tensors");
  add(found.frozen, "frozen tensors");
  add(found.statistics, "running statistics");
  return text;
}

void print_diagnostics(const Recipe& recipe, const Diagnostics& found) {
  print_out("{}\n  {} nodes of opset {}{}\n", recipe.model, count_text(found.nodes), found.opset,
            found.producer.empty() ? "" : ", written by " + found.producer);
  for (const auto& [name, type] : found.inputs) print_out("  input {}: {}\n", name, type);
  if (const std::string weights = weights_text(found); !weights.empty()) print_out("  {}\n", weights);
  Table operators({"operator", "nodes"});
  for (const auto& [op, count] : found.operators) operators.add({op, std::to_string(count)});
  if (!operators.empty()) print_out("{}", operators.text());
  for (const Finding& f : found.findings)
    print_out("  {}: {}{}{}\n", f.kind, f.text, f.remedy.empty() ? "" : "; ", f.remedy);
  for (const std::string& remark : found.remarks) print_out("  note: {}\n", remark);
  for (const std::string& problem : found.problems) print_out("  problem: {}\n", problem);
  const size_t count = found.problems.size();
  print_out("{}\n", count == 0 ? "ready to train"
                               : fmt::format("not ready to train: {} {}", count, count == 1 ? "problem" : "problems"));
}

}  // namespace

ExitCode run_check(const Recipe& recipe, const CommandOptions& options) {
  const Diagnostics found = check_recipe(recipe, options.compile);
  if (options.format == Format::json)
    print_out("{}\n", json_text(diagnostics_json(recipe, found)));
  else
    print_diagnostics(recipe, found);
  return found.problems.empty() ? ExitCode::success : ExitCode::not_ready;
}

}  // namespace halfstep
