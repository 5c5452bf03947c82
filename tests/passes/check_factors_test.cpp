// An infinity or NaN anywhere is found in the factors exactly where it is found in the gradients.
#include "passes/training/check_factors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ir/interpret.h"
#include "ir/op.h"
#include "ir/text.h"

namespace halfstep {
namespace {

constexpr const char* kGraph = R"(
  graph train {
    %x = input() {name="x"} : f16[8,256]
    %d = input() {name="d"} : f16[8,128]
    %r = input() {name="r"} : f32[100]
    %g = matmul(%d, %x) {transpose_a=1, result="f32"}
    %c = cast(%d) {to=f32}
    %b = reduce_sum(%c) {axes=[0]}
    %g1 = reshape(%g) {shape=[32768]}
    %b1 = reshape(%b) {shape=[128]}
    %all = concat(%g1, %b1, %r) {axis=0}
    %finite = is_finite(%all)
    %z = constant() {value=f32[1](0)}
    %zeros = broadcast(%z) {shape=[32996]}
    %o = constant() {value=f32[1](1)}
    %ones = broadcast(%o) {shape=[32996]}
    %bad = select(%finite, %zeros, %ones)
    %most = reduce_max(%bad) {axes=[0]}
    output "overflow" = %most
  })";

TEST(CheckFactors, FindsWhatTheGradientsWouldShow) {
  const Graph before = parse_graph(kGraph), after = check_factors(before);
  const auto products = [](const Graph& graph) {
    int count = 0;
    for (const Node& node : graph.nodes()) count += node.op->kernel == KernelKind::gemm;
    return count;
  };
  ASSERT_EQ(products(before), 1);
  ASSERT_EQ(products(after), 0) << "nothing else reads the product";
  // All zeros, f16's largest values of both signs, and one bad element in each leaf, at both ends.
  struct Case {
    const char* leaf;
    double value;
  };
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan(""), largest = 65504;
  for (const double everywhere : {0.0, largest, -largest})
    for (const Case& c :
         {Case{"x", 1}, Case{"x", inf}, Case{"x", nan}, Case{"d", -inf}, Case{"d", nan}, Case{"r", inf}})
      for (const bool last : {false, true}) {
        NamedTensors leaves{{"x", Tensor({DType::f16, {8, 256}})},
                            {"d", Tensor({DType::f16, {8, 128}})},
                            {"r", Tensor({DType::f32, {100}})}};
        for (auto& [name, tensor] : leaves)
          for (int64_t i = 0; i < tensor.type.element_count(); ++i) tensor.set(i, everywhere);
        Tensor& bad = leaves.at(c.leaf);
        bad.set(last ? bad.type.element_count() - 1 : 0, c.value);
        const double expected = interpret(before, leaves).outputs.at("overflow").values[0];
        EXPECT_EQ(expected, std::isfinite(c.value) ? 0 : 1);
        EXPECT_EQ(interpret(after, leaves).outputs.at("overflow").values[0], expected)
            << c.value << " in " << c.leaf << " of " << everywhere;
      }
}

}  // namespace
}  // namespace halfstep
