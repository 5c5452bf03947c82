// Batches whose samples are mixed in pairs.
#include "data/mix.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/data_feed.h"
#include "tests/data/image_writing.h"
#include "tests/recorded.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr StepInputs kTrained{.seed = 3, .use = StepInputs::trained_on};

Buffer input(const Name& name, DType dtype, Shape shape) {
  return {name, BufferKind::input, {dtype, std::move(shape)}};
}

Program program_of(DType dtype, const Shape& shape) {
  return {"train",
          {input("x", dtype, shape), input("labels", DType::i64, {shape[0]}), input(kStepMixShare, DType::f32, {})},
          {}};
}

Dataset images_of(DType dtype, const Shape& shape) {
  NamedArray x{"x", Tensor(TensorType{dtype, shape})}, labels{"labels", Tensor(TensorType{DType::i64, {shape[0]}})};
  for (int64_t i = 0; i < x.values.type.element_count(); ++i) x.values.set(i, static_cast<double>(i * 37 % 251));
  return make_dataset({std::move(x), std::move(labels)});
}

// The batch of all samples and its share.
std::pair<Tensor, double> filled(const DataFeed& feed, const Program& program, const StepInputs& step) {
  std::vector<Tensor> tensors;
  for (const Buffer& b : program.buffers) tensors.emplace_back(b.type);
  std::vector<std::span<std::byte>> spans;
  for (Tensor& t : tensors) spans.emplace_back(t.data);
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < feed.batch(); ++i) samples.push_back(i);
  feed.fill(samples, step, spans);
  return {tensors[0], tensors[2].at(0)};
}

TEST(Mixes, PartsAreThoseOfTimm) {
  const nlohmann::json reference = recorded("images");
  for (const nlohmann::json& row : reference.at("parts")) {
    const std::vector<double> v = row.get<std::vector<double>>();
    const auto at = [&](size_t i) { return static_cast<int64_t>(v[i]); };
    const ImagePart part = cut_part({.height = at(0), .width = at(1)}, v[2], at(3), at(4));
    EXPECT_THAT((std::array{part.top, part.top + part.height, part.left, part.left + part.width}),
                ElementsAre(at(5), at(6), at(7), at(8)))
        << row.dump();
  }
}

TEST(Mixes, PixelsAreThoseOfTimm) {
  const nlohmann::json reference = recorded("images");
  for (const nlohmann::json& c : reference.at("mixes")) {
    const int64_t height = c.at("height"), width = c.at("width");
    const MixGeometry geometry{.planes = 3, .height = height, .width = width};
    std::vector<std::byte> samples;
    for (const int64_t phase : c.at("phases")) {
      const ImageInput input{{height, width, 0, false}, 3, false};
      samples.resize(samples.size() + static_cast<size_t>(input.bytes()));
      write_pixels({height, width, 3, pattern(height, width, 3, phase)}, input,
                   samples.data() + samples.size() - input.bytes());
    }
    BatchMix mix{.share = c.at("share"), .cuts = c.at("cutmix")};
    if (mix.cuts) mix.part = cut_part(geometry, mix.share, c.at("middle").at(0), c.at("middle").at(1));
    mix_batch(samples, DType::u8, std::ssize(c.at("phases")), geometry, mix);
    const std::vector<uint8_t> expected = c.at("pixels");
    EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(expected)), samples)) << c.at("share");
  }
}

TEST(Mixes, SharesAreOfTheBetaDistribution) {
  // Kolmogorov's distance of 20000 draws to the distribution; 0.0138 is passed by one in a thousand.
  struct Case {
    double alpha;
    double (*cdf)(double);
  };
  for (const Case& c : {Case{1, [](double x) { return x; }}, Case{2, [](double x) { return x * x * (3 - 2 * x); }},
                        Case{0.5, [](double x) { return 2 / std::acos(-1.0) * std::asin(std::sqrt(x)); }}}) {
    AugmentRandom random(5, 0, 1);
    std::vector<double> drawn(20000);
    for (double& x : drawn) x = draw_beta(c.alpha, random);
    std::ranges::sort(drawn);
    double distance = 0;
    for (size_t i = 0; i < drawn.size(); ++i)
      distance = std::max(distance, std::abs(c.cdf(drawn[i]) - (static_cast<double>(i) + 0.5) / 20000));
    EXPECT_LT(distance, 0.0138) << c.alpha;
  }
  // Of 0.2, which papers take, by its variance, 1 / (4 (2 alpha + 1)); of a small one nearly all are 0 or 1.
  AugmentRandom random(5, 0, 2);
  double sum = 0, squares = 0;
  for (int i = 0; i < 20000; ++i) {
    const double x = draw_beta(0.2, random) - 0.5;
    sum += x, squares += x * x;
    const double edge = draw_beta(0.001, random);
    ASSERT_TRUE(edge >= 0 && edge <= 1);
  }
  EXPECT_NEAR(sum / 20000, 0, 0.012);
  EXPECT_NEAR(squares / 20000, 0.25 / 1.4, 0.004);
}

TEST(Mixes, FollowSeedAndIterationAlone) {
  const MixGeometry geometry{.planes = 3, .height = 32, .width = 24};
  const auto drawn = [&](uint64_t seed, int64_t iteration) {
    const BatchMix m = draw_mix({.mixup = 0.8, .cutmix = 1}, geometry, seed, iteration);
    return std::tuple(m.share, m.cuts, m.part.top, m.part.height);
  };
  EXPECT_EQ(drawn(1, 7), drawn(1, 7));
  EXPECT_NE(drawn(1, 7), drawn(1, 8));
  EXPECT_NE(drawn(1, 7), drawn(2, 7));
  int cuts = 0;
  for (int64_t iteration = 0; iteration < 400; ++iteration) {
    const BatchMix m = draw_mix({.mixup = 0.8, .cutmix = 1}, geometry, 1, iteration);
    cuts += m.cuts;
    if (!m.cuts) continue;
    ASSERT_TRUE(m.part.top >= 0 && m.part.left >= 0 && m.part.height >= 0 && m.part.width >= 0 &&
                m.part.top + m.part.height <= 32 && m.part.left + m.part.width <= 24);
    ASSERT_FLOAT_EQ(static_cast<float>(m.share), 1 - static_cast<float>(m.part.height * m.part.width) / (32 * 24));
  }
  EXPECT_NEAR(cuts, 200, 40);
}

// Recorded: a change would make a resumed run go on with other batches.
TEST(Mixes, StayWhatTheyWere) {
  const MixGeometry geometry{.planes = 3, .height = 224, .width = 224};
  EXPECT_FLOAT_EQ(static_cast<float>(draw_mix({.mixup = 0.2}, geometry, 0, 0).share), 0.034337971F);
  const BatchMix cut = draw_mix({.cutmix = 1}, geometry, 7, 11);
  EXPECT_THAT((std::array{cut.part.top, cut.part.left, cut.part.height, cut.part.width}),
              ElementsAre(73, 110, 126, 114));
}

TEST(Mixes, AreForTrainingAlone) {
  for (const DType dtype : {DType::u8, DType::f32, DType::f16}) {
    const Shape shape{5, 3, 4, 6};
    const Dataset data = images_of(dtype, shape);
    const Program program = program_of(dtype, shape);
    const DataFeed plain(data, program, {.labels = {"labels"}});
    const auto [original, one] = filled(plain, program, kTrained);
    EXPECT_EQ(one, 1);
    for (const MixOptions& options : {MixOptions{.mixup = 1}, MixOptions{.cutmix = 1}}) {
      const DataFeed feed(data, program, {.labels = {"labels"}, .mix = options});
      const auto [looked_at, whole] = filled(feed, program, {.seed = 3});
      EXPECT_EQ(looked_at, original);
      EXPECT_EQ(whole, 1);
      const auto [seen, share] = filled(feed, program, kTrained);
      EXPECT_EQ(filled(feed, program, kTrained).first, seen);
      EXPECT_GT(share, 0);
      EXPECT_LT(share, 1);
      int64_t own = 0;
      const double tolerance = dtype == DType::u8 ? 0.5 : dtype == DType::f16 ? 0.07 : 1e-4;
      for (int64_t row = 0; row < 5; ++row)
        for (int64_t i = 0; i < 72; ++i) {
          const double x = original.at(row * 72 + i), y = original.at((4 - row) * 72 + i), z = seen.at(row * 72 + i);
          if (options.mixup > 0)
            ASSERT_NEAR(z, share * x + (1 - share) * y, tolerance + 1e-4);
          else
            ASSERT_TRUE(z == x || z == y);
          own += z == x || row == 2;
        }
      if (options.cutmix > 0) {
        EXPECT_NEAR(static_cast<double>(own) / 360, share * 0.8 + 0.2, 0.02);
      }
      // The middle one of an odd batch is its own partner.
      for (int64_t i = 0; i < 72; ++i) ASSERT_NEAR(seen.at(2 * 72 + i), original.at(2 * 72 + i), tolerance);
    }
  }
}

TEST(Mixes, TakeWhatHasPixels) {
  const auto bind = [](DType dtype, const Shape& shape, const MixOptions& options) {
    const Dataset data = images_of(dtype, shape);
    const Program program = program_of(dtype, shape);
    DataFeed(data, program, {.labels = {"labels"}, .mix = options});
  };
  EXPECT_NO_THROW(bind(DType::f32, {4, 7}, {.mixup = 1}));
  EXPECT_NO_THROW(bind(DType::f32, {4, 7, 5}, {.cutmix = 1}));
  EXPECT_THAT([&] { bind(DType::f32, {4, 7}, {.cutmix = 1}); },
              ThrowsMessage<Error>(HasSubstr("cutmix: input 'x' takes f32[4,7], and a part is cut out of [batch, "
                                             "channels, height, width]")));
  EXPECT_THAT([&] { bind(DType::i64, {4, 7}, {.mixup = 1}); },
              ThrowsMessage<Error>(HasSubstr("mixup: input 'x' takes i64[4,7], and images or floating numbers are "
                                             "mixed: leave it out")));
  EXPECT_THAT([&] { bind(DType::u8, {1, 3, 4, 4}, {.mixup = 0.0001}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("mixup: 0, or at least 0.001 expected"),
                                         HasSubstr("a batch of 1, which has nothing to mix with"))));
}

TEST(Mixes, CutTheSidesOfEveryLayout) {
  for (const Shape& shape : {Shape{2, 3, 9, 9}, Shape{2, 9, 9, 3}, Shape{2, 9, 9}}) {
    const Dataset data = images_of(DType::f32, shape);
    const Program program = program_of(DType::f32, shape);
    const DataFeed plain(data, program, {.labels = {"labels"}});
    const DataFeed feed(data, program, {.labels = {"labels"}, .mix = {.cutmix = 1}});
    const Tensor before = filled(plain, program, kTrained).first, after = filled(feed, program, kTrained).first;
    const int64_t planes = shape.size() == 4 && shape[1] == 3 ? 3 : 1, depth = shape.size() == 4 && planes == 1 ? 3 : 1;
    const ImagePart part =
        draw_mix({.cutmix = 1}, {.planes = planes, .height = 9, .width = 9, .depth = depth}, 3, 0).part;
    EXPECT_GT(part.height * part.width, 0);
    for (int64_t p = 0; p < planes; ++p)
      for (int64_t y = 0; y < 9; ++y)
        for (int64_t x = 0; x < 9; ++x)
          for (int64_t d = 0; d < depth; ++d) {
            const bool inside =
                y >= part.top && y < part.top + part.height && x >= part.left && x < part.left + part.width;
            const int64_t at = ((p * 9 + y) * 9 + x) * depth + d;
            ASSERT_EQ(after.at(at), before.at(inside ? at + 243 / (shape.size() == 3 ? 3 : 1) : at));
          }
  }
}

}  // namespace
}  // namespace halfstep
