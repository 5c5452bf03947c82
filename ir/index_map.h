// Index maps of movement ops: which elements of its operands an element of the result is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace halfstep {

enum class IndexMap : uint8_t {
  none,
  same,        // the element at the same index
  row_major,   // the element at the same row-major position: the shape alone changes
  repeated,    // the same elements again along axes of size 1
  permuted,    // axes in another order
  part,        // every step-th index from a start to a limit
  padded,      // between and around the elements stand others
  joined,      // operands one after the other along an axis
  coordinate,  // no operand: the index along an axis
  indirect,    // rows of operand 0, chosen by operand 1
  scattered,   // operand 0 with rows of operand 2 put where operand 1 chooses
};

// The index along one axis of an operand: (index[axis] * step + offset) / divisor.
struct AxisRead {
  size_t axis = 0;   // of the result
  int64_t step = 1;  // 0: the axis is repeated
  int64_t offset = 0;
  int64_t divisor = 1;
  bool bounded = false;  // outside the axis, and where the division leaves a rest, the operand has no element
};

// For each operand that is read, the first ones of the op, its axes. The element is that of the operand which has one
// there; of none: `fill`. Without it one operand always has one.
struct IndexReads {
  std::vector<std::vector<AxisRead>> operands;
  std::optional<double> fill = std::nullopt;
};

}  // namespace halfstep
