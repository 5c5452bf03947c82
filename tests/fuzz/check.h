// One random graph through the real pipeline, kernels and an executor, against three independent truths:
//
// - the program's own graph as the interpreter computes it in double with every value rounded to its type: what the
//   kernels may differ by is what f32 arithmetic in any order amounts to;
// - the graph as it was built, in f32, with its own gradients, in double without rounding: what a precision may differ
//   by is what rounding every value to the low type, up or down, amounts to;
// - for the latter's gradients central differences, where they show that the loss is smooth.
//
// How roundings amount to differences is measured by perturbed runs of the reference (tests/fuzz/perturbed.h): a
// difference counts if it is more than kWidening times the largest of as many runs as it takes, up to kMostRuns.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "codegen/target/target.h"
#include "ir/graph.h"
#include "passes/pipeline.h"
#include "tests/fuzz/values.h"

namespace halfstep::fuzz {

inline constexpr double kWidening = 4;
inline constexpr int kMostRuns = 256;
inline constexpr double kLossScale = 64;  // of fp16

// A graph in f32 with an output "loss" f32[] and others, an input with a first axis, and what its leaves hold.
struct FuzzCase {
  Graph graph;
  CaseValues values;
};

NamedTensors leaves_of(const FuzzCase& fuzz_case);

enum class Truth : uint8_t { program, exact, differences, compiler };
std::string_view name(Truth truth);

struct Failure {
  Truth truth = Truth::program;
  std::string precision;     // "fp32", "fp16", "bf16"
  std::string architecture;  // "" for differences
  std::string what;          // the message of an exception, or element, found, expected, allowed
};
std::string to_string(const Failure& failure);

struct Checked {
  std::vector<Failure> failures;
  // Ops of the graphs that were compiled and compared, and those among them that only the backward has.
  std::vector<std::string> ops;
  bool smooth = false;  // central differences were compared
  bool exact = false;   // the exact graph was, in a precision at least
};

struct CheckOptions {
  std::vector<KernelTarget> targets;  // at least one; all of one device
  std::vector<std::optional<DType>> precisions{std::nullopt, DType::f16, DType::bf16};
  TargetForms forms{};      // the GPU's run on a CPU too
  bool recomputes = false;  // within no memory at all: whatever can be is computed again
};

// Compiles the kernels of all cases of a batch together, and so much faster than each alone.
std::vector<Checked> check_cases(const std::vector<FuzzCase>& cases, const CheckOptions& options);

// "fp32", "fp16", "bf16".
std::string precision_name(std::optional<DType> low);
// The CPUs to compile for: x86-64-v3 and the one at hand.
std::vector<KernelTarget> cpu_targets();

}  // namespace halfstep::fuzz
