#include "codegen/emit/module.h"

#include <gmock/gmock.h>

#include "tests/codegen/compare.h"
#include "tests/op_samples.h"

namespace halfstep {
namespace {

using testing::HasSubstr;

std::string error_of(const KernelTarget& target) {
  try {
    KernelModule module(target);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(Targets, WhatIsUnknownOrTooOldIsAnError) {
  EXPECT_THAT(error_of({DeviceKind::cpu, "pentium-eleven"}), HasSubstr("CPU 'pentium-eleven' is unknown"));
  EXPECT_THAT(error_of({DeviceKind::cpu, "x86-64"}), HasSubstr("x86-64-v3 or later"));
  EXPECT_THAT(error_of({DeviceKind::cuda, "sm_70"}), HasSubstr("sm_80 or later"));
  EXPECT_THAT(error_of({DeviceKind::cuda, "sm_80x"}), HasSubstr("sm_80 or later"));
  EXPECT_THAT(error_of({DeviceKind::cuda, ""}), HasSubstr("sm_80 or later"));
  EXPECT_EQ(error_of({DeviceKind::cuda, "sm_90a"}), "");
  EXPECT_EQ(error_of({DeviceKind::cpu, host_cpu()}), "");
}

Graph relu(const std::string& name) {
  return parse_graph("graph " + name + " {\n %x = input() {name=\"0\"} : f16[5,40]\n %y = relu(%x) @\"" + name +
                     "\"\n output \"0\" = %y\n}\n");
}

TEST(Module, RegionsOfOneStructureShareAKernel) {
  KernelModule module({DeviceKind::cpu, host_cpu()});
  const std::string first = module.emit(relu("a")).launches.at(0).kernel;
  EXPECT_EQ(module.emit(relu("b")).launches.at(0).kernel, first);
  const Graph other =
      parse_graph("graph c {\n %x = input() {name=\"0\"} : f16[5,41]\n %y = relu(%x)\n output \"0\" = %y\n}\n");
  EXPECT_NE(module.emit(other).launches.at(0).kernel, first);
}

TEST(Module, AnOutputMayLieOverAnOperandThatIsReadWhereItIsWritten) {
  struct Case {
    const char* body;
    std::vector<Overlay> overlays;
  };
  const Case cases[] = {
      {"%y = relu(%x)\n output \"0\" = %y", {{0, 0}}},
      {"%y = transpose(%x) {permutation=[1,0]}\n output \"0\" = %y", {}},
      {"%y = cast(%x) {to=f16}\n output \"0\" = %y", {}},
      {"%s = reduce_sum(%x) {axes=[1]}\n %b = broadcast(%s) {shape=[40,40]}\n %y = sub(%x, %b)\n output \"0\" = %y",
       {{0, 0}}},
      {"%s = reduce_sum(%x) {axes=[1]}\n output \"0\" = %s", {}},
      {"%t = transpose(%x) {permutation=[1,0]}\n %y = add(%x, %t)\n output \"0\" = %y", {}},
  };
  for (const KernelTarget& target :
       {KernelTarget{DeviceKind::cpu, host_cpu()}, KernelTarget{DeviceKind::cuda, "sm_80"}})
    for (const Case& c : cases) {
      KernelModule module(target);
      const std::string text = "graph g {\n %x = input() {name=\"0\"} : f32[40,40]\n " + std::string(c.body) + "\n}\n";
      EXPECT_EQ(module.emit(parse_graph(text)).overlays, c.overlays) << text;
    }
}

TEST(Module, EmptyOutputsNeedNoLaunch) {
  KernelModule module({DeviceKind::cpu, host_cpu()});
  EXPECT_TRUE(module
                  .emit(parse_graph("graph e {\n %x = input() {name=\"0\"} : f16[0,3]\n %y = relu(%x)\n"
                                    " output \"0\" = %y\n}\n"))
                  .launches.empty());
}

TEST(Module, ARegionWithoutAFormNamesItself) {
  KernelModule module({DeviceKind::cpu, host_cpu()});
  for (const char* text : {R"(graph two_sizes {
           %x = input() {name="0"} : f32[4]
           %y = input() {name="1"} : f32[5]
           %a = neg(%x)
           %b = neg(%y)
           output "0" = %a
           output "1" = %b
         })",
                           R"(graph two_axes {
           %x = input() {name="0"} : f32[4,6]
           %a = reduce_sum(%x) {axes=[0]}
           %b = reduce_sum(%x) {axes=[1]}
           output "0" = %a
           output "1" = %b
         })",
                           R"(graph other_row {
           %x = input() {name="0"} : f32[4,4]
           %a = reduce_sum(%x) {axes=[1]}
           %t = transpose(%a) {permutation=[1,0]}
           %w = broadcast(%t) {shape=[4,4]}
           %b = sub(%x, %w)
           output "0" = %b
         })"}) {
    const Graph region = parse_graph(text);
    try {
      module.emit(region);
      ADD_FAILURE() << "accepted " << region.name();
    } catch (const InternalError& e) {
      EXPECT_THAT(e.what(), HasSubstr("region '" + region.name() + "' is no kernel"));
    }
  }
}

TEST(Module, TextShowsWhatWasEmitted) {
  KernelModule module({DeviceKind::cpu, "x86-64-v4"});
  module.emit(relu("a"));
  EXPECT_THAT(module.ir_text(), HasSubstr("define void @pointwise_0(ptr"));
}

TEST(Module, NamesTellWhatReadsElementsManyTimes) {
  KernelModule module({DeviceKind::cuda, "sm_90"});
  const auto name_of = [&](const std::string& input, const std::string& rest) {
    const Graph region = parse_graph("graph r {\n %x = input() {name=\"0\"} : " + input + "\n" + rest + "\n}\n");
    return module.emit(region).launches.at(0).kernel;
  };
  const auto sum_of_slices = [&](const std::string& first, const std::string& second) {
    return name_of("f32[6]", " %a = slice(%x) {" + first + ", steps=[1]}\n %b = slice(%x) {" + second +
                                 ", steps=[1]}\n %y = add(%a, %b)\n output \"0\" = %y");
  };
  EXPECT_EQ(name_of("f32[2,6,7,3]",
                    " %m, %i = max_pool(%x) {window=[2,2], strides=[2,2]}\n output \"0\" = %m\n output \"1\" = %i"),
            "pointwise_window_0");
  EXPECT_EQ(sum_of_slices("starts=[0], limits=[5]", "starts=[1], limits=[6]"), "pointwise_window_1");
  EXPECT_EQ(sum_of_slices("starts=[0], limits=[3]", "starts=[3], limits=[6]"), "pointwise_2");
}

// Kernels for a processor without AVX-512 run on one that has it.
TEST(Module, AnotherProcessorCanBeNamed) {
  for (const OpSample& sample : op_samples()) {
    const KernelKind kind = op(sample.op).kernel;
    if (kind == KernelKind::leaf || kind == KernelKind::composite || kind == KernelKind::gemm ||
        kind == KernelKind::convolution || kind == KernelKind::attention || kind == KernelKind::recurrent)
      continue;
    const Graph region = parse_graph(sample_text(sample, "f16"));
    const RegionRunner runner(region, {DeviceKind::cpu, "x86-64-v3"});
    expect_as_interpreted(runner, random_leaves(region, 5, sample.low, sample.high, sample.bound));
  }
}

}  // namespace
}  // namespace halfstep
