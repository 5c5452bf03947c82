#include "tests/table_kernels.h"

namespace halfstep {
namespace {

TEST(TableOnTheCpu, F32) { check_table_on(DeviceKind::cpu, DType::f32); }
TEST(TableOnTheCpu, F16) { check_table_on(DeviceKind::cpu, DType::f16); }
TEST(TableOnTheCpu, Bf16) { check_table_on(DeviceKind::cpu, DType::bf16); }
TEST(MemoryOnTheCpu, OfACopiedArena) { check_copied_arena_on(DeviceKind::cpu); }

}  // namespace
}  // namespace halfstep
