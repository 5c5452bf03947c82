#include "frontend/import/import.h"

#include <fnmatch.h>

#include <algorithm>
#include <memory>

#include "base/checked.h"
#include "base/error.h"
#include "base/printable.h"
#include "frontend/import/import_model.h"
#include "frontend/import/importer.h"
#include "frontend/onnx/local_names.h"
#include "frontend/onnx/validate.h"
#include "frontend/repairs/read_model.h"
#include "frontend/repairs/scalar_weights.h"
#include "frontend/repairs/written_statistics.h"

namespace halfstep {
namespace {

// The dimensions of the data inputs. One that the file leaves open is exported as it is wanted.
using InputShapes = std::map<std::string, Dimensions>;

InputShapes as_exported(const InputShapes& shapes) {
  InputShapes result;
  for (const auto& [name, dimensions] : shapes) result[name] = numbers(exported_sizes(dimensions));
  return result;
}

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
    for (const auto& [name, value] : options_.values) {
      const auto known = std::find_if(inputs_.begin(), inputs_.end(),
                                      [&](const onnx::ValueInfoProto* input) { return input->name() == name; });
      if (known == inputs_.end()) {
        const std::string near = nearest(name, names);
        problems_.add("a value is set for input '" + name + "', which the model does not have" +
                      (near.empty() ? "" : "; did you mean '" + near + "'?"));
        continue;
      }
      const std::optional<DType> type = element_type((*known)->type().tensor_type().elem_type());
      if (type && !is_floating(*type) && round_to(*type, value) != value)
        problems_.add("input '" + name + "' is set to " + std::to_string(value) + ", which is no " +
                      std::string(halfstep::name(*type)));
    }
    if (options_.batch && *options_.batch <= 0)
      problems_.add("batch " + std::to_string(*options_.batch) + ": a positive number expected");
  }

  // Axis 0 of the first input that has axes is the batch: as exported, if that is a number, and as wanted.
  void find_batch() {
    batch_ = options_.batch;
    for (const onnx::ValueInfoProto* input : inputs_) {
      const auto& dims = input->type().tensor_type().shape().dim();
      if (dims.empty()) continue;
      if (dims[0].has_dim_value() && dims[0].dim_value() > 0) fixed_batch_ = dims[0].dim_value();
      const Shape* asked = asked_shape(input->name());
      if (!batch_ && asked && !asked->empty() && asked->front() > 0) batch_ = asked->front();
      return;
    }
  }

  const Shape* asked_shape(const std::string& input) const {
    auto asked = options_.shapes.find(input);
    if (asked == options_.shapes.end()) asked = options_.shapes.find("");
    return asked == options_.shapes.end() ? nullptr : &asked->second;
  }

  void resolve_input(const onnx::ValueInfoProto& input) {
    const std::string place = "input '" + input.name() + "'";
    const onnx::TypeProto::Tensor& type = input.type().tensor_type();
    const Shape* given = asked_shape(input.name());
    if (!type.has_shape() && !given) {
      problems_.add(place + ": the file does not say its shape; give it");
      return;
    }
    const auto& dims = type.shape().dim();
    const auto rank = type.has_shape() ? static_cast<size_t>(dims.size()) : given->size();
    if (given && given->size() != rank) {
      problems_.add(place + ": shape " + to_string(*given) + " is given, the model has " + std::to_string(rank) +
                    " axes");
      return;
    }
    Dimensions dimensions;
    for (size_t i = 0; i < rank; ++i) {
      const onnx::TensorShapeProto::Dimension dim =
          type.has_shape() ? dims[static_cast<int>(i)] : onnx::TensorShapeProto::Dimension();
      const std::optional<int64_t> fixed =
          dim.has_dim_value() && dim.dim_value() > 0 ? std::optional(dim.dim_value()) : std::nullopt;
      const std::optional<int64_t> asked = given && (*given)[i] != -1 ? std::optional((*given)[i]) : std::nullopt;
      const std::optional<int64_t> size = asked ? asked : size_of(dim, i, fixed);
      if (!size)
        problems_.add(place + ": " + dimension_name(dim, static_cast<int>(i)) + " is open in the file; give its size" +
                      (i == 0 ? ", the batch" : ""));
      else if (*size < 0 || (asked && *size == 0))
        problems_.add(place + ": " + dimension_name(dim, static_cast<int>(i)) + " is given as " +
                      std::to_string(*size));
      const int64_t wanted = size.value_or(1);
      dimensions.push_back({{fixed.value_or(wanted), wanted}});
    }
    try {
      checked_mul(checked_element_count(wanted_sizes(dimensions), place), 8, place);
    } catch (const Error& error) {
      problems_.add(error.what());
    }
    result_[input.name()] = dimensions;
  }

  std::optional<int64_t> size_of(const onnx::TensorShapeProto::Dimension& dim, size_t axis,
                                 std::optional<int64_t> fixed) {
    if (fixed) return axis == 0 && fixed == fixed_batch_ ? batch_.value_or(*fixed) : *fixed;
    if (const auto known = symbols_.find(dim.dim_param()); known != symbols_.end() && !dim.dim_param().empty())
      return known->second;
    if (axis != 0 || !batch_) return std::nullopt;
    if (!dim.dim_param().empty()) symbols_[dim.dim_param()] = *batch_;  // the batch, wherever it occurs
    return *batch_;
  }

  const ImportOptions& options_;
  Problems& problems_;
  std::map<std::string, int64_t> symbols_;
  std::vector<const onnx::ValueInfoProto*> inputs_;
  std::optional<int64_t> fixed_batch_, batch_;
  InputShapes result_;
};

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

bool is_weight(const Node& node) { return node.op->name == "parameter" || node.op->name == "state"; }

// Tensors by the file that should hold them: one problem a file.
using MissingFiles = std::map<std::string, std::vector<std::string>>;

// "tensor 'a'", "5 tensors 'a', 'b', 'c' and 2 more".
std::string list_tensors(const std::vector<std::string>& names) {
  constexpr size_t kMostNamed = 3;
  std::string list;
  for (size_t i = 0; i < std::min(names.size(), kMostNamed); ++i) list += (i ? ", '" : "'") + names[i] + "'";
  if (names.size() > kMostNamed) list += " and " + std::to_string(names.size() - kMostNamed) + " more";
  return (names.size() == 1 ? "tensor " : std::to_string(names.size()) + " tensors ") + list;
}

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

// The values of the graph's parameters and states, from the file or initialised.
std::map<std::string, std::function<Tensor()>> weight_readers(const Graph& graph,
                                                              const std::shared_ptr<const onnx::ModelProto>& model,
                                                              const Importer& importer, const TensorReader& reader,
                                                              const ImportOptions& options,
                                                              std::vector<std::string>& remarks) {
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
      // No initializer tells where a single number starts.
      const bool kept = tensor->dims().empty() && !reader.missing_file(*tensor);
      const bool fresh = (options.weights == InitialWeights::fresh && !kept) || absent;
      made += fresh;
      const TensorType type = leaf_type(*tensor, importer.repeated_leaves());
      const Attribute* permutation = node.attributes.find("permutation");
      readers[name] = WeightReader{
          .model = model,
          .initializer = tensor,
          .reader = reader,
          .type = type,
          .initial = fresh ? std::optional(importer.initializer_of(tensor->name(), type.shape)) : std::nullopt,
          .seed = options.seed,
          .permutation = permutation ? std::get<Ints>(*permutation) : Ints()};
    } catch (const Error& error) {
      problems.add(error.what());
    }
  }
  add_problems(missing, "put the file beside the model, or start from fresh weights with --init", problems);
  problems.throw_if_any();
  if (made > 0)
    remarks.push_back(std::to_string(made) + " tensors start fresh, from seed " + std::to_string(options.seed));
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

bool sizes_differ(const InputShapes& shapes) {
  return std::any_of(shapes.begin(), shapes.end(),
                     [](const auto& input) { return exported_sizes(input.second) != wanted_sizes(input.second); });
}

Recording record(const Importer::Inputs& inputs) {
  const InputShapes exported = as_exported(inputs.shapes);
  Importer::Inputs recorded{inputs.model, inputs.reader,  inputs.options, exported,
                            inputs.ties,  inputs.scalars, inputs.order};
  recorded.recording_only = true;
  Importer importer(recorded);
  importer.run();
  return std::move(importer.recording());
}

// What was expanded to the batch may have been expanded to the length too, as the row of a table of token types is. A
// tensor of one value, as a fresh class token, tells nothing about its other axes.
RepeatedLeaves along_every_axis(RepeatedLeaves leaves, const onnx::GraphProto& graph, const TensorReader& reader) {
  for (const onnx::TensorProto& tensor : graph.initializer()) {
    const auto leaf = leaves.find(tensor.name());
    if (leaf == leaves.end() || reader.missing_file(tensor)) continue;
    const Tensor value = reader.read(tensor);
    std::set<size_t> axes;
    bool one_value = true;
    for (size_t axis = 0; axis < value.type.shape.size(); ++axis)
      if (repeats(value, axis))
        axes.insert(axis);
      else
        one_value = false;
    if (!one_value) leaf->second.insert(axes.begin(), axes.end());
  }
  return leaves;
}

// A weight that the exporter expanded to its batch is one weight at any batch, at the exported one too. What would have
// to repeat is seen by reading the model at another batch.
RepeatedLeaves find_repeated(const Importer::Inputs& inputs) {
  const auto first =
      std::find_if(inputs.shapes.begin(), inputs.shapes.end(), [](const auto& input) { return !input.second.empty(); });
  if (first == inputs.shapes.end()) return {};
  const int64_t batch = exported_sizes(first->second).front();
  const auto& tensors = inputs.model.graph().initializer();
  const bool any = std::any_of(tensors.begin(), tensors.end(), [&](const onnx::TensorProto& t) {
    if (t.dims_size() < 2 || t.dims(0) != batch || batch < 2) return false;
    return element_type(t.data_type()) == DType::f32 &&
           (inputs.reader.missing_file(t) || repeats(inputs.reader.read(t), 0));
  });
  if (!any) return {};
  InputShapes other = as_exported(inputs.shapes);
  for (auto& [name, dimensions] : other)
    if (!dimensions.empty() && exported_sizes(dimensions)[0] == batch) dimensions[0] = {{batch, batch + 1}};
  try {
    const Recording recording = record(inputs);
    Importer importer(
        {inputs.model, inputs.reader, inputs.options, other, inputs.ties, inputs.scalars, inputs.order, &recording});
    importer.run();
    return along_every_axis(importer.repeated_leaves(), inputs.model.graph(), inputs.reader);
  } catch (const Error&) {
    return {};  // the model cannot be read at another batch, so that nothing in it is known to stand for one
  }
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

void collect_names(const onnx::GraphProto& graph, std::vector<std::string>& names) {
  for (const onnx::TensorProto& tensor : graph.initializer()) names.push_back(tensor.name());
  for (const onnx::NodeProto& node : graph.node())
    for (const onnx::AttributeProto& attribute : node.attribute())
      if (attribute.has_g()) collect_names(attribute.g(), names);
}

void check_patterns(const onnx::GraphProto& graph, const ImportOptions& options, Problems& problems) {
  if (options.freeze.empty() && options.train.empty()) return;
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
  const InputShapes shapes = InputResolver(model.graph(), options, problems).resolve();
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
                                .order = order};
  const RepeatedLeaves repeated = options.mode == ImportMode::training ? find_repeated(inputs) : RepeatedLeaves();
  const Recording recording = sizes_differ(shapes) ? record(inputs) : Recording();
  Importer importer({model, reader, options, shapes, ties, scalars.weights, order,
                     sizes_differ(shapes) ? &recording : nullptr, repeated});
  ImportedModel result;
  const Graph graph = importer.run();
  if (options.mode == ImportMode::training) refuse_single_values(graph);
  result.remarks = importer.remarks();
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
    result.weight_readers = weight_readers(result.graph, file.share(), importer, reader, options, result.remarks);
    if (options.reading == ImportOptions::at_once) {
      result.weights = read_all(result.weight_readers);
      result.weight_readers.clear();
    }
  }
  if (!importer.missing_constants().empty() && options.weights != InitialWeights::from_file)
    result.remarks.push_back(missing_constants_remark(importer));
  result.inputs = importer.input_names();
  result.nodes = importer.nodes();
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
