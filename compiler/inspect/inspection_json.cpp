#include "compiler/inspect/inspection_json.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace halfstep {
namespace {

using nlohmann::json;

json type_or_null(bool known, DType type) { return known ? json(name(type)) : json(); }

double rounded(double value) { return std::round(value * 1e3) / 1e3; }

json values_json(const std::vector<InspectedValue>& values) {
  json list = json::array();
  for (const InspectedValue& value : values) {
    json item{{"name", value.name}, {"type", name(value.type.dtype)}, {"shape", value.type.shape}};
    if (!value.slot.empty()) item["slot"] = value.slot;
    if (value.cast_from) item["cast_from"] = name(*value.cast_from);
    list.push_back(std::move(item));
  }
  return list;
}

json row_json(const PrecisionRow& row, bool typed) {
  json json_row{{"node", row.origin.name},
                {"phase", name(row.origin.phase)},
                {"operator", row.op},
                {"operand", type_or_null(typed, row.operand)},
                {"accumulator", row.accumulator ? json(name(*row.accumulator)) : json()},
                {"result", type_or_null(typed, row.result)},
                {"reason", row.reason},
                {"rule", row.rule}};
  for (const auto& [slot, type] : row.slots) json_row["slots"][to_string(slot)] = name(type);
  return json_row;
}

json node_json(const InspectedNode& node) {
  json row = row_json(node, node.typed);
  row["fate"] = name(node.fate);
  row["into"] = node.into.empty() ? json() : json(node.into);
  row["scope"] = node.scope;
  row["operands"] = values_json(node.operands), row["results"] = values_json(node.results);
  row["path"] = node.path;
  row["flops"] = std::round(node.cost.flops), row["low_flops"] = std::round(node.cost.low_flops);
  row["bytes"] = std::round(node.cost.bytes), row["microseconds"] = rounded(node.cost.microseconds);
  row["kept_bytes"] = node.cost.kept_bytes;
  return row;
}

json nodes_json(const std::vector<InspectedNode>& nodes) {
  json list = json::array();
  for (const InspectedNode& node : nodes) list.push_back(node_json(node));
  return list;
}

json cast_json(const InspectedCast& cast) {
  return {{"from", cast.from},
          {"at", cast.at},
          {"to", cast.to},
          {"phase", name(cast.phase)},
          {"from_type", name(cast.was)},
          {"to_type", name(cast.is)},
          {"elements", cast.elements},
          {"bytes", cast.bytes},
          {"moved_bytes", cast.moved},
          {"place", name(cast.place)},
          {"weight", cast.is_weight},
          {"reason", cast.reason}};
}

json totals_json(const Inspection& inspection) {
  const InspectionTotals& t = inspection.totals;
  return {{"flops", std::round(t.flops)},
          {"low_flops", std::round(t.low_flops)},
          {"low_share", t.flops > 0 ? t.low_flops / t.flops : 0},
          {"calls", t.calls},
          {"bytes", t.bytes},
          {"casts", inspection.casts.size()},
          {"cast_bytes", t.cast_bytes},
          {"cast_moved_bytes", t.cast_moved},
          {"forward_cast_bytes", t.forward_cast_bytes},
          {"forward_cast_bytes_least", t.least_forward_cast_bytes ? json(*t.least_forward_cast_bytes) : json()},
          {"forward_cast_bytes_torch", t.forward_cast_bytes_torch},
          {"casts_in_kernels", t.casts_in_kernels},
          {"activation_bytes", t.kept_bytes},
          {"activation_bytes_fp32", t.kept_bytes_fp32},
          {"estimated_microseconds", rounded(t.microseconds)},
          {"estimated_microseconds_fp32", rounded(t.microseconds_fp32)}};
}

json weights_json(const Inspection& inspection) {
  json list = json::array();
  for (const WeightRange& w : inspection.weights)
    list.push_back({{"name", w.name},
                    {"elements", w.elements},
                    {"overflow", w.overflow},
                    {"underflow", w.underflow},
                    {"subnormal", w.subnormal},
                    {"largest", w.largest}});
  return list;
}

}  // namespace

json inspection_json(const Inspection& inspection) {
  json ir_nodes = json::array();
  for (const PrecisionRow& row : inspection.report.precision) ir_nodes.push_back(row_json(row, true));
  const Machine& m = inspection.machine;
  return {{"schema_version", kInspectionSchema},
          {"model", inspection.model},
          {"graph", inspection.graph_name},
          {"precision", inspection.precision},
          {"preset", inspection.preset},
          {"policy", inspection.policy},
          {"batch", inspection.batch},
          {"machine",
           {{"name", m.name},
            {"bytes_per_second", m.bytes_per_second},
            {"low_flops_per_second", m.low_rate},
            {"full_flops_per_second", m.full_rate},
            {"launch_microseconds", m.launch_seconds * 1e6}}},
          {"summary", precision_summary(inspection.nodes)},
          {"totals", totals_json(inspection)},
          {"nodes", nodes_json(inspection.nodes)},
          {"backward", nodes_json(inspection.backward)},
          {"update", nodes_json(inspection.update)},
          {"casts",
           [&] {
             json list = json::array();
             for (const InspectedCast& cast : inspection.casts) list.push_back(cast_json(cast));
             return list;
           }()},
          {"weights", weights_json(inspection)},
          {"weights_unknown", inspection.weights_unknown.empty() ? json() : json(inspection.weights_unknown)},
          {"step_unknown", inspection.step_unknown.empty() ? json() : json(inspection.step_unknown)},
          {"remarks", inspection.report.remarks},
          {"ir_nodes", ir_nodes}};
}

}  // namespace halfstep
