#include "cli/page/layout.h"

#include <graphviz/gvc.h>

#include <cmath>
#include <memory>
#include <string>

#include "base/error.h"

namespace halfstep {
namespace {

constexpr double kPointsPerInch = 72;

// Graphviz takes texts that it may write to.
void set(void* object, const char* name, std::string value) {
  std::string key = name, none;
  agsafeset(object, key.data(), value.data(), none.data());
}

Agnode_t* add_node(Agraph_t* graph, size_t number) {
  std::string name = std::to_string(number);
  return agnode(graph, name.data(), 1);
}

struct CloseGraph {
  void operator()(Agraph_t* graph) const { agclose(graph); }
};
struct FreeContext {
  void operator()(GVC_t* context) const { gvFreeContext(context); }
};

}  // namespace

void lay_out(std::vector<LayoutBox>& boxes, const std::vector<std::pair<size_t, size_t>>& edges) {
  if (boxes.empty()) return;
  agseterr(AGMAX);  // what it warns of is ours
  const std::unique_ptr<GVC_t, FreeContext> context(gvContext());
  std::string name = "level";
  const std::unique_ptr<Agraph_t, CloseGraph> graph(agopen(name.data(), Agdirected, nullptr));
  set(graph.get(), "rankdir", "TB");
  set(graph.get(), "splines", "none");
  set(graph.get(), "nodesep", "0.25");
  set(graph.get(), "ranksep", "0.4");
  set(graph.get(), "nslimit", "4");  // iterations: of crossings and places, a few are as good as all
  set(graph.get(), "nslimit1", "4");
  set(graph.get(), "mclimit", "0.5");
  std::vector<Agnode_t*> nodes;
  for (size_t i = 0; i < boxes.size(); ++i) {
    Agnode_t* node = nodes.emplace_back(add_node(graph.get(), i));
    set(node, "shape", "box");
    set(node, "fixedsize", "true");
    set(node, "label", "");
    set(node, "width", std::to_string(boxes[i].width / kPointsPerInch));
    set(node, "height", std::to_string(boxes[i].height / kPointsPerInch));
  }
  for (const auto& [from, to] : edges) agedge(graph.get(), nodes[from], nodes[to], nullptr, 1);
  if (gvLayout(context.get(), graph.get(), "dot") != 0)
    throw Error("Graphviz has no layout 'dot': its plug-ins are not registered; `dot -c` as root registers them");
  for (size_t i = 0; i < boxes.size(); ++i) {
    const pointf place = ND_coord(nodes[i]);
    boxes[i].x = std::round(place.x), boxes[i].y = -std::round(place.y);
  }
  gvFreeLayout(context.get(), graph.get());
}

}  // namespace halfstep
