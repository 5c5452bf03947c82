// Mutants of models, of their messages and of their bytes.
#include <algorithm>
#include <limits>

#include "base/error.h"
#include "frontend/diagnose/diagnostics.h"
#include "frontend/import/import_model.h"
#include "frontend/onnx/foreign_training.h"
#include "frontend/onnx/training_operators.h"
#include "frontend/repairs/read_model.h"
#include "passes/pipeline.h"
#include "tests/untrusted/cases.h"

namespace halfstep::test {
namespace {

const std::vector<int64_t> kIntegers{0,
                                     1,
                                     -1,
                                     2,
                                     3,
                                     -2,
                                     7,
                                     255,
                                     256,
                                     1000,
                                     65536,
                                     1 << 20,
                                     (1LL << 31) - 1,
                                     1LL << 31,
                                     1LL << 40,
                                     1LL << 53,
                                     1LL << 62,
                                     INT64_MAX,
                                     INT64_MIN,
                                     INT64_MIN + 1};
const std::vector<float> kFloats{0,
                                 -0.0f,
                                 1,
                                 -1,
                                 0.5f,
                                 1e-30f,
                                 1e30f,
                                 -1e30f,
                                 3e38f,
                                 2147483648.0f,
                                 std::numeric_limits<float>::infinity(),
                                 -std::numeric_limits<float>::infinity(),
                                 std::numeric_limits<float>::quiet_NaN()};

template <typename List>
auto* pick(Random& random, List& list) {
  return list.empty() ? nullptr : &list[static_cast<int>(below(random, list.size()))];
}

void change_number(Random& random, onnx::TensorProto& tensor) {
  if (below(random, 4) == 0) return tensor.set_data_type(static_cast<int32_t>(below(random, 28)));
  if (below(random, 4) == 0 && tensor.dims_size() > 0)
    return tensor.set_dims(static_cast<int>(below(random, tensor.dims_size())), one_of(random, kIntegers));
  if (auto* v = pick(random, *tensor.mutable_int64_data())) *v = one_of(random, kIntegers);
  if (auto* v = pick(random, *tensor.mutable_float_data())) *v = one_of(random, kFloats);
  if (auto* v = pick(random, *tensor.mutable_int32_data())) *v = static_cast<int32_t>(one_of(random, kIntegers));
  std::string& raw = *tensor.mutable_raw_data();
  if (raw.empty()) return tensor.clear_raw_data();
  const auto put = [&](const auto& value) {
    const size_t places = raw.size() / sizeof value;
    if (places > 0)
      raw.replace(static_cast<size_t>(below(random, static_cast<int64_t>(places))) * sizeof value, sizeof value,
                  reinterpret_cast<const char*>(&value), sizeof value);
  };
  if (below(random, 2) == 0)
    put(one_of(random, kIntegers));
  else
    put(one_of(random, kFloats));
}

void change_graph(Random& random, onnx::GraphProto& graph);

void change_attribute(Random& random, onnx::AttributeProto& a) {
  switch (below(random, 8)) {
    case 0:
      return a.set_type(static_cast<onnx::AttributeProto::AttributeType>(below(random, 15)));
    case 1:
      return a.set_name(one_of<std::string>(random, {"axis", "axes", "body", "to", "mode", "k", ""}));
    default:
      break;
  }
  if (a.has_i()) a.set_i(one_of(random, kIntegers));
  if (a.has_f()) a.set_f(one_of(random, kFloats));
  if (a.has_s()) a.set_s(one_of<std::string>(random, {"", "x", "SAME_UPPER", "linear", "ii,jj->ij", "...,..."}));
  if (a.has_t()) change_number(random, *a.mutable_t());
  if (a.has_g()) change_graph(random, *a.mutable_g());
  if (auto* v = pick(random, *a.mutable_ints())) *v = one_of(random, kIntegers);
  if (auto* v = pick(random, *a.mutable_floats())) *v = one_of(random, kFloats);
  if (a.ints_size() > 0 && below(random, 4) == 0) a.add_ints(one_of(random, kIntegers));
  if (a.ints_size() > 0 && below(random, 4) == 0) a.mutable_ints()->RemoveLast();
}

std::string some_name(Random& random, const onnx::GraphProto& graph) {
  switch (below(random, 4)) {
    case 0:
      if (graph.initializer_size() > 0) return pick(random, graph.initializer())->name();
      break;
    case 1:
      if (graph.input_size() > 0) return pick(random, graph.input())->name();
      break;
    case 2:
      if (graph.node_size() > 0)
        if (const auto& node = *pick(random, graph.node()); node.output_size() > 0) return *pick(random, node.output());
      break;
    default:
      break;
  }
  return below(random, 2) == 0 ? "" : "nowhere";
}

void change_node(Random& random, onnx::GraphProto& graph, onnx::NodeProto& node) {
  switch (below(random, 9)) {
    case 0:
      if (node.input_size() > 0) node.mutable_input()->RemoveLast();
      return;
    case 1:
      return node.add_input(some_name(random, graph));
    case 2:
    case 3:
      if (auto* name = pick(random, *node.mutable_input())) *name = some_name(random, graph);
      return;
    case 4:
      if (node.output_size() > 0) *pick(random, *node.mutable_output()) = "";
      return;
    case 5:
      if (const auto* other = pick(random, graph.node())) node.set_op_type(other->op_type());
      return;
    case 6:
      if (node.attribute_size() > 0) node.mutable_attribute()->RemoveLast();
      return;
    default:
      if (auto* a = pick(random, *node.mutable_attribute())) change_attribute(random, *a);
  }
}

void change_type(Random& random, onnx::ValueInfoProto& value) {
  onnx::TypeProto::Tensor& type = *value.mutable_type()->mutable_tensor_type();
  if (below(random, 3) == 0) return type.set_elem_type(static_cast<int32_t>(below(random, 18)));
  auto& dims = *type.mutable_shape()->mutable_dim();
  if (auto* dim = pick(random, dims); dim && below(random, 4) != 0)
    dim->set_dim_value(one_of(random, kIntegers));
  else if (below(random, 2) == 0)
    dims.Add()->set_dim_value(below(random, 4));
  else if (!dims.empty())
    dims.RemoveLast();
}

void change_graph(Random& random, onnx::GraphProto& graph) {
  switch (below(random, 10)) {
    case 0:
      if (auto* tensor = pick(random, *graph.mutable_initializer())) change_number(random, *tensor);
      return;
    case 1:
      if (auto* input = pick(random, *graph.mutable_input())) change_type(random, *input);
      return;
    case 2:
      if (auto* output = pick(random, *graph.mutable_output())) output->set_name(some_name(random, graph));
      return;
    case 3:
      if (graph.node_size() > 0) *graph.add_node() = onnx::NodeProto(*pick(random, graph.node()));
      return;
    default:
      if (auto* node = pick(random, *graph.mutable_node())) change_node(random, graph, *node);
  }
}

// Cases of operators have no weights: their first small floating input becomes one.
void train_an_input(onnx::GraphProto& graph) {
  constexpr int64_t kMost = 1 << 16;
  for (const onnx::ValueInfoProto& input : graph.input()) {
    const onnx::TypeProto::Tensor& type = input.type().tensor_type();
    if (type.elem_type() != onnx::TensorProto::FLOAT || type.shape().dim_size() == 0) continue;
    onnx::TensorProto tensor;
    tensor.set_name(input.name()), tensor.set_data_type(onnx::TensorProto::FLOAT);
    int64_t count = 1;
    for (const auto& dim : type.shape().dim()) {
      tensor.add_dims(dim.dim_value());
      count = std::min(count, kMost) * std::clamp<int64_t>(dim.dim_value(), 0, kMost);
    }
    if (count <= 0 || count > kMost) continue;
    for (int64_t i = 0; i < count; ++i) tensor.add_float_data(static_cast<float>(i % 7) / 4 - 0.5f);
    *graph.add_initializer() = tensor;
    return;
  }
}

}  // namespace

std::string mutated_bytes(const std::string& bytes, Random& random) {
  std::string result = bytes;
  const auto place = [&] { return static_cast<size_t>(below(random, static_cast<int64_t>(result.size()))); };
  for (int64_t changes = 1 + below(random, 4); changes-- > 0 && !result.empty();) {
    const size_t at = place(), length = 1 + static_cast<size_t>(below(random, 16));
    switch (below(random, 6)) {
      case 0:
        result.resize(at);
        break;
      case 1:
        result.erase(at, length);
        break;
      case 2:
        result.insert(at, result.substr(place(), length));
        break;
      case 3:
        result[at] = static_cast<char>(one_of(random, kIntegers));
        break;
      case 4:
        result.replace(at, std::min<size_t>(8, result.size() - at), 8, '\xff');
        break;
      default:
        result[at] = static_cast<char>(result[at] ^ static_cast<char>(1 << below(random, 8)));
    }
  }
  return result;
}

std::string mutated_model(const std::string& bytes, Random& random) {
  onnx::ModelProto model;
  if (below(random, 5) == 0 || !model.ParseFromString(bytes)) return mutated_bytes(bytes, random);
  if (below(random, 2) == 0) train_an_input(*model.mutable_graph());
  for (int64_t changes = 1 + below(random, 3); changes-- > 0;) {
    auto* function = pick(random, *model.mutable_functions());
    if (function && function->node_size() > 0 && below(random, 2) == 0)
      change_node(random, *model.mutable_graph(), *pick(random, *function->mutable_node()));
    else if (auto* opset = pick(random, *model.mutable_opset_import()); opset && below(random, 20) == 0)
      opset->set_version(below(random, 30));
    else
      change_graph(random, *model.mutable_graph());
  }
  return model.SerializeAsString();
}

void check_bytes(const std::string& bytes, const std::string& directory) {
  const OnnxModel file = read_model(OnnxFile{"case.onnx", bytes, directory});
  if (carries_training_step(file)) try {
      read_training_operators(file);
    } catch (const Error&) {  // the model itself may be read
    }
  // Of a graph without its data, too.
  const ImportOptions import{.weights = InitialWeights::none, .constants = MissingConstants::zeros};
  const Diagnostics ready = check_model(file, import);
  if (!ready.problems.empty()) throw Error(ready.problems.front());
  const ImportedModel model = import_model(file, import);
  TrainingPipelineOptions options;
  options.loss.output = model.outputs.front();
  options.stop_after = "differentiate";
  run_training_pipeline(model.graph, options);
}

}  // namespace halfstep::test
