// Sequences, optionals, branches and loops, which exist while importing only: small graphs around each operator.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "frontend/import/operators.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

struct ListCase {
  std::vector<onnx::NodeProto> nodes;  // of x = [1 2 3 4], y = [10 20 30 40] and constants zero, one, two, yes
  std::vector<double> result;          // of "r"
};

onnx::GraphProto body(const std::vector<std::string>& inputs, const std::vector<onnx::NodeProto>& nodes,
                      const std::vector<std::string>& outputs) {
  onnx::GraphProto graph;
  graph.set_name("body");
  for (const std::string& name : inputs) graph.add_input()->set_name(name);
  for (const onnx::NodeProto& node : nodes) *graph.add_node() = node;
  for (const std::string& name : outputs) graph.add_output()->set_name(name);
  return graph;
}

// A running sum, also as a scan output.
const onnx::GraphProto kAddX = body({"i", "go", "sum"},
                                    {node_proto("Add", {"sum", "x"}, {"next"}), node_proto("Identity", {"go"}, {"on"}),
                                     node_proto("Identity", {"next"}, {"seen"})},
                                    {"on", "next", "seen"});
const onnx::GraphProto kRunning =
    body({"sum", "e"}, {node_proto("Add", {"sum", "e"}, {"next"}), node_proto("Identity", {"next"}, {"seen"})},
         {"next", "seen"});
const onnx::GraphProto kDouble = body({"e"}, {node_proto("Add", {"e", "e"}, {"d"})}, {"d"});
const onnx::GraphProto kPair = body({}, {node_proto("SequenceConstruct", {"x", "y"}, {"pair"})}, {"pair"});
const onnx::GraphProto kNone = body({}, {node_proto("SequenceEmpty", {}, {"none"})}, {"none"});

const onnx::NodeProto kMakePair = node_proto("SequenceConstruct", {"x", "y"}, {"s"});

std::vector<ListCase> cases() {
  return {
      {{kMakePair, node_proto("SequenceAt", {"s", "one"}, {"r"})}, {10, 20, 30, 40}},
      {{kMakePair, node_proto("Identity", {"s"}, {"t"}), node_proto("SequenceLength", {"t"}, {"r"})}, {2}},
      {{node_proto("SequenceEmpty", {}, {"s"}), node_proto("SequenceInsert", {"s", "x"}, {"t"}),
        node_proto("SequenceInsert", {"t", "y", "zero"}, {"u"}), node_proto("SequenceAt", {"u", "zero"}, {"r"})},
       {10, 20, 30, 40}},
      {{kMakePair, node_proto("SequenceErase", {"s", "zero"}, {"t"}), node_proto("SequenceAt", {"t", "zero"}, {"r"})},
       {10, 20, 30, 40}},
      {{node_proto("SplitToSequence", {"x", "two"}, {"s"}), node_proto("SequenceAt", {"s", "one"}, {"r"})}, {3, 4}},
      {{node_proto("SplitToSequence", {"x"}, {"s"}, {{"keepdims", int64_t{0}}}),
        node_proto("ConcatFromSequence", {"s"}, {"r"}, {{"axis", int64_t{0}}, {"new_axis", int64_t{1}}})},
       {1, 2, 3, 4}},
      {{kMakePair, node_proto("ConcatFromSequence", {"s"}, {"r"}, {{"axis", int64_t{-1}}})},
       {1, 2, 3, 4, 10, 20, 30, 40}},
      {{node_proto("Optional", {"x"}, {"o"}), node_proto("OptionalGetElement", {"o"}, {"r"})}, {1, 2, 3, 4}},
      {{node_proto("Optional", {}, {"o"}), node_proto("OptionalHasElement", {"o"}, {"r"})}, {0}},
      {{node_proto("If", {"yes"}, {"s"}, {{"then_branch", kPair}, {"else_branch", kNone}}),
        node_proto("SequenceLength", {"s"}, {"r"})},
       {2}},
      {{node_proto("Loop", {"two", "yes", "x"}, {"last", "r"}, {{"body", kAddX}})}, {2, 4, 6, 8, 3, 6, 9, 12}},
      {{node_proto("Scan", {"zero_f", "x"}, {"last", "r"}, {{"body", kRunning}, {"num_scan_inputs", int64_t{1}}})},
       {1, 3, 6, 10}},
      {{node_proto("Scan", {"zero_f", "x"}, {"last", "r"},
                   {{"body", kRunning}, {"num_scan_inputs", int64_t{1}}, {"scan_input_directions", Ints{1}}})},
       {4, 7, 9, 10}},
      {{kMakePair, node_proto("SequenceMap", {"s"}, {"t"}, {{"body", kDouble}}),
        node_proto("SequenceAt", {"t", "one"}, {"r"})},
       {20, 40, 60, 80}},
  };
}

TestModel model_of(const ListCase& c) {
  TestModel model(18);
  model.input("x", {4}).input("y", {4});
  for (int64_t i = 0; i < 3; ++i)
    model.weight(std::vector<std::string>{"zero", "one", "two"}[static_cast<size_t>(i)],
                 Tensor::scalar(DType::i64, static_cast<double>(i)));
  model.weight("yes", Tensor::scalar(DType::boolean, 1)).weight("zero_f", Tensor::scalar(DType::f32, 0));
  for (const onnx::NodeProto& node : c.nodes) *model.proto.mutable_graph()->add_node() = node;
  return model.output("r");
}

const NamedTensors kInputs{{"x", ramp({4}, 1)}, {"y", ramp({4}, 10, 10)}};

TEST(Lists, ComputeWhatOnnxSays) {
  for (const ListCase& c : cases()) {
    SCOPED_TRACE(c.nodes.back().op_type());
    EXPECT_EQ(evaluate(model_of(c), kInputs).at("r"), c.result);
  }
}

TEST(Lists, EveryRowHasACase) {
  std::set<std::string, std::less<>> tried;
  for (const ListCase& c : cases())
    for (const onnx::NodeProto& node : c.nodes) tried.insert(node.op_type());
  for (const OnnxOperator* row : onnx_operators())
    EXPECT_TRUE(!row->bind || tried.contains(row->name)) << row->name << " has no case in lists_test.cpp";
}

std::string error_of(const std::vector<onnx::NodeProto>& nodes) { return import_error(model_of({nodes, {}})); }

TEST(Lists, AnUnknownTripCountIsRefusedByName) {
  const std::string error =
      error_of({node_proto("ArgMax", {"x"}, {"trips"}, {{"keepdims", int64_t{0}}}),
                node_proto("Loop", {"trips", "yes", "x"}, {"last", "r"}, {{"body", kAddX}}, "steps")});
  EXPECT_EQ(error,
            "node Loop 'steps': operand trip count 'trips' must be known when the model is compiled, but it depends on "
            "the data");
}

TEST(Lists, AnEndlessLoopIsRefusedByName) {
  const onnx::GraphProto idle = body({"i", "go", "state"}, {}, {"go", "state"});
  EXPECT_EQ(error_of({node_proto("Loop", {"", "yes", "x"}, {"r"}, {{"body", idle}}, "forever")}),
            "node 'forever': more than 50000 iterations of all loops together (max_iterations)");
}

TEST(Lists, EmptyLoopsInLoopsCountTogether) {
  const onnx::GraphProto inner = body({"j", "again", "inner_state"}, {}, {"again", "inner_state"});
  const onnx::GraphProto outer =
      body({"i", "go", "state"}, {node_proto("Loop", {"many", "go", "state"}, {"next"}, {{"body", inner}}, "inner")},
           {"go", "next"});
  EXPECT_THAT(error_of({node_proto("Constant", {}, {"many"}, {{"value_int", int64_t{50000}}}),
                        node_proto("Loop", {"many", "yes", "x"}, {"r"}, {{"body", outer}}, "outer")}),
              testing::HasSubstr("iterations of all loops together"));
}

TEST(Lists, ATensorIsNoSequence) {
  EXPECT_EQ(error_of({node_proto("SequenceLength", {"x"}, {"r"}, {}, "count")}),
            "node SequenceLength 'count': operand 'x': a sequence expected, found a tensor");
  EXPECT_EQ(error_of({kMakePair, node_proto("Relu", {"s"}, {"r"}, {}, "act")}),
            "node Relu 'act': operand 's': a tensor expected, found a sequence");
  EXPECT_EQ(error_of({kMakePair, node_proto("SequenceAt", {"s", "two"}, {"r"}, {}, "third")}),
            "node SequenceAt 'third': position 2 is outside a sequence of 2");
}

}  // namespace
}  // namespace halfstep::test
