// Element types, their names and sizes, and conversion between half formats and float.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace halfstep {

enum class DType : uint8_t { f16, bf16, f32, f64, u8, i8, i32, i64, boolean };
inline constexpr int kDTypeCount = 9;

// The IR spelling: "f16", "bf16", "f32", "f64", "u8", "i8", "i32", "i64", "bool".
std::string_view name(DType type);
std::optional<DType> parse_dtype(std::string_view name);

// Bytes of one element.
int64_t size_of(DType type);

bool is_floating(DType type);
// f16 or bf16: the types autocast assigns as "low".
bool is_low(DType type);

// Round to nearest, ties to even; overflow gives infinity; NaN stays NaN; subnormals are kept.
uint16_t half_from_float(float value);
float float_from_half(uint16_t bits);
uint16_t bfloat16_from_float(float value);
float float_from_bfloat16(uint16_t bits);

// Reads or writes one element of any type as double. i64 beyond 2^53 loses low bits.
double load_as_double(DType type, const void* element);
// Integers saturate (NaN becomes 0); booleans store value != 0.
void store_from_double(DType type, void* element, double value);
// The value `value` has after one store and load as `type`.
double round_to(DType type, double value);

}  // namespace halfstep
