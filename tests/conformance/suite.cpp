#include "tests/conformance/suite.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "frontend/model_proto.h"
#include "frontend/tensor_data.h"

namespace halfstep::conformance {
namespace {

namespace fs = std::filesystem;

fs::path data_file(const SuiteCase& suite_case, const char* kind, int i) {
  return suite_case.directory / "test_data_set_0" / (kind + std::to_string(i) + ".pb");
}

onnx::TensorProto read_tensor(const fs::path& path, const onnx::ValueInfoProto& declared) {
  onnx::TensorProto tensor;
  if (!tensor.ParseFromString(read_file(path))) throw Error("no tensor in '" + path.string() + "'");
  tensor.set_name(declared.name());
  // The suite stores the bits of bfloat16 as integers.
  if (declared.type().tensor_type().elem_type() == onnx::TensorProto::BFLOAT16)
    tensor.set_data_type(onnx::TensorProto::BFLOAT16);
  return tensor;
}

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
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
    if (entry.path().filename() != "model.onnx") continue;
    SuiteCase found{entry.path().parent_path().filename(), entry.path().parent_path(), {}};
    if (!found.model.ParseFromString(read_file(entry.path())))
      throw Error("no model in '" + entry.path().string() + "'");
    cases.push_back(std::move(found));
  }
  std::ranges::sort(cases, {}, &SuiteCase::name);
  return cases;
}

std::set<std::string> operators_of(const onnx::ModelProto& model) {
  std::set<std::string> operators;
  collect_operators(model.graph(), operators);
  return operators;
}

CaseData read_data(const SuiteCase& suite_case) {
  const onnx::GraphProto& graph = suite_case.model.graph();
  const TensorReader reader(suite_case.directory);
  CaseData data;
  for (int i = 0; i < graph.input_size(); ++i)
    if (const fs::path path = data_file(suite_case, "input_", i); fs::exists(path))
      data.inputs.push_back(read_tensor(path, graph.input(i)));
  for (int i = 0; i < graph.output_size(); ++i) {
    const onnx::ValueInfoProto& output = graph.output(i);
    const onnx::TensorProto tensor = read_tensor(data_file(suite_case, "output_", i), output);
    // The suite truncates, and we do not round to the type that the model asks for.
    const double tolerance = tensor.data_type() == onnx::TensorProto::BFLOAT16 ? 0x1p-7 : 1e-3;
    data.outputs.push_back({output.name(), reader.read(tensor), tolerance});
  }
  return data;
}

}  // namespace halfstep::conformance
