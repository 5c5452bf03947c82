// Whole files in, whole files out. A write never leaves a half-written file under the final name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace halfstep {

// Throws Error naming the path and the system's reason; refuses what is no regular file and files above `limit` bytes.
std::string read_file(const std::filesystem::path& path, int64_t limit = int64_t{1} << 40);

// Receives pieces in order; throws Error on a failed write (full disk, quota).
class FileSink {
 public:
  virtual ~FileSink() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
};

// Writes to a temporary name beside `path`, syncs, renames over `path`, syncs the directory. On any error the temporary
// file is removed and what stood at `path` is untouched. A device, FIFO or directory is not replaced: Error. The file's
// permissions are those of the user's mask, less what `writers` takes.
enum class Writers : uint8_t { by_mask, owner_alone };
void write_file_atomically(const std::filesystem::path& path, const std::function<void(FileSink&)>& fill,
                           Writers writers = Writers::by_mask);
void write_file_atomically(const std::filesystem::path& path, std::string_view content,
                           Writers writers = Writers::by_mask);

// So that the names in it are there after a loss of power. Error where they may not be.
void sync_directory(const std::filesystem::path& directory);

// Makes an empty directory ".NAME.xxxxxx" beside `target` and returns its path.
std::filesystem::path create_directory_beside(const std::filesystem::path& target);

// Moves directory `fresh` to `path` and syncs. What stands at `path` changes places with it in one step, or, where the
// filesystem cannot do that, moves to `aside`: between the two renames nothing stands at `path`. On an Error `path` is
// as it was.
void put_in_place(const std::filesystem::path& fresh, const std::filesystem::path& path,
                  const std::filesystem::path& aside);

// A directory of its own under the system's temporary folder, removed with everything in it at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace halfstep
