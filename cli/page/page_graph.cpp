#include "cli/page/page_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

namespace halfstep {
namespace {

constexpr size_t kRoot = 0;
constexpr size_t kMostItems = 120;  // of one level; more are divided
constexpr size_t kPart = 40;
constexpr double kNodeWidth = 132, kNodeHeight = 38, kClusterWidth = 170, kClusterHeight = 50;

bool is_drawn(const InspectedNode& node) {
  return node.fate == Fate::computed || node.fate == Fate::part || node.fate == Fate::merged ||
         node.fate == Fate::added;
}

class GraphBuilder {
 public:
  explicit GraphBuilder(const Inspection& inspection) : nodes_(inspection.nodes) {}

  PageGraph run() {
    graph_.clusters.push_back({"", {}});
    parents_.push_back(kRoot);
    for (size_t i = 0; i < nodes_.size(); ++i)
      if (is_drawn(nodes_[i])) graph_.clusters[cluster_of(nodes_[i].scope)].items.push_back({false, i, {}});
    dissolve_single();
    divide_large();
    find_places();
    add_edges();
    lay_out_levels();
    return std::move(graph_);
  }

 private:
  size_t cluster_of(const std::string& scope) {
    if (scope.empty()) return kRoot;
    const auto found = by_scope_.find(scope);
    if (found != by_scope_.end()) return found->second;
    const size_t slash = scope.rfind('/');
    const size_t parent = cluster_of(slash == std::string::npos ? "" : scope.substr(0, slash));
    const size_t made = graph_.clusters.size();
    graph_.clusters.push_back({slash == std::string::npos ? scope : scope.substr(slash + 1), {}});
    parents_.push_back(parent);
    graph_.clusters[parent].items.push_back({true, made, {}});
    by_scope_.emplace(scope, made);
    return made;
  }

  // A cluster of one item gives it to the one around; of one cluster it takes the name.
  void dissolve_single() {
    for (size_t c = graph_.clusters.size(); c-- > 1;) {
      PageCluster& cluster = graph_.clusters[c];
      if (cluster.items.size() != 1) continue;
      const PageItem only = cluster.items.front();
      if (only.is_cluster) graph_.clusters[only.index].name = cluster.name + "/" + graph_.clusters[only.index].name;
      for (PageItem& item : graph_.clusters[parents_[c]].items)
        if (item.is_cluster && item.index == c) item = only;
      if (only.is_cluster) parents_[only.index] = parents_[c];
      cluster.items.clear();
    }
  }

  void divide_large() {
    for (size_t c = 0; c < graph_.clusters.size(); ++c) {
      while (graph_.clusters[c].items.size() > kMostItems) {
        const std::vector<PageItem> items = std::move(graph_.clusters[c].items);
        std::vector<PageItem> parts;
        for (size_t begin = 0; begin < items.size(); begin += kPart) {
          const size_t end = std::min(begin + kPart, items.size());
          PageCluster part{fmt::format("{} to {} of {}", begin + 1, end, items.size()), {}};
          for (size_t i = begin; i < end; ++i) {
            part.items.push_back(items[i]);
            if (items[i].is_cluster) parents_[items[i].index] = graph_.clusters.size();
          }
          parts.push_back({true, graph_.clusters.size(), {}});
          graph_.clusters.push_back(std::move(part));
          parents_.push_back(c);
        }
        graph_.clusters[c].items = std::move(parts);
      }
    }
  }

  // For every node the clusters around it, the innermost first.
  void find_places() {
    inside_.assign(nodes_.size(), kRoot);
    for (size_t c = 0; c < graph_.clusters.size(); ++c)
      for (const PageItem& item : graph_.clusters[c].items)
        if (!item.is_cluster) inside_[item.index] = c;
  }

  void add_edges() {
    std::unordered_map<std::string_view, size_t> makers, by_name;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!is_drawn(nodes_[i])) continue;
      by_name.emplace(*nodes_[i].origin.name, i);
      for (const std::string& tensor : nodes_[i].tensors_given)
        if (!tensor.empty()) makers.emplace(tensor, i);
    }
    const auto casts = [&](size_t from, size_t to) {
      return std::ranges::any_of(nodes_[to].operands, [&](const InspectedValue& operand) {
        return operand.cast_from && operand.name == *nodes_[from].origin.name;
      });
    };
    std::set<std::pair<size_t, size_t>> known;
    const auto add = [&](size_t from, size_t to) {
      if (from == to || !known.emplace(from, to).second) return;
      graph_.edges.push_back({from, to, casts(from, to)});
    };
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!is_drawn(nodes_[i])) continue;
      for (const std::string& tensor : nodes_[i].tensors_read)
        if (const auto maker = makers.find(tensor); maker != makers.end()) add(maker->second, i);
      if (nodes_[i].tensors_read.empty())
        for (const InspectedValue& operand : nodes_[i].operands)
          if (const auto maker = by_name.find(operand.name); maker != by_name.end()) add(maker->second, i);
    }
  }

  std::vector<size_t> around(size_t node) const {
    std::vector<size_t> clusters{inside_[node]};
    while (clusters.back() != kRoot) clusters.push_back(parents_[clusters.back()]);
    return clusters;
  }

  void lay_out_levels() {
    // The places of nodes and clusters in their level.
    std::vector<size_t> node_place(nodes_.size()), cluster_place(graph_.clusters.size());
    for (const PageCluster& cluster : graph_.clusters)
      for (size_t i = 0; i < cluster.items.size(); ++i)
        (cluster.items[i].is_cluster ? cluster_place : node_place)[cluster.items[i].index] = i;
    std::vector<std::set<std::pair<size_t, size_t>>> edges(graph_.clusters.size());
    for (const PageEdge& edge : graph_.edges) {
      std::vector<size_t> from = around(edge.from), to = around(edge.to);
      size_t a = node_place[edge.from], b = node_place[edge.to];
      // From the innermost cluster of each up to the one that holds both.
      while (from.back() == to.back() && from.size() > 1 && to.size() > 1 && from[from.size() - 2] == to[to.size() - 2])
        from.pop_back(), to.pop_back();
      if (from.size() > 1) a = cluster_place[from[from.size() - 2]];
      if (to.size() > 1) b = cluster_place[to[to.size() - 2]];
      if (a != b) edges[from.back()].emplace(a, b);
    }
    for (size_t c = 0; c < graph_.clusters.size(); ++c) {
      std::vector<LayoutBox> boxes;
      for (PageItem& item : graph_.clusters[c].items)
        boxes.push_back(item.is_cluster ? LayoutBox{kClusterWidth, kClusterHeight}
                                        : LayoutBox{kNodeWidth, kNodeHeight});
      lay_out(boxes, {edges[c].begin(), edges[c].end()});
      for (size_t i = 0; i < boxes.size(); ++i) graph_.clusters[c].items[i].box = boxes[i];
    }
  }

  const std::vector<InspectedNode>& nodes_;
  PageGraph graph_;
  std::vector<size_t> parents_;  // of the clusters
  std::vector<size_t> inside_;   // of the nodes: the innermost cluster
  std::unordered_map<std::string, size_t> by_scope_;
};

}  // namespace

PageGraph page_graph(const Inspection& inspection) { return GraphBuilder(inspection).run(); }

}  // namespace halfstep
