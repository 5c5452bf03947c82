#include "tests/fuzz/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

#include "base/error.h"
#include "ir/op.h"
#include "tests/compiled_graph.h"
#include "tests/fuzz/reference.h"

namespace halfstep::fuzz {
namespace {

// What a precision holds; f16's values are scaled.
double largest_of(std::optional<DType> low) {
  return low == DType::f16 ? 65504 / kLossScale : static_cast<double>(std::numeric_limits<float>::max());
}

// The programs of a batch, compiled for one target. Kernels are shared: they have one module.
struct Batch {
  std::vector<CompiledModel> models;

  Batch(const std::vector<const Prepared*>& all, const KernelTarget& target) {
    KernelModule module(target);
    for (const Prepared* p : all) {
      CompiledModel& model = models.emplace_back();
      model.device = target.device, model.architecture = target.architecture;
      for (const Graph& graph : p->fused) {
        LoweredProgram lowered = lower(graph, graph.name(), module);
        model.programs.push_back(std::move(lowered.program));
        model.state.merge(lowered.constants);
      }
      for (const Program& program : model.programs)
        for (const Buffer& buffer : program.buffers)
          if (const auto leaf = p->leaves.find(buffer.name);
              buffer.kind == BufferKind::state && leaf != p->leaves.end())
            model.state[buffer.name] = leaf->second;
    }
    const std::string kernels = module.finish();
    for (CompiledModel& model : models) model.kernels = kernels;
  }
};

Results run(const Prepared& prepared, CompiledModel model) {
  const std::unique_ptr<Executor> executor = make_executor(std::move(model), kTestExecutor);
  Results results;
  const auto add = [&](const std::string& prefix, const NamedTensors& outputs) {
    for (const auto& [name, value] : outputs) results[prefix + result_name(name)] = {value.type.dtype, value.values()};
  };
  add("", run_program(*executor, "gradients", prepared.leaves));
  add("evaluate/", run_program(*executor, "evaluate", prepared.leaves));
  const std::vector<double> arena = executor->read_state(kGradientArena).values();
  for (const ArenaSlice& slice : prepared.pipeline.arenas.slices)
    results["gradient/" + slice.name] = {DType::f32, gradient_of(slice, arena)};
  return results;
}

class CaseChecker {
 public:
  CaseChecker(const FuzzCase& fuzz_case, const CheckOptions& options) : case_(fuzz_case), options_(options) {
    guarded({}, "", [&] {
      exact_ = exact_graph(case_);
      recognised_ = recognised_graph(case_);
      drawn_apart_ = draws_differently(case_);
      const Differences found = compare_differences(case_, *exact_);
      checked.smooth = found.smooth;
      if (!found.wrong.empty()) checked.failures.push_back({Truth::differences, "fp32", "", found.wrong});
    });
    for (const std::optional<DType>& low : options.precisions)
      guarded(low, "", [&] {
        prepared_.push_back(prepare(case_, low, options.targets.front().device, options.forms, options.recomputes));
      });
    for (const Prepared& p : prepared_)
      for (const char* name : {"gradients", "evaluate"})
        for (const Node& node : p.pipeline.find(name)->nodes()) ops_.insert(std::string(node.op->name));
    for (const Node& node : case_.graph.nodes()) ops_.insert(std::string(node.op->name));
    checked.ops.assign(ops_.begin(), ops_.end());
  }

  const std::vector<Prepared>& prepared() const { return prepared_; }

  void compare_with(const Prepared& p, const CompiledModel& model) {
    const std::string& architecture = model.architecture;
    guarded(p.low, architecture, [&] {
      const Results found = run(p, model);
      if (!program_.contains(&p)) program_[&p] = program_reference(p);
      Reference& program = *program_.at(&p);
      const std::string wrong = compare(found, program, true);
      if (!wrong.empty()) checked.failures.push_back({Truth::program, precision_name(p.low), architecture, wrong});
      // Beyond the precision's range a value is infinite by design, and what comes of it another than the exact
      // graph's.
      if (!exact_ || drawn_apart_ || (exact_->largest > largest_of(p.low) / 2 && program.overflows())) return;
      checked.exact = true;
      std::unique_ptr<Reference>& reference = exact_references_[p.low.value_or(DType::f32)];
      if (!reference) {
        const ExactGraph* other = recognised_ ? &*recognised_ : nullptr;
        reference = exact_reference(*exact_, other, p.low.value_or(DType::f32));
      }
      const std::string inexact = compare(found, *reference, false);
      if (!inexact.empty()) checked.failures.push_back({Truth::exact, precision_name(p.low), architecture, inexact});
    });
  }

  void guarded(std::optional<DType> low, const std::string& architecture, const auto& body) {
    try {
      body();
    } catch (const std::exception& e) {
      checked.failures.push_back({Truth::compiler, precision_name(low), architecture, e.what()});
    }
  }

  Checked checked;

 private:
  const FuzzCase& case_;
  const CheckOptions& options_;
  std::optional<ExactGraph> exact_, recognised_;
  bool drawn_apart_ = false;
  std::vector<Prepared> prepared_;
  std::set<std::string> ops_;
  std::map<const Prepared*, std::unique_ptr<Reference>> program_;
  std::map<DType, std::unique_ptr<Reference>> exact_references_;
};

}  // namespace

std::string_view name(Truth truth) {
  constexpr std::array<std::string_view, 4> names{"its own graph", "the exact graph", "central differences",
                                                  "compiler"};
  return names[static_cast<size_t>(truth)];
}

std::string to_string(const Failure& f) {
  return fmt::format("{}{}{}: {}: {}", f.precision, f.architecture.empty() ? "" : " on ", f.architecture, name(f.truth),
                     f.what);
}

NamedTensors leaves_of(const FuzzCase& fuzz_case) {
  NamedTensors leaves;
  for (const Node& node : fuzz_case.graph.nodes())
    if (is_leaf(*node.op)) {
      const std::string& name = node.attributes.text("name");
      const auto values = fuzz_case.values.find(name);
      if (values == fuzz_case.values.end()) throw Error("no values for '" + name + "'");
      leaves[name] = draw(node.results[0], values->second);
    }
  return leaves;
}

std::string precision_name(std::optional<DType> low) { return !low ? "fp32" : low == DType::f16 ? "fp16" : "bf16"; }

std::vector<KernelTarget> cpu_targets() { return {{DeviceKind::cpu, "x86-64-v3"}, {DeviceKind::cpu, host_cpu()}}; }

std::vector<Checked> check_cases(const std::vector<FuzzCase>& cases, const CheckOptions& options) {
  std::vector<std::unique_ptr<CaseChecker>> checkers;
  std::vector<std::pair<CaseChecker*, const Prepared*>> programs;
  for (const FuzzCase& c : cases) checkers.push_back(std::make_unique<CaseChecker>(c, options));
  for (const auto& checker : checkers)
    for (const Prepared& p : checker->prepared()) programs.emplace_back(checker.get(), &p);
  for (const KernelTarget& target : options.targets) {
    const auto compile = [&](std::span<const std::pair<CaseChecker*, const Prepared*>> some) {
      std::vector<const Prepared*> prepared;
      for (const auto& program : some) prepared.push_back(program.second);
      const Batch batch(prepared, target);
      for (size_t i = 0; i < some.size(); ++i) some[i].first->compare_with(*some[i].second, batch.models[i]);
    };
    try {
      if (!programs.empty()) compile(programs);
    } catch (const std::exception&) {  // one of them is not to be compiled
      for (const auto& program : programs)
        program.first->guarded(program.second->low, target.architecture, [&] { compile({&program, 1}); });
    }
  }
  std::vector<Checked> result;
  for (const auto& checker : checkers) result.push_back(std::move(checker->checked));
  return result;
}

}  // namespace halfstep::fuzz
