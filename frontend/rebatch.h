// A model exported at one batch size, read at another. A first import at the exported batch
// records shapes; the constants that the exporter derived from the batch follow it where that can be proven.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>

#include "base/tensor.h"
#include "ir/attributes.h"

namespace halfstep {

struct Batch {
  int64_t exported = 1;
  int64_t wanted = 1;
  bool changed() const { return exported != wanted; }
};

// What the import at the exported batch saw of the operands that matter, by node and position.
struct Recording {
  std::unordered_map<std::string, Shape> shapes;
  std::unordered_map<std::string, Ints> constants;
};

// A reshape took `exported_in` to `exported_out`; the shape it takes `in` to. The batch must be one axis of the operand
// whose size alone changed, and the result must keep the rows of the batch apart, the batch outermost in its axis; that
// leaves one answer. Nothing if there is no such answer, or several.
std::optional<Shape> follow_batch(const Shape& exported_in, const Shape& in, const Shape& exported_out, Batch batch);

}  // namespace halfstep
