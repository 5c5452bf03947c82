// Constants are folded to the bits that kernels compute of them.
#include "ir/fold.h"

#include <algorithm>
#include <limits>

#include "ir/op.h"
#include "tests/codegen/compare.h"

namespace halfstep {
namespace {

// Around what doubles hold, and where types end; the low bytes of it in narrow types.
Tensor integers(DType dtype, bool reversed) {
  std::vector<int64_t> values{0, 1, -1, 2, 3, -7, 100, 127, -128, 255, 1 << 30, 0x7fffffff, -0x80000000ll};
  for (int64_t large : {int64_t{1} << 53, (int64_t{1} << 53) + 1, -(int64_t{1} << 53) - 1, int64_t{0x123456789abcdef}})
    values.push_back(large);
  values.push_back(std::numeric_limits<int64_t>::max());
  values.push_back(std::numeric_limits<int64_t>::min());
  if (reversed) std::ranges::reverse(values);
  const auto n = static_cast<int64_t>(values.size());
  Tensor t({dtype, {n * n}});
  const auto size = static_cast<size_t>(size_of(dtype));
  for (int64_t i = 0; i < n * n; ++i)  // every pair
    std::memcpy(t.data.data() + static_cast<size_t>(i) * size, &values[static_cast<size_t>(reversed ? i % n : i / n)],
                size);
  return t;
}

void expect_folded(const std::string& op, const std::string& attributes, const std::vector<Tensor>& operands) {
  std::string text = "graph f {\n", names;
  NamedTensors leaves;
  std::vector<const Tensor*> values;
  for (size_t i = 0; i < operands.size(); ++i) {
    const std::string number = std::to_string(i);
    text += " %" + number + " = input() {name=\"" + number + "\"} : " + to_string(operands[i].type) + "\n";
    names += (i > 0 ? ", %" : "%") + number;
    leaves[number] = operands[i];
    values.push_back(&operands[i]);
  }
  text += " %y = " + op + "(" + names + ") {" + attributes + "}\n output \"0\" = %y\n}\n";
  const Graph graph = parse_graph(text);
  const std::optional<std::vector<Tensor>> folded = fold_node(graph.node(graph.outputs()[0].value), values);
  ASSERT_TRUE(folded) << text;
  EXPECT_EQ(folded->front(), RegionRunner(graph).run(leaves)[0]) << text;
}

TEST(Fold, IntegersAreComputedAsKernelsDo) {
  for (DType dtype : {DType::i64, DType::i32, DType::i8, DType::u8}) {
    const Tensor x = integers(dtype, false), y = integers(dtype, true);
    for (const char* op : {"add", "sub", "mul", "div", "max", "min", "eq", "less", "less_equal"})
      expect_folded(op, "", {x, y});
    for (const char* to : {"i64", "i32", "i8", "u8", "bool", "f32", "f16"})
      expect_folded("cast", "to=" + std::string(to), {x});
  }
}

TEST(Fold, ValuesAreMovedAsTheyAre) {
  const Tensor x = integers(DType::i64, false), y = integers(DType::i64, true);
  const int64_t n = x.type.element_count();
  const std::string size = std::to_string(n);
  expect_folded("concat", "axis=0", {x, y});
  expect_folded("slice", "starts=[3], limits=[" + size + "], steps=[7]", {y});
  expect_folded("pad", "low=[2], high=[1], interior=[0], value=-7", {y});
  Tensor rows({DType::i64, {4}});
  for (int64_t i = 0; i < 4; ++i) rows.set(i, static_cast<double>(n - 1 - 3 * i));
  expect_folded("gather", "axis=0", {x, rows});
}

TEST(Fold, SumsBeyondDoublesAreLeft) {
  const Graph graph = parse_graph(
      "graph f {\n %x = input() {name=\"0\"} : i64[3]\n %y = reduce_sum(%x) {axes=[0]}\n output \"0\" = %y\n}\n");
  Tensor x({DType::i64, {3}});
  const std::vector<const Tensor*> operands{&x};
  const Node& sum = graph.node(graph.outputs()[0].value);
  for (int64_t& v : x.as<int64_t>()) v = 5;
  EXPECT_EQ(fold_node(sum, operands).value().front().at(0), 15);
  for (int64_t& v : x.as<int64_t>()) v = int64_t{1} << 52;
  EXPECT_FALSE(fold_node(sum, operands));
}

}  // namespace
}  // namespace halfstep
