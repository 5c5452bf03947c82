// The three truths of tests/fuzz/check.h, by name of a result: "y0", "loss", "gradient/w", "evaluate/y0".
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "passes/pipeline.h"
#include "tests/fuzz/check.h"

namespace halfstep::fuzz {

struct Result {
  DType dtype = DType::f32;
  std::vector<double> values;
};
using Results = std::map<std::string, Result>;

// The programs of one case in one precision, before fusion and after, and what their leaves hold.
struct Prepared {
  std::optional<DType> low;
  PipelineResult pipeline;   // up to fusion: "gradients" and "evaluate" are what counts
  std::vector<Graph> fused;  // "gradients", "evaluate"
  NamedTensors leaves;       // of all programs
};
Prepared prepare(const FuzzCase& fuzz_case, std::optional<DType> low);

// A parameter's gradient, stored in an arena, in the layout of the graph it comes from.
std::vector<double> gradient_of(const ArenaSlice& slice, const std::vector<double>& arena);

// A reference with the differences that its perturbed runs show, made as they are asked for.
class Reference {
 public:
  virtual ~Reference() = default;
  virtual const Results& results() = 0;
  // As the results, the largest difference of `runs` runs; infinite where a run is NaN or infinite elsewhere.
  const Results& differences(int runs);

 protected:
  virtual Results perturbed(uint64_t run) = 0;

 private:
  Results differences_;
  int runs_ = 0;
};

std::unique_ptr<Reference> program_reference(const Prepared& prepared);

// The graph as built, in double. `type`: of the roundings in perturbed runs.
struct ExactGraph {
  Graph graph;  // with gradients, expanded
  NamedTensors leaves;
  Results results;
  double largest = 0;  // magnitude of a value that is no constant
};
ExactGraph exact_graph(const FuzzCase& fuzz_case);
std::unique_ptr<Reference> exact_reference(const ExactGraph& exact, DType type);

// What is wrong with the gradients of `exact`, if anything; nullopt and not smooth: nothing can be said.
struct Differences {
  bool smooth = false;
  std::string wrong;
};
Differences compare_differences(const FuzzCase& fuzz_case, const ExactGraph& exact);

// "" if the results agree with the reference.
std::string compare(const Results& found, Reference& reference, bool everything);

}  // namespace halfstep::fuzz
