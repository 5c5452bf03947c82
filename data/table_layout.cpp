#include "data/table_layout.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/printable.h"

namespace halfstep {
namespace {

bool same_letters(std::string_view text, std::string_view lower) {
  return text.size() == lower.size() && std::ranges::equal(text, lower, {}, [](char c) {
           return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
         });
}

// What no number stands in, and at least one name.
bool looks_like_names(const Record& record) {
  bool named = false;
  for (const std::string& field : record) {
    if (field_number(field)) return false;
    named = named || !is_missing(field);
  }
  return named;
}

std::vector<std::string> column_names(const Record& first, bool header, const std::string& where) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (size_t i = 0; i < first.size(); ++i) {
    const std::string_view name = header ? trimmed(first[i]) : "";
    if (printable(name) != name)
      throw Error(fmt::format("{}, column {}: the name '{}' is no UTF-8, or holds control characters", where, i + 1,
                              printable(name)));
    names.push_back(name.empty() ? std::to_string(i + 1) : std::string(name));
    if (!seen.insert(names.back()).second)
      throw Error(fmt::format("{}: two columns are called '{}': give each a name of its own", where, names.back()));
  }
  return names;
}

class Columns {
 public:
  Columns(const std::vector<std::string>& names, const std::string& where) : names_(names), where_(where) {}

  std::optional<size_t> find(const std::string& name) const {
    const auto found = std::ranges::find(names_, name);
    if (found == names_.end()) return std::nullopt;
    return static_cast<size_t>(found - names_.begin());
  }
  std::string absent(const std::string& key, const std::string& name) const {
    const std::string near = nearest(name, names_);
    std::string all;
    constexpr size_t kMost = 20;
    for (size_t i = 0; i < std::min(names_.size(), kMost); ++i) all += (i == 0 ? "'" : ", '") + names_[i] + "'";
    return fmt::format("{}: {}: there is no column '{}'{}; there are {}{}", where_, key, name,
                       near.empty() ? "" : "; did you mean '" + near + "'?", all,
                       names_.size() > kMost ? fmt::format(" and {} more", names_.size() - kMost) : "");
  }
  // Which columns any of the patterns matches; a pattern that matches none is a problem.
  std::vector<bool> matched(const char* key, const std::vector<std::string>& patterns, Problems& problems) const {
    std::vector<bool> matched(names_.size());
    for (const std::string& pattern : patterns) {
      bool any = false;
      for (size_t i = 0; i < names_.size(); ++i)
        if (names_[i] == pattern || ::fnmatch(pattern.c_str(), names_[i].c_str(), 0) == 0) matched[i] = any = true;
      if (!any) problems.add(absent(key, pattern));
    }
    return matched;
  }

 private:
  const std::vector<std::string>& names_;
  const std::string& where_;
};

// A run's own columns, wherever they stand now.
void take_known(const Columns& columns, const DataFacts& facts, TableLayout& layout, Problems& problems) {
  for (size_t i = 0; i < facts.columns.size(); ++i) {
    const std::optional<size_t> place = columns.find(facts.columns[i]);
    if (place)
      layout.inputs.push_back(*place);
    else
      problems.add(columns.absent("columns of the run", facts.columns[i]));
  }
}

// The one that an option names.
std::optional<size_t> named_column(const Columns& columns, const char* key, const std::string& name,
                                   Problems& problems) {
  if (name.empty()) return std::nullopt;
  const std::optional<size_t> place = columns.find(name);
  if (!place) problems.add(columns.absent(key, name));
  return place;
}

// As the options name them, or those that the run had, all or none; by default the last that nothing else is.
std::vector<size_t> label_columns(const Columns& columns, const TableLayout& layout, const DataOptions& options,
                                  const DataFacts& facts, const std::vector<bool>& dropped, Problems& problems,
                                  const std::string& where) {
  std::vector<size_t> labels;
  const bool known = !facts.columns.empty() || !facts.labels.empty();
  const std::vector<std::string>& names = options.label_column.empty() ? facts.labels : options.label_column;
  if (names == std::vector<std::string>{"none"} && !columns.find("none")) return labels;
  if (names.empty()) {
    for (size_t i = layout.names.size(); i-- > 0;) {
      if (dropped[i] || layout.text == i || layout.image == i) continue;
      // What a run reads as an input is no label: this table has none.
      const bool is_input = known && std::ranges::find(facts.columns, layout.names[i]) != facts.columns.end();
      if (!is_input) labels.push_back(i);
      break;
    }
    return labels;
  }
  for (const std::string& name : names)
    if (const std::optional<size_t> place = columns.find(name))
      labels.push_back(*place);
    else if (!known)
      problems.add(columns.absent("label_column", name));
  if (known && !labels.empty() && labels.size() < names.size())
    problems.add(fmt::format("{}: only {} of the {} label columns are there", where, labels.size(), names.size()));
  return labels;
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_missing(std::string_view field) {
  constexpr std::array<std::string_view, 6> kWords{"na", "n/a", "nan", "null", "none", "?"};
  field = trimmed(field);
  return field.empty() || std::ranges::any_of(kWords, [&](std::string_view word) { return same_letters(field, word); });
}

bool is_missing_label(std::string_view field) { return is_missing(field) && !same_letters(trimmed(field), "none"); }

std::optional<double> field_number(std::string_view field) {
  field = trimmed(field);
  if (field.starts_with('+')) field.remove_prefix(1);
  double value = 0;
  const char* const end = field.data() + field.size();
  if (const auto [stopped, error] = std::from_chars(field.data(), end, value);
      error == std::errc() && stopped == end && std::isfinite(value))
    return value;
  if (same_letters(field, "true")) return 1;
  if (same_letters(field, "false")) return 0;
  return std::nullopt;
}

TableLayout table_layout(const Record& first, const DataOptions& options, const DataFacts& facts,
                         const std::string& where) {
  TableLayout layout;
  layout.header = options.header == "true" || (options.header == "auto" && looks_like_names(first));
  layout.names = column_names(first, layout.header, where);
  const Columns columns(layout.names, where);
  Problems problems;
  const std::vector<bool> dropped = columns.matched("drop_columns", options.drop_columns, problems),
                          wanted = columns.matched("columns", options.columns, problems);
  layout.text = named_column(columns, "text_column", options.text_column, problems);
  layout.image = named_column(columns, "image_column", options.image_column, problems);
  problems.throw_if_any();
  layout.labels = label_columns(columns, layout, options, facts, dropped, problems, where);
  const bool has_others = layout.text || layout.image;
  if (!facts.columns.empty()) {
    take_known(columns, facts, layout, problems);
  } else {
    for (size_t i = 0; i < layout.names.size(); ++i)
      if (!dropped[i] && layout.text != i && layout.image != i && (options.columns.empty() ? !has_others : wanted[i]) &&
          std::ranges::find(layout.labels, i) == layout.labels.end())
        layout.inputs.push_back(i);
  }
  problems.throw_if_any();
  if (layout.inputs.empty() && !has_others)
    throw Error(fmt::format("{}: no column is left for the model: it has {}{}", where, layout.names.size(),
                            layout.names.size() == 1 ? ", which holds the labels: is the delimiter another?"
                                                     : ", and each is a label or left out"));
  return layout;
}

}  // namespace halfstep
