// halfstep diff: two assignments of precision side by side.
#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Diff : public Cli {
 protected:
  json differences(Arguments sides) const {
    sides.insert(sides.begin(), "diff"), sides.push_back("--json");
    const Finished done = run(sides);
    EXPECT_EQ(done.exit_code, 5) << done.err;
    return json::parse(done.out);
  }
};

TEST_F(Diff, SaysWhichNodesAPolicyChangesAndWhy) {
  write("m.onnx", tiny_mlp());
  write("policy.toml", "version = 1\nextends = [\"halfstep\"]\n[[rule]]\nnode = \"fc1\"\nprecision = \"fp32\"\n");
  const json found = differences({"m.onnx", "policy.toml"});
  EXPECT_EQ(found["same"], false);
  ASSERT_FALSE(found["changed"].empty());
  const json& fc1 = found["changed"][0];
  EXPECT_EQ(fc1["node"], "fc1");
  EXPECT_EQ(fc1["first"]["result"], "f16");
  EXPECT_EQ(fc1["second"]["result"], "f32");
  EXPECT_EQ(fc1["second"]["rule"], "policy.toml:3");
  EXPECT_TRUE(found["only_first"].empty() && found["only_second"].empty());
  EXPECT_THAT(found["second"]["assignment"], HasSubstr("policy policy.toml"));
}

TEST_F(Diff, ComparesSingleSlots) {
  write("m.onnx", tiny_mlp());
  write("wide.toml", "version = 1\n[[rule]]\nnode = \"fc1\"\ntensor = \"1\"\nprecision = \"fp32\"\n");
  write("same.toml", "version = 1\n[[rule]]\nnode = \"fc1\"\ntensor = \"1\"\nprecision = \"low\"\n");
  const json found = differences({"m.onnx", "wide.toml"});
  ASSERT_EQ(found["changed"].size(), 1u);
  EXPECT_EQ(found["changed"][0]["node"], "fc1");
  EXPECT_EQ(found["changed"][0]["second"]["slots"],
            json({{"0", "f32"}, {"1", "f32"}, {"2", "f16"}, {"result", "f16"}}));
  EXPECT_THAT(run({"diff", "m.onnx", "wide.toml"}).out, HasSubstr("0 f32, 1 f32, 2 f16, result f16"));
  succeed({"diff", "m.onnx", "same.toml"});
  write("wide.json", succeed({"inspect", "m.onnx", "--policy", "wide.toml", "--json"}));
  succeed({"diff", "wide.json", "wide.toml"});
  EXPECT_EQ(differences({"m.onnx", "wide.json"})["changed"].size(), 1u);
}

TEST_F(Diff, OfTheSameIsEmptyAndEndsWithZero) {
  write("m.onnx", tiny_mlp());
  EXPECT_THAT(succeed({"diff", "halfstep", "default", "--model", "m.onnx"}), HasSubstr("0 of "));
  write("report.json", succeed({"inspect", "m.onnx", "--json"}));
  succeed({"diff", "report.json", "m.onnx"});
  succeed({"diff", "report.json", "halfstep"});  // of the report's model
}

TEST_F(Diff, OfTwoModelsComparesWhatMatchesAndListsTheRest) {
  write("m.onnx", tiny_mlp());
  write("c.onnx", tiny_convnet());
  const Finished done = run({"diff", "m.onnx", "c.onnx"});
  EXPECT_EQ(done.exit_code, 5);
  EXPECT_THAT(done.out, testing::AllOf(HasSubstr("fc1 (Gemm)"), HasSubstr("conv (Conv)"), HasSubstr("only in B")));
}

TEST_F(Diff, ATypeOfTheCommandLineCountsForBothSides) {
  write("m.onnx", tiny_mlp());
  const json found = differences({"fp32", "halfstep", "--model", "m.onnx", "--precision", "bf16"});
  EXPECT_EQ(found["changed"][0]["second"]["result"], "bf16");
}

TEST_F(Diff, SidesThatAreNothingAreRefused) {
  write("m.onnx", tiny_mlp());
  write("deep.json", std::string(200'000, '[') + std::string(200'000, ']'));
  write("other.json", R"({"schema_version": 1, "nodes": [7]})");
  fail(1, {"diff", "torch", "halfstep"}, {"'torch' is a preset", "'halfstep' is a preset", "--model"});
  fail(1, {"diff", "trch", "m.onnx"}, {"'trch'", "'torch'"});
  fail(1, {"diff", "deep.json", "m.onnx"}, {"deep.json", "64 deep"});
  fail(1, {"diff", "other.json", "m.onnx"}, {"other.json", "'precision'"});
  fail(2, {"diff", "m.onnx"}, {"two sides are compared: each a preset"});
}

}  // namespace
}  // namespace halfstep::test
