// One test for every mistake a model file can have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string file_error(const std::string& bytes) {
  try {
    import_model({"m.onnx", bytes, "."});
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// x [2, 3] times w [3, 4].
TestModel linear() {
  TestModel model;
  return model.input("x", {2, 3}).weight("w", ramp({3, 4})).node("MatMul", {"x", "w"}, {"y"}, {}, "fc").output("y");
}

TEST(ModelErrors, EmptyFile) { EXPECT_THAT(file_error(""), HasSubstr("'m.onnx': the file is empty")); }

TEST(ModelErrors, TextFile) {
  EXPECT_THAT(file_error("def forward(self, x):\n  return x\n"), HasSubstr("this is a text file"));
}

TEST(ModelErrors, GitLfsPointer) {
  EXPECT_THAT(file_error("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), HasSubstr("Git LFS pointer"));
}

TEST(ModelErrors, EveryTruncation) {
  const std::string whole = linear().file().bytes;
  for (size_t size = 1; size < whole.size(); ++size)
    EXPECT_NE(file_error(whole.substr(0, size)), "no error") << size << " of " << whole.size() << " bytes";
}

TEST(ModelErrors, MissingFileAndDirectory) {
  EXPECT_THROW(read_onnx_file("no/such/model.onnx"), Error);
  EXPECT_THROW(read_onnx_file("."), Error);
}

TEST(ModelErrors, EmptyGraph) {
  EXPECT_THAT(import_error(TestModel().input("x", {1}).output("x")), HasSubstr("the graph is empty"));
}

TEST(ModelErrors, AttributesForgeNoLine) {
  const std::string error = import_error(TestModel()
                                             .input("x", {1, 1, 2})
                                             .node("Pad", {"x"}, {"y"}, {{"mode", std::string("a\nhalfstep: trained")}})
                                             .output("y"));
  EXPECT_THAT(error, AllOf(HasSubstr("a\\u000ahalfstep: trained"), Not(HasSubstr("\n"))));
}

TEST(ModelErrors, AnOutputThatCanBeReadAloneIsProposed) {
  TestModel model = linear();
  model.node("Unheard", {"y"}, {"label"}).output("label");
  EXPECT_THAT(import_error(model),
              AllOf(HasSubstr("Unheard"), HasSubstr("output 'y' needs none of this: choose it with --output y")));
}

TEST(ModelErrors, UnsignedIntegersAreExactOrRefused) {
  const auto model = [](uint64_t element) {
    onnx::TensorProto tensor;
    tensor.set_name("w");
    tensor.set_data_type(onnx::TensorProto::UINT64);
    tensor.add_dims(2);
    tensor.add_uint64_data(7), tensor.add_uint64_data(element);
    TestModel m;
    m.input("x", {2}, onnx::TensorProto::INT64);
    *m.proto.mutable_graph()->add_initializer() = tensor;
    return m.node("Cast", {"w"}, {"y"}, {{"to", int64_t{onnx::TensorProto::INT64}}}).output("y");
  };
  constexpr uint64_t kLargest = (uint64_t{1} << 63) - 1;
  const ImportedModel read = import_model(model(kLargest - 2).file(), {.mode = ImportMode::as_exported});
  const Node& made = read.graph.node(read.graph.outputs()[0].value);
  ASSERT_EQ(made.op->name, "constant");
  EXPECT_EQ(made.attributes.tensor("value").as<int64_t>()[1], static_cast<int64_t>(kLargest - 2));
  EXPECT_THAT(import_error(model(kLargest + 1)),
              HasSubstr("tensor 'w': element 1 is 9223372036854775808: integers of 2^63 and more are not supported"));
}

TEST(ModelErrors, NoOutputs) {
  EXPECT_THAT(import_error(TestModel().input("x", {1}).node("Relu", {"x"}, {"y"})), HasSubstr("has no outputs"));
}

TEST(ModelErrors, OpsetTooOldTooNewOrAbsent) {
  TestModel model = linear();
  model.proto.mutable_opset_import(0)->set_version(6);
  EXPECT_THAT(import_error(model), HasSubstr("opset 6 is not supported: 7 to 28 are"));
  model.proto.mutable_opset_import(0)->set_version(99);
  EXPECT_THAT(import_error(model), HasSubstr("opset 99 is not supported"));
  model.proto.clear_opset_import();
  EXPECT_THAT(import_error(model), HasSubstr("names no opset version"));
}

TEST(ModelErrors, EveryUnknownOperatorIsListedOnceWithItsNodes) {
  TestModel model;
  model.input("x", {2});
  model.node("Foo", {"x"}, {"a"}, {}, "first").node("Foo", {"a"}, {"b"}, {}, "second");
  model.node("com.acme.Bar", {"b"}, {"c"}, {}, "third").node("Gelu", {"c"}, {"d"}, {}, "fourth").output("d");
  const std::string error = import_error(model);
  EXPECT_THAT(error,
              HasSubstr("operator Foo is not supported; rewrite the model without it (nodes 'first', 'second')"));
  EXPECT_THAT(error, HasSubstr("operator com.acme.Bar is not supported; rewrite the model without it (node 'third')"));
  EXPECT_THAT(error, HasSubstr("operator Gelu is not in opset 17 but from opset 20 on"));
}

TEST(ModelErrors, ProblemsOfSeveralNodesAreReportedTogether) {
  TestModel model;
  model.input("x", {2, 3}).weight("w", ramp({4, 4}));
  model.node("MatMul", {"x", "w"}, {"y"}, {}, "fc").node("Relu", {"y"}, {"behind"}, {}, "behind");
  model.node("Reshape", {"x", "s"}, {"z"}, {}, "view").weight("s", ints({1}, {7})).output("behind").output("z");
  const std::string error = import_error(model);
  EXPECT_THAT(error, HasSubstr("node MatMul 'fc': inner dimensions differ: 3 and 4"));
  EXPECT_THAT(error, HasSubstr("node Reshape 'view': [2,3] cannot be reshaped to [7]"));
  EXPECT_THAT(error, Not(HasSubstr("Relu"))) << "what only depends on a bad node is not a problem of its own";
}

TEST(ModelErrors, MissingInitializer) {
  TestModel model = linear();
  model.proto.mutable_graph()->clear_initializer();
  EXPECT_THAT(import_error(model), HasSubstr("node MatMul 'fc': operand 'w' is nowhere defined"));
}

TEST(ModelErrors, MissingOutput) {
  EXPECT_THAT(import_error(linear().output("z")), HasSubstr("output 'z' is nowhere defined"));
}

TEST(ModelErrors, ValueDefinedTwice) {
  EXPECT_THAT(import_error(linear().node("Relu", {"x"}, {"y"}, {}, "again")),
              HasSubstr("value 'y' is defined twice: again by node Relu 'again'"));
  EXPECT_THAT(import_error(linear().weight("w", ramp({1}))),
              HasSubstr("value 'w' is defined twice: by two initializers"));
  EXPECT_THAT(import_error(linear().input("x", {1})), HasSubstr("value 'x' is defined twice: again by an input"));
}

TEST(ModelErrors, Cycle) {
  TestModel model;
  model.input("x", {2}).node("Add", {"x", "c"}, {"a"}, {}, "one").node("Relu", {"a"}, {"b"}, {}, "two");
  model.node("Relu", {"b"}, {"c"}, {}, "three").node("Relu", {"c"}, {"y"}, {}, "behind").output("y");
  EXPECT_THAT(import_error(model), HasSubstr("in a cycle: Add 'one', Relu 'two', Relu 'three'"));
  EXPECT_THAT(import_error(model), Not(HasSubstr("behind")));
}

TEST(ModelErrors, UnorderedNodesAreSortedWithARemark) {
  TestModel model;
  model.input("x", {2}).node("Relu", {"a"}, {"y"}).node("Neg", {"x"}, {"a"}).output("y");
  const ImportedModel imported = import_model(model.file(), {.mode = ImportMode::as_exported});
  EXPECT_THAT(imported.remarks, ::testing::Contains(HasSubstr("not in order of use")));
  EXPECT_EQ(evaluate(model, {{"x", floats({2}, {-1, 1})}}).at("y"), (std::vector<double>{1, 0}));
}

TEST(ModelErrors, NothingToTrain) {
  TestModel model;
  model.input("x", {2}, onnx::TensorProto::INT64).weight("w", ints({2}, {1, 2}));
  model.node("Add", {"x", "w"}, {"y"}).output("y");
  EXPECT_THAT(import_error(model, {}), HasSubstr("'test.onnx' has nothing to train"));
}

TEST(ModelErrors, TensorDataDisagreesWithItsShape) {
  TestModel model = linear();
  model.proto.mutable_graph()->mutable_initializer(0)->mutable_raw_data()->resize(40);
  EXPECT_THAT(import_error(model), HasSubstr("tensor 'w': 40 bytes of data, 48 expected for float32[3,4]"));
}

TEST(ModelErrors, TensorSizeOverflows) {
  TestModel model = linear();
  onnx::TensorProto& w = *model.proto.mutable_graph()->mutable_initializer(0);
  w.set_dims(0, int64_t{1} << 40), w.set_dims(1, int64_t{1} << 40);
  EXPECT_THAT(import_error(model), HasSubstr("tensor 'w': size overflows 64 bits"));
  w.set_dims(0, -3);
  EXPECT_THAT(import_error(model), HasSubstr("tensor 'w': dimension -3 is negative"));
}

TEST(ModelErrors, StringTensor) {
  TestModel model = linear();
  model.proto.mutable_graph()->mutable_initializer(0)->set_data_type(onnx::TensorProto::STRING);
  EXPECT_THAT(import_error(model), HasSubstr("tensor 'w': element type string is not supported"));
}

TEST(ModelErrors, StringInput) {
  EXPECT_THAT(import_error(linear().input("s", {1}, onnx::TensorProto::STRING)),
              HasSubstr("input 's': a tensor of numbers expected, found string"));
}

TEST(ModelErrors, SparseInitializer) {
  TestModel model = linear();
  model.proto.mutable_graph()->add_sparse_initializer()->mutable_values()->set_name("s");
  EXPECT_THAT(import_error(model), HasSubstr("initializer 's' is sparse"));
}

TEST(ModelErrors, WrongNumberOfOperands) {
  EXPECT_THAT(import_error(linear().node("Relu", {"x", "w"}, {"z"}, {}, "r").output("z")),
              HasSubstr("node Relu 'r': 2 operands given, 1 expected"));
  EXPECT_THAT(import_error(linear().node("Conv", {"x"}, {"z"}, {}, "c").output("z")),
              HasSubstr("node Conv 'c': 1 operands given, 2 to 3 expected"));
}

TEST(ModelErrors, Attributes) {
  EXPECT_THAT(import_error(linear().node("Relu", {"x"}, {"z"}, {{"slope", 1.0}}, "r").output("z")),
              HasSubstr("node Relu 'r': attribute 'slope' has no meaning here"));
  EXPECT_THAT(import_error(linear().node("Concat", {"x"}, {"z"}, {{"axis", 1.0}}, "c").output("z")),
              HasSubstr("node Concat 'c': attribute 'axis' is of kind FLOAT, INT expected"));
  EXPECT_THAT(import_error(linear().node("Concat", {"x"}, {"z"}, {}, "c").output("z")),
              HasSubstr("attribute 'axis' is missing"));
  EXPECT_THAT(import_error(linear().node("Softmax", {"x"}, {"z"}, {{"axis", int64_t{2}}}, "s").output("z")),
              HasSubstr("node Softmax 's': axis 2 is outside rank 2"));
}

TEST(ModelErrors, ResultThatIsNotSupported) {
  TestModel model;
  model.input("x", {1, 1, 17, 17}).node("MaxPool", {"x"}, {"y", "i"}, {{"kernel_shape", Ints{17, 17}}}).output("y");
  EXPECT_NO_THROW(import_model(model.file(), {.mode = ImportMode::as_exported})) << "nobody reads it";
  EXPECT_THAT(import_error(model.output("i")), HasSubstr("output 'i': this result of its operator is not supported"));
}

TEST(ModelErrors, ShapeThatDependsOnTheData) {
  TestModel model;
  model.input("x", {4})
      .input("s", {1}, onnx::TensorProto::INT64)
      .node("Reshape", {"x", "s"}, {"y"}, {}, "r")
      .output("y");
  EXPECT_THAT(import_error(model),
              HasSubstr("node Reshape 'r': operand shape 's' must be known when the model is compiled"));
}

TEST(ModelErrors, OpenDimensions) {
  TestModel model;
  model.input("x", {-1, -1}).node("Relu", {"x"}, {"y"}).output("y");
  ImportOptions options{.mode = ImportMode::as_exported};
  EXPECT_THAT(import_error(model, options),
              HasSubstr("input 'x': dimension 1 ('d1') is open in the file; give its size"));
  options.batch = 4;
  options.dimensions["d1"] = 7;
  EXPECT_EQ(import_model(model.file(), options).graph.nodes()[0].results[0].shape, (Shape{4, 7}));
  options.batch = -4;
  EXPECT_THAT(import_error(model, options), HasSubstr("batch -4: a positive number expected"));
  options.shapes["X"] = {1, 1};
  EXPECT_THAT(import_error(model, options), HasSubstr("did you mean 'x'?"));
}

TEST(ModelErrors, AShapeWithoutANameIsForTheOnlyInput) {
  TestModel model;
  model.input("x", {-1, -1}).node("Relu", {"x"}, {"y"}).output("y");
  const ImportOptions options{.shapes = {{"", {4, 7}}}, .mode = ImportMode::as_exported};
  EXPECT_EQ(import_model(model.file(), options).graph.nodes()[0].results[0].shape, (Shape{4, 7}));
  model.input("z", {-1, -1});
  EXPECT_THAT(import_error(model, options), HasSubstr("without an input's name, but the model has 2 inputs"));
}

TEST(ModelErrors, RecursiveFunction) {
  TestModel model;
  model.proto.add_opset_import()->set_domain("local");
  onnx::FunctionProto& function = *model.proto.add_functions();
  function.set_name("F"), function.set_domain("local");
  function.add_input("a"), function.add_output("b");
  *function.add_node() = node_proto("local.F", {"a"}, {"b"});
  model.input("x", {1}).node("local.F", {"x"}, {"y"}).output("y");
  EXPECT_THAT(import_error(model), HasSubstr("function 'F' calls itself"));
}

TEST(ModelErrors, FunctionsThatMultiplyWithoutEnd) {
  TestModel model;
  model.proto.add_opset_import()->set_domain("local");
  const auto name = [](int level) { return "F" + std::to_string(level); };
  for (int level = 0; level < 40; ++level) {
    onnx::FunctionProto& function = *model.proto.add_functions();
    function.set_name(name(level)), function.set_domain("local");
    function.add_input("a"), function.add_output("c");
    const std::string inner = level == 0 ? "Neg" : "local." + name(level - 1);
    *function.add_node() = node_proto(inner, {"a"}, {"b"});
    *function.add_node() = node_proto(inner, {"b"}, {"c"});
  }
  model.input("x", {1}).node("local.F39", {"x"}, {"y"}).output("y");
  EXPECT_THAT(import_error(model), HasSubstr("more than 200000 nodes with its functions inlined"));
}

// ---- external data ----

class ExternalData : public ::testing::Test {
 protected:
  // The weight's data at `location`, of `length` bytes from `offset`.
  OnnxFile model(const std::string& location, int64_t offset = 0, int64_t length = 48) {
    TestModel model = linear();
    onnx::TensorProto& w = *model.proto.mutable_graph()->mutable_initializer(0);
    w.clear_raw_data();
    w.set_data_location(onnx::TensorProto::EXTERNAL);
    const auto add = [&](const std::string& key, const std::string& value) {
      auto& entry = *w.add_external_data();
      entry.set_key(key), entry.set_value(value);
    };
    add("location", location), add("offset", std::to_string(offset)), add("length", std::to_string(length));
    std::filesystem::create_directories(directory());
    return model.file(directory());
  }
  std::filesystem::path directory() const { return temporary_.path() / "model"; }
  void write(const std::filesystem::path& path, size_t bytes) {
    std::filesystem::create_directories(directory());
    const Tensor w = ramp({3, 4});
    std::string data(bytes, '\0');
    const size_t held = std::min(bytes, w.data.size());
    std::memcpy(data.data() + bytes - held, w.data.data(), held);
    std::ofstream(path, std::ios::binary) << data;
  }
  std::string error(const OnnxFile& file) {
    try {
      import_model(file);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  TemporaryDirectory temporary_;
};

TEST_F(ExternalData, IsReadFromItsOffset) {
  write(directory() / "w.bin", 100);
  EXPECT_EQ(import_model(model("w.bin", 52)).weights.at("w"), ramp({3, 4}));
}

TEST_F(ExternalData, IsReadWhenItIsAskedFor) {
  write(directory() / "w.bin", 48);
  const ImportedModel imported = import_model(model("w.bin"), {.reading = ImportOptions::on_demand});
  EXPECT_TRUE(imported.weights.empty());
  EXPECT_EQ(imported.weight_readers.at("w")(), import_model(model("w.bin")).weights.at("w"));
  write(directory() / "w.bin", 47);
  EXPECT_THROW(imported.weight_readers.at("w")(), Error);
}

TEST_F(ExternalData, MissingFileNamesTheRemedyAndFreshWeightsReplaceIt) {
  EXPECT_THAT(error(model("w.bin")),
              AllOf(HasSubstr("external data 'w.bin' of tensor 'w' is missing"), HasSubstr("with --init")));
  const ImportedModel fresh = import_model(model("w.bin"), {.weights = InitialWeights::fresh_where_absent});
  EXPECT_EQ(fresh.weights.at("w").type.shape, (Shape{3, 4}));
}

TEST_F(ExternalData, MissingConstantsAreRefusedOrZerosWithAWarningWhereWeightsAreFresh) {
  TestModel lookup;
  lookup.input("x", {2, 3}).weight("table", ramp({5, 3})).weight("ids", ints({2}, {4, 1}));
  lookup.weight("visible", floats({2, 1}, {0, 0}).cast(DType::boolean));
  lookup.node("Gather", {"table", "ids"}, {"rows"}).node("Where", {"visible", "rows", "x"}, {"y"}).output("y");
  for (onnx::TensorProto& tensor : *lookup.proto.mutable_graph()->mutable_initializer()) {
    tensor.clear_raw_data();
    tensor.set_data_location(onnx::TensorProto::EXTERNAL);
    onnx::StringStringEntryProto& entry = *tensor.add_external_data();
    entry.set_key("location"), entry.set_value("w.bin");
  }
  EXPECT_THAT(error(lookup.file()),
              HasSubstr("external data 'w.bin' of 3 tensors 'ids', 'visible', 'table' is missing"));
  lookup.weight("unread", floats({2}, {0, 0}));
  onnx::TensorProto& unread = *lookup.proto.mutable_graph()->mutable_initializer(3);
  unread = lookup.proto.graph().initializer(0), unread.set_name("unread");
  EXPECT_THAT(
      [&] { import_model(lookup.file(), {.weights = InitialWeights::fresh_where_absent}); },
      ::testing::ThrowsMessage<Error>("external data 'w.bin' of 3 tensors 'ids', 'unread', 'visible' is missing; "
                                      "put the file beside the model: these are constants, which --init "
                                      "cannot make"));
  const ImportedModel model = import_model(
      lookup.file(), {.weights = InitialWeights::fresh_where_absent, .constants = MissingConstants::zeros});
  EXPECT_THAT(model.remarks, ::testing::Contains(AllOf(HasSubstr("WARNING"), HasSubstr("2 tensors 'ids', 'visible'"),
                                                       HasSubstr("results mean nothing until 'w.bin'"))));
  NamedTensors leaves = named(model.weights);
  leaves["x"] = ramp({2, 3}, 100);
  leaves["table"] = ramp({5, 3});
  EXPECT_EQ(interpret(model.graph, leaves).outputs.at("y").values, (std::vector<double>{0, 1, 2, 0, 1, 2}));
}

TEST_F(ExternalData, TooShortOrWrongLength) {
  write(directory() / "w.bin", 48);
  EXPECT_THAT(error(model("w.bin", 1)), HasSubstr("ends at byte 49, but 'w.bin' has 48"));
  EXPECT_THAT(error(model("w.bin", 0, 40)), HasSubstr("external data of 40 bytes, 48 expected"));
  EXPECT_THAT(error(model("w.bin", -1)), HasSubstr("external data offset '-1' is not a size"));
  EXPECT_THAT(error(model("w.bin", INT64_MAX)), HasSubstr("overflows"));
}

TEST_F(ExternalData, NoLocationForgesALine) {
  EXPECT_THAT(error(model("w.bin\nhalfstep: trained")),
              HasSubstr("external data 'w.bin\\u000ahalfstep: trained' holds a control character"));
}

TEST_F(ExternalData, OutsideTheModelsDirectoryIsRefused) {
  write(temporary_.path() / "secret.bin", 48);
  EXPECT_THAT(error(model("../secret.bin")), HasSubstr("lies outside the model's directory"));
  EXPECT_THAT(error(model((temporary_.path() / "secret.bin").string())),
              HasSubstr("lies outside the model's directory"));
  std::filesystem::create_symlink(temporary_.path() / "secret.bin", directory() / "link.bin");
  EXPECT_THAT(error(model("link.bin")), HasSubstr("lies outside the model's directory"));
  EXPECT_THAT(error(model("")), HasSubstr("names no location"));
}

TEST_F(ExternalData, LinkInsideTheDirectoryIsFollowed) {
  write(directory() / "w.bin", 48);
  std::filesystem::create_symlink("w.bin", directory() / "link.bin");
  EXPECT_EQ(error(model("link.bin")), "no error");
}

}  // namespace
}  // namespace halfstep::test
