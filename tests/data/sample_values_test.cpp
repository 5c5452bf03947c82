// Arrays and tables that stay in their files are those that come to memory.
#include "data/sample_values.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "data/data_feed.h"
#include "data/split.h"
#include "data/table.h"
#include "tests/data/data_files.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

const DataOptions kInMemory{}, kInFiles{.data_memory = {0}};

// 60 samples of 2 x 3 numbers.
std::string floats(float scale = 1) {
  std::string bytes;
  for (int i = 0; i < 360; ++i) append(bytes, static_cast<float>(i) * scale);
  return npy("<f4", "(60, 2, 3)", bytes);
}
std::string classes() {
  std::string bytes;
  for (int i = 0; i < 60; ++i) append(bytes, int64_t{i % 4});
  return npy("<i8", "(60,)", bytes);
}

class Stored : public testing::Test {
 protected:
  std::string specification(const std::string& form) {
    if (form == "npz")
      return write(directory_, "a.npz", zip({{"x.npy", floats()}, {"labels.npy", classes()}})).string();
    if (form == "deflated npz")
      return write(directory_, "b.npz", zip({{"x.npy", floats(), 8}, {"labels.npy", classes(), 8}})).string();
    const std::string bytes = form == "idx" ? idx_u8({60, 2, 3}, std::string(360, '\7')) : floats();
    return "x=" + write(directory_, "x.npy", form == "gzip" ? gzip(bytes) : bytes).string() +
           ",labels=" + write(directory_, "y.npy", classes()).string();
  }
  // All batches of two epochs in their orders.
  static std::vector<double> fed(const Dataset& data, const Program& program) {
    const DataFeed feed(data, program, {.labels = {"labels"}});
    std::vector<double> seen;
    std::vector<Tensor> tensors;
    for (const Buffer& b : program.buffers) tensors.emplace_back(b.type);
    std::vector<std::span<std::byte>> staging;
    for (Tensor& t : tensors) staging.emplace_back(t.data);
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      const std::vector<int64_t> order = feed.order(SampleOrder::shuffled, 5, epoch);
      for (size_t at = 0; at + 8 <= order.size(); at += 8) {
        feed.fill(std::span(order).subspan(at, 8), {}, staging);
        for (const Tensor& t : tensors)
          for (const double v : t.values()) seen.push_back(v);
      }
    }
    return seen;
  }
  static Program program(DType x, Shape shape = {8, 2, 3}) {
    return {"train",
            {{"x", BufferKind::input, {x, std::move(shape)}}, {"labels", BufferKind::input, {DType::i64, {8}}}},
            {}};
  }
  TemporaryDirectory directory_;
};

TEST_F(Stored, ArraysGiveTheSameBatches) {
  for (const std::string form : {"npy", "npz", "deflated npz", "gzip", "idx"}) {
    const std::string from = specification(form);
    const Dataset memory = open_dataset(from, Split::train, kInMemory),
                  file = open_dataset(from, Split::train, kInFiles);
    const auto x = [](const Dataset& d) -> const SampleValues& {
      return std::ranges::find(d.arrays, "x", &NamedArray::name)->values;
    };
    EXPECT_FALSE(x(memory).stored) << form;
    EXPECT_TRUE(x(file).stored) << form;
    EXPECT_TRUE(x(file).data.empty()) << form;
    EXPECT_EQ(x(memory).values(), x(file).values()) << form;
    const Program p = program(form == "idx" ? DType::u8 : DType::f16);
    EXPECT_EQ(fed(memory, p), fed(file, p)) << form;
    const Program turned = program(form == "idx" ? DType::u8 : DType::f32, {8, 3, 2});
    EXPECT_EQ(fed(memory, turned), fed(file, turned)) << form;
    // What is held out, too.
    const SplitOptions split{.fraction = 0.25, .seed = 3};
    const auto [train, test] = split_dataset(open_dataset(from, Split::train, kInFiles), split);
    const auto [train_in_memory, test_in_memory] = split_dataset(open_dataset(from, Split::train, kInMemory), split);
    EXPECT_TRUE(x(train).stored && x(test).stored) << form;
    EXPECT_EQ(fed(train, p), fed(train_in_memory, p)) << form;
    EXPECT_EQ(x(test).values(), x(test_in_memory).values()) << form;
  }
}

TEST_F(Stored, ValuesAreCheckedAsTheyAreInMemory) {
  std::string bytes;
  for (int i = 0; i < 360; ++i) append(bytes, i == 200 ? std::nanf("") : 1.0f);
  const std::string nan = write(directory_, "nan.npy", npy("<f4", "(60, 2, 3)", bytes)).string();
  std::string labels;
  for (int i = 0; i < 120; ++i) append(labels, int64_t{i});
  const std::string dense = write(directory_, "dense.npy", npy("<i8", "(60, 2)", labels)).string();
  for (const DataOptions& options : {kInMemory, kInFiles}) {
    EXPECT_THAT([&] { open_dataset("x=" + nan, Split::train, options); },
                ThrowsMessage<Error>(HasSubstr("data array 'x': sample 33 holds NaN (element 2)")));
    const Dataset data = open_dataset("labels=" + dense, Split::train, options);
    EXPECT_THAT(
        [&] { check_ranges(data, {.classes = 100}); },
        ThrowsMessage<Error>(HasSubstr("data array 'labels': sample 50 has label 100, expected 0 to 99 (20 such "
                                       "labels)")));
    EXPECT_THAT(
        [&] {
          open_dataset("x=" + write(directory_, "s.npy", floats().substr(0, 900)).string(), Split::train, options);
        },
        ThrowsMessage<Error>(HasSubstr("its header announces f32[60,2,3], 1440 bytes, but at most")));
    EXPECT_THAT(
        [&] { open_dataset("x=" + write(directory_, "l.npy", floats() + "more").string(), Split::train, options); },
        ThrowsMessage<Error>(HasSubstr("more bytes follow than its header announces")));
    for (const uint16_t method : {uint16_t{0}, uint16_t{8}})
      EXPECT_THAT(
          [&] {
            open_dataset(write(directory_, "c.npz", zip({{"x.npy", floats(), method, 0, 1}})).string(), Split::train,
                         options);
          },
          ThrowsMessage<Error>(HasSubstr("its size or checksum differs from the archive's directory")));
  }
}

TEST_F(Stored, AFileThatShrinksWhileItIsReadIsAnErrorOfItsSample) {
  const std::string from = specification("npy");
  const Dataset data = open_dataset(from, Split::train, kInFiles);
  const Program p = program(DType::f32);
  const DataFeed feed(data, p, {});
  std::filesystem::resize_file(directory_.path() / "x.npy", 500);
  Tensor x(p.buffers[0].type), labels(p.buffers[1].type);
  const std::vector<std::span<std::byte>> staging{x.data, labels.data};
  EXPECT_NO_THROW(feed.fill(std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}, {}, staging));
  EXPECT_THAT(
      [&] { feed.fill(std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 59}, {}, staging); },
      ThrowsMessage<Error>(AllOf(HasSubstr("x.npy'"), HasSubstr("became shorter while it was read, sample 59"))));
}

TEST_F(Stored, TablesGiveTheSameBatches) {
  std::string csv = "a,id,b,label\n";
  for (int i = 0; i < 60; ++i)
    csv += std::to_string(i * 0.37) + "," + std::to_string(i * 3) + "," + std::to_string(-i) + "," +
           (i % 3 ? "cat" : "dog") + "\n";
  const std::string path = write(directory_, "t.csv", csv).string();
  const Program p{"train",
                  {{"x", BufferKind::input, {DType::f32, {8, 2}}},
                   {"id", BufferKind::input, {DType::i64, {8}}},
                   {"labels", BufferKind::input, {DType::i64, {8}}}},
                  {}};
  std::vector<std::vector<double>> seen;
  for (const DataOptions& options : {kInMemory, kInFiles}) {
    Dataset data = open_dataset(path, Split::train, options);
    EXPECT_EQ(data.arrays[0].values.stored != nullptr, options.data_memory.bytes == 0);
    data.facts.scalings = learn_scalings(data, {"a"});
    apply_scalings(data);
    auto [train, test] = split_dataset(std::move(data), {.fraction = 0.2, .seed = 1});
    const DataFeed feed(train, p, {});
    feed.check({.rows = {{"id", 178}}});
    EXPECT_THAT([&] { feed.check({.rows = {{"id", 100}}}); },
                ThrowsMessage<Error>(HasSubstr("data array 'id': sample")));
    seen.push_back(fed(train, p));
    for (const double v : test.arrays[0].values.values()) seen.back().push_back(v);
  }
  EXPECT_EQ(seen[0], seen[1]);
}

TEST_F(Stored, ASinkGoesOnInAFile) {
  for (const int64_t memory : {int64_t{0}, int64_t{10}, int64_t{1} << 20}) {
    SampleSink sink("x", memory);
    std::string all;
    for (int i = 0; i < 100; ++i) {
      const std::string piece(static_cast<size_t>(i % 7), static_cast<char>(i));
      sink.write(std::as_bytes(std::span(piece)));
      all += piece;
    }
    const auto size = static_cast<int64_t>(all.size());
    const SampleValues values = sink.finish({DType::u8, {size / 2, 2}});
    EXPECT_EQ(values.stored != nullptr, memory < size);
    for (int64_t i = 0; i < size / 2 * 2; ++i)
      ASSERT_EQ(values.at(i), static_cast<uint8_t>(all[static_cast<size_t>(i)]));
  }
  ASSERT_EQ(::setenv("TMPDIR", "/nowhere/at/all", 1), 0);
  SampleSink sink("data file 'x'", 1);
  const std::string piece = "ab";
  EXPECT_THAT([&] { sink.write(std::as_bytes(std::span(piece))); },
              ThrowsMessage<Error>(AllOf(HasSubstr("data file 'x': no temporary file for it in '/nowhere/at/all'"),
                                         HasSubstr("TMPDIR"))));
  ::unsetenv("TMPDIR");
}

}  // namespace
}  // namespace halfstep
