#include "compiler/find_non_finite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <span>

#include "compiler/compile.h"
#include "compiler/replay.h"
#include "ir/op.h"

namespace halfstep {
namespace {

struct NonFinite {
  NodeId node = 0;
  Origin origin;
  TensorType type;
  size_t result = 0, element = 0;
  double value = 0;
  double largest_operand = 0;  // magnitude of what the node read
  int64_t row = -1;            // of the batch; -1: the value is not one a sample
};

// Watches an interpreter run; throws itself out of it at the first value that is not finite.
class Watch {
 public:
  explicit Watch(const Replay& replay) : replay_(replay), largest_(replay.graph().nodes().size(), 0) {}

  void operator()(NodeId id, const std::vector<InterpretedTensor>& results) {
    const Node& node = replay_.graph().node(id);
    for (size_t r = 0; r < results.size(); ++r) {
      const InterpretedTensor& result = results[r];
      if (!is_floating(result.type.dtype)) continue;
      for (size_t i = 0; i < result.values.size(); ++i) {
        const double value = result.values[i];
        // An infinite constant, such as an attention mask, is meant.
        if (!std::isfinite(value) && node.op->kernel != KernelKind::leaf) throw found(id, r, result, i);
        largest_[static_cast<size_t>(id)] = std::max(largest_[static_cast<size_t>(id)], std::abs(value));
      }
    }
  }

 private:
  NonFinite found(NodeId id, size_t index, const InterpretedTensor& result, size_t element) const {
    const Node& node = replay_.graph().node(id);
    NonFinite found{.node = id,
                    .origin = node.origin,
                    .type = result.type,
                    .result = index,
                    .element = element,
                    .value = result.values[element]};
    for (Value v : node.operands)
      if (v) found.largest_operand = std::max(found.largest_operand, largest_[static_cast<size_t>(v.node)]);
    const size_t batch = static_cast<size_t>(replay_.batch());
    if (!result.type.shape.empty() && result.type.shape[0] == replay_.batch())
      found.row = static_cast<int64_t>(element / (result.values.size() / batch));
    return found;
  }

  const Replay& replay_;
  std::vector<double> largest_;
};

// What a step is replayed with.
struct Replayed {
  const ModelState& state;
  const Dataset& dataset;
  const FeedOptions& feed;
  StepInputs inputs;
  double loss_scale = 1;  // of the step
};

// nullptr for what we added to the model.
const OnnxNode* find_node(const Replay& replay, const Origin& origin) {
  const auto found = std::ranges::find(replay.onnx_nodes(), *origin.name, &OnnxNode::name);
  return found == replay.onnx_nodes().end() ? nullptr : &*found;
}

// The value that was found, had no value on the way to it been rounded to its type.
double unrounded(const NonFinite& found, const Replay& replay, const Replayed& step, std::span<const int64_t> samples) {
  struct Reached {
    double value;
  };
  const auto until = [&](NodeId id, const std::vector<InterpretedTensor>& results) {
    if (id == found.node) throw Reached{results[found.result].values[found.element]};
  };
  try {
    replay.run(step.state, step.dataset, step.feed, samples, step.inputs, until, Rounding::none);
  } catch (const Reached& reached) {
    return reached.value;
  }
  return found.value;
}

double largest_of(DType type) {
  return type == DType::f16 ? 65504 : type == DType::bf16 ? 0x1.fep127 : type == DType::f32 ? 0x1.fffffep127 : 0x1p1023;
}

// Why it is not finite, and what the user can do about it.
std::string reason(const NonFinite& found, double exact, const Replay& replay, double loss_scale) {
  if (!std::isfinite(exact)) return "; it is not finite in double precision either";
  const double most = largest_of(found.type.dtype);
  if (std::abs(exact) <= most) return fmt::format("; without rounding it is {:.3g}", exact);
  const std::string range =
      fmt::format("; it is {:.3g}, and {} ends at {:g}", exact, name(found.type.dtype), std::floor(most));
  if (found.type.dtype != DType::f16) return range;
  const double scale = std::exp2(std::floor(std::log2(loss_scale * most / std::abs(exact))));
  if (found.origin.phase == Phase::backward && loss_scale > 1 && scale >= 1)
    return fmt::format("{}: a loss scale of at most {:g} keeps it in range", range, scale);
  if (find_node(replay, found.origin) != nullptr)
    return fmt::format("{}: --deny {} keeps it in f32", range, *found.origin.name);
  return range;
}

std::string describe(const NonFinite& found, const Replay& replay, const Replayed& step,
                     std::span<const int64_t> samples) {
  const OnnxNode* onnx = find_node(replay, found.origin);
  const std::string node =
      onnx ? fmt::format("'{}' ({})", onnx->name, onnx->op) : fmt::format("the {}", *found.origin.name);
  const bool backward = found.origin.phase == Phase::backward;
  std::string text = fmt::format("the first value that is not finite: {} in the {}{}{}",
                                 std::isnan(found.value) ? "NaN" : "an infinity",
                                 backward ? "gradient that " : "output of ", node, backward ? " hands back" : "");
  if (found.row >= 0) text += fmt::format(" for sample {}", samples[static_cast<size_t>(found.row)]);
  return text + fmt::format(", {}, computed from values up to {:.3g}", to_string(found.type), found.largest_operand) +
         reason(found, unrounded(found, replay, step, samples), replay, step.loss_scale);
}

// Of the first of these batches that has a value that is not finite; nullopt: none has.
std::optional<std::string> search(const Replay& replay, const Replayed& step, std::span<const int64_t> samples) {
  const auto batch = static_cast<size_t>(replay.batch());
  for (; samples.size() >= batch; samples = samples.subspan(batch)) {
    const auto part = samples.first(batch);
    try {
      replay.run(step.state, step.dataset, step.feed, part, step.inputs, Watch(replay));
    } catch (const NonFinite& found) {
      return describe(found, replay, step, part);
    }
  }
  return std::nullopt;
}

}  // namespace

std::string non_finite_weights(const ModelState& state) {
  std::string names;
  int64_t count = 0;
  for (const auto& [name, tensor] : state.weights) {
    const std::vector<double> values = tensor.values();
    const auto bad = std::ranges::count_if(values, [](double v) { return !std::isfinite(v); });
    if (bad == 0) continue;
    constexpr int64_t kMostNamed = 3;
    if (count++ < kMostNamed)
      names += fmt::format("{}'{}' ({} of {} values)", names.empty() ? "" : ", ", name, bad, values.size());
  }
  if (count == 0) return "";
  return fmt::format("weights are not finite any more: {}{}", names,
                     count > 3 ? fmt::format(" and {} more", count - 3) : "");
}

std::string explain_non_finite(const Recipe& recipe, const ModelState& state, const Dataset& dataset,
                               const FeedOptions& feed, const HeadwayError::Step& step) {
  constexpr double kMostOperations = 3e9;  // some seconds of interpretation
  constexpr int64_t kChunk = 8;            // samples at a time; batch norms need several
  if (const std::string weights = non_finite_weights(state); !weights.empty()) return weights;
  if (std::error_code unreadable; !std::filesystem::exists(recipe.model, unreadable))
    return "the model's file is gone, so that the node at fault cannot be found";
  const auto samples = static_cast<int64_t>(step.samples.size());
  const int64_t chunk = std::min(kChunk, samples);
  const LossScaling scaling = loss_scaling(recipe);
  Recipe replayed = recipe;
  ModelState scaled = state;
  const double loss_scale = step.loss_scale.value_or(scaling.mode == LossScaleMode::none ? 1 : scaling.initial);
  const auto set_scale = [&](double scale) {
    for (auto& [name, slot] : scaled.slots)  // of each loss, where they have their own
      if (name.starts_with(kLossScaleState.text)) slot.set(0, scale);
    if (scaling.mode == LossScaleMode::fixed) replayed.loss_scale = "fixed", replayed.initial_scale = scale;
  };
  // The mean over fewer samples would make cotangents larger than they were.
  set_scale(loss_scale * static_cast<double>(chunk) / static_cast<double>(recipe.batch));
  const Replayed parts{scaled, dataset, feed, {.iteration = step.iteration, .seed = step.seed}, loss_scale};
  const Replay in_parts(replayed, chunk, "differentiate", "train");
  const double affordable = kMostOperations / std::max(in_parts.operations(), 1.0);
  const int64_t count = std::min(samples / chunk, static_cast<int64_t>(affordable));
  if (count == 0) return "the model is too large to look for the node at fault";
  if (const auto found = search(in_parts, parts, std::span(step.samples).first(static_cast<size_t>(count * chunk))))
    return *found;
  const std::string finite =
      fmt::format("a replay of {} of the step's {} samples, {} at a time, stayed finite, forward and backward",
                  count * chunk, samples, chunk);
  if (affordable * static_cast<double>(chunk) < static_cast<double>(samples))
    return finite + "; the others, and sums over the whole batch, would take too long";
  set_scale(loss_scale);
  const Replay whole(replayed, recipe.batch, "differentiate", "train");
  if (const auto found = search(whole, parts, step.samples)) return *found;
  return finite + ", and so did one of whole batches: the kernels compute in another order than the reference";
}

}  // namespace halfstep
