// Random graphs with fixed seeds, each in one precision, for one CPU, in the forms of a CPU or the GPU and with or
// without memory in turn, and every case of cases/ in all precisions for all CPUs. Campaigns: tests/fuzz/campaign,
// docs/fuzzing.md.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "base/file.h"
#include "ir/op.h"
#include "tests/fuzz/case_text.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/random_graph.h"

namespace halfstep::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kGraphs = 2000, kShards = 20, kBatch = 20;

class RandomGraphs : public testing::TestWithParam<uint64_t> {};

TEST_P(RandomGraphs, ComputeWhatTheyMean) {
  const std::vector<std::optional<DType>> precisions{std::nullopt, DType::f16, DType::bf16};
  const std::vector<KernelTarget> targets = cpu_targets();
  const uint64_t first = GetParam() * kGraphs / kShards, last = (GetParam() + 1) * kGraphs / kShards;
  for (uint64_t at = first, batch = 0; at < last; at += kBatch, ++batch) {
    std::vector<FuzzCase> cases;
    for (uint64_t seed = at; seed < at + kBatch; ++seed) cases.push_back(random_case(seed));
    const uint64_t turn = GetParam() + batch;
    const std::vector<Checked> checked = check_cases(cases, {.targets = {targets[turn % targets.size()]},
                                                             .precisions = {precisions[turn % 3]},
                                                             .forms = turn % 4 < 2 ? TargetForms{} : kGpuForms,
                                                             .recomputes = turn / 4 % 2 == 0});
    for (size_t i = 0; i < cases.size(); ++i)
      for (const Failure& failure : checked[i].failures)
        ADD_FAILURE() << "seed " << at + i << ": " << to_string(failure) << "\n" << print_case(cases[i]);
  }
}
INSTANTIATE_TEST_SUITE_P(Fuzz, RandomGraphs, testing::Range(uint64_t{0}, kShards));

TEST(FuzzCases, ComputeWhatTheyMean) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(HALFSTEP_SOURCE_DIR) / "tests/fuzz/cases")) {
    const Checked checked = check_cases({parse_case(read_file(entry.path()))}, {.targets = cpu_targets()})[0];
    for (const Failure& failure : checked.failures) ADD_FAILURE() << entry.path() << ": " << to_string(failure);
    ++count;
  }
  EXPECT_GT(count, 3);
}

// Every op of the table stands in the graphs of the first seeds, but the leaves of training, `fused`, which fusion
// makes, what gradients alone make, and calls of libraries that stand for other ops.
TEST(RandomGraphs, HoldEveryOp) {
  std::set<std::string_view> seen;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const FuzzCase made = random_case(seed);
    for (const Node& node : made.graph.nodes()) seen.insert(node.op->name);
  }
  const std::set<std::string_view> made_later{"state",
                                              "fused",
                                              "max_pool_grad",
                                              "avg_pool_grad",
                                              "depthwise",
                                              "depthwise_data_grad",
                                              "convolution_filter_grad",
                                              "attention_grad"};
  for (const Op* op : all_ops()) {
    if (made_later.contains(op->name) || op->kernel == KernelKind::attention || op->kernel == KernelKind::recurrent)
      continue;
    EXPECT_TRUE(seen.contains(op->name)) << op->name;
  }
}

TEST(RandomGraphs, AreTheSameForTheSameSeed) {
  EXPECT_EQ(print_case(random_case(17)), print_case(random_case(17)));
  const std::string text = print_case(random_case(5));
  EXPECT_EQ(print_case(parse_case(text)), text);
}

}  // namespace
}  // namespace halfstep::fuzz
