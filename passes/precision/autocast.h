// Gives every node of the forward graph a precision and inserts the casts, one per value and type:
//
//   %1 = matmul(%x, %w) : f32                     %1 = matmul(cast(%x), cast(%w)) : f16
//   %2 = relu(%1) : f32                     ->    %2 = relu(%1) : f16
//   %3 = exp(%2) : f32                            %3 = exp(cast(%2)) : f32
//
// What an op needs is a column of its row (ir/op.h), which rules may override by operator or node name, and which
// values need beyond it says passes/precision/precision_needs.h. Parameters and constants do not promote what they
// meet; what meets a scalar or a small constant that the low type rounds computes in f32 with it and writes the low
// type. Runs before differentiate, so that saved activations are low, backward nodes inherit their precision, and a
// parameter's gradient is f32. Leaves, integers, booleans, f64, explicit casts and `keep` operands (statistics) stay as
// they are. Other presets propagate otherwise (passes/precision/presets.h).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/op.h"
#include "passes/precision/precision_rules.h"

namespace halfstep {

struct AutocastOptions {
  std::optional<DType> low = DType::f16;  // absent: everything stays f32
  std::string preset = "halfstep";        // of passes/precision/presets.h
  std::vector<std::string> removed = {};  // operators that neither the preset nor their own rows decide
  std::vector<PrecisionRule> rules = {};  // after the preset's
  SourceNodes sources = {};
};

// What a node of the file reads at a place, or what it gives.
struct FileSlot {
  std::optional<size_t> operand = {};  // absent: the result
  friend auto operator<=>(const FileSlot&, const FileSlot&) = default;
};
std::string to_string(const FileSlot& slot);  // "2", "result"

// One row of the precision table for each operator node that computes on data or weights.
struct PrecisionRow {
  Origin origin;
  std::string op;
  DType operand = DType::f32;        // as read; of several, the first that autocast may cast
  std::optional<DType> accumulator;  // absent: nothing is computed
  DType result = DType::f32;
  std::string reason;
  std::string rule = {};  // that stands behind it: "torch 2.11, fp32", "policy.toml:12", "halfstep 1, row of matmul"
  std::map<FileSlot, DType> slots = {};  // where a rule is about one of them: the type that each has
};
using AutocastReport = std::vector<PrecisionRow>;

struct AutocastNotes {
  std::vector<std::string> remarks;  // on rules that decide nothing
  // Of casts in the forward between values that depend on inputs, each read and written once, before fusion.
  int64_t cast_bytes = 0;
  // With the types of free nodes that move the fewest bytes (free_types.h); absent: the preset lets no node choose.
  std::optional<int64_t> least_cast_bytes;
  int64_t free_nodes = 0;
};

// Error if a rule's pattern is no operator and matches no node, or there is no such preset. `report` and `notes` may be
// nullptr.
Graph autocast(const Graph& graph, const AutocastOptions& options, AutocastReport* report = nullptr,
               AutocastNotes* notes = nullptr);

}  // namespace halfstep
