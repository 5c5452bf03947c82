// Who may have written a compiled step.
#include "program/signature.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "program/program.h"
#include "tests/program/error_message.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Of nobody: made for this test by `openssl genpkey -algorithm ed25519`.
constexpr const char* kPrivate =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEINbSvKsVqo/Qlh0cykuVhfQdD5J+/E7UodlfbKDENOfD\n"
    "-----END PRIVATE KEY-----\n";
constexpr const char* kPublic =
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEAwo57mS/Ss+8neXXTsSf9k1QSf9suc7B/1D9QcHh68Gw=\n"
    "-----END PUBLIC KEY-----\n";
constexpr const char* kAnother =
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEA4+cuBoJigh2C/VlQ9UlL9Iy5ILrA00E720zS+YuJS6k=\n"
    "-----END PUBLIC KEY-----\n";

class SignedStep : public testing::Test {
 protected:
  SignedStep() {
    write_file_atomically(path("key.pem"), kPrivate);
    write_file_atomically(path("key.pub"), kPublic);
    write_file_atomically(path("another.pub"), kAnother);
    model_.device = DeviceKind::cuda, model_.architecture = "sm_80";
    model_.programs.push_back({.name = "train", .buffers = {}, .steps = {}});
    model_.kernels = "// none";
  }
  std::string path(const std::string& name) const { return temporary_.path() / name; }
  std::string refusal(const std::string& trust) const {
    return error_of([&] { load_compiled(path("step"), trust); });
  }

  TemporaryDirectory temporary_;
  CompiledModel model_;
};

TEST_F(SignedStep, LoadsWithItsKeyAlone) {
  save_compiled(model_, path("step"), path("key.pem"));
  EXPECT_EQ(load_compiled(path("step"), path("key.pub")).kernels, model_.kernels);
  EXPECT_EQ(load_compiled(path("step")).kernels, model_.kernels);
  EXPECT_THAT(refusal(path("another.pub")), HasSubstr("its signature is not of key"));
  EXPECT_THAT(refusal(path("key.pem")), HasSubstr("is no public Ed25519 key in PEM form"));
  EXPECT_THAT(refusal(path("none.pub")), HasSubstr("No such file"));
  EXPECT_THAT(error_of([&] { save_compiled(model_, path("other"), path("key.pub")); }),
              HasSubstr("is no private Ed25519 key in PEM form"));
  EXPECT_FALSE(fs::exists(path("other")));
}

TEST_F(SignedStep, NoByteOfItMayChange) {
  save_compiled(model_, path("step"), path("key.pem"));
  const std::string manifest = read_file(path("step/manifest.json"));
  for (size_t at = 0; at < manifest.size(); at += 7) {
    std::string changed = manifest;
    changed[at] ^= 1;
    write_file_atomically(path("step/manifest.json"), changed);
    EXPECT_THAT(refusal(path("key.pub")), HasSubstr("its signature is not of key")) << at;
  }
  write_file_atomically(path("step/manifest.json"), manifest);
  EXPECT_EQ(refusal(path("key.pub")), "");
  write_file_atomically(path("step/kernels.ptx"), "// evil");
  EXPECT_THAT(refusal(path("key.pub")), HasSubstr("kernels.ptx"));
  fs::remove(path("step/manifest.sig"));
  EXPECT_THAT(refusal(path("key.pub")), HasSubstr("it is not signed"));
}

TEST_F(SignedStep, SignaturesAreDeterministic) {
  const std::string once = signature_of("bytes", path("key.pem"));
  EXPECT_EQ(once, signature_of("bytes", path("key.pem")));
  EXPECT_EQ(once.size(), 64u);
  expect_signed("bytes", once, path("key.pub"));
  EXPECT_NE(error_of([&] { expect_signed("byte", once, path("key.pub")); }), "");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(SignedStep, WhatOthersMayWriteIsRefusedUnlessSigned) {
  const mode_t mask = ::umask(0);
  save_compiled(model_, path("step"), path("key.pem"));
  ::umask(mask);
  EXPECT_EQ(refusal(""), "");  // whatever the mask says
  for (const char* file : {"step", "step/kernels.ptx", "step/manifest.json"}) {
    const fs::perms before = fs::status(path(file)).permissions();
    for (const fs::perms of : {fs::perms::group_write, fs::perms::others_write}) {
      fs::permissions(path(file), of, fs::perm_options::add);
      EXPECT_THAT(refusal(""), testing::AllOf(HasSubstr("others may write"), HasSubstr("chmod -R go-w"))) << file;
      EXPECT_EQ(refusal(path("key.pub")), "");
      fs::permissions(path(file), before);
    }
  }
  if (::geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  ASSERT_EQ(::chown(path("step/kernels.ptx").c_str(), 12345, 12345), 0);
  EXPECT_THAT(refusal(""), testing::AllOf(HasSubstr("belongs to user 12345"), HasSubstr("--trust")));
}

}  // namespace
}  // namespace halfstep
