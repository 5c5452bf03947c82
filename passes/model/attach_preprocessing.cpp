#include "passes/model/attach_preprocessing.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

std::vector<std::string> input_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes())
    if (is(node, "input") && leaf_name(node).is(Role::model)) names.push_back(node.attributes.text("name"));
  return names;
}

std::string chosen_input(const Graph& graph, const PreprocessingOptions& options) {
  const std::vector<std::string> names = input_names(graph);
  if (options.input.empty() && names.size() == 1) return names.front();
  for (const std::string& name : names)
    if (name == options.input) return name;
  const std::string suggestion = nearest(options.input, names);
  throw Error(
      fmt::format("preprocessing: {}{}; the model's inputs are: {}",
                  options.input.empty() ? "name the input to convert" : fmt::format("no input '{}'", options.input),
                  suggestion.empty() ? "" : fmt::format(", did you mean '{}'?", suggestion), fmt::join(names, ", ")));
}

double entry(const std::vector<double>& values, int64_t channel, double otherwise) {
  if (values.empty()) return otherwise;
  return values[values.size() == 1 ? 0 : static_cast<size_t>(channel)];
}

}  // namespace

Graph attach_preprocessing(const Graph& graph, const PreprocessingOptions& options) {
  const std::string name = chosen_input(graph, options);
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value>) -> std::vector<Value> {
    if (!is(node, "input") || leaf_name(node) != Name(name)) return {};
    const TensorType& type = node.results[0];
    if (type.dtype != DType::f32 || type.shape.size() <= options.channel_axis)
      throw Error(fmt::format("preprocessing: input '{}' is {}; an f32 image with channels on axis {} expected", name,
                              to_string(type), options.channel_axis));
    const int64_t channels = type.shape[options.channel_axis];
    for (const auto& [what, values] : {std::pair("mean", &options.mean), std::pair("std", &options.std)})
      if (values->size() > 1 && static_cast<int64_t>(values->size()) != channels)
        throw Error(fmt::format("preprocessing: {} has {} values; input '{}' has {} channels", what, values->size(),
                                name, channels));
    std::vector<double> factor, offset;
    for (int64_t c = 0; c < channels; ++c) {
      const double std = entry(options.std, c, 1);
      if (!(std > 0)) throw Error(fmt::format("preprocessing: std {} of channel {} is not positive", std, c));
      factor.push_back(options.scale / std);
      offset.push_back(-entry(options.mean, c, 0) / std);
    }
    Shape channel(type.shape.size(), 1);
    channel[options.channel_axis] = channels;
    const Value bytes = b.input(name, {DType::u8, type.shape});
    OriginScope scope(b, {name, Phase::forward});
    const Value scaled =
        b.mul(b.cast(bytes, DType::f32), b.constant(Tensor::from_values({DType::f32, channel}, factor)));
    return {b.add(scaled, b.constant(Tensor::from_values({DType::f32, channel}, offset)))};
  });
}

}  // namespace halfstep
