#include "driver/find_non_finite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "driver/replay.h"
#include "ir/op.h"

namespace halfstep {
namespace {

struct NonFinite {
  Origin origin;
  TensorType type;
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
    for (const InterpretedTensor& result : results) {
      if (!is_floating(result.type.dtype)) continue;
      for (size_t i = 0; i < result.values.size(); ++i) {
        const double value = result.values[i];
        // An infinite constant, such as an attention mask, is meant.
        if (!std::isfinite(value) && node.op->kernel != KernelKind::leaf) throw found(node, result, i);
        largest_[static_cast<size_t>(id)] = std::max(largest_[static_cast<size_t>(id)], std::abs(value));
      }
    }
  }

 private:
  NonFinite found(const Node& node, const InterpretedTensor& result, size_t element) const {
    NonFinite found{node.origin, result.type, result.values[element], /*largest_operand=*/0, /*row=*/-1};
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

// nullptr for what we added to the model.
const OnnxNode* find_node(const Replay& replay, const Origin& origin) {
  const auto found = std::ranges::find(replay.onnx_nodes(), origin.name, &OnnxNode::name);
  return found == replay.onnx_nodes().end() ? nullptr : &*found;
}

// What the user can do about it.
std::string remedy(const NonFinite& found, const Replay& replay, double loss_scale) {
  if (found.type.dtype != DType::f16) return "";
  const std::string range = "; f16 ends at 65504";
  if (found.origin.phase == Phase::backward && loss_scale > 1)
    return fmt::format("{}: a loss scale below {:g} keeps it in range", range, loss_scale);
  if (find_node(replay, found.origin) != nullptr)
    return fmt::format("{}: --deny {} keeps it in f32", range, found.origin.name);
  return range;
}

std::string describe(const NonFinite& found, const Replay& replay, std::span<const int64_t> samples,
                     double loss_scale) {
  const OnnxNode* onnx = find_node(replay, found.origin);
  const std::string node =
      onnx ? fmt::format("'{}' ({})", onnx->name, onnx->op) : fmt::format("the {}", found.origin.name);
  const bool backward = found.origin.phase == Phase::backward;
  std::string text = fmt::format("the first value that is not finite: {} in the {}{}{}",
                                 std::isnan(found.value) ? "NaN" : "an infinity",
                                 backward ? "gradient that " : "output of ", node, backward ? " hands back" : "");
  if (found.row >= 0) text += fmt::format(" for sample {}", samples[static_cast<size_t>(found.row)]);
  return text + fmt::format(", {}, computed from values up to {:.3g}", to_string(found.type), found.largest_operand) +
         remedy(found, replay, loss_scale);
}

// The weights that are not finite, or "".
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

}  // namespace

std::string explain_non_finite(const Recipe& recipe, const ModelState& state, const Dataset& dataset,
                               const FeedOptions& feed, const HeadwayError::Step& step) {
  constexpr double kMostOperations = 3e9;  // some seconds of interpretation
  constexpr int64_t kChunk = 8;            // samples at a time; batch norms need several
  if (const std::string weights = non_finite_weights(state); !weights.empty()) return weights;
  if (std::error_code unreadable; !std::filesystem::exists(recipe.model, unreadable))
    return "the model's file is gone, so that the node at fault cannot be found";
  const auto samples = static_cast<int64_t>(step.samples.size());
  const int64_t chunk = std::min(kChunk, samples);
  // The mean over fewer samples would make cotangents larger than they were.
  const double share = static_cast<double>(chunk) / static_cast<double>(recipe.batch);
  Recipe replayed = recipe;
  ModelState scaled = state;
  double loss_scale = recipe.loss_scale == "fixed" ? recipe.initial_scale : 1;
  replayed.initial_scale *= share;
  if (const auto scale = scaled.slots.find("loss_scale.scale"); scale != scaled.slots.end()) {
    loss_scale = scale->second.at(0);
    scale->second.set(0, loss_scale * share);
  }
  const Replay replay(replayed, chunk, "differentiate", "train");
  const auto chunks =
      std::min(samples / chunk, static_cast<int64_t>(kMostOperations / std::max(replay.operations(), 1.0)));
  for (int64_t i = 0; i < chunks; ++i) {
    const auto part = std::span(step.samples).subspan(static_cast<size_t>(i * chunk), static_cast<size_t>(chunk));
    try {
      replay.run(scaled, dataset, feed, part, {.iteration = step.iteration, .seed = step.seed}, Watch(replay));
    } catch (const NonFinite& found) {
      return describe(found, replay, part, loss_scale);
    }
  }
  if (chunks == 0) return "the model is too large to look for the node at fault";
  return fmt::format("a replay of {} of the step's {} samples stayed finite, forward and backward{}", chunks * chunk,
                     samples, chunks * chunk == samples ? ": only sums over the whole batch overflow" : "");
}

}  // namespace halfstep
