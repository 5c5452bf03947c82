#include "frontend/import/import.h"

#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "base/printable.h"
#include "frontend/import/import_model.h"
#include "frontend/import/importer.h"
#include "frontend/import/input_shapes.h"
#include "frontend/import/repeated_leaves.h"
#include "frontend/import/weight_readers.h"
#include "frontend/onnx/local_names.h"
#include "frontend/onnx/validate.h"
#include "frontend/repairs/read_model.h"
#include "frontend/repairs/scalar_weights.h"
#include "frontend/repairs/written_statistics.h"

namespace halfstep {
namespace {

// A parameter whose every use is the same transpose is stored transposed: convolution filters channels-last.
Graph store_parameters_as_read(const Graph& graph) {
  const std::vector<std::vector<NodeId>> users = graph.users();
  std::map<NodeId, Ints> stored;
  std::set<NodeId> outputs;
  for (const NamedValue& output : graph.outputs()) outputs.insert(output.value.node);
  for (NodeId id = 0; id < graph.size(); ++id) {
    if (graph.node(id).op->name != "parameter" || users[static_cast<size_t>(id)].empty()) continue;
    const auto& readers = users[static_cast<size_t>(id)];
    const Node& first = graph.node(readers[0]);
    const bool alike = std::all_of(readers.begin(), readers.end(), [&](NodeId user) {
      const Node& node = graph.node(user);
      return node.op->name == "transpose" && node.attributes == first.attributes;
    });
    if (alike && !outputs.contains(id)) stored[id] = first.attributes.ints("permutation");
  }
  if (stored.empty()) return graph;
  // Nodes keep their numbers through `rewrite`, in which every node is visited once and in order.
  NodeId next = 0;
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    const NodeId id = next++;
    if (const auto found = stored.find(id); found != stored.end()) {
      Shape shape;
      for (int64_t axis : found->second) shape.push_back(node.results[0].shape[static_cast<size_t>(axis)]);
      return {b.parameter(node.attributes.text("name"), {node.results[0].dtype, shape}, found->second)};
    }
    if (node.op->name == "transpose" && stored.contains(node.operands[0].node)) return {operands[0]};
    return {};
  });
}

void collect_names(const onnx::GraphProto& graph, std::vector<std::string>& names) {
  for (const onnx::TensorProto& tensor : graph.initializer()) names.push_back(tensor.name());
  for (const onnx::NodeProto& node : graph.node())
    for (const onnx::AttributeProto& attribute : node.attribute())
      if (attribute.has_g()) collect_names(attribute.g(), names);
}

// Patterns of what is to be trained, none of whose initializers became a parameter.
void refuse_untrained(const Graph& graph, const onnx::GraphProto& file, const std::map<std::string, Tie>& ties,
                      const std::vector<std::string>& patterns) {
  std::set<std::string> trained;
  for (const Node& node : graph.nodes())
    if (node.op->name == "parameter") trained.insert(leaf_name(node).text);
  std::vector<std::string> names;
  if (!patterns.empty()) collect_names(file, names);
  Problems problems;
  for (const std::string& pattern : patterns) {
    std::vector<std::string> untrained;
    bool reaches = false;
    for (const std::string& name : names) {
      if (fnmatch(pattern.c_str(), name.c_str(), 0) != 0) continue;
      const auto tie = ties.find(name);
      const bool is_trained = trained.contains(name) || (tie != ties.end() && trained.contains(tie->second.to));
      reaches |= is_trained;
      if (!is_trained) untrained.push_back(name);
    }
    if (!reaches && !untrained.empty())
      problems.add("train: " + list_tensors(untrained) +
                   " cannot be trained: what reads it takes it as a constant, or no output depends on it");
  }
  problems.throw_if_any();
}

Graph with_written_statistics(const Graph& graph, Importer& importer, std::vector<std::string>& remarks) {
  WrittenStatistics statistics;
  Graph result = keep_written_statistics(graph, statistics);
  if (statistics.means.empty()) return result;
  for (const std::string& mean : statistics.means) importer.set_initializer(mean, {Initializer::constant, 0});
  for (const std::string& variance : statistics.variances)
    importer.set_initializer(variance, {Initializer::constant, 1});
  std::vector<std::string> all = statistics.means;
  all.insert(all.end(), statistics.variances.begin(), statistics.variances.end());
  remarks.push_back("batch norms written out with running statistics keep them as they are: " + list_tensors(all));
  return result;
}

void check_patterns(const onnx::GraphProto& graph, const ImportOptions& options, Problems& problems) {
  if (options.freeze.empty() && options.train.empty() && options.fresh.empty()) return;
  std::vector<std::string> names;
  collect_names(graph, names);
  const auto check = [&](const char* key, const std::vector<std::string>& patterns) {
    for (const std::string& pattern : patterns) {
      if (std::any_of(names.begin(), names.end(),
                      [&](const std::string& name) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; }))
        continue;
      const std::string near = nearest(pattern, names);
      problems.add(std::string(key) + ": no initializer is called '" + pattern + "'" +
                   (near.empty() ? "" : "; did you mean '" + near + "'?"));
    }
  };
  check("freeze", options.freeze);
  check("train", options.train);
  check("fresh", options.fresh);
}

// The statistics of one value say nothing: every result is the shift, and no gradient passes.
void refuse_single_values(const Graph& graph) {
  Problems problems;
  for (const Node& node : graph.nodes()) {
    if (node.op->name != "batch_norm") continue;
    const TensorType& x = graph.type(node.operands[0]);
    if (x.element_count() != x.shape[static_cast<size_t>(node.attributes.integer("axis"))]) continue;
    problems.add("node BatchNormalization '" + *node.origin.name + "': its input " + to_string(x) +
                 " holds one value a channel, and training takes statistics of several: give a larger batch, or larger "
                 "images with shape");
  }
  problems.throw_if_any();
}

ImportedModel import_outputs(OnnxModel file, const ImportOptions& options) {
  Problems problems;
  validate_model(file.proto(), problems);
  separate_local_names(file);
  const onnx::ModelProto& model = file.proto();
  check_patterns(model.graph(), options, problems);
  const InputShapes shapes = resolve_inputs(model.graph(), options, problems);
  problems.throw_if_any();
  const TensorReader reader = file.reader();
  const std::map<std::string, Tie> ties = find_ties(model.graph(), reader);
  const ScalarWeights scalars =
      options.mode == ImportMode::training ? find_scalar_weights(model.graph(), reader) : ScalarWeights();
  const std::vector<int> order = needed_in_order(model.graph());
  const Importer::Inputs inputs{.model = model,
                                .reader = reader,
                                .options = options,
                                .shapes = shapes,
                                .ties = ties,
                                .scalars = scalars.weights,
                                .order = order,
                                .unfilled = file.fresh()};
  const RepeatedLeaves repeated = options.mode == ImportMode::training ? find_repeated(inputs) : RepeatedLeaves();
  const Recording recording = sizes_differ(shapes) ? record(inputs) : Recording();
  Importer importer({model, reader, options, shapes, ties, scalars.weights, order, file.fresh(),
                     sizes_differ(shapes) ? &recording : nullptr, repeated});
  ImportedModel result;
  const Graph graph = importer.run();
  if (options.mode == ImportMode::training) {
    if (options.statistics == ImportOptions::of_batches) refuse_single_values(graph);
    refuse_untrained(graph, model.graph(), ties, options.train);
  }
  result.remarks = file.remarks();
  result.remarks.insert(result.remarks.end(), importer.remarks().begin(), importer.remarks().end());
  result.graph = store_parameters_as_read(
      options.mode == ImportMode::training ? with_written_statistics(graph, importer, result.remarks) : graph);
  const auto nodes = result.graph.nodes();
  const bool trainable =
      std::any_of(nodes.begin(), nodes.end(), [](const Node& node) { return node.op->name == "parameter"; });
  if (options.mode == ImportMode::training && !trainable)
    throw Error("model '" + file.name() +
                "' has nothing to train: none of its outputs depends on a floating-point initializer" +
                (options.freeze.empty() ? "" : " that is not frozen"));
  if (options.weights != InitialWeights::none) {
    result.weight_readers = weight_readers(result.graph, file.share(), importer, reader, options, file.fresh(),
                                           result.fresh, result.remarks);
    if (options.reading == ImportOptions::at_once) {
      result.weights = read_all(result.weight_readers);
      result.weight_readers.clear();
    }
  }
  if (!importer.missing_constants().empty() && options.weights != InitialWeights::from_file)
    result.remarks.push_back(missing_constants_remark(importer));
  result.inputs = importer.input_names();
  result.nodes = importer.nodes();
  result.file_nodes = file.file_nodes();
  result.graph_name = file.graph_name();
  for (const NamedValue& output : result.graph.outputs()) result.outputs.push_back(output.name.text);
  return result;
}

// Whether there was another one.
bool keep_only_output(OnnxModel& model, const std::string& name) {
  onnx::GraphProto& graph = *model.edit().mutable_graph();
  const auto outputs = graph.output();
  graph.clear_output();
  for (const onnx::ValueInfoProto& output : outputs)
    if (output.name() == name) *graph.add_output() = output;
  return graph.output_size() == 1 && outputs.size() > 1;
}

// The output that can be read alone where all together cannot, or "": classifiers give labels beside probabilities.
std::string readable_output(const OnnxModel& model, const ImportOptions& options) {
  constexpr int kMostOutputs = 4;
  const onnx::GraphProto& graph = model.proto().graph();
  if (graph.output_size() < 2 || graph.output_size() > kMostOutputs) return "";
  for (const onnx::ValueInfoProto& output : graph.output()) {
    OnnxModel part = model;
    keep_only_output(part, output.name());
    try {
      const ImportedModel read = import_outputs(std::move(part), options);
      if (is_floating(read.graph.type(read.graph.outputs()[0].value).dtype)) return output.name();
    } catch (const Error&) {
    }
  }
  return "";
}

ImportedModel import_any_output(const OnnxModel& model, const ImportOptions& options) try {
  return import_outputs(model, options);
} catch (const Error& error) {
  const std::string output = readable_output(model, options);
  if (output.empty()) throw;
  std::vector<std::string> problems = lines_of(error.what());
  problems.back() += "; output '" + output + "' needs none of this: choose it with --output " + output;
  throw Error(std::move(problems));
}

}  // namespace

ImportedModel import_model(const OnnxFile& file, const ImportOptions& options) {
  return import_model(read_model(file), options);
}

ImportedModel import_model(const OnnxModel& model, const ImportOptions& options) {
  if (options.output.empty()) return import_any_output(model, options);
  OnnxModel part = model;
  try {
    return import_outputs(model, options);
  } catch (const Error&) {
    if (!keep_only_output(part, options.output)) throw;
  }
  ImportedModel result = import_outputs(std::move(part), options);
  result.remarks.push_back("only what output '" + options.output + "' needs is read: the rest is not supported");
  return result;
}

std::map<std::string, std::string> parts_at_import(const ImportedModel& model) {
  std::set<std::string> computed;
  for (const Node& node : model.graph.nodes())
    if (!is_leaf(*node.op)) computed.insert(node.origin.name);
  std::vector<const std::string*> whole(model.nodes.size());
  for (size_t i = model.nodes.size(); i-- > 0;) {
    const OnnxNode& node = model.nodes[i];
    if (node.folded) continue;
    if (computed.contains(node.name)) whole[i] = &node.name;
    for (size_t reader : node.readers)
      if (!whole[i]) whole[i] = whole[reader];
  }
  std::map<std::string, std::string> parts;
  for (size_t i = 0; i < model.nodes.size(); ++i) {
    const OnnxNode& node = model.nodes[i];
    if (node.same_as && !whole[i]) whole[i] = whole[*node.same_as];
    if (whole[i] && *whole[i] != node.name) parts.emplace(node.name, *whole[i]);
  }
  return parts;
}

Shape shape_in_file(const Node& leaf) {
  Shape shape = leaf.results[0].shape;
  const Attribute* permutation = leaf.attributes.find("permutation");
  if (!permutation) return shape;
  const Ints& axes = std::get<Ints>(*permutation);
  for (size_t i = 0; i < axes.size(); ++i) shape[static_cast<size_t>(axes[i])] = leaf.results[0].shape[i];
  return shape;
}

FileTensors in_onnx_layout(const Graph& graph, const FileTensors& stored) {
  FileTensors result = stored;
  for (const Node& node : graph.nodes()) {
    if (node.op->name != "parameter" || node.attributes.ints("permutation").empty()) continue;
    const auto found = result.find(node.attributes.text("name"));
    if (found == result.end()) continue;
    const Ints& permutation = node.attributes.ints("permutation");
    Ints inverse(permutation.size());
    for (size_t i = 0; i < permutation.size(); ++i)
      inverse[static_cast<size_t>(permutation[i])] = static_cast<int64_t>(i);
    found->second = found->second.transpose(inverse);
  }
  return result;
}

}  // namespace halfstep
