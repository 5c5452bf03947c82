#include "cli/command_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "cli/output.h"
#include "cli/table.h"
#include "compiler/file_training.h"
#include "compiler/inspect/assignment.h"
#include "compiler/policy.h"
#include "compiler/session.h"
#include "passes/precision/presets.h"
#include "training/run_setup.h"

namespace halfstep {
namespace {

using nlohmann::json;

enum class Kind : uint8_t { report, preset, policy, model };

Kind kind_of(const std::string& side) {
  if (side.ends_with(".json")) return Kind::report;
  if (preset_or_null(side)) return Kind::preset;
  return side.ends_with(".toml") && is_policy(side) ? Kind::policy : Kind::model;
}

void check_sides(const std::vector<std::string>& sides) {
  Problems problems;
  std::error_code unreadable;
  for (const std::string& side : sides) {
    if (preset_or_null(side) || std::filesystem::exists(side, unreadable)) continue;
    std::vector<std::string> known{"default"};
    for (const Preset& preset : presets()) known.emplace_back(preset.name);
    const std::string near = nearest(side, known);
    problems.add(fmt::format("'{}' is no file and no preset{}; presets are: {}", side,
                             near.empty() ? "" : fmt::format("; did you mean '{}'?", near), fmt::join(known, ", ")));
  }
  problems.throw_if_any();
}

bool needs_model(const std::string& side) { return kind_of(side) == Kind::preset || kind_of(side) == Kind::policy; }

// What a side that is no report is inspected with.
Recipe recipe_of_side(const CommandLine& line, const std::string& side, const std::string& model) {
  CommandLine one = line;
  one.model_or_recipe = needs_model(side) ? model : side;
  Recipe recipe = recipe_of(one);
  if (is_compiled_directory(recipe.model)) recipe = open_job(recipe).recipe;
  if (kind_of(side) == Kind::preset) recipe.preset = side, recipe.policy.clear();
  if (kind_of(side) == Kind::policy) recipe.policy = side;
  return over_training_of_file(recipe, std::nothrow);
}

json side_json(const Assignment& side) { return {{"assignment", side.title}, {"model", side.model}}; }

json types_json(const AssignedNode& node) {
  const auto type = [](const std::string& name) { return name.empty() ? json() : json(name); };
  json types{{"operand", type(node.operand)},
             {"accumulator", type(node.accumulator)},
             {"result", type(node.result)},
             {"reason", node.reason},
             {"rule", node.rule}};
  if (!node.slots.empty()) types["slots"] = node.slots;
  return types;
}

json names_json(const std::vector<const AssignedNode*>& nodes) {
  json list = json::array();
  for (const AssignedNode* node : nodes) list.push_back({{"node", node->name}, {"operator", node->op}});
  return list;
}

json diff_json(const Assignment& first, const Assignment& second, const AssignmentDiff& found) {
  json changed = json::array();
  for (const auto& [a, b] : found.changed)
    changed.push_back({{"node", a->name}, {"operator", a->op}, {"first", types_json(*a)}, {"second", types_json(*b)}});
  return {{"schema_version", 1},
          {"first", side_json(first)},
          {"second", side_json(second)},
          {"same", found.is_empty()},
          {"nodes_same", found.same},
          {"changed", changed},
          {"only_first", names_json(found.only_first)},
          {"only_second", names_json(found.only_second)}};
}

std::string types_of_slots(const AssignedNode& node) {
  std::string text;
  for (const auto& [slot, type] : node.slots) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", slot, type);
  return text;
}

// "f16 to f32", or where operand, accumulator and result are not of one type all three; of rules of single slots each.
std::string types_text(const AssignedNode& node) {
  if (!node.slots.empty()) return types_of_slots(node);
  if (node.result.empty()) return "-";
  if (node.operand == node.result)
    return node.accumulator.empty() || node.accumulator == "f32"
               ? node.result
               : fmt::format("{} in {}", node.result, node.accumulator);
  return fmt::format("{} to {}", node.operand, node.result);
}

void print_unmatched(const std::vector<const AssignedNode*>& nodes, const std::string& side) {
  constexpr size_t kNamed = 20;
  if (nodes.empty()) return;
  print_out("  only in {}: {} {}\n", side, nodes.size(), nodes.size() == 1 ? "node" : "nodes");
  for (size_t i = 0; i < std::min(nodes.size(), kNamed); ++i) print_out("    {} ({})\n", nodes[i]->name, nodes[i]->op);
  if (nodes.size() > kNamed) print_out("    and {} more: --json has all\n", nodes.size() - kNamed);
}

void print_diff(const Assignment& first, const Assignment& second, const AssignmentDiff& found) {
  Table table({"node", "operator", "A", "B", "why A", "why B"});
  for (const auto& [a, b] : found.changed)
    table.add({a->name, a->op, types_text(*a), types_text(*b), a->reason, b->reason});
  if (!table.empty()) print_out("{}\n", table.text("  ", output_width()));
  print_out("  A  {}{}\n  B  {}{}\n", first.model.empty() ? "" : first.model + ": ", first.title,
            second.model.empty() ? "" : second.model + ": ", second.title);
  print_unmatched(found.only_first, "A");
  print_unmatched(found.only_second, "B");
  const size_t compared = found.same + found.changed.size();
  print_out("  {} of {} nodes differ\n", found.changed.size(), compared);
}

}  // namespace

ExitCode run_diff(const CommandLine& line) {
  const std::vector<std::string>& sides = line.options.sides;
  check_sides(sides);
  std::vector<std::optional<Assignment>> assignments(sides.size());
  std::string model = line.options.diff_model;
  for (size_t i = 0; i < sides.size(); ++i) {
    if (kind_of(sides[i]) == Kind::report) assignments[i] = read_assignment(sides[i]);
    if (model.empty() && !needs_model(sides[i])) model = assignments[i] ? assignments[i]->model : sides[i];
  }
  Problems problems;
  for (const std::string& side : sides)
    if (model.empty() && needs_model(side))
      problems.add(fmt::format("'{}' is a {}: name the model to look at with --model", side,
                               kind_of(side) == Kind::preset ? "preset" : "policy"));
  problems.throw_if_any();
  for (size_t i = 0; i < sides.size(); ++i)
    if (!assignments[i])
      assignments[i] = assignment_of(inspect(recipe_of_side(line, sides[i], model), line.options.compile));
  const Assignment &first = *assignments[0], &second = *assignments[1];
  const AssignmentDiff found = diff(first, second);
  if (line.options.format == Format::json)
    print_out("{}\n", json_text(diff_json(first, second, found)));
  else
    print_diff(first, second, found);
  return found.is_empty() ? ExitCode::success : ExitCode::different;
}

}  // namespace halfstep
