// Reproducible random tensors for tests.
#pragma once

#include <cmath>
#include <string>

#include "base/philox.h"
#include "ir/graph.h"
#include "ir/op.h"

namespace halfstep {

inline Tensor random_tensor(const TensorType& type, uint64_t seed, double low, double high, int64_t bound) {
  Tensor t(type);
  for (int64_t i = 0; i < type.element_count(); ++i) {
    const double u = philox_uniform(seed, 0, 7, static_cast<uint64_t>(i));
    t.set(i, is_floating(type.dtype) ? low + u * (high - low) : std::floor(u * static_cast<double>(bound)));
  }
  return t;
}

// A value for every leaf of the graph.
inline NamedTensors random_leaves(const Graph& graph, uint64_t seed, double low = -1, double high = 1,
                                  int64_t bound = 2) {
  NamedTensors leaves;
  for (const Node& node : graph.nodes())
    if (is_leaf(*node.op)) leaves[leaf_name(node)] = random_tensor(node.results[0], seed++, low, high, bound);
  return leaves;
}

}  // namespace halfstep
