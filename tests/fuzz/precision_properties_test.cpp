// What autocast promises of every graph, on random ones.
#include <gtest/gtest.h>

#include "ir/op.h"
#include "ir/text.h"
#include "passes/precision/autocast.h"
#include "tests/fuzz/random_graph.h"

namespace halfstep::fuzz {
namespace {

constexpr uint64_t kGraphs = 10000, kShards = 4, kFirst = 5'000'000;

class PrecisionProperties : public testing::TestWithParam<uint64_t> {
 protected:
  static void for_each_graph(const std::function<void(uint64_t, const Graph&)>& visit) {
    for (uint64_t seed = kFirst + GetParam() * kGraphs / kShards; seed < kFirst + (GetParam() + 1) * kGraphs / kShards;
         ++seed)
      visit(seed, random_case(seed).graph);
  }
};

bool is_castable_type(DType type) { return type == DType::f32 || is_low(type); }

bool may_cast(const Node& node, size_t operand) {
  const std::vector<OperandSpec>& specs = node.op->operands;
  return node.operands[operand] && specs[std::min(operand, specs.size() - 1)].cast == OperandSpec::castable;
}

// A node that computes and that a rule by its operator decides.
const Op* denied_op(const Graph& graph, uint64_t seed) {
  std::vector<const Op*> ops;
  for (const Node& node : graph.nodes())
    if (!is_leaf(*node.op) && !node.op->operands.empty() && node.op->name != "cast" &&
        is_castable_type(node.results[0].dtype))
      ops.push_back(node.op);
  return ops.empty() ? nullptr : ops[seed % ops.size()];
}

TEST_P(PrecisionProperties, ADeniedOperatorReadsAndWritesF32) {
  for_each_graph([](uint64_t seed, const Graph& graph) {
    const Op* denied = denied_op(graph, seed);
    if (!denied) return;
    for (const char* preset : {"halfstep", "torch", "tensorflow", "apex-o1", "apex-o3"}) {
      const Graph cast = autocast(graph, {.preset = preset, .rules = {deny_rule(std::string(denied->name))}});
      for (const Node& node : cast.nodes()) {
        if (node.op != denied) continue;
        for (size_t i = 0; i < node.operands.size(); ++i)
          if (may_cast(node, i)) {
            ASSERT_FALSE(is_low(cast.type(node.operands[i]).dtype))
                << preset << ", seed " << seed << ": " << denied->name << "\n"
                << print(cast);
          }
      }
    }
  });
}

TEST_P(PrecisionProperties, AppliedTwiceItChangesNothing) {
  for_each_graph([](uint64_t seed, const Graph& graph) {
    for (const char* preset : {"halfstep", "torch", "apex-o1"}) {
      const AutocastOptions options{.low = seed % 2 ? DType::f16 : DType::bf16, .preset = preset};
      const Graph once = autocast(graph, options);
      ASSERT_EQ(print(autocast(once, options)), print(once)) << preset << ", seed " << seed << "\n" << print(graph);
    }
  });
}

TEST_P(PrecisionProperties, CastsAreTheLeast) {
  for_each_graph([](uint64_t seed, const Graph& graph) {
    AutocastNotes notes;
    autocast(graph, {}, nullptr, &notes);
    ASSERT_EQ(notes.least_cast_bytes, notes.cast_bytes) << "seed " << seed << "\n" << print(graph);
  });
}

INSTANTIATE_TEST_SUITE_P(Fuzz, PrecisionProperties, testing::Range(uint64_t{0}, kShards));

}  // namespace
}  // namespace halfstep::fuzz
