#!/usr/bin/env python3
"""Writes data/unicode_classes.cpp and data/unicode_mappings.cpp: what tokenizers need to know of characters, from
Python's unicodedata.

usage: tools/unicode_tables.py
"""
import pathlib
import unicodedata


def ranges(wanted):
    found = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or not wanted(chr(code)):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def wrapped(items):
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 1 > 119:
            lines.append(line)
            line = "   "
        line += " " + item
    return "\n".join(lines + [line])


def table(name, kind, items):
    return f"constexpr {kind} {name}[] = {{\n{wrapped([i + ',' for i in items])}\n}};\n"


HEAD = f"""// Written by tools/unicode_tables.py from Unicode {unicodedata.unidata_version}.
// clang-format off
#include "data/unicode.h"

#include <algorithm>
#include <iterator>
#include <span>

namespace halfstep {{
namespace {{

"""


def classes():
    category = unicodedata.category
    kinds = {
        "kLetters": lambda c: category(c)[0] == "L",
        "kNumbers": lambda c: category(c)[0] == "N",
        "kPunctuation": lambda c: category(c)[0] == "P",
        "kMarks": lambda c: category(c) == "Mn",
        "kOthers": lambda c: category(c)[0] == "C",
    }
    text = HEAD + "struct Range {\n  char32_t first, last;\n};\n\n"
    for name, wanted in kinds.items():
        text += table(name, "Range", [f"{{{a:#x},{b:#x}}}" for a, b in ranges(wanted)]) + "\n"
    return text + """bool is_in(std::span<const Range> ranges, char32_t c) {
  const auto after = std::ranges::upper_bound(ranges, c, {}, &Range::first);
  return after != ranges.begin() && std::prev(after)->last >= c;
}

}  // namespace

bool is_letter(char32_t c) { return is_in(kLetters, c); }
bool is_number(char32_t c) { return is_in(kNumbers, c); }
bool is_punctuation(char32_t c) { return is_in(kPunctuation, c); }
bool is_mark(char32_t c) { return is_in(kMarks, c); }
bool is_other(char32_t c) { return is_in(kOthers, c); }

}  // namespace halfstep
"""


def runs(pairs):
    """(first, last, step, difference) of what is mapped by one difference to one character."""
    found = []
    for code, to in pairs:
        if found:
            first, last, step, difference = found[-1]
            if to - code == difference and code - last <= 2 and step in (0, code - last):
                found[-1] = (first, code, code - last, difference)
                continue
        found.append((code, code, 0, to - code))
    return [f"{{{a:#x},{b:#x},{max(c, 1)},{d}}}" for a, b, c, d in found]


def mappings():
    one, several = [], []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or 0xAC00 <= code < 0xD7A4:  # Hangul is computed
            continue
        decomposed = unicodedata.normalize("NFD", chr(code))
        if decomposed == chr(code):
            continue
        if len(decomposed) == 1:
            one.append((code, ord(decomposed)))
        else:
            several.append(f"{{{code:#x},{{{','.join(f'{ord(c):#x}' for c in decomposed)}}}}}")
    lower = [(code, chr(code).lower()) for code in range(0x110000)
             if not 0xD800 <= code < 0xE000 and chr(code).lower() != chr(code)]
    assert [c for c, to in lower if len(to) > 1] == [0x130]
    text = HEAD + """struct Run {  // every `step`th from `first` to `last`
  char32_t first, last;
  int32_t step, difference;
};
struct Parts {
  char32_t from, to[4];  // zeros behind the last
};

"""
    text += table("kOne", "Run", runs(one)) + "\n" + table("kSeveral", "Parts", several) + "\n"
    text += table("kLower", "Run", runs([(c, ord(to)) for c, to in lower if len(to) == 1])) + "\n"
    return text + """char32_t mapped(std::span<const Run> runs, char32_t c) {
  const auto after = std::ranges::upper_bound(runs, c, {}, &Run::first);
  if (after == runs.begin()) return c;
  const Run& run = *std::prev(after);
  if (c > run.last || (c - run.first) % static_cast<char32_t>(run.step) != 0) return c;
  return static_cast<char32_t>(static_cast<int32_t>(c) + run.difference);
}

}  // namespace

void append_decomposed(char32_t c, std::u32string& to) {
  constexpr char32_t kFirst = 0xac00, kLast = 0xd7a3, kVowels = 21, kTrails = 28;
  if (c >= kFirst && c <= kLast) {
    const char32_t syllable = c - kFirst, trail = syllable % kTrails;
    to += static_cast<char32_t>(0x1100 + syllable / (kVowels * kTrails));
    to += static_cast<char32_t>(0x1161 + syllable / kTrails % kVowels);
    if (trail != 0) to += static_cast<char32_t>(0x11a7 + trail);
    return;
  }
  const auto found = std::ranges::lower_bound(kSeveral, c, {}, &Parts::from);
  if (found == std::end(kSeveral) || found->from != c) {
    to += mapped(kOne, c);
    return;
  }
  for (const char32_t part : found->to)
    if (part != 0) to += part;
}

void append_lower(char32_t c, std::u32string& to) {
  if (c == 0x130)
    to += {0x69, 0x307};
  else
    to += mapped(kLower, c);
}

}  // namespace halfstep
"""


if __name__ == "__main__":
    data = pathlib.Path(__file__).resolve().parent.parent / "data"
    (data / "unicode_classes.cpp").write_text(classes())
    (data / "unicode_mappings.cpp").write_text(mappings())
