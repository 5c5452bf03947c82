#include "data/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "base/error.h"

namespace halfstep {
namespace {

class RangeSource final : public ByteSource {
 public:
  RangeSource(std::shared_ptr<const DataFile> file, std::string name, int64_t offset, int64_t length)
      : ByteSource(std::move(name)), file_(std::move(file)), offset_(offset), remaining_(length) {
    require(offset >= 0 && length >= 0 && offset <= file_->size() - length, "range lies inside the file");
  }

  size_t read(std::span<std::byte> into) override {
    into = into.first(std::min(into.size(), static_cast<size_t>(remaining_)));
    const size_t got = file_->read_at(offset_, into);
    offset_ += static_cast<int64_t>(got);
    remaining_ -= static_cast<int64_t>(got);
    return got;
  }
  int64_t most_remaining() const override { return remaining_; }
  FilePlace place() const override { return {file_, offset_}; }

 private:
  std::shared_ptr<const DataFile> file_;
  int64_t offset_;
  int64_t remaining_;
};

class InflateSource final : public ByteSource {
 public:
  InflateSource(std::unique_ptr<ByteSource> compressed, Compression compression)
      : ByteSource(compressed->name()), compressed_(std::move(compressed)), compression_(compression) {
    // zlib's codes: 16 added to the window size selects gzip, a negative size bare deflate.
    const int window = compression == Compression::gzip ? 16 + MAX_WBITS : -MAX_WBITS;
    require(inflateInit2(&stream_, window) == Z_OK, "zlib starts");
  }
  ~InflateSource() override { inflateEnd(&stream_); }

  size_t read(std::span<std::byte> into) override {
    size_t done = 0;
    while (done < into.size() && refill()) {
      if (finished_ && !start_next_member()) break;
      const uInt room = static_cast<uInt>(std::min<size_t>(into.size() - done, 1u << 30));
      stream_.next_out = reinterpret_cast<Bytef*>(into.data() + done);
      stream_.avail_out = room;
      const int status = inflate(&stream_, Z_NO_FLUSH);
      done += room - stream_.avail_out;
      if (status == Z_STREAM_END) {
        finished_ = true;
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        throw Error(name() + ": compressed data is corrupt (" + (stream_.msg ? stream_.msg : "unknown reason") +
                    "): get the file again");
      } else if (input_ended_ && stream_.avail_in == 0 && stream_.avail_out > 0) {
        throw Error(name() + ": compressed data is truncated: get the file again");
      }
    }
    return done;
  }

  int64_t most_remaining() const override {
    // Deflate codes at most 258 bytes in two bits; the slack covers what the decoder holds back.
    constexpr int64_t kMostExpansion = 1032, kSlack = 1024;
    return checked_add(
        checked_mul(checked_add(compressed_->most_remaining(), stream_.avail_in, name()), kMostExpansion, name()),
        kSlack, name());
  }

 private:
  // False: no input is left and the stream has ended.
  bool refill() {
    if (stream_.avail_in == 0 && !input_ended_) {
      const size_t got = compressed_->read(input_);
      input_ended_ = got < input_.size();
      stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
      stream_.avail_in = static_cast<uInt>(got);
    }
    return stream_.avail_in > 0 || !finished_;
  }
  // A gzip file may be several members, one after the other.
  bool start_next_member() {
    if (compression_ != Compression::gzip) return false;
    inflateReset(&stream_);
    finished_ = false;
    return true;
  }

  std::unique_ptr<ByteSource> compressed_;
  Compression compression_;
  z_stream stream_{};
  std::array<std::byte, 1 << 16> input_;
  bool input_ended_ = false;
  bool finished_ = false;
};

class CheckedSource final : public ByteSource {
 public:
  CheckedSource(std::unique_ptr<ByteSource> inner, uint32_t crc, int64_t size)
      : ByteSource(inner->name()), inner_(std::move(inner)), expected_crc_(crc), remaining_(size) {}

  size_t read(std::span<std::byte> into) override {
    const size_t got = inner_->read(into);
    if (got > 0) crc_ = crc32_z(crc_, reinterpret_cast<const Bytef*>(into.data()), got);
    remaining_ -= static_cast<int64_t>(got);
    if (got < into.size() && (remaining_ != 0 || crc_ != expected_crc_))
      throw Error(name() + ": its size or checksum differs from the archive's directory: get the file again");
    return got;
  }
  int64_t most_remaining() const override { return std::min(inner_->most_remaining(), remaining_); }
  FilePlace place() const override {
    FilePlace place = inner_->place();
    place.checked = true;
    return place;
  }

 private:
  std::unique_ptr<ByteSource> inner_;
  uLong crc_ = 0;
  uLong expected_crc_;
  int64_t remaining_;
};

}  // namespace

DataFile::DataFile(const std::filesystem::path& path) : name_("'" + path.string() + "'") {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info{};
  if (fd_ < 0 || ::fstat(fd_, &info) != 0) {
    const std::string reason = std::strerror(errno);
    if (fd_ >= 0) ::close(fd_);
    throw Error("cannot open data file " + name_ + ": " + reason);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd_);
    throw Error("cannot read data file " + name_ + ": it is not a regular file");
  }
  size_ = info.st_size;
}

DataFile::DataFile(int fd, std::string name) : name_(std::move(name)), fd_(fd) {
  struct stat info{};
  if (::fstat(fd_, &info) == 0) size_ = info.st_size;
}

DataFile::~DataFile() { ::close(fd_); }

size_t DataFile::read_at(int64_t offset, std::span<std::byte> into) const {
  size_t have = 0;
  while (have < into.size()) {
    const ssize_t n = ::pread(fd_, into.data() + have, into.size() - have, offset + static_cast<int64_t>(have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error("cannot read data file " + name_ + ": " + std::strerror(errno));
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  return have;
}

std::unique_ptr<ByteSource> open_range(std::shared_ptr<const DataFile> file, std::string name, int64_t offset,
                                       int64_t length) {
  return std::make_unique<RangeSource>(std::move(file), std::move(name), offset, length);
}

std::unique_ptr<ByteSource> open_inflated(std::unique_ptr<ByteSource> compressed, Compression compression) {
  return std::make_unique<InflateSource>(std::move(compressed), compression);
}

std::unique_ptr<ByteSource> open_checked(std::unique_ptr<ByteSource> inner, uint32_t crc, int64_t size) {
  return std::make_unique<CheckedSource>(std::move(inner), crc, size);
}

std::unique_ptr<ByteSource> open_data_file(const std::filesystem::path& path) {
  auto file = std::make_shared<const DataFile>(path);
  std::array<std::byte, 2> magic{};
  const bool gzip =
      file->read_at(0, magic) == magic.size() && magic[0] == std::byte{0x1f} && magic[1] == std::byte{0x8b};
  std::unique_ptr<ByteSource> source = open_range(file, "data file " + file->name(), 0, file->size());
  return gzip ? open_inflated(std::move(source), Compression::gzip) : std::move(source);
}

void read_exactly(ByteSource& source, std::span<std::byte> into, const std::string& what) {
  if (const size_t got = source.read(into); got < into.size())
    throw Error(source.name() + ": truncated in its " + what + ": " + std::to_string(into.size()) +
                " bytes expected, " + std::to_string(got) + " found");
}

void check_elements(const ByteSource& source, const TensorType& type) {
  const std::string where = source.name() + ": " + to_string(type);
  const int64_t bytes = checked_mul(checked_element_count(type.shape, where), size_of(type.dtype), where);
  if (const int64_t most = source.most_remaining(); bytes > most)
    throw Error(source.name() + ": its header announces " + to_string(type) + ", " + std::to_string(bytes) +
                " bytes, but at most " + std::to_string(most) + " follow");
}

void refuse_more(const ByteSource& source, const TensorType& type) {
  throw Error(source.name() + ": more bytes follow than its header announces (" + to_string(type) + ")");
}

Tensor read_elements(ByteSource& source, TensorType type) {
  check_elements(source, type);
  Tensor tensor(std::move(type));
  read_exactly(source, tensor.data, "element data");
  std::byte extra;
  if (source.read({&extra, 1}) != 0) refuse_more(source, tensor.type);
  return tensor;
}

}  // namespace halfstep
