#include "runtime/cuda/rows.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"

namespace halfstep {
namespace {

// Loads element `index` of the array at `base` into the accumulator-typed register `value`.
std::string load(DType type, bool wide, const char* base, const char* index, const char* value) {
  std::string text = fmt::format("  mad.lo.u64 %address, {}, {}, {};\n", index, size_of(type), base);
  const char* const single = wide ? "%single" : value;
  switch (type) {
    case DType::f16:
      text += fmt::format("  ld.global.b16 %half, [%address];\n  cvt.f32.f16 {}, %half;\n", single);
      break;
    case DType::bf16:  // the upper half of an f32
      text += fmt::format(
          "  ld.global.b16 %half, [%address];\n  cvt.u32.u16 %bits, %half;\n  shl.b32 %bits, %bits, 16;\n"
          "  mov.b32 {}, %bits;\n",
          single);
      break;
    case DType::f32:
      text += fmt::format("  ld.global.f32 {}, [%address];\n", single);
      break;
    case DType::f64:
      return text + fmt::format("  ld.global.f64 {}, [%address];\n", value);
    default:
      throw InternalError("rows: not a floating type");
  }
  return wide ? text + fmt::format("  cvt.f64.f32 {}, %single;\n", value) : text;
}

std::string store(DType type, bool wide, const char* value) {
  const char* const source = wide ? "f64" : "f32";
  switch (type) {
    case DType::f16:
      return fmt::format("  cvt.rn.f16.{} %half, {};\n  st.global.b16 [%address], %half;\n", source, value);
    case DType::bf16: {  // PTX has no conversion from f64
      const std::string narrow = wide ? fmt::format("  cvt.rn.f32.f64 %single, {};\n", value) : "";
      return narrow + fmt::format("  cvt.rn.bf16.f32 %half, {};\n  st.global.b16 [%address], %half;\n",
                                  wide ? "%single" : value);
    }
    case DType::f32:
      return wide ? fmt::format("  cvt.rn.f32.f64 %single, {};\n  st.global.f32 [%address], %single;\n", value)
                  : fmt::format("  st.global.f32 [%address], {};\n", value);
    case DType::f64:
      return fmt::format("  st.global.f64 [%address], {};\n", value);
    default:
      throw InternalError("rows: not a floating type");
  }
}

constexpr const char* kPrologue = R"(.version 7.0
.target sm_80
.address_size 64
.visible .entry rows(.param .u64 p_from, .param .u64 p_to, .param .u64 p_bias, .param .u64 p_from_rows,
                     .param .u64 p_from_columns, .param .u64 p_to_rows, .param .u64 p_to_columns)
{
  .reg .pred %outside, %more, %negative;
  .reg .b16 %half;
  .reg .b32 %x, %y, %width, %height, %block, %blocks, %bits;
  .reg .b64 %from, %to, %bias, %from_rows, %from_columns, %to_rows, %to_columns;
  .reg .b64 %row, %column, %row_step, %column_step, %first_column, %index, %address;
  .reg .f32 %single;
  ld.param.u64 %from, [p_from];
  ld.param.u64 %to, [p_to];
  ld.param.u64 %bias, [p_bias];
  ld.param.u64 %from_rows, [p_from_rows];
  ld.param.u64 %from_columns, [p_from_columns];
  ld.param.u64 %to_rows, [p_to_rows];
  ld.param.u64 %to_columns, [p_to_columns];
  cvta.to.global.u64 %from, %from;
  cvta.to.global.u64 %to, %to;
  cvta.to.global.u64 %bias, %bias;
  mov.u32 %x, %tid.x;
  mov.u32 %y, %tid.y;
  mov.u32 %width, %ntid.x;
  mov.u32 %height, %ntid.y;
  mov.u32 %block, %ctaid.x;
  mov.u32 %blocks, %nctaid.x;
  cvt.u64.u32 %first_column, %x;
  cvt.u64.u32 %column_step, %width;
  cvt.u64.u32 %index, %y;
  mul.wide.u32 %row, %block, %height;
  add.u64 %row, %row, %index;
  mul.wide.u32 %row_step, %blocks, %height;
next_row:
  setp.ge.u64 %more, %row, %to_rows;
  @%more bra done;
  mov.u64 %column, %first_column;
next_column:
  setp.ge.u64 %more, %column, %to_columns;
  @%more bra row_done;
)";

constexpr const char* kEpilogue = R"(  add.u64 %column, %column, %column_step;
  bra next_column;
row_done:
  add.u64 %row, %row, %row_step;
  bra next_row;
done:
  ret;
}
)";

constexpr int64_t kThreads = 256;

}  // namespace

std::string rows_ptx(const RowsFormat& format) {
  const bool wide = format.from == DType::f64 || format.to == DType::f64 || format.bias == DType::f64;
  const std::string type = wide ? "f64" : "f32";
  const char* const zero = wide ? "0d0000000000000000" : "0f00000000";
  std::string text = kPrologue;
  text.insert(text.find("  ld.param"), fmt::format("  .reg .{} %sum, %term;\n", type));
  text += fmt::format("  mov.{} %sum, {};\n", type, zero);
  text += "  setp.ge.u64 %outside, %row, %from_rows;\n  @%outside bra loaded;\n";
  text += "  setp.ge.u64 %outside, %column, %from_columns;\n  @%outside bra loaded;\n";
  text += "  mad.lo.u64 %index, %row, %from_columns, %column;\n";
  text += load(format.from, wide, "%from", "%index", "%sum");
  text += "loaded:\n";
  if (format.bias) {
    text += load(*format.bias, wide, "%bias", "%column", "%term");
    text += fmt::format("  add.rn.{} %sum, %sum, %term;\n", type);
  }
  text += "  mad.lo.u64 %index, %row, %to_columns, %column;\n";
  if (format.destination == Destination::accumulate) {
    text += load(format.to, wide, "%to", "%index", "%term");
    text += fmt::format("  add.rn.{} %sum, %sum, %term;\n", type);
  }
  if (format.activation == Activation::relu) {  // a comparison, so that NaN stays NaN
    text += fmt::format("  setp.lt.{} %negative, %sum, {};\n", type, zero);
    text += fmt::format("  @%negative mov.{} %sum, {};\n", type, zero);
  }
  text += fmt::format("  mad.lo.u64 %address, %index, {}, %to;\n", size_of(format.to));
  return text + store(format.to, wide, "%sum") + kEpilogue;
}

void RowsKernels::run(const RowsFormat& format, const RowsCall& call, const CudaStream& stream) {
  require(format.bias.has_value() == (call.bias != nullptr), "rows: a bias needs its type, and a type its bias");
  Kernel& kernel = kernels_[format];
  if (!kernel.module) {
    kernel.module = std::make_unique<CudaModule>(std::vector<std::string>{rows_ptx(format)});
    kernel.function = kernel.module->find("rows");
  }
  int64_t width = 1;
  while (width < call.to_columns && width < kThreads) width *= 2;
  const int64_t height = kThreads / width;
  const int64_t blocks = std::min(ceil_div(call.to_rows, height), int64_t{16} * multiprocessors_);
  RowsCall values = call;
  void* parameters[] = {&values.from,         &values.to,      &values.bias,      &values.from_rows,
                        &values.from_columns, &values.to_rows, &values.to_columns};
  kernel.module->launch(kernel.function, {blocks, 1, 1}, {width, height, 1}, 0, parameters, stream);
}

}  // namespace halfstep
