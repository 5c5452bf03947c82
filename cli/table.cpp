#include "cli/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/printable.h"

namespace halfstep {
namespace {

// A number, with or without a unit: these stand to the right.
bool is_number(const std::string& cell) {
  constexpr std::array<std::string_view, 9> kUnits{"", "%", " %", "x", " B", " KiB", " MiB", " GiB", " TiB"};
  const size_t digits = std::min(cell.find_first_not_of("0123456789.,+-e"), cell.size());
  return cell.find_first_of("0123456789") < digits && std::ranges::find(kUnits, cell.substr(digits)) != kUnits.end();
}

// Columns a terminal shows for UTF-8 text.
size_t width(const std::string& cell) {
  return static_cast<size_t>(
      std::count_if(cell.begin(), cell.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// The widest columns give first, down to `least`.
void shrink(std::vector<size_t>& widths, const std::vector<size_t>& least, size_t columns) {
  constexpr size_t kGap = 2;
  size_t total = kGap * (widths.size() - 1);
  for (size_t w : widths) total += w;
  while (total > columns) {
    size_t widest = widths.size();
    for (size_t i = 0; i < widths.size(); ++i)
      if (widths[i] > least[i] && (widest == widths.size() || widths[i] > widths[widest])) widest = i;
    if (widest == widths.size()) return;
    --widths[widest], --total;
  }
}

// First what few cells are wide for, then every column of words.
void fit(std::vector<size_t>& widths, const std::vector<std::string>& header,
         const std::vector<std::vector<std::string>>& rows, const std::vector<char>& numeric, size_t columns) {
  constexpr size_t kLeast = 6;
  std::vector<size_t> usual = widths, least = widths;
  for (size_t i = 0; i < widths.size() && !rows.empty(); ++i) {
    if (numeric[i]) continue;
    std::vector<size_t> cells;
    for (const auto& row : rows) cells.push_back(width(row[i]));
    const auto most = cells.begin() + static_cast<std::ptrdiff_t>(cells.size() * 9 / 10);
    std::nth_element(cells.begin(), most, cells.end());
    usual[i] = std::min(widths[i], std::max({*most, kLeast, width(header[i])})), least[i] = std::min(widths[i], kLeast);
  }
  shrink(widths, usual, columns);
  shrink(widths, least, columns);
}

}  // namespace

void Table::add(std::vector<std::string> row) {
  for (std::string& cell : row) cell = printable(cell);
  rows_.push_back(std::move(row));
}

std::string Table::text(const std::string& indent, size_t columns) const {
  std::vector<size_t> widths;
  std::vector<char> numeric(header_.size(), !rows_.empty());
  for (const std::string& h : header_) widths.push_back(width(h));
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], width(row[i]));
      numeric[i] = numeric[i] && (row[i].empty() || row[i] == "-" || is_number(row[i]));
    }
  if (columns > indent.size()) fit(widths, header_, rows_, numeric, columns - indent.size());
  std::string out;
  const auto line = [&](const std::vector<std::string>& row) {
    std::string text = indent;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string cell = shortened(row[i], widths[i]);
      const std::string gap(widths[i] - width(cell), ' ');
      text += (i ? "  " : "") + (numeric[i] ? gap + cell : cell + gap);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  line(header_);
  std::vector<std::string> rule;
  for (size_t w : widths) rule.push_back(std::string(w, '-'));
  line(rule);
  for (const auto& row : rows_) line(row);
  return out;
}

std::string shortened(const std::string& text, size_t columns) {
  if (width(text) <= columns) return text;
  if (columns == 0) return "";
  // Of "follows 'a/long/name'" the name.
  if (const size_t quote = text.find('\''); quote + 3 < columns && quote + 1 < text.size() && text.back() == '\'')
    return text.substr(0, quote + 1) + shortened(text.substr(quote + 1, text.size() - quote - 2), columns - quote - 2) +
           "'";
  // Characters begin where no continuation byte stands.
  std::vector<size_t> begins;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) begins.push_back(i);
  const size_t front = (columns - 1) / 4, back = columns - 1 - front;  // names differ at their ends
  const size_t rest = back == 0 ? text.size() : begins[begins.size() - back];
  return text.substr(0, begins[front]) + "…" + text.substr(rest);
}

std::string count_text(int64_t count) {
  std::string text = std::to_string(count);
  for (size_t at = text.size(); at > 3 && text[at - 4] != '-';) text.insert(at -= 3, ",");
  return text;
}

}  // namespace halfstep
