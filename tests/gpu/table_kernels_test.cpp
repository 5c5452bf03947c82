#include "tests/table_kernels.h"

#include "tests/gpu/gpu_test.h"

namespace halfstep {
namespace {

class TableOnTheGpu : public GpuTest {};

TEST_F(TableOnTheGpu, F32) { check_table_on(DeviceKind::cuda, DType::f32); }
TEST_F(TableOnTheGpu, F16) { check_table_on(DeviceKind::cuda, DType::f16); }
TEST_F(TableOnTheGpu, Bf16) { check_table_on(DeviceKind::cuda, DType::bf16); }
TEST_F(TableOnTheGpu, ManyRows) { check_many_rows_on(DeviceKind::cuda); }
TEST_F(TableOnTheGpu, MemoryOfACopiedArena) { check_copied_arena_on(DeviceKind::cuda); }

}  // namespace
}  // namespace halfstep
