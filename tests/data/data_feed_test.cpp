#include "data/data_feed.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

Program program_with(std::vector<Buffer> inputs) { return {"train", std::move(inputs), {}}; }

Buffer input(const Name& name, DType dtype, Shape shape) {
  return {name, BufferKind::input, {dtype, std::move(shape)}};
}

NamedArray array(const std::string& name, DType dtype, const Shape& shape, double first) {
  NamedArray a{name, Tensor(TensorType{dtype, shape})};
  for (int64_t i = 0; i < a.values.type.element_count(); ++i) a.values.set(i, first + static_cast<double>(i));
  return a;
}

// What `fill` left in each input.
std::vector<Tensor> fill(const DataFeed& feed, const Program& program, const std::vector<int64_t>& samples,
                         const StepInputs& step = {}) {
  std::vector<Tensor> tensors;
  for (const Buffer& b : program.buffers)
    if (b.kind == BufferKind::input) tensors.emplace_back(b.type);
  std::vector<std::span<std::byte>> spans;
  for (Tensor& t : tensors) spans.emplace_back(t.data);
  feed.fill(samples, step, spans);
  return tensors;
}

TEST(EpochOrder, IsAPermutationThatDependsOnSeedAndEpochAlone) {
  const std::vector<int64_t> order = epoch_order(7, 3, 1000);
  std::vector<int64_t> sorted = order, all(1000);
  std::ranges::sort(sorted);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
  EXPECT_EQ(epoch_order(7, 3, 1000), order);
  EXPECT_NE(epoch_order(7, 4, 1000), order);
  EXPECT_NE(epoch_order(8, 3, 1000), order);
  EXPECT_EQ(epoch_order(1, 0, 1), std::vector<int64_t>{0});
}

// Recorded: a change would make every checkpoint resume with other data.
TEST(EpochOrder, StaysWhatItWas) {
  EXPECT_THAT(epoch_order(0, 0, 8), ElementsAre(0, 1, 5, 2, 7, 4, 6, 3));
  EXPECT_THAT(epoch_order((uint64_t{1} << 63) + 5, 3, 8), ElementsAre(2, 6, 1, 3, 4, 5, 0, 7));
}

TEST(EpochOrder, EveryPlaceIsEquallyLikely) {
  // 5 samples over 6000 epochs: each of 25 cells expects 1200, standard deviation 31.
  int counts[5][5] = {};
  for (int epoch = 0; epoch < 6000; ++epoch) {
    const std::vector<int64_t> order = epoch_order(42, epoch, 5);
    for (size_t i = 0; i < 5; ++i) ++counts[i][order[i]];
  }
  for (const auto& row : counts)
    for (const int count : row) EXPECT_NEAR(count, 1200, 155);
}

TEST(DataFeed, BytesPassAsTheyAreIntoAnotherShape) {
  const Dataset data = make_dataset({array("images", DType::u8, {3, 2, 2}, 10), array("labels", DType::u8, {3}, 0)});
  const Program p = program_with({input("labels", DType::i64, {2}), input("images", DType::u8, {2, 1, 2, 2})});
  const DataFeed feed(data, p, {});
  EXPECT_EQ(feed.batch(), 2);
  const std::vector<Tensor> filled = fill(feed, p, {2, 0});
  EXPECT_THAT(filled[0].values(), ElementsAre(2, 0));
  EXPECT_THAT(filled[1].values(), ElementsAre(18, 19, 20, 21, 10, 11, 12, 13));
}

TEST(DataFeed, OtherNamesArePairedInOrder) {
  const Dataset data = make_dataset({array("x", DType::u8, {2, 1}, 5), array("y", DType::u8, {2}, 0)});
  const Program p = program_with(
      {input("pixels", DType::u8, {1, 1}), input(kStepSeed, DType::i64, {}), input("digit", DType::i32, {1})});
  const std::vector<Tensor> filled = fill(DataFeed(data, p, {}), p, {1}, {.seed = 99});
  EXPECT_EQ(filled[0].at(0), 6);
  EXPECT_EQ(filled[1].at(0), 99);
  EXPECT_EQ(filled[2].at(0), 1);
}

TEST(DataFeed, OtherNamesGoWhereTheyFit) {
  const Dataset data = make_dataset({array("images", DType::u8, {2, 3}, 5), array("labels", DType::u8, {2}, 0)});
  const Program p = program_with({input("target", DType::i64, {1}), input("pixels", DType::u8, {1, 3})});
  const std::vector<Tensor> filled = fill(DataFeed(data, p, {}), p, {1});
  EXPECT_THAT(filled[0].values(), ElementsAre(1));
  EXPECT_THAT(filled[1].values(), ElementsAre(8, 9, 10));
}

TEST(DataFeed, APartialBatchRepeatsItsLastSample) {
  const Dataset data = make_dataset({array("x", DType::u8, {5, 1}, 0)});
  const Program p = program_with({input("x", DType::u8, {4, 1})});
  EXPECT_THAT(fill(DataFeed(data, p, {}), p, {1, 3})[0].values(), ElementsAre(1, 3, 3, 3));
}

TEST(DataFeed, BytesBecomeNormalizedFloats) {
  const Dataset data = make_dataset({array("x", DType::u8, {2, 2, 2}, 250)});
  const Program p = program_with({input("x", DType::f32, {1, 2, 2})});
  EXPECT_THAT([&] { DataFeed(data, p, {}); },
              ThrowsMessage<Error>(HasSubstr("input 'x': expected f32, but data array 'x' is u8: say with scale")));
  EXPECT_THAT(fill(DataFeed(data, p, {{{"x", {}}}}), p, {0})[0].values(), ElementsAre(250, 251, 252, 253));
  const Normalization per_channel{.scale = 0.5, .mean = {100, 120}, .deviation = {2}};
  EXPECT_THAT(fill(DataFeed(data, p, {{{"x", per_channel}}}), p, {0})[0].values(), ElementsAre(12.5, 12.75, 3, 3.25));
}

TEST(DataFeed, FloatsAreNormalizedAndConverted) {
  const Dataset data = make_dataset({array("x", DType::f64, {2, 2}, 1), array("z", DType::f32, {2, 2}, 1)});
  const Program p = program_with({input("x", DType::f16, {2, 2}), input("z", DType::f32, {2, 2})});
  const Normalization n{.scale = 2, .mean = {1}, .deviation = {0.5}};
  const std::vector<Tensor> filled = fill(DataFeed(data, p, {{{"x", n}, {"z", n}}}), p, {0, 1});
  EXPECT_THAT(filled[0].values(), ElementsAre(2, 6, 10, 14));
  EXPECT_THAT(filled[1].values(), ElementsAre(2, 6, 10, 14));
}

TEST(DataFeed, LargeBatchesAreFilledLikeSmallOnes) {
  const Dataset data = make_dataset({array("x", DType::i32, {40, 1000}, 0)});
  const Program p = program_with({input("x", DType::f32, {600, 1000})});  // above the size that is split over threads
  std::vector<int64_t> rows(600);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i * 7 % 40);
  const Tensor t = fill(DataFeed(data, p, {}), p, rows)[0];
  for (size_t row = 0; row < rows.size(); ++row)
    for (const int64_t column : {0, 999})
      ASSERT_EQ(t.at(static_cast<int64_t>(row) * 1000 + column), static_cast<double>(rows[row] * 1000 + column));
}

TEST(DataFeed, ArraysThatNothingReadsAreLeftOut) {
  const Dataset data = make_dataset({array("x", DType::u8, {2, 1}, 5), array("z", DType::u8, {2, 1}, 0)});
  const Program p = program_with({input("x", DType::u8, {2, 1})});
  const DataFeed feed(data, p, {});
  EXPECT_THAT(fill(feed, p, {1, 0})[0].values(), ElementsAre(6, 5));
  EXPECT_THAT(feed.remarks(), ElementsAre("data array 'z' is not used: program 'train' has no such input"));
}

TEST(DataFeed, InputsOfTransformersHaveDefaults) {
  const Dataset data = make_dataset({array("ids", DType::i32, {2, 3}, 5), array("labels", DType::u8, {2}, 0)});
  const Program p = program_with({input("attention_mask", DType::i64, {2, 3}), input("input_ids", DType::i64, {2, 3}),
                                  input("position_ids", DType::i64, {1, 3}), input("labels", DType::i64, {2}),
                                  input("token_type_ids", DType::i64, {2, 3})});
  const DataFeed feed(data, p, {});
  const std::vector<Tensor> filled = fill(feed, p, {1, 0});
  EXPECT_THAT(filled[0].values(), ElementsAre(1, 1, 1, 1, 1, 1));
  EXPECT_THAT(filled[1].values(), ElementsAre(8, 9, 10, 5, 6, 7));
  EXPECT_THAT(filled[2].values(), ElementsAre(0, 1, 2));
  EXPECT_THAT(filled[3].values(), ElementsAre(1, 0));
  EXPECT_THAT(filled[4].values(), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_EQ(feed.remarks().size(), 3u);
  EXPECT_THAT(feed.remarks()[0], HasSubstr("'attention_mask' has no data and holds ones"));
  // Data comes first.
  const Dataset masked = make_dataset({array("input_ids", DType::i32, {2, 3}, 5), array("labels", DType::u8, {2}, 0),
                                       array("attention_mask", DType::u8, {2, 3}, 1)});
  EXPECT_THAT(fill(DataFeed(masked, p, {}), p, {1, 0})[0].values(), ElementsAre(4, 5, 6, 1, 2, 3));
}

TEST(DataFeed, ValuesAreCheckedAgainstTheInputTheyFeed) {
  const Dataset data = make_dataset({array("ids", DType::i32, {2, 3}, 5), array("labels", DType::u8, {2}, 0)});
  const Program p = program_with({input("input_ids", DType::i64, {2, 3}), input("labels", DType::i64, {2})});
  const DataFeed feed(data, p, {});
  EXPECT_NO_THROW(feed.check({.rows = {{"input_ids", 11}}}));
  EXPECT_THAT([&] { feed.check({.rows = {{"input_ids", 10}}}); },
              ThrowsMessage<Error>(HasSubstr("data array 'ids': sample 1 has value 10, expected -10 to 9")));
}

TEST(DataFeed, OnlyLabelsAreCheckedAsLabels) {
  const Dataset data = make_dataset(
      {array("ids", DType::i32, {2}, 50), array("digits", DType::i32, {2}, 8), array("year", DType::i32, {2}, 1970)});
  const Program p =
      program_with({input("year", DType::i64, {2}), input("ids", DType::i64, {2}), input("labels", DType::i64, {2})});
  EXPECT_NO_THROW(DataFeed(data, p, {}).check({.classes = 10}));
  EXPECT_THAT([&] { DataFeed(data, p, {}).check({.classes = 9}); },
              ThrowsMessage<Error>(HasSubstr("data array 'digits': sample 1 has label 9, expected 0 to 8")));
}

TEST(DataFeed, SamplesOfTheOtherLayoutAreTransposed) {
  const Dataset data = make_dataset({array("x", DType::u8, {2, 2, 3, 2}, 0)});
  const Program first = program_with({input("x", DType::u8, {1, 2, 2, 3})});
  const DataFeed feed(data, first, {});
  EXPECT_THAT(fill(feed, first, {1})[0].values(), ElementsAre(12, 14, 16, 18, 20, 22, 13, 15, 17, 19, 21, 23));
  EXPECT_THAT(feed.remarks(),
              ElementsAre("samples of data array 'x', [2,3,2], are transposed to [2,2,3] of input 'x'"));
  const Program last = program_with({input("x", DType::u8, {1, 3, 2, 2})});
  EXPECT_THAT(fill(DataFeed(data, last, {}), last, {0})[0].values(), ElementsAre(0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11));
}

TEST(DataFeed, SamplesOfAnotherShapeAreRefused) {
  const Dataset data = make_dataset({array("x", DType::f32, {2, 4, 6, 3}, 0)});
  EXPECT_THAT([&] { DataFeed(data, program_with({input("x", DType::f32, {2, 3, 6, 4})}), {}); },
              ThrowsMessage<Error>(HasSubstr("takes samples of [3,6,4], those of data array 'x' f32[2,4,6,3] are "
                                             "[4,6,3]: transpose the array")));
  const DataFeed flat(data, program_with({input("x", DType::f32, {2, 72})}), {});
  EXPECT_THAT(flat.remarks(), ElementsAre(HasSubstr("are read in their order as [72] of input 'x'")));
  const Dataset labels = make_dataset({array("labels", DType::i32, {2, 4, 6}, 0)});
  EXPECT_THAT([&] { DataFeed(labels, program_with({input("labels", DType::i64, {2, 6, 4})}), {}); },
              ThrowsMessage<Error>(HasSubstr("class_axis chooses")));
}

TEST(DataFeed, NumbersBeyondTheInputsTypeAreRefused) {
  const Dataset data = make_dataset({array("x", DType::i64, {1, 2}, 2147483647.0)});
  EXPECT_THAT([&] { DataFeed(data, program_with({input("x", DType::i32, {1, 2})}), {}); },
              ThrowsMessage<Error>(HasSubstr("its element 1 is beyond i32")));
}

TEST(DataFeed, ReservedInputsAreFilled) {
  const Dataset data = make_dataset({array("x", DType::u8, {1, 1}, 0)});
  const Program p = program_with(
      {input(kStepIteration, DType::i32, {}), input("x", DType::u8, {1, 1}), input(kStepLearningRate, DType::f32, {})});
  const std::vector<Tensor> filled = fill(DataFeed(data, p, {}), p, {0}, {.learning_rate = 0.25, .iteration = 12});
  EXPECT_EQ(filled[0].at(0), 12);
  EXPECT_EQ(filled[2].at(0), 0.25);
}

TEST(DataFeed, WhatDoesNotFitIsListed) {
  const Dataset data = make_dataset({array("x", DType::f32, {2, 3}, 0), array("y", DType::f32, {2, 1}, 0)});
  const Program wrong = program_with({input("x", DType::f32, {4, 1, 2, 2}), input("y", DType::i64, {4})});
  EXPECT_THAT(
      [&] { DataFeed(data, wrong, {}); },
      ThrowsMessage<Error>(
          AllOf(HasSubstr("input 'x': f32[4,1,2,2] takes samples of [1,2,2], those of data array 'x' f32[2,3] are [3]"),
                HasSubstr("input 'y': expected i64, but data array 'y' is f32: store it as integers"))));
  for (const Program& p : {program_with({input("pixels", DType::f32, {4, 3})}),
                           program_with({input("x", DType::f32, {4, 3}), input("labels", DType::f32, {4, 1}),
                                         input("mask", DType::f32, {4, 1})})})
    EXPECT_THAT([&] { DataFeed(data, p, {}); }, ThrowsMessage<Error>(HasSubstr("the data set the arrays 'x', 'y'")));
  const Program reserved =
      program_with({input("x", DType::f32, {4, 3}), input("y", DType::f32, {4, 1}), input(kStepSeed, DType::i32, {})});
  EXPECT_THAT([&] { DataFeed(data, reserved, {}); },
              ThrowsMessage<Error>(HasSubstr("input 'step_input seed': expected i64[], found i32[]")));
  const Program batches = program_with({input("x", DType::f32, {4, 3}), input("y", DType::f32, {3, 1})});
  EXPECT_THAT([&] { DataFeed(data, batches, {}); },
              ThrowsMessage<Error>(HasSubstr("input 'y': batch 3, but other inputs have 4")));
}

TEST(DataFeed, NormalizationThatMakesNoSenseIsRefused) {
  const Dataset data = make_dataset({array("x", DType::u8, {2, 3, 2}, 0)});
  const Program floating = program_with({input("x", DType::f32, {1, 3, 2})});
  const Program bytes = program_with({input("x", DType::u8, {1, 3, 2})});
  EXPECT_THAT([&] { DataFeed(data, floating, {{{"x", {.mean = {1, 2}}}}}); },
              ThrowsMessage<Error>(HasSubstr("2 values of mean, expected 1 or one per channel of [1,3,2]")));
  EXPECT_THAT([&] { DataFeed(data, floating, {{{"x", {.deviation = {0}}}}}); },
              ThrowsMessage<Error>(HasSubstr("std must be above 0")));
  EXPECT_THAT([&] { DataFeed(data, bytes, {{{"x", {}}}}); },
              ThrowsMessage<Error>(HasSubstr("the input is u8, expected a floating type")));
  EXPECT_THAT([&] { DataFeed(data, bytes, {{{"pixels", {}}}}); },
              ThrowsMessage<Error>(HasSubstr("'pixels', which is not an input")));
}

TEST(DataFeed, ArraysOfImagesAreChangedByChanceInTraining) {
  const Dataset data = make_dataset({array("x", DType::u8, {2, 3, 4, 5}, 1)});
  const Program p = program_with({input("x", DType::u8, {2, 3, 4, 5})});
  const DataFeed feed(data, p, {.augment = {"flip"}});
  const std::vector<double> plain = fill(feed, p, {0, 1})[0].values();
  EXPECT_THAT(std::vector<double>(plain.begin(), plain.begin() + 5), ElementsAre(1, 2, 3, 4, 5));
  int flipped = 0;
  for (int64_t iteration = 0; iteration < 40; ++iteration) {
    const StepInputs step{.iteration = iteration, .seed = 3, .use = StepInputs::trained_on};
    const std::vector<double> seen = fill(feed, p, {0, 1}, step)[0].values();
    EXPECT_EQ(seen, fill(feed, p, {0, 1}, step)[0].values());
    for (size_t row = 0; row < 24; ++row) {  // each row of each channel as the sample's first
      const bool turned = seen[row * 5] != plain[row * 5];
      EXPECT_EQ(turned, seen[row / 12 * 60] != plain[row / 12 * 60]);
      for (size_t i = 0; i < 5; ++i) ASSERT_EQ(seen[row * 5 + i], plain[row * 5 + (turned ? 4 - i : i)]);
    }
    flipped += seen[0] != plain[0];
  }
  EXPECT_GT(flipped, 8);
  EXPECT_LT(flipped, 32);
  const Dataset points = make_dataset({array("x", DType::f32, {2, 3}, 1)});
  EXPECT_THAT([&] { DataFeed(points, program_with({input("x", DType::f32, {2, 3})}), {.augment = {"flip"}}); },
              ThrowsMessage<Error>(HasSubstr("augment: no input takes images as bytes")));
}

}  // namespace
}  // namespace halfstep
