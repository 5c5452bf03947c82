#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "compiler/compile.h"
#include "compiler/policy.h"
#include "data/npy.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "passes/rewrite/known_values.h"

namespace halfstep {
namespace {

constexpr double kDataMax = 512;  // AutoCast's own

bool is_input(const Node& node) { return node.op->leaf == Leaf::input; }
bool computes(const Node& node) { return node.op->leaf == Leaf::none && !node.operands.empty(); }

// NaN where one of them is.
double largest(std::span<const double> values) {
  double most = 0;
  for (double v : values) {
    if (std::isnan(v)) return v;
    most = std::max(most, std::abs(v));
  }
  return most;
}

// NaN is beyond every limit.
bool is_beyond(double magnitude, double most) { return !(magnitude <= most); }
std::string beyond_text(double magnitude, double most) {
  return std::isnan(magnitude) ? "NaN" : fmt::format("{:g}, more than {:g}", magnitude, most);
}

double largest(const Tensor& tensor) {
  const Tensor values = tensor.cast(DType::f64);
  return largest(values.as<double>());
}

PrecisionRule rule_for(const std::string& node, std::string source, std::string reason) {
  return {.precision = Precision::full,
          .source = std::move(source),
          .node = node,
          .reason = std::move(reason),
          .form = PrecisionRule::literal};
}

// How many values each value of the node is the sum of; 0 if it is none.
int64_t depth_of(const Graph& graph, const Node& node) {
  const int64_t results = node.results[0].element_count();
  if (results == 0) return 0;
  std::vector<TensorType> types;
  for (Value v : node.operands) types.push_back(v ? graph.type(v) : TensorType{});
  switch (node.op->kernel) {
    case KernelKind::gemm:
      return std::llround(node.op->cost(node, types) / (2 * static_cast<double>(results)));
    case KernelKind::convolution: {
      // [O, window..., I / groups], however the operation is turned.
      const Shape& filter = types[node.op->gradient == Gradient::data ? 0 : 1].shape;
      int64_t depth = 1;
      for (size_t i = 1; i < filter.size(); ++i) depth *= filter[i];
      return depth;
    }
    case KernelKind::attention: {
      const Shape& q = types[0].shape;
      return q.size() == 4 ? q[1] * q[3] : q.back();
    }
    case KernelKind::reduction:
      return types[0].element_count() / results;
    default:
      return 0;
  }
}

// One for each node of the file, the first reason that is found.
class Rules {
 public:
  void add(const Node& node, const char* source, std::string reason) {
    const std::string& name = node.origin.name;
    if (name.empty() || node.origin.phase != Phase::forward || !named_.insert(name).second) return;
    rules_.push_back(rule_for(name, source, std::move(reason)));
  }
  std::vector<PrecisionRule> take() { return std::move(rules_); }

 private:
  std::set<std::string> named_;
  std::vector<PrecisionRule> rules_;
};

void add_depths(const Graph& graph, int64_t most, Rules& rules) {
  for (const Node& node : graph.nodes())
    if (const int64_t depth = depth_of(graph, node); depth > most)
      rules.add(node, "max_depth_of_reduction", fmt::format("it sums {} values, more than {}", depth, most));
}

// Weights as a node reads them, moved or not.
Value unmoved(const Graph& graph, Value v) {
  while (graph.node(v).op->kernel == KernelKind::movement && graph.node(v).operands.size() == 1)
    v = graph.node(v).operands[0];
  return v;
}

void add_weights(const ImportedModel& model, double most, Rules& rules) {
  const Graph& graph = model.graph;
  KnownValues known;
  std::map<NodeId, double> ranges;
  const auto range = [&](Value v) {
    const auto [entry, is_new] = ranges.emplace(v.node, 0);
    if (!is_new) return entry->second;
    const Node& node = graph.node(v);
    if (is_leaf(*node.op) && !is_input(node)) {
      const auto reader = model.weight_readers.find(node.attributes.text("name"));
      if (reader != model.weight_readers.end()) entry->second = largest(reader->second());
    } else if (!is_leaf(*node.op)) {
      if (const std::vector<double>* values = known.of(graph, v)) entry->second = largest(*values);
    }
    return entry->second;
  };
  for (const Node& node : graph.nodes()) {
    if (!computes(node)) continue;
    for (Value operand : node.operands) {
      if (!operand || !is_floating(graph.type(operand).dtype)) continue;
      const Value v = unmoved(graph, operand);
      if (const double most_of = range(v); is_beyond(most_of, most)) {
        const Node& leaf = graph.node(v);
        const std::string name = is_leaf(*leaf.op) ? "'" + leaf.attributes.text("name") + "'" : "a constant";
        rules.add(node, "init_max", fmt::format("{} reaches {}", name, beyond_text(most_of, most)));
      }
    }
  }
}

// "sample 3, element 17, and 4 more"; empty: there is none.
std::string first_nan(const Tensor& tensor) {
  if (!is_floating(tensor.type.dtype)) return "";
  const Tensor values = tensor.cast(DType::f64);
  const std::span<const double> all = values.as<double>();
  const auto is_nan = [](double v) { return std::isnan(v); };
  const auto first = std::ranges::find_if(all, is_nan);
  if (first == all.end()) return "";
  const int64_t at = first - all.begin(), more = std::ranges::count_if(all, is_nan) - 1;
  const int64_t samples = tensor.type.shape.empty() ? 1 : tensor.type.shape[0];
  const int64_t size = std::max<int64_t>(1, static_cast<int64_t>(all.size()) / std::max<int64_t>(1, samples));
  return fmt::format("sample {}, element {}{}", at / size, at % size,
                     more > 0 ? fmt::format(", and {} more", more) : "");
}

// The arrays as the model's inputs. Every problem at once.
NamedTensors inputs_from(const Graph& graph, FileTensors arrays, const std::string& path) {
  Problems problems;
  NamedTensors inputs;
  std::vector<std::string> names, wanted;
  for (const auto& [name, array] : arrays) names.push_back(name);
  for (const Node& node : graph.nodes()) {
    if (!is_input(node) || !leaf_name(node).is(Role::model)) continue;
    const std::string& name = node.attributes.text("name");
    wanted.push_back(name);
    const TensorType& type = node.results[0];
    const auto array = arrays.find(name);
    if (array == arrays.end()) {
      const std::string near = nearest(name, names);
      problems.add(fmt::format("calibration data '{}' lacks input '{}', {}{}", path, name, to_string(type),
                               near.empty() ? "" : fmt::format("; it has '{}'", near)));
      continue;
    }
    if (array->second.type.shape != type.shape || (is_floating(array->second.type.dtype) && !is_floating(type.dtype)))
      problems.add(fmt::format("calibration data '{}': '{}' is {}, the model's input {}", path, name,
                               to_string(array->second.type), to_string(type)));
    else if (const std::string nan = first_nan(array->second); !nan.empty())
      problems.add(fmt::format("calibration data '{}': '{}' holds NaN ({}): leave such samples out", path, name, nan));
    else
      inputs.emplace(leaf_name(node), array->second.cast(type.dtype));
  }
  for (const std::string& name : names)
    if (std::ranges::find(wanted, name) == wanted.end()) {
      const std::string near = nearest(name, wanted);
      problems.add(fmt::format("calibration data '{}': the model has no input '{}'{}", path, name,
                               near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
    }
  problems.throw_if_any();
  return inputs;
}

// The batch of the arrays: the first axis that all with the largest rank share.
int64_t batch_of(const FileTensors& arrays, int64_t otherwise) {
  std::optional<int64_t> batch;
  for (const auto& [name, array] : arrays) {
    if (array.type.shape.empty()) continue;
    if (batch && *batch != array.type.shape[0]) return otherwise;
    batch = array.type.shape[0];
  }
  return batch && *batch > 0 ? *batch : otherwise;
}

// What each node reads and writes of the model's values, on the calibration data.
void add_values(const Recipe& recipe, Rules& rules) {
  const double most = recipe.data_max.value_or(kDataMax);
  FileTensors arrays = read_npz(recipe.calibration_data);
  Recipe calibrated = recipe;
  calibrated.batch = batch_of(arrays, recipe.batch);
  for (auto& [input, shape] : calibrated.shapes)
    if (!shape.empty() && shape[0] == recipe.batch) shape[0] = calibrated.batch;
  const ImportedModel model = import_for(calibrated, MissingConstants::refused, ImportOptions::on_demand);
  const Graph& graph = model.graph;
  NamedTensors leaves = inputs_from(graph, std::move(arrays), recipe.calibration_data);
  for (const Node& node : graph.nodes())
    if (is_leaf(*node.op) && !is_input(node))
      leaves[leaf_name(node)] = model.weight_readers.at(node.attributes.text("name"))();
    else if (is_input(node) && !leaves.contains(leaf_name(node)))
      leaves[leaf_name(node)] = Tensor(node.results[0]);  // a step's own: the seed
  std::vector<double> ranges(graph.nodes().size(), 0);
  interpret(graph, leaves,
            {.rounding = Rounding::to_type, .observe = [&](NodeId id, const std::vector<InterpretedTensor>& results) {
               if (graph.node(id).op->leaf == Leaf::none || is_input(graph.node(id)))
                 for (const InterpretedTensor& r : results)
                   if (is_floating(r.type.dtype))
                     if (double& range = ranges[static_cast<size_t>(id)]; !std::isnan(range))
                       if (const double of_result = largest(r.values); is_beyond(of_result, range)) range = of_result;
             }});
  const std::vector<std::vector<NodeId>> users = graph.users();
  const auto same = [&](const Node& a, NodeId b) {
    return computes(graph.node(b)) && !a.origin.name.empty() && graph.node(b).origin == a.origin;
  };
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    if (!computes(node)) continue;
    for (Value v : node.operands)
      if (v && !same(node, v.node) && is_beyond(ranges[static_cast<size_t>(v.node)], most))
        rules.add(node, "data_max", fmt::format("it reads {}", beyond_text(ranges[static_cast<size_t>(v.node)], most)));
    const std::vector<NodeId>& readers = users[static_cast<size_t>(id)];
    const bool leaves_node = readers.empty() || !std::ranges::all_of(readers, [&](NodeId r) { return same(node, r); });
    if (leaves_node && is_beyond(ranges[static_cast<size_t>(id)], most))
      rules.add(node, "data_max", fmt::format("it writes {}", beyond_text(ranges[static_cast<size_t>(id)], most)));
  }
}

}  // namespace

std::vector<PrecisionRule> range_rules(const Recipe& recipe) {
  if (recipe.data_max && recipe.calibration_data.empty())
    throw Error("data_max: it needs calibration_data, an .npz file of the model's inputs");
  Rules rules;
  if (recipe.init_max)
    add_weights(import_for(recipe, MissingConstants::refused, ImportOptions::on_demand), *recipe.init_max, rules);
  if (!recipe.calibration_data.empty()) add_values(recipe, rules);
  if (recipe.max_depth_of_reduction) add_depths(import_graph(recipe).graph, *recipe.max_depth_of_reduction, rules);
  return rules.take();
}

}  // namespace halfstep
