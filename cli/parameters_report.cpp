#include "cli/parameters_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/tensor.h"
#include "cli/table.h"

namespace halfstep {
namespace {

using nlohmann::json;

struct Total {
  int64_t tensors = 0, values = 0;
};

std::map<ParameterRow::State, Total> totals_of(const ParameterReport& report) {
  std::map<ParameterRow::State, Total> totals;
  for (const ParameterRow& row : report.rows) {
    Total& total = totals[row.state];
    ++total.tensors, total.values += row.count;
  }
  return totals;
}

bool is_shown(const ParameterRow& row) { return row.state != ParameterRow::constant; }

std::string readers_text(const ParameterRow& row) {
  if (row.readers.empty()) return "-";
  return row.readers.front() + (row.readers.size() > 1 ? fmt::format(" and {} more", row.readers.size() - 1) : "");
}

}  // namespace

std::string parameters_text(const ParameterReport& report, size_t columns) {
  constexpr size_t kWide = 110;  // columns with room for what reads a parameter, and means
  const bool wide = columns == 0 || columns >= kWide;
  const bool decays = std::ranges::any_of(report.rows, [](const ParameterRow& row) { return row.decayed.has_value(); });
  std::vector<std::string> header{"parameter", "shape", "values", "training"};
  if (decays) header.emplace_back("decay");
  header.emplace_back("starts");
  if (wide) header.emplace_back("mean");
  header.emplace_back("deviation");
  if (wide) header.emplace_back("read by");
  Table table(header);
  for (const ParameterRow& row : report.rows) {
    if (!is_shown(row)) continue;
    const auto number = [&](double v) { return row.values ? fmt::format("{:.3g}", v) : std::string("-"); };
    const ParameterRow::Values v = row.values.value_or(ParameterRow::Values());
    std::vector<std::string> cells{row.name, to_string(row.shape), count_text(row.count), std::string(name(row.state))};
    if (decays) cells.emplace_back(!row.decayed ? "-" : *row.decayed ? "yes" : "no");
    cells.push_back(row.starts);
    if (wide) cells.push_back(number(v.mean));
    cells.push_back(number(v.deviation));
    if (wide) cells.push_back(readers_text(row));
    table.add(std::move(cells));
  }
  std::string text = table.text("  ", columns) + "\n";
  const auto totals = totals_of(report);
  for (const auto& [state, total] : totals)
    text += fmt::format("  {:<10}  {} values in {} tensor{}{}\n", name(state), count_text(total.values), total.tensors,
                        total.tensors == 1 ? "" : "s",
                        state == ParameterRow::constant ? ", not listed; --json has their names" : "");
  if (!report.values_unknown.empty())
    text += fmt::format("  {:<10}  not looked at: {}\n", "values", report.values_unknown);
  for (const std::string& remark : report.remarks) text += fmt::format("  {:<10}  {}\n", "note", remark);
  return text;
}

json parameters_json(const Recipe& recipe, const ParameterReport& report) {
  json rows = json::array(), totals = json::object();
  for (const ParameterRow& row : report.rows) {
    json item{{"name", row.name},
              {"shape", row.shape},
              {"values", row.count},
              {"state", name(row.state)},
              {"why", row.why},
              {"readers", row.readers},
              {"decayed", row.decayed ? json(*row.decayed) : json()},
              {"starts", row.starts}};
    if (row.values)
      item.update({{"mean", row.values->mean},
                   {"deviation", row.values->deviation},
                   {"least", row.values->least},
                   {"largest", row.values->largest}});
    rows.push_back(std::move(item));
  }
  for (const auto& [state, total] : totals_of(report))
    totals[std::string(name(state))] = {{"tensors", total.tensors}, {"values", total.values}};
  return {{"schema_version", 1},
          {"model", recipe.model},
          {"parameters", rows},
          {"totals", totals},
          {"values_unknown", report.values_unknown.empty() ? json() : json(report.values_unknown)},
          {"remarks", report.remarks}};
}

}  // namespace halfstep
