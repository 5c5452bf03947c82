#include "tests/fuzz/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/own_names.h"
#include "ir/builder.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "ir/verify.h"
#include "passes/attach_loss.h"
#include "passes/differentiate.h"
#include "passes/expand_composites.h"
#include "passes/fuse.h"
#include "tests/fuzz/perturbed.h"
#include "tests/fuzz/random.h"

namespace halfstep::fuzz {
namespace {

constexpr std::string_view kGradient = "gradient/", kEvaluate = "evaluate/";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TrainingPipelineOptions pipeline_options(std::optional<DType> low) {
  TrainingPipelineOptions options;
  options.loss.kind = LossKind::from_graph;
  options.loss.output = "loss";
  options.autocast.low = low;
  options.optimizer.scaling.mode = low == DType::f16 ? LossScaleMode::fixed : LossScaleMode::none;
  options.optimizer.scaling.initial = kLossScale;
  options.programs = TrainingPipelineOptions::training_and_gradients;
  options.stop_after = "simplify_placed";
  return options;
}

Graph with_loss(const Graph& graph) { return attach_loss(graph, pipeline_options(std::nullopt).loss); }

// Of the "gradients" and the "evaluate" graph, both interpreted.
Results named_results(const PipelineResult& pipeline, const InterpretResult& gradients,
                      const InterpretResult& evaluate) {
  Results results;
  for (const auto& [name, value] : gradients.outputs) results[name] = {value.type.dtype, value.values};
  for (const auto& [name, value] : evaluate.outputs)
    results[std::string(kEvaluate) + name] = {value.type.dtype, value.values};
  const std::vector<double>& arena = gradients.updates.at(std::string(kGradientArena)).values;
  for (const ArenaSlice& slice : pipeline.arenas.slices)
    results[std::string(kGradient) + slice.name] = {DType::f32, gradient_of(slice, arena)};
  return results;
}

class ProgramReference final : public Reference {
 public:
  explicit ProgramReference(const Prepared& prepared) : p_(prepared) {
    results_ =
        named_results(p_.pipeline, interpret(graph("gradients"), p_.leaves), interpret(graph("evaluate"), p_.leaves));
  }
  const Results& results() override { return results_; }

 protected:
  Results perturbed(uint64_t run) override {
    const Perturbation p{.run = run};
    return named_results(p_.pipeline, interpret_perturbed(graph("gradients"), p_.leaves, p),
                         interpret_perturbed(graph("evaluate"), p_.leaves, p));
  }

 private:
  const Graph& graph(std::string_view name) const { return *p_.pipeline.find(name); }

  const Prepared& p_;
  Results results_;
};

Results exact_results(const InterpretResult& result) {
  Results results;
  for (const auto& [name, value] : result.outputs) results[name] = {value.type.dtype, value.values};
  return results;
}

class ExactReference final : public Reference {
 public:
  ExactReference(const ExactGraph& exact, DType type) : exact_(exact), type_(type) {}
  const Results& results() override { return exact_.results; }

 protected:
  Results perturbed(uint64_t run) override {
    return exact_results(
        interpret_perturbed(exact_.graph, exact_.leaves, {.run = run, .rounded = Rounded::everything, .type = type_}));
  }

 private:
  const ExactGraph& exact_;
  DType type_;
};

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

double distance(double a, double b) {
  if (same(a, b)) return 0;
  const double d = std::abs(a - b);
  return std::isnan(d) ? kInfinity : d;
}

// What one rounding of a result may differ by.
double rounding(DType type, double value) {
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

Prepared prepare(const FuzzCase& fuzz_case, std::optional<DType> low) {
  Prepared p;
  p.low = low;
  p.pipeline = run_training_pipeline(fuzz_case.graph, pipeline_options(low));
  for (const char* name : {"gradients", "evaluate"}) {
    p.fused.push_back(fuse(*p.pipeline.find(name)));
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
  p.leaves[std::string(kGradientArena)] = Tensor({DType::f32, {p.pipeline.arenas.size}});
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
    for (auto& [name, result] : differences_) std::ranges::fill(result.values, 0.0);
  }
  for (; runs_ < runs; ++runs_) {
    const Results moved = perturbed(static_cast<uint64_t>(runs_) + 1);
    for (auto& [name, result] : differences_) {
      const std::vector<double>&a = moved.at(name).values, &b = results().at(name).values;
      for (size_t i = 0; i < a.size(); ++i) result.values[i] = std::max(result.values[i], distance(a[i], b[i]));
    }
  }
  return differences_;
}

std::unique_ptr<Reference> program_reference(const Prepared& prepared) {
  return std::make_unique<ProgramReference>(prepared);
}

ExactGraph exact_graph(const FuzzCase& fuzz_case) {
  ExactGraph exact;
  exact.graph = expand_composites(differentiate(with_loss(fuzz_case.graph)));
  exact.leaves = leaves_of(fuzz_case);
  const auto observe = [&](NodeId id, const std::vector<InterpretedTensor>& results) {
    if (exact.graph.node(id).op->name == "constant" || !is_floating(results[0].type.dtype)) return;
    for (double v : results[0].values)
      if (std::isfinite(v)) exact.largest = std::max(exact.largest, std::abs(v));
  };
  exact.results = exact_results(interpret_exactly(exact.graph, exact.leaves, observe));
  return exact;
}

std::unique_ptr<Reference> exact_reference(const ExactGraph& exact, DType type) {
  return std::make_unique<ExactReference>(exact, type);
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
  if (bad.empty()) return "";
  const Element& e = bad.front();
  return fmt::format("{}[{}] is {:.9g}, expected {:.9g} within {:.3g} ({} elements)", e.name, e.index,
                     found.at(e.name).values[e.index], expected.at(e.name).values[e.index],
                     kWidening * differences->at(e.name).values[e.index], bad.size());
}

namespace {

// The graph with one parameter moved along `direction` by the input "along"; in double, with no gradients.
Graph along_line(const Graph& graph, const std::string& parameter, const Tensor& direction) {
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value>) -> std::vector<Value> {
    if (node.op->name != "parameter" || node.attributes.text("name") != parameter) return {};
    const Value along = b.broadcast(b.input(".along", {DType::f32, {}}), node.results[0].shape);
    return {b.add(b.parameter(parameter, node.results[0]), b.mul(along, b.constant(direction)))};
  });
}

}  // namespace

Differences compare_differences(const FuzzCase& fuzz_case, const ExactGraph& exact) {
  Differences result;
  const Graph forward = with_loss(fuzz_case.graph);
  for (const Node& node : forward.nodes())  // the gradients of these are not those of what they compute
    if (node.op->name == "round_through" || (node.op->name == "cast" && is_low(node.results[0].dtype))) return result;
  // The gradients' own constants are in f32.
  const std::unique_ptr<Reference> reference = exact_reference(exact, DType::f32);
  // In double a loss is exact to about this, whatever cancels in it.
  const double noise = 0x1p-48 * std::max(1.0, exact.largest);
  for (const auto& [name, gradient] : exact.results) {
    if (!name.starts_with(kGradient)) continue;
    const std::string parameter = name.substr(kGradient.size());
    Tensor direction(exact.leaves.at(parameter).type);
    double expected = 0;
    for (size_t i = 0; i < gradient.values.size(); ++i) {
      direction.set(static_cast<int64_t>(i),
                    static_cast<double>(static_cast<int64_t>(mix(hash_of(name), i) % 9) - 4) / 4);
      expected += gradient.values[i] * direction.at(static_cast<int64_t>(i));
    }
    const Graph moved = along_line(forward, parameter, direction);
    NamedTensors leaves = exact.leaves;
    const auto loss_at = [&](double along) {
      leaves[".along"] = Tensor::scalar(DType::f32, along);
      return interpret(moved, leaves, {.rounding = Rounding::none, .observe = nullptr}).outputs.at("loss").values[0];
    };
    const double at = loss_at(0);
    if (!std::isfinite(at)) return result;
    struct Slopes {
      double central, bend;
    };
    const auto slopes = [&](double h) {
      const double above = (loss_at(h) - at) / h, below = (at - loss_at(-h)) / h;
      return Slopes{(above + below) / 2, above - below};
    };
    constexpr double kStep = 0x1p-14;
    const Slopes wide = slopes(kStep), half = slopes(kStep / 2), quarter = slopes(kStep / 4);
    const double blur = 8 * noise / kStep;
    // Where the loss is smooth the bend halves with the step, and the error of the central slope falls to a quarter.
    const auto halves = [&](double a, double b) { return std::abs(b - a / 2) <= 0.02 * std::abs(a) + blur; };
    const double first = std::abs(wide.central - half.central), second = std::abs(half.central - quarter.central);
    if (!halves(wide.bend, half.bend) || !halves(half.bend, quarter.bend) || !(second <= 0.5 * first + blur)) continue;
    const double allowed = 4 * second + 4 * blur + 1e-9 * std::abs(quarter.central);
    if (allowed > 1e-2 * std::max(std::abs(quarter.central), 1e-3)) continue;
    result.smooth = true;
    const double wrong = std::abs(expected - quarter.central);
    if (wrong <= allowed || !result.wrong.empty()) continue;
    double rounded = 0;
    const std::vector<double>& rounding = reference->differences(16).at(name).values;
    for (size_t i = 0; i < rounding.size(); ++i)
      rounded += kWidening * rounding[i] * std::abs(direction.at(static_cast<int64_t>(i)));
    if (!(wrong <= allowed + rounded))
      result.wrong = fmt::format("{}: slope {:.9g}, by differences {:.9g} within {:.3g}", name, expected,
                                 quarter.central, allowed + rounded);
  }
  return result;
}

}  // namespace halfstep::fuzz
