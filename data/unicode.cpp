#include "data/unicode.h"

namespace halfstep {

bool is_space(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

std::u32string from_utf8(std::string_view text) {
  constexpr char32_t kNone = 0xfffd;
  std::u32string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<uint8_t>(text[i]);
    const size_t bytes = first < 0x80 ? 1 : first >= 0xf0 && first < 0xf8 ? 4 : first >= 0xe0 ? 3 : 2;
    char32_t code = bytes == 1 ? first : first & (0x7fu >> bytes);
    bool good = bytes == 1 || (first >= 0xc0 && first < 0xf8 && text.size() - i >= bytes);
    for (size_t j = 1; good && j < bytes; ++j) {
      const auto next = static_cast<uint8_t>(text[i + j]);
      good = (next & 0xc0) == 0x80;
      code = code << 6 | (next & 0x3fu);
    }
    constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    good = good && code >= kSmallest[bytes] && code <= 0x10ffff && (code < 0xd800 || code >= 0xe000);
    result += good ? code : kNone;
    i += good ? bytes : 1;
  }
  return result;
}

void append_utf8(char32_t c, std::string& to) {
  if (c < 0x80) {
    to += static_cast<char>(c);
    return;
  }
  const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  to += static_cast<char>((0xff00u >> (more + 1) & 0xffu) | c >> (6 * more));
  for (int i = more; i-- > 0;) to += static_cast<char>(0x80u | (c >> (6 * i) & 0x3fu));
}

std::string to_utf8(std::u32string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char32_t c : text) append_utf8(c, result);
  return result;
}

}  // namespace halfstep
