// Real exports of four models: IR text, structure, batches, and agreement of the exporters with each other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "base/file.h"
#include "frontend/import/operators.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "ir/text.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const std::filesystem::path kSource = HALFSTEP_SOURCE_DIR;

ImportedModel import_export(const std::string& name, int64_t batch, InitialWeights weights = InitialWeights::none) {
  return import_model(read_onnx_file(kSource / "models/exports" / (name + ".onnx")),
                      {.batch = batch, .weights = weights});
}

// Compares with the file, or writes it where UPDATE_EXPECTED is set.
void expect_text(const std::filesystem::path& path, const std::string& text) {
  if (std::getenv("UPDATE_EXPECTED")) write_file_atomically(path, text);
  EXPECT_EQ(text, std::filesystem::exists(path) ? read_file(path) : "") << path << ": run with UPDATE_EXPECTED=1";
}

std::map<std::string, int> counts(const Graph& graph) {
  std::map<std::string, int> result;
  for (const Node& node : graph.nodes()) ++result[std::string(node.op->name)];
  return result;
}

TEST(Exports, MlpAndLenetAsText) {
  for (const char* name : {"mlp.dynamo", "lenet.raw"})
    expect_text(kSource / "tests/frontend/expected" / (std::string(name) + ".ir"), print(import_export(name, 4).graph));
}

TEST(Exports, ShapeArithmeticIsGone) {
  for (const char* name :
       {"mlp.dynamo", "mlp.ts17", "lenet.dynamo", "lenet.ts17", "lenet.raw", "lenet.autocast", "resnet18.dynamo",
        "resnet18.ts17", "resnet18.raw", "resnet18.autocast", "squeezenet1_1.dynamo", "squeezenet1_1.ts17"})
    for (int64_t batch : {1, 2, 7}) {
      const Graph graph = import_export(name, batch).graph;
      const Value output = graph.outputs()[0].value;
      EXPECT_EQ(graph.type(output).shape[0], batch) << name;
      for (const Node& node : graph.nodes())
        EXPECT_TRUE(is_floating(node.results[0].dtype) || node.op->name == "input")
            << name << ": " << *node.origin.name;
    }
}

TEST(Exports, Resnet18KeepsItsBatchNorms) {
  for (const char* name : {"resnet18.ts17", "resnet18.raw", "resnet18.autocast"}) {
    const ImportedModel model = import_export(name, 8);
    std::map<std::string, int> nodes = counts(model.graph);
    EXPECT_EQ(nodes["convolution"], 20) << name;
    EXPECT_EQ(nodes["batch_norm"], 20) << name;
    EXPECT_EQ(nodes["max_pool"], 1) << name;
    EXPECT_EQ(nodes["matmul"], 1) << name;
    EXPECT_EQ(nodes["parameter"], 62) << name;
    EXPECT_EQ(nodes["state"], 40) << name;
    EXPECT_EQ(model.graph.updates().size(), 40u) << name;
  }
}

TEST(Exports, Resnet18WithFoldedBatchNormsSaysSo) {
  const ImportedModel model = import_export("resnet18.dynamo", 8);
  EXPECT_EQ(counts(model.graph)["convolution"], 20);
  EXPECT_THAT(model.remarks, Contains(HasSubstr("20 layers took in a batch norm at export")));
}

TEST(Exports, SqueezenetHasDropoutAndConcat) {
  for (const char* name : {"squeezenet1_1.dynamo", "squeezenet1_1.ts17"}) {
    const ImportedModel model = import_export(name, 8);
    std::map<std::string, int> nodes = counts(model.graph);
    EXPECT_EQ(nodes["convolution"], 26) << name;
    EXPECT_EQ(nodes["concat"], 8) << name;
    EXPECT_EQ(nodes["dropout"], 1) << name;
    EXPECT_TRUE(model.graph.leaf(kStepSeed)) << name;
    EXPECT_THAT(model.remarks, ::testing::Not(Contains(HasSubstr("batch norm")))) << name;
  }
}

TEST(Exports, CastsOfAutocastAreDroppedAndCounted) {
  const ImportedModel model = import_export("lenet.autocast", 2);
  EXPECT_EQ(counts(model.graph)["cast"], 0);
  EXPECT_THAT(model.remarks, Contains(HasSubstr("9 casts to half precision dropped")));
}

// Logits with fresh weights, whose values follow from the initializers' names.
std::vector<double> logits(const std::string& name, const Tensor& images) {
  const ImportedModel model = import_export(name, images.type.shape[0], InitialWeights::fresh);
  NamedTensors leaves = named(model.weights);
  leaves[model.inputs[0]] = images;
  return interpret(model.graph, leaves).outputs.at(model.outputs[0]).values;
}

TEST(Exports, ExportersAgreeOnLenetAndRowsDoNotMix) {
  const Tensor images = ramp({3, 1, 28, 28}, -1, 0.001);
  const std::vector<double> expected = logits("lenet.ts17", images);
  ASSERT_EQ(expected.size(), 30u);
  EXPECT_EQ(logits("lenet.dynamo", images), expected);
  EXPECT_EQ(logits("lenet.raw", images), expected);
  Tensor last(TensorType{DType::f32, {1, 1, 28, 28}});
  std::copy(images.data.end() - 784 * 4, images.data.end(), last.data.begin());
  EXPECT_EQ(logits("lenet.dynamo", last), std::vector<double>(expected.end() - 10, expected.end()));
}

TEST(Exports, ExportersAgreeOnMlp) {
  const Tensor images = ramp({2, 1, 28, 28}, -1, 0.001);
  EXPECT_EQ(logits("mlp.dynamo", images), logits("mlp.ts17", images));
}

TEST(Documentation, OperatorsAreThoseOfTheTable) { expect_text(kSource / "docs/operators.md", operators_markdown()); }

}  // namespace
}  // namespace halfstep::test
