// What commands print about a compiled step.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "compiler/compile.h"
#include "compiler/precision_rows.h"
#include "compiler/recipe.h"
#include "data/data_feed.h"
#include "runtime/executor.h"

namespace halfstep {

// Rows of node, operator, operand / accumulator / result type, reason; those of Constants are left out.
std::string precision_table(const std::vector<NodeRow>& rows, size_t columns = 0);
nlohmann::json precision_json(const std::vector<NodeRow>& rows);
std::string pass_times_table(const CompileReport& report);
// Compile time, steps, planned memory.
std::string compile_summary(const CompileReport& report);
nlohmann::json compile_json(const CompileReport& report);
// What the user should know of how the data meets the inputs, on stderr.
void print_remarks(const DataFeed& feed);
// Of how the executor was made.
void print_remarks(const Executor& executor);

}  // namespace halfstep
