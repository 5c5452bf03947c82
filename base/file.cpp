#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include "base/error.h"

namespace halfstep {
namespace {

std::string reason() { return std::strerror(errno); }

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

class DescriptorSink final : public FileSink {
 public:
  DescriptorSink(int fd, const std::filesystem::path& path) : fd_(fd), path_(path) {}
  void write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw Error("cannot write '" + path_.string() + "': " + reason());
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }

 private:
  int fd_;
  const std::filesystem::path& path_;
};

// The reason why a path is no file of data: "it is a directory". "": a regular file.
std::string other_than_file(const struct stat& info) {
  if (S_ISREG(info.st_mode)) return "";
  return S_ISDIR(info.st_mode)    ? "it is a directory"
         : S_ISFIFO(info.st_mode) ? "it is a pipe; a file is expected"
         : S_ISSOCK(info.st_mode) ? "it is a socket; a file is expected"
                                  : "it is a device; a file is expected";
}

std::string name_beside(const std::filesystem::path& path) {
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyz";
  const std::filesystem::path directory = path.has_parent_path() ? path.parent_path() : ".";
  std::string name = (directory / ("." + path.filename().string() + ".")).string();
  std::random_device random;
  for (int i = 0; i < 8; ++i) name += kLetters[random() % kLetters.size()];
  return name;
}

// A file of a new name beside `path`.
std::pair<int, std::string> create_beside(const std::filesystem::path& path, Writers writers) {
  while (true) {
    std::string name = name_beside(path);
    const int fd =
        ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, writers == Writers::owner_alone ? 0644 : 0666);
    if (fd >= 0) return {fd, std::move(name)};
    if (errno != EEXIST) throw Error("cannot write '" + path.string() + "': " + reason());
  }
}

}  // namespace

std::string read_file(const std::filesystem::path& path, int64_t limit) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe without a writer must not hang
  if (fd.get() < 0) throw Error("cannot open '" + path.string() + "': " + reason());
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) throw Error("cannot read '" + path.string() + "': " + reason());
  if (const std::string other = other_than_file(info); !other.empty())
    throw Error("cannot read '" + path.string() + "': " + other);
  if (info.st_size > limit)
    throw Error("cannot read '" + path.string() + "': " + std::to_string(info.st_size) + " bytes, at most " +
                std::to_string(limit) + " expected");
  std::string content(static_cast<size_t>(info.st_size), '\0');
  size_t have = 0;
  while (have < content.size()) {
    const ssize_t n = ::read(fd.get(), content.data() + have, content.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error("cannot read '" + path.string() + "': " + reason());
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  content.resize(have);
  return content;
}

void write_file_atomically(const std::filesystem::path& path, const std::function<void(FileSink&)>& fill,
                           Writers writers) {
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0)
    if (const std::string other = other_than_file(info); !other.empty())
      throw Error("cannot write '" + path.string() + "': " + other);
  const auto [created, temporary] = create_beside(path, writers);
  Descriptor fd(created);
  try {
    DescriptorSink sink(fd.get(), path);
    fill(sink);
    if (::fsync(fd.get()) != 0 || ::rename(temporary.c_str(), path.c_str()) != 0)
      throw Error("cannot write '" + path.string() + "': " + reason());
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_directory(path.has_parent_path() ? path.parent_path() : ".");
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content, Writers writers) {
  write_file_atomically(path, [&](FileSink& sink) { sink.write(content); }, writers);
}

void sync_directory(const std::filesystem::path& directory) {
  Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // EINVAL: a filesystem without directory sync, which has nothing better to offer.
  if (fd.get() < 0 || (::fsync(fd.get()) != 0 && errno != EINVAL))
    throw Error("cannot sync directory '" + directory.string() + "': " + reason());
}

std::filesystem::path create_directory_beside(const std::filesystem::path& target) {
  while (true) {
    const std::string name = name_beside(target);
    if (::mkdir(name.c_str(), 0777) == 0) return name;
    if (errno != EEXIST) throw Error("cannot create a directory beside '" + target.string() + "': " + reason());
  }
}

void put_in_place(const std::filesystem::path& fresh, const std::filesystem::path& path,
                  const std::filesystem::path& aside) {
  const auto failed = [&] { return Error("cannot write '" + path.string() + "': " + reason()); };
  const auto move = [](const std::filesystem::path& from, const std::filesystem::path& to, unsigned flags) {
    return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0;
  };
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) {
    if (::rename(fresh.c_str(), path.c_str()) != 0) throw failed();
  } else if (!move(fresh, path, RENAME_EXCHANGE)) {
    if (errno != EINVAL && errno != ENOSYS) throw failed();
    if (::rename(path.c_str(), aside.c_str()) != 0) throw failed();
    if (::rename(fresh.c_str(), path.c_str()) != 0) {
      const Error error = failed();
      ::rename(aside.c_str(), path.c_str());
      throw error;
    }
  }
  sync_directory(path.has_parent_path() ? path.parent_path() : ".");
}

TemporaryDirectory::TemporaryDirectory() {
  std::error_code absent;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(absent);
  if (absent) throw Error("no directory for temporary files: let TMPDIR name one that exists");
  std::string pattern = (parent / "halfstep-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw Error("cannot create a temporary directory in '" + parent.string() + "': " + reason());
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace halfstep
