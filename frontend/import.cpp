#include "frontend/import.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "frontend/importer.h"
#include "frontend/validate.h"

namespace halfstep {
namespace {

// The shapes of the data inputs: as exported, and as wanted now. A dimension that the file leaves open is as wanted in
// both.
struct InputShapes {
  std::map<std::string, Shape> exported, wanted;
  Batch batch;
};

std::string dimension_name(const onnx::TensorShapeProto::Dimension& dimension, int axis) {
  return "dimension " + std::to_string(axis) +
         (dimension.dim_param().empty() ? "" : " ('" + dimension.dim_param() + "')");
}

class InputResolver {
 public:
  InputResolver(const onnx::GraphProto& graph, const ImportOptions& options, Problems& problems)
      : options_(options), problems_(problems), symbols_(options.dimensions) {
    std::set<std::string> initialized;
    for (const onnx::TensorProto& tensor : graph.initializer()) initialized.insert(tensor.name());
    for (const onnx::ValueInfoProto& input : graph.input())
      if (!initialized.contains(input.name())) inputs_.push_back(&input);
  }

  InputShapes resolve() {
    check_options();
    find_batch();
    for (const onnx::ValueInfoProto* input : inputs_) {
      const onnx::TypeProto& type = input->type();
      if (!type.has_tensor_type() || !element_type(type.tensor_type().elem_type()))
        problems_.add("input '" + input->name() + "': a tensor of numbers expected, found " +
                      (type.has_tensor_type()     ? element_type_name(type.tensor_type().elem_type())
                       : type.has_sequence_type() ? "a sequence; build it inside the model"
                                                  : "another kind of value"));
      else
        resolve_input(*input);
    }
    return std::move(result_);
  }

 private:
  void check_options() {
    std::vector<std::string> names;
    for (const onnx::ValueInfoProto* input : inputs_) names.push_back(input->name());
    for (const auto& [name, shape] : options_.shapes)
      if (name.empty() && names.size() != 1) {
        problems_.add("a shape is given without an input's name, but the model has " + std::to_string(names.size()) +
                      " inputs: write NAME=D,D,...");
      } else if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) {
        const std::string near = nearest(name, names);
        problems_.add("a shape is given for input '" + name + "', which the model does not have" +
                      (near.empty() ? "" : "; did you mean '" + near + "'?"));
      }
    if (options_.batch && *options_.batch <= 0)
      problems_.add("batch " + std::to_string(*options_.batch) + ": a positive number expected");
  }

  // Axis 0 of the first input that has axes says what the batch was, if it is a number.
  void find_batch() {
    if (options_.batch) result_.batch = {*options_.batch, *options_.batch};
    for (const onnx::ValueInfoProto* input : inputs_) {
      const auto& dims = input->type().tensor_type().shape().dim();
      if (dims.empty()) continue;
      if (dims[0].has_dim_value() && dims[0].dim_value() > 0) {
        fixed_batch_ = dims[0].dim_value();
        result_.batch = {*fixed_batch_, options_.batch.value_or(*fixed_batch_)};
      }
      return;
    }
  }

  void resolve_input(const onnx::ValueInfoProto& input) {
    const std::string place = "input '" + input.name() + "'";
    const onnx::TypeProto::Tensor& type = input.type().tensor_type();
    auto given = options_.shapes.find(input.name());
    if (given == options_.shapes.end()) given = options_.shapes.find("");
    if (!type.has_shape() && given == options_.shapes.end()) {
      problems_.add(place + ": the file does not say its shape; give it");
      return;
    }
    const auto& dims = type.shape().dim();
    const auto rank = type.has_shape() ? static_cast<size_t>(dims.size()) : given->second.size();
    if (given != options_.shapes.end() && given->second.size() != rank) {
      problems_.add(place + ": shape " + to_string(given->second) + " is given, the model has " + std::to_string(rank) +
                    " axes");
      return;
    }
    Shape exported, wanted;
    for (size_t i = 0; i < rank; ++i) {
      const onnx::TensorShapeProto::Dimension dim =
          type.has_shape() ? dims[static_cast<int>(i)] : onnx::TensorShapeProto::Dimension();
      const std::optional<int64_t> fixed =
          dim.has_dim_value() && dim.dim_value() > 0 ? std::optional(dim.dim_value()) : std::nullopt;
      const std::optional<int64_t> asked =
          given != options_.shapes.end() && given->second[i] != -1 ? std::optional(given->second[i]) : std::nullopt;
      const std::optional<int64_t> size = asked ? asked : size_of(dim, i, fixed);
      if (!size)
        problems_.add(place + ": " + dimension_name(dim, static_cast<int>(i)) + " is open in the file; give its size" +
                      (i == 0 ? ", the batch" : ""));
      else if (*size < 0 || (asked && *size == 0))
        problems_.add(place + ": " + dimension_name(dim, static_cast<int>(i)) + " is given as " +
                      std::to_string(*size));
      wanted.push_back(size.value_or(1));
      exported.push_back(fixed.value_or(wanted.back()));
    }
    try {
      checked_mul(checked_element_count(wanted, place), 8, place);
    } catch (const Error& error) {
      problems_.add(error.what());
    }
    result_.exported[input.name()] = exported;
    result_.wanted[input.name()] = wanted;
  }

  std::optional<int64_t> size_of(const onnx::TensorShapeProto::Dimension& dim, size_t axis,
                                 std::optional<int64_t> fixed) {
    if (fixed) return axis == 0 && fixed == fixed_batch_ ? result_.batch.wanted : *fixed;
    if (const auto known = symbols_.find(dim.dim_param()); known != symbols_.end() && !dim.dim_param().empty())
      return known->second;
    if (axis != 0 || !options_.batch) return std::nullopt;
    if (!dim.dim_param().empty()) symbols_[dim.dim_param()] = *options_.batch;  // the batch, wherever it occurs
    return *options_.batch;
  }

  const ImportOptions& options_;
  Problems& problems_;
  std::map<std::string, int64_t> symbols_;
  std::vector<const onnx::ValueInfoProto*> inputs_;
  std::optional<int64_t> fixed_batch_;
  InputShapes result_;
};

// A parameter whose every use is the same transpose is stored transposed: convolution filters channels-last.
Graph store_parameters_as_read(const Graph& graph) {
  const std::vector<std::vector<NodeId>> users = graph.users();
  std::map<NodeId, Ints> stored;
  for (NodeId id = 0; id < graph.size(); ++id) {
    if (graph.node(id).op->name != "parameter" || users[static_cast<size_t>(id)].empty()) continue;
    const auto& readers = users[static_cast<size_t>(id)];
    const Node& first = graph.node(readers[0]);
    const bool alike = std::all_of(readers.begin(), readers.end(), [&](NodeId user) {
      const Node& node = graph.node(user);
      return node.op->name == "transpose" && node.attributes == first.attributes;
    });
    const bool is_output = std::any_of(graph.outputs().begin(), graph.outputs().end(),
                                       [&](const NamedValue& o) { return o.value.node == id; });
    if (alike && !is_output) stored[id] = first.attributes.ints("permutation");
  }
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

bool is_weight(const Node& node) { return node.op->name == "parameter" || node.op->name == "state"; }

// Tensors by the file that should hold them: one problem a file.
using MissingFiles = std::map<std::string, std::vector<std::string>>;

void add_problems(const MissingFiles& missing, Problems& problems) {
  for (const auto& [file, tensors] : missing) {
    constexpr size_t kMostNamed = 3;
    std::string names;
    for (size_t i = 0; i < std::min(tensors.size(), kMostNamed); ++i) names += (i ? ", '" : "'") + tensors[i] + "'";
    if (tensors.size() > kMostNamed) names += " and " + std::to_string(tensors.size() - kMostNamed) + " more";
    problems.add("external data '" + file + "' of " +
                 (tensors.size() == 1 ? "tensor " : std::to_string(tensors.size()) + " tensors ") + names +
                 " is missing; put the file beside the model, or start from fresh weights with --init absent");
  }
}

// The stored tensors of the graph's parameters and states, from the file or fresh.
NamedTensors load_weights(const Graph& graph, const Importer& importer, const TensorReader& reader,
                          const ImportOptions& options, std::vector<std::string>& remarks) {
  NamedTensors weights;
  Problems problems;
  MissingFiles missing;
  int64_t made = 0;
  for (const Node& node : graph.nodes()) {
    if (!is_weight(node)) continue;
    const std::string& name = node.attributes.text("name");
    const onnx::TensorProto* tensor = importer.initializer(name);
    require(tensor != nullptr, "every weight leaf comes from an initializer");
    try {
      const std::optional<std::string> absent =
          options.weights == InitialWeights::fresh ? std::nullopt : reader.missing_file(*tensor);
      if (absent && options.weights == InitialWeights::from_file) {
        missing[*absent].push_back(name);
        continue;
      }
      const bool fresh = options.weights == InitialWeights::fresh || absent;
      const TensorType type = type_of(*tensor);
      made += fresh;
      Tensor value =
          fresh ? fresh_tensor(type, importer.fresh_rule(name, type.shape), options.seed, name) : reader.read(*tensor);
      const Attribute* permutation = node.attributes.find("permutation");
      const Ints axes = permutation ? std::get<Ints>(*permutation) : Ints();
      weights[name] = axes.empty() ? std::move(value) : value.transpose(axes);
    } catch (const Error& error) {
      problems.add(error.what());
    }
  }
  add_problems(missing, problems);
  problems.throw_if_any();
  if (made > 0)
    remarks.push_back(std::to_string(made) + " tensors start fresh, from seed " + std::to_string(options.seed));
  return weights;
}

ImportedModel import_parsed(const onnx::ModelProto& model, const OnnxFile& file, const ImportOptions& options) {
  Problems problems;
  validate_model(model, problems);
  const InputShapes shapes = InputResolver(model.graph(), options, problems).resolve();
  problems.throw_if_any();
  const TensorReader reader(file.directory);
  const bool changed = shapes.exported != shapes.wanted;
  Importer at_exported({.model = model,
                        .reader = reader,
                        .options = options,
                        .shapes = shapes.exported,
                        .batch = shapes.batch,
                        .recorded = nullptr});
  Importer at_wanted({.model = model,
                      .reader = reader,
                      .options = options,
                      .shapes = shapes.wanted,
                      .batch = shapes.batch,
                      .recorded = &at_exported.recording()});
  if (changed) at_exported.run();
  Importer& importer = changed ? at_wanted : at_exported;
  ImportedModel result;
  result.graph = store_parameters_as_read(importer.run());
  const auto nodes = result.graph.nodes();
  const bool trainable =
      std::any_of(nodes.begin(), nodes.end(), [](const Node& node) { return node.op->name == "parameter"; });
  if (options.mode == ImportMode::training && !trainable)
    throw Error("model '" + file.name +
                "' has nothing to train: none of its outputs depends on a floating-point initializer" +
                (options.freeze.empty() ? "" : " that is not frozen"));
  result.remarks = importer.remarks();
  if (options.weights != InitialWeights::none)
    result.weights = load_weights(result.graph, importer, reader, options, result.remarks);
  result.inputs = importer.input_names();
  result.nodes = importer.nodes();
  for (const NamedValue& output : result.graph.outputs()) result.outputs.push_back(output.name);
  return result;
}

}  // namespace

ImportedModel import_model(const OnnxFile& file, const ImportOptions& options) {
  return import_parsed(parse_model(file), file, options);
}

Readiness check_model(const OnnxFile& file, const ImportOptions& options) {
  const onnx::ModelProto model = parse_model(file);
  Readiness result;
  for (const onnx::NodeProto& node : model.graph().node()) ++result.operators[operator_name(node)];
  try {
    const ImportedModel imported = import_parsed(model, file, options);
    result.remarks = imported.remarks;
    for (const Node& node : imported.graph.nodes())
      if (node.op->name == "parameter") result.parameters += node.results[0].element_count();
  } catch (const Error& error) {
    const std::string text = error.what();
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      result.problems.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return result;
}

NamedTensors in_onnx_layout(const Graph& graph, const NamedTensors& stored) {
  NamedTensors result = stored;
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
