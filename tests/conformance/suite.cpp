#include "tests/conformance/suite.h"

#include <onnx/onnx-data_pb.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "frontend/onnx/model_proto.h"

namespace halfstep::conformance {
namespace {

namespace fs = std::filesystem;

// What a file of the data set holds: a tensor, the elements of a sequence, or an optional's nothing.
struct Contents {
  enum Kind { tensor, sequence, nothing } kind;
  std::vector<onnx::TensorProto> tensors;
};

template <typename Message>
Message parse(const fs::path& path) {
  Message message;
  if (!message.ParseFromString(read_file(path))) throw Error("'" + path.string() + "' cannot be read");
  return message;
}

Contents contents_of(const onnx::SequenceProto& sequence) {
  return {Contents::sequence, {sequence.tensor_values().begin(), sequence.tensor_values().end()}};
}

Contents read_contents(const fs::path& path, const onnx::TypeProto& type) {
  if (type.has_sequence_type()) return contents_of(parse<onnx::SequenceProto>(path));
  if (type.has_optional_type()) {
    const auto optional = parse<onnx::OptionalProto>(path);
    if (optional.has_tensor_value()) return {Contents::tensor, {optional.tensor_value()}};
    if (optional.has_sequence_value()) return contents_of(optional.sequence_value());
    return {Contents::nothing, {}};
  }
  Contents result{Contents::tensor, {parse<onnx::TensorProto>(path)}};
  // The suite stores the bits of bfloat16 as integers.
  if (type.tensor_type().elem_type() == onnx::TensorProto::BFLOAT16)
    result.tensors[0].set_data_type(onnx::TensorProto::BFLOAT16);
  return result;
}

onnx::TensorProto named(onnx::TensorProto tensor, const std::string& name) {
  tensor.set_name(name);
  return tensor;
}

onnx::TensorProto scalar(const std::string& name, onnx::TensorProto::DataType type, int64_t value) {
  onnx::TensorProto tensor;
  tensor.set_name(name);
  tensor.set_data_type(type);
  if (type == onnx::TensorProto::INT64)
    tensor.add_int64_data(value);
  else
    tensor.add_int32_data(static_cast<int32_t>(value));
  return tensor;
}

class CaseReader {
 public:
  explicit CaseReader(const fs::path& directory)
      : original_(parse<onnx::ModelProto>(directory / "model.onnx")),
        result_{directory.filename(), directory, original_, {}, {}} {}

  SuiteCase read() {
    graph().clear_input();
    graph().clear_output();
    complete_attributes();
    for (int i = 0; i < original_.graph().input_size(); ++i) read_input(original_.graph().input(i), i);
    for (int i = 0; i < original_.graph().output_size(); ++i) read_output(original_.graph().output(i), i);
    return std::move(result_);
  }

 private:
  onnx::GraphProto& graph() { return *result_.model.mutable_graph(); }

  // Expected is what Adam computes with this epsilon, which older releases leave out of the node.
  void complete_attributes() {
    if (result_.name != "test_adam_multiple") return;
    onnx::NodeProto& adam = *graph().mutable_node(0);
    for (const onnx::AttributeProto& attribute : adam.attribute())
      if (attribute.name() == "epsilon") return;
    onnx::AttributeProto& epsilon = *adam.add_attribute();
    epsilon.set_name("epsilon");
    epsilon.set_type(onnx::AttributeProto::FLOAT);
    epsilon.set_f(1e-2F);
  }

  fs::path file(const char* kind, int i) const {
    return result_.directory / "test_data_set_0" / (kind + std::to_string(i) + ".pb");
  }

  onnx::NodeProto& add_node(const std::string& op, const std::vector<std::string>& operands,
                            const std::string& result) {
    onnx::NodeProto& node = *graph().add_node();
    node.set_op_type(op);
    for (const std::string& operand : operands) node.add_input(operand);
    node.add_output(result);
    return node;
  }

  // Declared as it is fed: some models declare other shapes.
  void add_input(const onnx::TensorProto& tensor) {
    onnx::ValueInfoProto& input = *graph().add_input();
    input.set_name(tensor.name());
    onnx::TypeProto::Tensor& type = *input.mutable_type()->mutable_tensor_type();
    type.set_elem_type(tensor.data_type());
    type.mutable_shape();
    for (int64_t size : tensor.dims()) type.mutable_shape()->add_dim()->set_dim_value(size);
    result_.inputs.push_back(tensor);
  }

  void read_input(const onnx::ValueInfoProto& input, int i) {
    if (!fs::exists(file("input_", i))) {  // an initializer's declaration
      *graph().add_input() = input;
      return;
    }
    const Contents contents = read_contents(file("input_", i), input.type());
    if (contents.kind == Contents::tensor) return add_input(named(contents.tensors[0], input.name()));
    std::vector<std::string> elements;
    for (const onnx::TensorProto& tensor : contents.tensors) {
      elements.push_back(input.name() + "/" + std::to_string(elements.size()));
      add_input(named(tensor, elements.back()));
    }
    add_node(contents.kind == Contents::nothing ? "Optional"
             : elements.empty()                 ? "SequenceEmpty"
                                                : "SequenceConstruct",
             elements, input.name());
  }

  void expect(const onnx::TensorProto& tensor) {
    graph().add_output()->set_name(tensor.name());
    result_.expected.push_back(tensor);
  }

  void read_output(const onnx::ValueInfoProto& output, int i) {
    const Contents contents = read_contents(file("output_", i), output.type());
    const std::string& name = output.name();
    if (contents.kind == Contents::tensor) return expect(named(contents.tensors[0], name));
    if (contents.kind == Contents::nothing) {
      add_node("OptionalHasElement", {name}, name + "/present");
      return expect(scalar(name + "/present", onnx::TensorProto::BOOL, 0));
    }
    add_node("SequenceLength", {name}, name + "/length");
    expect(scalar(name + "/length", onnx::TensorProto::INT64, static_cast<int64_t>(contents.tensors.size())));
    for (size_t k = 0; k < contents.tensors.size(); ++k) {
      const std::string element = name + "/" + std::to_string(k);
      *graph().add_initializer() = scalar(element + "/position", onnx::TensorProto::INT64, static_cast<int64_t>(k));
      add_node("SequenceAt", {name, element + "/position"}, element);
      expect(named(contents.tensors[k], element));
    }
  }

  const onnx::ModelProto original_;
  SuiteCase result_;
};

void collect_operators(const onnx::GraphProto& graph, std::set<std::string>& operators) {
  for (const onnx::NodeProto& node : graph.node()) {
    operators.insert(operator_name(node));
    for (const onnx::AttributeProto& attribute : node.attribute())
      if (attribute.has_g()) collect_operators(attribute.g(), operators);
  }
}

}  // namespace

std::vector<SuiteCase> read_suite(const fs::path& root) {
  std::vector<SuiteCase> cases;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root))
    if (entry.path().filename() == "model.onnx") cases.push_back(CaseReader(entry.path().parent_path()).read());
  std::ranges::sort(cases, {}, &SuiteCase::name);
  return cases;
}

std::set<std::string> operators_of(const onnx::ModelProto& model) {
  std::set<std::string> operators;
  collect_operators(model.graph(), operators);
  return operators;
}

}  // namespace halfstep::conformance
