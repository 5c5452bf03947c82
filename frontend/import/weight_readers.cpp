#include "frontend/import/weight_readers.h"

#include <fnmatch.h>

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"

namespace halfstep {
namespace {

bool is_weight(const Node& node) { return node.op->name == "parameter" || node.op->name == "state"; }

// Tensors by the file that should hold them: one problem a file.
using MissingFiles = std::map<std::string, std::vector<std::string>>;

void add_problems(const MissingFiles& missing, const std::string& remedy, Problems& problems) {
  for (const auto& [file, tensors] : missing)
    problems.add("external data '" + file + "' of " + list_tensors(tensors) + " is missing; " + remedy);
}

// Of initializers that are no weights: what the graph reads, and what only a trained model would hold again.
MissingFiles missing_constants(const Graph& graph, const Importer& importer, const TensorReader& reader) {
  std::set<std::string> weights;
  for (const Node& node : graph.nodes())
    if (is_weight(node)) weights.insert(node.attributes.text("name"));
  std::map<std::string, std::string> constants = importer.missing_constants();
  for (const onnx::TensorProto& tensor : importer.inputs().model.graph().initializer())
    if (const auto file = reader.missing_file(tensor); file && !weights.contains(tensor.name()))
      constants.emplace(tensor.name(), *file);
  MissingFiles missing;
  for (const auto& [name, file] : constants) missing[file].push_back(name);
  return missing;
}

// One weight to be read, with all that takes.
struct WeightReader {
  std::shared_ptr<const onnx::ModelProto> model;  // holds `initializer`
  const onnx::TensorProto* initializer;
  TensorReader reader;
  TensorType type;                     // of the leaf before its permutation
  std::optional<Initializer> initial;  // absent: the file's values
  uint64_t seed;
  Ints permutation;

  Tensor operator()() const {
    Tensor value = initial ? fresh_tensor(type, *initial, seed, initializer->name()) : reader.read(*initializer);
    for (size_t axis = 0; axis < type.shape.size(); ++axis)
      if (value.type.shape[axis] != type.shape[axis]) value = first_slice(value, axis);
    return permutation.empty() ? value : value.transpose(permutation);
  }
};

}  // namespace

std::string list_tensors(const std::vector<std::string>& names) {
  constexpr size_t kMostNamed = 3;
  std::string list;
  for (size_t i = 0; i < std::min(names.size(), kMostNamed); ++i) list += (i ? ", '" : "'") + names[i] + "'";
  if (names.size() > kMostNamed) list += " and " + std::to_string(names.size() - kMostNamed) + " more";
  return (names.size() == 1 ? "tensor " : std::to_string(names.size()) + " tensors ") + list;
}

std::map<std::string, std::function<Tensor()>> weight_readers(
    const Graph& graph, const std::shared_ptr<const onnx::ModelProto>& model, const Importer& importer,
    const TensorReader& reader, const ImportOptions& options, const std::set<std::string>& unfilled,
    std::map<std::string, Initializer>& drawn, std::vector<std::string>& remarks) {
  std::map<std::string, std::function<Tensor()>> readers;
  Problems problems;
  MissingFiles missing;
  if (options.constants == MissingConstants::refused) {
    MissingFiles constants = missing_constants(graph, importer, reader);
    if (options.weights == InitialWeights::from_file)
      missing = std::move(constants);
    else
      add_problems(constants, "put the file beside the model: these are constants, which --init cannot make", problems);
  }
  const InitialRules rules(graph, options.scheme);
  const auto is_named = [&](const std::string& name) {
    return std::ranges::any_of(options.fresh,
                               [&](const std::string& p) { return fnmatch(p.c_str(), name.c_str(), 0) == 0; });
  };
  int64_t made = 0;
  for (const Node& node : graph.nodes()) {
    if (!is_weight(node)) continue;
    const std::string& name = node.attributes.text("name");
    const onnx::TensorProto* tensor = importer.initializer(name);
    require(tensor != nullptr, "every weight leaf comes from an initializer");
    try {
      const bool asked = is_named(name) || unfilled.contains(name);
      const std::optional<std::string> absent =
          options.weights == InitialWeights::fresh || asked ? std::nullopt : reader.missing_file(*tensor);
      if (absent && options.weights == InitialWeights::from_file) {
        missing[*absent].push_back(name);
        continue;
      }
      // No initializer tells where a single number starts.
      const bool kept = tensor->dims().empty() && !reader.missing_file(*tensor);
      const bool fresh = ((options.weights == InitialWeights::fresh || asked) && !kept) || absent;
      if (is_named(name) && kept)
        remarks.push_back("fresh: '" + name + "' is a single number, which keeps the file's value");
      made += fresh;
      const TensorType type = leaf_type(*tensor, importer.repeated_leaves());
      const Attribute* permutation = node.attributes.find("permutation");
      if (fresh) drawn[name] = rules(name, importer.initializer_of(tensor->name(), type.shape));
      readers[name] = WeightReader{.model = model,
                                   .initializer = tensor,
                                   .reader = reader,
                                   .type = type,
                                   .initial = fresh ? std::optional(drawn.at(name)) : std::nullopt,
                                   .seed = options.seed,
                                   .permutation = permutation ? std::get<Ints>(*permutation) : Ints()};
    } catch (const Error& error) {
      problems.add(error.what());
    }
  }
  add_problems(missing, "put the file beside the model, or start from fresh weights with --init", problems);
  problems.throw_if_any();
  if (made > 0)
    remarks.push_back(std::to_string(made) + " tensors start fresh, from seed " + std::to_string(options.seed) +
                      (rules.kind() == InitialScheme::pytorch ? "" : ", by scheme " + rules.text()));
  return readers;
}

FileTensors read_all(const std::map<std::string, std::function<Tensor()>>& readers) {
  FileTensors weights;
  Problems problems;
  for (const auto& [name, read] : readers) try {
      weights[name] = read();
    } catch (const Error& error) {
      problems.add(error.what());
    }
  problems.throw_if_any();
  return weights;
}

std::string missing_constants_remark(const Importer& importer) {
  std::vector<std::string> names;
  for (const auto& [name, file] : importer.missing_constants()) names.push_back(name);
  return "WARNING: the data of the constant " + list_tensors(names) +
         " is missing and taken as zeros (booleans: true); "
         "results mean nothing until '" +
         importer.missing_constants().begin()->second + "' stands beside the model";
}

}  // namespace halfstep
