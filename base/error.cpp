#include "base/error.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/printable.h"

namespace halfstep {
namespace {

// One line each, whatever names and attributes of a file stand in it.
std::string join_lines(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + printable(line);
  return text;
}

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

}  // namespace

Error::Error(std::vector<std::string> problems) : std::runtime_error(join_lines(problems)) {}

InternalError::InternalError(const std::string& message, std::source_location where)
    : std::logic_error(message + " (" + where.file_name() + ":" + std::to_string(where.line()) + ")") {}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates)
    if (const size_t distance = edit_distance(word, candidate); distance < best_distance)
      best_distance = distance, best = candidate;
  return best;
}

}  // namespace halfstep
