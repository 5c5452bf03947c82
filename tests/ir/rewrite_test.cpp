// Rewritten graphs and the nodes they share.
#include <gtest/gtest.h>

#include "ir/builder.h"
#include "ir/text.h"

namespace halfstep {
namespace {

constexpr const char* kChain = R"(graph chain {
  %0 = input() {name="x"} : f32[2]
  %1 = relu(%0) : f32[2] @"a"
  %2 = exp(%1) : f32[2] @"b"
  %3 = tanh(%2) : f32[2] @"c"
  output "y" = %3
}
)";

TEST(Rewrite, AGraphThatStaysTheSameSharesItsNodes) {
  const Graph graph = parse_graph(kChain);
  const Graph same = rewrite(graph, [](Builder& b, const Node& node, std::span<const Value> operands) {
    return b.call_all(*node.op, {operands.begin(), operands.end()}, node.attributes);
  });
  EXPECT_EQ(same.nodes().data(), graph.nodes().data());
  EXPECT_EQ(print(same), kChain);
}

// What was made before the first difference is found again behind it.
TEST(Rewrite, ADifferentNodeLeavesTheGraphThatWasFollowed) {
  const Graph graph = parse_graph(kChain);
  const Graph changed = rewrite(graph, [](Builder& b, const Node& node, std::span<const Value> operands) {
    if (node.op->name != "tanh") return std::vector<Value>();
    const Value again = b.unary("exp", b.unary("relu", b.graph().node(operands[0]).operands[0]));
    return std::vector<Value>{b.add(b.unary("relu", Value{0, 0}), again)};
  });
  EXPECT_EQ(print(graph), kChain);
  EXPECT_EQ(print(changed), R"(graph chain {
  %0 = input() {name="x"} : f32[2]
  %1 = relu(%0) : f32[2] @"a"
  %2 = relu(%1) : f32[2] @"c"
  %3 = exp(%2) : f32[2] @"c"
  %4 = add(%1, %3) : f32[2] @"c"
  output "y" = %4
}
)");
}

TEST(Rewrite, WhatNothingReadsAnyMoreIsDroppedFromACopy) {
  const Graph graph = parse_graph(kChain);
  const Graph shorter = rewrite(graph, [](Builder&, const Node& node, std::span<const Value> operands) {
    return node.op->name == "tanh" ? std::vector<Value>{operands[0]} : std::vector<Value>();
  });
  EXPECT_EQ(print(graph), kChain);
  EXPECT_EQ(shorter.size(), 3);
  EXPECT_EQ(shorter.output("y"), (Value{2, 0}));
}

}  // namespace
}  // namespace halfstep
