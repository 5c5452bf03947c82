// Rows of a data set as files: each format says the same, and a file is whole or not there.
#include "data/row_writer.h"

#include <gmock/gmock.h>

#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "data/npy.h"

namespace halfstep {
namespace {

using testing::HasSubstr;

class RowWriter : public testing::Test {
 protected:
  // Three samples: two floats with a name each, and a class.
  std::vector<RowArray> arrays() const {
    return {{"y", {DType::f32, {2}}, {"a,b", "c"}, {}}, {"y_class", {DType::i64, {}}, {}, {"cat", "a \"dog\""}}};
  }
  static void fill(RowSink& sink) {
    const std::vector<float> y{0.1f, -2, std::numeric_limits<float>::quiet_NaN(), 1e-8f, 3, 4};
    const std::vector<int64_t> classes{1, 0, 2};
    for (size_t begin : {0, 2}) {  // two batches
      const size_t rows = begin == 0 ? 2 : 1;
      const std::vector<std::span<const std::byte>> parts{std::as_bytes(std::span(y).subspan(begin * 2, rows * 2)),
                                                          std::as_bytes(std::span(classes).subspan(begin, rows))};
      sink.add(parts, static_cast<int64_t>(rows));
    }
  }
  std::string written(const std::string& name) const {
    write_rows(path(name), arrays(), 3, fill);
    return read_file(path(name));
  }
  std::filesystem::path path(const std::string& name) const { return directory_.path() / name; }

  TemporaryDirectory directory_;
};

TEST_F(RowWriter, CsvHasAColumnForEachNumber) {
  EXPECT_EQ(written("p.csv"), "sample,\"y_a,b\",y_c,y_class\n0,0.1,-2,\"a \"\"dog\"\"\"\n1,nan,1e-08,cat\n2,3,4,2\n");
}

TEST_F(RowWriter, JsonLinesHaveAnObjectForEachSample) {
  EXPECT_EQ(written("p.jsonl"),
            "{\"sample\":0,\"y\":[0.1,-2],\"y_class\":\"a \\\"dog\\\"\"}\n"
            "{\"sample\":1,\"y\":[null,1e-08],\"y_class\":\"cat\"}\n{\"sample\":2,\"y\":[3,4],\"y_class\":2}\n");
}

TEST_F(RowWriter, ArchivesHoldEveryArray) {
  written("p.npz");
  const FileTensors read = read_npz(path("p.npz"));
  EXPECT_EQ(read.at("y").type, (TensorType{DType::f32, {3, 2}}));
  EXPECT_EQ(read.at("y").at(3), static_cast<double>(1e-8f));
  EXPECT_EQ(read.at("y_class").values(), (std::vector<double>{1, 0, 2}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path()), {}), 1) << "and no part stays";
}

TEST_F(RowWriter, OneArrayIsAFileOfItsOwn) {
  EXPECT_THAT([&] { written("p.npy"); }, testing::ThrowsMessage<Error>(HasSubstr("holds one array, and there are 2")));
  write_rows(path("p.npy"), {arrays()[0]}, 3, fill);
  EXPECT_EQ(read_npy(*open_data_file(path("p.npy"))).at(5), 4);
}

TEST_F(RowWriter, WhatFailsLeavesWhatWasThere) {
  for (const RowFormat& format : row_formats()) {
    const std::string name = "p" + std::string(format.ending);
    write_file_atomically(path(name), "before");
    EXPECT_THROW(write_rows(path(name), {arrays()[0]}, 3,
                            [](RowSink& sink) {
                              fill(sink);
                              throw Error("a signal came");
                            }),
                 Error);
    EXPECT_EQ(read_file(path(name)), "before") << name;
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path()), {}), 4);
}

TEST_F(RowWriter, RefusesByName) {
  EXPECT_THAT([&] { written("p.txt"); },
              testing::ThrowsMessage<Error>(HasSubstr("a file that ends in .npz, .npy, .csv or .jsonl expected")));
  EXPECT_THAT([&] { write_rows(path("p.csv"), {{"y", {DType::f32, {1000, 1000}}, {}, {}}}, 3, fill); },
              testing::ThrowsMessage<Error>(HasSubstr("output 'y' has 1000000 numbers a sample")));
  EXPECT_THAT([&] { write_rows(path("p.npz"), {{"y", {DType::f32, {1 << 20}}, {}, {}}}, 1 << 12, fill); },
              testing::ThrowsMessage<Error>(HasSubstr("more than 4 GiB")));
}

}  // namespace
}  // namespace halfstep
