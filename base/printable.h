// Text that others wrote, safe to print.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace halfstep {

enum class Lines : uint8_t { kept, escaped };

// Control characters, characters that reorder a line, and bytes that are no UTF-8 become \u001b, \u202e, \xff; a
// newline stays only where `lines` are kept. So no name can move the cursor, write over what stands there, or forge a
// line.
std::string printable(std::string_view text, Lines lines = Lines::escaped);
bool holds_control_character(std::string_view text);
std::vector<std::string> lines_of(std::string_view text);  // without the newlines; at least one

}  // namespace halfstep
