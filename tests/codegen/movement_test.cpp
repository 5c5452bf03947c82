#include "base/philox.h"
#include "tests/codegen/compare.h"

namespace halfstep {
namespace {

// Movement chains over one operand; every element type of 1 to 8 bytes.
void expect_movement(const std::string& type, const std::string& shape, const std::string& nodes) {
  expect_as_interpreted(
      "graph movement {\n  %x = input() {name=\"0\"} : " + type + shape + "\n" + nodes + "\n  output \"0\" = %y\n}\n",
      -2, 2, 100);
}

void expect_movement(const std::string& shape, const std::string& nodes) {
  for (const char* type : {"f32", "f16", "u8", "i64"}) expect_movement(type, shape, nodes);
}

TEST(Movement, Transposes) {
  expect_movement("[5,33]", "%y = transpose(%x) {permutation=[1,0]}");
  expect_movement("[2,3,4,5]", "%y = transpose(%x) {permutation=[0,2,3,1]}");
  expect_movement("[2,4,5,3]", "%y = transpose(%x) {permutation=[0,3,1,2]}");
  expect_movement("[2,4,5,48]", "%y = transpose(%x) {permutation=[1,0,2,3]}");
  expect_movement("[2,1,28,28]", "%y = transpose(%x) {permutation=[0,2,3,1]}");
}

TEST(Movement, ReshapesThatShareNoAxes) {
  expect_movement("[6,4]",
                  "%r = reshape(%x) {shape=[4,6]}\n %t = transpose(%r) {permutation=[1,0]}\n"
                  "%y = reshape(%t) {shape=[8,3]}");
  expect_movement("[35,64]", "%t = transpose(%x) {permutation=[1,0]}\n %y = reshape(%t) {shape=[7,320]}");
  expect_movement("[3,50]",
                  "%t = transpose(%x) {permutation=[1,0]}\n %r = reshape(%t) {shape=[6,25]}\n"
                  "%u = transpose(%r) {permutation=[1,0]}\n %y = reshape(%u) {shape=[150]}");
}

TEST(Movement, SlicesAndPads) {
  expect_movement("[5,70]", "%y = slice(%x) {starts=[1,3], limits=[4,69], steps=[1,1]}");
  expect_movement("[9,70]", "%y = slice(%x) {starts=[0,1], limits=[9,70], steps=[2,3]}");
  expect_movement("[5,33]", "%y = pad(%x) {low=[1,2], high=[0,5]}");
  expect_movement("[5,32]", "%y = pad(%x) {low=[2,0], high=[3,0], interior=[1,0], value=2.0}");
  expect_movement("[5,32]", "%y = pad(%x) {low=[0,3], high=[0,1], interior=[0,2]}");
  expect_movement("[4,0]", "%y = pad(%x) {low=[0,1], high=[0,2], value=7.0}");
  expect_movement("[5,33]",
                  "%p = pad(%x) {low=[1,2], high=[1,5]}\n %s = slice(%p) {starts=[0,1], limits=[7,40], steps=[3,2]}\n"
                  "%t = transpose(%s) {permutation=[1,0]}\n %y = pad(%t) {low=[0,1], high=[2,0]}");
}

TEST(Movement, ConcatsOfWhatWasMoved) {
  expect_movement("[6,32]", R"(%a = slice(%x) {starts=[0,0], limits=[6,8], steps=[1,1]}
    %n = pad(%a) {low=[0,1], high=[0,0]}
    %t = transpose(%x) {permutation=[1,0]}
    %r = reshape(%t) {shape=[6,32]}
    %y = concat(%x, %n, %r, %a) {axis=1})");
  expect_movement("[6,32]", R"(%e = slice(%x) {starts=[0,0], limits=[0,32], steps=[1,1]}
    %y = concat(%x, %e, %x) {axis=0})");
}

TEST(Movement, BroadcastsOfEveryAxis) {
  expect_movement("[3,1,33]", "%y = broadcast(%x) {shape=[3,4,33]}");
  expect_movement("[1,5,1]", "%y = broadcast(%x) {shape=[4,5,40]}");
  expect_movement("[1,1]", "%y = broadcast(%x) {shape=[9,7]}");
  expect_movement("[5,1]", "%t = transpose(%x) {permutation=[1,0]}\n %y = broadcast(%t) {shape=[6,5]}");
}

TEST(Movement, AGatherReadsZeroWhereThereIsNoRow) {
  for (int axis = 0; axis < 2; ++axis) {
    const RegionRunner runner(
        parse_graph("graph gather {\n  %x = input() {name=\"0\"} : f16[6,40]\n"
                    "  %i = input() {name=\"1\"} : i64[3,4]\n"
                    "  %y = gather(%x, %i) {axis=" +
                    std::to_string(axis) + "}\n  output \"0\" = %y\n}\n"));
    NamedTensors leaves = random_leaves(runner.region(), 4, -2, 2, 6);
    leaves.at("1").set(3, -7);
    leaves.at("1").set(5, 1e12);
    expect_as_interpreted(runner, leaves);
    const Tensor found = runner.run(leaves)[0];
    for (int64_t position : {3, 5}) EXPECT_EQ(found.at(axis == 0 ? position * 40 : position), 0);
  }
  expect_as_interpreted(R"(graph known {
    %x = input() {name="0"} : f32[4,33]
    %i = constant() {value=i64[5](0,3,4,-1,1)}
    %e = exp(%x)
    %y = gather(%e, %i) {axis=0}
    output "0" = %y
  })");
}

TEST(Movement, ComputedIndicesOfAGather) {
  expect_as_interpreted(R"(graph computed {
    %x = input() {name="0"} : f32[7,5]
    %i = input() {name="1"} : i32[9]
    %two = constant() {value=i32[9](2,2,2,2,2,2,2,2,2)}
    %j = add(%i, %two)
    %y = gather(%x, %j) {axis=0}
    %z = neg(%y)
    output "0" = %z
  })",
                        -2, 2, 5);
}

TEST(Movement, UniformIsTheSameNumberEverywhere) {
  const uint64_t seed = 0x123456789ABCDEFull;
  Tensor s({DType::i64, {}}), step({DType::i32, {}});
  s.as<uint64_t>()[0] = seed;
  step.as<int32_t>()[0] = 41;
  const auto numbers = [&](const std::string& shape, const std::string& result) {
    const RegionRunner runner(parse_graph(
        "graph random {\n %s = input() {name=\"0\"} : i64[]\n %i = input() {name=\"1\"} : i32[]\n %u = uniform(%s, %i) "
        "{shape=" +
        shape + ", site=9}\n" + result + " output \"0\" = %t\n}\n"));
    return runner.run({{"0", s}, {"1", step}})[0];
  };
  const Tensor apart = numbers("[77,13]", " %t = slice(%u) {starts=[3,2], limits=[70,12], steps=[2,1]}\n");
  for (int64_t r = 0; r < 34; ++r)
    for (int64_t c = 0; c < 10; ++c)
      EXPECT_EQ(apart.at(r * 10 + c), philox_element(seed, 41, 9, static_cast<uint64_t>((3 + 2 * r) * 13 + 2 + c)));
  // Vectors of lanes that begin at a block, and beside one.
  const Tensor whole = numbers("[20,64]", " %t = neg(%u)\n");
  for (int64_t i = 0; i < 20 * 64; ++i) EXPECT_EQ(-whole.at(i), philox_element(seed, 41, 9, static_cast<uint64_t>(i)));
  const Tensor beside = numbers("[1300]", " %t = slice(%u) {starts=[2], limits=[1282], steps=[1]}\n");
  for (int64_t i = 0; i < 1280; ++i) EXPECT_EQ(beside.at(i), philox_element(seed, 41, 9, static_cast<uint64_t>(i + 2)));
}

// Masked accesses of a vector that is wider than a register: LLVM 19 mixes up their halves.
TEST(Movement, PiecesOfACutParameterKeepTheirOwnValues) {
  for (const char* type : {"f32", "f16", "i64"})
    for (const int64_t half : {7, 8, 16, 24}) {
      const std::string piece = std::string(type) + "[1," + std::to_string(half) + "]", n = std::to_string(half);
      const auto padded = [&](const std::string& at, const std::string& low, const std::string& high) {
        return "%p" + at + " = pad(%" + at + ") {low=" + low + ", high=" + high + "}\n";
      };
      std::string text = "graph cut {\n";
      for (const std::string at : {"0", "1", "2", "3"})
        text += "%" + at + " = input() {name=\"" + at + "\"} : " + piece + "\n";
      text += padded("0", "[1," + n + "]", "[0,0]") + padded("1", "[1,0]", "[0," + n + "]") +
              padded("2", "[0," + n + "]", "[1,0]") + padded("3", "[0,0]", "[1," + n + "]") +
              "%a = add(%p0, %p1)\n%b = add(%a, %p2)\n%c = add(%b, %p3)\noutput \"0\" = %c\n}";
      SCOPED_TRACE(text);
      expect_as_interpreted(text, -2, 2, 100);
    }
}

}  // namespace
}  // namespace halfstep
