// The single-operator models of the ONNX conformance suite, where it is installed.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <set>

#include "base/file.h"
#include "frontend/operators.h"
#include "frontend/tensor_data.h"
#include "ir/interpret.h"
#include "test_model.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuite = "/usr/share/libonnx-testdata/data/node";

onnx::TensorProto read_tensor(const fs::path& path) {
  onnx::TensorProto tensor;
  if (!tensor.ParseFromString(read_file(path))) throw Error("no tensor in '" + path.string() + "'");
  return tensor;
}

bool claimed(const onnx::ModelProto& model) {
  for (const onnx::NodeProto& node : model.graph().node())
    if (!canonical_domain(node.domain()).empty() || !find_onnx_operator(node.op_type())) return false;
  for (const auto* list : {&model.graph().input(), &model.graph().output()})
    for (const onnx::ValueInfoProto& value : *list)
      if (!value.type().has_tensor_type() || !element_type(value.type().tensor_type().elem_type())) return false;
  return true;
}

// Cases whose operator is claimed and which are not expected to agree.
const std::map<std::string, std::string> kKnown{
    {"test_argmax_default_axis_example_select_last_index", "select_last_index is refused"},
    {"test_argmax_default_axis_random_select_last_index", "select_last_index is refused"},
    {"test_argmax_keepdims_example_select_last_index", "select_last_index is refused"},
    {"test_argmax_keepdims_random_select_last_index", "select_last_index is refused"},
    {"test_argmax_negative_axis_keepdims_example_select_last_index", "select_last_index is refused"},
    {"test_argmax_negative_axis_keepdims_random_select_last_index", "select_last_index is refused"},
    {"test_argmax_no_keepdims_example_select_last_index", "select_last_index is refused"},
    {"test_argmax_no_keepdims_random_select_last_index", "select_last_index is refused"},
    {"test_cast_BFLOAT16_to_FLOAT", "the suite stores the bits of bfloat16 as integers"},
    {"test_cast_FLOAT_to_BFLOAT16", "the suite stores the bits of bfloat16 as integers"},
    {"test_castlike_BFLOAT16_to_FLOAT", "the suite stores the bits of bfloat16 as integers"},
    {"test_castlike_BFLOAT16_to_FLOAT_expanded", "the suite stores the bits of bfloat16 as integers"},
    {"test_castlike_FLOAT_to_BFLOAT16", "the suite stores the bits of bfloat16 as integers"},
    {"test_castlike_FLOAT_to_BFLOAT16_expanded", "the suite stores the bits of bfloat16 as integers"},
    {"test_edge_pad", "padding modes but constant are refused"},
    {"test_reflect_pad", "padding modes but constant are refused"},
    {"test_maxpool_with_argmax_2d_precomputed_pads", "the indices of MaxPool are refused"},
    {"test_maxpool_with_argmax_2d_precomputed_strides", "the indices of MaxPool are refused"},
    {"test_training_dropout", "other random numbers"},
    {"test_training_dropout_default", "other random numbers"},
    {"test_training_dropout_default_mask", "other random numbers"},
    {"test_training_dropout_mask", "other random numbers"},
};
constexpr int kFloor = 589;  // cases that agree

// Operands that the suite feeds at run time but which must be known when a model is compiled.
enum class Known { none, integers, all_but_first, all };

// "" if the outputs agree, else what is wrong.
std::string run_case(const fs::path& directory, const onnx::ModelProto& original, Known known) {
  onnx::ModelProto model = original;
  // The suite's oldest models are of operators that did not change until opset 7.
  for (auto& opset : *model.mutable_opset_import()) opset.set_version(std::max(opset.version(), kOldestOpset));
  NamedTensors leaves;
  const TensorReader reader(directory);
  const auto& inputs = original.graph().input();
  for (int i = 0; i < inputs.size(); ++i) {
    onnx::TensorProto tensor = read_tensor(directory / "test_data_set_0" / ("input_" + std::to_string(i) + ".pb"));
    tensor.set_name(inputs[i].name());
    const Tensor value = reader.read(tensor);
    leaves[tensor.name()] = value;
    if ((known == Known::integers && !is_floating(value.type.dtype)) || (known == Known::all_but_first && i > 0) ||
        known == Known::all)
      *model.mutable_graph()->add_initializer() = tensor;
  }
  const OnnxFile file{directory.filename().string(), model.SerializeAsString(), directory};
  std::map<std::string, InterpretedTensor> outputs;
  try {
    const ImportedModel imported = import_model(file, {.mode = ImportMode::as_exported});
    NamedTensors all = imported.weights;
    all.insert(leaves.begin(), leaves.end());
    outputs = interpret(imported.graph, all).outputs;
  } catch (const Error& error) {
    return error.what();
  }
  for (int i = 0; i < original.graph().output_size(); ++i) {
    const Tensor expected =
        reader.read(read_tensor(directory / "test_data_set_0" / ("output_" + std::to_string(i) + ".pb")));
    const InterpretedTensor& found = outputs.at(original.graph().output(i).name());
    if (found.type.shape != expected.type.shape)
      return "output " + std::to_string(i) + " has shape " + to_string(found.type.shape) + ", " +
             to_string(expected.type.shape) + " expected";
    for (int64_t k = 0; k < expected.type.element_count(); ++k) {
      const double a = found.values[static_cast<size_t>(k)], b = expected.at(k);
      const bool same = a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= 1e-6 + 1e-3 * std::abs(b);
      if (!same)
        return "output " + std::to_string(i) + " element " + std::to_string(k) + " is " + std::to_string(a) + ", " +
               std::to_string(b) + " expected";
    }
  }
  return "";
}

TEST(Conformance, ClaimedOperatorsAgreeWithTheOnnxSuite) {
  if (!fs::exists(kSuite)) GTEST_SKIP() << "libonnx-testdata is not installed";
  std::map<std::string, std::pair<int, int>> table;  // operator: passed, refused or wrong
  std::map<std::string, std::string> failures;
  int passed = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(kSuite)) {
    const fs::path directory = entry.path();
    onnx::ModelProto model;
    if (!model.ParseFromString(read_file(directory / "model.onnx")) || !claimed(model)) continue;
    std::string wrong;
    for (Known known : {Known::none, Known::integers, Known::all_but_first, Known::all})
      if (wrong = run_case(directory, model, known); wrong.empty()) break;
    auto& row = table[model.graph().node(model.graph().node_size() - 1).op_type()];
    ++(wrong.empty() ? row.first : row.second);
    passed += wrong.empty();
    if (!wrong.empty()) failures[directory.filename().string()] = wrong;
  }
  for (const auto& [op, counts] : table)
    std::cout << "  " << op << ": " << counts.first << " of " << counts.first + counts.second << "\n";
  std::cout << passed << " cases agree, " << failures.size() << " do not\n";
  for (const auto& [name, wrong] : failures) EXPECT_TRUE(kKnown.contains(name)) << name << ": " << wrong;
  for (const auto& [name, why] : kKnown) EXPECT_TRUE(failures.contains(name)) << name << " agrees now, but: " << why;
  EXPECT_GE(passed, kFloor);
}

}  // namespace
}  // namespace halfstep
