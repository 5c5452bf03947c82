#include "compiler/checkpoint_weights.h"

#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "ir/op.h"

namespace halfstep {

void take_weights(ImportedModel& model, const FileTensors& weights, const std::string& where) {
  Problems problems;
  std::vector<std::string> kept;
  size_t taken = 0;
  for (const Node& node : model.graph.nodes()) {
    if (!is_leaf(*node.op) || node.op->name == "input") continue;
    const std::string& name = node.attributes.text("name");
    const auto reader = model.weight_readers.find(name);
    if (reader == model.weight_readers.end()) continue;
    const auto found = weights.find(name);
    if (found == weights.end()) {
      kept.push_back(name);
      continue;
    }
    ++taken;
    const Attribute* permutation = node.attributes.find("permutation");
    const Ints axes = permutation ? std::get<Ints>(*permutation) : Ints();
    Shape expected = node.results[0].shape;
    for (size_t i = 0; i < axes.size(); ++i) expected[static_cast<size_t>(axes[i])] = node.results[0].shape[i];
    const TensorType type{node.results[0].dtype, expected};
    if (found->second.type != type) {
      problems.add(
          fmt::format("{}: '{}': expected {}, found {}", where, name, to_string(type), to_string(found->second.type)));
      continue;
    }
    const auto value = std::make_shared<const Tensor>(axes.empty() ? found->second : found->second.transpose(axes));
    reader->second = [value] { return *value; };
  }
  for (const auto& [name, unused] : weights)
    if (!model.weight_readers.contains(name))
      problems.add(
          fmt::format("{}: it holds '{}', which this model does not have: was it another model?", where, name));
  problems.throw_if_any();
  if (taken == 0 && !kept.empty())
    throw Error(fmt::format("{}: it holds none of the model's weights, such as '{}'", where, kept.front()));
  if (!kept.empty())
    model.remarks.push_back(fmt::format(
        "{} has no {}: {} as in the model's file", where,
        kept.size() == 1 ? "'" + kept.front() + "'" : fmt::format("'{}' and {} more", kept.front(), kept.size() - 1),
        kept.size() == 1 ? "it stays" : "they stay"));
}

}  // namespace halfstep
