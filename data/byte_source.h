// Bytes of a data file in order, plain or compressed, with a bound on how many can follow: what a header claims is
// checked against it before anything is allocated.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/tensor.h"

namespace halfstep {

class DataFile;

// Where bytes lie as they are in a file; no file: nowhere, they are compressed.
struct FilePlace {
  std::shared_ptr<const DataFile> file{};
  int64_t offset = 0;
  bool checked = false;  // reading them all says whether they are right
};

class ByteSource {
 public:
  explicit ByteSource(std::string name) : name_(std::move(name)) {}
  virtual ~ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  // For messages: the quoted path, and the member of an archive.
  const std::string& name() const { return name_; }
  // Fills `into` from its front; fewer bytes than asked for only at the end. Throws Error where they cannot be read.
  virtual size_t read(std::span<std::byte> into) = 0;
  // At most this many bytes can follow.
  virtual int64_t most_remaining() const = 0;
  // Of what is to be read next.
  virtual FilePlace place() const { return {}; }

 private:
  std::string name_;
};

// A regular file opened for reading at any offset. Throws Error where it cannot be.
class DataFile {
 public:
  explicit DataFile(const std::filesystem::path& path);
  // Takes an open one; `name` is for messages.
  DataFile(int fd, std::string name);
  ~DataFile();
  DataFile(const DataFile&) = delete;
  DataFile& operator=(const DataFile&) = delete;

  const std::string& name() const { return name_; }  // quoted path
  int64_t size() const { return size_; }
  size_t read_at(int64_t offset, std::span<std::byte> into) const;

 private:
  std::string name_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// Bytes [offset, offset + length) of a file; the range must lie inside it.
std::unique_ptr<ByteSource> open_range(std::shared_ptr<const DataFile> file, std::string name, int64_t offset,
                                       int64_t length);

enum class Compression : uint8_t { gzip, raw_deflate };
// Throws Error on corrupt or truncated data; gzip's checksum and length are checked at the end of each member.
std::unique_ptr<ByteSource> open_inflated(std::unique_ptr<ByteSource> compressed, Compression compression);

// Ends with an Error unless exactly `size` bytes with this CRC-32 came.
std::unique_ptr<ByteSource> open_checked(std::unique_ptr<ByteSource> inner, uint32_t crc, int64_t size);

// A whole file, decompressed where it starts with the gzip magic.
std::unique_ptr<ByteSource> open_data_file(const std::filesystem::path& path);

// Fills all of `into`; `what` says in the Error what was cut off: "header", "element data".
void read_exactly(ByteSource& source, std::span<std::byte> into, const std::string& what);
// Error unless the rest of the source may be so many elements; `refuse_more` is that of one that holds more.
void check_elements(const ByteSource& source, const TensorType& type);
[[noreturn]] void refuse_more(const ByteSource& source, const TensorType& type);
// The rest of the source as one tensor: its size is checked before allocation, and nothing may follow it.
Tensor read_elements(ByteSource& source, TensorType type);

}  // namespace halfstep
