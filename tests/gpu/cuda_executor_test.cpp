// The CUDA executor on hand-written programs of kernels: memory, slots, results, errors.
#include <dlfcn.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>

#include "base/error.h"
#include "runtime/cuda_probe.h"
#include "tests/gpu/gpu_test.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kKernels = R"(.version 7.0
.target sm_80
.address_size 64

// state += input; output = state; one thread
.visible .entry accumulate(.param .u64 p_state, .param .u64 p_input, .param .u64 p_output)
{
  .reg .b64 %a<4>;
  .reg .f32 %f<3>;
  ld.param.u64 %a1, [p_state];
  ld.param.u64 %a2, [p_input];
  ld.param.u64 %a3, [p_output];
  cvta.to.global.u64 %a1, %a1;
  cvta.to.global.u64 %a2, %a2;
  cvta.to.global.u64 %a3, %a3;
  ld.global.f32 %f1, [%a1];
  ld.global.f32 %f2, [%a2];
  add.f32 %f1, %f1, %f2;
  st.global.f32 [%a1], %f1;
  st.global.f32 [%a3], %f1;
  ret;
}

// output[i] = i, i over all threads of the grid
.visible .entry number_threads(.param .u64 p_output)
{
  .reg .b32 %r<5>;
  .reg .b64 %a<3>;
  ld.param.u64 %a1, [p_output];
  cvta.to.global.u64 %a1, %a1;
  mov.u32 %r1, %ctaid.x;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %tid.x;
  mad.lo.u32 %r4, %r1, %r2, %r3;
  mul.wide.u32 %a2, %r4, 4;
  add.u64 %a1, %a1, %a2;
  st.global.u32 [%a1], %r4;
  ret;
}

// returns after input[0] nanoseconds
.visible .entry spin(.param .u64 p_input)
{
  .reg .pred %p;
  .reg .b64 %a<5>;
  ld.param.u64 %a1, [p_input];
  cvta.to.global.u64 %a1, %a1;
  ld.global.u64 %a2, [%a1];
  mov.u64 %a3, %globaltimer;
again:
  mov.u64 %a4, %globaltimer;
  sub.u64 %a4, %a4, %a3;
  setp.lt.u64 %p, %a4, %a2;
  @%p bra again;
  ret;
}
)";

KernelLaunch launch(const std::string& kernel, std::vector<Ref> arguments, int64_t blocks = 1, int64_t threads = 1) {
  KernelLaunch call;
  call.kernel = kernel;
  call.arguments = std::move(arguments);
  call.grid = {blocks, 1, 1};
  call.block = threads;
  return call;
}

template <typename T>
void write(std::span<std::byte> to, T value) {
  ASSERT_EQ(to.size(), sizeof value);
  std::memcpy(to.data(), &value, sizeof value);
}

template <typename Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// state "sum" starts at 10 and adds the input
ModelBuilder accumulator() {
  ModelBuilder builder(kKernels);
  const Ref sum = builder.state("sum", Tensor::scalar(DType::f32, 10));
  const Ref input = builder.buffer(BufferKind::input, "x", {DType::f32, {}});
  const Ref output = builder.buffer(BufferKind::output, "total", {DType::f32, {}});
  builder.step(launch("accumulate", {sum, input, output}));
  return builder;
}

TEST_F(GpuTest, KernelsRunOnTheWholeGrid) {
  ModelBuilder builder(kKernels);
  const Ref output = builder.buffer(BufferKind::output, "numbers", {DType::i32, {96}});
  builder.step(launch("number_threads", {output}, 3, 32));
  const auto executor = builder.make();
  const StepResult result = run_step(*executor);
  for (int64_t i = 0; i < 96; ++i) EXPECT_EQ(result.outputs.at("numbers").at(i), i);
}

TEST_F(GpuTest, EveryKernelOfALargeModuleIsFound) {
  // Large enough to be compiled in several parts.
  const std::string ptx = kKernels;
  const size_t start = ptx.find(".visible .entry number_threads"), end = ptx.find("// returns after");
  std::string kernels = ptx.substr(0, ptx.find("// state +="));
  constexpr int kCount = 200;
  for (int i = 0; i < kCount; ++i) {
    std::string kernel = ptx.substr(start, end - start);
    kernel.replace(kernel.find("number_threads"), 14, fmt::format("number_threads_{}", i));
    kernels += fmt::format("// kernel {{ {}\n", i) + kernel;
  }
  ASSERT_GT(kernels.size(), size_t{1} << 16);
  ModelBuilder builder(kernels);
  const Ref output = builder.buffer(BufferKind::output, "numbers", {DType::i32, {kCount, 4}});
  for (int64_t i = 0; i < kCount; ++i) {
    builder.step(launch(fmt::format("number_threads_{}", i), {{output.buffer, i * 16}}, 1, 4));
  }
  const StepResult result = run_step(*builder.make());
  for (int64_t i = 0; i < kCount * 4; ++i) ASSERT_EQ(result.outputs.at("numbers").at(i), i % 4);
}

TEST_F(GpuTest, ReferencesReachIntoBuffers) {
  ModelBuilder builder(kKernels);
  const Ref scratch = builder.buffer(BufferKind::scratch, "scratch", {DType::u8, {1024}});
  const Ref output = builder.buffer(BufferKind::output, "numbers", {DType::i32, {32}});
  const Ref inside{scratch.buffer, 512};
  builder.step(launch("number_threads", {inside}, 1, 32));
  Copy copy;
  copy.from = {scratch.buffer, 512 + 16};
  copy.to = {output.buffer, 16};
  copy.bytes = 64;
  builder.step(copy);
  const StepResult result = run_step(*builder.make());
  for (int64_t i = 4; i < 20; ++i) EXPECT_EQ(result.outputs.at("numbers").at(i), i);
}

TEST_F(GpuTest, LoadingLeavesTheInitialState) {
  ModelBuilder builder = accumulator();
  builder.buffer(BufferKind::state, "unset", {DType::f16, {3}});
  const auto executor = builder.make();
  EXPECT_EQ(executor->read_state("sum"), Tensor::scalar(DType::f32, 10));
  EXPECT_EQ(executor->read_state("unset"), Tensor({DType::f16, {3}}));
}

TEST_F(GpuTest, StepsSeeTheirOwnInputsAndComeBackInOrder) {
  ModelBuilder builder = accumulator();
  const auto executor = builder.make();
  double expected = 10;
  std::vector<double> totals;
  for (int i = 1; i <= 20; ++i) {
    write(executor->begin_step(0).at(0), static_cast<float>(i));
    EXPECT_EQ(executor->submit(), i);
    totals.push_back(expected += i);
  }
  for (int i = 1; i <= 20; ++i) {
    const auto result = executor->poll(Wait::yes);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->ticket, i);
    EXPECT_EQ(result->outputs.at("total").at(0), totals[static_cast<size_t>(i - 1)]);
  }
  EXPECT_FALSE(executor->poll(Wait::yes));
  EXPECT_EQ(executor->counters().steps, 20);
  EXPECT_EQ(executor->counters().graph_launches, 20);
  EXPECT_EQ(executor->counters().stream_synchronisations, 0);
}

TEST_F(GpuTest, TheHostWaitsOnlyWhenEverySlotIsInFlight) {
  ModelBuilder builder(kKernels);
  const Ref input = builder.buffer(BufferKind::input, "nanoseconds", {DType::i64, {}});
  builder.step(launch("spin", {input}));
  const auto executor = builder.make();
  constexpr auto kStep = std::chrono::milliseconds(200);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 4; ++i) {
    write(executor->begin_step(0).at(0), int64_t{std::chrono::nanoseconds(kStep).count()});
    executor->submit();
  }
  EXPECT_FALSE(executor->poll(Wait::no));
  EXPECT_LT(std::chrono::steady_clock::now() - start, kStep);
  EXPECT_EQ(executor->counters().slot_waits, 0);
  write(executor->begin_step(0).at(0), int64_t{0});
  EXPECT_EQ(executor->counters().slot_waits, 1);
  EXPECT_GE(std::chrono::steady_clock::now() - start, kStep);
  executor->submit();
  for (int ticket = 1; ticket <= 5; ++ticket) EXPECT_EQ(executor->poll(Wait::yes)->ticket, ticket);
  EXPECT_GE(executor->counters().result_waits, 1);
  EXPECT_EQ(executor->counters().stream_synchronisations, 0);
}

TEST_F(GpuTest, ProgramsShareStateAndKeepTheirOwnBuffers) {
  ModelBuilder builder = accumulator();
  builder.next_program("read");
  const Ref output = builder.buffer(BufferKind::output, "now", {DType::f32, {}});
  const Ref sum = builder.buffer(BufferKind::state, "sum", {DType::f32, {}});
  Copy copy;
  copy.from = sum;
  copy.to = output;
  copy.bytes = 4;
  builder.step(copy);
  const auto executor = builder.make();
  for (int i = 0; i < 6; ++i) {
    write(executor->begin_step(0).at(0), 1.0f);
    executor->submit();
    EXPECT_TRUE(executor->begin_step(1).empty());
    executor->submit();
    EXPECT_EQ(executor->poll(Wait::yes)->outputs.at("total").at(0), 11 + i);
    EXPECT_EQ(executor->poll(Wait::yes)->outputs.at("now").at(0), 11 + i);
  }
}

TEST_F(GpuTest, StateIsReadAndWrittenByName) {
  ModelBuilder builder = accumulator();
  const auto executor = builder.make();
  executor->write_state("sum", Tensor::scalar(DType::f32, 100));
  write(executor->begin_step(0).at(0), 1.0f);
  executor->submit();
  EXPECT_EQ(executor->read_state("sum").at(0), 101);
  EXPECT_THAT(error_of([&] { executor->write_state("sum", Tensor::scalar(DType::f16, 1)); }),
              AllOf(HasSubstr("'sum'"), HasSubstr("f32[]"), HasSubstr("f16[]")));
  EXPECT_THAT(error_of([&] { executor->read_state("sun"); }), AllOf(HasSubstr("'sun'"), HasSubstr("'sum'")));
}

TEST_F(GpuTest, ProfilingAndTimingRestoreTheState) {
  ModelBuilder builder = accumulator();
  Gemm gemm;
  gemm.m = gemm.n = gemm.k = 64;
  gemm.a = builder.state("a", Tensor({DType::f32, {64, 64}}));
  gemm.b = builder.state("b", Tensor({DType::f32, {64, 64}}));
  gemm.c = builder.state("c", Tensor({DType::f32, {64, 64}}));
  builder.step(gemm);
  const auto executor = builder.make();
  write(executor->begin_step(0).at(0), 1.0f);
  const std::vector<StepTime> profile = executor->profile(0, 3);
  ASSERT_EQ(profile.size(), 2u);
  EXPECT_EQ(profile[0].origin, "the node");
  EXPECT_THAT(profile[0].call, HasSubstr("accumulate"));
  EXPECT_EQ(profile[1].flops, 2.0 * 64 * 64 * 64);
  EXPECT_EQ(profile[1].bytes, 3 * 64 * 64 * 4);
  for (const StepTime& step : profile) EXPECT_GT(step.microseconds, 0);
  const std::vector<double> times = executor->time_steps(0, 5);
  ASSERT_EQ(times.size(), 5u);
  for (const double time : times) EXPECT_GT(time, 0);
  EXPECT_EQ(executor->read_state("sum").at(0), 10);
  executor->submit();
  EXPECT_EQ(executor->poll(Wait::yes)->outputs.at("total").at(0), 11);
}

TEST_F(GpuTest, MemoryIsReported) {
  ModelBuilder builder = accumulator();
  builder.buffer(BufferKind::scratch, "scratch", {DType::u8, {1 << 24}});
  const MemoryReport memory = builder.make()->memory();
  EXPECT_EQ(memory.state_bytes, 4);
  EXPECT_EQ(memory.scratch_bytes, 1 << 24);
  EXPECT_GE(memory.measured_bytes, 1 << 24);
}

TEST_F(GpuTest, APlanLargerThanTheDeviceNamesItsLargestBuffers) {
  ModelBuilder builder = accumulator();
  builder.buffer(BufferKind::state, "moments", {DType::f32, {int64_t{1} << 44}});
  builder.buffer(BufferKind::state, "weights", {DType::f32, {int64_t{1} << 43}});
  EXPECT_THAT(error_of([&] { builder.make(); }),
              AllOf(HasSubstr("device memory"), HasSubstr("'moments' 64.0 TiB, state 'weights' 32.0 TiB")));
}

TEST_F(GpuTest, KernelsForAnotherArchitectureAreRefused) {
  ModelBuilder builder = accumulator();
  builder.model().architecture = "sm_999";
  EXPECT_THAT(error_of([&] { builder.make(); }), HasSubstr("sm_999"));
  builder.model().architecture = "x86-64";
  EXPECT_THAT(error_of([&] { builder.make(); }), HasSubstr("x86-64"));
}

TEST_F(GpuTest, BrokenKernelsAreReportedWithTheCompilersWord) {
  ModelBuilder builder = accumulator();
  builder.model().kernels.insert(builder.model().kernels.find("  ret;"), "  no_such_instruction;\n");
  EXPECT_THAT(error_of([&] { builder.make(); }), HasSubstr("ptxas"));
}

TEST_F(GpuTest, AMissingKernelNamesItsNode) {
  ModelBuilder builder(kKernels);
  builder.step(launch("absent", {}));
  EXPECT_THAT(error_of([&] { builder.make(); }), AllOf(HasSubstr("'absent'"), HasSubstr("the node")));
}

TEST_F(GpuTest, AnUnknownDeviceIndexIsRefused) {
  ExecutorOptions options;
  options.device_index = 1000;
  EXPECT_THAT(error_of([&] { accumulator().make(options); }), HasSubstr("1000"));
}

TEST_F(GpuTest, TheProbeKnowsTheDevice) {
  const CudaProbe probe = probe_cuda(0);
  EXPECT_TRUE(probe.available) << probe.reason;
  EXPECT_THAT(probe.architecture, testing::StartsWith("sm_"));
  EXPECT_THAT(probe.libraries, AllOf(HasSubstr("cuBLASLt 1"), HasSubstr("cuDNN 9.")));
  EXPECT_GT(probe.memory_bytes, 0);
  EXPECT_THAT(probe_cuda(1000).reason, HasSubstr("1000"));
}

TEST(WithoutGpu, TheProbeSaysWhy) {
  if (driver_device_count() > 0) GTEST_SKIP() << "there is a GPU";
  EXPECT_FALSE(probe_cuda(0).available);
  EXPECT_THAT(probe_cuda(0).reason, AllOf(HasSubstr("cuda"), HasSubstr("cpu")));
}

TEST(WithoutGpu, CudasLibrariesAreNotLoadedForAMissingDriver) {
  if (::dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr) GTEST_SKIP() << "there is a driver";
  EXPECT_THAT(probe_cuda(0).reason, HasSubstr("there is no CUDA driver"));
  EXPECT_EQ(::dlopen("libhalfstep_cuda.so", RTLD_NOLOAD | RTLD_LAZY), nullptr);
}

TEST(WithoutGpu, TheCudaDeviceIsOneClearError) {
  if (driver_device_count() > 0) GTEST_SKIP() << "there is a GPU";
  EXPECT_THAT(error_of([] { accumulator().make(); }), AllOf(HasSubstr("cuda"), HasSubstr("cpu")));
}

}  // namespace
}  // namespace halfstep
