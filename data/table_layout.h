// Which columns of a table are what, from its first records, the recipe and what a run kept.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/data_facts.h"
#include "data/data_options.h"

namespace halfstep {

struct TableLayout {
  bool header = false;             // the first record names the columns
  std::vector<std::string> names;  // of all; without a header "1", "2", ...
  std::vector<size_t> inputs, labels;
  std::optional<size_t> text, image;  // a path
};

using Record = std::vector<std::string>;

// `first` is the first record. Throws Error, whose lines begin with `where`.
TableLayout table_layout(const Record& first, const DataOptions& options, const DataFacts& facts,
                         const std::string& where);

// The number that a field is; nullopt: it is none. Spaces around it do not count; true and false are 1 and 0.
std::optional<double> field_number(std::string_view field);
// How tables say that a value is missing: nothing, NA, N/A, NaN, null, None, ?.
bool is_missing(std::string_view field);
// The same but for None, which may well be a class.
bool is_missing_label(std::string_view field);
std::string_view trimmed(std::string_view text);

}  // namespace halfstep
