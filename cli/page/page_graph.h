// The graph of the page: the file's nodes in the clusters of their scopes, each level laid out by itself.
#pragma once

#include <string>
#include <vector>

#include "cli/page/layout.h"
#include "compiler/inspect/inspection.h"

namespace halfstep {

struct PageItem {
  bool is_cluster = false;
  size_t index = 0;  // of the report's nodes, or of the clusters
  LayoutBox box;
};

struct PageCluster {
  std::string name;
  std::vector<PageItem> items;
};

struct PageEdge {
  size_t from = 0, to = 0;  // of the report's nodes
  bool cast = false;        // one stands between them
};

struct PageGraph {
  std::vector<PageCluster> clusters;  // the first holds all others
  std::vector<PageEdge> edges;
};

// Of what computes: constants and folded nodes are not in it. Where many nodes stand side by side in one scope, they
// are divided in the order of the file.
PageGraph page_graph(const Inspection& inspection);

}  // namespace halfstep
