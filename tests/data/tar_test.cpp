// Shards as WebDataset writes them.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <numeric>

#include "base/error.h"
#include "data/data_feed.h"
#include "data/sample_order.h"
#include "data/tar_files.h"
#include "tests/data/data_files.h"
#include "tests/data/image_writing.h"

namespace halfstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string member(const std::string& name, const std::string& data, char kind = '0') {
  std::string header(512, '\0');
  header.replace(0, std::min<size_t>(name.size(), 100), name, 0, 100);
  header.replace(124, 11, fmt::format("{:011o}", data.size())).replace(257, 5, "ustar").replace(148, 8, 8, ' ');
  header[156] = kind;
  int sum = 0;
  for (const char c : header) sum += static_cast<uint8_t>(c);
  header.replace(148, 7, fmt::format("{:06o}", sum) + '\0');
  return header + data + std::string((512 - data.size() % 512) % 512, '\0');
}
const std::string kEnd(1024, '\0');

class Shards : public testing::Test {
 protected:
  // Samples `first` to `last`, each an image of one value and a label of its tens.
  std::string shard(const std::string& name, int first, int last) {
    std::string bytes;
    for (int i = first; i <= last; ++i) {
      bytes += member(fmt::format("{:04}.png", i),
                      png_file(1, 1, {static_cast<uint8_t>(i)}, {.color = PNG_COLOR_TYPE_GRAY}));
      bytes += member(fmt::format("{:04}.cls", i), std::to_string(i / 10) + "\n");
    }
    return write(directory_, name, bytes + kEnd).string();
  }
  void refuse(const std::string& bytes, const std::string& message) {
    const std::string path = write(directory_, "bad.tar", bytes).string();
    EXPECT_THAT([&] { open_dataset(path, Split::train); }, ThrowsMessage<Error>(HasSubstr(message)));
  }
  TemporaryDirectory directory_;
};

TEST_F(Shards, BracesStandForNames) {
  EXPECT_THAT(expand_braces("a-{008..011}.tar"), ElementsAre("a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"));
  EXPECT_THAT(expand_braces("{0..1}/{3..4}"), testing::UnorderedElementsAre("0/3", "0/4", "1/3", "1/4"));
  EXPECT_THAT(expand_braces("plain.tar"), ElementsAre("plain.tar"));
  for (const char* bad : {"{1..}.tar", "{3..2}.tar", "{a,b}.tar", "{1.tar", "{0..99999999}.tar", "{-1..2}.tar"})
    EXPECT_THAT([&] { expand_braces(bad); }, ThrowsMessage<Error>(HasSubstr("a range such as {000..009} expected")))
        << bad;
}

TEST_F(Shards, SamplesAreReadWhereTheyLie) {
  shard("s-00.tar", 0, 19), shard("s-01.tar", 20, 34);
  const Dataset data = open_dataset((directory_.path() / "s-{00..01}.tar").string(), Split::train);
  ASSERT_EQ(data.size(), 35);
  EXPECT_EQ(data.arrays[0].values.at(27), 2);
  EXPECT_EQ(read_image(*data.images, 27, 1).pixels[0], 27);
  EXPECT_EQ(data.images->files->group(19), 0);
  EXPECT_EQ(data.images->files->group(20), 1);
  EXPECT_THAT(data.remarks[0], HasSubstr("35 images in 2 archives"));
}

TEST_F(Shards, NamesMayBeLongAndFoldersAndOthersStandBetween) {
  const std::string long_name = std::string(150, 'd') + "/x.y.jpg", image = jpeg_file(8, 8, pattern(8, 8, 3));
  const std::string pax = "23 path=folder/01.JPEG\n";
  const std::string bytes = member("././@LongLink", long_name + '\0', 'L') + member("cut", "no image") +
                            member("folder/", "", '5') + member("pax", pax, 'x') + member("cut", image) +
                            member("folder/01.json", "{}") + kEnd;
  const Dataset data = open_dataset(write(directory_, "n.tar", bytes).string(), Split::train);
  EXPECT_EQ(data.size(), 1);
  EXPECT_TRUE(data.arrays.empty());
  EXPECT_EQ(read_image(*data.images, 0, 3).width, 8);
  EXPECT_THAT(data.remarks[1], HasSubstr("passed over: 1 '.json', 1 '.y.jpg'"));
}

TEST_F(Shards, BadArchivesAreRefused) {
  const std::string png = png_file(1, 1, {1, 2, 3}), good = member("a.png", png) + member("a.cls", "1");
  refuse(member("a.png", std::string(2000, 'x')).substr(0, 1500), "reaches beyond the archive's end: is it cut off?");
  refuse(good, "the archive does not end as they do, with zeros: is it cut off?");
  refuse(good.substr(0, 700), "is it cut off?");
  refuse(good.substr(0, 1100), "byte 1024: the archive is cut off");
  std::string wrong = good;
  wrong[3] ^= 1;
  refuse(wrong, "byte 0: no header of a tar archive is here, or it is corrupt");
  refuse(gzip(good) + std::string(600, 'x'), "it is compressed");
  refuse(kEnd, "no sample has a .jpg or .png");
  refuse(good + member("b.png", png) + kEnd, "1 of 2 images have a label (.cls)");
  refuse(member("a.png", png) + member("a.cls", "dog") + kEnd,
         "sample 'a': its .cls holds 'dog', a whole number expected");
  refuse(member("a.png", png) + member("a.jpg", png) + kEnd, "sample 'a' has two images");
  refuse(member("p", "99 path=x\n", 'x') + good, "a pax header is corrupt");
  std::string huge = member("a.png", png);
  huge.replace(124, 12, std::string("\xff") + std::string(11, '\xff'));
  refuse(huge, "");
}

TEST_F(Shards, AnOrderOfGroupsMixesNeighboursAndVisitsEachOnce) {
  std::vector<int64_t> groups;
  for (int64_t i = 0; i < 50; ++i) groups.push_back(i / 10);
  const std::vector<int64_t> order = grouped_order(5, 1, groups, 10);
  EXPECT_EQ(order, grouped_order(5, 1, groups, 10));
  EXPECT_NE(order, grouped_order(5, 2, groups, 10));
  std::vector<int64_t> sorted = order, all(50);
  std::ranges::sort(sorted);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
  for (size_t i = 0; i < 50; i += 10)
    for (size_t j = i; j < i + 10; ++j) EXPECT_EQ(order[j] / 10, order[i] / 10);
  EXPECT_NE(order, sorted);
}

TEST_F(Shards, ImagesComeAheadByThreadsAsTheyWould) {
  const Dataset data = open_dataset(shard("t.tar", 0, 39), Split::train, {.augment = {"flip"}, .loader_threads = 3});
  const Program p{
      "train",
      {{"x", BufferKind::input, {DType::u8, {8, 1, 1, 1}}}, {"labels", BufferKind::input, {DType::i64, {8}}}},
      {}};
  const DataFeed feed(data, p, {});
  const std::vector<int64_t> order = feed.order(SampleOrder::shuffled, 4, 2);
  Tensor x(p.buffers[0].type), labels(p.buffers[1].type);
  const std::vector<std::span<std::byte>> staging{x.data, labels.data};
  for (int round = 0; round < 3; ++round) {
    feed.announce({order, 4, 2, 0});
    for (size_t at = 0; at < (round == 1 ? 16 : order.size()); at += 8) {
      feed.fill(std::span(order).subspan(at, 8), {}, staging);
      for (size_t i = 0; i < 8; ++i) {
        ASSERT_EQ(x.at(static_cast<int64_t>(i)), static_cast<double>(order[at + i]));
        ASSERT_EQ(labels.at(static_cast<int64_t>(i)), static_cast<double>(order[at + i] / 10));
      }
    }
  }
  EXPECT_TRUE(feed.waited().has_value());
  feed.fill(std::vector<int64_t>{7, 3}, {}, staging);  // never announced; the last is repeated
  EXPECT_THAT(x.values(), ElementsAre(7, 3, 3, 3, 3, 3, 3, 3));
}

}  // namespace
}  // namespace halfstep
