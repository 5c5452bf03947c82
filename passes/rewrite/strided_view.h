// Where the elements of a value lie in another one, which it is a part of in another shape or order.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// Element [i, j, ...] is element offset + i strides[0] + j strides[1] + ... of `base`, in row-major order. The stride
// of an axis of size 1 means nothing.
struct StridedView {
  Value base;
  int64_t offset = 0;
  Ints strides;
};

// Looks through slices, transposes, and reshapes that split axes, as far as that goes: at the least `v` itself.
StridedView strided_view(const Graph& graph, Value v);

}  // namespace halfstep
