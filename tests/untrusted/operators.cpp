// Models of one operator, with operands and results left out.
#include "frontend/import/operators.h"

#include <algorithm>
#include <limits>

#include "base/dtype.h"
#include "tests/untrusted/cases.h"

namespace halfstep::test {
namespace {

constexpr int kMostOperands = 6, kMostResults = 3;

const std::vector<std::string> kIntegerAttributes{
    "axis",      "keepdims",    "to",           "k",           "group",     "transA",      "transB",
    "exclusive", "num_heads",   "hidden_size",  "batch_dims",  "blocksize", "num_outputs", "ceil_mode",
    "p",         "upper",       "num_groups",   "sample_size", "onesided",  "allowzero",   "num_scan_inputs",
    "is_causal", "q_num_heads", "kv_num_heads", "size",        "dtype",     "largest",     "output_height",
    "block_size"};
const std::vector<std::string> kListAttributes{"axes",  "perm",  "kernel_shape", "strides", "pads",
                                               "split", "shape", "dilations",    "starts",  "ends"};

onnx::TensorProto tensor_proto(const std::string& name, const std::vector<int64_t>& dims, int32_t type,
                               const std::vector<double>& values) {
  onnx::TensorProto tensor;
  tensor.set_name(name);
  tensor.set_data_type(type);
  int64_t count = 1;
  for (int64_t d : dims) tensor.add_dims(d), count *= d;
  for (int64_t i = 0; i < count; ++i) {
    const double value = values[static_cast<size_t>(i) % values.size()];
    if (type == onnx::TensorProto::FLOAT)
      tensor.add_float_data(static_cast<float>(value));
    else if (type == onnx::TensorProto::INT64)
      tensor.add_int64_data(value >= 0x1p62 ? INT64_MAX : value <= -0x1p62 ? INT64_MIN : static_cast<int64_t>(value));
    else
      tensor.add_int32_data(static_cast<int32_t>(round_to(DType::i32, value)));
  }
  return tensor;
}

void declare(onnx::ValueInfoProto& value, const std::string& name, const std::vector<int64_t>& dims, int32_t type) {
  value.set_name(name);
  value.mutable_type()->mutable_tensor_type()->set_elem_type(type);
  auto& shape = *value.mutable_type()->mutable_tensor_type()->mutable_shape();
  for (int64_t d : dims) shape.add_dim()->set_dim_value(d);
}

const std::vector<std::vector<int64_t>> kShapes{{2, 3, 4, 4}, {3, 3, 2, 2}, {2, 3, 4}, {2, 4},    {3}, {1},
                                                {},           {0},          {2, 0, 4}, {1, 1, 1}, {4}, {2, 3, 4, 4, 2}};
const std::vector<std::vector<double>> kValues{{0.5, -1, 2}, {1},    {0},      {-1},      {2, 1, 0}, {1e300},
                                               {-1e300},     {3, 2}, {0x1p40}, {1 << 20}, {0.1}};

void add_operand(Random& random, onnx::GraphProto& graph, const std::string& name) {
  const std::vector<int64_t>& dims = one_of(random, kShapes);
  const int32_t type = one_of<int32_t>(
      random, {onnx::TensorProto::FLOAT, onnx::TensorProto::FLOAT, onnx::TensorProto::INT64, onnx::TensorProto::INT64,
               onnx::TensorProto::INT32, onnx::TensorProto::BOOL, onnx::TensorProto::UINT8});
  if (below(random, 2) == 0) return declare(*graph.add_input(), name, dims, type);
  *graph.add_initializer() = tensor_proto(name, dims, type, one_of(random, kValues));
}

onnx::GraphProto small_body(Random& random) {
  onnx::GraphProto body;
  body.set_name("body");
  const int64_t inputs = below(random, 4);
  for (int64_t i = 0; i < inputs; ++i)
    declare(*body.add_input(), "b" + std::to_string(i), {}, onnx::TensorProto::FLOAT);
  onnx::NodeProto& node = *body.add_node();
  node.set_op_type("Identity");
  node.add_input(inputs > 0 ? "b" + std::to_string(inputs - 1) : "o0");
  node.add_output("r");
  for (int64_t i = below(random, 3); i-- >= 0;) body.add_output()->set_name("r");
  return body;
}

void add_attributes(Random& random, onnx::NodeProto& node) {
  for (int64_t i = below(random, 3); i-- > 0;) {
    onnx::AttributeProto& a = *node.add_attribute();
    if (below(random, 2) == 0) {
      a.set_type(onnx::AttributeProto::INT);
      a.set_name(one_of(random, kIntegerAttributes));
      a.set_i(one_of<int64_t>(random, {0, 1, 2, -1, 3, 7, INT64_MAX, INT64_MIN}));
    } else {
      a.set_type(onnx::AttributeProto::INTS);
      a.set_name(one_of(random, kListAttributes));
      for (int64_t k = below(random, 5); k-- > 0;) a.add_ints(one_of<int64_t>(random, {0, 1, 2, 3, -1, INT64_MAX}));
    }
  }
  for (const char* name : {"body", "then_branch", "else_branch"}) {
    const bool wanted = std::string_view(name) == "body"
                            ? node.op_type() == "Loop" || node.op_type() == "Scan" || node.op_type() == "SequenceMap"
                            : node.op_type() == "If";
    if (!wanted || below(random, 8) == 0) continue;
    onnx::AttributeProto& a = *node.add_attribute();
    a.set_type(onnx::AttributeProto::GRAPH);
    a.set_name(name);
    *a.mutable_g() = small_body(random);
  }
}

}  // namespace

std::vector<OperatorCase> operator_cases() {
  std::vector<OperatorCase> cases;
  for (const OnnxOperator* row : onnx_operators()) {
    const int operands = std::min(row->most_operands, kMostOperands);
    for (int version : row->versions) {
      const int64_t opset = std::max<int64_t>(version, kOldestOpset);
      for (uint32_t given = 0; given < 1u << operands; ++given)
        for (int results = 1; results <= kMostResults; ++results)
          for (uint32_t wanted = 0; wanted < 1u << results; ++wanted)
            if (results == 1 || (wanted >> (results - 1)) != 0 || wanted == 0)
              cases.push_back({std::string(row->name), opset, given, wanted, operands, results});
    }
  }
  return cases;
}

onnx::ModelProto operator_model(const OperatorCase& c, Random& random) {
  onnx::ModelProto model;
  model.set_ir_version(8);
  const size_t dot = c.op.rfind('.');
  const std::string domain = dot == std::string::npos ? "" : c.op.substr(0, dot);
  model.add_opset_import()->set_version(domain.empty() ? c.opset : 17);
  if (!domain.empty()) {
    onnx::OperatorSetIdProto& opset = *model.add_opset_import();
    opset.set_domain(domain), opset.set_version(1);
  }
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.set_name("g");
  onnx::NodeProto& node = *graph.add_node();
  node.set_op_type(domain.empty() ? c.op : c.op.substr(dot + 1));
  node.set_domain(domain), node.set_name("n");
  add_operand(random, graph, "o0");
  for (int i = 0; i < c.operand_count; ++i) {
    const std::string name = "o" + std::to_string(i);
    const bool given = c.operands >> i & 1;
    if (given && i > 0) add_operand(random, graph, name);
    node.add_input(given ? name : "");
  }
  while (node.input_size() > 0 && node.input(node.input_size() - 1).empty() && below(random, 2) == 0)
    node.mutable_input()->RemoveLast();
  add_attributes(random, node);
  for (int i = 0; i < c.result_count; ++i) {
    const std::string name = "r" + std::to_string(i);
    const bool wanted = c.results >> i & 1;
    node.add_output(wanted ? name : "");
    if (wanted) graph.add_output()->set_name(name);
  }
  // Something to train that the rest does not touch.
  *graph.add_initializer() = tensor_proto("w", {2, 3}, onnx::TensorProto::FLOAT, {0.1, 0.2});
  declare(*graph.add_input(), "x", {3, 2}, onnx::TensorProto::FLOAT);
  onnx::NodeProto& product = *graph.add_node();
  product.set_op_type("MatMul");
  product.add_input("x"), product.add_input("w"), product.add_output("y");
  graph.add_output()->set_name("y");
  return model;
}

}  // namespace halfstep::test
