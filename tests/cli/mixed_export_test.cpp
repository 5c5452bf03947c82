// halfstep export --precision: a model in mixed precision.
#include "frontend/export/mixed_precision.h"
#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class MixedExport : public Cli {
 protected:
  // Operators of the written file, in order.
  std::vector<std::string> operators(const std::string& name) const {
    onnx::ModelProto model;
    EXPECT_TRUE(model.ParseFromString(read(name)));
    std::vector<std::string> ops;
    for (const onnx::NodeProto& node : model.graph().node()) ops.push_back(node.op_type());
    return ops;
  }
};

TEST_F(MixedExport, IsTheInferenceModelWithCasts) {
  write("m.onnx", tiny_mlp());
  const json said = json::parse(succeed({"export", "m.onnx", "--precision", "fp16", "-o", "low.onnx", "--json"}));
  EXPECT_EQ(said["low_nodes"], 3);
  EXPECT_EQ(said["casts"], 2);
  EXPECT_EQ(said["preset"], "halfstep 1");
  EXPECT_EQ(said["weight_bytes_fp32"], 4 * 67 + 4);
  EXPECT_EQ(said["weight_bytes"], 2 * 67 + 4);  // the dropout's ratio, which nothing reads any more, stays
  EXPECT_THAT(operators("low.onnx"), testing::ElementsAre("Cast", "Gemm", "Relu", "Gemm", "Cast"));
  succeed({"check", "low.onnx"});
}

TEST_F(MixedExport, RulesDecideAndFp32HasNoCasts) {
  write("m.onnx", tiny_mlp());
  succeed({"export", "m.onnx", "--precision", "bf16", "--deny", "fc2", "-o", "low.onnx"});
  EXPECT_THAT(operators("low.onnx"), testing::ElementsAre("Cast", "Gemm", "Relu", "Cast", "Gemm"));
  succeed({"export", "m.onnx", "--precision", "fp32", "-o", "plain.onnx"});
  EXPECT_THAT(operators("plain.onnx"), testing::ElementsAre("Gemm", "Relu", "Gemm"));
}

// A rule of one slot: what is low beside f32 is rounded, and the node computes in f32.
TEST_F(MixedExport, RoundsWhatRulesOfSlotsSay) {
  TestModel m(17);
  m.input("x", {2, 4}).weight("w", ramp({4, 3}, -1, 0.2));
  m.node("MatMul", {"x", "w"}, {"y"}, {}, "product").node("Relu", {"y"}, {"z"}, {}, "relu").output("z");
  write("m.onnx", m);
  const auto with_rule = [&](const std::string& tensor, const std::string& precision) {
    write("p.toml", "version = 1\n[[rule]]\nnode = \"product\"\ntensor = \"" + tensor + "\"\nprecision = \"" +
                        precision + "\"\n");
    succeed({"export", "m.onnx", "--precision", "fp16", "--policy", "p.toml", "-o", "low.onnx"});
    succeed({"check", "low.onnx"});
    return operators("low.onnx");
  };
  using testing::ElementsAre;
  EXPECT_THAT(with_rule("result", "fp32"), ElementsAre("Cast", "Cast", "Cast", "MatMul", "Relu"));
  EXPECT_THAT(with_rule("0", "fp32"), ElementsAre("MatMul", "Cast", "Relu", "Cast"));
  EXPECT_THAT(with_rule("w", "low"), ElementsAre("Cast", "MatMul", "Relu", "Cast"));
  onnx::ModelProto model;
  with_rule("0", "fp32");
  ASSERT_TRUE(model.ParseFromString(read("low.onnx")));
  EXPECT_THAT(model.graph().node(0).ShortDebugString(), HasSubstr("p.toml:2: operand 0 f32"));
  EXPECT_THAT(model.graph().node(1).ShortDebugString(), HasSubstr("p.toml:2: operand 0 f32"));
}

TEST_F(MixedExport, SaysWhyANodeStaysWide) {
  TestModel m(17);
  m.input("x", {1, 2, 4, 4}).weight("w", ramp({3, 2, 1, 1}, -1, 0.2));
  m.node("Conv", {"x", "w"}, {"y"}, {}, "conv").output("y");
  write("m.onnx", m);
  succeed({"export", "m.onnx", "--precision", "bf16", "-o", "low.onnx"});
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(read("low.onnx")));
  EXPECT_THAT(model.graph().node(0).ShortDebugString(), HasSubstr("stays f32: Conv of opset 17 has no bf16"));
}

// It has no loss: none of two outputs is chosen, a reshape holds for the file's batch alone.
TEST_F(MixedExport, NeedsNoLossAndKeepsTheSizesOfTheFile) {
  TestModel m(17);
  m.input("x", {2, 4}).weight("w", ramp({4, 3}, -1, 0.2)).weight("shape", ints({2}, {3, 2}));
  m.node("MatMul", {"x", "w"}, {"y"}, {}, "product").node("Reshape", {"y", "shape"}, {"z"}, {}, "turned");
  m.output("y").output("z");
  write("m.onnx", m);
  succeed({"export", "m.onnx", "--precision", "fp16", "-o", "low.onnx"});
  EXPECT_THAT(operators("low.onnx"), testing::ElementsAre("Cast", "MatMul", "Cast", "Reshape", "Cast"));
  fail(1, {"export", "m.onnx", "--precision", "fp16", "--batch", "8", "-o", "low.onnx"}, {"turned", "[3,2]"});
}

TEST_F(MixedExport, TellsOfWeightsThatTheTypeDoesNotHold) {
  TestModel m(17);
  m.input("x", {2, 2}).weight("w", floats({2, 2}, {1e-8, 1, 7e4, 0})).node("MatMul", {"x", "w"}, {"y"}).output("y");
  write("m.onnx", m);
  const json said = json::parse(succeed({"export", "m.onnx", "--precision", "fp16", "-o", "low.onnx", "--json"}));
  EXPECT_EQ(said["lost_weights"], json({{"w", 2}}));
  const json wide = json::parse(succeed({"export", "m.onnx", "--precision", "bf16", "-o", "low.onnx", "--json"}));
  EXPECT_TRUE(wide["lost_weights"].empty());
}

TEST_F(MixedExport, WithoutATypeTheWeightsOfARunAreAskedFor) {
  write("m.onnx", tiny_mlp());
  fail(1, {"export", "m.onnx", "-o", "low.onnx"}, {"--checkpoint"});
}

}  // namespace
}  // namespace halfstep::test
