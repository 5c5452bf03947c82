// Every node of every model of models/ has one row, by its name and in the file's order.
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <filesystem>

#include "base/file.h"
#include "compiler/inspect/inspection.h"
#include "compiler/inspect/scopes.h"

namespace halfstep {
namespace {

TEST(Inspect, EveryNodeOfEveryModelHasOneRow) {
  size_t models = 0, nodes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(HALFSTEP_SOURCE_DIR "/models")) {
    if (entry.path().extension() != ".onnx") continue;
    Recipe recipe;
    recipe.model = entry.path(), recipe.device = "cpu";
    onnx::ModelProto model;
    ASSERT_TRUE(model.ParseFromString(read_file(entry.path())));
    std::vector<std::string> expected, found;
    for (int i = 0; i < model.graph().node_size(); ++i) {
      const onnx::NodeProto& node = model.graph().node(i);
      expected.push_back(node.name().empty() ? node.op_type() + "_" + std::to_string(i) : node.name());
    }
    Inspection report;
    try {
      report = inspect(recipe, {});
    } catch (const Error&) {  // one that is refused is the families' tests' business
      continue;
    }
    for (const InspectedNode& node : report.nodes)
      if (node.fate != Fate::added) found.push_back(node.origin.name);
    EXPECT_EQ(found, expected) << entry.path();
    EXPECT_EQ(report.step_unknown, "") << entry.path();
    for (const InspectedNode& node : report.nodes) {
      EXPECT_NE(node.reason, "") << entry.path() << ": " << *node.origin.name;
      EXPECT_EQ(node.reason.find("follows '" + *node.origin.name + "'"), std::string::npos)
          << entry.path() << ": " << *node.origin.name << " follows itself";
    }
    int64_t kept = 0;
    for (const auto* rows : {&report.nodes, &report.backward, &report.update})
      for (const InspectedNode& node : *rows) kept += node.cost.kept_bytes;
    EXPECT_EQ(kept, report.totals.kept_bytes) << entry.path();
    // A minimum cut says what the least is; only recurrent networks, which preset torch leaves in f32, have more casts
    // than it.
    const InspectionTotals& totals = report.totals;
    EXPECT_EQ(totals.least_forward_cast_bytes, totals.forward_cast_bytes) << entry.path();
    const std::string name = entry.path().filename();
    if (!name.starts_with("lstm") && !name.starts_with("gru")) {
      EXPECT_LE(totals.forward_cast_bytes, totals.forward_cast_bytes_torch) << entry.path();
    }
    ++models, nodes += found.size();
  }
  EXPECT_GE(models, 80u);
  EXPECT_GE(nodes, 2000u);
}

// What PyTorch's default exporter writes beside nodes whose names say nothing.
TEST(Inspect, ASubgraphOfAPolicyIsAModuleThatTheExporterNamed) {
  Recipe recipe;
  recipe.model = HALFSTEP_SOURCE_DIR "/models/families/bert.fresh.onnx", recipe.device = "cpu";
  recipe.policy = HALFSTEP_SOURCE_DIR "/tests/references/presets/subgraph.toml";
  size_t decided = 0;
  for (const InspectedNode& node : inspect(recipe, {}).nodes) {
    const bool by_rule = node.rule.find("subgraph.toml") != std::string::npos;
    decided += by_rule;
    EXPECT_TRUE(!by_rule || node.module.starts_with("m.bert.encoder.layer.0")) << *node.origin.name;
    if (node.module == "m.bert.encoder.layer.0.intermediate.dense" && node.fate == Fate::computed) {
      EXPECT_EQ(node.result, DType::f32) << *node.origin.name;
    }
  }
  EXPECT_GE(decided, 10u);
}

TEST(Inspect, ScopesComeOfModulesPathsOrWeights) {
  EXPECT_EQ(scope_of("node_linear", "encoder.layer.0.attention"), "encoder/layer.0/attention");
  EXPECT_EQ(scope_of("/encoder/layer.0/MatMul", ""), "encoder/layer.0");
  EXPECT_EQ(scope_of("/features/features.2/conv/conv.1/conv.1.2/Clip", ""), "features/features.2/conv/conv.1/conv.1.2");
  EXPECT_EQ(scope_of("Conv_3", ""), "");
  const std::vector<std::string> weights{"", "e.0.fc.weight", "", "e.0.norm.bias", "", "e.1.fc.weight",
                                         "", "head.weight",   ""};
  EXPECT_EQ(scopes_of_weights(weights),
            (std::vector<std::string>{"", "e.0/fc", "e.0", "e.0/norm", "", "e.1/fc", "", "head", ""}));
}

}  // namespace
}  // namespace halfstep
