#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace halfstep {
namespace {

std::string holder_of(int fd) {
  char text[16];
  const ssize_t n = std::max<ssize_t>(0, ::pread(fd, text, sizeof text, 0));
  std::string digits;
  for (ssize_t i = 0; i < n && std::isdigit(static_cast<unsigned char>(text[i])); ++i) digits += text[i];
  return digits.empty() ? "" : " (process " + digits + ")";
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& path, const std::string& what)
    : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666)) {
  if (fd_ < 0) throw Error(what + ": cannot open '" + path.string() + "': " + std::strerror(errno));
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return;
    const std::string holder = holder_of(fd_);
    ::close(fd_);
    throw Error(what + " is in use by another run" + holder + ": wait for it, or choose another");
  }
  const std::string process = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd_, 0) == 0) (void)!::pwrite(fd_, process.data(), process.size(), 0);
}

FileLock::~FileLock() { ::close(fd_); }

}  // namespace halfstep
