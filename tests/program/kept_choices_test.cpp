// What tuning chose as text and as files: round trips, other machines, damage, directories that cannot be written.
#include "program/kept_choices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/file.h"
#include "program/gpu_code.h"
#include "tests/program/error_message.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const ChoiceKey kKey{"NVIDIA H200, sm_90, 132 multiprocessors", "CUDA 13.0, cuDNN 9.19.0",
                     "halfstep 0.1.0, autotune 8"};

constexpr const char* kText = R"(halfstep kept choices, version 1
device: NVIDIA H200, sm_90, 132 multiprocessors
libraries: CUDA 13.0, cuDNN 9.19.0
settings: halfstep 0.1.0, autotune 8
choices: 2
convolution forward 8 3 64 [224, 224] | engine 47 knobs 3=1
gemm 128 512 784 f16 | direct 4096 0000000000000001
checksum: 9dcca2c9
)";

KeptChoices sample() {
  return {kKey,
          {{"gemm 128 512 784 f16", "direct 4096 0000000000000001"},
           {"convolution forward 8 3 64 [224, 224]", "engine 47 knobs 3=1"}}};
}

std::string replaced(std::string text, const std::string& from, const std::string& by) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), by);
}

TEST(KeptChoicesText, PrintsAndParsesBack) {
  EXPECT_EQ(print(sample()), kText);
  EXPECT_EQ(parse_kept_choices(kText), sample());
}

TEST(KeptChoicesText, RefusesWhatItDidNotWrite) {
  const auto error_with = [](const std::string& from, const std::string& by) {
    return error_of([&] { parse_kept_choices(replaced(kText, from, by)); });
  };
  EXPECT_THAT(
      error_with("version 1", "version 2"),
      HasSubstr("line 1: 'halfstep kept choices, version 1' expected, found 'halfstep kept choices, version 2'"));
  EXPECT_THAT(error_with("libraries", "library"), HasSubstr("line 3: 'libraries: ' expected, found 'library: CUDA"));
  EXPECT_THAT(error_with("choices: 2", "choices: two"), HasSubstr("line 5: a number of choices expected, found 'two'"));
  EXPECT_THAT(error_with("choices: 2", "choices: 3"), HasSubstr("line 8: 'call | choice' expected"));
  EXPECT_THAT(error_with("choices: 2", "choices: 1"), HasSubstr("line 7: 'checksum: ' expected"));
  EXPECT_THAT(error_with(" | engine", " engine"), HasSubstr("line 6: 'call | choice' expected"));
  EXPECT_THAT(error_with("3=1", "3=1 | 4"), HasSubstr("line 6: a control character or a second '|'"));
  EXPECT_THAT(error_with("3=1", "3=2"), HasSubstr("line 8: the checksum is another"));
  EXPECT_THAT(error_with("9dcca2c9\n", "9dcca2c9\nmore\n"), HasSubstr("line 8: nothing expected after the checksum"));
  EXPECT_THAT(error_with("checksum: 9dcca2c9\n", ""), HasSubstr("line 8: it ends early"));
  EXPECT_THAT(error_with("9dcca2c9\n", "14ea"), HasSubstr("line 8: a line is cut short"));
}

class KeptInAStep : public testing::Test {
 protected:
  KeptInAStep() { fs::permissions(step(), fs::perms::owner_all); }
  fs::path step() const { return temporary_.path(); }
  std::vector<fs::path> kept() const {
    std::vector<fs::path> files;
    if (fs::exists(step() / "kept"))
      for (const auto& entry : fs::directory_iterator(step() / "kept")) files.push_back(entry.path());
    return files;
  }
  void keep_one() const {
    ChoiceStore store(step(), kKey);
    store.keep("gemm 1", "direct");
    store.save();
    EXPECT_THAT(store.remarks(), IsEmpty());
  }

 private:
  TemporaryDirectory temporary_;
};

TEST_F(KeptInAStep, TheNextStartFindsIt) {
  keep_one();
  const ChoiceStore next(step(), kKey);
  ASSERT_NE(next.find("gemm 1"), nullptr);
  EXPECT_EQ(*next.find("gemm 1"), "direct");
  EXPECT_EQ(next.find("gemm 2"), nullptr);
  EXPECT_THAT(next.remarks(), IsEmpty());
}

TEST_F(KeptInAStep, NothingNewWritesNothing) {
  keep_one();
  const fs::path file = kept().at(0);
  const fs::file_time_type long_ago = fs::file_time_type::clock::now() - std::chrono::hours(1);
  fs::last_write_time(file, long_ago);
  ChoiceStore next(step(), kKey);
  next.keep("gemm 1", "direct");
  next.save();
  EXPECT_EQ(fs::last_write_time(file), long_ago);
}

TEST_F(KeptInAStep, AnotherMachineOrLibraryOrSettingHasItsOwn) {
  keep_one();
  for (std::string ChoiceKey::* field : {&ChoiceKey::device, &ChoiceKey::libraries, &ChoiceKey::settings}) {
    ChoiceKey other = kKey;
    (other.*field) += " and more";
    ChoiceStore store(step(), other);
    EXPECT_EQ(store.find("gemm 1"), nullptr);
    EXPECT_THAT(store.remarks(), IsEmpty());
    store.keep("gemm 1", "rows");
    store.save();
  }
  EXPECT_EQ(kept().size(), 4u);
  EXPECT_EQ(*ChoiceStore(step(), kKey).find("gemm 1"), "direct");
}

TEST_F(KeptInAStep, AFileOfAnotherKeyIsToldAndNotUsed) {
  keep_one();
  const fs::path file = kept().at(0);
  write_file_atomically(file, replaced(read_file(file), "CUDA 13.0", "CUDA 12.9"));
  EXPECT_THAT(ChoiceStore(step(), kKey).remarks(), ElementsAre(HasSubstr("the checksum is another")));
  KeptChoices stale{kKey, {{"gemm 1", "direct"}}};
  stale.key.libraries = "CUDA 12.9";
  write_file_atomically(file, print(stale));
  const ChoiceStore store(step(), kKey);
  EXPECT_THAT(store.remarks(), ElementsAre(HasSubstr("it is for another device, other libraries or settings")));
  EXPECT_EQ(store.find("gemm 1"), nullptr);
}

TEST_F(KeptInAStep, ADamagedFileIsToldAndWrittenAgain) {
  keep_one();
  const fs::path file = kept().at(0);
  for (const std::string& damage : {std::string(), std::string("halfstep"), read_file(file).substr(0, 100)}) {
    write_file_atomically(file, damage);
    ChoiceStore store(step(), kKey);
    EXPECT_THAT(store.remarks(), ElementsAre(HasSubstr("are not used, and tuned again: line ")));
    store.keep("gemm 1", "direct");
    store.save();
    EXPECT_THAT(ChoiceStore(step(), kKey).remarks(), IsEmpty());
  }
}

TEST_F(KeptInAStep, ARefusedChoiceIsToldAndGone) {
  keep_one();
  ChoiceStore store(step(), kKey);
  store.refuse("gemm 1", "it does not fit");
  EXPECT_EQ(store.find("gemm 1"), nullptr);
  EXPECT_THAT(store.remarks(),
              ElementsAre("the kept choice for 'gemm 1' is not used, and tuned again: it does not fit"));
  store.save();
  EXPECT_EQ(ChoiceStore(step(), kKey).find("gemm 1"), nullptr);
}

TEST_F(KeptInAStep, BytesComeBackOrAreToldAndGone) {
  const std::string code(
      "\x7f"
      "ELF\0code",
      9);
  {
    ChoiceStore store(step(), kKey);
    EXPECT_EQ(store.find_bytes("kernels"), std::nullopt);
    store.keep_bytes("kernels", code);
    store.save();
  }
  ChoiceStore next(step(), kKey);
  EXPECT_EQ(next.find_bytes("kernels"), code);
  for (const fs::path& file : kept())
    if (file.extension() == ".bin") write_file_atomically(file, code.substr(1));
  EXPECT_EQ(next.find_bytes("kernels"), std::nullopt);
  EXPECT_THAT(next.remarks(), ElementsAre(HasSubstr("9 bytes, checksum ")));
  EXPECT_EQ(next.find("kernels"), nullptr);
}

TEST_F(KeptInAStep, AFileElsewhereIsNotRead) {
  write_file_atomically(step() / "other.bin", "bytes");
  ChoiceStore store(step(), kKey);
  store.keep("kernels", "file ../other.bin, " + digest("bytes"));
  EXPECT_EQ(store.find_bytes("kernels"), std::nullopt);
  EXPECT_THAT(store.remarks(), ElementsAre(HasSubstr("is not used")));
}

TEST_F(KeptInAStep, WhereItCannotBeWrittenIsToldOnce) {
  write_file_atomically(step() / "kept", "a file where the folder would be");
  ChoiceStore store(step(), kKey);
  store.keep_bytes("kernels", "code");
  store.keep("gemm 1", "direct");
  store.save();
  EXPECT_THAT(store.remarks(), ElementsAre(HasSubstr("what was tuned is not kept for the next start: ")));
}

TEST_F(KeptInAStep, WhatOthersMayWriteIsNeitherReadNorWritten) {
  keep_one();
  for (const fs::path& place : {step(), step() / "kept", kept().at(0)}) {
    fs::permissions(place, fs::perms::group_write, fs::perm_options::add);
    ChoiceStore store(step(), kKey);
    EXPECT_EQ(store.find("gemm 1"), nullptr);
    EXPECT_FALSE(store.keeps());
    EXPECT_THAT(store.remarks(), ElementsAre(HasSubstr("others than this user may write")));
    fs::permissions(place, fs::perms::group_write, fs::perm_options::remove);
  }
}

TEST_F(KeptInAStep, FilesAreForTheirOwnerToWriteWhateverTheMask) {
  const mode_t before = ::umask(0);
  keep_one();
  ::umask(before);
  EXPECT_THAT(ChoiceStore(step(), kKey).remarks(), IsEmpty());
}

TEST(KeptNowhere, NothingIsReadOrWritten) {
  ChoiceStore store({}, kKey);
  EXPECT_FALSE(store.keeps());
  store.keep("gemm 1", "direct");
  store.keep_bytes("kernels", "code");
  store.save();
  EXPECT_EQ(store.find("gemm 1"), nullptr);
  EXPECT_THAT(store.remarks(), IsEmpty());
}

TEST(GpuCode, ArchitecturesAreRead) {
  EXPECT_EQ(parse_gpu_architecture("sm_80").capability, 80);
  EXPECT_FALSE(parse_gpu_architecture("sm_100").specific);
  EXPECT_TRUE(parse_gpu_architecture("sm_90a").specific);
  for (const char* text : {"", "sm_", "sm_a", "sm_90b", "sm_-1", "x86-64", "compute_80"})
    EXPECT_THAT(error_of([&] { parse_gpu_architecture(text); }), HasSubstr("is no CUDA architecture such as sm_80"));
}

TEST(GpuCode, RunsOnItsMajorVersionFromItsOwnOn) {
  CompiledModel model;
  for (const char* name : {"sm_80", "sm_86", "sm_90", "sm_90a", "sm_100"}) model.cubins[name] = "code";
  EXPECT_EQ(fitting_cubin(model, 75), "");
  EXPECT_EQ(fitting_cubin(model, 80), "sm_80");
  EXPECT_EQ(fitting_cubin(model, 87), "sm_86");
  EXPECT_EQ(fitting_cubin(model, 90), "sm_90a");
  EXPECT_EQ(fitting_cubin(model, 103), "sm_100");
  EXPECT_EQ(fitting_cubin(model, 120), "");
  model.cubins = {{"sm_90a", "code"}};
  EXPECT_EQ(fitting_cubin(model, 91), "");
}

}  // namespace
}  // namespace halfstep
