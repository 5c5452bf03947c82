// check, inspect and compile through the C API, and what their libraries show and need.
#include <array>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "tests/api/api_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::vector<std::string> problems_of(const std::string& model, const Keys& keys = {}) {
  const std::vector<halfstep_option> options = options_of(keys);
  halfstep_strings* strings = nullptr;
  ok(compiler->check_model(model.c_str(), options.data(), options.size(), &strings));
  std::vector<std::string> problems;
  for (size_t i = 0; i < api->strings_count(strings); ++i) problems.emplace_back(api->strings_at(strings, i));
  EXPECT_EQ(api->strings_at(strings, problems.size()), nullptr);
  api->release_strings(strings);
  return problems;
}

TEST_F(Api, ChecksAsTheExecutableDoes) {
  write("good.onnx", tiny_mlp());
  EXPECT_THAT(problems_of(path("good.onnx")), testing::IsEmpty());
  TestModel bad(17);
  bad.input("x", {2, 4}).node("Det", {"x"}, {"y"}, {}, "first").node("Unique", {"y"}, {"z"}, {}, "second").output("z");
  write("bad.onnx", bad);
  const json told = json::parse(run({"check", "bad.onnx", "--json"}).out);
  EXPECT_EQ(problems_of(path("bad.onnx")), told["problems"].get<std::vector<std::string>>());
  halfstep_strings* strings = nullptr;
  write("text.onnx", std::string("no model"));
  refused(compiler->check_model(path("text.onnx").c_str(), nullptr, 0, &strings), HALFSTEP_ERROR, {"text.onnx"});
  refused(compiler->check_model(path("nowhere.onnx").c_str(), nullptr, 0, &strings), HALFSTEP_ERROR, {"nowhere.onnx"});
  EXPECT_EQ(strings, nullptr);
}

TEST_F(Api, AStatusNamesTheNode) {
  TestModel bad(17);
  bad.input("x", {2, 4}).weight("w", ramp({5, 3})).node("Gemm", {"x", "w"}, {"y"}, {}, "fc one").output("y");
  write("bad.onnx", bad);
  const Outcome result =
      outcome(compiler->compile_model(path("bad.onnx").c_str(), nullptr, 0, path("step").c_str(), nullptr));
  EXPECT_EQ(result.code, HALFSTEP_ERROR);
  EXPECT_EQ(result.node, "fc one") << result.message;
  EXPECT_FALSE(std::filesystem::exists(path("step")));
}

TEST_F(Api, OptionsAreTheKeysOfRecipes) {
  write("m.onnx", tiny_mlp());
  write("r.toml", std::string("model = \"m.onnx\"\nbatch = 4\n"));
  const Keys wrong{{"batchs", "8"}, {"precision", "fp17"}};
  const std::vector<halfstep_option> options = options_of(wrong);
  refused(
      compiler->compile_model(path("m.onnx").c_str(), options.data(), options.size(), path("step").c_str(), nullptr),
      HALFSTEP_ERROR, {"batchs", "'batch'", "precision", "fp17"});
  compile("r.toml", {{"device", "cpu"}}, "step");
  const StepHandle step = load("step");
  halfstep_value value{};
  ok(api->value_at(step.get(), HALFSTEP_TRAIN, HALFSTEP_INPUT, 0, &value));
  EXPECT_EQ(Shape(value.shape, value.shape + value.rank), (Shape{4, 4}));
  EXPECT_STREQ(value.name, "x");
  // What stands there and is no compiled step is not replaced.
  refused(compiler->compile_model(path("m.onnx").c_str(), nullptr, 0, path("r.toml").c_str(), nullptr), HALFSTEP_ERROR,
          {"is not a compiled step"});
}

TEST_F(Api, InspectsAsTheExecutableDoes) {
  write("m.onnx", tiny_convnet());
  halfstep_precision* table = nullptr;
  ok(compiler->inspect_model(path("m.onnx").c_str(), nullptr, 0, &table));
  const json told = json::parse(succeed({"inspect", "m.onnx", "--json"}))["nodes"];
  ASSERT_EQ(compiler->precision_count(table), told.size());
  const std::array<std::string, 10> types{"", "f16", "bf16", "f32", "f64", "u8", "i8", "i32", "i64", "bool"};
  for (size_t i = 0; i < told.size(); ++i) {
    halfstep_precision_row row{};
    ok(compiler->precision_at(table, i, &row));
    EXPECT_EQ(row.node, told[i]["node"].get<std::string>());
    EXPECT_EQ(row.op, told[i]["operator"].get<std::string>());
    EXPECT_EQ(types[static_cast<size_t>(row.result)], told[i]["result"].get<std::string>());
    EXPECT_EQ(types[static_cast<size_t>(row.operand)], told[i]["operand"].get<std::string>());
    EXPECT_EQ(row.reason, told[i]["reason"].get<std::string>());
  }
  halfstep_precision_row row{};
  refused(compiler->precision_at(table, told.size(), &row), HALFSTEP_INVALID_ARGUMENT, {"row "});
  compiler->release_precision(table);
}

TEST_F(Api, ModelsCompileInParallel) {
  write("m.onnx", tiny_convnet());
  std::vector<std::thread> threads;
  for (const std::string directory : {"a", "b", "c"})
    threads.emplace_back([this, directory] { compile("m.onnx", {{"batch", "8"}, {"device", "cpu"}}, directory); });
  for (std::thread& thread : threads) thread.join();
  for (const char* file : {"program.train.txt", "program.evaluate.txt", "weights.safetensors"})
    for (const std::string other : {"b/", "c/"}) EXPECT_EQ(read(std::string("a/") + file), read(other + file));
}

TEST_F(Api, RemarksSayWhatHasNoEffect) {
  write("m.onnx", tiny_mlp());
  const Keys keys{{"optimizer", "adam"}, {"momentum", "0.9"}, {"device", "cpu"}};
  const std::vector<halfstep_option> options = options_of(keys);
  halfstep_strings* remarks = nullptr;
  ok(compiler->compile_model(path("m.onnx").c_str(), options.data(), options.size(), path("s").c_str(), &remarks));
  ASSERT_GE(api->strings_count(remarks), 1u);
  EXPECT_THAT(api->strings_at(remarks, api->strings_count(remarks) - 1), HasSubstr("momentum has no effect"));
  api->release_strings(remarks);
}

// What a command prints.
std::string output_of(const std::string& command) {
  std::string text;
  FILE* const pipe = ::popen(command.c_str(), "r");
  for (std::array<char, 4096> part{}; pipe != nullptr && std::fgets(part.data(), part.size(), pipe) != nullptr;)
    text += part.data();
  EXPECT_TRUE(pipe != nullptr && ::pclose(pipe) == 0) << command;
  return text;
}

TEST(ApiLibraries, ShowTheirGetterAlone) {
  const auto shown = [](const std::string& library) {
    return output_of("nm -D --defined-only --format=posix '" + library + "' | grep -v ' A ' | cut -d' ' -f1");
  };
  EXPECT_EQ(shown(HALFSTEP_API_RUNTIME), "halfstep_get_api@@HALFSTEP_1\n");
  EXPECT_EQ(shown(HALFSTEP_API_COMPILER), "halfstep_get_compiler_api@@HALFSTEP_1\n");
  EXPECT_THAT(output_of(std::string("readelf -d '") + HALFSTEP_API_RUNTIME + "'"),
              HasSubstr("[libhalfstep-runtime.so.0]"));
}

TEST(ApiLibraries, TheRuntimeNeedsNoCompiler) {
  const std::string runtime = output_of(std::string("ldd '") + HALFSTEP_API_RUNTIME + "'"),
                    whole = output_of(std::string("ldd '") + HALFSTEP_API_COMPILER + "'");
  EXPECT_THAT(runtime, HasSubstr("libhalfstep_runtime.so"));
  // Each of these is what tells, where it is needed.
  for (const char* theirs : {"libprotobuf", "libhalfstep_codegen", "libhalfstep_frontend"}) {
    EXPECT_THAT(whole, HasSubstr(theirs));
    EXPECT_THAT(runtime, testing::Not(HasSubstr(theirs)));
  }
  for (const char* theirs : {"LLVM", "lld", "onnx", "libhalfstep_ir", "libhalfstep_passes", "libhalfstep.so"})
    EXPECT_THAT(runtime, testing::Not(HasSubstr(theirs)));
}

}  // namespace
}  // namespace halfstep::test
