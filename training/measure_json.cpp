#include "training/measure_json.h"

#include <nlohmann/json.hpp>

namespace halfstep {
namespace {

using Json = nlohmann::ordered_json;

std::string key_of(const std::string& prefix, const std::string& loss, const char* name) {
  return prefix + (loss.empty() ? "" : loss + ".") + name;
}

Json rows_of(const ClassTable& table, const std::vector<std::string>& names) {
  Json rows = Json::array();
  for (size_t c = 0; c < table.support.size(); ++c) {
    Json& row = rows.emplace_back(Json{{"class", class_name(names, static_cast<int64_t>(c))}});
    row["labels"] = table.support[c];
    for (const auto& [measure, values] : table.columns) row[measure] = values[c];
  }
  return rows;
}

Json matrix_of(const Confusion& confusion) {
  Json rows = Json::array();
  const auto width = static_cast<std::ptrdiff_t>(confusion.classes);
  for (auto at = confusion.counts.begin(); at != confusion.counts.end(); at += width)
    rows.push_back(std::vector<int64_t>(at, at + width));
  return rows;
}

}  // namespace

void put_measures(Json& object, const MeasureReport& report, const std::string& prefix) {
  for (const MeasureValue& measure : report.values) object[prefix + measure.name] = measure.value;
  for (const ClassTable& table : report.tables)
    object[key_of(prefix, table.loss, "per_class")] = rows_of(table, report.class_names);
  for (const Confusion& confusion : report.confusions)
    object[key_of(prefix, confusion.loss, "confusion")] = matrix_of(confusion);
  if (!report.confusions.empty() && !report.class_names.empty()) object["class_names"] = report.class_names;
  if (!report.remarks.empty()) object[prefix + "remarks"] = report.remarks;
}

}  // namespace halfstep
