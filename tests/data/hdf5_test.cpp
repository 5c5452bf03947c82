// HDF5 files, where the machine has the library.
#include "data/hdf5.h"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <cstdlib>

#include "base/error.h"
#include "data/data.h"
#include "tests/data/data_files.h"
#include "tests/recorded.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string from_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c)), count += 6;
    if (count >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 0xff);
  }
  return bytes;
}

// The tests' image has the library; where there is none, what is said of that is the test.
class Hdf5 : public testing::Test {
 protected:
  void SetUp() override {
    path_ = write(directory_, "all.h5", bytes_).string();
    for (const char* name : {"libhdf5_serial.so.103", "libhdf5_serial.so.310", "libhdf5.so.103", "libhdf5.so"})
      if (::dlopen(name, RTLD_NOW | RTLD_LOCAL) != nullptr) return;
    EXPECT_THAT([&] { open_dataset(path_ + ":/labels", Split::train); },
                ThrowsMessage<Error>(HasSubstr("HDF5 files need the HDF5 library, version 1.10 or later, which is not "
                                               "installed: on Debian it is the package libhdf5-103-1")));
    GTEST_SKIP() << "no HDF5 library";
  }
  void refuse(const std::string& specification, const auto& message) {
    EXPECT_THAT([&] { open_dataset(specification, Split::train); }, ThrowsMessage<Error>(message)) << specification;
  }

  TemporaryDirectory directory_;
  const nlohmann::json reference_ = recorded("hdf5");
  const std::string bytes_ = from_base64(reference_.at("file"));
  std::string path_;
};

TEST_F(Hdf5, DatasetsAreThoseOfH5py) {
  for (const int64_t memory : {int64_t{0}, kAllInMemory})
    for (const auto& [name, expected] : reference_.at("datasets").items()) {
      const SampleValues values = read_hdf5(path_, "/" + name, memory);
      EXPECT_EQ(values.type.shape, expected.at("shape").get<Shape>()) << name;
      EXPECT_EQ(values.values(), expected.at("values").get<std::vector<double>>()) << name;
      EXPECT_EQ(values.stored != nullptr, memory == 0 && values.type.shape.size() > 1) << name;
    }
  const auto dtype = [&](const char* name) { return read_hdf5(path_, name, 0).type.dtype; };
  EXPECT_EQ(dtype("images"), DType::u8);
  EXPECT_EQ(dtype("labels"), DType::i64);
  EXPECT_EQ(dtype("half"), DType::f32);
  EXPECT_EQ(dtype("flags"), DType::boolean);
  EXPECT_EQ(dtype("short"), DType::i32);
}

TEST_F(Hdf5, AreNamedWithTheirFile) {
  const Dataset data = open_dataset("x=" + path_ + ":/images,labels=" + path_ + ":group/inner", Split::train);
  EXPECT_EQ(data.arrays[0].values.type, (TensorType{DType::u8, {4, 3, 2}}));
  EXPECT_EQ(data.arrays[1].values.type, (TensorType{DType::i32, {4}}));
  EXPECT_EQ(open_dataset(path_ + ":/group/inner", Split::train).arrays[0].name, "inner");
  EXPECT_THAT(hdf5_datasets(path_), ElementsAre("big_endian", "colours", "double", "flags", "half", "images", "labels",
                                                "short", "signed", "texts", "unwritten", "wide"));
  refuse("x=" + path_, HasSubstr("it may hold several datasets: name one as"));
  refuse(path_ + ":/image", HasSubstr("dataset '/image': there is no such dataset; did you mean '/images'?"));
  refuse(path_ + "://", HasSubstr("there is no such dataset"));
  refuse(path_ + ":/group", HasSubstr("there is no such dataset"));
}

TEST_F(Hdf5, WhatCannotBeReadIsRefused) {
  refuse(path_ + ":/texts", HasSubstr("dataset '/texts': its elements are no numbers: store it as"));
  refuse(path_ + ":/colours", HasSubstr("dataset '/colours': its elements are names of an enumeration: store it as"));
  refuse(path_ + ":/wide", HasSubstr("integers of 64 bits without a sign are not supported"));
  refuse(path_ + ":/unwritten",
         HasSubstr("dataset '/unwritten': it says that it is f32[4,1000000], 16000000 bytes, and the file stores 0"));
  refuse(directory_.path().string() + "/none.h5:/x", HasSubstr("No such file or directory"));
  refuse(write(directory_, "text.h5", "no HDF5 at all").string() + ":/x", HasSubstr("it is no HDF5 file"));
  const std::string blocked = write(directory_, "block.h5", std::string(512, ' ') + bytes_).string();
  EXPECT_EQ(read_hdf5(blocked, "/group/inner", 0).values(), read_hdf5(path_, "/group/inner", 0).values());
  for (size_t part = 1; part < 8; ++part) {
    const std::string cut = write(directory_, "cut.h5", bytes_.substr(0, bytes_.size() * part / 8)).string();
    refuse(cut + ":/images", HasSubstr("HDF5 cannot read it: is it cut off or corrupt?"));
  }
}

TEST_F(Hdf5, AFileThatShrinksWhileItIsReadIsAnError) {
  const SampleValues images = read_hdf5(path_, "/images", 0);
  std::filesystem::resize_file(path_, 100);
  EXPECT_THAT([&] { images.values(); },
              ThrowsMessage<Error>(HasSubstr("sample 0: the file became shorter while it was read")));
}

}  // namespace
}  // namespace halfstep
