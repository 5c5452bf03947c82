// Kernels for the GPU as text: what must be seen in the PTX, and that ptxas, where it is installed, takes it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "codegen/emit/module.h"
#include "codegen/target/constant_divisions.h"
#include "ir/op.h"
#include "ir/text.h"
#include "tests/op_samples.h"

namespace halfstep {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Compiled {
  std::vector<EmittedRegion> regions;
  std::string ptx;
};

Compiled compile(const std::vector<std::string>& texts, const std::string& architecture = "sm_80") {
  KernelModule module({DeviceKind::cuda, architecture});
  Compiled c;
  for (const std::string& text : texts) c.regions.push_back(module.emit(parse_graph(text)));
  c.ptx = module.finish();
  return c;
}

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return text;
  for (char line[512]; std::fgets(line, sizeof line, pipe);) text += line;
  text += pclose(pipe) == 0 ? "" : "(failed)";
  return text;
}

// What `ptxas -v` says of a module; empty where there is no ptxas.
std::string assemble(const std::string& ptx, const std::string& architecture = "sm_80") {
  if (output_of("command -v ptxas").find("ptxas") == std::string::npos) return "";
  const TemporaryDirectory directory;
  const std::string path = directory.path() / "kernels.ptx";
  std::ofstream(path) << ptx;
  return output_of("ptxas -v -arch=" + architecture + " -o /dev/null " + path);
}

void expect_assembles(const std::string& ptx, const std::string& architecture = "sm_80") {
  const std::string report = assemble(ptx, architecture);
  if (report.empty()) GTEST_SKIP() << "ptxas is not installed";
  EXPECT_THAT(report, Not(HasSubstr("(failed)"))) << ptx;
  for (size_t at = 0; (at = report.find("spill stores", at)) != std::string::npos; ++at)
    EXPECT_THAT(report.substr(at - std::min<size_t>(at, 9), 21), HasSubstr(" 0 bytes spill")) << report;
}

TEST(Ptx, EightSinglesThatBecomeDoublesAreLoadedInTwoPieces) {
  const Compiled c = compile({R"(graph sines {
    %x = input() {name="0"} : f32[4096,4096]
    %y = sin(%x)
    %z = cast(%y) {to=bf16}
    output "0" = %z
  })"});
  EXPECT_THAT(c.ptx, HasSubstr("ld.global.nc.v4.f32"));
  EXPECT_THAT(c.ptx, HasSubstr("st.global.v4.b32"));
}

constexpr const char* kBias = R"(graph bias {
  %x = input() {name="0"} : f16[4096,64]
  %b = input() {name="1"} : f16[64]
  %r = reshape(%b) {shape=[1,64]}
  %w = broadcast(%r) {shape=[4096,64]}
  %s = add(%x, %w)
  %y = relu(%s)
  output "0" = %y
})";

TEST(Ptx, HalvesMoveSixteenBytesAtATime) {
  const Compiled c = compile({kBias});
  EXPECT_THAT(c.ptx, HasSubstr(".target sm_80"));
  EXPECT_THAT(c.ptx, HasSubstr(".visible .entry pointwise_0("));
  EXPECT_THAT(c.ptx, HasSubstr(".maxntid 128"));
  EXPECT_THAT(c.ptx, HasSubstr("ld.global.v4.b32"));
  EXPECT_THAT(c.ptx, HasSubstr("ld.global.nc.v4.u32"));  // the bias: nothing can overwrite it
  EXPECT_THAT(c.ptx, HasSubstr("st.global.v4.b32"));
  EXPECT_THAT(c.ptx, HasSubstr("cvt.rn.f16x2.f32"));
  EXPECT_THAT(c.ptx, HasSubstr("max.NaN.f32"));
  const EmittedLaunch& launch = c.regions[0].launches.at(0);
  EXPECT_EQ(launch.grid[0] * launch.block * 8, 4096 * 64);
}

int64_t count(const std::string& text, std::string_view part) {
  int64_t found = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++found;
  return found;
}

// Rows of 13 vectors, 20 of which are a stride of 260 threads.
TEST(Ptx, LargeRowsShareWhatTheyRead) {
  const Compiled c = compile({R"(graph bias {
    %x = input() {name="0"} : f16[260000,104]
    %b = input() {name="1"} : f16[104]
    %r = reshape(%b) {shape=[1,104]}
    %w = broadcast(%r) {shape=[260000,104]}
    %y = add(%x, %w)
    output "0" = %y
  })"});
  EXPECT_EQ(count(c.ptx, "ld.global.nc.v4"), 1) << "the bias";
  EXPECT_EQ(count(c.ptx, "ld.global.v4"), 4);
  EXPECT_EQ(count(c.ptx, "st.global.v4"), 4);
  const EmittedLaunch& launch = c.regions[0].launches.at(0);
  EXPECT_EQ(launch.grid[0], (260000 / 20 / 4 * 260 + 255) / 256);
  expect_assembles(c.ptx);
}

// All lanes of a vector are of one piece: both are loaded, that which is not wanted from its beginning.
TEST(Ptx, PiecesOfWholeVectorsNeedNoBranches) {
  const Compiled c = compile({R"(graph pieces {
    %x = input() {name="0"} : f16[65536,64]
    %y = input() {name="1"} : f16[65536,32]
    %c = concat(%x, %y) {axis=1}
    output "0" = %c
  })"});
  EXPECT_EQ(count(c.ptx, "bra"), 0) << c.ptx;
  EXPECT_EQ(count(c.ptx, "ld.global.nc.v4"), 2);
  EXPECT_EQ(count(c.ptx, "st.global.v4"), 1);
  expect_assembles(c.ptx);
}

// A thread makes whole pixels, and its neighbours the next ones.
TEST(Ptx, ChannelsInPlanesAreReadBesideEachOther) {
  const Compiled c = compile({R"(graph image {
    %x = input() {name="0"} : f32[64,3,64,64]
    %t = transpose(%x) {permutation=[0,2,3,1]}
    %p = pad(%t) {low=[0,0,0,0], high=[0,0,0,1]}
    %y = cast(%p) {to=f16}
    output "0" = %y
  })"});
  EXPECT_EQ(count(c.ptx, "st.global.v4.b16"), 1) << c.ptx;
  const EmittedLaunch& launch = c.regions[0].launches.at(0);
  EXPECT_EQ(launch.grid[0] * launch.block, 64 * 64 * 64);
  expect_assembles(c.ptx);
}

// The stores may be to an operand's memory: loads that come behind them would wait.
TEST(Ptx, ColumnsLoadWhatTheyStoreBefore) {
  const std::string ptx = compile({R"(graph columns {
    %x = input() {name="0"} : f16[401408,64]
    %m = input() {name="1"} : f16[401408,64]
    %a = input() {name="2"} : f16[401408,64]
    %b = input() {name="3"} : f16[401408,64]
    %p = mul(%x, %m)
    %q = mul(%a, %b)
    %y = add(%p, %q)
    %f = cast(%y) {to=f32}
    %s = reduce_sum(%f) {axes=[0]}
    output "0" = %y
    output "1" = %s
  })"})
                              .ptx;
  EXPECT_GE(count(ptx.substr(0, ptx.find("st.global")), "ld.global"), 2 * 4) << "two steps of four operands";
  expect_assembles(ptx);
}

// What was computed again for a mask alone, and what is chosen among values of the low type.
TEST(Ptx, MasksAndChoicesAreNotRounded) {
  const std::string ptx = compile({R"(graph mask {
    %x = input() {name="0"} : f32[65536]
    %d = input() {name="1"} : f16[65536]
    %h = cast(%x) {to=f16}
    %r = relu(%h)
    %w = cast(%r) {to=f32}
    %z = constant() {value=f32[1](0)}
    %zero = broadcast(%z) {shape=[65536]}
    %m = less(%zero, %w)
    %f = cast(%d) {to=f32}
    %s = select(%m, %f, %zero)
    %g = cast(%s) {to=f16}
    %t = cast(%g) {to=f32}
    %y = add(%t, %x)
    output "0" = %y
  })"})
                              .ptx;
  EXPECT_EQ(count(ptx, "cvt.rn"), 0) << ptx;
  EXPECT_EQ(count(ptx, "max"), 1) << "of .maxntid";
  expect_assembles(ptx);
}

TEST(Ptx, UnalignedRowsFallBackToSingleElements) {
  const Compiled c = compile({R"(graph odd {
    %x = input() {name="0"} : f16[4096,63]
    %b = input() {name="1"} : f16[63]
    %r = reshape(%b) {shape=[1,63]}
    %w = broadcast(%r) {shape=[4096,63]}
    %y = add(%x, %w)
    output "0" = %y
  })"});
  EXPECT_THAT(c.ptx, Not(HasSubstr("v4")));
  EXPECT_THAT(c.ptx, HasSubstr("ld.global.b16"));
}

TEST(Ptx, RowsStayInRegistersAndAreCombinedByShuffles) {
  const Compiled c = compile({R"(graph softmax {
    %x = input() {name="0"} : f16[4096,512]
    %f = cast(%x) {to=f32}
    %m = reduce_max(%f) {axes=[1]}
    %w = broadcast(%m) {shape=[4096,512]}
    %s = sub(%f, %w)
    %e = exp(%s)
    %t = reduce_sum(%e) {axes=[1]}
    %u = broadcast(%t) {shape=[4096,512]}
    %p = div(%e, %u)
    %y = cast(%p) {to=f16}
    output "0" = %y
  })"});
  EXPECT_THAT(c.ptx, HasSubstr("shfl.sync.bfly.b32"));
  EXPECT_EQ(count(c.ptx, "ld.global"), 2) << "a warp holds 512 halves as two vectors a thread, read once";
  EXPECT_THAT(c.ptx, Not(HasSubstr("bar.sync")));
  expect_assembles(c.ptx);
}

// Where the classes end within a row, or a label is, few vectors say: the others' lanes are not compared.
TEST(Ptx, LongRowsCompareWhereTheyMust) {
  const std::string ptx = compile({R"(graph loss {
    %x = input() {name="0"} : f16[4096,50264]
    %l = input() {name="1"} : i64[4096,1]
    %p = iota() {shape=[4096,50264], axis=1}
    %e = constant() {value=i64[1,1](50257)}
    %end = broadcast(%e) {shape=[4096,50264]}
    %inside = less(%p, %end)
    %i = constant() {value=f16[1,1](-inf)}
    %none = broadcast(%i) {shape=[4096,50264]}
    %h = select(%inside, %x, %none)
    %f = cast(%h) {to=f32}
    %m = reduce_max(%f) {axes=[1]}
    %w = broadcast(%m) {shape=[4096,50264]}
    %s = sub(%f, %w)
    %d = broadcast(%l) {shape=[4096,50264]}
    %o = eq(%p, %d)
    %z = constant() {value=f32[1,1](0)}
    %zero = broadcast(%z) {shape=[4096,50264]}
    %q = select(%o, %s, %zero)
    %r = reduce_sum(%q) {axes=[1]}
    output "0" = %r
  })"})
                              .ptx;
  const size_t picked = ptx.find("bar.sync");
  EXPECT_EQ(count(ptx.substr(0, picked), "selp"), 0) << ptx;
  EXPECT_EQ(count(ptx.substr(picked, ptx.find("selp", picked) - picked), "setp.lt.u64"), 1) << ptx;
  expect_assembles(ptx);
}

// Halves are compared in pairs, their softmax takes the GPU's power of two, and what a block gets of shared memory has
// as many steps of the row as fit.
TEST(Ptx, LongRowsOfHalvesStayOnTheProcessor) {
  for (const char* type : {"f16", "bf16"}) {
    const std::string low = type;
    const Compiled c = compile({"graph softmax {\n %x = input() {name=\"0\"} : " + low + R"([4096,32768]
      %f = cast(%x) {to=f32}
      %m = reduce_max(%f) {axes=[1]}
      %w = broadcast(%m) {shape=[4096,32768]}
      %s = sub(%f, %w)
      %e = exp(%s)
      %t = reduce_sum(%e) {axes=[1]}
      %u = broadcast(%t) {shape=[4096,32768]}
      %y = div(%e, %u)
      %z = cast(%y) {to=)" + low +
                                R"(}
      output "0" = %z
    })"});
    EXPECT_THAT(c.ptx, HasSubstr("max.NaN." + low + "x2"));
    EXPECT_THAT(c.ptx, Not(HasSubstr("fma.rm")));  // of exponentials of any f32
    EXPECT_THAT(c.ptx, HasSubstr(".extern .shared .align 16 .b8 kept_row[];"));
    EXPECT_THAT(c.ptx, HasSubstr("%dynamic_smem_size"));
    EXPECT_THAT(c.ptx, HasSubstr("ld.shared.v4.b32"));
    EXPECT_EQ(c.regions[0].launches[0].shared, 65536);
    expect_assembles(c.ptx);
  }
}

// What all lanes of a vector have alike, as a quotient of their place, is one comparison; masks stand behind no branch.
TEST(Ptx, LongRowsOfBlocksThatAreChosenWhole) {
  const std::string ptx = compile({R"(graph g {
    %x = input() {name="0"} : f32[4096,2048]
    %l = input() {name="1"} : i64[32]
    %1 = reshape(%l) {shape=[32,1]}
    %2 = broadcast(%1) {shape=[32,64]}
    %3 = reshape(%2) {shape=[1,2048]}
    %4 = broadcast(%3) {shape=[4096,2048]}
    %k = constant() {value=i64[1,1](3)}
    %5 = broadcast(%k) {shape=[4096,2048]}
    %o = eq(%4, %5)
    %z = constant() {value=f32[1,1](0)}
    %zero = broadcast(%z) {shape=[4096,2048]}
    %q = select(%o, %x, %zero)
    %r = reduce_sum(%q) {axes=[1]}
    output "0" = %r
  })"})
                              .ptx;
  EXPECT_NE(ptx.find("setp.eq.s64"), std::string::npos) << ptx;
  expect_assembles(ptx);
}

// What takes many registers by itself is not held to 64 of them.
TEST(Ptx, ColumnsOfLargeFunctionsMayTakeTheirRegisters) {
  const auto columns = [](const std::string& function) {
    return compile({R"(graph g {
      %x = input() {name="0"} : f16[25216,3072]
      %f = )" + function +
                    R"((%x)
      %c = cast(%f) {to=f32}
      %s = reduce_sum(%c) {axes=[0]}
      output "y" = %f
      output "s" = %s
    })"})
        .ptx;
  };
  EXPECT_NE(columns("gelu").find(".minnctapersm"), std::string::npos);
  EXPECT_EQ(columns("sin").find(".minnctapersm"), std::string::npos);
  EXPECT_EQ(columns("softplus").find(".minnctapersm"), std::string::npos);
}

// A second launch takes longer than the few positions that each thread of the first one would have.
TEST(Ptx, ColumnsOfFewPositionsAreOneLaunch) {
  const auto sum = [](int64_t rows) {
    return R"(graph g {
  %0 = input() {name="0"} : f16[)" +
           std::to_string(rows) + R"(,512]
  %1 = cast(%0) {to=f32}
  %2 = reduce_sum(%1) {axes=[0]}
  output "s" = %2
})";
  };
  const Compiled c = compile({sum(128), sum(16384)});
  EXPECT_EQ(c.regions[0].launches.size(), 1u);
  ASSERT_EQ(c.regions[1].launches.size(), 2u);
  // The second launch reads what the first one writes.
  const std::vector<EmittedArgument>&first = c.regions[1].launches[0].arguments,
        &second = c.regions[1].launches[1].arguments;
  using Kind = EmittedArgument::Kind;
  EXPECT_THAT(first, testing::Contains(EmittedArgument{Kind::partial, 0, true}));
  EXPECT_THAT(second, testing::Contains(EmittedArgument{Kind::partial, 0, false}));
}

TEST(Ptx, ColumnsAreCombinedInSharedMemoryAndByASecondLaunch) {
  const Compiled c = compile({R"(graph statistics {
    %x = input() {name="0"} : f16[401408,64]
    %f = cast(%x) {to=f32}
    %q = mul(%f, %f)
    %s = reduce_sum(%f) {axes=[0]}
    %t = reduce_sum(%q) {axes=[0]}
    output "0" = %s
    output "1" = %t
  })"});
  ASSERT_EQ(c.regions[0].launches.size(), 2u);
  EXPECT_GE(c.regions[0].launches[0].grid[0], 256);
  EXPECT_THAT(c.ptx, HasSubstr("st.shared"));
  EXPECT_THAT(c.ptx, HasSubstr("bar.sync"));
  EXPECT_THAT(c.ptx, HasSubstr("v4"));
  expect_assembles(c.ptx);
}

// The embedding gradient of a GPT-2: zeros, leaders, sums by segment, rows.
TEST(Ptx, ScattersNeedNoAtomics) {
  const Compiled c = compile({R"(graph embedding {
    %i = input() {name="0"} : i64[8,1024]
    %g = input() {name="1"} : f16[8,1024,768]
    %z = constant() {value=f32[](0)}
    %a = reshape(%z) {shape=[1,1]}
    %zeros = broadcast(%a) {shape=[50257,768]}
    %y = scatter(%zeros, %i, %g) {axis=0, reduction="add"}
    output "0" = %y
  })"});
  ASSERT_EQ(c.regions[0].launches.size(), 4u);
  EXPECT_EQ(c.regions[0].launches[0].bytes, 50257 * 768 * 4);
  EXPECT_LE(c.regions[0].launches[3].bytes, 8192 * 768 * 12 + 8192 * 12) << "only the rows that are named";
  EXPECT_EQ(c.regions[0].partial_bytes, (std::vector<int64_t>{8192 * 4, 8192 * 768 * 4}));
  EXPECT_THAT(c.ptx, HasSubstr("vote.sync.ballot.b32"));
  EXPECT_THAT(c.ptx, HasSubstr("ld.global.nc.v4"));
  EXPECT_THAT(c.ptx, Not(HasSubstr("atom")));
  EXPECT_THAT(c.ptx, Not(HasSubstr("red.")));
  expect_assembles(c.ptx);
}

// What ptxas would put into the product's own instruction, and then take for another sum (constant_divisions.h).
TEST(Ptx, NothingIsAddedToTheUpperHalfOfAProduct) {
  std::string concat = "graph pieces {\n", operands;
  for (int piece = 0; piece < 8; ++piece) {
    const std::string number = std::to_string(piece), rows = std::to_string(1 + piece * 5 % 7);
    concat += "  %" + number + " = input() {name=\"" + number + "\"} : f32[" + rows + ",33]\n";
    operands += (piece > 0 ? ", %" : "%") + number;
  }
  concat += "  %c = concat(" + operands + ") {axis=0}\n  %s = reduce_sum(%c) {axes=[0,1]}\n  output \"0\" = %s\n}\n";
  const std::string ptx = compile({concat}).ptx;
  EXPECT_THAT(ptx, testing::ContainsRegex("(mul.wide.u32|mul.hi.u32)")) << "rows are numbers divided by 33";
  std::istringstream lines(ptx);
  for (std::string line; std::getline(lines, line);) {
    const size_t product = line.find("mul.hi.");
    if (product == std::string::npos) continue;
    const size_t begin = line.find('%', product), end = line.find(',', begin);
    const std::string high = line.substr(begin, end - begin);
    for (const std::string reader : {"add.s32 \t", "sub.s32 \t"})
      for (size_t at = ptx.find(reader); at != std::string::npos; at = ptx.find(reader, at + 1))
        EXPECT_THAT(ptx.substr(at, ptx.find(';', at) - at), Not(testing::ContainsRegex(high + "(,|$)"))) << line;
  }
  expect_assembles(ptx);
}

TEST(Ptx, ProductsForDivisionsAreExact) {
  for (uint32_t divisor : {3u, 5u, 6u, 7u, 9u, 14u, 33u, 100u, 641u, 65535u, 65537u, 0x7fffffffu, 0x80000001u, ~0u})
    for (unsigned bits : {4u, 11u, 31u, 32u}) {
      const DivisionProduct product = division_product(divisor, bits);
      EXPECT_GE(product.shift, 1u);
      const uint64_t most = ~uint32_t{0} >> (32 - bits), factor = product.factor;
      for (uint64_t k = 0; k < 500; ++k)
        for (uint64_t x :
             {k, most - k, k * (most / 500), k * divisor, k * divisor - 1, most / divisor * divisor - k % 2}) {
          x &= most;
          const uint64_t sum = (x * factor >> 32) + (product.beyond ? x : 0);
          ASSERT_EQ(sum >> product.shift, x / divisor) << x << " / " << divisor << " of " << bits << " bits";
        }
    }
}

TEST(Ptx, LargeTensorsAreIndexedWith64Bits) {
  const Compiled c = compile({R"(graph large {
    %x = input() {name="0"} : f16[50000,100000]
    %y = neg(%x)
    output "0" = %y
  })"});
  EXPECT_THAT(c.ptx, HasSubstr("mul.wide.u32"));
  EXPECT_EQ(c.regions[0].launches[0].grid[0], 50000LL * 100000 / 8 / 2 / 256 + 1) << "two vectors a thread";
  expect_assembles(c.ptx);
}

TEST(Ptx, EverySampleAssembles) {
  std::vector<std::string> texts;
  for (const char* type : {"f32", "f16", "bf16"})
    for (const OpSample& sample : op_samples()) {
      const KernelKind kind = op(sample.op).kernel;
      if (kind == KernelKind::pointwise || kind == KernelKind::movement || kind == KernelKind::reduction ||
          kind == KernelKind::window || kind == KernelKind::random)
        texts.push_back(sample_text(sample, type));
    }
  expect_assembles(compile(texts).ptx);
}

TEST(Ptx, NewerArchitectures) { expect_assembles(compile({kBias}, "sm_90").ptx, "sm_90"); }

TEST(Ptx, ElementaryFunctionsOfF64AreRefused) {
  EXPECT_THROW(compile({"graph f {\n %x = input() {name=\"0\"} : f64[8]\n %y = exp(%x)\n output \"0\" = %y\n}\n"}),
               InternalError);
}

}  // namespace
}  // namespace halfstep
