#include "program/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "program/initial_state.h"
#include "tests/program/error_message.h"

namespace halfstep {
namespace {

using testing::HasSubstr;

Convolution small_convolution() {
  Convolution c;
  c.kind = ConvolutionKind::data_grad;
  c.batch = 2, c.in_channels = 4, c.out_channels = 8, c.groups = 2;
  c.spatial = {5, 6}, c.window = {3, 2}, c.out_spatial = {3, 7};
  c.strides = {2, 1}, c.pads_begin = {1, 1}, c.pads_end = {1, 1}, c.dilations = {1, 1};
  c.operand = DType::f16, c.result = DType::f16;
  c.x = {3, 0}, c.w = {3, 1024}, c.y = {3, 2048};
  return c;
}

// One of each kind of buffer and call, with names that need quoting.
Program sample_program() {
  Program p;
  p.name = "train";
  p.buffers = {{"image \"x\"", BufferKind::input, {DType::f32, {4, 8}}},
               {"loss", BufferKind::output, {DType::f32, {}}},
               {"layer/größe", BufferKind::state, {DType::bf16, {8, 16}}},
               {"scratch", BufferKind::scratch, {DType::u8, {65536}}}};
  Gemm gemm;
  gemm.m = 4, gemm.n = 8, gemm.k = 8, gemm.batch = 2;
  gemm.transpose_b = true, gemm.stride_a = 0, gemm.stride_b = 64, gemm.stride_c = 32;
  gemm.operand = DType::bf16, gemm.result = DType::f32, gemm.bias_type = DType::f16;
  gemm.a = {3, 0}, gemm.b = {2, 0}, gemm.c = {3, 256}, gemm.bias = Ref{3, 512}, gemm.addend = Ref{3, 1024};
  p.steps = {{KernelLaunch{"fused_0", {{0, 0}, {3, 128}}, {7, 1, 2}, 256, 32, 4096}, "relu1, \\add"},
             {KernelLaunch{"constant", {}, {1, 1, 1}, 1, 1, 0}, ""},
             {gemm, "fc1 (backward)"},
             {small_convolution(), "conv1 (backward)"},
             {Copy{{3, 100}, {1, 0}, 4}, "loss"}};
  std::get<KernelLaunch>(p.steps[0].call).shared = 98304;
  return p;
}

TEST(ProgramText, PrintThenParseIsTheSameProgram) {
  const Program program = sample_program();
  const std::string text = print(program);
  EXPECT_EQ(parse_program(text), program) << text;
  EXPECT_EQ(print(parse_program(text)), text);
}

TEST(ProgramText, EveryControlCharacterSurvives) {
  Program program = sample_program();
  for (int c = 1; c < 256; ++c) program.steps[0].origin += static_cast<char>(c);
  EXPECT_EQ(parse_program(print(program)), program);
}

TEST(ProgramText, LooksLikeThis) {
  Program p;
  p.name = "evaluate";
  p.buffers = {{"x", BufferKind::input, {DType::f32, {2, 3}}},
               {"w", BufferKind::state, {DType::f32, {3, 4}}},
               {"y", BufferKind::output, {DType::f32, {2, 4}}}};
  Gemm gemm;
  gemm.m = 2, gemm.n = 4, gemm.k = 3, gemm.relu = true;
  gemm.a = {0, 0}, gemm.b = {1, 0}, gemm.c = {2, 0};
  p.steps = {{gemm, "fc1, relu1"}, {KernelLaunch{"scale", {{2, 0}}, {1, 1, 1}, 1, 8, 64}, "mul"}};
  EXPECT_EQ(print(p),
            "program \"evaluate\"\n"
            "buffer    0 input   f32[2,3] \"x\"\n"
            "buffer    1 state   f32[3,4] \"w\"\n"
            "buffer    2 output  f32[2,4] \"y\"\n"
            "gemm        \"fc1, relu1\" m=2 n=4 k=3 relu=yes operand=f32 result=f32 bias_type=f32 a=0+0 b=1+0 c=2+0\n"
            "kernel      \"mul\"        kernel=\"scale\" arguments=[2+0] units=8 bytes=64\n");
}

struct BadText {
  const char* what;
  const char* replaced;
  const char* by;
  const char* message;
};

class ProgramTextError : public testing::TestWithParam<BadText> {};

TEST_P(ProgramTextError, NamesTheLine) {
  std::string text =
      "program \"train\"\n"
      "buffer 0 state f32[4,4] \"w\"\n"
      "buffer 1 scratch u8[256] \"scratch\"\n"
      "gemm \"fc\" m=4 n=4 k=4 operand=f32 result=f32 bias_type=f32 a=0+0 b=0+0 c=1+64\n"
      "kernel \"relu\" kernel=\"k\" arguments=[1+64] units=16 bytes=128\n";
  ASSERT_NO_THROW(parse_program(text));
  const BadText& bad = GetParam();
  const size_t at = text.find(bad.replaced);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, std::string(bad.replaced).size(), bad.by);
  EXPECT_THAT(error_of([&] { parse_program(text); }), HasSubstr(bad.message));
}

INSTANTIATE_TEST_SUITE_P(
    All, ProgramTextError,
    testing::Values(
        BadText{"no_program", "program \"train\"\n", "", "line 1: program \"name\" expected first"},
        BadText{"two_programs", "buffer 1", "program \"x\"\nbuffer 1", "line 3: a second program"},
        BadText{"unknown_call", "gemm ", "gemv ",
                "line 4: program, buffer, kernel, gemm, convolution, attention, recurrent or copy expected"},
        BadText{"buffer_number", "buffer 1", "buffer 2", "line 3: buffer 1 expected, found buffer 2"},
        BadText{"buffer_kind", "scratch u8", "heap u8", "line 3: input, output, state or scratch expected"},
        BadText{"buffer_type", "f32[4,4]", "f33[4,4]", "line 2: an element type expected, found 'f33'"},
        BadText{"shape", "f32[4,4]", "f32[4,4", "line 2: a list in brackets expected"},
        BadText{"comma", "f32[4,4]", "f32[4,]", "line 2: a list ends in a comma"},
        BadText{"negative_shape", "f32[4,4]", "f32[4,-4]", "line 2: type: dimension -4 is negative"},
        BadText{"huge_shape", "f32[4,4]", "f32[4294967296,4294967296]", "overflows"},
        BadText{"integer", "m=4", "m=4x", "line 4: m: a 64-bit integer expected, found '4x'"},
        BadText{"integer_overflow", "m=4", "m=99999999999999999999", "line 4: m: a 64-bit integer expected"},
        BadText{"flag", "k=4", "k=4 relu=true", "line 4: relu: yes or no expected"},
        BadText{"missing_field", "a=0+0 ", "", "line 4: a=... expected next, found 'b=0+0'"},
        BadText{"unknown_field", "m=4", "m=4 q=3", "line 4: operand=... expected next, found 'q=3'"},
        BadText{"trailing", "bytes=128", "bytes=128 more", "line 5: unexpected 'more'"},
        BadText{"reference", "a=0+0", "a=0", "line 4: a: buffer+offset expected"},
        BadText{"unquoted", "\"relu\"", "relu", "line 5: a quoted name expected"},
        BadText{"open_quote", "\"relu\"", "\"relu", "line 5: a quoted name expected"},
        BadText{"hexadecimal", "\"relu\"", "\"\\x0\"", "line 5: two hexadecimal digits expected"},
        BadText{"no_such_buffer", "a=0+0", "a=7+0", "line 4: 'a' names buffer 7, the program has 2"},
        BadText{"outside", "c=1+64", "c=1+208", "line 4: 'c' needs 64 bytes at offset 208, buffer 'scratch' has 256"},
        BadText{"negative_offset", "c=1+64", "c=1+-64", "'c' needs 64 bytes at offset -64"},
        BadText{"argument_outside", "[1+64]", "[1+257]", "line 5: 'argument 0' needs 0 bytes at offset 257"},
        BadText{"misaligned", "c=1+64", "c=1+72", "'c' at offset 72 is not aligned to 16 bytes"},
        BadText{"size_overflow", "m=4", "m=4611686018427387904", "overflows"},
        BadText{"zero", "m=4", "m=0", "line 4: m, n, k and batch must be positive"},
        BadText{"integer_type", "operand=f32", "operand=i32", "types must be floating point"},
        BadText{"mixed_double", "operand=f32", "operand=f64", "must both be f64 or neither"},
        BadText{"both_broadcast", "k=4", "k=4 batch=2 stride_c=16", "a batch broadcasts both operands"},
        BadText{"overlapping_results", "k=4", "k=4 batch=2 stride_a=16 stride_c=8", "stride_c is smaller"},
        BadText{"in_place", "c=1+64", "c=0+0", "'c' overlaps 'a'"},
        BadText{"into_input", "buffer 1 scratch u8[256]", "buffer 1 input f32[64]", "'c' writes into an input buffer"},
        BadText{"twice", "buffer 1 scratch u8[256] \"scratch\"", "buffer 1 state u8[256] \"w\"",
                "line 3: state 'w' appears twice"},
        BadText{"scratch_type", "u8[256]", "f32[64]", "type u8[bytes] expected"},
        BadText{"units", "units=16", "units=0",
                "grid, block and units must be positive, bytes and shared not negative"}),
    [](const auto& info) { return std::string(info.param.what); });

struct BadConvolution {
  const char* what;
  void (*change)(Convolution&);
  const char* message;
};

class ConvolutionError : public testing::TestWithParam<BadConvolution> {};

TEST_P(ConvolutionError, NamesTheStep) {
  Program p = sample_program();
  check(p);
  GetParam().change(std::get<Convolution>(p.steps[3].call));
  const std::string message = error_of([&] { check(p); });
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, HasSubstr("program 'train', step 3 (convolution"));
}

INSTANTIATE_TEST_SUITE_P(
    All, ConvolutionError,
    testing::Values(
        BadConvolution{"groups", [](Convolution& c) { c.groups = 3; }, "groups must divide both channel counts"},
        BadConvolution{"rank", [](Convolution& c) { c.strides = {1}; }, "need 2 axes each"},
        BadConvolution{"no_axes", [](Convolution& c) { c.spatial = {}; }, "1 to 3 spatial axes expected, found 0"},
        BadConvolution{"out_size", [](Convolution& c) { c.out_spatial[0] = 4; },
                       "axis 0: output size 3 expected, found 4"},
        BadConvolution{"window", [](Convolution& c) { c.window[1] = 9; }, "axis 1: the window reaches over 9 of 8"},
        BadConvolution{"pad", [](Convolution& c) { c.pads_end[1] = -1; }, "pads not negative"},
        BadConvolution{"overflow", [](Convolution& c) { c.dilations[0] = INT64_MAX; }, "overflows"},
        BadConvolution{"relu", [](Convolution& c) { c.relu = true; }, "bias and relu belong to forward only"},
        BadConvolution{"outside", [](Convolution& c) { c.batch = 4096; }, "'x' needs"},
        BadConvolution{"overlap", [](Convolution& c) { c.y = c.x; }, "'x' overlaps 'y'"}),
    [](const auto& info) { return std::string(info.param.what); });

TEST(Describe, NamesEveryCall) {
  const Program p = sample_program();
  EXPECT_EQ(describe(p.steps[0]), "kernel fused_0");
  EXPECT_EQ(describe(p.steps[2]), "gemm 2x4x8x8");
  EXPECT_EQ(describe(p.steps[3]), "convolution data_grad 3x2 4->8");
  EXPECT_EQ(describe(p.steps[4]), "copy");
}

TEST(Cost, CountsMultiplicationsTwiceAndOperandsOnce) {
  const Program p = sample_program();
  EXPECT_EQ(cost(p.steps[0]).bytes, 4096);
  EXPECT_EQ(cost(p.steps[2]).flops, 2.0 * 2 * 4 * 8 * 8);
  // a broadcast, b twice, c in fp32, bias, addend: in place or apart
  EXPECT_EQ(cost(p.steps[2]).bytes, 32 * 2 + 128 * 2 + 64 * 4 + 8 * 2 + 64 * 4);
  Step in_place = p.steps[2];
  Gemm& gemm = std::get<Gemm>(in_place.call);
  gemm.addend = gemm.c;
  EXPECT_EQ(cost(in_place).bytes, cost(p.steps[2]).bytes);
  EXPECT_EQ(cost(p.steps[3]).flops, 2.0 * 2 * 3 * 7 * 8 * (3 * 2 * 2));
  EXPECT_EQ(cost(p.steps[4]).bytes, 8);
}

CompiledModel sample_model() {
  CompiledModel m;
  m.architecture = "x86-64";
  m.programs = {sample_program(), sample_program()};
  m.programs[1].name = "evaluate";
  for (Program& p : m.programs) p.buffers.push_back({"parameters", BufferKind::state, {DType::f32, {20}}});
  m.kernels = std::string(
      "\x7f"
      "ELF\0\1\2",
      7);
  m.state["parameters"] = Tensor({DType::f32, {20}});
  m.state["parameters"].set(3, 1.5);
  m.state["layer/größe"] = Tensor({DType::bf16, {8, 16}});
  m.arenas = {"parameters"};
  m.parameters = {{"w", {2, 3}, {1, 0}, 0}, {"b", {4}, {}, 16}};
  m.notes.recipe = {{"model", "lenet.onnx"}};
  m.notes.table_rows = {{"x", 7}};
  m.notes.classes = 10, m.notes.learning_rate = 0.1;
  return m;
}

void expect_equal_but_host(const CompiledModel& found, const CompiledModel& expected) {
  EXPECT_EQ(found.device, expected.device);
  EXPECT_EQ(found.architecture, expected.architecture);
  EXPECT_EQ(found.programs, expected.programs);
  EXPECT_EQ(found.kernels, expected.kernels);
  EXPECT_EQ(found.cubins, expected.cubins);
  EXPECT_EQ(found.state, expected.state);
  EXPECT_EQ(found.arenas, expected.arenas);
  EXPECT_EQ(found.parameters, expected.parameters);
  StepNotes notes = found.notes;
  EXPECT_EQ(notes.host.empty(), expected.device != DeviceKind::cpu);
  notes.host = expected.notes.host;
  EXPECT_EQ(notes, expected.notes);
}

TEST(CompiledModel, FindsAProgramByName) {
  const CompiledModel m = sample_model();
  EXPECT_EQ(m.find("evaluate"), &m.programs[1]);
  EXPECT_EQ(m.find("accumulate"), nullptr);
}

TEST(CompiledModel, ProgramsMustAgree) {
  CompiledModel m = sample_model();
  check(m);
  m.programs[1].buffers.back().type.shape = {21};
  EXPECT_THAT(error_of([&] { check(m); }), HasSubstr("state 'parameters' is f32[20] in one program and f32[21]"));
  m = sample_model();
  m.programs[1].name = "train";
  EXPECT_THAT(error_of([&] { check(m); }), HasSubstr("program 'train' appears twice"));
  m = sample_model();
  m.state["parameters"] = Tensor({DType::f16, {20}});
  EXPECT_THAT(error_of([&] { check(m); }), HasSubstr("type f32[20] expected, found f16[20]"));
  m = sample_model();
  m.parameters[1].offset = 17;
  EXPECT_THAT(error_of([&] { check(m); }), HasSubstr("arena 'parameters': at least 21 elements expected, found 20"));
  m = sample_model();
  m.parameters[0].permutation = {1, 1};
  EXPECT_THAT(error_of([&] { check(m); }), HasSubstr("parameter 'w': [1,1] is not a permutation of 2 axes"));
  m = sample_model();
  m.arenas = {"slots"};
  EXPECT_THAT(error_of([&] { check(m); }), HasSubstr("arena 'slots' is no state of any program"));
  m = sample_model();
  m.programs[0].buffers.push_back({kStepLearningRate, BufferKind::input, {DType::f32, {3}}});
  check(m);
  m.notes.rates.resize(2);
  EXPECT_THAT(error_of([&] { check(m); }), HasSubstr("program 'train' takes 3 learning rates, the notes have 2"));
}

// A model whose arena has a low copy of which nothing is said.
CompiledModel model_with_low_copy(int64_t elements) {
  CompiledModel m = sample_model();
  const Name arena(Role::slot, "parameters"), copy(Role::slot, "parameters.f16");
  for (Program& p : m.programs) {
    p.buffers.back().name = arena;
    p.buffers.push_back({copy, BufferKind::state, {DType::f16, {elements}}});
  }
  m.state.erase("parameters");
  m.state[arena] = Tensor({DType::f32, {20}});
  m.state[arena].set(3, 0.1);
  m.arenas = {arena, copy};
  return m;
}

TEST(InitialState, ALowCopyIsItsArenaRounded) {
  const Name arena(Role::slot, "parameters"), copy(Role::slot, "parameters.f16");
  const CompiledModel m = model_with_low_copy(20);
  check(m);
  const Tensor expected = m.state.at(arena).cast(DType::f16);
  std::vector<std::byte> found;
  read_initial_state(m, copy, DType::f16, [&](Piece piece) { found.insert(found.end(), piece.begin(), piece.end()); });
  EXPECT_EQ(found, expected.data);
  read_initial_state(m, "momentum", DType::f32, [](Piece) { ADD_FAILURE() << "nothing is said of it"; });
  const TemporaryDirectory folder;
  save_compiled(m, folder.path() / "step");
  EXPECT_EQ(load_compiled(folder.path() / "step").state.at(copy), expected);
}

TEST(InitialState, ALowCopyHasItsArenasShape) {
  EXPECT_THAT(error_of([] { check(model_with_low_copy(24)); }),
              HasSubstr("state 'slot parameters.f16' repeats 'slot parameters': shape [20] expected, found [24]"));
}

TEST(SavedModel, LoadsBackEqual) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.path() / "nested" / "step";
  CompiledModel m = sample_model();
  save_compiled(m, directory + "/");
  expect_equal_but_host(load_compiled(directory), m);
  m.device = DeviceKind::cuda;
  m.architecture = "sm_80";
  m.kernels = "";
  save_compiled(m, directory);  // replaces an older step
  expect_equal_but_host(load_compiled(directory), m);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(temporary.path() / "nested"), {}), 1)
      << "a temporary directory was left behind";
}

TEST(SavedModel, HoldsMachineCodeForGpus) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.path() / "step";
  CompiledModel m = sample_model();
  m.cubins = {{"sm_90", "code"}};
  EXPECT_THAT(error_of([&] { check(m); }), HasSubstr("machine code for GPUs beside no PTX"));
  m.device = DeviceKind::cuda;
  m.architecture = "sm_80";
  m.kernels = "PTX";
  m.cubins["sm_100"] = std::string("\0\1", 2);
  save_compiled(m, directory);
  expect_equal_but_host(load_compiled(directory), m);
  EXPECT_EQ(read_file(directory + "/kernels.sm_90.cubin"), "code");
  m.cubins = {{"../sm_90", "code"}};
  EXPECT_THAT(error_of([&] { save_compiled(m, directory); }), HasSubstr("'../sm_90' is no CUDA architecture"));
}

TEST(SavedModel, KeepsTheHostItWasCompiledOn) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.path() / "step";
  CompiledModel m = sample_model();
  m.notes.host = "another CPU";
  save_compiled(m, directory);
  EXPECT_EQ(load_compiled(directory).notes.host, "another CPU");
}

TEST(SavedModel, ReplacesNothingElse) {
  const TemporaryDirectory temporary;
  std::filesystem::create_directory(temporary.path() / "thesis");
  std::ofstream(temporary.path() / "thesis" / "manifest.json") << "{}";
  EXPECT_THAT(error_of([&] { save_compiled(sample_model(), temporary.path() / "thesis"); }),
              HasSubstr("it exists and is not a compiled step"));
  EXPECT_TRUE(std::filesystem::exists(temporary.path() / "thesis" / "manifest.json"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(temporary.path()), {}), 1);
}

TEST(SavedModel, RefusesProgramNamesThatAreNoFileNames) {
  const TemporaryDirectory temporary;
  CompiledModel m = sample_model();
  m.programs[0].name = "../train";
  EXPECT_THAT(error_of([&] { save_compiled(m, temporary.path() / "step"); }), HasSubstr("program name '../train'"));
  EXPECT_TRUE(std::filesystem::is_empty(temporary.path()));
}

TEST(SavedModel, RefusesNamesThatForgeLines) {
  const auto error_with = [](auto&& change) {
    const TemporaryDirectory temporary;
    CompiledModel m = sample_model();
    change(m);
    save_compiled(m, temporary.path() / "step");
    return error_of([&] { load_compiled(temporary.path() / "step"); });
  };
  EXPECT_THAT(error_with([](CompiledModel& m) { m.notes.missing_constants = "10\nhalfstep: trained"; }),
              HasSubstr("'10\\u000ahalfstep: trained' holds a control character"));
  EXPECT_THAT(error_with([](CompiledModel& m) { m.programs[0].steps[0].origin = "fc\x1b[2J"; }),
              HasSubstr("'fc\\u001b[2J' holds a control character"));
}

struct Damage {
  const char* what;
  const char* file;
  const char* replaced;
  const char* by;
  const char* message;
};

class DamagedModel : public testing::TestWithParam<Damage> {};

TEST_P(DamagedModel, IsRefused) {
  const TemporaryDirectory temporary;
  const std::filesystem::path directory = temporary.path() / "step";
  save_compiled(sample_model(), directory);
  const Damage& damage = GetParam();
  std::string text = read_file(directory / damage.file);
  const size_t at = text.find(damage.replaced);
  ASSERT_NE(at, std::string::npos) << text;
  text.replace(at, std::string(damage.replaced).size(), damage.by);
  write_file_atomically(directory / damage.file, text);
  const std::string message = error_of([&] { load_compiled(directory); });
  EXPECT_THAT(message, HasSubstr("cannot load compiled step"));
  EXPECT_THAT(message, HasSubstr(damage.message));
}

INSTANTIATE_TEST_SUITE_P(
    All, DamagedModel,
    testing::Values(
        Damage{"longer", "program.train.txt", "loss", "losses", "program.train.txt"},
        Damage{"bit_flip", "program.train.txt", "m=4", "m=5", "program.train.txt: the checksum differs"},
        Damage{"shorter", "kernels.so", "ELF", "EL", "kernels.so: 7 bytes expected, found 6"},
        Damage{"weights", "weights.safetensors", "BF16", "U16 ", "weights.safetensors: the checksum differs"},
        Damage{"not_json", "manifest.json", "{", "<", "manifest.json is not the manifest of a compiled step"},
        Damage{"format", "manifest.json", "halfstep compiled step", "other", "is not the manifest of a compiled step"},
        Damage{"version", "manifest.json", "\"version\": 6", "\"version\": 2", "version 6 expected, found 2"},
        Damage{"device", "manifest.json", "\"cpu\"", "\"tpu\"", "device: cpu or cuda expected, found 'tpu'"},
        Damage{"missing", "manifest.json", "\"arenas\"", "\"arena\"", "a field is missing or of the wrong type"},
        Damage{"wrong_type", "manifest.json", "\"offset\": 0", "\"offset\": \"0\"",
               "an integer from 0 expected, found \"0\""},
        Damage{"negative_size", "manifest.json", "\"bytes\": 7", "\"bytes\": -7",
               "'bytes': an integer from 0 expected, found -7"},
        Damage{"outside", "manifest.json", "\"evaluate\"", "\"../../x\"", "program name '../../x'"},
        Damage{"parameters", "manifest.json", "\"offset\": 16", "\"offset\": 4000", "arena 'parameters'"}),
    [](const auto& info) { return std::string(info.param.what); });

TEST(SavedModel, ADirectoryThatIsNotThereIsAnError) {
  EXPECT_THAT(error_of([] { load_compiled("/nonexistent/step"); }), HasSubstr("No such file"));
  EXPECT_THAT(error_of([] { save_compiled(sample_model(), "/proc/step"); }), HasSubstr("cannot write compiled step"));
}

}  // namespace
}  // namespace halfstep
