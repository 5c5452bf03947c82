#include "data/tar_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/printable.h"

namespace halfstep {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kMostNameBytes = 1 << 16;  // of a member, and of what a pax header says

using Header = std::array<char, kBlock>;

std::string text_at(const Header& header, size_t at, size_t bytes) {
  const char* begin = header.data() + at;
  return {begin, std::find(begin, begin + bytes, '\0')};
}

// Octal digits, or where the first bit is set a number of 8 bytes.
int64_t number_at(const Header& header, size_t at, size_t bytes, const std::string& where) {
  uint64_t value = 0;
  if ((static_cast<uint8_t>(header[at]) & 0x80) != 0) {
    for (size_t i = 1; i < bytes; ++i) {
      if (value >> 55 != 0) throw Error(where + ": a header holds a size beyond 64 bits");
      value = value << 8 | static_cast<uint8_t>(header[at + i]);
    }
    return static_cast<int64_t>(value);
  }
  for (size_t i = at; i < at + bytes; ++i) {
    if (header[i] == ' ' || header[i] == '\0') continue;
    if (header[i] < '0' || header[i] > '7') throw Error(where + ": a header holds no octal number");
    value = value << 3 | static_cast<uint64_t>(header[i] - '0');
  }
  return static_cast<int64_t>(value);
}

bool checks(const Header& header, int64_t sum) {
  int64_t found = 0;
  for (size_t i = 0; i < header.size(); ++i) found += i >= 148 && i < 156 ? ' ' : static_cast<uint8_t>(header[i]);
  return found == sum;
}

// Of the records "LENGTH KEY=VALUE\n" of a pax header.
void read_pax(const std::string& records, std::string& name, int64_t& size, const std::string& where) {
  for (size_t at = 0; at < records.size();) {
    size_t length = 0;
    const auto [end, error] = std::from_chars(records.data() + at, records.data() + records.size(), length);
    const auto digits = static_cast<size_t>(end - (records.data() + at));
    if (error != std::errc() || length <= digits + 1 || length > records.size() - at)
      throw Error(where + ": a pax header is corrupt");
    const std::string record = records.substr(at + digits + 1, length - digits - 2);
    at += length;
    if (record.starts_with("path=")) name = record.substr(5);
    if (!record.starts_with("size=")) continue;
    int64_t value = -1;
    std::from_chars(record.data() + 5, record.data() + record.size(), value);
    if (value < 0) throw Error(where + ": a pax header is corrupt");
    size = value;
  }
}

}  // namespace

std::vector<std::string> expand_braces(const std::string& pattern) {
  constexpr int64_t kMostNames = 1'000'000;
  const size_t open = pattern.find('{'), close = pattern.find('}', open);
  if (open == std::string::npos) return {pattern};
  const std::string inside = close == std::string::npos ? "" : pattern.substr(open + 1, close - open - 1);
  const size_t dots = inside.find("..");
  int64_t first = 0, last = -1;
  const auto read = [&](const std::string& text, int64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && value >= 0 && !text.empty();
  };
  if (dots == std::string::npos || !read(inside.substr(0, dots), first) || !read(inside.substr(dots + 2), last) ||
      last < first || last - first >= kMostNames)
    throw Error("data '" + pattern +
                "': a range such as {000..009} expected between the braces, the smaller number "
                "first and at most a million in all");
  std::vector<std::string> names;
  for (const std::string& rest : expand_braces(pattern.substr(close + 1)))
    for (int64_t i = first; i <= last; ++i) {
      names.push_back(fmt::format("{}{:0{}}{}", pattern.substr(0, open), i, dots, rest));
      if (static_cast<int64_t>(names.size()) > kMostNames)
        throw Error("data '" + pattern + "': more than a million names");
    }
  return names;
}

std::vector<TarMember> read_tar_index(const DataFile& file) {
  std::vector<TarMember> members;
  std::string long_name;
  int64_t long_size = -1;  // of the next member; -1: its header says it
  Header header{};
  bool ended = false;
  for (int64_t at = 0; at < file.size();) {
    const std::string where = fmt::format("{}, byte {}", file.name(), at);
    if (file.read_at(at, std::as_writable_bytes(std::span(header))) != header.size())
      throw Error(where + ": the archive is cut off");
    ended = std::ranges::all_of(header, [](char c) { return c == '\0'; });
    if (ended) break;
    if (at == 0 && header[0] == '\x1f' && header[1] == '\x8b')
      throw Error(file.name() + ": it is compressed, and samples are read where they lie: unpack it to a plain .tar");
    if (!checks(header, number_at(header, 148, 8, where)))
      throw Error(where + ": no header of a tar archive is here, or it is corrupt");
    const char kind = header[156];
    const int64_t size = long_size >= 0 && kind != 'x' && kind != 'L' ? long_size : number_at(header, 124, 12, where);
    at += kBlock;
    if (size > file.size() - at)
      throw Error(
          fmt::format("{}: a member of {} bytes reaches beyond the archive's end: is it cut off?", where, size));
    if (kind == 'x' || kind == 'L') {
      if (size > kMostNameBytes)
        throw Error(where + ": a name of more than " + std::to_string(kMostNameBytes) + " bytes");
      std::string text(static_cast<size_t>(size), '\0');
      file.read_at(at, std::as_writable_bytes(std::span(text)));
      if (kind == 'L')
        long_name = text.substr(0, text.find('\0'));
      else
        read_pax(text, long_name, long_size, where);
    } else {
      if (kind == '0' || kind == '\0') {
        std::string name = text_at(header, 0, 100);
        if (const std::string prefix = text_at(header, 345, 155);
            !prefix.empty() && std::memcmp(header.data() + 257, "ustar", 6) == 0)
          name = prefix + "/" + name;
        members.push_back({long_name.empty() ? name : long_name, at, size});
      }
      long_name.clear(), long_size = -1;
    }
    at += round_up(size, kBlock);
  }
  // Blocks of zeros end an archive, so that one that lost its last members is seen.
  if (!ended) throw Error(file.name() + ": the archive does not end as they do, with zeros: is it cut off?");
  return members;
}

}  // namespace halfstep
