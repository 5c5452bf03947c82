// The three truths of tests/fuzz/check.h, by name of a result: "outputs/y0", "loss", "gradient/w",
// "evaluate/outputs/y0".
#pragma once

#include <array>
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
std::string result_name(const Name& output);

// The programs of one case in one precision, before fusion and after, and what their leaves hold.
struct Prepared {
  std::optional<DType> low;
  DeviceKind device = DeviceKind::cpu;
  PipelineResult pipeline;   // up to fusion: "gradients" and "evaluate" are what counts
  std::vector<Graph> fused;  // "gradients", "evaluate"
  NamedTensors leaves;       // of all programs
};
Prepared prepare(const FuzzCase& fuzz_case, std::optional<DType> low, DeviceKind device, const TargetForms& forms,
                 bool recomputes);

// A parameter's gradient, stored in an arena, in the layout of the graph it comes from.
std::vector<double> gradient_of(const ArenaSlice& slice, const std::vector<double>& arena);

// A reference with the differences that its perturbed runs show, made as they are asked for.
class Reference {
 public:
  virtual ~Reference() = default;
  virtual const Results& results() = 0;
  // As the results, the largest difference of `runs` runs; infinite where a run is NaN or infinite elsewhere.
  const Results& differences(int runs);
  // How much larger than the largest difference of kMostRuns runs that of 256 times as many would be, if the largest,
  // the 4th and the 16th largest lie on a power law as those of quotients by what cancels do; 1 if they do not.
  double tail(const std::string& name, size_t index) const;
  // Whether a value on the way is infinite or NaN.
  virtual bool overflows() const = 0;

 protected:
  virtual Results perturbed(uint64_t run) = 0;

 private:
  using Largest = std::array<double, 16>;
  Results differences_;
  std::map<std::string, std::vector<Largest>> largest_;
  int runs_ = 0;
};

std::unique_ptr<Reference> program_reference(const Prepared& prepared);

// A graph in double, without the program's passes.
struct ExactGraph {
  Graph graph;  // with gradients, expanded
  NamedTensors leaves;
  Results results;
  double largest = 0;  // magnitude of a finite value that is no constant
  bool finite = true;  // all values are
  // A finite number that a function has no finite value or slope at: x / 0, log 0.
  bool has_pole = false;
};
ExactGraph exact_graph(const FuzzCase& fuzz_case);
// The same of what stands for written-out softmaxes, norms and activations: another formula of the same function, with
// another condition. nullopt if nothing does.
std::optional<ExactGraph> recognised_graph(const FuzzCase& fuzz_case);
// Random numbers belong to elements in the order of the layout at hand: where layouts change around a random op, the
// exact graph draws others.
bool draws_differently(const FuzzCase& fuzz_case);
// `type`: of the roundings in perturbed runs, which take turns between both graphs.
std::unique_ptr<Reference> exact_reference(const ExactGraph& exact, const ExactGraph* recognised, DType type);

// What is wrong with the gradients of `exact`, if anything; nullopt and not smooth: nothing can be said.
struct Differences {
  bool smooth = false;
  std::string wrong;
};
Differences compare_differences(const FuzzCase& fuzz_case, const ExactGraph& exact);

// "" if the results agree with the reference.
std::string compare(const Results& found, Reference& reference, bool everything);

}  // namespace halfstep::fuzz
