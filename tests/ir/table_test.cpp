// Whole-table tests: every row is complete, and prints and parses.
#include <gtest/gtest.h>

#include "ir/op.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "tests/op_samples.h"

namespace halfstep {
namespace {

TEST(OpTable, EveryRowIsComplete) {
  for (const Op* row : all_ops()) {
    SCOPED_TRACE(row->name);
    EXPECT_NE(row->type, nullptr);
    EXPECT_NE(row->vjp == nullptr, row->not_differentiable.empty()) << "a vjp, or the reason why there is none";
    EXPECT_TRUE(row->body || row->kernel != KernelKind::pointwise);
    EXPECT_TRUE(row->expand || (row->kernel != KernelKind::composite && row->kernel != KernelKind::attention &&
                                row->kernel != KernelKind::recurrent));
    EXPECT_TRUE(is_leaf(*row) || row->body || row->expand || row->evaluate);
    EXPECT_EQ(row->leaf != Leaf::none, row->kernel == KernelKind::leaf);
    EXPECT_EQ(row->index_map != IndexMap::none, row->kernel == KernelKind::movement);
    const bool by_attributes = row->index_map >= IndexMap::same && row->index_map <= IndexMap::joined;
    EXPECT_EQ(row->reads != nullptr, by_attributes && row->index_map != IndexMap::row_major);
    EXPECT_EQ(find_op(row->name), row) << "the name is unique";
  }
}

TEST(OpTable, EveryOpHasASample) {
  for (const Op* row : all_ops()) {
    if (row->kernel == KernelKind::leaf || row->kernel == KernelKind::fused) continue;
    bool found = false;
    for (const OpSample& sample : op_samples()) found |= sample.op == row->name;
    EXPECT_TRUE(found) << row->name;
  }
}

TEST(OpTable, SamplesPrintAndParseBack) {
  for (const OpSample& sample : op_samples()) {
    const Graph graph = parse_graph(sample_text(sample, "f16"));
    verify(graph);
    EXPECT_EQ(print(parse_graph(print(graph))), print(graph));
  }
}

}  // namespace
}  // namespace halfstep
