// Files of some hundred bytes that once crashed the importer: each is read, or refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "frontend/export/export.h"
#include "frontend/import/import.h"
#include "frontend/repairs/read_model.h"

namespace halfstep::test {
namespace {

OnnxFile malformed(const std::string& name) {
  return read_onnx_file(std::filesystem::path(HALFSTEP_SOURCE_DIR) / "tests/frontend/malformed" / (name + ".onnx"));
}

std::string error(const std::string& name) {
  try {
    import_model(malformed(name));
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Malformed, AnOperandThatIsLeftOutIsNamed) {
  const std::string other = "; output 'xw' needs none of this: choose it with --output xw";
  EXPECT_EQ(error("absent_operand_flatten"), "node Flatten 'n': operand 0 is left out" + other);
  EXPECT_EQ(error("absent_operand_reshape"), "node Reshape 'n': operand 0 is left out" + other);
  EXPECT_EQ(error("absent_operand_squeeze"), "node Squeeze 'n': operand 0 is left out" + other);
  EXPECT_EQ(error("absent_operand_sequence_construct"), "node SequenceConstruct 'n': operand 0 is left out" + other);
}

TEST(Malformed, ATopKWhoseCountIsEmptyIsNamed) {
  EXPECT_THAT(error("topk_without_k"), testing::StartsWith("node TopK 'n': operand k: one integer expected, found 0"));
}

TEST(Malformed, ANodeWithoutResultsIsNotRead) { EXPECT_EQ(error("absent_operand_split_no_outputs"), "no error"); }

TEST(Malformed, ADropoutWithoutResultsIsExportedAsItIs) {
  const OnnxFile file = malformed("dropout_no_outputs");
  const TemporaryDirectory directory;
  export_model(read_model(file), import_model(file).weights, directory.path() / "out.onnx");
}

TEST(Malformed, AFunctionsBranchSeesOnlyTheFunction) {
  EXPECT_EQ(error("funcattr"),
            "node local.f0 'call': function 'f0', with the attributes of this call: node Neg 'Neg_0': operand "
            "'x' is nowhere defined: no node, input or initializer has this name");
}

TEST(Malformed, LoopsThatGiveNothingAreNotRun) { EXPECT_EQ(error("loops"), "no error"); }

TEST(Malformed, ABranchMayNotHideAValueThatItSees) {
  EXPECT_THAT(error("shadow"), testing::HasSubstr("value 'w' is defined twice: again by an initializer of graph 'b'"));
  EXPECT_EQ(error("siblings"), "no error");
}

}  // namespace
}  // namespace halfstep::test
