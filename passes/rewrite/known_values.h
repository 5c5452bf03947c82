// Values of a graph that no leaf but constants decides.
#pragma once

#include <map>
#include <vector>

#include "ir/interpret.h"

namespace halfstep {

class KnownValues {
 public:
  // The elements of `v`, an expression of constants; nullptr if it is none, or large. Remembered: a graph may grow
  // between two calls, but must be the same one.
  const std::vector<double>* of(const Graph& graph, Value v);

 private:
  std::vector<char> is_known_;  // by node
  std::map<NodeId, InterpretedTensor> values_;
  int64_t elements_ = 0;  // of values_
};

}  // namespace halfstep
