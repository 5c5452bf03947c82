#include "data/table.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "data/csv.h"
#include "data/image_folder.h"
#include "data/label_columns.h"
#include "data/sample_order.h"
#include "data/table_layout.h"
#include "data/tokenizer.h"

namespace halfstep {
namespace {

constexpr size_t kProblemsShown = 10;

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

std::string problem_of(std::string_view field) {
  if (is_missing(field))
    return trimmed(field).empty() ? "it is empty" : shown_field(field) + " stands for a missing value";
  return shown_field(field) + " is no number" +
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
    LabelColumns labels(layout_.labels.size(), request_.facts, texts);
    SampleSink table(where_, request_.options.data_memory.bytes);
    std::vector<float> row;
    std::vector<std::string> paths;
    TextTokens texts_read;
    int64_t count = 0;
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
        table.expect(static_cast<int64_t>(static_cast<double>(expected_bytes_) / static_cast<double>(reader.bytes()) *
                                          1.05 * kRowsThatTell) *
                     static_cast<int64_t>(row.size() * sizeof(float)));
      table.write(std::as_bytes(std::span(row)));
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
    dataset = finish(std::move(dataset), table, count, labels, texts);
    leave_out_bad_images(dataset);
    return dataset;
  }

  // ": what is wrong", or with the column; empty: nothing.
  std::string read_row(const std::vector<std::string_view>& fields, LabelColumns& labels, std::vector<float>& row,
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
        return in_column(column, number ? shown_field(fields[column]) + " is beyond f32" : problem_of(fields[column]));
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

  Dataset finish(Dataset dataset, SampleSink& table, int64_t count, LabelColumns& labels, bool texts) {
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
      array.values = table.finish({DType::f32, {count, static_cast<int64_t>(facts.columns.size())}});
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
        delimiter_ == ',' ? ""
                          : fmt::format(", divided by {}", delimiter_ == '\t' ? "tab" : shown_field({&delimiter_, 1})),
        layout_.inputs.size(), layout_.text ? ", texts from '" + layout_.names[*layout_.text] + "'" : "",
        layout_.image ? ", images from '" + layout_.names[*layout_.image] + "'" : "",
        label_names.empty() ? "no labels" : "labels from " + label_names);
    constexpr size_t kMost = 10;
    for (size_t i = 0; i < std::min(facts.classes.size(), kMost); ++i)
      text += fmt::format("{}{} {}", i == 0 ? ": classes " : ", ", i, shown_field(facts.classes[i]));
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

// Columns of a table as whole numbers.
class IntegerColumns final : public SampleRows {
 public:
  // `picks`: empty: all.
  IntegerColumns(const SampleValues& table, std::vector<int64_t> picks, int64_t elements)
      : table_(table), picks_(std::move(picks)), elements_(elements) {}

  bool are_integers() const {
    constexpr float kMost = 1 << 24;  // above it f32 has no odd numbers
    const int64_t columns = table_.row_elements();
    bool all = true;
    table_.scan([&](int64_t, std::span<const std::byte> bytes) {
      const auto* values = reinterpret_cast<const float*>(bytes.data());
      for (size_t row = 0; row < bytes.size() / sizeof(float) && all; row += static_cast<size_t>(columns))
        for (int64_t i = 0; i < elements_; ++i) {
          const float value = values[row + static_cast<size_t>(column(i))];
          all = all && value == std::nearbyint(value) && std::abs(value) <= kMost;
        }
      return all;
    });
    return all;
  }
  void read(int64_t first, std::span<std::byte> into) const override {
    std::vector<std::byte> buffer;
    auto* to = reinterpret_cast<int64_t*>(into.data());
    for (size_t done = 0; done < into.size() / sizeof(int64_t); done += static_cast<size_t>(elements_), ++first) {
      const auto* values = reinterpret_cast<const float*>(table_.row(first, buffer));
      for (int64_t i = 0; i < elements_; ++i) *to++ = static_cast<int64_t>(values[column(i)]);
    }
  }

 private:
  int64_t column(int64_t i) const { return picks_.empty() ? i : picks_[static_cast<size_t>(i)]; }

  const SampleValues& table_;
  const std::vector<int64_t> picks_;
  const int64_t elements_;
};

using ColumnScalings = std::vector<std::pair<size_t, DataFacts::Scaling>>;

void scale(std::span<float> rows, const ColumnScalings& scalings, size_t columns) {
  for (const auto& [column, s] : scalings)
    for (size_t i = column; i < rows.size(); i += columns)
      rows[i] = static_cast<float>((rows[i] - s.mean) / s.deviation);
}

class ScaledRows final : public SampleRows {
 public:
  ScaledRows(std::shared_ptr<const SampleRows> rows, ColumnScalings scalings, size_t columns)
      : rows_(std::move(rows)), scalings_(std::move(scalings)), columns_(columns) {}

  void read(int64_t first, std::span<std::byte> into) const override {
    rows_->read(first, into);
    scale({reinterpret_cast<float*>(into.data()), into.size() / sizeof(float)}, scalings_, columns_);
  }

 private:
  std::shared_ptr<const SampleRows> rows_;
  ColumnScalings scalings_;
  size_t columns_;
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
  std::vector<double> means(columns), squares(columns);
  const auto each = [&](const auto& take) {
    table->values.scan([&](int64_t, std::span<const std::byte> bytes) {
      const std::span values(reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float));
      for (size_t row = 0; row < values.size(); row += columns)
        for (size_t c = 0; c < columns; ++c) take(c, values[row + c]);
      return true;
    });
  };
  each([&](size_t c, float value) { means[c] += value; });
  for (double& mean : means) mean /= rows;
  each([&](size_t c, float value) { squares[c] += (value - means[c]) * (value - means[c]); });
  for (size_t c = 0; c < columns; ++c) {
    if (!wanted[c]) continue;
    const double deviation = std::sqrt(squares[c] / rows);
    scalings.push_back({table->columns[c], means[c], deviation > 0 ? deviation : 1});  // a constant column becomes 0
  }
  return scalings;
}

std::optional<SampleValues> integer_columns(const SampleValues& table, const std::vector<int64_t>& picks) {
  const int64_t elements = picks.empty() ? table.row_elements() : std::ssize(picks);
  const auto columns = std::make_shared<const IntegerColumns>(table, picks, elements);
  if (!columns->are_integers()) return std::nullopt;
  return SampleValues({DType::i64, {table.type.shape[0], elements}}, columns);
}

void apply_scalings(Dataset& dataset) {
  for (NamedArray& array : dataset.arrays) {
    ColumnScalings scalings;
    for (const DataFacts::Scaling& s : dataset.facts.scalings)
      if (const auto column = std::ranges::find(array.columns, s.column); column != array.columns.end())
        scalings.emplace_back(static_cast<size_t>(column - array.columns.begin()), s);
    if (scalings.empty()) continue;
    SampleValues& values = array.values;
    if (values.stored)
      values.stored = std::make_shared<const ScaledRows>(values.stored, std::move(scalings), array.columns.size());
    else
      scale(values.as<float>(), scalings, array.columns.size());
  }
}

}  // namespace halfstep
