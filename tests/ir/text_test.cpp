#include "ir/text.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace halfstep {
namespace {

TEST(GraphText, PrintsEveryKindOfAttributeAndParsesItBack) {
  const std::string text = R"(graph step {
  %0 = input() {name="x"} : f16[2,3]
  %1 = state() {name="running \"mean\""} : f32[3]
  %2 = constant() {value=i64[2](9007199254740993, -1)} : i64[2]
  %3 = constant() {value=f32[](0.1)} : f32[]
  %4 = cast(%0) {to=f32} : f32[2,3] @"head" backward
  %5 = fused(%4) {body=graph body {
    %0 = input() {name="0"} : f32[2,3]
    %1 = relu(%0) : f32[2,3]
    output "0" = %1
  }} : f32[2,3]
  output "y" = %5
  output "shape" = %2
  output "tenth" = %3
  update %1 = %1
}
)";
  EXPECT_EQ(print(parse_graph(text)), text);
}

std::string error_of(const std::string& text) {
  try {
    parse_graph(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(GraphText, ErrorsNameLineAndColumn) {
  EXPECT_EQ(error_of("graph g {\n  %0 = relu(%1)\n}"), "line 2, column 15: %1 is not defined before its use");
  EXPECT_EQ(error_of("graph g {\n  %0 = rellu()\n}"), "line 2, column 13: no op 'rellu'");
  EXPECT_EQ(error_of("graph g {\n  %0 = input() {name=\"x\"} : f32[2]\n  %1 = reshape(%0) {shape=[3]}\n}"),
            "line 4, column 1: reshape: f32[2] has another number of elements than [3]");
  EXPECT_EQ(error_of("graph g {"), "line 1, column 10: a node, output or update expected");
}

// Numbers of heads whose double leaves 64 bits, or more than there are.
TEST(GraphText, HeadsBesideEachOtherAreCounted) {
  for (const char* heads : {"-9223372036854775807", "9223372036854775807", "-1", "3"}) {
    const std::string found = error_of(std::string("graph g {\n  %0 = input() {name=\"x\"} : f16[2,3,6,8]\n") +
                                       "  %1, %2 = flash_attention(%0) {key_heads=" + heads + ", scale=1.0}\n}");
    EXPECT_NE(found.find("does not hold"), std::string::npos) << found;
  }
}

}  // namespace
}  // namespace halfstep
