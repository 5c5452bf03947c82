// Measures as text.
#pragma once

#include <cstddef>
#include <string>

#include "training/measures.h"

namespace halfstep {

// "f1 0.8812, auc 0.9931"; of none "".
std::string measures_text(const MeasureReport& report);
// The same in lines of at most `columns` (0: of 80), each behind `indent`.
std::string wrapped(const std::string& measures, size_t columns, const std::string& indent = "  ");
// A row for each class, and confusion matrices; of matrices that a line cannot hold what is confused most.
std::string class_tables_text(const MeasureReport& report, size_t columns);

}  // namespace halfstep
