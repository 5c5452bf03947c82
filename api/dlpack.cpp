// Tensors of DLPack, whose layout is fixed: github.com/dmlc/dlpack, version 1.
#include <string>

#include "api/dtypes.h"
#include "api/status.h"
#include "api/tensors.h"

namespace halfstep {
namespace {

struct DlpackTensor {
  void* data;
  struct {
    int32_t type, index;
  } device;
  int32_t rank;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
static_assert(sizeof(DlpackTensor) == 48);

struct DtypeRow {
  uint8_t code, bits;
  halfstep_dtype dtype;
};
constexpr DtypeRow kDtypes[] = {{2, 16, HALFSTEP_F16}, {4, 16, HALFSTEP_BF16}, {2, 32, HALFSTEP_F32},
                                {2, 64, HALFSTEP_F64}, {1, 8, HALFSTEP_U8},    {0, 8, HALFSTEP_I8},
                                {0, 32, HALFSTEP_I32}, {0, 64, HALFSTEP_I64},  {6, 8, HALFSTEP_BOOL}};

std::string text(const DlpackTensor& tensor) {
  constexpr const char* kCodes[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
  const size_t code = tensor.dtype.code;
  return (code < std::size(kCodes) ? kCodes[code] : "type " + std::to_string(code) + " of ") +
         std::to_string(tensor.dtype.bits) +
         (tensor.dtype.lanes == 1 ? "" : " in vectors of " + std::to_string(tensor.dtype.lanes));
}

}  // namespace

void read_dlpack(const void* dltensor, halfstep_tensor& tensor) {
  const DlpackTensor& from = given(static_cast<const DlpackTensor*>(dltensor), "dltensor");
  if (from.rank < 0) throw ArgumentError("a DLPack tensor of rank " + std::to_string(from.rank));
  for (const DtypeRow& row : kDtypes)
    if (row.code == from.dtype.code && row.bits == from.dtype.bits && from.dtype.lanes == 1) {
      tensor = {.name = tensor.name,
                .dtype = row.dtype,
                .rank = static_cast<size_t>(from.rank),
                .shape = from.shape,
                .strides = from.strides,
                .data = from.data == nullptr ? nullptr : static_cast<std::byte*>(from.data) + from.byte_offset,
                .device = from.device.type,
                .device_index = from.device.index};
      return;
    }
  throw ArgumentError("a DLPack tensor of " + text(from) +
                      ": no step takes that type; there are f16, bf16, f32, f64, u8, i8, i32, i64 and bool");
}

}  // namespace halfstep
