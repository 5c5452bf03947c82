// What the notes of a compiled step say of a run's data.
#pragma once

#include "data/data.h"
#include "program/program.h"

namespace halfstep {

// What the values of the step's integer inputs are checked against, as it was compiled.
inline ValueRanges noted_ranges(const StepNotes& notes) {
  ValueRanges ranges;
  ranges.classes = notes.label_classes.value_or(notes.classes.value_or(0));
  ranges.ignored = notes.ignored_label;
  ranges.rows = notes.table_rows;
  return ranges;
}

}  // namespace halfstep
