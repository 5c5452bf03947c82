// A weight that the exporter wrote twice is one parameter, and both copies are written back.
#include <gmock/gmock.h>

#include <filesystem>

#include "base/file.h"
#include "frontend/diagnose/diagnostics.h"
#include "frontend/export/export.h"
#include "frontend/repairs/read_model.h"
#include "ir/op.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Tensor table(Shape shape) {
  Tensor t(TensorType{DType::f32, std::move(shape)});
  float next = 0;
  for (float& v : t.as<float>()) v = (next += 0.25f);
  return t;
}

// An embedding of 32 rows, and the projection back on its rows as the exporter folds it: transposed, under its own
// name.
TestModel language_model(const Tensor& projection) {
  TestModel model;
  model.input("ids", {2}, onnx::TensorProto::INT64).weight("val_3", projection).weight("wte", table({32, 16}));
  model.node("Gather", {"wte", "ids"}, {"h"}).node("MatMul", {"h", "val_3"}, {"logits"}).output("logits");
  return model;
}

std::vector<std::string> parameters(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes())
    if (node.op->name == "parameter") names.push_back(node.attributes.text("name"));
  return names;
}

TEST(Ties, ATransposedCopyIsItsOriginal) {
  const OnnxFile file = language_model(table({32, 16}).transpose(Ints{1, 0})).file();
  EXPECT_THAT(parameters(import_model(file).graph), ElementsAre("wte"));
  EXPECT_THAT(check_model(read_model(file)).findings,
              testing::Contains(testing::Field(&Finding::text, HasSubstr("'val_3' repeats 'wte' transposed"))));
}

TEST(Ties, AnotherValueIsAnotherParameter) {
  Tensor projection = table({32, 16}).transpose(Ints{1, 0});
  projection.set(100, -1);
  EXPECT_EQ(parameters(import_model(language_model(projection).file()).graph).size(), 2u);
}

TEST(Ties, MatricesOfOneValueAgreeByChance) {
  TestModel model;
  const Tensor zeros(TensorType{DType::f32, {32, 32}});
  model.input("x", {4, 32}).weight("a", zeros).weight("b", zeros);
  model.node("MatMul", {"x", "a"}, {"h"}).node("MatMul", {"h", "b"}, {"y"}).output("y");
  EXPECT_THAT(parameters(import_model(model.file()).graph), ElementsAre("a", "b"));
}

TEST(Ties, BothCopiesAreWrittenBack) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "ties.onnx";
  Tensor trained = table({32, 16});
  trained.set(7, 42);
  export_model(read_model(language_model(table({32, 16}).transpose(Ints{1, 0})).file()), {{"wte", trained}}, path);
  const ImportedModel again = import_model(read_onnx_file(path));
  EXPECT_EQ(again.weights, (FileTensors{{"wte", trained}})) << "the copies agree again";
}

}  // namespace
}  // namespace halfstep::test
