#include "base/file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>

#include "base/error.h"
#include "base/file_lock.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

class Files : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return directory_.path() / name; }
  size_t count() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(directory_.path()), fs::directory_iterator()));
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(Files, WhatIsNoFileIsNeitherReadNorReplaced) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  fs::create_directory(path("directory"));
  fs::create_symlink("/dev/null", path("null"));
  const std::pair<const char*, const char*> kinds[] = {
      {"pipe", "pipe': it is a pipe"}, {"directory", "it is a directory"}, {"null", "null': it is a device"}};
  for (const auto& [name, expected] : kinds) {
    EXPECT_THAT([&] { read_file(path(name)); }, ThrowsMessage<Error>(HasSubstr(expected))) << "a pipe must not hang";
    EXPECT_THAT([&] { write_file_atomically(path(name), "x"); }, ThrowsMessage<Error>(HasSubstr(expected)));
  }
  EXPECT_TRUE(fs::is_fifo(path("pipe")) && fs::is_symlink(path("null")));
  EXPECT_EQ(count(), 3u) << "no temporary file is left";
}

TEST_F(Files, PermissionsAreThoseOfTheMask) {
  for (const mode_t mask : {mode_t{0077}, mode_t{0002}, mode_t{0022}}) {
    const mode_t former = ::umask(mask);
    write_file_atomically(path("file"), "x");
    const fs::path made = create_directory_beside(path("target"));
    ::umask(former);
    EXPECT_EQ(fs::status(path("file")).permissions(), fs::perms(0666 & ~mask));
    EXPECT_EQ(fs::status(made).permissions(), fs::perms(0777 & ~mask));
  }
}

TEST_F(Files, DirectoriesChangePlaces) {
  for (const char* name : {"fresh", "old"}) {
    fs::create_directory(path(name));
    write_file_atomically(path(name) / "which", name);
  }
  put_in_place(path("fresh"), path("new"), path("aside"));
  EXPECT_EQ(read_file(path("new/which")), "fresh");
  put_in_place(path("new"), path("old"), path("aside"));
  EXPECT_EQ(read_file(path("old/which")), "fresh");
  EXPECT_THAT([&] { put_in_place(path("gone"), path("old"), path("aside")); },
              ThrowsMessage<Error>(HasSubstr("old': No such file")));
  EXPECT_EQ(read_file(path("old/which")), "fresh");
}

TEST_F(Files, ADirectoryThatCannotBeSyncedIsAnError) {
  sync_directory(path("."));
  EXPECT_THAT([&] { sync_directory(path("gone")); }, ThrowsMessage<Error>(HasSubstr("cannot sync directory")));
}

TEST_F(Files, AMissingTemporaryFolderIsNamed) {
  const char* const former = std::getenv("TMPDIR");
  const std::string kept = former ? former : "";
  ::setenv("TMPDIR", "/no/such/folder", 1);
  EXPECT_THAT([] { TemporaryDirectory t; }, ThrowsMessage<Error>(HasSubstr("let TMPDIR name one that exists")));
  former ? ::setenv("TMPDIR", kept.c_str(), 1) : ::unsetenv("TMPDIR");
}

TEST_F(Files, ALockIsHeldByOne) {
  const auto take = [&] { FileLock lock(path("lock"), "output directory 'out'"); };
  {
    const FileLock lock(path("lock"), "output directory 'out'");
    EXPECT_THAT(take, ThrowsMessage<Error>("output directory 'out' is in use by another run (process " +
                                           std::to_string(::getpid()) + "): wait for it, or choose another"));
  }
  EXPECT_NO_THROW(take());
  EXPECT_THAT([&] { FileLock lock(path("gone/lock"), "x"); }, ThrowsMessage<Error>(HasSubstr("gone/lock")));
}

}  // namespace
}  // namespace halfstep
