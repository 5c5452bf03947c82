// The API's codes of element types.
#pragma once

#include <string>

#include "base/dtype.h"
#include "include/halfstep/halfstep.h"

namespace halfstep {

// In the order of DType, after HALFSTEP_NO_DTYPE.
static_assert(static_cast<int>(DType::f16) + 1 == HALFSTEP_F16 &&
              static_cast<int>(DType::boolean) + 1 == HALFSTEP_BOOL && static_cast<int>(DType::u8) + 1 == HALFSTEP_U8 &&
              kDTypeCount == HALFSTEP_BOOL);
inline halfstep_dtype code_of(DType type) { return static_cast<halfstep_dtype>(type) + 1; }
// "f32", or "type 12".
inline std::string dtype_text(halfstep_dtype code) {
  if (code < HALFSTEP_F16 || code > HALFSTEP_BOOL) return "type " + std::to_string(code);
  return std::string(name(static_cast<DType>(code - 1)));
}

}  // namespace halfstep
