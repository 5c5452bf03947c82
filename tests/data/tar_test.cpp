// Shards as WebDataset writes them.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
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

// An array of a sample, as WebDataset writes it with numpy.save.
std::string row_of(float first) {
  std::string bytes;
  for (int i = 0; i < 6; ++i) append(bytes, first + static_cast<float>(i));
  return npy("<f4", "(2, 3)", bytes);
}

TEST_F(Shards, ArraysAndFieldsBelongToTheirSamples) {
  std::string bytes, second;
  const char* kinds[] = {"cat", "dog", "ape"};
  for (int i = 0; i < 6; ++i) {
    const std::string key = fmt::format("s{}.", i);
    const std::string json = fmt::format(
        R"({{"kind": "{}", "age": {}, "box": [0.5, {}], "of": {{"id": {}}}, "no": null}})", kinds[i % 3], i, i, i * 10);
    (i < 3 ? bytes : second) += member(key + "npy", row_of(static_cast<float>(i))) + member(key + "json", json) +
                                member(key + "Mask.npy", npy("|u1", "()", std::string(1, static_cast<char>(i))));
  }
  write(directory_, "a-0.tar", bytes + kEnd), write(directory_, "a-1.tar", second + kEnd);
  const std::string path = (directory_.path() / "a-{0..1}.tar").string();
  for (const ByteSize memory : {ByteSize{0}, ByteSize{1 << 20}}) {
    const Dataset data = open_dataset(path, Split::train, {.data_memory = memory, .label_column = {"kind"}});
    ASSERT_EQ(data.size(), 6);
    ASSERT_EQ(data.arrays.size(), 3u);
    EXPECT_EQ(data.arrays[0].name, "Mask");
    EXPECT_THAT(data.arrays[0].values.values(), ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_EQ(data.arrays[1].name, "npy");
    EXPECT_EQ(data.arrays[1].values.type, (TensorType{DType::f32, {6, 2, 3}}));
    EXPECT_EQ(data.arrays[1].values.stored != nullptr, memory.bytes == 0);
    EXPECT_EQ(data.arrays[1].values.at(4 * 6 + 5), 9);
    EXPECT_THAT(data.arrays[2].values.values(), ElementsAre(1, 2, 0, 1, 2, 0));
    EXPECT_THAT(data.facts.classes, ElementsAre("ape", "cat", "dog"));
    EXPECT_THAT(data.remarks[0],
                HasSubstr("6 samples in 2 archives, arrays 'Mask' u8[], 'npy' f32[2,3], labels from 'kind'"));
  }
  const auto labels = [&](const std::vector<std::string>& fields, const DataFacts& facts = {}) {
    return open_dataset(path, Split::train, {.label_column = fields}, facts).arrays.back().values;
  };
  EXPECT_THAT(labels({"age"}).values(), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(labels({"age"}).type, (TensorType{DType::i64, {6}}));
  EXPECT_EQ(labels({"of.id"}).at(5), 50);
  EXPECT_EQ(labels({"box"}).type, (TensorType{DType::f32, {6, 2}}));
  EXPECT_EQ(labels({"box"}).at(11), 5);
  EXPECT_EQ(labels({"age", "of.id"}).at(11), 50);
  EXPECT_THAT(labels({"kind"}, {.classes = {"dog", "cat", "ape"}}).values(), ElementsAre(1, 0, 2, 1, 0, 2));
  const auto refuse_fields = [&](const std::vector<std::string>& fields, const std::string& message,
                                 const DataFacts& facts = {}) {
    EXPECT_THAT([&] { labels(fields, facts); }, ThrowsMessage<Error>(HasSubstr(message)));
  };
  refuse_fields({"kinds"}, "sample 's0' has no field 'kinds' in its .json; did you mean 'kind'?");
  refuse_fields({"colour"}, "has no field 'colour' in its .json, which has 'age', 'box', 'kind', 'no', 'of'");
  refuse_fields({"no"}, "has 'null' in field 'no' of its .json: a number, a text or a list of numbers expected");
  refuse_fields({"of"}, "in field 'of' of its .json: a number, a text or a list");
  refuse_fields({"kind", "age"}, "field 'kind' of sample 1: 'cat' is no number, as several label columns need");
  refuse_fields({"kind"}, "field 'kind' of sample 3: 'ape' is none of the run's 2 classes",
                {.classes = {"cat", "dog"}});
  const Dataset unlabelled = open_dataset(path, Split::train);
  EXPECT_THAT(unlabelled.remarks[1], HasSubstr("passed over: 6 '.json'; label_column names a field of .json"));
}

TEST_F(Shards, BadMembersAreRefused) {
  const std::string row = row_of(0), png = png_file(1, 1, {1, 2, 3});
  refuse(member("a.npy", row.substr(0, row.size() - 4)) + kEnd,
         "sample 'a': its array 'npy': its header announces f32[2,3]");
  refuse(member("a.npy", row + "more") + kEnd,
         "sample 'a': its array 'npy': more bytes follow than its header announces");
  refuse(member("a.npy", "no array") + kEnd, "sample 'a': its array 'npy': not an NPY file");
  refuse(member("a.npy", row) + member("b.npy", npy("<f4", "(6,)", std::string(24, '\0'))) + kEnd,
         "sample 'b': its array 'npy' is f32[6], and those before it f32[2,3]: all of one type and shape expected");
  const std::string columns = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n";
  refuse(member("a.npy", npy(columns, std::string(24, '\0'))) + kEnd,
         "it is in Fortran order: save it by numpy.ascontiguousarray");
  refuse(member("a.npy", row) + member("a.NPY", row) + kEnd, "sample 'a' has two '.npy'");
  refuse(member("a.npy", row) + member("b.png", png) + kEnd, "1 of 2 samples have an image: all or none expected");
  std::string nan;
  append(nan, std::nanf(""));
  refuse(member("a.npy", npy("<f4", "(1,)", nan)) + kEnd, "data array 'npy': sample 0 holds NaN");
  const auto refuse_json = [&](const std::string& json, const std::string& message) {
    const std::string path = write(directory_, "j.tar", member("a.png", png) + member("a.json", json) + kEnd).string();
    EXPECT_THAT([&] { open_dataset(path, Split::train, {.label_column = {"k"}}); },
                ThrowsMessage<Error>(HasSubstr(message)));
  };
  refuse_json("{\"k\": ", "sample 'a' has a .json that is none: it is corrupt");
  refuse_json("[1]", "has no field 'k' in its .json, which has none at all");
  refuse_json("{\"k\": []}", "has '[]' in field 'k' of its .json");
  refuse_json("{\"k\": [1, \"x\"]}", "in field 'k' of its .json: a number, a text or a list of numbers expected");
  refuse_json(std::string(100, '[') + std::string(100, ']'), "has a .json that is nested more than 64 deep");
  const std::string path = write(directory_, "u.tar",
                                 member("a.png", png) + member("a.json", R"({"k": [1, 2]})") + member("b.png", png) +
                                     member("b.json", R"({"k": [1]})") + kEnd)
                               .string();
  EXPECT_THAT([&] { open_dataset(path, Split::train, {.label_column = {"k"}}); },
              ThrowsMessage<Error>(HasSubstr("sample 'b' has 1 values in field 'k' of its .json, and those before it "
                                             "2")));
}

TEST_F(Shards, AnArchiveThatShrinksWhileItIsReadIsAnError) {
  std::string bytes;
  for (int i = 0; i < 9; ++i) bytes += member(fmt::format("{}.npy", i), row_of(1));
  const std::string path = write(directory_, "a.tar", bytes + kEnd).string();
  const Dataset data = open_dataset(path, Split::train, {.data_memory = {0}});
  std::filesystem::resize_file(path, 3000);
  EXPECT_THAT([&] { data.arrays[0].values.at(8 * 6); },
              ThrowsMessage<Error>(HasSubstr("a.tar': the archive became shorter while it was read")));
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
  refuse(kEnd, "no sample has a .jpg, .png or .npy");
  refuse(good + member("b.png", png) + kEnd, "1 of 2 samples have a label (.cls): all or none expected");
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
