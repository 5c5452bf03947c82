// What is held out of a data set, and samples drawn with as many of each class.
#include "data/split.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "data/sample_order.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// `counts[c]` samples of each class c, dealt out in turns.
std::vector<int64_t> classes_of(std::vector<int64_t> counts) {
  std::vector<int64_t> classes;
  for (bool any = true; any;) {
    any = false;
    for (size_t c = 0; c < counts.size(); ++c) {
      if (counts[c]-- <= 0) continue;
      classes.push_back(static_cast<int64_t>(c));
      any = true;
    }
  }
  return classes;
}

std::map<int64_t, int64_t> counted(const std::vector<int64_t>& rows, const std::vector<int64_t>& classes) {
  std::map<int64_t, int64_t> counts;
  for (const int64_t row : rows) ++counts[classes[static_cast<size_t>(row)]];
  return counts;
}

Dataset labelled(const std::vector<int64_t>& classes) {
  const auto samples = static_cast<int64_t>(classes.size());
  NamedArray x{"x", Tensor({DType::f32, {samples, 2}})}, labels{"labels", Tensor({DType::i64, {samples}})};
  for (int64_t i = 0; i < samples; ++i) {
    x.values.set(2 * i, static_cast<double>(i)), x.values.set(2 * i + 1, static_cast<double>(-i));
    labels.values.set(i, static_cast<double>(classes[static_cast<size_t>(i)]));
  }
  return make_dataset({x, labels});
}

TEST(HeldOut, EachClassGivesItsShare) {
  const std::vector<int64_t> classes = classes_of({100, 50, 10});
  const std::vector<int64_t> out = held_out(160, classes, {.fraction = 0.2, .seed = 1});
  EXPECT_TRUE(std::ranges::is_sorted(out));
  EXPECT_EQ(counted(out, classes), (std::map<int64_t, int64_t>{{0, 20}, {1, 10}, {2, 2}}));
  EXPECT_EQ(held_out(160, classes, {.fraction = 0.2, .seed = 1}), out);
  EXPECT_NE(held_out(160, classes, {.fraction = 0.2, .seed = 2}), out);
  // Parts of samples go to the largest remainders: 0.25 of 3, 3 and 2 samples are 2 in all.
  EXPECT_EQ(counted(held_out(8, classes_of({3, 3, 2}), {.fraction = 0.25}), classes_of({3, 3, 2})),
            (std::map<int64_t, int64_t>{{0, 1}, {1, 1}}));
}

// Recorded: a change would test old checkpoints on what they were trained on.
TEST(HeldOut, StaysWhatItWas) {
  EXPECT_THAT(held_out(12, {}, {.fraction = 0.25, .seed = 3}), ElementsAre(2, 5, 8));
  EXPECT_THAT(held_out(12, classes_of({6, 6}), {.fraction = 0.34, .seed = 3}), ElementsAre(3, 4, 6, 7));
  EXPECT_THAT(held_out(12, classes_of({6, 6}), {.folds = 3, .fold = 2, .seed = 3}), ElementsAre(0, 4, 7, 11));
}

TEST(HeldOut, FoldsHoldEverySampleOnceAndAreOfOneSize) {
  const std::vector<int64_t> classes = classes_of({23, 11, 3});
  std::vector<int64_t> all;
  for (int64_t fold = 1; fold <= 5; ++fold) {
    const std::vector<int64_t> out = held_out(37, classes, {.folds = 5, .fold = fold, .seed = 9});
    EXPECT_THAT(out.size(), testing::AnyOf(7u, 8u));
    EXPECT_THAT(counted(out, classes)[0], testing::AnyOf(4, 5));
    EXPECT_THAT(counted(out, classes)[1], testing::AnyOf(2, 3));
    all.insert(all.end(), out.begin(), out.end());
  }
  std::ranges::sort(all);
  std::vector<int64_t> every(37);
  std::iota(every.begin(), every.end(), 0);
  EXPECT_EQ(all, every);
}

TEST(HeldOut, PartsWithoutSamplesAreRefused) {
  const auto refuse = [](int64_t samples, const SplitOptions& options, const std::string& message) {
    EXPECT_THAT([&] { held_out(samples, {}, options); }, ThrowsMessage<Error>(HasSubstr(message)));
  };
  refuse(20, {.fraction = 0.01}, "test_fraction 0.01: of 20 samples none would be held out");
  refuse(1, {.fraction = 0.6}, "of 1 samples none would be held out");
  refuse(4, {.folds = 5, .fold = 1}, "folds: 5 are given, but there are 4 samples");
  refuse(9, {.folds = 1, .fold = 1}, "folds: at least 2 expected, found 1");
  refuse(9, {.folds = 3, .fold = 4}, "fold: 1 to 3, the folds, expected, found 4");
}

TEST(SplitDataset, RowsStayTogetherAndInOrder) {
  const std::vector<int64_t> classes = classes_of({9, 6});
  const std::vector<int64_t> out = held_out(15, classes, {.fraction = 0.4, .seed = 5});
  const auto [train, test] = split_dataset(labelled(classes), {.fraction = 0.4, .seed = 5, .labels = {"labels"}});
  EXPECT_EQ(train.size(), 9);
  EXPECT_EQ(test.size(), 6);
  std::set<double> seen;
  for (const Dataset* part : {&train, &test})
    for (int64_t i = 0; i < part->size(); ++i) {
      const double row = part->arrays[0].values.at(2 * i);
      EXPECT_TRUE(seen.insert(row).second);
      EXPECT_EQ(part->arrays[0].values.at(2 * i + 1), -row);
      EXPECT_EQ(part->arrays[1].values.at(i), static_cast<double>(classes[static_cast<size_t>(row)]));
      EXPECT_EQ(part == &test, std::ranges::binary_search(out, static_cast<int64_t>(row)));
      EXPECT_TRUE(i == 0 || part->arrays[0].values.at(2 * i - 2) < row);
    }
  EXPECT_THAT(train.remarks, ElementsAre("test_fraction 0.4: 6 of 15 samples are held out, each class of 'labels' "
                                         "alike"));
}

TEST(SplitDataset, ClassesThatAPartLacksAreTold) {
  const std::vector<int64_t> classes = classes_of({20, 2, 1});
  const auto [train, test] = split_dataset(labelled(classes), {.fraction = 0.2, .labels = {"labels"}});
  EXPECT_EQ(test.size(), 5);
  EXPECT_THAT(train.remarks,
              AllOf(Contains("test_fraction 0.2: class 2 of a single sample: it is only in one of the two parts"),
                    testing::SizeIs(2)));
  for (int64_t i = 0; i < test.size(); ++i) EXPECT_NE(test.arrays[1].values.at(i), 2);
  std::string told;
  for (int64_t fold = 1; fold <= 4; ++fold)
    for (const std::string& remark :
         split_dataset(labelled(classes), {.folds = 4, .fold = fold, .labels = {"labels"}}).first.remarks)
      told += remark + "\n";
  EXPECT_THAT(told, HasSubstr("class 2 without a sample in the training part"));
  EXPECT_THAT(told, HasSubstr("class 1 without a sample in the held-out part"));
}

TEST(ClassLabels, AreAnArrayOfOneWholeNumberASample) {
  Dataset data = labelled({0, 1, 0, 1});
  const std::vector<std::string> names{"labels"};
  EXPECT_EQ(class_labels(data, names)->array, "labels");
  data.arrays[1].name = "y";
  EXPECT_EQ(class_labels(data, names)->array, "y");  // the only one
  data.arrays.push_back({"z", data.arrays[1].values});
  EXPECT_FALSE(class_labels(data, names));                    // which of both?
  EXPECT_FALSE(class_labels(labelled({3, 1, 4, 5}), names));  // measured, no classes
}

TEST(BalancedOrder, DrawsAsManyOfEachClass) {
  const std::vector<int64_t> classes = classes_of({70, 20, 11});
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    const std::vector<int64_t> order = balanced_order(7, epoch, classes);
    ASSERT_EQ(order.size(), classes.size());
    EXPECT_EQ(order, balanced_order(7, epoch, classes));
    for (const auto& [label, count] : counted(order, classes)) EXPECT_THAT(count, testing::AnyOf(33, 34)) << label;
    std::map<int64_t, int64_t> times;
    for (const int64_t sample : order) ++times[sample];
    for (const auto& [sample, count] : times) {
      const int64_t label = classes[static_cast<size_t>(sample)];
      EXPECT_LE(count, label == 0 ? 1 : label == 1 ? 2 : 4) << sample;
    }
  }
  EXPECT_NE(balanced_order(7, 0, classes), balanced_order(7, 1, classes));
  EXPECT_NE(balanced_order(7, 0, classes), balanced_order(8, 0, classes));
}

}  // namespace
}  // namespace halfstep
