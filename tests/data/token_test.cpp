// Token files and the batches that are made of them.
#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "data/data_feed.h"
#include "data/split.h"
#include "tests/data/data_files.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes;
  for (const T value : values) append(bytes, value);
  return bytes;
}

std::vector<int64_t> all_tokens(const std::filesystem::path& path) {
  const TokenFile file(path);
  std::vector<int64_t> tokens(static_cast<size_t>(file.size()));
  file.read(0, tokens);
  return tokens;
}

template <typename Do>
void expect_error(Do action, const std::string& message) {
  EXPECT_THAT(action, ThrowsMessage<Error>(HasSubstr(message)));
}

class Tokens : public testing::Test {
 protected:
  std::filesystem::path file(const std::string& name, const std::string& bytes) {
    return write(directory_, name, bytes);
  }
  // 0, 1, ..., as uint16.
  Dataset counting(uint16_t count) {
    std::vector<uint16_t> values(count);
    std::iota(values.begin(), values.end(), uint16_t{0});
    return open_tokens(file("count.u16", bytes_of(values)).string());
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(Tokens, EveryTypeIsReadByItsName) {
  EXPECT_THAT(all_tokens(file("t.txt", std::string("a\xff\0", 3))), ElementsAre(97, 255, 0));
  EXPECT_TRUE(TokenFile(file("t", "x")).is_text());
  const std::vector<int32_t> values{1, 300, 65535};
  for (const char* name : {"t.u16", "t.bin"})
    EXPECT_THAT(all_tokens(file(name, bytes_of(std::vector<uint16_t>(values.begin(), values.end())))),
                ElementsAre(1, 300, 65535));
  EXPECT_THAT(all_tokens(file("t.u32", bytes_of(std::vector<uint32_t>{7, 4000000000u}))), ElementsAre(7, 4000000000));
  EXPECT_THAT(all_tokens(file("t.npy", npy("<i4", "(3,)", bytes_of(values)))), ElementsAre(1, 300, 65535));
  EXPECT_THAT(all_tokens(file("t.npy", npy("<u2", "(2,)", bytes_of(std::vector<uint16_t>{9, 65535})))),
              ElementsAre(9, 65535));
  EXPECT_FALSE(TokenFile(file("t.npy", npy("|u1", "(1,)", "x"))).is_text());
}

TEST_F(Tokens, LargeFilesAreReadInPieces) {
  std::vector<uint32_t> values(200000);
  std::iota(values.begin(), values.end(), 5u);
  const std::filesystem::path path = file("t.u32", bytes_of(values));
  std::vector<int64_t> tokens(150000);
  TokenFile(path).read(40000, tokens);
  for (size_t i = 0; i < tokens.size(); ++i) ASSERT_EQ(tokens[i], static_cast<int64_t>(40005 + i));
}

TEST_F(Tokens, FilesThatAreNoneAreNamed) {
  expect_error([&] { TokenFile(file("t.txt", "")); }, "t.txt': it is empty");
  expect_error([&] { TokenFile(file("t.u32", "abcdef")); }, "t.u32': 6 bytes are no whole number of 4-byte tokens");
  expect_error([&] { TokenFile("nowhere.txt"); }, "cannot open data file 'nowhere.txt'");
  expect_error([&] { TokenFile(file("t.npy", "text")); }, "truncated in its header");
  expect_error([&] { TokenFile(file("t.npy", npy("<f4", "(1,)", "abcd"))); }, "'<f4' with 1 axes: expected one axis");
  expect_error([&] { TokenFile(file("t.npy", npy("|u1", "(2,2)", "abcd"))); }, "'|u1' with 2 axes");
  expect_error([&] { TokenFile(file("t.npy", npy("<u2", "(3,)", "abcd"))); },
               "its header announces 6 bytes, but 4 follow");
  expect_error([&] { TokenFile(file("t.npy", npy("<i8", "(9223372036854775807,)", "abcd"))); }, "overflows");
}

TEST_F(Tokens, OutsideTheVocabularyArePlaced) {
  std::vector<uint16_t> values(70000, 1);
  values[69999] = 50257;
  const Dataset data = open_tokens(file("t.u16", bytes_of(values)).string());
  EXPECT_NO_THROW(check_ranges(data, {.classes = 50258}));
  EXPECT_NO_THROW(check_ranges(split_dataset(data, {.fraction = 0.1}).first, {.classes = 2}));
  expect_error([&] { check_ranges(data, {.classes = 50257}); },
               "t.u16': token 50257 at position 69999, expected 0 to 50256");
  expect_error(
      [&] {
        check_tokens(
            {std::make_shared<const TokenFile>(file("n.npy", npy("<i4", "(1,)", bytes_of(std::vector<int32_t>{-2})))),
             0, 1},
            9);
      },
      "token -2 at position 0");
  expect_error([&] { check_ranges(open_tokens(file("t.txt", "az").string()), {.classes = 100}); },
               "token 122 at position 1");
}

TEST_F(Tokens, TheEndIsSplitOff) {
  const auto [train, test] = split_dataset(counting(100), {.fraction = 0.25});
  EXPECT_EQ(train.tokens->begin, 0);
  EXPECT_EQ(train.tokens->end, 75);
  EXPECT_EQ(test.tokens->begin, 75);
  EXPECT_EQ(test.tokens->end, 100);
  expect_error([&] { split_dataset(counting(100), {.folds = 4, .fold = 1}); }, "no samples to deal out");
}

Buffer input(const std::string& name, DType dtype, Shape shape) {
  return {name, BufferKind::input, {dtype, std::move(shape)}};
}

// Batch 2, windows of 4.
Program language_model() {
  return {"train", {input("input_ids", DType::i64, {2, 4}), input("labels", DType::i64, {2, 4})}, {}};
}

FeedOptions objective(Objective kind) {
  return {{}, {.kind = kind, .ids = "", .vocabulary = 100, .mask_token = 99, .mask_probability = 0.15}};
}

// What `fill` leaves in each input of `program`.
std::vector<std::vector<double>> fill(const DataFeed& feed, const Program& program, const std::vector<int64_t>& samples,
                                      const StepInputs& step = {}) {
  std::vector<Tensor> tensors;
  for (const Buffer& b : program.buffers) tensors.emplace_back(b.type);
  std::vector<std::span<std::byte>> staging;
  for (Tensor& t : tensors) staging.emplace_back(t.data);
  feed.fill(samples, step, staging);
  std::vector<std::vector<double>> values;
  for (const Tensor& t : tensors) values.push_back(t.values());
  return values;
}

TEST_F(Tokens, LabelsOfNextTokenAreOneAhead) {
  const Dataset data = counting(14);
  const Program p = language_model();
  const DataFeed feed(data, p, objective(Objective::next_token));
  EXPECT_EQ(feed.batch(), 2);
  EXPECT_EQ(feed.samples(), 3);
  EXPECT_THAT(feed.order(SampleOrder::as_stored, 1, 0), ElementsAre(0, 4, 8));
  const auto filled = fill(feed, p, {8, 1});
  EXPECT_THAT(filled[0], ElementsAre(8, 9, 10, 11, 1, 2, 3, 4));
  EXPECT_THAT(filled[1], ElementsAre(9, 10, 11, 12, 2, 3, 4, 5));
  EXPECT_THAT(fill(feed, p, {4})[0], ElementsAre(4, 5, 6, 7, 4, 5, 6, 7));  // a partial batch
}

TEST_F(Tokens, ShuffledWindowsAreAGridThatMoves) {
  const Dataset data = counting(41);
  const Program p = language_model();
  const DataFeed feed(data, p, objective(Objective::next_token));
  std::map<int64_t, int> shifts;
  for (int64_t epoch = 0; epoch < 200; ++epoch) {
    std::vector<int64_t> order = feed.order(SampleOrder::shuffled, 5, epoch);
    EXPECT_EQ(order, feed.order(SampleOrder::shuffled, 5, epoch));
    EXPECT_NE(order, feed.order(SampleOrder::shuffled, 5, epoch + 1));
    std::ranges::sort(order);
    ASSERT_EQ(order.size(), 10u);
    ASSERT_GE(order.front(), 0);
    ASSERT_LE(order.back(), 36);  // the last label is token 40
    for (size_t i = 1; i + 1 < order.size(); ++i) ASSERT_EQ(order[i] - order[i - 1], 4);
    ++shifts[order.front()];
  }
  ASSERT_EQ(shifts.size(), 4u);  // each about 50 times, standard deviation 6
  for (const auto& [shift, count] : shifts) EXPECT_NEAR(count, 50, 30) << shift;
  // Recorded: a change would make every checkpoint resume with other data.
  EXPECT_THAT(feed.order(SampleOrder::shuffled, 5, 3), ElementsAre(1, 25, 21, 13, 33, 36, 5, 9, 29, 17));
}

TEST_F(Tokens, MaskingFollowsTheSchemeOfBert) {
  const int64_t length = 20000;
  const Dataset data = counting(20000);
  const Program p{"train", {input("input_ids", DType::i32, {1, length}), input("labels", DType::i64, {1, length})}, {}};
  FeedOptions options = objective(Objective::masked_token);
  options.tokens.vocabulary = 20000, options.tokens.mask_token = 19999;
  options.tokens.first_special = 0, options.tokens.last_special = 102;
  const DataFeed feed(data, p, options);
  EXPECT_EQ(feed.samples(), 1);
  const auto filled = fill(feed, p, {0}, {.iteration = 7, .seed = 3});
  double chosen = 0, masked = 0, kept = 0;
  std::set<double> random;
  for (int64_t i = 0; i < length; ++i) {
    const double id = filled[0][static_cast<size_t>(i)], label = filled[1][static_cast<size_t>(i)];
    if (label == kUncounted) {
      ASSERT_EQ(id, i);
      continue;
    }
    ASSERT_EQ(label, i);
    ASSERT_GT(i, 102) << "a special token";
    ++chosen;
    if (id == 19999) {
      ++masked;
    } else if (id == i) {
      ++kept;
    } else {
      random.insert(id);
    }
  }
  EXPECT_NEAR(chosen / (length - 103), 0.15, 0.01);
  EXPECT_NEAR(masked / chosen, 0.8, 0.03);
  EXPECT_NEAR(kept / chosen, 0.1, 0.025);
  EXPECT_GT(random.size(), chosen * 0.07);
  EXPECT_LT(*random.begin(), 2000);
  EXPECT_GT(*random.rbegin(), 18000);
  EXPECT_EQ(fill(feed, p, {0}, {.iteration = 7, .seed = 3}), filled);
  EXPECT_NE(fill(feed, p, {0}, {.iteration = 8, .seed = 3}), filled);
  EXPECT_NE(fill(feed, p, {0}, {.iteration = 7, .seed = 4}), filled);
}

TEST_F(Tokens, MeasuresFollowFromTheLoss) {
  const Program p = language_model();
  const Dataset text = open_tokens(file("t.txt", "ten letters").string()), ids = counting(20);
  const auto of_text = DataFeed(text, p, objective(Objective::next_token)).measure(std::log(8), 3);
  EXPECT_DOUBLE_EQ(of_text->perplexity, 8);
  EXPECT_DOUBLE_EQ(of_text->per_second, 12);
  EXPECT_DOUBLE_EQ(*of_text->bits_per_byte, 3);
  EXPECT_FALSE(DataFeed(ids, p, objective(Objective::next_token)).measure(1, 1)->bits_per_byte);
}

TEST_F(Tokens, TheInputThatTakesThemIsFoundOrNamed) {
  const Dataset data = counting(20);
  const Program two{
      "train",
      {input("a", DType::i64, {2, 4}), input("b", DType::i64, {2, 4}), input("labels", DType::i64, {2, 4})},
      {}};
  FeedOptions options = objective(Objective::next_token);
  expect_error([&] { DataFeed(data, two, options); }, "the inputs 'a', 'b': say with ids which one takes the tokens");
  options.tokens.ids = "c";
  expect_error([&] { DataFeed(data, two, options); }, "ids: the model has no input 'c'; its inputs are 'a', 'b'");
  options.tokens.ids = "b";
  expect_error([&] { DataFeed(data, two, options); }, "feeds input 'b' alone, and the model also has 'a'");
  const Program masked{"train",
                       {input("attention_mask", DType::i64, {2, 4}), input("b", DType::i64, {2, 4}),
                        input("labels", DType::i64, {2, 4})},
                       {}};
  const DataFeed feed(data, masked, options);
  EXPECT_THAT(fill(feed, masked, {0, 4})[0], Each(1));
  EXPECT_EQ(feed.remarks().size(), 1u);
}

TEST_F(Tokens, ModelsThatDoNotFitAreRefused) {
  const Dataset data = counting(20), few = counting(4);
  const auto refuse = [&](const Dataset& set, std::vector<Buffer> inputs, const std::string& message) {
    const Program p{"train", std::move(inputs), {}};
    expect_error([&] { DataFeed(set, p, objective(Objective::next_token)); }, message);
  };
  refuse(data, {input("x", DType::f32, {2, 4}), input("labels", DType::i64, {2, 4})},
         "input 'x': f32[2,4] cannot take tokens");
  refuse(data, {input("x", DType::i64, {2, 4}), input("labels", DType::i64, {2})},
         "takes tokens i64[2,4], but its loss compares with i64[2]");
  refuse(data, {input("x", DType::i64, {2, 4}), input("targets", DType::f32, {2, 4})}, "has no input 'labels'");
  refuse(few, {input("x", DType::i64, {2, 4}), input("labels", DType::i64, {2, 4})},
         "4 tokens, but one window takes 5: give more text");
}

}  // namespace
}  // namespace halfstep
