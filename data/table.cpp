#include "data/table.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "base/error.h"
#include "base/printable.h"
#include "data/csv.h"
#include "data/image_folder.h"
#include "data/sample_order.h"
#include "data/table_layout.h"
#include "data/tokenizer.h"

namespace halfstep {
namespace {

constexpr size_t kMostClasses = size_t{1} << 16;
constexpr size_t kProblemsShown = 10;

// Bytes that grow with their elements; `expected` of them at the end, as far as one can tell.
template <typename T>
void append(std::vector<std::byte>& to, std::span<const T> values, size_t expected) {
  const size_t at = to.size(), bytes = values.size_bytes();
  if (to.capacity() < at + bytes) to.reserve(std::max({at + bytes, at + at / 2, expected}));
  to.resize(at + bytes);
  std::memcpy(to.data() + at, values.data(), bytes);
}

bool is_whole(double value) { return std::nearbyint(value) == value && std::abs(value) <= 0x1p53; }

std::string shown(std::string_view text) {
  constexpr size_t kMost = 40;
  return "'" + printable(text.substr(0, kMost)) + (text.size() > kMost ? "..." : "") + "'";
}

// Rows that cannot be read: counted, the first ones described.
class BadRows {
 public:
  void add(std::string description) {
    if (described_.size() < kProblemsShown) described_.push_back(std::move(description));
    ++count_;
  }
  void end(const DataRequest& request, const std::string& where, std::vector<std::string>& remarks) {
    if (count_ == 0) return;
    if (request.options.bad_rows == "skip") {
      remarks.push_back(fmt::format("{}: {} {} left out (bad_rows skip); the first: {}", where, count_,
                                    count_ == 1 ? "row is" : "rows are", described_.front()));
      return;
    }
    if (count_ > described_.size()) described_.push_back(fmt::format("{}: {} rows of this kind in all", where, count_));
    described_.back() += ": repair them, leave the column out with drop_columns, or such rows with bad_rows skip";
    throw Error(std::move(described_));
  }

 private:
  std::vector<std::string> described_;
  size_t count_ = 0;
};

// The label columns as they come.
class Labels {
 public:
  Labels(size_t columns, const DataFacts& facts, bool texts) : columns_(columns), texts_(texts) {
    for (size_t i = 0; i < facts.classes.size(); ++i) ids_.emplace(facts.classes[i], static_cast<uint32_t>(i));
    fixed_ = !facts.classes.empty();
  }
  // Why the field is none; empty: it was taken. `text_found` where numbers were expected and texts may come.
  std::string take(std::string_view field, bool& text_found) {
    field = trimmed(field);
    if (texts_) return take_text(field);
    const std::optional<double> number = field_number(field);
    if (!number) {
      text_found = columns_ == 1;
      return shown(field) + " is no number" + (columns_ > 1 ? ", as several label columns need" : "");
    }
    whole_ = whole_ && is_whole(*number), bits_ = bits_ && (*number == 0 || *number == 1);
    row_.push_back(*number);
    return "";
  }
  void end_row(bool good) {
    if (good) append<double>(values_, row_, 0);
    row_.clear();
  }
  // The array, and the classes' names in sorted order where they are texts.
  Tensor finish(int64_t rows, std::vector<std::string>& classes) {
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
      double value = 0;
      std::memcpy(&value, values_.data() + static_cast<size_t>(i) * sizeof value, sizeof value);
      labels.set(i, texts_ && !fixed_ ? place[static_cast<size_t>(value)] : value);
    }
    return labels;
  }

 private:
  std::string take_text(std::string_view field) {
    const auto found = ids_.find(std::string(field));
    if (found != ids_.end()) {
      row_.push_back(found->second);
      return "";
    }
    if (fixed_) {
      std::vector<std::string> known;
      for (const auto& [text, id] : ids_) known.push_back(text);
      const std::string near = nearest(std::string(field), known);
      return shown(field) + " is none of the run's " + std::to_string(ids_.size()) + " classes" +
             (near.empty() ? "" : "; did you mean '" + near + "'?");
    }
    if (printable(field) != field) return shown(field) + " is no UTF-8, or holds control characters";
    if (ids_.size() == kMostClasses)
      throw Error(
          fmt::format("more than {} different labels, the last of them {}: is it the column of the labels? "
                      "label_column names another",
                      kMostClasses, shown(field)));
    row_.push_back(static_cast<double>(ids_.size()));
    ids_.emplace(field, static_cast<uint32_t>(ids_.size()));
    return "";
  }

  size_t columns_;
  bool texts_, fixed_ = false, whole_ = true, bits_ = true;
  std::unordered_map<std::string, uint32_t> ids_;
  std::vector<double> row_;
  std::vector<std::byte> values_;  // doubles
};

std::string problem_of(std::string_view field) {
  if (is_missing(field)) return trimmed(field).empty() ? "it is empty" : shown(field) + " stands for a missing value";
  return shown(field) + " is no number" +
         (field.find(',') != std::string_view::npos ? ": decimal points are expected, and no other separators" : "");
}

char delimiter_of(const std::string& given, std::string_view head) {
  if (given == "auto") return find_delimiter(head);
  if (given == "tab" || given == "\\t") return '\t';
  if (given.size() != 1 || given == "\"" || given == "\n")
    throw Error("delimiter: one character, tab or auto expected, found '" + given + "'");
  return given[0];
}

class TableReading {
 public:
  TableReading(const OpenTable& open, const DataRequest& request) : open_(open), request_(request) {
    std::string head(size_t{1} << 16, '\0');
    const std::unique_ptr<ByteSource> source = open();
    where_ = source->name();
    expected_bytes_ = source->most_remaining();
    head.resize(source->read(std::as_writable_bytes(std::span(head))));
    delimiter_ = delimiter_of(request.options.delimiter, head);
    // Compressed, its size says nothing of how many rows follow.
    is_plain_ = source->most_remaining() == expected_bytes_ - static_cast<int64_t>(head.size());
    CsvReader reader(open(), delimiter_);
    std::vector<std::string_view> fields;
    if (!reader.next(fields)) throw Error(where_ + ": it is empty");
    layout_ = table_layout(Record(fields.begin(), fields.end()), request.options, request.facts, where_);
    if (!layout_.text) return;
    if (request.options.tokenizer.empty())
      throw Error("text_column: a tokenizer makes numbers of texts: name its tokenizer.json with tokenizer");
    tokenizer_ = read_tokenizer(request.options.tokenizer);
  }

  Dataset read() {
    bool text_found = false;
    Dataset dataset = rows(!request_.facts.classes.empty(), text_found);
    if (!text_found) return dataset;
    if (!request_.facts.columns.empty() && request_.facts.classes.empty())
      throw Error(fmt::format("{}: the labels of column '{}' are texts, and those that the run was trained on numbers",
                              where_, layout_.names[layout_.labels[0]]));
    text_found = false;
    return rows(true, text_found);
  }

 private:
  // Stops where `text_found` among labels that were numbers so far.
  Dataset rows(bool texts, bool& text_found) {
    CsvReader reader(open_(), delimiter_);
    std::vector<std::string_view> fields;
    if (layout_.header) reader.next(fields);
    BadRows bad;
    Labels labels(layout_.labels.size(), request_.facts, texts);
    std::vector<std::byte> table;
    std::vector<float> row;
    std::vector<std::string> paths;
    TextTokens texts_read;
    int64_t count = 0;
    size_t expected = 0;
    while (reader.next(fields)) {
      const std::string problem = read_row(fields, labels, row, text_found);
      if (text_found) return {};
      labels.end_row(problem.empty());
      if (!problem.empty()) {
        bad.add(fmt::format("{}, line {}{}", where_, reader.line(), problem));
        continue;
      }
      constexpr int64_t kRowsThatTell = 1000;
      if (++count == kRowsThatTell && is_plain_)
        expected = static_cast<size_t>(static_cast<double>(expected_bytes_) / static_cast<double>(reader.bytes()) *
                                       1.05 * kRowsThatTell) *
                   row.size() * sizeof(float);
      append<float>(table, row, expected);
      if (layout_.image) paths.emplace_back(fields[*layout_.image]);
      if (layout_.text) texts_read.add(tokenizer_->encode(fields[*layout_.text]));
    }
    Dataset dataset;
    bad.end(request_, where_, dataset.remarks);
    if (count == 0)
      throw Error(where_ + ": it has no rows" + (layout_.header ? " beside the names of its columns" : ""));
    if (layout_.image) {
      const std::filesystem::path folder = std::filesystem::path(request_.specification).parent_path();
      dataset.images = ImageSpan{image_files(folder.string(), std::move(paths)), stored_order(count),
                                 request_.split == Split::train, request_.options};
    }
    if (layout_.text) {
      texts_read.tokenizer = tokenizer_;
      dataset.texts = TextSpan{std::make_shared<const TextTokens>(std::move(texts_read)), stored_order(count)};
    }
    dataset = finish(std::move(dataset), std::move(table), count, labels, texts);
    leave_out_bad_images(dataset);
    return dataset;
  }

  // ": what is wrong", or with the column; empty: nothing.
  std::string read_row(const std::vector<std::string_view>& fields, Labels& labels, std::vector<float>& row,
                       bool& text_found) const {
    if (fields.size() != layout_.names.size())
      return fmt::format(": {} columns, expected {}", fields.size(), layout_.names.size());
    row.clear();
    for (const std::optional<size_t> column : {layout_.text, layout_.image})
      if (column && trimmed(fields[*column]).empty())
        return fmt::format(", column '{}': it is empty", layout_.names[*column]);
    const auto in_column = [&](size_t column, const std::string& what) {
      return fmt::format(", column '{}': {}", layout_.names[column], what);
    };
    for (const size_t column : layout_.inputs) {
      const std::optional<double> number = field_number(fields[column]);
      if (!number || std::abs(*number) > std::numeric_limits<float>::max())
        return in_column(column, number ? shown(fields[column]) + " is beyond f32" : problem_of(fields[column]));
      row.push_back(static_cast<float>(*number));
    }
    for (const size_t column : layout_.labels) {
      if (is_missing_label(fields[column]) && !known_class(fields[column]))
        return in_column(column, problem_of(fields[column]));
      if (const std::string problem = labels.take(fields[column], text_found); !problem.empty())
        return in_column(column, problem);
    }
    return "";
  }
  bool known_class(std::string_view field) const {
    return std::ranges::find(request_.facts.classes, trimmed(field)) != request_.facts.classes.end();
  }

  Dataset finish(Dataset dataset, std::vector<std::byte> table, int64_t count, Labels& labels, bool texts) {
    const auto names_of = [&](const std::vector<size_t>& columns) {
      std::vector<std::string> names;
      for (const size_t column : columns) names.push_back(layout_.names[column]);
      return names;
    };
    DataFacts facts = request_.facts;
    facts.columns = names_of(layout_.inputs);
    if (facts.labels.empty()) facts.labels = names_of(layout_.labels);
    if (!layout_.inputs.empty()) {
      NamedArray array{"table", {}, facts.columns};
      array.values.type = {DType::f32, {count, static_cast<int64_t>(facts.columns.size())}};
      array.values.data = std::move(table);
      dataset.arrays.push_back(std::move(array));
    }
    std::vector<std::string> classes;
    if (!layout_.labels.empty()) dataset.arrays.push_back({"labels", labels.finish(count, classes)});
    if (texts && request_.facts.classes.empty()) facts.classes = classes;
    dataset.facts = std::move(facts);
    dataset.remarks.insert(dataset.remarks.begin(), described(dataset.facts));
    return dataset;
  }

  // What was taken for what.
  std::string described(const DataFacts& facts) const {
    std::string label_names;
    for (const size_t column : layout_.labels)
      label_names += (label_names.empty() ? "'" : ", '") + layout_.names[column] + "'";
    std::string text = fmt::format(
        "{}: {}{}, {} to the model{}{}, {}", where_,
        layout_.header ? "line 1 names the columns" : "columns without names",
        delimiter_ == ',' ? "" : fmt::format(", divided by {}", delimiter_ == '\t' ? "tab" : shown({&delimiter_, 1})),
        layout_.inputs.size(), layout_.text ? ", texts from '" + layout_.names[*layout_.text] + "'" : "",
        layout_.image ? ", images from '" + layout_.names[*layout_.image] + "'" : "",
        label_names.empty() ? "no labels" : "labels from " + label_names);
    constexpr size_t kMost = 10;
    for (size_t i = 0; i < std::min(facts.classes.size(), kMost); ++i)
      text += fmt::format("{}{} {}", i == 0 ? ": classes " : ", ", i, shown(facts.classes[i]));
    if (facts.classes.size() > kMost) text += fmt::format(" and {} more", facts.classes.size() - kMost);
    return text;
  }

  const OpenTable& open_;
  const DataRequest& request_;
  std::string where_;
  TableLayout layout_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  char delimiter_ = ',';
  int64_t expected_bytes_ = 0;
  bool is_plain_ = false;
};

const NamedArray* table_of(const Dataset& dataset) {
  for (const NamedArray& array : dataset.arrays)
    if (!array.columns.empty()) return &array;
  return nullptr;
}

}  // namespace

Dataset read_table(const OpenTable& open, const DataRequest& request) { return TableReading(open, request).read(); }

std::vector<DataFacts::Scaling> learn_scalings(const Dataset& train, const std::vector<std::string>& patterns) {
  const NamedArray* table = table_of(train);
  if (table == nullptr) throw Error("standardize: the data is no table (CSV), whose columns have names");
  const size_t columns = table->columns.size();
  const std::span<const float> values = table->values.as<float>();
  const auto rows = static_cast<double>(table->values.type.shape[0]);
  std::vector<DataFacts::Scaling> scalings;
  Problems problems;
  std::vector<bool> wanted(columns);
  for (const std::string& pattern : patterns) {
    bool any = false;
    for (size_t c = 0; c < columns; ++c)
      if (::fnmatch(pattern.c_str(), table->columns[c].c_str(), 0) == 0) wanted[c] = any = true;
    if (!any) problems.add(fmt::format("standardize: '{}' matches no column that goes to the model", pattern));
  }
  problems.throw_if_any();
  for (size_t c = 0; c < columns; ++c) {
    if (!wanted[c]) continue;
    double sum = 0, squares = 0;
    for (size_t i = c; i < values.size(); i += columns) sum += values[i];
    const double mean = sum / rows;
    for (size_t i = c; i < values.size(); i += columns) squares += (values[i] - mean) * (values[i] - mean);
    const double deviation = std::sqrt(squares / rows);
    scalings.push_back({table->columns[c], mean, deviation > 0 ? deviation : 1});  // a constant column becomes 0
  }
  return scalings;
}

void apply_scalings(Dataset& dataset) {
  if (dataset.facts.scalings.empty()) return;
  for (NamedArray& array : dataset.arrays)
    for (const DataFacts::Scaling& s : dataset.facts.scalings) {
      const auto column = std::ranges::find(array.columns, s.column);
      if (column == array.columns.end()) continue;
      const std::span<float> values = array.values.as<float>();
      for (auto i = static_cast<size_t>(column - array.columns.begin()); i < values.size(); i += array.columns.size())
        values[i] = static_cast<float>((values[i] - s.mean) / s.deviation);
    }
}

}  // namespace halfstep
