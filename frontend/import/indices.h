// Index arithmetic with the builder: positions on axes and numbers of elements, as i64 tensors.
#pragma once

#include "ir/builder.h"

namespace halfstep {

inline int64_t axis_number(size_t axis) { return static_cast<int64_t>(axis); }

// Each element's position on `axis`.
Value positions(Builder& b, const Shape& shape, size_t axis);
// The row-major number, in a tensor of `shape`, of the element at `place` on `axis` and at its own position on all
// other axes.
Value element_numbers(Builder& b, Value place, const Shape& shape, size_t axis);
Value flat(Builder& b, Value x);
Value gather(Builder& b, Value x, Value indices, size_t axis = 0);

}  // namespace halfstep
