// Event files are read back field by field, as their format says; tests/cli/tensorboard_test.py lets TensorBoard read
// one.
#include "training/tensorboard.h"

#include <gmock/gmock.h>

#include <cstring>
#include <map>

#include "base/crc32c.h"
#include "base/file.h"
#include "tests/training/fake_executor.h"

namespace halfstep {
namespace {

template <typename T>
T at(std::string_view text, size_t place) {
  T value;
  std::memcpy(&value, text.data() + place, sizeof value);
  return value;
}

uint32_t masked(std::string_view content) {
  const uint32_t crc = crc32c(content);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> found;
  for (std::string_view rest = file; !rest.empty();) {
    const auto length = at<uint64_t>(rest, 0);
    EXPECT_EQ(at<uint32_t>(rest, 8), masked(rest.substr(0, 8)));
    found.emplace_back(rest.substr(12, length));
    EXPECT_EQ(at<uint32_t>(rest, 12 + length), masked(found.back()));
    rest.remove_prefix(16 + length);
  }
  return found;
}

// A message's fields: numbers as they are, others as bytes.
std::multimap<uint32_t, std::string> fields(std::string_view message) {
  std::multimap<uint32_t, std::string> found;
  size_t place = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(place++));
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (place < message.size()) {
    const uint64_t tag = varint();
    const uint64_t wire = tag & 7;
    if (wire == 0) {
      found.emplace(tag >> 3, std::to_string(varint()));
      continue;
    }
    const uint64_t size = wire == 1 ? 8 : wire == 5 ? 4 : varint();
    found.emplace(tag >> 3, std::string(message.substr(place, size)));
    place += size;
  }
  return found;
}
std::string one(const std::multimap<uint32_t, std::string>& of, uint32_t field) {
  EXPECT_EQ(of.count(field), 1u) << field;
  return of.count(field) ? of.find(field)->second : "";
}

std::string only_file(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(directory), {});
  EXPECT_EQ(files.size(), 1u);
  EXPECT_THAT(files.at(0).filename().string(), testing::StartsWith("events.out.tfevents."));
  return read_file(files.at(0));
}

TEST(TensorBoard, WritesRecordsThatReadBack) {
  const TemporaryDirectory directory;
  {
    EventFile file(directory.path() / "logs");
    file.scalars(300, {{"train/loss", 0.25}, {"train/rate", 1e-3}});
    file.histogram(301, "w", std::vector<float>{-1, 0, 0.5f, 3, INFINITY, NAN});
    file.histogram(302, "constant", std::vector<float>{2, 2});
    file.histogram(303, "none", std::vector<float>{NAN});
    file.text(0, "recipe", "    epochs = 3\n");
  }
  const std::vector<std::string> all = records(only_file(directory.path() / "logs"));
  ASSERT_EQ(all.size(), 5u) << "of no finite value there is no histogram";
  EXPECT_EQ(one(fields(all[0]), 3), "brain.Event:2");

  const auto scalars = fields(all[1]);
  EXPECT_EQ(one(scalars, 2), "300");
  EXPECT_GT(at<double>(one(scalars, 1), 0), 1.6e9) << "wall time";
  const auto values = fields(one(scalars, 5));
  ASSERT_EQ(values.count(1), 2u);
  const auto first = fields(values.find(1)->second);
  EXPECT_EQ(one(first, 1), "train/loss");
  EXPECT_EQ(at<float>(one(first, 2), 0), 0.25f);

  const auto histogram = fields(one(fields(one(fields(one(fields(all[2]), 5)), 1)), 5));
  EXPECT_EQ(at<double>(one(histogram, 1), 0), -1);
  EXPECT_EQ(at<double>(one(histogram, 2), 0), 3);
  EXPECT_EQ(at<double>(one(histogram, 3), 0), 4) << "finite values";
  EXPECT_EQ(at<double>(one(histogram, 4), 0), 2.5);
  EXPECT_EQ(at<double>(one(histogram, 5), 0), 1 + 0.25 + 9);
  const std::string limits = one(histogram, 6), counts = one(histogram, 7);
  ASSERT_EQ(limits.size(), counts.size());
  double sum = 0;
  for (size_t i = 0; i < counts.size(); i += 8) sum += at<double>(counts, i);
  EXPECT_EQ(sum, 4);
  EXPECT_EQ(at<double>(limits, limits.size() - 8), 3);

  const auto text = fields(one(fields(one(fields(all[4]), 5)), 1));
  EXPECT_EQ(one(fields(one(text, 8)), 8), "    epochs = 3\n");
  EXPECT_EQ(one(fields(one(fields(one(text, 9)), 1)), 1), "text");
}

TEST(TensorBoard, ObservesARun) {
  const TemporaryDirectory directory;
  FakeExecutor executor;
  Recipe recipe;
  recipe.metrics_every = 2;
  {
    TensorBoard board(directory.path(), recipe, executor);
    board.step_finished({.step = 1, .loss = 1});
    board.step_finished({.step = 2, .loss = 0.5, .losses = {{.name = "box", .loss = 0.1}}, .loss_scale = 1024});
    board.epoch_finished(
        {.epoch = 1, .step = 2, .loss = 0.75, .test = Evaluation{.loss = 0.6, .measures = {{{"f1", 0.9}}}}});
    board.gradients_read({.epoch = 1, .step = 2}, {{"w", Tensor({DType::f32, {2}})}});
  }
  std::string tags;
  for (const std::string& record : records(only_file(directory.path() / "tensorboard"))) {
    const auto event = fields(record);
    if (!event.contains(5)) continue;
    const auto summary = fields(event.find(5)->second);
    for (const auto& [field, value] : summary) tags += one(fields(value), 1) + " ";
  }
  EXPECT_THAT(tags, testing::MatchesRegex("recipe train/loss train/learning_rate train/loss.box train/loss_scale "
                                          "train/skipped train/samples_per_second epoch/loss epoch/seconds test/loss "
                                          "test/f1 (weights/[a-z0-9._/]+ )+gradients/w epoch/gradient_norm "));
}

}  // namespace
}  // namespace halfstep
