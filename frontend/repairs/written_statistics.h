// Batch norms that are written out with running statistics, as a frozen one is: (x - m) / sqrt(v + epsilon) * scale +
// bias, or x * a + (bias - m * a) with a = scale / sqrt(v + epsilon).
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

struct WrittenStatistics {
  std::vector<std::string> means, variances;  // of parameters
};

// Makes m and v states that training leaves as they are. A gradient would take them for weights, and a variance below
// 0. Where the export folded them into a scale and a bias there is nothing to find.
Graph keep_written_statistics(const Graph& graph, WrittenStatistics& found);

}  // namespace halfstep
