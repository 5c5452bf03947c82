// The report on precision: rows, casts, totals, the schema of its JSON, and how it is printed.
#include <algorithm>
#include <map>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/json_schema.h"
#include "tests/data/data_files.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::vector<std::string> lines_of_text(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// Columns of UTF-8.
size_t columns_of(const std::string& line) {
  return static_cast<size_t>(
      std::ranges::count_if(line, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

class Inspect : public Cli {
 protected:
  json inspected(const Arguments& more = {}) const {
    Arguments arguments{"inspect", "m.onnx", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json::parse(succeed(arguments));
  }
  static json schema() {
    return json::parse(read_file(std::string(HALFSTEP_SOURCE_DIR) + "/docs/schemas/inspect.schema.json"));
  }
};

std::map<std::string, json> by_name(const json& nodes) {
  std::map<std::string, json> rows;
  for (const json& node : nodes) rows[node["node"]] = node;
  return rows;
}

TEST_F(Inspect, TheJsonIsOfItsSchema) {
  write("m.onnx", tiny_convnet());
  for (const Arguments& options : {Arguments{},
                                   {"--precision", "bf16"},
                                   {"--precision", "fp32"},
                                   {"--preset", "torch"},
                                   {"--optimizer", "adamw"},
                                   {"--device", "cuda"}})
    EXPECT_THAT(schema_problems(schema(), inspected(options)), IsEmpty()) << testing::PrintToString(options);
}

TEST_F(Inspect, PresetTorchHasItsForwardCastsToo) {
  write("m.onnx", tiny_mlp());
  const json casts = inspected({"--preset", "torch"})["casts"];
  EXPECT_TRUE(std::ranges::any_of(casts, [](const json& cast) { return cast["phase"] == "forward"; })) << casts;
}

TEST_F(Inspect, TheSchemaRefusesWhatIsNotIt) {
  write("m.onnx", tiny_mlp());
  json changed = inspected();
  changed["nodes"][0]["result"] = "f17", changed["schema_version"] = 0, changed["casts"][0].erase("from");
  EXPECT_EQ(schema_problems(schema(), changed).size(), 3u);
}

// A function, branches, a Constant, a weight that is one, a shape, and what no output needs.
TestModel every_fate() {
  TestModel m(17);
  m.proto.add_opset_import()->set_domain("local");
  m.proto.mutable_opset_import(1)->set_version(1);
  onnx::FunctionProto& function = *m.proto.add_functions();
  function.set_name("Block"), function.set_domain("local");
  *function.add_opset_import() = m.proto.opset_import(0);
  function.add_input("a"), function.add_output("c");
  *function.add_node() = node_proto("Relu", {"a"}, {"b"}, {}, "relu");
  *function.add_node() = node_proto("Neg", {"b"}, {"c"}, {}, "neg");
  m.input("x", {2, 4}).weight("bias", ramp({4}, -1, 0.3));
  m.node("Constant", {}, {"w"}, {{"value", ramp({4, 4}, -1, 0.1)}}, "stored");
  m.node("MatMul", {"x", "w"}, {"h"}, {}, "product").node("local.Block", {"h"}, {"g"}, {}, "block");
  m.node("Constant", {}, {"two"}, {{"value", floats({}, {2})}}, "number").node("Mul", {"g", "two"}, {"d"}, {}, "twice");
  m.node("Exp", {"d"}, {"nobody"}, {}, "dead");
  m.node("Shape", {"d"}, {"s"}, {}, "shape").node("Reshape", {"d", "s"}, {"r"}, {}, "reshape");
  m.node("Add", {"r", "bias"}, {"y"}, {}, "sum").output("y");
  return m;
}

TEST_F(Inspect, EveryNodeOfTheFileHasARow) {
  const TestModel model = every_fate();
  write("m.onnx", model);
  const json report = inspected();
  EXPECT_THAT(schema_problems(schema(), report), IsEmpty());
  std::vector<std::string> found, expected;
  for (const json& node : report["nodes"])
    if (node["fate"] != "added" && node["node"].get<std::string>().find('/') == std::string::npos)
      found.push_back(node["node"]);
  for (int i = 0; i < model.proto.graph().node_size(); ++i) {
    const onnx::NodeProto& node = model.proto.graph().node(i);
    expected.push_back(node.name());
  }
  EXPECT_EQ(found, expected);
  const auto rows = by_name(report["nodes"]);
  const std::map<std::string, std::string> fates{
      {"stored", "weight"},   {"product", "computed"}, {"block", "inlined"}, {"block/relu", "computed"},
      {"number", "constant"}, {"dead", "unused"},      {"shape", "folded"},  {"loss", "added"}};
  for (const auto& [node, fate] : fates) EXPECT_EQ(rows.at(node)["fate"], fate) << node;
  EXPECT_EQ(rows.at("dead")["result"], nullptr);
  EXPECT_THAT(
      succeed({"inspect", "m.onnx", "--only", "folded"}),
      AllOf(HasSubstr("unused: no output needs it"), HasSubstr("a weight of the model"), Not(HasSubstr("product"))));
}

// The Constant is a weight for the import, so that all behind it have other positions there.
TEST_F(Inspect, NodesWithoutNamesKeepTheirPlaces) {
  TestModel m(17);
  m.input("x", {2, 4}).node("Constant", {}, {"w"}, {{"value", ramp({4, 4}, -1, 0.1)}});
  m.node("MatMul", {"x", "w"}, {"a"}).node("Relu", {"a"}, {"b"}).node("Relu", {"b"}, {"c"}).node("Exp", {"c"}, {"d"});
  m.node("Relu", {"d"}, {"e"}).output("e");
  write("m.onnx", m);
  std::vector<std::string> found;
  const json report = inspected();
  for (const json& node : report["nodes"])
    found.push_back(std::string(node["operator"]) + " " + std::string(node["fate"]));
  EXPECT_THAT(found, ElementsAre("Constant weight", "MatMul computed", "Relu computed", "Relu computed", "Exp computed",
                                 "Relu computed", "softmax_cross_entropy added"));
}

TEST_F(Inspect, TypesComeAlongAPath) {
  write("m.onnx", tiny_mlp());
  const auto rows = by_name(inspected()["nodes"]);
  EXPECT_EQ(rows.at("fc1")["path"], json::array());
  const json relu = rows.at("relu");
  EXPECT_EQ(relu["path"], json::array({"fc1"}));
  EXPECT_EQ(relu["operands"][0]["name"], "fc1");
  const json weight = rows.at("fc1")["operands"][1];
  EXPECT_EQ(weight["type"], "f16");
  EXPECT_EQ(weight["cast_from"], "f32");
  EXPECT_THAT(succeed({"inspect", "m.onnx", "--nodes", "relu"}), HasSubstr("'relu' <- 'fc1' (contraction)"));
}

TEST_F(Inspect, BackwardAndUpdateHaveRows) {
  write("m.onnx", tiny_mlp());
  const json report = inspected();
  const auto backward = by_name(report["backward"]);
  for (const char* node : {"fc1", "relu", "fc2", "loss"}) EXPECT_TRUE(backward.contains(node)) << node;
  EXPECT_EQ(backward.at("fc2")["operand"], "f16");
  EXPECT_EQ(backward.at("fc2")["accumulator"], "f32");
  EXPECT_EQ(report["update"][0]["result"], "f32");
  EXPECT_THAT(succeed({"inspect", "m.onnx", "--only", "backward"}), HasSubstr("as forward: contraction"));
}

TEST_F(Inspect, CastsSayWhereTheyStandAndWhatTheyMove) {
  write("m.onnx", tiny_mlp());
  const json casts = inspected()["casts"];
  std::map<std::string, json> of;
  int64_t moved = 0;
  for (const json& cast : casts) {
    if (cast["phase"] == "forward") of[cast["from"]] = cast;
    moved += cast["moved_bytes"].get<int64_t>();
  }
  const json& weight = of.at("w1");
  EXPECT_EQ(weight["place"], "optimizer");
  EXPECT_EQ(weight["elements"], 32);
  EXPECT_EQ(weight["bytes"], 32 * 6);
  EXPECT_EQ(weight["moved_bytes"], 32 * 2);
  EXPECT_EQ(weight["at"], "fc1");
  EXPECT_EQ(weight["reason"], "'fc1' reads f16: contraction");
  EXPECT_EQ(of.at("x")["place"], "alone");
  EXPECT_EQ(inspected()["totals"]["cast_moved_bytes"], moved);
  EXPECT_EQ(inspected({"--precision", "fp32"})["casts"], json::array());
}

TEST_F(Inspect, LowActivationsTakeLessMemory) {
  write("m.onnx", tiny_convnet());
  const json totals = inspected({"--batch", "16"})["totals"];
  EXPECT_LT(totals["activation_bytes"], totals["activation_bytes_fp32"]);
  EXPECT_GT(totals["low_share"], 0.2);
  EXPECT_GT(totals["estimated_microseconds"], 0);
  const json wide = inspected({"--batch", "16", "--precision", "fp32"})["totals"];
  EXPECT_EQ(wide["activation_bytes"], totals["activation_bytes_fp32"]);
  EXPECT_EQ(wide["low_flops"], 0);
}

TEST_F(Inspect, WeightsBeyondTheRangeAreCounted) {
  TestModel m;
  m.input("x", {2, 4}).weight("w", floats({4, 2}, {1e5, 65504, 65519, 65520, 1e-9, 5e-5, 0, 1}));
  m.node("MatMul", {"x", "w"}, {"y"}, {}, "product").output("y");
  write("m.onnx", m);
  const json weight = inspected()["weights"][0];
  EXPECT_EQ(weight["overflow"], 2);
  EXPECT_EQ(weight["underflow"], 1);
  EXPECT_EQ(weight["subnormal"], 1);
  EXPECT_EQ(weight["largest"], 1e5);
  EXPECT_EQ(inspected({"--precision", "bf16"})["weights"][0]["overflow"], 0);
  EXPECT_THAT(succeed({"inspect", "m.onnx", "--only", "weights"}), HasSubstr("1 of 1 go beyond f16"));
}

TEST_F(Inspect, WithoutATrainingStepThereAreRowsToo) {
  write("m.onnx", tiny_mlp());
  const json report = inspected({"--no-decay", "none_of_them"});  // which the training step refuses
  EXPECT_THAT(schema_problems(schema(), report), IsEmpty());
  EXPECT_THAT(std::string(report["step_unknown"]), HasSubstr("none_of_them"));
  EXPECT_EQ(report["nodes"].size(), 5u);
  EXPECT_EQ(report["backward"], json::array());
}

TEST_F(Inspect, LinesFitTheTerminal) {
  TestModel m(17);
  m.input("x", {2, 4}).weight("w", ramp({4, 4}, -1, 0.1));
  const std::string scope = "/encoder/layers.11/attention/self/a_module_with_a_long_name/";
  m.node("MatMul", {"x", "w"}, {"h"}, {}, scope + "MatMul")
      .node("Relu", {"h"}, {"y"}, {}, scope + "aktivierung_äöü/Relu");
  m.output("y");
  write("m.onnx", m);
  for (const char* width : {"80", "120"}) {
    ::setenv("COLUMNS", width, 1);
    for (const std::string only : {"casts", "backward", "low", "weights"})
      for (const std::string& line : lines_of_text(succeed({"inspect", "m.onnx", "--only", only})))
        EXPECT_LE(columns_of(line), static_cast<size_t>(std::atoi(width))) << line;
  }
  EXPECT_THAT(succeed({"inspect", "m.onnx"}), HasSubstr("…"));
  ::unsetenv("COLUMNS");
  EXPECT_THAT(succeed({"inspect", "m.onnx"}), AllOf(HasSubstr(scope + "MatMul"), Not(HasSubstr("…"))));
}

size_t times_in(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST_F(Inspect, ThePageNeedsNothingElseAndNamesEndNoElement) {
  TestModel m(17);
  m.input("x", {2, 4}).weight("w", ramp({4, 4}, -1, 0.1));
  m.node("MatMul", {"x", "w"}, {"h"}, {}, "</script><b>evil").node("Relu", {"h"}, {"y"}, {}, "<!-- relu").output("y");
  write("m.onnx", m);
  succeed({"inspect", "m.onnx", "--html", "page.html"});
  const std::string page = read("page.html");
  EXPECT_EQ(times_in(page, "</script>"), 2u);
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<!--")), Not(HasSubstr("/*DATA*/")), Not(HasSubstr("src=")),
                          HasSubstr("\\u003c/script>\\u003cb>evil")));
}

TEST_F(Inspect, ModelExplorerGetsNodeData) {
  write("m.onnx", tiny_mlp());
  succeed({"inspect", "m.onnx", "--model-explorer", "data.json"});
  const json data = json::parse(read("data.json"));
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(read("m.onnx")));
  const json& results = data.at(model.graph().name()).at("results");
  EXPECT_EQ(results.size(), 4u);
  EXPECT_EQ(results.at("fc1").at("value"), "f16");
  EXPECT_EQ(std::string(results.at("fc1").at("bgColor"))[0], '#');
}

TEST_F(Inspect, AnAnnotatedModelHasTypesAndReasonsBesideItsNodes) {
  write("m.onnx", every_fate());
  succeed({"inspect", "m.onnx", "--annotate", "said.onnx"});
  succeed({"inspect", "said.onnx", "--annotate", "again.onnx"});
  EXPECT_EQ(read("said.onnx"), read("again.onnx"));
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(read("said.onnx")));
  EXPECT_GE(model.ir_version(), 10);
  for (const onnx::NodeProto& node : model.graph().node()) {
    const std::string bytes = node.SerializeAsString();
    EXPECT_THAT(bytes, AllOf(HasSubstr("halfstep.writes"), HasSubstr("halfstep.why"))) << node.name();
  }
  EXPECT_THAT(model.graph().node(1).SerializeAsString(), AllOf(HasSubstr("contraction"), HasSubstr("f16")));
}

TEST_F(Inspect, AnnotatedModelsStayBesideTheirWeights) {
  TestModel m = tiny_mlp();
  onnx::TensorProto& w = *m.proto.mutable_graph()->mutable_initializer(0);
  w.clear_raw_data();
  w.set_data_location(onnx::TensorProto::EXTERNAL);
  auto& entry = *w.add_external_data();
  entry.set_key("location"), entry.set_value("gone.data");
  write("m.onnx", m);
  std::filesystem::create_directory(path("elsewhere"));
  fail(1, {"inspect", "m.onnx", "--annotate", "elsewhere/said.onnx"}, {"into the same folder"});
  succeed({"inspect", "m.onnx", "--annotate", "said.onnx"});
}

TEST_F(Inspect, EvidenceIsForThePage) {
  write("m.onnx", tiny_mlp());
  fail(2, {"inspect", "m.onnx", "--evidence", "doctor.json"}, {"--html"});
  fail(1, {"inspect", "m.onnx", "--html", "page.html", "--evidence", "doctor.json"}, {"doctor.json"});
  write("doctor.json", "{\"tensors\": 7}");
  fail(1, {"inspect", "m.onnx", "--html", "page.html", "--evidence", "doctor.json"}, {"has no list 'tensors'"});
  write("doctor.json", "no");
  fail(1, {"inspect", "m.onnx", "--html", "page.html", "--evidence", "doctor.json"}, {"is no JSON"});
  write("doctor.json", "{\"tensors\": [{\"node\": \"fc1\", \"direction\": \"forward\"}, 3]}");
  succeed({"inspect", "m.onnx", "--html", "page.html", "--evidence", "doctor.json"});
}

TEST_F(Inspect, PatternsThatMatchNothingNameTheNearest) {
  write("m.onnx", tiny_mlp());
  fail(1, {"inspect", "m.onnx", "--nodes", "fc3"}, {"no node is called 'fc3'", "did you mean 'fc"});
  fail(2, {"inspect", "m.onnx", "--only", "cast"}, {"cast"});
}

TEST_F(Inspect, TellsOfRulesThatDecideNothing) {
  write("m.onnx", tiny_mlp());
  EXPECT_THAT(succeed({"inspect", "m.onnx", "--allow", "fc1", "--deny", "fc1"}),
              HasSubstr("allow list: 'fc1' decides nothing: deny list: 'fc1', which says fp32, stands behind it"));
}

TEST_F(Inspect, APolicyBeginsFromOnePreset) {
  write("m.onnx", tiny_mlp());
  write("a.toml", "version = 1\nextends = [\"torch\"]\n");
  write("b.toml", "version = 1\nextends = [\"a.toml\", \"tensorflow\"]\n");
  write("c.toml", "version = 1\nextends = [\"a.toml\", \"torch\"]\n");
  fail(1, {"inspect", "m.onnx", "--policy", "b.toml"},
       {"policy 'b.toml', line 2: extends: preset 'tensorflow' beside 'torch', which 'a.toml', line 2, extends"});
  succeed({"inspect", "m.onnx", "--policy", "c.toml"});
}

TEST_F(Inspect, ThePageIsWrittenOverNoFileOfTheUsers) {
  write("m.onnx", tiny_mlp());
  write("notes.html", "<html>mine</html>");
  for (const Arguments& command : {Arguments{"inspect", "m.onnx"}, Arguments{"doctor", "m.onnx", "--random", "1"}})
    fail(1, command + Arguments{"--html", "notes.html"}, {"'notes.html' is there, is no page of halfstep's"});
  fail(1, {"inspect", "m.onnx", "--html", "m.onnx"}, {"'m.onnx' is there"});
  EXPECT_EQ(read("notes.html"), "<html>mine</html>");
  succeed({"inspect", "m.onnx", "--html", "page.html"});
  succeed({"inspect", "m.onnx", "--html", "page.html"});
}

TEST_F(Inspect, CalibrationDataWithNaNSaysWhere) {
  write("m.onnx", tiny_mlp());
  std::string values;
  for (int i = 0; i < 8; ++i) append(values, i == 6 ? std::numeric_limits<float>::quiet_NaN() : 1.0f);
  write("c.npz", zip({{"x.npy", npy("<f4", "(2, 4)", values)}}));
  fail(1, {"inspect", "m.onnx", "--calibration-data", "c.npz"},
       {"calibration data 'c.npz': 'x' holds NaN (sample 1, element 2)"});
}

TEST_F(Inspect, WhatCalibrationMakesNaNIsNotCalledLarge) {
  TestModel m(17);
  m.input("x", {2, 4}).weight("w", ramp({4, 3}, -1, 0.2));
  m.node("Sqrt", {"x"}, {"r"}, {}, "root").node("MatMul", {"r", "w"}, {"y"}, {}, "product").output("y");
  write("m.onnx", m);
  std::string values;
  for (int i = 0; i < 8; ++i) append(values, i == 6 ? -1.0f : 1.0f);
  write("c.npz", zip({{"x.npy", npy("<f4", "(2, 4)", values)}}));
  const std::string out = succeed({"inspect", "m.onnx", "--calibration-data", "c.npz"});
  EXPECT_THAT(out, AllOf(HasSubstr("it writes NaN"), HasSubstr("it reads NaN"), Not(HasSubstr("more than"))));
}

}  // namespace
}  // namespace halfstep::test
