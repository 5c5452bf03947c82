#include "program/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/program/error_message.h"

namespace halfstep {
namespace {

using testing::HasSubstr;

std::string file_of(const std::string& header, const std::string& data) {
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
  return length + header + data;
}

Safetensors sample() {
  Safetensors content;
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType type = static_cast<DType>(i);
    Tensor tensor({type, {2, 3}});
    for (int64_t j = 0; j < 6; ++j) tensor.set(j, static_cast<double>(j % 2 + i));
    content.tensors["tensor/" + std::string(name(type))] = tensor;
  }
  content.tensors["scalar"] = Tensor::scalar(DType::f32, 2.5);
  content.tensors["empty"] = Tensor({DType::f64, {0, 7}});
  content.tensors["größe \"quoted\""] = Tensor({DType::u8, {1}});
  content.metadata = {{"format", "pt"}, {"step", "12"}};
  return content;
}

TEST(Safetensors, ReadsWhatItWrote) {
  const TemporaryDirectory temporary;
  const Safetensors content = sample();
  write_safetensors(temporary.path() / "w.safetensors", content.tensors, content.metadata);
  const Safetensors found = read_safetensors(temporary.path() / "w.safetensors");
  EXPECT_EQ(found.tensors, content.tensors);
  EXPECT_EQ(found.metadata, content.metadata);
}

TEST(Safetensors, AnEmptyFileOfTensorsIsFine) {
  const TemporaryDirectory temporary;
  write_safetensors(temporary.path() / "w.safetensors", {});
  EXPECT_TRUE(read_safetensors(temporary.path() / "w.safetensors").tensors.empty());
}

// The layout other readers rely on: little-endian length, JSON header, aligned data without gaps.
TEST(Safetensors, HasTheDocumentedLayout) {
  const TemporaryDirectory temporary;
  write_safetensors(temporary.path() / "w.safetensors", sample().tensors, sample().metadata);
  const std::string bytes = read_file(temporary.path() / "w.safetensors");
  uint64_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  ASSERT_LT(length + 8, bytes.size());
  EXPECT_EQ(length % 8, 0u);
  const nlohmann::json header = nlohmann::json::parse(bytes.substr(8, length));
  EXPECT_EQ(header.at("__metadata__").at("step"), "12");
  const nlohmann::json& scalar = header.at("scalar");
  EXPECT_EQ(scalar.at("dtype"), "F32");
  EXPECT_EQ(scalar.at("shape"), nlohmann::json::array());
  float value = 0;
  std::memcpy(&value, bytes.data() + 8 + length + scalar.at("data_offsets").at(0).get<size_t>(), 4);
  EXPECT_EQ(value, 2.5f);
  EXPECT_EQ(header.at("tensor/i64").at("data_offsets").at(0).get<size_t>() % 8, 0u);
}

TEST(Safetensors, ReadsAFileWrittenElsewhere) {
  const TemporaryDirectory temporary;
  const std::string header = R"({"b":{"dtype":"I8","shape":[3],"data_offsets":[4,7]},)"
                             R"( "a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}   )";
  write_file_atomically(temporary.path() / "w.safetensors", file_of(header, std::string("\0\0\x80\x3f\1\2\xff", 7)));
  const Safetensors found = read_safetensors(temporary.path() / "w.safetensors");
  EXPECT_EQ(found.tensors.at("a").at(0), 1.0);
  EXPECT_EQ(found.tensors.at("b").values(), (std::vector<double>{1, 2, -1}));
}

struct Hostile {
  const char* what;
  std::string content;
  const char* message;
};

class HostileSafetensors : public testing::TestWithParam<Hostile> {};

TEST_P(HostileSafetensors, IsAnErrorThatNamesTheFile) {
  const TemporaryDirectory temporary;
  write_file_atomically(temporary.path() / "bad.safetensors", GetParam().content);
  const std::string message = error_of([&] { read_safetensors(temporary.path() / "bad.safetensors"); });
  EXPECT_THAT(message, HasSubstr("bad.safetensors"));
  EXPECT_THAT(message, HasSubstr(GetParam().message));
}

const std::string kFour(4, '\0');

INSTANTIATE_TEST_SUITE_P(
    All, HostileSafetensors,
    testing::Values(
        Hostile{"empty", "", "truncated"},  //
        Hostile{"short", "\1\2\3", "truncated"},
        Hostile{"header_longer_than_file", std::string("\x20\0\0\0\0\0\0\0{}", 10),
                "a header of 32 bytes does not fit"},
        Hostile{"header_of_all_ones", std::string(8, '\xff') + "{}", "does not fit"},
        Hostile{"text", "this is a text file, not safetensors", "does not fit"},
        Hostile{"not_json", file_of("{\"a\":", ""), "not a JSON object"},
        Hostile{"a_list", file_of("[]", ""), "not a JSON object"},
        Hostile{"nested", file_of(std::string(100000, '['), ""), "JSON nested more than 64 deep"},
        Hostile{"entry_not_object", file_of(R"({"a":3})", ""), "tensor 'a': an object expected"},
        Hostile{"no_dtype", file_of(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", kFour), "'dtype' must be a string"},
        Hostile{"unknown_dtype", file_of(R"({"a":{"dtype":"F8","shape":[4],"data_offsets":[0,4]}})", kFour),
                "unknown element type 'F8'"},
        Hostile{"negative_dimension", file_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", kFour),
                "'shape' must hold integers from 0"},
        Hostile{"fraction", file_of(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", kFour),
                "'shape' must hold integers"},
        Hostile{"above_63_bits",
                file_of(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,4]}})", kFour),
                "'shape' must hold integers"},
        Hostile{"overflow",
                file_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", kFour),
                "overflows"},
        Hostile{"shape_disagrees", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", kFour),
                "f32[2] needs 8 bytes, its offsets hold 4"},
        Hostile{"huge_and_absent",
                file_of(R"({"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}})", ""),
                "the file is truncated"},
        Hostile{"backwards", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", kFour),
                "'data_offsets' must be begin and end"},
        Hostile{"one_offset", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", kFour),
                "'data_offsets' must be begin and end"},
        Hostile{"overlap",
                file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                        R"("b":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})",
                        kFour),
                "gap or overlap"},
        Hostile{"gap",
                file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                        R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                        kFour),
                "tensor 'b': data at byte 1 expected, found 2"},
        Hostile{"starts_late", file_of(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})", kFour),
                "gap or overlap"},
        Hostile{"truncated_data", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", kFour),
                "8 bytes of data expected, found 4: the file is truncated"},
        Hostile{"too_long", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", kFour + kFour),
                "longer than its header says"},
        Hostile{"same_name_twice",
                file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                        R"("a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                        kFour),
                "gap or overlap"},
        Hostile{"metadata_list", file_of(R"({"__metadata__":[]})", ""), "metadata must be an object"},
        Hostile{"metadata_number", file_of(R"({"__metadata__":{"step":3}})", ""), "metadata 'step' must be a string"}),
    [](const auto& info) { return std::string(info.param.what); });

TEST(Safetensors, UnreadableAndUnwritablePathsAreErrors) {
  const TemporaryDirectory temporary;
  EXPECT_THAT(error_of([&] { read_safetensors(temporary.path() / "absent"); }), HasSubstr("No such file"));
  EXPECT_THAT(error_of([&] { read_safetensors(temporary.path()); }), HasSubstr(temporary.path().string()));
  EXPECT_THAT(error_of([&] { write_safetensors(temporary.path() / "no" / "w", sample().tensors); }),
              HasSubstr("cannot write"));
  Safetensors content;
  content.tensors["\xff\xfe"] = Tensor();
  EXPECT_THAT(error_of([&] { write_safetensors(temporary.path() / "w", content.tensors, content.metadata); }),
              HasSubstr("not UTF-8"));
  content.tensors = {{"__metadata__", Tensor()}};
  EXPECT_THAT(error_of([&] { write_safetensors(temporary.path() / "w", content.tensors, content.metadata); }),
              HasSubstr("__metadata__"));
  EXPECT_TRUE(std::filesystem::is_empty(temporary.path()));
}

}  // namespace
}  // namespace halfstep
