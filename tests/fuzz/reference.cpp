#include "tests/fuzz/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/fusion/compute_in_readers.h"
#include "passes/fusion/fuse.h"
#include "passes/fusion/order_calls.h"
#include "passes/fusion/recompute.h"
#include "passes/model/attach_loss.h"
#include "passes/model/choose_layouts.h"
#include "passes/model/recognise.h"
#include "passes/precision/place_casts.h"
#include "passes/rewrite/canonicalise.h"
#include "passes/rewrite/expand_composites.h"
#include "passes/training/differentiate.h"
#include "tests/fuzz/perturbed.h"

namespace halfstep::fuzz {
namespace {

constexpr std::string_view kGradient = "gradient/", kEvaluate = "evaluate/";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TrainingPipelineOptions pipeline_options(std::optional<DType> low, const TargetForms& forms = {}) {
  TrainingPipelineOptions options;
  options.loss.kind = "from_graph";
  options.loss.output = "loss";
  options.autocast.low = low;
  options.optimizer.scaling.mode = low == DType::f16 ? LossScaleMode::fixed : LossScaleMode::none;
  options.optimizer.scaling.initial = kLossScale;
  options.programs = TrainingPipelineOptions::training_and_gradients;
  options.verification = TrainingPipelineOptions::after_each_pass;
  options.stop_after = "simplify_placed";
  options.forms = forms;
  return options;
}

Graph with_loss(const Graph& graph) { return attach_loss(graph, pipeline_options(std::nullopt).loss); }

// Of the "gradients" and the "evaluate" graph, both interpreted.
Results named_results(const PipelineResult& pipeline, const InterpretResult& gradients,
                      const InterpretResult& evaluate) {
  Results results;
  for (const auto& [name, value] : gradients.outputs) results[result_name(name)] = {value.type.dtype, value.values};
  for (const auto& [name, value] : evaluate.outputs)
    results[std::string(kEvaluate) + result_name(name)] = {value.type.dtype, value.values};
  const std::vector<double>& arena = gradients.updates.at(kGradientArena).values;
  for (const ArenaSlice& slice : pipeline.arenas.slices)
    results[std::string(kGradient) + slice.name] = {DType::f32, gradient_of(slice, arena)};
  return results;
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

bool all_finite(const std::vector<double>& values) {
  return std::ranges::all_of(values, [](double v) { return std::isfinite(v); });
}

class ProgramReference final : public Reference {
 public:
  explicit ProgramReference(const Prepared& prepared) : p_(prepared) {
    const InterpretOptions options{.observe = [&](NodeId, const std::vector<InterpretedTensor>& results) {
      overflows_ |= is_floating(results[0].type.dtype) && !all_finite(results[0].values);
    }};
    results_ = named_results(p_.pipeline, interpret(graph("gradients"), p_.leaves, options),
                             interpret(graph("evaluate"), p_.leaves, options));
    // A device may round where the graph does not.
    if (p_.device != DeviceKind::cpu)
      interpret_perturbed(graph("gradients"), p_.leaves, {.run = 1, .device = p_.device}, options.observe);
  }
  const Results& results() override { return results_; }
  bool overflows() const override { return overflows_; }

 protected:
  Results perturbed(uint64_t run) override {
    const Perturbation p{.run = run, .device = p_.device};
    return named_results(p_.pipeline, interpret_perturbed(graph("gradients"), p_.leaves, p),
                         interpret_perturbed(graph("evaluate"), p_.leaves, p));
  }

 private:
  const Graph& graph(std::string_view name) const { return *p_.pipeline.find(name); }

  const Prepared& p_;
  Results results_;
  bool overflows_ = false;
};

Results exact_results(const InterpretResult& result) {
  Results results;
  for (const auto& [name, value] : result.outputs) results[result_name(name)] = {value.type.dtype, value.values};
  return results;
}

class ExactReference final : public Reference {
 public:
  ExactReference(const ExactGraph& exact, const ExactGraph* recognised, DType type)
      : exact_(exact), recognised_(recognised), type_(type) {}
  const Results& results() override { return exact_.results; }
  bool overflows() const override { return !exact_.finite; }

 protected:
  Results perturbed(uint64_t run) override {
    if (!recognised_ || run % 2 == 0) return moved(exact_, run);
    // What moves there, beside the exact graph's own results: recognition itself explains nothing.
    const Results to = moved(*recognised_, run);
    Results results = exact_.results;
    for (auto& [name, result] : results) {
      const auto at = to.find(name);
      if (at == to.end()) continue;  // of a parameter that nothing reads
      const std::vector<double>& from = recognised_->results.at(name).values;
      for (size_t i = 0; i < from.size(); ++i)
        if (!same(at->second.values[i], from[i])) result.values[i] += at->second.values[i] - from[i];
    }
    return results;
  }

 private:
  // A program rounds values to the low type or to f32, where more numbers stay as they are, and each to nearest: ties
  // and zeros of f32 arithmetic come of that.
  Results moved(const ExactGraph& graph, uint64_t run) const {
    Perturbation p{.run = run, .rounded = Rounded::everything, .type = type_};
    if (run <= 4 ? run <= 2 : run / 2 % 3 == 2) p.type = DType::f32;
    p.nearest = run <= 4 || run / 2 % 4 == 0;
    p.mixed = run > 4 && run / 2 % 3 == 1;
    return exact_results(interpret_perturbed(graph.graph, graph.leaves, p));
  }

  const ExactGraph& exact_;
  const ExactGraph* recognised_;
  DType type_;
};

double distance(double a, double b) {
  if (same(a, b)) return 0;
  const double d = std::abs(a - b);
  return std::isnan(d) ? kInfinity : d;
}

// What one rounding of a result may differ by.
double rounding(DType type, double value) {
  if (!std::isfinite(value)) return 0;
  switch (type) {
    case DType::f32:
      return 0x1p-23 * std::abs(value) + 0x1p-140;
    case DType::f16:
      return std::max(0x1p-10 * std::abs(value), 0x1p-24);
    case DType::bf16:
      return 0x1p-7 * std::abs(value) + 0x1p-133;
    default:
      return 0;
  }
}

struct Element {
  std::string name;
  size_t index;
};

// Elements of `found` that are further away than the reference's perturbed runs explain.
std::vector<Element> unexplained(const Results& found, const Results& expected, const Results* differences) {
  std::vector<Element> elements;
  for (const auto& [name, result] : found) {
    const auto reference = expected.find(name);
    if (reference == expected.end()) continue;
    const std::vector<double>& values = reference->second.values;
    for (size_t i = 0; i < values.size(); ++i) {
      const double d = distance(result.values[i], values[i]);
      double allowed = result.dtype == DType::f32 ? rounding(DType::f32, values[i]) : 0;
      if (differences) allowed += kWidening * differences->at(name).values[i];
      if (d > 0 && !(d <= allowed)) elements.push_back({name, i});
    }
  }
  return elements;
}

}  // namespace

std::string result_name(const Name& output) {
  return output.is(Role::gradient) ? std::string(kGradient) + output.text : path_of(output);
}

Prepared prepare(const FuzzCase& fuzz_case, std::optional<DType> low, DeviceKind device, const TargetForms& forms,
                 bool recomputes) {
  Prepared p;
  p.device = device;
  p.low = low;
  p.pipeline = run_training_pipeline(fuzz_case.graph, pipeline_options(low, forms));
  for (const char* name : {"gradients", "evaluate"}) {
    Graph fused = order_calls(compute_in_readers(fuse(*p.pipeline.find(name))));
    Recomputation done;
    p.fused.push_back(recomputes ? recompute(fused, 0, 0, done) : std::move(fused));
    verify(p.fused.back());
  }
  p.leaves = leaves_of(fuzz_case);
  Tensor arena({DType::f32, {p.pipeline.arenas.size}});
  for (const ArenaSlice& slice : p.pipeline.arenas.slices) {
    const Tensor& built = p.leaves.at(slice.name);
    const Tensor stored = slice.permutation.empty() ? built : built.transpose(slice.permutation);
    require(stored.type.shape == slice.shape, "a parameter has the shape of its slice");
    std::ranges::copy(stored.as<float>(), arena.as<float>().begin() + slice.offset);
  }
  for (DType type : {DType::f32, DType::f16, DType::bf16}) p.leaves[arena_name(type)] = arena.cast(type);
  p.leaves[kGradientArena] = Tensor({DType::f32, {p.pipeline.arenas.size}});
  for (const auto& [name, value] : p.pipeline.initial_states) p.leaves[name] = value;
  return p;
}

std::vector<double> gradient_of(const ArenaSlice& slice, const std::vector<double>& arena) {
  const auto begin = arena.begin() + slice.offset;
  const std::vector<double> stored(begin, begin + slice.size());
  if (slice.permutation.empty()) return stored;
  Ints inverse(slice.permutation.size());
  for (size_t i = 0; i < inverse.size(); ++i)
    inverse[static_cast<size_t>(slice.permutation[i])] = static_cast<int64_t>(i);
  return Tensor::from_values({DType::f64, slice.shape}, stored).transpose(inverse).values();
}

const Results& Reference::differences(int runs) {
  if (runs_ == 0) {
    differences_ = results();
    for (auto& [name, result] : differences_) {
      std::ranges::fill(result.values, 0.0);
      largest_[name].resize(result.values.size());
    }
  }
  for (; runs_ < runs; ++runs_) {
    const Results moved = perturbed(static_cast<uint64_t>(runs_) + 1);
    for (auto& [name, result] : differences_) {
      const std::vector<double>&a = moved.at(name).values, &b = results().at(name).values;
      std::vector<Largest>& largest = largest_.at(name);
      for (size_t i = 0; i < a.size(); ++i) {
        double d = distance(a[i], b[i]);
        for (double& one : largest[i])
          if (d > one) std::swap(d, one);
        result.values[i] = largest[i].front();
      }
    }
  }
  return differences_;
}

double Reference::tail(const std::string& name, size_t index) const {
  const Largest& d = largest_.at(name)[index];
  if (!(d[15] > 0) || !std::isfinite(d[0])) return 1;
  return std::pow(std::min(d[0] / d[3], d[3] / d[15]), 4);
}

std::unique_ptr<Reference> program_reference(const Prepared& prepared) {
  return std::make_unique<ProgramReference>(prepared);
}

namespace {

// Ops with no finite value at a point that they may meet. An overflow is none: pow counts at 0 alone. Nor is 0 / 0,
// which a wrong formula gives, unless it is the slope of a root.
bool is_pole(const Graph& graph, const Node& node, const std::vector<const std::vector<double>*>& operands, size_t i) {
  const std::string_view name = node.op->name;
  const double x = (*operands[0])[i];
  if (!std::isfinite(x)) return false;
  if (name == "div") return (*operands[1])[i] == 0 && (x != 0 || graph.node(node.operands[1]).op->name == "sqrt");
  if (name == "atanh") return std::abs(x) == 1;
  return x == 0 && (name == "reciprocal" || name == "rsqrt" || name == "log" || name == "pow");
}

ExactGraph evaluated(const Graph& forward, NamedTensors leaves) {
  ExactGraph exact;
  exact.graph = expand_composites(differentiate(with_loss(forward)));
  exact.leaves = std::move(leaves);
  std::vector<std::vector<InterpretedTensor>> values;
  const auto observe = [&](NodeId id, const std::vector<InterpretedTensor>& results) {
    values.push_back(results);
    const Node& node = exact.graph.node(id);
    if (node.op->name == "constant" || !is_floating(results[0].type.dtype)) return;
    std::vector<const std::vector<double>*> operands;
    for (Value v : node.operands)
      operands.push_back(v ? &values[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)].values : nullptr);
    for (size_t i = 0; i < results[0].values.size(); ++i) {
      const double v = results[0].values[i];
      if (std::isfinite(v)) {
        exact.largest = std::max(exact.largest, std::abs(v));
        continue;
      }
      exact.finite = false;
      exact.has_pole |= node.op->kernel == KernelKind::pointwise && is_pole(exact.graph, node, operands, i);
    }
  };
  exact.results = exact_results(interpret_exactly(exact.graph, exact.leaves, observe));
  return exact;
}

bool draws(const Node& node) {
  return node.op->kernel == KernelKind::random || node.op->name == "dropout" ||
         (node.op->name == "attention" && node.attributes.number("ratio") != 0);
}

}  // namespace

ExactGraph exact_graph(const FuzzCase& fuzz_case) { return evaluated(fuzz_case.graph, leaves_of(fuzz_case)); }

std::optional<ExactGraph> recognised_graph(const FuzzCase& fuzz_case) {
  const Graph written = canonicalise(fuzz_case.graph), recognised = place_casts(recognise(written));
  if (print(written) == print(recognised)) return std::nullopt;
  return evaluated(recognised, leaves_of(fuzz_case));
}

bool draws_differently(const FuzzCase& fuzz_case) {
  if (std::ranges::none_of(fuzz_case.graph.nodes(), draws)) return false;
  const Graph built = with_loss(canonicalise(recognise(canonicalise(fuzz_case.graph))));
  return print(choose_layouts(built)) != print(built);
}

std::unique_ptr<Reference> exact_reference(const ExactGraph& exact, const ExactGraph* recognised, DType type) {
  return std::make_unique<ExactReference>(exact, recognised, type);
}

std::string compare(const Results& found, Reference& reference, bool everything) {
  Results expected = reference.results();
  if (!everything)  // a result that the reference leaves undefined, the compiled program may define
    for (auto& [name, result] : expected)
      for (size_t i = 0; i < result.values.size(); ++i)
        if (const auto f = found.find(name); f != found.end() && std::isnan(result.values[i]))
          result.values[i] = f->second.values[i];
  std::vector<Element> bad = unexplained(found, expected, nullptr);
  const Results* differences = nullptr;
  for (int runs = 4; !bad.empty() && runs <= kMostRuns; runs *= 4) {
    differences = &reference.differences(runs);
    bad = unexplained(found, expected, differences);
  }
  std::erase_if(bad, [&](const Element& e) {
    const double d = distance(found.at(e.name).values[e.index], expected.at(e.name).values[e.index]);
    return d <= kWidening * differences->at(e.name).values[e.index] * reference.tail(e.name, e.index);
  });
  if (bad.empty()) return "";
  const Element& e = bad.front();
  return fmt::format("{}[{}] is {:.9g}, expected {:.9g} within {:.3g} ({} elements)", e.name, e.index,
                     found.at(e.name).values[e.index], expected.at(e.name).values[e.index],
                     kWidening * differences->at(e.name).values[e.index], bad.size());
}

}  // namespace halfstep::fuzz
