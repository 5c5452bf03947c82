// TensorFlow's automatic mixed precision (grappler, auto_mixed_precision.cc): which nodes run low. Classes stand for
// its lists: low = allow, full = deny, widest = infer, follow = clear.
//
//   deny -> infer -> clear -> infer -> clear -> allow -> infer      the classes
//   f32     f32      f32      f32      low      low      f32        what is painted
//
// A node downstream of a denied one through clear and infer nodes is denied, up to the last infer or denied node on the
// way. Clear and infer nodes between allowed ones are painted low, then clear nodes beside what is low. All others,
// those in no list too, stay f32; casts stand at the borders.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "passes/precision/precision_rules.h"

namespace halfstep {

struct Colour {
  bool is_low = false;
  std::string reason;
};
// For each node of the graph.
std::vector<Colour> paint(const Graph& graph, const std::vector<PrecisionClass>& classes);

}  // namespace halfstep
