// The notes of a compiled step that runs read: what the compiler knew of the model, the loss and the recipe.
#pragma once

#include <charconv>
#include <string>
#include <string_view>

#include "data/data.h"
#include "program/program.h"

namespace halfstep {

inline constexpr const char* kAccumulationNote = "accumulation";  // batches an optimizer step
inline constexpr const char* kSeedNote = "seed";                  // of the recipe, as is the next
inline constexpr const char* kLearningRateNote = "learning_rate";
// The input that the loss added to the model's; absent: the model computes its loss.
inline constexpr const char* kLabelInputNote = "label_input";
inline constexpr const char* kClassesNote = "classes";             // of the model's output
inline constexpr const char* kLabelClassesNote = "label_classes";  // where the recipe says that labels have fewer
inline constexpr const char* kIgnoredLabelNote = "ignored_label";
// "table_rows.INPUT" says below what the values of an input that chooses rows of a table must be.
inline constexpr std::string_view kTableRows = "table_rows.";
// Of a step whose constants are zeros because their data was missing: what is missing.
inline constexpr const char* kMissingConstants = "missing_constants";

// 0 where it is no number.
inline int64_t count_of(const std::string& note) {
  int64_t count = 0;
  std::from_chars(note.data(), note.data() + note.size(), count);
  return count;
}

// What the values of the step's integer inputs are checked against, as it was compiled.
inline ValueRanges noted_ranges(const CompiledModel& model) {
  ValueRanges ranges;
  for (const auto& [note, value] : model.notes) {
    if (note == kLabelClassesNote || (note == kClassesNote && !model.notes.contains(kLabelClassesNote)))
      ranges.classes = count_of(value);
    if (note == kIgnoredLabelNote) ranges.ignored = count_of(value);
    if (note.starts_with(kTableRows)) ranges.rows[note.substr(kTableRows.size())] = count_of(value);
  }
  return ranges;
}

}  // namespace halfstep
