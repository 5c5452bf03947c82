// What tokenizers need to know of characters.
#pragma once

#include <string>
#include <string_view>

namespace halfstep {

bool is_letter(char32_t c);       // category L
bool is_number(char32_t c);       // N
bool is_punctuation(char32_t c);  // P
bool is_mark(char32_t c);         // Mn
bool is_other(char32_t c);        // C: control, format, private, unassigned
bool is_space(char32_t c);        // White_Space

void append_decomposed(char32_t c, std::u32string& to);  // its full canonical decomposition
void append_lower(char32_t c, std::u32string& to);

// What is no UTF-8 becomes U+FFFD, a byte each.
std::u32string from_utf8(std::string_view text);
void append_utf8(char32_t c, std::string& to);
std::string to_utf8(std::u32string_view text);

}  // namespace halfstep
