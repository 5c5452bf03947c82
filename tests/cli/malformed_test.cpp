// Small files that once crashed, did not end or took all memory: each ends within 10 seconds, which a second on an idle
// machine may become beside other programs, and 200 MB.
#include <map>

#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using testing::HasSubstr;

constexpr double kMostSeconds = 10;
constexpr int64_t kMostMegabytes = 200;

std::filesystem::path malformed(const std::string& name) {
  return std::filesystem::path(HALFSTEP_SOURCE_DIR) / "tests/frontend/malformed" / name;
}

class Malformed : public Cli {
 protected:
  void ends(const Arguments& arguments, int code, const std::string& part) const {
    const Finished finished = run(arguments);
    EXPECT_EQ(finished.exit_code, code) << arguments[1] << ": " << finished.err;
    EXPECT_THAT(finished.out + finished.err, HasSubstr(part)) << arguments[1];
    EXPECT_THAT(finished.err, testing::Not(HasSubstr("internal error"))) << arguments[1];
    EXPECT_LT(finished.seconds, kMostSeconds) << arguments[1];
    EXPECT_LT(finished.megabytes, kMostMegabytes) << arguments[1];
  }
};

TEST_F(Malformed, EveryModelIsReadOrRefusedInBoundedTimeAnd200Megabytes) {
  struct Expected {
    int code;
    std::string part;
  };
  const std::map<std::string, Expected> expected{{"absent_operand_flatten", {4, "operand 0 is left out"}},
                                                 {"absent_operand_reshape", {4, "operand 0 is left out"}},
                                                 {"absent_operand_sequence_construct", {4, "operand 0 is left out"}},
                                                 {"absent_operand_split_no_outputs", {0, ""}},
                                                 {"absent_operand_squeeze", {4, "operand 0 is left out"}},
                                                 {"bn_insert_hang", {4, "node Conv 'node_Conv_190'"}},
                                                 {"chain20", {0, "ready to train"}},
                                                 {"cumsum_axis_ub", {4, "node CumSum 'CumSum_0': axis"}},
                                                 {"dropout_no_outputs", {0, ""}},
                                                 {"escape_in_name", {1, "holds a control character"}},
                                                 {"funcattr", {4, "function"}},
                                                 {"grad_same", {4, "name the output to train on"}},
                                                 {"loops", {0, ""}},
                                                 {"shadow", {4, "defined twice"}},
                                                 {"siblings", {0, "ready to train"}},
                                                 {"topk_without_k", {4, "operand k: one integer expected"}}};
  for (const auto& entry : std::filesystem::directory_iterator(malformed("."))) {
    if (entry.path().extension() != ".onnx") continue;
    const auto found = expected.find(entry.path().stem().string());
    ASSERT_NE(found, expected.end()) << entry.path() << " has no expectation";
    ends({"check", entry.path().string()}, found->second.code, found->second.part);
  }
}

TEST_F(Malformed, ABatchNormBehindAFilterOfAnySizeIsRefused) {
  ends({"check", malformed("bn_insert_hang.onnx").string(), "--bn_insert", "true"}, 1,
       "a filter of 9223372036854775807 channels");
}

TEST_F(Malformed, BudgetsOfAnImportAreOptions) {
  const std::string chain = malformed("chain20.onnx").string();
  ends({"check", chain, "--max_nodes", "3"}, 4, "the model has more than 3 nodes");
  fail(1, {"check", chain, "--max_iterations", "0"}, {"at least 1 expected"});
}

TEST_F(Malformed, AnOutputThatIsCalledAsAGradientIsNone) {
  const Finished finished =
      run({"gradients", malformed("grad_same.onnx").string(), "--data", malformed("d4.npz").string(), "--batch", "4",
           "--output", "z", "--device", "cpu", "-o", "g.safetensors"});
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_LT(finished.megabytes, kMostMegabytes);
  const std::string file = read("g.safetensors");
  EXPECT_THAT(file, HasSubstr("\"gradients/w\""));
  EXPECT_THAT(file, HasSubstr("\"outputs/gradient/w\""));
}

TEST_F(Malformed, JsonThatIsNestedDeeplyIsRefused) {
  std::string deep = R"({"format": "halfstep compiled step", "version": )" + std::string(200'000, '[');
  std::filesystem::create_directory(path("step"));
  write("step/manifest.json", deep);
  ends({"train", "step", "--data", malformed("d4.npz").string()}, 1, "nested more than 64 deep");
}

}  // namespace
}  // namespace halfstep::test
