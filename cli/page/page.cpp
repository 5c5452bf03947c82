#include "cli/page/page.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "cli/page/embed.h"
#include "cli/page/page_files.h"
#include "cli/page/page_graph.h"
#include "compiler/inspect/inspection_json.h"
#include "program/json_text.h"

namespace halfstep {
namespace {

using nlohmann::json;

class PageData {
 public:
  explicit PageData(const Inspection& inspection) : inspection_(inspection) {
    for (size_t i = 0; i < inspection.nodes.size(); ++i) numbers_.emplace(*inspection.nodes[i].origin.name, i);
  }

  json run(const json& evidence) {
    const Inspection& in = inspection_;
    json data;
    data["nodes"] = nodes_of(in.nodes), data["backward"] = nodes_of(in.backward), data["update"] = nodes_of(in.update);
    data["strings"] = strings_;
    add_graph(data);
    data["casts"] = json::array();
    for (const InspectedCast& cast : in.casts)
      data["casts"].push_back({{"from", cast.from},
                               {"at", cast.at},
                               {"to", cast.to},
                               {"phase", name(cast.phase)},
                               {"was", name(cast.was)},
                               {"is", name(cast.is)},
                               {"elements", cast.elements},
                               {"bytes", cast.bytes},
                               {"moved", cast.moved},
                               {"place", name(cast.place)},
                               {"reason", cast.reason}});
    const json whole = inspection_json(in);
    for (const char* key :
         {"model", "precision", "preset", "batch", "summary", "totals", "weights", "weights_unknown", "step_unknown"})
      data[key] = whole[key];
    data["machine"] = in.machine.name;
    data["low"] = in.low ? json(name(*in.low)) : json();
    data["evidence"] = evidence.value("tensors", json::array());
    data["findings"] = evidence.value("findings", json::array());
    return data;
  }

 private:
  size_t text(const std::string& value) {
    const auto [found, added] = texts_.emplace(value, strings_.size());
    if (added) strings_.push_back(value);
    return found->second;
  }

  int64_t number(const std::string& node) const {
    const auto found = numbers_.find(node);
    return found == numbers_.end() ? -1 : static_cast<int64_t>(found->second);
  }

  static json values(const std::vector<InspectedValue>& list) {
    json result = json::array();
    for (const InspectedValue& v : list)
      result.push_back(
          {v.slot, v.name, name(v.type.dtype), v.type.shape, v.cast_from ? json(name(*v.cast_from)) : json()});
    return result;
  }

  json nodes_of(const std::vector<InspectedNode>& nodes) {
    json list = json::array();
    for (const InspectedNode& node : nodes) {
      const auto type = [&](DType dtype) { return node.typed ? json(name(dtype)) : json(); };
      list.push_back(
          {{"name", *node.origin.name},
           {"operator", node.op},
           {"phase", name(node.origin.phase)},
           {"fate", name(node.fate)},
           {"types",
            {type(node.operand), node.accumulator ? json(name(*node.accumulator)) : json(), type(node.result)}},
           {"reason", text(node.reason)},
           {"rule", text(node.rule)},
           {"into", node.into.empty() ? -1 : number(node.into)},
           {"from", node.path.empty() ? -1 : number(node.path.front())},
           {"scope", node.scope},
           {"operands", values(node.operands)},
           {"results", values(node.results)},
           {"cost",
            {std::round(node.cost.flops), std::round(node.cost.low_flops), std::round(node.cost.bytes),
             std::round(node.cost.microseconds * 1e3) / 1e3, node.cost.kept_bytes}}});
    }
    return list;
  }

  void add_graph(json& data) const {
    const PageGraph graph = page_graph(inspection_);
    data["clusters"] = json::array(), data["edges"] = json::array();
    for (const PageCluster& cluster : graph.clusters) {
      json items = json::array();
      for (const PageItem& item : cluster.items) {
        const auto index = static_cast<int64_t>(item.index);
        items.push_back({item.is_cluster ? -index : index, item.box.x, item.box.y, item.box.width, item.box.height});
      }
      data["clusters"].push_back({{"name", cluster.name}, {"items", items}});
    }
    for (const PageEdge& edge : graph.edges) data["edges"].push_back({edge.from, edge.to, edge.cast ? 1 : 0});
  }

  const Inspection& inspection_;
  std::unordered_map<std::string, size_t> numbers_, texts_;
  std::vector<std::string> strings_;
};

}  // namespace

json read_evidence(const std::filesystem::path& path) {
  const json file = parse_json(read_file(path));
  if (file.is_discarded()) throw Error(fmt::format("'{}' is no JSON: give what doctor --json wrote", path.string()));
  json tensors = json::array();
  if (!file.is_object() || !file.contains("tensors") || !file["tensors"].is_array())
    throw Error(fmt::format("'{}' has no list 'tensors': give what doctor --json wrote", path.string()));
  for (const json& tensor : file["tensors"])
    if (tensor.is_object() && tensor.contains("node") && tensor["node"].is_string() && tensor.contains("direction") &&
        tensor["direction"].is_string())
      tensors.push_back(tensor);
  json findings = json::array();
  if (file.contains("findings") && file["findings"].is_array())
    for (const json& finding : file["findings"])
      if (finding.is_object()) findings.push_back(finding);
  return {{"tensors", tensors}, {"findings", findings}};
}

std::string inspection_page(const Inspection& inspection, const json& evidence) {
  return page_of(
      page_files::html, std::string(page_files::css),
      fmt::format("{}{}{}{}", page_files::common_js, page_files::model_js, page_files::graph_js, page_files::panel_js),
      PageData(inspection).run(evidence));
}

}  // namespace halfstep
