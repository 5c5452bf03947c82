#include "passes/precision/rows_of_parts.h"

#include <algorithm>

#include "passes/precision/presets.h"

namespace halfstep {

bool has_rows_of_parts(const AutocastOptions& options) {
  return options.low && find_preset(options.preset).propagation == Propagation::operands;
}

AutocastReport rows_of_parts(const Graph& imported, AutocastOptions options,
                             const std::map<std::string, std::string>& as_one) {
  const Preset& preset = find_preset(options.preset);
  // Rules are checked against the graph that is computed. Slots are those of its nodes.
  std::erase_if(options.rules, [](const PrecisionRule& rule) { return !rule.tensor.empty(); });
  for (PrecisionRule& rule : options.rules) rule.author = PrecisionRule::checked;
  std::vector<PrecisionRule> of_one;
  for (const auto& [name, op] : as_one)
    if (const auto row = std::ranges::find(preset.rows, op, &PresetRow::pattern); row != preset.rows.end())
      of_one.push_back({.precision = row->precision,
                        .source = to_string(preset) + ", one operator",
                        .node = name,
                        .form = PrecisionRule::literal,
                        .author = PrecisionRule::checked});
  options.rules.insert(options.rules.begin(), of_one.begin(), of_one.end());
  options.sources.part_of.clear();
  AutocastReport report;
  autocast(imported, options, &report);
  return report;
}

}  // namespace halfstep
