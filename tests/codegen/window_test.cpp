#include "tests/codegen/compare.h"

namespace halfstep {
namespace {

struct Case {
  const char* shape;   // [N, spatial..., C]
  const char* pooled;  // of the result
  const char* spatial;
  const char* geometry;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> list{
      {"[2,6,8,32]", "[2,3,4,32]", "[6,8]", "window=[2,2], strides=[2,2]"},
      {"[2,7,8,5]", "[2,3,4,5]", "[7,8]", "window=[2,2], strides=[2,2]"},
      {"[2,7,7,40]", "[2,4,4,40]", "[7,7]", "window=[3,3], strides=[2,2], pads_begin=[1,1], pads_end=[1,1]"},
      {"[1,9,9,3]", "[1,4,9,3]", "[9,9]", "window=[3,3], strides=[2,1], pads_begin=[0,1], pads_end=[0,1]"},
      {"[2,9,8,7]", "[2,3,4,7]", "[9,8]",
       "window=[3,2], strides=[2,2], pads_begin=[1,0], pads_end=[0,1], dilations=[2,2]"},
      {"[3,17,6]", "[3,6,6]", "[17]", "window=[5], strides=[3], pads_begin=[2], pads_end=[1]"},
      {"[1,4,5,6,4]", "[1,3,2,3,4]", "[4,5,6]", "window=[2,3,2], strides=[1,2,2]"},
      {"[2,9,9,20]", "[2,1,1,20]", "[9,9]", "window=[9,9]"},
      {"[2,11,9,20]", "[2,3,3,20]", "[11,9]", "window=[6,5], strides=[4,3], pads_begin=[2,1], pads_end=[1,1]"},
  };
  return list;
}

TEST(Windows, MaxPoolAndItsIndices) {
  for (const char* type : {"f32", "f16", "bf16"})
    for (const Case& c : cases())
      expect_as_interpreted(std::string("graph pool {\n %x = input() {name=\"0\"} : ") + type + c.shape +
                            "\n %y, %i = max_pool(%x) {" + c.geometry +
                            "}\n output \"0\" = %y\n output \"1\" = %i\n}\n");
}

TEST(Windows, MaxPoolKeepsTheFirstOfEqualsAndNan) {
  const RegionRunner runner(parse_graph(R"(graph pool {
    %x = input() {name="0"} : f32[1,4,4,17]
    %y, %i = max_pool(%x) {window=[3,3], strides=[1,1], pads_begin=[1,1], pads_end=[1,1]}
    output "0" = %i
    output "1" = %y
  })"));
  Tensor x({DType::f32, {1, 4, 4, 17}});
  for (int64_t i = 0; i < 272; ++i) x.set(i, i % 3 == 0 ? NAN : i % 5 == 0 ? -INFINITY : 1);
  for (int64_t i = 0; i < 16; ++i) x.set(i * 17, -INFINITY), x.set(i * 17 + 1, 4);
  expect_as_interpreted(runner, {{"0", x}});
}

TEST(Windows, MaxPoolGradient) {
  for (const char* type : {"f32", "f16"})
    for (const Case& c : cases()) {
      SCOPED_TRACE(c.geometry);
      const Graph pool = parse_graph(std::string("graph pool {\n %x = input() {name=\"0\"} : ") + type + c.shape +
                                     "\n %y, %i = max_pool(%x) {" + c.geometry + "}\n output \"0\" = %i\n}\n");
      const auto index = interpret(pool, random_leaves(pool, 2)).outputs.at("0");
      const RegionRunner runner(parse_graph(std::string("graph gradient {\n %d = input() {name=\"0\"} : ") + type +
                                            c.pooled + "\n %i = input() {name=\"1\"} : u8" + c.pooled +
                                            "\n %x = max_pool_grad(%d, %i) {" + c.geometry + ", spatial=" + c.spatial +
                                            "}\n output \"0\" = %x\n}\n"));
      NamedTensors leaves = random_leaves(runner.region(), 7);
      leaves["1"] = Tensor::from_values(index.type, index.values);
      expect_as_interpreted(runner, leaves);
    }
}

TEST(Windows, AveragesAndTheirGradients) {
  for (const char* type : {"f32", "f16"})
    for (const Case& c : cases())
      for (const char* count : {", count_include_pad=1", ""}) {
        expect_as_interpreted(std::string("graph pool {\n %x = input() {name=\"0\"} : ") + type + c.shape +
                              "\n %y = avg_pool(%x) {" + c.geometry + count + "}\n output \"0\" = %y\n}\n");
        expect_as_interpreted(std::string("graph gradient {\n %d = input() {name=\"0\"} : ") + type + c.pooled +
                              "\n %x = avg_pool_grad(%d) {" + c.geometry + count + ", spatial=" + c.spatial +
                              "}\n output \"0\" = %x\n}\n");
      }
}

TEST(Windows, TheOperandMayBeAnExpression) {
  expect_as_interpreted(R"(graph inlined {
    %x = input() {name="0"} : f16[2,6,6,32]
    %b = input() {name="1"} : f32[32]
    %h = cast(%b) {to=f16}
    %r = reshape(%h) {shape=[1,1,1,32]}
    %w = broadcast(%r) {shape=[2,6,6,32]}
    %s = add(%x, %w)
    %z = relu(%s)
    %y, %i = max_pool(%z) {window=[2,2], strides=[2,2]}
    %a = avg_pool(%y) {window=[2,2], strides=[1,1], pads_begin=[1,0], pads_end=[0,1]}
    %f = reshape(%a) {shape=[2,288]}
    output "0" = %f
  })");
  // A loop within a loop.
  expect_as_interpreted(R"(graph nested {
    %x = input() {name="0"} : f32[1,24,3]
    %y, %i = max_pool(%x) {window=[17], pads_begin=[2]}
    %a = avg_pool(%y) {window=[10]}
    %z = neg(%a)
    output "0" = %z
  })");
}

}  // namespace
}  // namespace halfstep
