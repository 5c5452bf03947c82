// One process at a time.
#pragma once

#include <filesystem>
#include <string>

namespace halfstep {

// Holds `path`, a file that is made where it is missing and holds our process number, until its end or that of the
// process, however that comes. Error naming `what` and the process that holds it already. A filesystem without locks
// grants every one.
class FileLock {
 public:
  FileLock(const std::filesystem::path& path, const std::string& what);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace halfstep
