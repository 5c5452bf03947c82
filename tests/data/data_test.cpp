#include "data/data.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "data/byte_source.h"
#include "data/idx.h"
#include "data/npy.h"
#include "tests/data/data_files.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

class Data : public testing::Test {
 protected:
  Tensor idx(const std::string& bytes) { return read_idx(*open_data_file(write(directory_, "data.idx", bytes))); }
  Tensor npy_array(const std::string& bytes) { return read_npy(*open_data_file(write(directory_, "data.npy", bytes))); }
  FileTensors npz(const std::string& bytes) { return read_npz(write(directory_, "data.npz", bytes)); }
  Dataset named(const std::string& x, const std::string& y) {
    return open_dataset("x=" + write(directory_, "x", x).string() + ",y=" + write(directory_, "y", y).string(),
                        Split::train);
  }

  TemporaryDirectory directory_;
};

template <typename Action>
void expect_error(Action action, const std::string& a, const std::string& b = "") {
  EXPECT_THAT(action, ThrowsMessage<Error>(AllOf(HasSubstr(a), HasSubstr(b))));
}

std::string floats(std::initializer_list<float> values) {
  std::string bytes;
  for (const float v : values) append(bytes, v);
  return bytes;
}

TEST_F(Data, IdxPlainAndGzipHoldTheSame) {
  const std::string bytes = idx_u8({2, 1, 3}, "abcdef");
  const Tensor plain = idx(bytes);
  EXPECT_EQ(plain.type, (TensorType{DType::u8, {2, 1, 3}}));
  EXPECT_EQ(plain.at(5), 'f');
  EXPECT_EQ(idx(gzip(bytes)), plain);
}

TEST_F(Data, IdxElementsAreBigEndian) {
  const Tensor t = idx(idx_header(0x0d, {2}) + std::string("\x3f\x80\x00\x00\xc0\x00\x00\x00", 8));
  EXPECT_EQ(t.values(), (std::vector<double>{1, -2}));
  EXPECT_EQ(idx(idx_header(0x0c, {1}) + std::string("\x00\x01\x02\x03", 4)).at(0), 0x10203);
}

TEST_F(Data, GzipMayHaveSeveralMembers) {
  const std::string bytes = idx_u8({6}, "abcdef");
  EXPECT_EQ(idx(gzip(bytes.substr(0, 9)) + gzip(bytes.substr(9))), idx(bytes));
}

TEST_F(Data, CorruptGzipIsRefused) {
  std::string elements(5000, '\0');
  for (size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<char>(i * i % 251);
  const std::string good = gzip(idx_u8({5000}, elements));
  ASSERT_NO_THROW(idx(good));
  for (const size_t cut : {good.size() - 1, good.size() - 9, good.size() / 2, size_t{11}, size_t{3}})
    expect_error([&] { idx(good.substr(0, cut)); }, "data.idx'", "truncated");
  for (const size_t place : {size_t{20}, good.size() / 2, good.size() - 6, good.size() - 2}) {
    std::string bad = good;
    bad[place] = static_cast<char>(bad[place] ^ 0x55);
    EXPECT_THAT([&] { idx(bad); }, ThrowsMessage<Error>(HasSubstr("data.idx'"))) << place;
  }
  std::string checksum = good;
  checksum[good.size() - 6] ^= 1;
  expect_error([&] { idx(checksum); }, "corrupt", "incorrect data check");
  expect_error([&] { idx(good + "more"); }, "corrupt");
}

TEST_F(Data, IdxHeadersAreCheckedBeforeAllocation) {
  expect_error([&] { idx(idx_u8({0xffffffff, 0xffffffff, 0xffffffff}, "")); }, "overflows");
  expect_error([&] { idx(idx_u8({0xffffffff, 0xffff}, "abc")); }, "at most 3 follow");
  expect_error([&] { idx(gzip(idx_u8({0xffffffff, 0xffff}, "abc"))); }, "announces u8[4294967295,65535]");
  expect_error([&] { idx(idx_u8({4}, "abc")); }, "at most 3 follow");
  expect_error([&] { idx(idx_u8({2}, "abc")); }, "more bytes follow");
  expect_error([&] { idx(std::string("\0\0\x0b\x01\0\0\0\1ab", 10)); }, "element type 11 is not supported");
  expect_error([&] { idx("text, not data"); }, "not an IDX file");
  expect_error([&] { idx(std::string("\0\0\x08\x03\0\0", 6)); }, "truncated in its header");
  expect_error([&] { idx(""); }, "truncated in its header");
}

TEST_F(Data, FilesThatCannotBeReadAreNamed) {
  expect_error([&] { open_dataset((directory_.path() / "none.npz").string(), Split::train); }, "none.npz'",
               "No such file");
  expect_error([&] { open_dataset("x=" + directory_.path().string(), Split::train); }, "not a regular file");
  expect_error([&] { open_dataset(directory_.path().string(), Split::train); }, "train-images-idx3-ubyte", "NAME=FILE");
  expect_error([&] { open_dataset("x=no-such-file,,y=b", Split::train); }, "cannot open data file 'no-such-file'");
  expect_error([&] { open_dataset("x=", Split::train); }, "NAME=FILE expected, 'x=' found");
  const auto text = write(directory_, "note.txt", "hello, this is text");
  expect_error([&] { open_dataset(text.string(), Split::train); }, "a directory with IDX files");
  expect_error([&] { open_dataset("x=" + text.string(), Split::train); }, "an IDX or NPY file expected");
  const auto archive = write(directory_, "a.npz", zip({}));
  expect_error([&] { open_dataset("x=" + archive.string(), Split::train); }, "archive of several arrays");
  if (::geteuid() == 0) return;  // root reads everything
  const auto secret = write(directory_, "secret", idx_u8({1}, "a"));
  std::filesystem::permissions(secret, std::filesystem::perms::none);
  expect_error([&] { open_dataset("x=" + secret.string(), Split::train); }, "secret'", "Permission denied");
}

TEST_F(Data, NpyOfEveryType) {
  const std::pair<const char*, DType> types[] = {{"<f2", DType::f16}, {"<V2", DType::bf16}, {"<f4", DType::f32},
                                                 {"<f8", DType::f64}, {"|u1", DType::u8},   {"|i1", DType::i8},
                                                 {"<i4", DType::i32}, {"<i8", DType::i64},  {"|b1", DType::boolean}};
  static_assert(std::size(types) == kDTypeCount);
  for (const auto& [descr, dtype] : types) {
    Tensor t(TensorType{dtype, {2, 2}});
    for (int i = 0; i < 4; ++i) t.set(i, dtype == DType::boolean ? i % 2 : i + 1);
    const std::string bytes(reinterpret_cast<const char*>(t.data.data()), t.data.size());
    EXPECT_EQ(npy_array(npy(descr, "(2, 2)", bytes)), t) << descr;
  }
}

TEST_F(Data, NpyFortranOrderIsTransposed) {
  const Tensor t =
      npy_array(npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", floats({1, 4, 2, 5, 3, 6})));
  EXPECT_EQ(t.type.shape, (Shape{2, 3}));
  EXPECT_EQ(t.values(), (std::vector<double>{1, 2, 3, 4, 5, 6}));
}

TEST_F(Data, NpyVersion2AndScalarsAndGzip) {
  const std::string dictionary = "{\"shape\": (3,), 'fortran_order': False, 'descr': '|u1'}  \n";
  std::string bytes("\x93NUMPY\x02\x00", 8);
  append(bytes, static_cast<uint32_t>(dictionary.size()));
  bytes += dictionary + "abc";
  EXPECT_EQ(npy_array(bytes).type, (TensorType{DType::u8, {3}}));
  EXPECT_EQ(npy_array(gzip(bytes)), npy_array(bytes));
  EXPECT_EQ(npy_array(npy("|u1", "()", "a")).type, (TensorType{DType::u8, {}}));
}

TEST_F(Data, BadNpyIsRefused) {
  expect_error([&] { npy_array(npy(">f4", "(1,)", "abcd")); }, "'>f4' is not supported", "little-endian");
  expect_error([&] { npy_array(npy("|O", "(1,)", "abcd")); }, "'|O' is not supported");
  expect_error([&] { npy_array(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "abcd")); },
               "structured arrays");
  expect_error([&] { npy_array(npy("<f4", "(-1,)", "abcd")); }, "non-negative dimension");
  expect_error([&] { npy_array(npy("<f4", "(99999999999999999999,)", "abcd")); }, "non-negative dimension");
  expect_error([&] { npy_array(npy("<f4", "(4294967296, 4294967296)", "abcd")); }, "overflows");
  expect_error([&] { npy_array(npy("<f4", "(4611686018427387904,)", "abcd")); }, "overflows");
  expect_error([&] { npy_array(npy("<f4", "(1000000000000,)", "abcd")); }, "at most 4 follow");
  expect_error([&] { npy_array(npy("<f4", "(2,)", "abcd")); }, "at most 4 follow");
  expect_error([&] { npy_array(npy("<f4", "(1,)", "abcdefgh")); }, "more bytes follow");
  expect_error([&] { npy_array(npy("{'descr': '<f4'}", "abcd")); }, "'descr', 'fortran_order' and 'shape' expected");
  expect_error([&] { npy_array(npy("{'descr': '<f4", "abcd")); }, "string is not closed");
  expect_error([&] { npy_array(npy("{'a': 1}", "abcd")); }, "unknown key 'a'");
  expect_error([&] { npy_array(npy("", "")); }, "'{' expected");
  expect_error([&] { npy_array(std::string("\x93NUMPY\x01\x00\xff\xff{", 11)); }, "NPY header of 65535 bytes");
  expect_error([&] { npy_array(std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff{", 13)); }, "NPY header of 4294967295");
  expect_error([&] { npy_array(std::string("\x93NUMPY\x07\x00\x01\x00{", 11)); }, "NPY version 7");
}

TEST_F(Data, NpzStoredAndDeflatedMembersAndZip64) {
  const std::string x = npy("<f4", "(2, 2)", floats({1, 2, 3, 4})), y = npy("|u1", "(2,)", std::string("\x03\x05", 2));
  for (const ZipSizes sizes : {ZipSizes::bits32, ZipSizes::bits64}) {
    const FileTensors arrays = npz(zip({{"x.npy", x, 8}, {"y.npy", y, 0}}, sizes));
    ASSERT_EQ(arrays.size(), 2u);
    EXPECT_EQ(arrays.at("x").values(), (std::vector<double>{1, 2, 3, 4}));
    EXPECT_EQ(arrays.at("y").values(), (std::vector<double>{3, 5}));
  }
}

TEST_F(Data, BadNpzIsRefused) {
  const std::string x = npy("<f4", "(2,)", floats({1, 2}));
  expect_error([&] { npz(zip({{"x.npy", x, 8, 0, 1}})); }, "member 'x.npy'", "checksum");
  expect_error([&] { npz(zip({{"x.npy", x, 0, 0, 1}})); }, "member 'x.npy'", "checksum");
  expect_error([&] { npz(zip({{"x.npy", x, 8, 1}})); }, "encrypted");
  expect_error([&] { npz(zip({{"x.npy", x}, {"x.npy", x}})); }, "two members are named 'x.npy'");
  expect_error([&] { npz(zip({{"x\nhalfstep: trained.npy", x}})); }, "'x\\u000ahalfstep: trained.npy' holds a control");
  expect_error([&] { npz(zip({{"x.npy", npy("<f4\n", "(1,)", "abcd")}})); }, "element type '<f4\\u000a'");
  expect_error([&] { npz(zip({{"x.npy", "text only"}})); }, "member 'x.npy'", "not an NPY file");
  expect_error([&] { npz(""); }, "not a zip archive");
  expect_error([&] { npz(std::string(200, 'P')); }, "not a zip archive");
  const std::string good = zip({{"x.npy", x, 8}, {"y.npy", x, 0}}, ZipSizes::bits64);
  for (size_t cut = 0; cut < good.size(); ++cut) EXPECT_THROW(npz(good.substr(0, cut)), Error) << cut;
  std::string overlapping = zip({{"a.npy", x}, {"b.npy", x}});
  overlapping[overlapping.find("PK\x01\x02", overlapping.find("PK\x01\x02") + 1) + 42] = 0;  // b at a's place
  expect_error([&] { npz(overlapping); }, "overlap");
}

TEST_F(Data, EverySingleByteErrorOfAnNpzIsAnErrorOrHarmless) {
  const std::string x = npy("<f4", "(2,)", floats({1, 2}));
  const std::string good = zip({{"x.npy", x, 8}}, ZipSizes::bits64);
  for (size_t place = 0; place < good.size(); ++place)
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string bad = good;
      bad[place] = static_cast<char>(bad[place] ^ flip);
      try {
        for (const auto& [name, t] : npz(bad)) EXPECT_EQ(t.values(), (std::vector<double>{1, 2})) << place;
      } catch (const Error&) {
      }
    }
}

TEST_F(Data, DirectoryOfIdxFiles) {
  write(directory_, "train-images-idx3-ubyte.gz", gzip(idx_u8({2, 1, 2}, "abcd")));
  write(directory_, "train-labels-idx1-ubyte.gz", gzip(idx_u8({2}, std::string("\x01\x07", 2))));
  write(directory_, "t10k-images-idx3-ubyte", idx_u8({1, 1, 2}, "xy"));
  write(directory_, "t10k-labels-idx1-ubyte", idx_u8({1}, std::string("\x02", 1)));
  const Dataset train = open_dataset(directory_.path().string(), Split::train);
  ASSERT_EQ(train.arrays.size(), 2u);
  EXPECT_EQ(train.size(), 2);
  EXPECT_EQ(train.arrays[0].name, "images");
  EXPECT_EQ(train.arrays[0].values.type, (TensorType{DType::u8, {2, 1, 2}}));
  EXPECT_EQ(train.arrays[1].name, "labels");
  EXPECT_EQ(train.arrays[1].values.type, (TensorType{DType::u8, {2}}));
  EXPECT_EQ(train.arrays[1].values.at(1), 7);
  EXPECT_EQ(open_dataset(directory_.path().string(), Split::test).arrays[1].values.at(0), 2);
}

TEST_F(Data, NamedFilesAndArchives) {
  const std::string x = npy("<f4", "(2, 1)", floats({1, 2})), y = idx_u8({2}, std::string("\x00\x01", 2));
  const Dataset files = named(x, gzip(y));
  EXPECT_EQ(files.arrays[0].name, "x");
  EXPECT_EQ(files.arrays[0].values.at(1), 2);
  EXPECT_EQ(files.arrays[1].values.type.dtype, DType::u8);
  const auto path = write(directory_, "all.npz", zip({{"x.npy", x, 8}, {"y.npy", npy("<i4", "(2,)", "12341234")}}));
  const Dataset archive = open_dataset(path.string(), Split::train);
  EXPECT_EQ(archive.arrays[0].values, files.arrays[0].values);
  EXPECT_EQ(archive.arrays[1].values.type, (TensorType{DType::i32, {2}}));
}

TEST_F(Data, ArraysMustHaveTheSameSamples) {
  expect_error([&] { named(idx_u8({3, 1}, "abc"), idx_u8({2}, "ab")); },
               "data array 'y': 2 samples, but array 'x' has 3");
  expect_error([&] { named(idx_u8({0, 1}, ""), idx_u8({0}, "")); }, "data array 'x': it has no samples");
  expect_error([&] { named(npy("|u1", "()", "a"), idx_u8({1}, "a")); }, "data array 'x': a scalar");
  const std::string x = write(directory_, "x", idx_u8({1}, "a")).string();
  expect_error([&] { open_dataset("x=" + x + ",x=" + x, Split::train); }, "the name is given twice");
}

TEST_F(Data, ValuesThatAreNotFiniteAreNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const std::string y = idx_u8({2}, "ab");
  expect_error([&] { named(npy("<f4", "(2, 2)", floats({1, 2, 3, nan})), y); },
               "data array 'x': sample 1 holds NaN (element 1)");
  expect_error([&] { named(npy("<f4", "(2, 2)", floats({1, -infinity, 3, 4})), y); },
               "sample 0 holds an infinity (element 1)");
  std::string halves;
  for (const float v : {1.0f, nan}) append(halves, half_from_float(v));
  expect_error([&] { named(npy("<f2", "(2,)", halves), y); }, "sample 1 holds NaN");
}

TEST_F(Data, LabelsOutOfRangeAreNamed) {
  const Dataset d = named(idx_u8({4, 1}, "abcd"), npy("<i8", "(4,)", [] {
                            std::string bytes;
                            for (const int64_t label : {0, 9, 10, -1}) append(bytes, label);
                            return bytes;
                          }()));
  EXPECT_NO_THROW(check_ranges(d, {.classes = 1}));  // nothing is called labels
  expect_error([&] { check_ranges(d, {.labels = "y", .classes = 10}); },
               "data array 'y': sample 2 has label 10, expected 0 to 9 (2 such samples)");
  expect_error([&] { check_ranges(d, {.labels = "y", .classes = 11}); }, "sample 3 has label -1");
  EXPECT_NO_THROW(check_ranges(d, {.labels = "y", .classes = 11, .ignored = -1}));
  EXPECT_NO_THROW(check_ranges(d, {}));
  // A label for each position of a sample.
  NamedArray map{"labels", Tensor(TensorType{DType::u8, {2, 3}})};
  map.values.set(4, 7);
  expect_error([&] { check_ranges({{map}}, {.classes = 7}); }, "sample 1 has label 7, expected 0 to 6 (1 such labels)");
}

// Of a loss that takes no classes: of every type, and shares of a label too.
TEST_F(Data, LabelsBeyondTheirBoundsAreNamed) {
  NamedArray y{"y", Tensor::from_values({DType::f32, {4}}, std::vector<double>{0, 0.5, 1, -1})};
  const auto ranges = [](const LabelRange& range) { return ValueRanges{.labels_of = {{"y", range}}}; };
  EXPECT_NO_THROW(check_ranges({{y}}, ranges({.ignored = -1, .bounds = LabelBounds{0, 1}})));
  expect_error([&] { check_ranges({{y}}, ranges({.bounds = LabelBounds{0, 1}})); },
               "data array 'y': sample 3 has label -1, expected 0 to 1 (1 such samples)");
  expect_error([&] { check_ranges({{y}}, ranges({.bounds = LabelBounds{.most = 0}})); },
               "sample 1 has label 0.5, expected at most 0 (2 such samples)");
  NamedArray bytes{"y", Tensor::from_values({DType::u8, {2}}, std::vector<double>{1, 2})};
  expect_error([&] { check_ranges({{bytes}}, ranges({.bounds = LabelBounds{0, 1}})); }, "sample 1 has label 2");
}

}  // namespace
}  // namespace halfstep
