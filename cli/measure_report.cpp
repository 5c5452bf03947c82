#include "cli/measure_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "cli/table.h"

namespace halfstep {
namespace {

constexpr size_t kUsualWidth = 80, kMostNameColumns = 20;

std::string number_text(double value) {
  if (std::isnan(value)) return "-";
  return std::abs(value) < 1000 ? fmt::format("{:.4f}", value) : fmt::format("{:.6g}", value);
}

std::string heading(const std::string& what, const std::string& loss) {
  return "\n  " + what + (loss.empty() ? "" : " of loss '" + loss + "'");
}

// "": a line is too short for it.
std::string matrix_text(const Confusion& confusion, const std::vector<std::string>& names, size_t columns) {
  std::vector<std::string> header{"label"};
  for (int64_t c = 0; c < confusion.classes; ++c) header.push_back(std::to_string(c));
  Table table(header);
  for (int64_t label = 0; label < confusion.classes; ++label) {
    const std::string name = class_name(names, label);
    std::vector<std::string> row{names.empty() ? name : fmt::format("{} {}", label, shortened(name, kMostNameColumns))};
    for (int64_t guess = 0; guess < confusion.classes; ++guess)
      row.push_back(std::to_string(confusion.counts[static_cast<size_t>(label * confusion.classes + guess)]));
    table.add(row);
  }
  std::string text = table.text();
  const size_t rule = text.find('\n') + 1, width = text.find('\n', rule) - rule;
  return width <= columns ? text : "";
}

std::string most_confused_text(const Confusion& confusion, const std::vector<std::string>& names, size_t columns) {
  constexpr size_t kMost = 10;
  struct Pair {
    int64_t count, label, guess;
  };
  std::vector<Pair> pairs;
  for (int64_t label = 0; label < confusion.classes; ++label)
    for (int64_t guess = 0; guess < confusion.classes; ++guess)
      if (const int64_t count = confusion.counts[static_cast<size_t>(label * confusion.classes + guess)];
          label != guess && count > 0)
        pairs.push_back({count, label, guess});
  std::ranges::stable_sort(pairs, std::greater(), &Pair::count);
  Table table({"label", "guessed as", "times"});
  for (const Pair& pair : std::span(pairs).first(std::min(kMost, pairs.size())))
    table.add({class_name(names, pair.label), class_name(names, pair.guess), count_text(pair.count)});
  return table.empty() ? "  nothing is confused\n" : table.text("  ", columns);
}

}  // namespace

std::string measures_text(const MeasureReport& report) {
  std::string text;
  for (const MeasureValue& measure : report.values)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", measure.name, number_text(measure.value));
  return text;
}

std::string wrapped(const std::string& measures, size_t columns, const std::string& indent) {
  if (columns == 0) columns = kUsualWidth;
  std::string text, line;
  for (size_t begin = 0; begin < measures.size();) {
    const size_t end = std::min(measures.find(", ", begin), measures.size());
    const std::string part = measures.substr(begin, end - begin) + (end < measures.size() ? "," : "");
    if (!line.empty() && indent.size() + line.size() + 1 + part.size() > columns)
      text += indent + std::exchange(line, "") + "\n";
    line += (line.empty() ? "" : " ") + part;
    begin = end + 2;
  }
  return line.empty() ? text : text + indent + line + "\n";
}

std::string class_tables_text(const MeasureReport& report, size_t columns) {
  if (columns == 0) columns = kUsualWidth;
  std::string text;
  for (const ClassTable& one : report.tables) {
    std::vector<std::string> header{"class", "labels"};
    for (const auto& [measure, values] : one.columns) header.push_back(measure);
    Table table(header);
    for (size_t c = 0; c < one.support.size(); ++c) {
      std::vector<std::string> row{class_name(report.class_names, static_cast<int64_t>(c)),
                                   count_text(static_cast<int64_t>(one.support[c]))};
      for (const auto& [measure, values] : one.columns) row.push_back(number_text(values[c]));
      table.add(row);
    }
    text += heading("each class", one.loss) + "\n" + table.text("  ", columns);
  }
  for (const Confusion& confusion : report.confusions) {
    const std::string matrix = matrix_text(confusion, report.class_names, columns);
    text += heading("confusion", confusion.loss) +
            (matrix.empty() ? fmt::format(": the most frequent mistakes of {} classes\n", confusion.classes) +
                                  most_confused_text(confusion, report.class_names, columns)
                            : ": a row for each label, a column for each guess\n" + matrix);
  }
  return text;
}

}  // namespace halfstep
