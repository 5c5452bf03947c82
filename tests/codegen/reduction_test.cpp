// Row and column regions: softmax and losses, statistics, full reductions, their splits over launches and units.
#include <cstring>

#include "base/checked.h"
#include "tests/codegen/compare.h"

namespace halfstep {
namespace {

std::string shape(std::initializer_list<int64_t> sizes) { return to_string(Shape(sizes)); }

std::string softmax_text(const std::string& type, int64_t rows, int64_t columns) {
  const std::string full = shape({rows, columns});
  return "graph softmax {\n %x = input() {name=\"0\"} : " + type + full +
         "\n %f = cast(%x) {to=f32}\n %m = reduce_max(%f) {axes=[1]}\n %w = broadcast(%m) {shape=" + full +
         "}\n %s = sub(%f, %w)\n %e = exp(%s)\n %t = reduce_sum(%e) {axes=[1]}\n %u = broadcast(%t) {shape=" + full +
         "}\n %p = div(%e, %u)\n %y = cast(%p) {to=" + type + "}\n output \"0\" = %y\n}\n";
}

// Loss rows and the gradient, as one region: three reductions in two phases, labels by comparison.
std::string cross_entropy_text(const std::string& type, int64_t rows, int64_t columns) {
  const std::string full = shape({rows, columns}), row = shape({rows, 1});
  return "graph loss {\n %x = input() {name=\"0\"} : " + type + full + "\n %l = input() {name=\"1\"} : i64" +
         shape({rows}) +
         "\n %f = cast(%x) {to=f32}\n %m = reduce_max(%f) {axes=[1]}\n %w = broadcast(%m) {shape=" + full +
         "}\n %s = sub(%f, %w)\n %e = exp(%s)\n %t = reduce_sum(%e) {axes=[1]}\n %n = log(%t)\n %k = iota() {shape=" +
         full + ", axis=1}\n %c = reshape(%l) {shape=" + row + "}\n %d = broadcast(%c) {shape=" + full +
         "}\n %h = eq(%k, %d)\n %z = constant() {value=f32[1,1](0)}\n %o = broadcast(%z) {shape=" + full +
         "}\n %q = select(%h, %s, %o)\n %r = reduce_sum(%q) {axes=[1]}\n %loss = sub(%n, %r)\n %rows = reshape(%loss) "
         "{shape=" +
         shape({rows}) + "}\n %u = broadcast(%t) {shape=" + full +
         "}\n %p = div(%e, %u)\n %g = cast(%h) {to=f32}\n %dx = sub(%p, %g)\n %y = cast(%dx) {to=" + type +
         "}\n output \"0\" = %rows\n output \"1\" = %y\n}\n";
}

TEST(Rows, Softmax) {
  for (int64_t rows : {1, 3, 130})
    for (int64_t columns : {2, 7, 10, 16, 33, 64, 1000})
      expect_as_interpreted(softmax_text("f16", rows, columns), -9, 9);
  for (const char* type : {"f32", "bf16"}) expect_as_interpreted(softmax_text(type, 5, 100), -9, 9);
  expect_as_interpreted(softmax_text("f16", 2, 50257), -9, 9);
}

TEST(Rows, CrossEntropyForwardAndBackward) {
  for (const char* type : {"f32", "f16"})
    for (int64_t columns : {2, 10, 37, 1000})
      expect_as_interpreted(cross_entropy_text(type, 128, columns), -4, 4, columns);
}

TEST(Rows, ReductionsOverAxesThatAreNotLast) {
  expect_as_interpreted(R"(graph softmax {
    %x = input() {name="0"} : f32[3,20,5,7]
    %m = reduce_max(%x) {axes=[1]}
    %w = broadcast(%m) {shape=[3,20,5,7]}
    %s = sub(%x, %w)
    %e = exp(%s)
    %t = reduce_sum(%e) {axes=[1]}
    %u = broadcast(%t) {shape=[3,20,5,7]}
    %y = div(%e, %u)
    output "0" = %y
    output "1" = %t
  })");
  for (const char* axes : {"[0,2]", "[1,3]", "[0,3]", "[0,1,3]", "[0,2,3]"})
    expect_as_interpreted(std::string("graph general {\n %x = input() {name=\"0\"} : f16[4,5,6,7]\n"
                                      " %r = reduce_sum(%x) {axes=") +
                          axes + "}\n output \"0\" = %r\n}\n");
}

TEST(Rows, OperandsReadThroughMovement) {
  expect_as_interpreted(R"(graph moved {
    %x = input() {name="0"} : f32[40,6]
    %t = transpose(%x) {permutation=[1,0]}
    %p = pad(%t) {low=[0,1], high=[0,2]}
    %s = reduce_sum(%p) {axes=[1]}
    %w = broadcast(%s) {shape=[6,43]}
    %y = sub(%p, %w)
    output "0" = %y
  })");
  expect_as_interpreted(R"(graph pooled {
    %x = input() {name="0"} : f32[3,6,6,10]
    %m, %i = max_pool(%x) {window=[2,2], strides=[2,2]}
    %f = reshape(%m) {shape=[3,90]}
    %s = reduce_sum(%f) {axes=[1]}
    output "0" = %s
  })");
}

TEST(Rows, IntegersAndBooleans) {
  expect_as_interpreted(R"(graph argmax {
    %x = input() {name="0"} : f16[9,70]
    %m = reduce_max(%x) {axes=[1]}
    %w = broadcast(%m) {shape=[9,70]}
    %e = eq(%x, %w)
    %k = iota() {shape=[9,70], axis=1}
    %n = constant() {value=i64[1,1](70)}
    %o = broadcast(%n) {shape=[9,70]}
    %c = select(%e, %k, %o)
    %y = reduce_min(%c) {axes=[1]}
    output "0" = %y
  })");
  for (const char* type : {"i64", "i32", "i8", "u8", "f64"})
    for (const char* op : {"reduce_sum", "reduce_max", "reduce_min"})
      for (int axis : {0, 1})
        expect_as_interpreted(std::string("graph whole {\n %x = input() {name=\"0\"} : ") + type + "[9,13]\n %y = " +
                                  op + "(%x) {axes=[" + std::to_string(axis) + "]}\n output \"0\" = %y\n}\n",
                              -1, 1, 9);
}

TEST(Reductions, OfNothingAndOfOne) {
  for (const char* op : {"reduce_sum", "reduce_max", "reduce_min"}) {
    for (const char* type : {"f32", "i32"})
      expect_as_interpreted(std::string("graph nothing {\n %x = input() {name=\"0\"} : ") + type +
                            "[3,0]\n %y = " + op + "(%x) {axes=[1]}\n output \"0\" = %y\n}\n");
    expect_as_interpreted(std::string("graph one {\n %x = input() {name=\"0\"} : f16[3,1,40]\n %y = ") + op +
                          "(%x) {axes=[1]}\n output \"0\" = %y\n}\n");
    expect_as_interpreted(std::string("graph empty {\n %x = input() {name=\"0\"} : f32[0,5]\n %y = ") + op +
                          "(%x) {axes=[1]}\n output \"0\" = %y\n}\n");
  }
}

TEST(Reductions, ExtremaKeepNan) {
  for (const char* axes : {"[0]", "[1]", "[0,1]"})
    for (const char* op : {"reduce_max", "reduce_min"}) {
      const RegionRunner runner(
          parse_graph(std::string("graph nan {\n %x = input() {name=\"0\"} : f16[50,40]\n %y = ") + op +
                      "(%x) {axes=" + axes + "}\n output \"0\" = %y\n}\n"));
      NamedTensors leaves = random_leaves(runner.region(), 1);
      leaves.at("0").set(777, NAN);
      expect_as_interpreted(runner, leaves);
    }
}

// Shifted sums and their epilogue: the statistics of a batch norm.
std::string statistics_text(const std::string& type, int64_t rows, int64_t channels) {
  const std::string full = shape({rows, channels}), row = shape({1, channels}), flat = shape({channels});
  const std::string inverse = std::to_string(1.0 / static_cast<double>(rows));
  return "graph statistics {\n %x = input() {name=\"0\"} : " + type + full +
         "\n %f = cast(%x) {to=f32}\n %k = slice(%f) {starts=[0,0], limits=" + row +
         ", steps=[1,1]}\n %w = broadcast(%k) {shape=" + full +
         "}\n %d = sub(%f, %w)\n %q = mul(%d, %d)\n %s = reduce_sum(%d) {axes=[0]}\n %t = reduce_sum(%q) {axes=[0]}\n"
         " %c = constant() {value=f32[1,1](" +
         inverse + ")}\n %n = broadcast(%c) {shape=" + row +
         "}\n %m = mul(%s, %n)\n %v = mul(%t, %n)\n %mm = mul(%m, %m)\n %var = sub(%v, %mm)\n %mean = add(%m, %k)\n"
         " %a = reshape(%mean) {shape=" +
         flat + "}\n %b = reshape(%var) {shape=" + flat + "}\n output \"0\" = %a\n output \"1\" = %b\n}\n";
}

TEST(Columns, StatisticsOfAnySize) {
  for (int64_t channels : {2, 3, 10, 32, 64, 100, 130})
    for (int64_t rows : {2, 33, 1000}) expect_as_interpreted(statistics_text("f16", rows, channels));
  for (const char* type : {"f32", "bf16"}) expect_as_interpreted(statistics_text(type, 20000, 10));
}

TEST(Columns, SeveralReductionsWithValuesOfThePrologue) {
  expect_as_interpreted(R"(graph backward {
    %x = input() {name="0"} : f16[6000,24]
    %d = input() {name="1"} : f16[6000,24]
    %z = constant() {value=f16[1,1](0)}
    %o = broadcast(%z) {shape=[6000,24]}
    %c = less(%o, %x)
    %g = select(%c, %d, %o)
    %h = cast(%g) {to=f32}
    %s = reduce_sum(%h) {axes=[0]}
    %m = reduce_max(%x) {axes=[0]}
    %n = reduce_min(%g) {axes=[0]}
    %b = reshape(%s) {shape=[24]}
    output "0" = %g
    output "1" = %b
    output "2" = %m
    output "3" = %n
  })",
                        -2, 2, 2, 40);
}

TEST(Columns, MiddleAxes) {
  for (const char* full : {"[3,500,7]", "[5,2,33]", "[2,40,30,6]"}) {
    const bool four = std::strlen(full) > 9;
    expect_as_interpreted(std::string("graph middle {\n %x = input() {name=\"0\"} : f32") + full +
                              "\n %s = reduce_sum(%x) {axes=" + (four ? "[1,2]" : "[1]") + "}\n output \"0\" = %s\n}\n",
                          -1, 1, 2, 4);
  }
}

TEST(Columns, FullReductionsGoThroughPartials) {
  const RegionRunner runner(parse_graph(R"(graph norm {
    %x = input() {name="0"} : f32[421642]
    %q = mul(%x, %x)
    %t = reduce_sum(%q) {axes=[0]}
    %s = sqrt(%t)
    %f = is_finite(%x)
    %g = cast(%f) {to=f32}
    %k = reduce_min(%g) {axes=[0]}
    %r = reshape(%k) {shape=[]}
    output "0" = %s
    output "1" = %r
  })"));
  ASSERT_EQ(runner.emitted().launches.size(), 2u);
  EXPECT_EQ(runner.emitted().partial_bytes.size(), 2u);
  EXPECT_GT(runner.emitted().launches[0].units, 8);
  NamedTensors leaves = random_leaves(runner.region(), 1);
  expect_as_interpreted(runner, leaves);
  leaves.at("0").set(421641, INFINITY);
  EXPECT_EQ(runner.run(leaves)[1].at(0), 0);
}

TEST(Columns, LongSumsStayAccurate) {
  // Ten million times 0.1: a single f32 accumulator is off by about 8 %.
  const RegionRunner runner(parse_graph(R"(graph sum {
    %x = input() {name="0"} : f32[1]
    %w = broadcast(%x) {shape=[10000000]}
    %s = reduce_sum(%w) {axes=[0]}
    output "0" = %s
  })"));
  const double sum = runner.run({{"0", Tensor::from_values({DType::f32, {1}}, {{0.1}})}})[0].at(0);
  EXPECT_NEAR(sum / (10000000.0 * static_cast<double>(0.1f)), 1, 1e-5);
}

TEST(Units, AnySplitGivesTheSameBits) {
  const std::vector<std::string> texts{statistics_text("f16", 5000, 48), softmax_text("f16", 77, 33),
                                       cross_entropy_text("f32", 130, 10),
                                       "graph sum {\n %x = input() {name=\"0\"} : f32[300000]\n %s = reduce_sum(%x) "
                                       "{axes=[0]}\n output \"0\" = %s\n}\n",
                                       "graph neg {\n %x = input() {name=\"0\"} : f16[3,70001]\n %y = neg(%x)\n output "
                                       "\"0\" = %y\n}\n"};
  for (const std::string& text : texts) {
    const RegionRunner runner(parse_graph(text));
    const NamedTensors leaves = random_leaves(runner.region(), 9, -2, 2, 10);
    const std::vector<Tensor> whole = runner.run(leaves);
    for (int64_t pieces : {2, 3, 7, 64}) EXPECT_EQ(runner.run(leaves, pieces), whole) << pieces << "\n" << text;
  }
}

}  // namespace
}  // namespace halfstep
