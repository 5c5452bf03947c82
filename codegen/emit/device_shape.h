// How the points of a kernel are shared out among the lanes, steps and threads of a GPU.
#pragma once

#include "codegen/kernel/kernel.h"

namespace halfstep {

constexpr int64_t kEnoughThreads = int64_t{1} << 16;
constexpr int64_t kBlocksOfLongRows = 2;  // a processor, with half of its registers each

// Values of the lane variable that a thread takes at once.
unsigned choose_lanes(const Kernel& kernel);

// Steps over memory that stand together, `most` at most, so that their loads, those that depend on `walked`, do not
// wait for each other.
int64_t steps_together(const Kernel& kernel, int64_t lanes, VariableSet walked, int64_t most);

// Whether something it computes takes many registers by itself: a power, a logarithm, a sine, a cosine or a remainder.
bool has_large_functions(const Kernel& kernel);

// Of a row, or of a chunk of one, `vectors` of lanes: a part of a warp, a warp or a block has it. What it knows of them
// stays in its registers from pass to pass where `cached`.
struct RowShape {
  int64_t vectors = 1, threads = 1;
  bool cached = false;
};
RowShape row_shape(const Kernel& kernel, int64_t lanes);

}  // namespace halfstep
