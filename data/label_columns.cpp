#include "data/label_columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/printable.h"
#include "data/table_layout.h"

namespace halfstep {
namespace {

constexpr size_t kMostClasses = size_t{1} << 16;

bool is_whole(double value) { return std::nearbyint(value) == value && std::abs(value) <= 0x1p53; }

}  // namespace

std::string shown_field(std::string_view field) {
  constexpr size_t kMost = 40;
  return "'" + printable(field.substr(0, kMost)) + (field.size() > kMost ? "..." : "") + "'";
}

LabelColumns::LabelColumns(size_t columns, const DataFacts& facts, bool texts) : columns_(columns), texts_(texts) {
  for (size_t i = 0; i < facts.classes.size(); ++i) ids_.emplace(facts.classes[i], static_cast<uint32_t>(i));
  fixed_ = !facts.classes.empty();
}

std::string LabelColumns::take(std::string_view field, bool& text_found) {
  field = trimmed(field);
  if (texts_) return take_text(field);
  const std::optional<double> number = field_number(field);
  if (!number) {
    text_found = columns_ == 1;
    return shown_field(field) + " is no number" + (columns_ > 1 ? ", as several label columns need" : "");
  }
  whole_ = whole_ && is_whole(*number), bits_ = bits_ && (*number == 0 || *number == 1);
  row_.push_back(*number);
  return "";
}

void LabelColumns::end_row(bool good) {
  if (good) values_.insert(values_.end(), row_.begin(), row_.end());
  row_.clear();
}

Tensor LabelColumns::finish(int64_t rows, std::vector<std::string>& classes) {
  Shape shape{rows};
  if (columns_ > 1) shape.push_back(static_cast<int64_t>(columns_));
  std::vector<double> place(ids_.size());
  if (texts_ && !fixed_) {
    for (const auto& [text, id] : ids_) classes.push_back(text);
    std::ranges::sort(classes);
    for (size_t i = 0; i < classes.size(); ++i) place[ids_.at(classes[i])] = static_cast<double>(i);
  }
  Tensor labels({columns_ > 1 && bits_ ? DType::u8 : whole_ && columns_ == 1 ? DType::i64 : DType::f32, shape});
  for (int64_t i = 0; i < labels.type.element_count(); ++i) {
    const double value = values_[static_cast<size_t>(i)];
    labels.set(i, texts_ && !fixed_ ? place[static_cast<size_t>(value)] : value);
  }
  return labels;
}

std::string LabelColumns::take_text(std::string_view field) {
  const auto found = ids_.find(std::string(field));
  if (found != ids_.end()) {
    row_.push_back(found->second);
    return "";
  }
  if (fixed_) {
    std::vector<std::string> known;
    for (const auto& [text, id] : ids_) known.push_back(text);
    const std::string near = nearest(std::string(field), known);
    return shown_field(field) + " is none of the run's " + std::to_string(ids_.size()) + " classes" +
           (near.empty() ? "" : "; did you mean '" + near + "'?");
  }
  if (printable(field) != field) return shown_field(field) + " is no UTF-8, or holds control characters";
  if (ids_.size() == kMostClasses)
    throw Error(
        fmt::format("more than {} different labels, the last of them {}: is it the column of the labels? "
                    "label_column names another",
                    kMostClasses, shown_field(field)));
  row_.push_back(static_cast<double>(ids_.size()));
  ids_.emplace(field, static_cast<uint32_t>(ids_.size()));
  return "";
}

}  // namespace halfstep
