#include "base/dtype.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace halfstep {
namespace {

struct DTypeRow {
  DType type;
  std::string_view name;
  int64_t size;
  bool floating;
};

constexpr std::array<DTypeRow, kDTypeCount> kRows{{{DType::f16, "f16", 2, true},
                                                   {DType::bf16, "bf16", 2, true},
                                                   {DType::f32, "f32", 4, true},
                                                   {DType::f64, "f64", 8, true},
                                                   {DType::u8, "u8", 1, false},
                                                   {DType::i8, "i8", 1, false},
                                                   {DType::i32, "i32", 4, false},
                                                   {DType::i64, "i64", 8, false},
                                                   {DType::boolean, "bool", 1, false}}};

const DTypeRow& row(DType type) { return kRows[static_cast<size_t>(type)]; }

template <typename T>
T load(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
void store(void* p, T v) {
  std::memcpy(p, &v, sizeof v);
}

template <typename T>
T saturate(double v) {
  if (std::isnan(v)) return 0;
  if (v <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (v >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(v);
}

// A double rounded once to a 16-bit format must not pass through float first (double rounding): round to odd in
// float keeps the sticky bit, so the second rounding is the only one that counts.
float float_round_to_odd(double value) {
  float f = static_cast<float>(value);
  if (std::isnan(value) || static_cast<double>(f) == value) return f;
  if (std::isinf(f)) return std::copysign(std::numeric_limits<float>::max(), f);
  uint32_t bits = std::bit_cast<uint32_t>(f);
  if (std::abs(static_cast<double>(f)) > std::abs(value)) bits -= 1;
  return std::bit_cast<float>(bits | 1u);
}

}  // namespace

std::string_view name(DType type) { return row(type).name; }

std::optional<DType> parse_dtype(std::string_view text) {
  for (const DTypeRow& r : kRows)
    if (r.name == text) return r.type;
  return std::nullopt;
}

int64_t size_of(DType type) { return row(type).size; }
bool is_floating(DType type) { return row(type).floating; }
bool is_low(DType type) { return type == DType::f16 || type == DType::bf16; }

uint16_t half_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {  // subnormal half: let float addition round at 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

float float_from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) return std::copysign(static_cast<float>(mantissa) * 0x1p-24f, std::bit_cast<float>(sign | 1u));
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t bfloat16_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float float_from_bfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

double load_as_double(DType type, const void* p) {
  switch (type) {
    case DType::f16:
      return float_from_half(load<uint16_t>(p));
    case DType::bf16:
      return float_from_bfloat16(load<uint16_t>(p));
    case DType::f32:
      return load<float>(p);
    case DType::f64:
      return load<double>(p);
    case DType::u8:
      return load<uint8_t>(p);
    case DType::i8:
      return load<int8_t>(p);
    case DType::i32:
      return load<int32_t>(p);
    case DType::i64:
      return static_cast<double>(load<int64_t>(p));
    case DType::boolean:
      return load<uint8_t>(p) != 0;
  }
  return 0;
}

void store_from_double(DType type, void* p, double v) {
  switch (type) {
    case DType::f16:
      store(p, half_from_float(float_round_to_odd(v)));
      return;
    case DType::bf16:
      store(p, bfloat16_from_float(float_round_to_odd(v)));
      return;
    case DType::f32:
      store(p, static_cast<float>(v));
      return;
    case DType::f64:
      store(p, v);
      return;
    case DType::u8:
      store(p, saturate<uint8_t>(v));
      return;
    case DType::i8:
      store(p, saturate<int8_t>(v));
      return;
    case DType::i32:
      store(p, saturate<int32_t>(v));
      return;
    case DType::i64:
      store(p, saturate<int64_t>(v));
      return;
    case DType::boolean:
      store(p, static_cast<uint8_t>(v != 0));
      return;
  }
}

double round_to(DType type, double value) {
  unsigned char bytes[8];
  store_from_double(type, bytes, value);
  return load_as_double(type, bytes);
}

}  // namespace halfstep
