// Numbers as people wrote them before they were stored in f32.
#pragma once

#include <array>
#include <charconv>

namespace halfstep {

// The shortest decimal number that is this float: 1e-05 and not 9.99999974e-06.
inline double as_written(float value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double result = value;
  std::from_chars(text.data(), end, result);
  return result;
}

}  // namespace halfstep
