// Tables of separated values, and what is made of their columns.
#include "data/table.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "data/csv.h"
#include "data/data_feed.h"
#include "tests/data/data_files.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

class Tables : public testing::Test {
 protected:
  std::vector<std::vector<std::string>> records(const std::string& bytes, char delimiter = ',') {
    CsvReader reader(open_data_file(write(directory_, "r.csv", bytes)), delimiter);
    std::vector<std::vector<std::string>> all;
    for (std::vector<std::string_view> fields; reader.next(fields);) all.emplace_back(fields.begin(), fields.end());
    return all;
  }
  Dataset table(const std::string& bytes, const DataOptions& options = {}, const DataFacts& facts = {}) {
    return open_dataset(write(directory_, "t.csv", bytes).string(), Split::train, options, facts);
  }
  void refuse(const std::string& bytes, const std::vector<std::string>& parts, const DataOptions& options = {},
              const DataFacts& facts = {}) {
    for (const std::string& part : parts)
      EXPECT_THAT([&] { table(bytes, options, facts); }, ThrowsMessage<Error>(HasSubstr(part)));
  }
  TemporaryDirectory directory_;
};

using Records = std::vector<std::vector<std::string>>;

TEST_F(Tables, FieldsMayBeQuoted) {
  EXPECT_EQ(records("a,b\n1,\"x, \"\"y\"\"\nz\"\n"), (Records{{"a", "b"}, {"1", "x, \"y\"\nz"}}));
  EXPECT_EQ(records("\"\",\"\"\"\"\r\n,\r\n"), (Records{{"", "\""}, {"", ""}}));
  EXPECT_EQ(records("\xef\xbb\xbf"
                    "a;b\n\n\r\n1;2",
                    ';'),
            (Records{{"a", "b"}, {"1", "2"}}));
  EXPECT_EQ(records("a\"b,c\n"), (Records{{"a\"b", "c"}}));  // inside a field a quote is a character
  EXPECT_EQ(records(""), Records{});
  EXPECT_THAT([&] { records("a,b\n1,\"2\n3"); },
              ThrowsMessage<Error>(HasSubstr("r.csv', line 2: a quote is not closed")));
  EXPECT_THAT([&] { records("a,b\n\"1\"x,2\n"); },
              ThrowsMessage<Error>(HasSubstr("line 2: text stands behind the closing quote of field 1")));
  EXPECT_THAT([&] { records(std::string("\xff\xfe\x41\x00", 4)); }, ThrowsMessage<Error>(HasSubstr("it is UTF-16")));
}

// Records, quotes and line ends meet the pieces that a file is read in at every place.
TEST_F(Tables, PiecesOfAFileAreJoined) {
  std::string bytes;
  Records expected;
  for (size_t i = 0; bytes.size() < (size_t{5} << 19); ++i) {
    const std::string text(i % 53, 'x');
    bytes += std::to_string(i) + ",\"" + text + "\"\"\n,\"\r\n";
    expected.push_back({std::to_string(i), text + "\"\n,"});
  }
  EXPECT_EQ(records(bytes), expected);
  const std::string path = write(directory_, "g.csv.gz", gzip(bytes)).string();
  CsvReader reader(open_data_file(path), ',');
  size_t count = 0;
  for (std::vector<std::string_view> fields; reader.next(fields);) ++count;
  EXPECT_EQ(count, expected.size());
  EXPECT_EQ(reader.line(), static_cast<int64_t>(2 * count - 1));
}

TEST_F(Tables, TheDelimiterIsFound) {
  EXPECT_EQ(find_delimiter("a;b;c\n1,5;2,5;3,5\n"), ';');
  EXPECT_EQ(find_delimiter("a\tb\n1\t2\n"), '\t');
  EXPECT_EQ(find_delimiter("\"x;y\",b,c\n"), ',');
  EXPECT_EQ(find_delimiter("a|b\n"), '|');
  EXPECT_EQ(find_delimiter("alone\n1\n"), ',');
}

TEST_F(Tables, ColumnsAreOneMatrixAndTheLastIsTheLabel) {
  const Dataset data = table("width, height,kind\n1,2.5,0\n-3e2,+4,2\ntrue,FALSE,1\n");
  ASSERT_EQ(data.arrays.size(), 2u);
  EXPECT_EQ(data.arrays[0].values.type, (TensorType{DType::f32, {3, 2}}));
  EXPECT_THAT(data.arrays[0].values.values(), ElementsAre(1, 2.5, -300, 4, 1, 0));
  EXPECT_THAT(data.arrays[0].columns, ElementsAre("width", "height"));
  EXPECT_EQ(data.arrays[1].name, "labels");
  EXPECT_EQ(data.arrays[1].values.type, (TensorType{DType::i64, {3}}));
  EXPECT_THAT(data.arrays[1].values.values(), ElementsAre(0, 2, 1));
  EXPECT_THAT(data.facts.columns, ElementsAre("width", "height"));
  EXPECT_TRUE(data.facts.classes.empty());
  EXPECT_THAT(data.remarks[0], HasSubstr("line 1 names the columns, 2 to the model, labels from 'kind'"));
}

TEST_F(Tables, WithoutAHeaderColumnsHaveNumbers) {
  const Dataset data = table("1\t2\t0.5\n3\t4\t1\n", {.label_column = {"3"}, .columns = {"2"}});
  EXPECT_THAT(data.arrays[0].values.values(), ElementsAre(2, 4));
  EXPECT_EQ(data.arrays[1].values.type, (TensorType{DType::f32, {2}}));
  EXPECT_THAT(data.remarks[0], HasSubstr("columns without names, divided by tab"));
  EXPECT_THAT(table("1,2\n3,4\n", {.label_column = {"none"}}).arrays, testing::SizeIs(1));
  EXPECT_THAT(table("7,8\n1,2\n3,4\n", {.header = "true"}).facts.columns, ElementsAre("7"));
}

TEST_F(Tables, TextsAreClassesInSortedOrder) {
  const Dataset data = table("x,kind\n1,setosa\n2,iris\n3,setosa\n4,10\n");
  EXPECT_THAT(data.facts.classes, ElementsAre("10", "iris", "setosa"));
  EXPECT_THAT(data.arrays[1].values.values(), ElementsAre(2, 1, 2, 0));
  EXPECT_THAT(data.remarks[0], HasSubstr("classes 0 '10', 1 'iris', 2 'setosa'"));
  // Numbers first, and a text far behind.
  EXPECT_THAT(table("x,kind\n1,1\n2,0\n3,b\n").facts.classes, ElementsAre("0", "1", "b"));
  EXPECT_THAT(table("x,kind\n1,none\n2,some\n").facts.classes, ElementsAre("none", "some"));
}

TEST_F(Tables, ARunsClassesAndColumnsAreKept) {
  const DataFacts facts{.classes = {"a", "b", "c"}, .columns = {"x", "y"}, .labels = {"kind"}};
  const Dataset data = table("y,more,kind,x\n1,9,c,2\n3,9,a,4\n", {.label_column = {"kind"}}, facts);
  EXPECT_THAT(data.arrays[0].values.values(), ElementsAre(2, 1, 4, 3));
  EXPECT_THAT(data.arrays[1].values.values(), ElementsAre(2, 0));
  EXPECT_EQ(data.facts, facts);
  // Of what is to be predicted there may be no labels.
  EXPECT_THAT(table("x,y\n1,2\n", {}, facts).arrays, testing::SizeIs(1));
  EXPECT_THAT(table("x,y\n1,2\n", {.label_column = {"kind"}}, facts).arrays, testing::SizeIs(1));
  refuse("x,kind\n1,a\n", {"columns of the run: there is no column 'y'"}, {}, facts);
  refuse("x,y,kind\n1,2,a\n1,2,bb\n", {"line 3, column 'kind': 'bb' is none of the run's 3 classes; did you mean 'b'?"},
         {}, facts);
  refuse("x,y,kind\n1,2,a\n", {"the labels of column 'kind' are texts, and those that the run was trained on numbers"},
         {}, {.columns = {"x", "y"}});
}

TEST_F(Tables, SeveralLabelColumnsAreOneArray) {
  const Dataset data = table("x,red,round\n1,0,1\n2,1,1\n", {.label_column = {"red", "round"}});
  EXPECT_EQ(data.arrays[1].values.type, (TensorType{DType::u8, {2, 2}}));
  EXPECT_THAT(data.arrays[1].values.values(), ElementsAre(0, 1, 1, 1));
  EXPECT_EQ(table("x,a,b\n1,0.5,2\n", {.label_column = {"a", "b"}}).arrays[1].values.type,
            (TensorType{DType::f32, {1, 2}}));
  refuse("x,a,b\n1,yes,2\n", {"column 'a': 'yes' is no number, as several label columns need"},
         {.label_column = {"a", "b"}});
}

TEST_F(Tables, BadRowsNameLineAndColumn) {
  const std::string bytes = "x,y,kind\n1,2,0\n1,,0\n1,2\n\"1,5\",2,0\n1,2,0,7\nNA,2,1\n1,2,?\n1e99,0,1\n";
  refuse(bytes,
         {"t.csv', line 3, column 'y': it is empty\n", "line 4: 2 columns, expected 3",
          "line 5, column 'x': '1,5' is no number: decimal points are expected", "line 6: 4 columns, expected 3",
          "line 7, column 'x': 'NA' stands for a missing value", "line 8, column 'kind': '?' stands for a missing",
          "line 9, column 'x': '1e99' is beyond f32: repair them, leave the column out with drop_columns, or"});
  const Dataset data = table(bytes, {.bad_rows = "skip"});
  EXPECT_EQ(data.size(), 1);
  EXPECT_THAT(data.remarks[1], HasSubstr("7 rows are left out (bad_rows skip); the first: "));
  std::string many = "x,kind\n";
  for (int i = 0; i < 30; ++i) many += "a,0\n";
  refuse(many, {"line 11, column 'x': 'a' is no number", "30 rows of this kind in all"});
  EXPECT_THAT([&] { table(many); }, ThrowsMessage<Error>(Not(HasSubstr("line 12"))));
}

TEST_F(Tables, WhatIsNoTableIsRefused) {
  refuse("", {"t.csv': it is empty"});
  refuse("x,kind\n", {"it has no rows beside the names of its columns"});
  refuse("x,x\n1,2\n", {"two columns are called 'x'"});
  refuse("kind\n1\n", {"no column is left for the model: it has 1, which holds the labels: is the delimiter another?"});
  refuse("x,kind\n1,2\n", {"label_column: there is no column 'kinds'; did you mean 'kind'?; there are 'x', 'kind'"},
         {.label_column = {"kinds"}});
  refuse("x,kind\n1,2\n", {"columns: there is no column 'z*'", "drop_columns: there is no column 'w'"},
         {.columns = {"z*"}, .drop_columns = {"w"}});
  refuse("x,kind\n1,2\n", {"delimiter: one character, tab or auto expected, found 'comma'"}, {.delimiter = "comma"});
  refuse("x,kind\n1,a\xff\n", {"'a\\xff' is no UTF-8"});
}

TEST_F(Tables, StandardisedColumnsHaveMeanZeroAndDeviationOne) {
  Dataset data = table("a,b,c,kind\n1,10,5,0\n3,30,5,1\n5,20,5,0\n");
  data.facts.scalings = learn_scalings(data, {"a", "c"});
  EXPECT_EQ(data.facts.scalings[0].mean, 3);
  EXPECT_DOUBLE_EQ(data.facts.scalings[0].deviation, std::sqrt(8.0 / 3));
  apply_scalings(data);
  const float one = std::sqrt(1.5f);
  EXPECT_THAT(data.arrays[0].values.values(), ElementsAre(-one, 10, 0, 0, 30, 0, one, 20, 0));
  EXPECT_THAT([&] { learn_scalings(data, {"d*"}); },
              ThrowsMessage<Error>(HasSubstr("standardize: 'd*' matches no column")));
  EXPECT_THAT([&] { learn_scalings({}, {"*"}); }, ThrowsMessage<Error>(HasSubstr("the data is no table")));
}

Buffer input(const std::string& name, DType dtype, Shape shape) {
  return {name, BufferKind::input, {dtype, std::move(shape)}};
}

TEST_F(Tables, InputsTakeColumnsByNameAndOneTheRest) {
  const Dataset data = table("a,city,b,kind\n1,7,2,0\n3,8,4,1\n");
  const Program p{
      "train",
      {input("measures", DType::f32, {2, 2}), input("city", DType::i64, {2}), input("labels", DType::i64, {2})},
      {}};
  const DataFeed feed(data, p, {});
  std::vector<Tensor> filled;
  for (const Buffer& b : p.buffers) filled.emplace_back(b.type);
  const std::vector<std::span<std::byte>> spans{filled[0].data, filled[1].data, filled[2].data};
  feed.fill(std::vector<int64_t>{1, 0}, {}, spans);
  EXPECT_THAT(filled[0].values(), ElementsAre(3, 4, 1, 2));
  EXPECT_THAT(filled[1].values(), ElementsAre(8, 7));
  EXPECT_THAT(filled[2].values(), ElementsAre(1, 0));
  EXPECT_NO_THROW(feed.check({.rows = {{"city", 9}}}));
  EXPECT_THAT([&] { feed.check({.rows = {{"city", 8}}}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("'city': sample 1 has value 8"))));
  // A column is one number: an input of several takes the table, though a column has its name.
  const Program all{"train", {input("a", DType::f32, {2, 3}), input("labels", DType::i64, {2})}, {}};
  EXPECT_NO_THROW(DataFeed(data, all, {}));
  const Program wrong{"train", {input("a", DType::i64, {2}), input("x", DType::f32, {2, 3})}, {}};
  const Dataset halves = table("a,b,c,kind\n1.5,7,2,0\n3,8,4,1\n", {.label_column = {"none"}});
  EXPECT_THAT([&] { DataFeed(halves, wrong, {}); },
              ThrowsMessage<Error>(HasSubstr("it takes integers up to 2^24 of a table, and column 'a' holds others")));
  const Program narrow{"train", {input("x", DType::f32, {2, 3}), input("labels", DType::i64, {2})}, {}};
  EXPECT_THAT([&] { DataFeed(table("a,b,kind\n1,2,0\n"), narrow, {}); },
              ThrowsMessage<Error>(HasSubstr("takes samples of [3], those of data array 'table' f32[1,2] are [2]")));
}

}  // namespace
}  // namespace halfstep
