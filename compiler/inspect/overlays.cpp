#include "compiler/inspect/overlays.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "frontend/export/annotate.h"

namespace halfstep {
namespace {

std::string written_type(const InspectedNode& node) { return node.typed ? std::string(name(node.result)) : "none"; }

std::string colour_of(const InspectedNode& node) {
  if (!node.typed || node.fate == Fate::folded || node.fate == Fate::constant) return "#eceff3";
  return is_low(node.result) ? "#b9d3fb" : is_floating(node.result) ? "#fbd5a8" : "#dfe3e8";
}

}  // namespace

nlohmann::json model_explorer_data(const Inspection& inspection) {
  nlohmann::json results = nlohmann::json::object();
  for (const InspectedNode& node : inspection.nodes)
    if (node.file_node) results[*node.origin.name] = {{"value", written_type(node)}, {"bgColor", colour_of(node)}};
  return {{inspection.graph_name, {{"results", results}}}};
}

void write_annotated(const Inspection& inspection, const std::filesystem::path& path) {
  std::vector<NodeTexts> texts(inspection.report.file_nodes.size());
  for (const InspectedNode& node : inspection.nodes) {
    if (!node.file_node) continue;
    NodeTexts& of_node = texts[*node.file_node];
    of_node = {{"halfstep.writes", written_type(node)}, {"halfstep.why", node.reason}};
    if (!node.typed) continue;
    of_node.emplace_back("halfstep.reads", name(node.operand));
    if (node.accumulator) of_node.emplace_back("halfstep.sums", name(*node.accumulator));
  }
  annotate_model(read_onnx_file(inspection.model), texts, path);
}

}  // namespace halfstep
