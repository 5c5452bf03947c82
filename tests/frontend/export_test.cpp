// Trained weights back into an ONNX model.
#include "frontend/export/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "frontend/export/inference_form.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/onnx/validate.h"
#include "frontend/repairs/read_model.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::HasSubstr;

// Conv, batch norm and dropout in the training form of the TorchScript exporter.
TestModel trained_form() {
  TestModel model;
  model.input("x", {2, 1, 3, 3}).weight("w", ramp({2, 1, 3, 3}));
  for (const char* name : {"scale", "bias", "mean", "variance"}) model.weight(name, ramp({2}, 1));
  model.node("Conv", {"x", "w"}, {"c"}, {}, "conv");
  model.node("BatchNormalization", {"c", "scale", "bias", "mean", "variance"}, {"n", "next_mean", "next_variance"},
             {{"training_mode", int64_t{1}}}, "bn");
  model.weight("ratio", floats({}, {0.5})).weight("training", Tensor::scalar(DType::boolean, 1));
  model.node("Dropout", {"n", "ratio", "training"}, {"y", "mask"}, {}, "drop").output("y");
  return model;
}

class Export : public ::testing::Test {
 protected:
  std::filesystem::path path() const { return directory_.path() / "trained.onnx"; }
  std::string error(const OnnxFile& file, const FileTensors& trained) {
    try {
      export_model(read_model(file), trained, path());
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
  TemporaryDirectory directory_;
};

TEST_F(Export, ComesBackWithTheNewWeightsAndTheSameNames) {
  const OnnxFile original = trained_form().file();
  const ImportedModel before = import_model(original);
  FileTensors trained = before.weights;
  for (auto& [name, tensor] : trained)
    for (int64_t i = 0; i < tensor.type.element_count(); ++i) tensor.set(i, tensor.at(i) * 2 + 0.25);
  export_model(read_model(original), in_onnx_layout(before.graph, trained), path());
  const ImportedModel after = import_model(read_onnx_file(path()));
  EXPECT_EQ(after.weights, trained);
  EXPECT_EQ(after.inputs, before.inputs);
  EXPECT_EQ(after.outputs, before.outputs);
}

TEST_F(Export, BranchesKeepTheirOwnWeightsUnderOneName) {
  const OnnxFile original = read_onnx_file(std::filesystem::path(HALFSTEP_SOURCE_DIR) /
                                           "tests/cases/branches-with-weights-of-one-name/model.onnx");
  const ImportedModel before = import_model(original, {.batch = 4});
  FileTensors trained = before.weights;
  ASSERT_TRUE(trained.contains("if_h/then_branch/ws"));
  ASSERT_TRUE(trained.contains("if_out/then_branch/ws"));
  for (auto& [name, tensor] : trained)
    for (int64_t i = 0; i < tensor.type.element_count(); ++i) tensor.set(i, tensor.at(i) * 2 + 0.25);
  export_model(read_model(original), in_onnx_layout(before.graph, trained), path());
  const OnnxFile exported = read_onnx_file(path());
  EXPECT_EQ(import_model(exported, {.batch = 4}).weights, trained);
  const onnx::ModelProto model = parse_model(exported);
  for (const onnx::NodeProto& node : model.graph().node())
    for (const onnx::AttributeProto& branch : node.attribute())
      for (const onnx::TensorProto& tensor : branch.g().initializer()) EXPECT_EQ(tensor.name(), "ws");
}

TEST_F(Export, IsAnInferenceModel) {
  export_model(read_model(trained_form().file()), {}, path());
  const onnx::ModelProto model = parse_model(read_onnx_file(path()));
  const onnx::NodeProto &norm = model.graph().node(1), &drop = model.graph().node(2);
  EXPECT_EQ(norm.output_size(), 1);
  EXPECT_EQ(norm.attribute(0).i(), 0);
  EXPECT_EQ(norm.name(), "bn");
  EXPECT_EQ(drop.op_type(), "Identity");
  EXPECT_EQ(drop.name(), "drop");
  EXPECT_EQ(drop.input_size(), 1);
  EXPECT_EQ(drop.output(0), "y");
  const ImportedModel inference = import_model(read_onnx_file(path()), {.mode = ImportMode::as_exported});
  EXPECT_TRUE(inference.graph.updates().empty());
}

std::vector<std::string> operators(const NodeList& nodes) {
  std::vector<std::string> names;
  for (const onnx::NodeProto& node : nodes) names.push_back(node.op_type());
  return names;
}

using ::testing::ElementsAre;

TEST_F(Export, ADropoutWithinTheModelIsLeftOut) {
  TestModel model;
  model.input("x", {2}).weight("ratio", floats({}, {0.5}));
  model.node("Relu", {"x"}, {"a"}).node("Dropout", {"a", "ratio"}, {"b"}).node("Dropout", {"b"}, {"c"});
  model.node("Neg", {"c"}, {"y"}).output("y");
  export_model(read_model(model.file()), {}, path());
  const onnx::ModelProto written = parse_model(read_onnx_file(path()));
  EXPECT_THAT(operators(written.graph().node()), ElementsAre("Relu", "Neg"));
  EXPECT_EQ(written.graph().node(1).input(0), "a");
  EXPECT_EQ(dropouts_left_out(written), 2);
  export_model(read_model(path()), {}, path());
  EXPECT_EQ(dropouts_left_out(parse_model(read_onnx_file(path()))), 2) << "of all that wrote the file";
}

TEST_F(Export, LocalFunctionsAreOfInferenceToo) {
  TestModel model;
  model.proto.add_opset_import()->set_domain("local");
  model.proto.mutable_opset_import(1)->set_version(1);
  for (const char* name : {"scale", "bias", "mean", "variance"}) model.weight(name, ramp({2}, 1));
  onnx::FunctionProto& function = *model.proto.add_functions();
  function.set_name("Block"), function.set_domain("local");
  *function.add_opset_import() = model.proto.opset_import(0);
  for (const char* name : {"x", "s", "b", "m", "v"}) function.add_input(name);
  function.add_output("y");
  *function.add_node() =
      node_proto("BatchNormalization", {"x", "s", "b", "m", "v"}, {"n", "nm", "nv"}, {{"training_mode", int64_t{1}}});
  *function.add_node() = node_proto("Dropout", {"n"}, {"d", "mask"});
  *function.add_node() = node_proto("Relu", {"d"}, {"y"});
  model.input("x", {1, 2, 3}).node("local.Block", {"x", "scale", "bias", "mean", "variance"}, {"y"}).output("y");
  export_model(read_model(model.file()), {}, path());
  const onnx::FunctionProto written = parse_model(read_onnx_file(path())).functions(0);
  EXPECT_THAT(operators(written.node()), ElementsAre("BatchNormalization", "Relu"));
  EXPECT_EQ(written.node(0).output_size(), 1);
  EXPECT_EQ(written.node(0).attribute(0).i(), 0);
  EXPECT_EQ(written.node(1).input(0), "n");
  EXPECT_NO_THROW(import_model(read_onnx_file(path()), {.mode = ImportMode::as_exported}));
}

TEST_F(Export, StochasticDepthIsLeftOutWithItsRandomNumbers) {
  TestModel model;
  model.input("x", {4, 3}).weight("like", ramp({4, 1})).weight("p", floats({}, {0.75}));
  model.node("Neg", {"x"}, {"h"}).node("RandomUniformLike", {"like"}, {"u"});
  model.node("Less", {"u", "p"}, {"kept"}).node("Cast", {"kept"}, {"mask"}, {{"to", int64_t{1}}});
  model.node("Div", {"mask", "p"}, {"scaled"}).node("Mul", {"h", "scaled"}, {"once"});
  model.node("RandomUniform", {}, {"u2"}, {{"shape", Ints{4, 1}}}).node("Add", {"p", "u2"}, {"sum"});
  model.node("Floor", {"sum"}, {"mask2"}).node("Div", {"once", "p"}, {"whole"});
  model.node("Mul", {"mask2", "whole"}, {"twice"}).node("Relu", {"twice"}, {"y"}).output("y");
  export_model(read_model(model.file()), {}, path());
  const onnx::ModelProto written = parse_model(read_onnx_file(path()));
  EXPECT_THAT(operators(written.graph().node()), ElementsAre("Neg", "Relu"));
  EXPECT_EQ(written.graph().node(1).input(0), "h");
}

TEST_F(Export, RandomNumbersThatAreNoStochasticDepthStay) {
  TestModel model;
  model.input("x", {4, 3}).weight("p", floats({}, {0.75})).weight("q", floats({}, {0.5}));
  model.node("RandomUniformLike", {"x"}, {"u"}).node("Less", {"u", "p"}, {"kept"});
  model.node("Cast", {"kept"}, {"mask"}, {{"to", int64_t{1}}}).node("Div", {"mask", "q"}, {"scaled"});
  model.node("Mul", {"x", "scaled"}, {"y"}).output("y");
  export_model(read_model(model.file()), {}, path());
  EXPECT_EQ(parse_model(read_onnx_file(path())).graph().node_size(), 5);
}

TEST_F(Export, AMaskThatIsReadKeepsItsDropout) {
  export_model(read_model(trained_form().output("mask").file()), {}, path());
  const onnx::ModelProto model = parse_model(read_onnx_file(path()));
  EXPECT_EQ(model.graph().node(2).op_type(), "Dropout");
  EXPECT_EQ(model.graph().node(2).input_size(), 2) << "without training_mode";
}

TEST_F(Export, KeepsElementTypes) {
  TestModel model;
  model.input("x", {2}).weight("w", floats({2}, {1, 2}).cast(DType::f16)).node("Mul", {"x", "w"}, {"y"}).output("y");
  export_model(read_model(model.file()), {{"w", floats({2}, {0.1, 3})}}, path());
  const onnx::TensorProto w = parse_model(read_onnx_file(path())).graph().initializer(0);
  EXPECT_EQ(w.data_type(), onnx::TensorProto::FLOAT16);
  EXPECT_EQ(TensorReader(".").read(w), floats({2}, {0.1, 3}).cast(DType::f16).cast(DType::f32));
}

TEST_F(Export, LargeModelsPutTheirWeightsBeside) {
  TestModel model;
  model.input("x", {1, 40}).weight("a", ramp({40, 40})).weight("b", ramp({40, 30}));
  model.node("MatMul", {"x", "a"}, {"h"}).node("MatMul", {"h", "b"}, {"y"}).output("y");
  const FileTensors trained{{"a", ramp({40, 40}, 5)}, {"b", ramp({40, 30}, 7)}};
  export_model(read_model(model.file()), trained, path(), {.largest_inline = 1000});
  EXPECT_EQ(std::filesystem::file_size(path().string() + ".data"), 8192u + 40 * 30 * 4) << "aligned to 4096";
  EXPECT_LT(std::filesystem::file_size(path()), 1000u);
  EXPECT_EQ(import_model(read_onnx_file(path())).weights, trained);
}

TEST_F(Export, ReportsEveryTensorThatDoesNotFit) {
  const std::string message = error(trained_form().file(), {{"w", ramp({3})}, {"unknown", ramp({1})}});
  EXPECT_THAT(message, HasSubstr("trained tensor 'w' is f32[3], the model has f32[2,1,3,3]"));
  EXPECT_THAT(message, HasSubstr("trained tensor 'unknown' is no initializer of the model"));
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(Export, StatisticsThatOthersReadAreRefused) {
  EXPECT_THAT(error(trained_form().output("next_mean").file(), {}),
              HasSubstr("node BatchNormalization 'bn': its statistics"));
}

TEST_F(Export, LeavesTheOldFileWhereItCannotWrite) {
  std::ofstream(path()) << "old";
  EXPECT_NE(error(trained_form().file(), {{"unknown", ramp({1})}}), "no error");
  EXPECT_EQ(read_file(path()), "old");
  EXPECT_THROW(export_model(read_model(trained_form().file()), {}, directory_.path() / "no" / "such" / "m.onnx"),
               Error);
}

}  // namespace
}  // namespace halfstep::test
