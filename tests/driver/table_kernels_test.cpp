#include "tests/table_kernels.h"

namespace halfstep {
namespace {

TEST(TableOnTheCpu, F32) { check_table_on(DeviceKind::cpu, DType::f32); }
TEST(TableOnTheCpu, F16) { check_table_on(DeviceKind::cpu, DType::f16); }
TEST(TableOnTheCpu, Bf16) { check_table_on(DeviceKind::cpu, DType::bf16); }

}  // namespace
}  // namespace halfstep
