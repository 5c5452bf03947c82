// Scatters beyond the op table: long lists of indices, rows that many of them name, indices out of range.
#include "codegen/kernel/schedule.h"
#include "codegen/lower/lower.h"
#include "tests/codegen/compare.h"

namespace halfstep {
namespace {

std::string scatter(const std::string& data, const std::string& indices, const std::string& updates,
                    const std::string& attributes) {
  return "graph scatter {\n  %0 = input() {name=\"0\"} : " + data + "\n  %1 = input() {name=\"1\"} : " + indices +
         "\n  %2 = input() {name=\"2\"} : " + updates + "\n  %y = scatter(%0, %1, %2) {" + attributes +
         "}\n  output \"0\" = %y\n}\n";
}

TEST(Scatter, LongListsAreSummedInSegments) {
  const Graph region = parse_graph(scatter("f32[50,33]", "i64[3,700]", "f32[3,700,33]", "axis=0, reduction=\"add\""));
  const RegionRunner runner(region);
  EXPECT_EQ(runner.emitted().launches.size(), 3u);
  EXPECT_EQ(operand_written_over(region), 0u);
  for (int64_t rows : {50, 3, 1, 60})  // 60: some are out of range
    expect_as_interpreted(runner, random_leaves(region, 4, -2, 2, rows), 8);
}

TEST(Scatter, LowUpdatesOfOneRowAreSummedInSinglePrecision) {
  // 4096 updates of 1 + 2^-10: f16 sums would stop at 2048.
  for (const char* data : {"f32[2,8]", "f16[2,8]"}) {
    const Graph region = parse_graph(scatter(data, "i64[4096]", "f16[4096,8]", "axis=0, reduction=\"add\""));
    NamedTensors leaves = random_leaves(region, 1);
    leaves.at("1") = Tensor(leaves.at("1").type);
    for (int64_t i = 0; i < leaves.at("2").type.element_count(); ++i) leaves.at("2").set(i, 1 + 0x1p-10);
    const Tensor y = RegionRunner(region).run(leaves)[0];
    for (int64_t i = 0; i < 8; ++i) EXPECT_NEAR(y.at(i), 4100 + leaves.at("0").at(i), 2);
  }
}

TEST(Scatter, EverySplitOverUnitsGivesTheSameBits) {
  const Graph region = parse_graph(scatter("f32[4,9,20]", "i64[1500]", "f32[4,1500,20]", "axis=1, reduction=\"add\""));
  const RegionRunner runner(region);
  const NamedTensors leaves = random_leaves(region, 3, -2, 2, 9);
  EXPECT_EQ(runner.run(leaves, 1)[0].data, runner.run(leaves, 5)[0].data);
}

TEST(Scatter, IndicesOutOfRangeAreDropped) {
  for (const char* reduction : {"set", "add", "mul", "min", "max"}) {
    const Graph region =
        parse_graph(scatter("f32[4,3]", "i64[6]", "f32[6,3]", "axis=0, reduction=\"" + std::string(reduction) + "\""));
    NamedTensors leaves = random_leaves(region, 2);
    leaves.at("1") = Tensor::from_values({DType::i64, {6}}, std::vector<double>{-1, 4, 2, 1e12, -5, 0});
    expect_as_interpreted(RegionRunner(region), leaves);
  }
}

// A row that is written is read again: by a later index, as an update of the old data.
TEST(Scatter, UpdatesThatAreTheDataItselfAreItsOldRows) {
  for (const char* reduction : {"set", "add", "mul", "min", "max"}) {
    const Graph region = parse_graph(
        R"(graph scatter {
    %x = input() {name="0"} : f32[16]
    %i = input() {name="1"} : i64[16]
    %y = scatter(%x, %i, %x) {axis=0, reduction=")" +
        std::string(reduction) + R"("}
    output "0" = %y
  })");
    EXPECT_EQ(operand_written_over(region), std::nullopt);
    expect_as_interpreted(RegionRunner(region), random_leaves(region, 6, -2, 2, 16));
  }
}

TEST(Scatter, ComputedDataAndUpdatesAreReadInPlace) {
  expect_as_interpreted(R"(graph scatter {
    %i = input() {name="0"} : i64[3]
    %u = input() {name="1"} : f16[5,3]
    %z = constant() {value=f32[1](0)}
    %o = reshape(%z) {shape=[1,1]}
    %zeros = broadcast(%o) {shape=[7,5]}
    %t = transpose(%u) {permutation=[1,0]}
    %w = relu(%t)
    %y = scatter(%zeros, %i, %w) {axis=0, reduction="add"}
    output "0" = %y
  })",
                        -2, 2, 7);
}

// A table that a contraction and a gather read: its gradient is summed where the contraction wrote it, in the arena.
std::string tied(const std::string& more) {
  return R"(graph step {
  %h = input() {name="h"} : f32[64,16]
  %dy = input() {name="dy"} : f32[64,40]
  %i = input() {name="i"} : i64[64]
  %w = matmul(%dy, %h) {transpose_a=1}
  %s = fused(%w, %i, %h) {body=graph body {
    %0 = input() {name="0"} : f32[40,16]
    %1 = input() {name="1"} : i64[64]
    %2 = input() {name="2"} : f32[64,16]
    %3 = scatter(%0, %1, %2) {axis=0, reduction="add"}
    output "0" = %3
  }}
  %r = reshape(%s) {shape=[640]}
  %g = reshape(%h) {shape=[1024]}
  %a = concat(%g, %r) {axis=0}
  output "arena" = %a
)" + more +
         "}\n";
}

int copies(const Program& program, int64_t bytes) {
  int count = 0;
  for (const Step& step : program.steps)
    if (const Copy* copy = std::get_if<Copy>(&step.call)) count += copy->bytes == bytes;
  return count;
}

TEST(Scatter, WritesOverWhatNobodyElseReads) {
  KernelModule module({DeviceKind::cpu, host_cpu()});
  const Program program = lower(parse_graph(tied("")), "train", module).program;
  EXPECT_EQ(copies(program, 640 * 4), 0) << print(program);
  const Gemm& gemm = std::get<Gemm>(program.steps[0].call);
  EXPECT_EQ(gemm.c.offset, 1024 * 4) << "behind the arena's first piece";
  EXPECT_EQ(std::get<KernelLaunch>(program.steps[1].call).arguments.back(), gemm.c);
}

TEST(Scatter, WritesOverACopyOfWhatIsReadLater) {
  KernelModule module({DeviceKind::cpu, host_cpu()});
  const Program program = lower(parse_graph(tied("  output \"weight\" = %w\n")), "train", module).program;
  EXPECT_EQ(copies(program, 640 * 4), 1) << print(program);
}

}  // namespace
}  // namespace halfstep
