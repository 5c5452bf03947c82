#include "frontend/export/type_rows.h"

#include <algorithm>

namespace halfstep {
namespace {

constexpr TypeRow kRows[] = {
#include "frontend/export/type_rows.inc"
};

}  // namespace

char TypeRow::letter(std::string_view letters, size_t i) {
  const bool repeats = letters.ends_with('*');
  if (repeats) letters.remove_suffix(1);
  if (i < letters.size()) return letters[i];
  return repeats ? letters.back() : '-';
}

const TypeRow* find_type_row(std::string_view op, int64_t opset) {
  const TypeRow* found = nullptr;  // rows of an operator stand in the order of versions
  for (auto row = std::ranges::lower_bound(kRows, op, {}, &TypeRow::op); row != std::end(kRows) && row->op == op; ++row)
    if (row->since <= opset) found = row;
  return found;
}

}  // namespace halfstep
