// Places for boxes by Graphviz's dot.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace halfstep {

struct LayoutBox {
  double width = 0, height = 0;  // points
  double x = 0, y = 0;           // of its middle; y grows downwards
};

// Gives the boxes their places, edges (from, to) pointing down. Boxes of one rank have one y.
void lay_out(std::vector<LayoutBox>& boxes, const std::vector<std::pair<std::size_t, std::size_t>>& edges);

}  // namespace halfstep
