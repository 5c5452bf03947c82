// Of a loss whose mean is not over samples alone: what it is over.
#pragma once

#include "passes/training/loss_scaling.h"

namespace halfstep {

struct CountedLabels {
  Value total;          // how many labels of the batch count, in samples, or what they weigh; absent: all alike
  int64_t samples = 0;  // of the batch
};

inline CountedLabels counted_labels(const Graph& graph, const LossIndex& loss) {
  const Value weighed = graph.output(of(kWeighed, loss)), total = weighed ? weighed : graph.output(of(kCounted, loss));
  if (!total) return {};
  const Value rows = graph.output(of(weighed ? kRowWeighed : kRowCounted, loss));
  return {total, graph.type(rows).element_count()};
}

}  // namespace halfstep
