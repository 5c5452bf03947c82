#include "cli/inspect_report.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

#include "base/bytes_text.h"
#include "cli/report.h"
#include "cli/table.h"

namespace halfstep {
namespace {

using Rows = std::vector<NodeRow>;

bool fits(const InspectOptions& options, const std::string& name) {
  return options.nodes.empty() || fnmatch(options.nodes.c_str(), name.c_str(), 0) == 0;
}

bool wants(const InspectOptions& options, const char* what) {
  return std::ranges::find(options.only, what) != options.only.end();
}

bool was_folded(const NodeRow& row) {
  return row.fate != Fate::computed && row.fate != Fate::added && row.fate != Fate::part && row.fate != Fate::merged;
}

Rows chosen_nodes(const Inspection& inspection, const InspectOptions& options) {
  Rows rows;
  const bool low = wants(options, "low"), full = wants(options, "fp32"), folded = wants(options, "folded");
  for (const InspectedNode& node : inspection.nodes) {
    const bool computed = node.typed && !was_folded(node);
    const bool fitting = options.only.empty() || (low && computed && is_low(node.result)) ||
                         (full && computed && node.result == DType::f32) || (folded && was_folded(node));
    if (fitting && fits(options, node.origin.name)) rows.push_back(node);
  }
  return rows;
}

Rows later_nodes(const Inspection& inspection, const InspectOptions& options) {
  Rows rows;
  for (const auto* nodes : {&inspection.backward, &inspection.update})
    for (const InspectedNode& node : *nodes)
      if (fits(options, node.origin.name)) rows.push_back(node);
  return rows;
}

std::string place_text(InspectedCast::Place place) {
  switch (place) {
    case InspectedCast::alone:
      return "own kernel";
    case InspectedCast::beside:
      return "both stored";
    case InspectedCast::in_kernel:
      return "in a kernel";
    case InspectedCast::optimizer:
      return "optimizer";
    default:
      return "gone";
  }
}

std::string casts_table(const Inspection& inspection, const InspectOptions& options, size_t columns) {
  Table table({"from", "before", "types", "elements", "moved", "where"});
  for (const InspectedCast& cast : inspection.casts)
    if (fits(options, cast.at) || fits(options, cast.from))
      table.add({cast.from, cast.phase == Phase::backward ? cast.at + " (backward)" : cast.at,
                 fmt::format("{}→{}", name(cast.was), name(cast.is)), count_text(cast.elements), bytes_text(cast.moved),
                 place_text(cast.place)});
  return table.text("  ", columns);
}

std::string weights_table(const Inspection& inspection, size_t columns) {
  Table table({"weight", "elements", "overflow", "become 0", "subnormal", "largest"});
  for (const WeightRange& w : inspection.weights)
    if (w.overflow + w.underflow + w.subnormal > 0)
      table.add({w.name, count_text(w.elements), count_text(w.overflow), count_text(w.underflow),
                 count_text(w.subnormal), fmt::format("{:.4g}", w.largest)});
  return table.empty() ? "  no weight has values beyond the type's range\n" : table.text("  ", columns);
}

std::string operations_text(double flops) {
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T", "P"};
  size_t unit = 0;
  while (flops >= 1000 && unit < 5) flops /= 1000, ++unit;
  return fmt::format("{:.{}f} {}FLOP", flops, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string time_text(double microseconds) {
  return microseconds < 1000  ? fmt::format("{:.0f} us", microseconds)
         : microseconds < 1e6 ? fmt::format("{:.2f} ms", microseconds / 1e3)
                              : fmt::format("{:.2f} s", microseconds / 1e6);
}

std::string weights_text(const Inspection& inspection) {
  int64_t beyond = 0, overflow = 0, underflow = 0;
  for (const WeightRange& w : inspection.weights)
    beyond += w.overflow + w.underflow > 0, overflow += w.overflow, underflow += w.underflow;
  if (inspection.weights.empty())
    return "not looked at: " + (inspection.weights_unknown.empty() ? "there are none" : inspection.weights_unknown);
  if (beyond == 0) return fmt::format("all {} within {}'s range", inspection.weights.size(), name(*inspection.low));
  return fmt::format("{} of {} go beyond {}: {} values overflow, {} become 0", beyond, inspection.weights.size(),
                     name(*inspection.low), count_text(overflow), count_text(underflow));
}

const char* arrow(const InspectedValue& value) { return value.cast_from ? ", cast from " : ""; }

std::string values_text(const std::vector<InspectedValue>& values, const char* label) {
  std::string text;
  for (const InspectedValue& value : values) {
    const std::string slot = value.slot.empty() ? "" : value.slot + " = ";
    text += fmt::format("    {:<10}  {}{}  {}{}{}\n", text.empty() ? label : "", slot, value.name,
                        to_string(value.type), arrow(value), value.cast_from ? name(*value.cast_from) : "");
  }
  return text;
}

// All about a node.
std::string node_text(const Inspection& inspection, const InspectedNode& node) {
  std::string text = fmt::format("  {} ({}{})\n", *node.origin.name, node.op,
                                 node.origin.phase == Phase::backward ? ", backward" : "");
  const auto row = [&](const char* label, const std::string& value) {
    text += fmt::format("    {:<10}  {}\n", label, value);
  };
  row("why", node.reason);
  if (!node.rule.empty()) row("rule", node.rule);
  if (!node.path.empty()) {
    std::string path = "'" + std::string(node.origin.name) + "'";
    for (const std::string& next : node.path) path += " <- '" + next + "'";
    const auto last =
        std::ranges::find(inspection.nodes, node.path.back(), [](const InspectedNode& n) { return *n.origin.name; });
    row("path", path + (last == inspection.nodes.end() ? "" : " (" + last->reason + ")"));
  }
  text += values_text(node.operands, "reads") + values_text(node.results, "writes");
  if (node.accumulator) row("computes", std::string(name(*node.accumulator)));
  for (const InspectedCast& cast : inspection.casts)
    if (cast.at == *node.origin.name && (cast.phase >= Phase::backward) == (node.origin.phase >= Phase::backward))
      row("cast", fmt::format("of '{}', {} to {}: {} elements, {}, {} moved", cast.from, name(cast.was), name(cast.is),
                              count_text(cast.elements), place_text(cast.place), bytes_text(cast.moved)));
  if (node.cost.microseconds > 0)
    row("costs", fmt::format("{}, {} of traffic, about {}", operations_text(node.cost.flops),
                             bytes_text(static_cast<int64_t>(node.cost.bytes)), time_text(node.cost.microseconds)));
  if (node.cost.kept_bytes > 0) row("keeps", bytes_text(node.cost.kept_bytes) + " for the backward");
  return text;
}

std::string details_text(const Inspection& inspection, const InspectOptions& options) {
  constexpr size_t kMostDetailed = 8;
  std::vector<const InspectedNode*> nodes;
  for (const auto* list : {&inspection.nodes, &inspection.backward})
    for (const InspectedNode& node : *list)
      if (fits(options, node.origin.name)) nodes.push_back(&node);
  std::string text;
  if (nodes.size() <= kMostDetailed)
    for (const InspectedNode* node : nodes) text += (text.empty() ? "" : "\n") + node_text(inspection, *node);
  return text;
}

std::string totals_text(const Inspection& inspection) {
  const InspectionTotals& t = inspection.totals;
  std::string text;
  const auto row = [&](const char* label, const std::string& value) {
    text += fmt::format("  {:<11}  {}\n", label, value);
  };
  row("assignment", fmt::format("{}, preset {}{}, at batch {}", inspection.precision, inspection.preset,
                                inspection.policy.empty() ? "" : ", policy " + inspection.policy, inspection.batch));
  row("", precision_summary(inspection.nodes));
  for (const std::string& remark : inspection.report.remarks) row("note", remark);
  if (!inspection.step_unknown.empty()) {
    row("step", "none, and so no costs: " + inspection.step_unknown);
    return text;
  }
  const std::string low(inspection.low ? name(*inspection.low) : "f32");
  if (inspection.low)
    row("operations", fmt::format("{:.1f}% of {} in {}", t.flops > 0 ? 100 * t.low_flops / t.flops : 0,
                                  operations_text(t.flops), low));
  else
    row("operations", operations_text(t.flops));
  row("casts", fmt::format("{} listed, {} a step moved for them", inspection.casts.size(), bytes_text(t.cast_moved)));
  row("", fmt::format("({} if each stood alone; {} more inside kernels)", bytes_text(t.cast_bytes),
                      count_text(t.casts_in_kernels)));
  if (inspection.low)
    row("", fmt::format("forward: {}{}; preset torch: {}", bytes_text(t.forward_cast_bytes),
                        !t.least_forward_cast_bytes ? ""
                        : *t.least_forward_cast_bytes == t.forward_cast_bytes
                            ? ", the least there is"
                            : fmt::format(", at least {}", bytes_text(*t.least_forward_cast_bytes)),
                        bytes_text(t.forward_cast_bytes_torch)));
  row("activations", inspection.low ? fmt::format("{} kept for the backward; fp32 keeps {}", bytes_text(t.kept_bytes),
                                                  bytes_text(t.kept_bytes_fp32))
                                    : fmt::format("{} kept for the backward", bytes_text(t.kept_bytes)));
  if (inspection.low) row("weights", weights_text(inspection));
  row("step", inspection.low ? fmt::format("about {}, in fp32 {}, by a roofline", time_text(t.microseconds),
                                           time_text(t.microseconds_fp32))
                             : fmt::format("about {} by a roofline", time_text(t.microseconds)));
  row("", fmt::format("of {}: an estimate, no measurement", inspection.machine.name));
  return text;
}

}  // namespace

std::string inspection_text(const Inspection& inspection, const InspectOptions& options, size_t columns) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : "\n") + part; };
  const bool nodes =
      options.only.empty() || wants(options, "low") || wants(options, "fp32") || wants(options, "folded");
  if (nodes) add(precision_table(chosen_nodes(inspection, options), columns));
  if (!options.nodes.empty() && options.only.empty())
    if (const std::string details = details_text(inspection, options); !details.empty()) add(details);
  if (wants(options, "backward")) add(precision_table(later_nodes(inspection, options), columns));
  if (wants(options, "casts")) add(casts_table(inspection, options, columns));
  if (wants(options, "weights")) add(weights_table(inspection, columns));
  add(totals_text(inspection));
  if (options.only.empty()) text += "  see also     --only casts, backward, weights, folded; --html FILE for a page\n";
  return text;
}

}  // namespace halfstep
