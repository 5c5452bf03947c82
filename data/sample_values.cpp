#include "data/sample_values.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/checked.h"

namespace halfstep {
namespace {

constexpr int64_t kPiece = int64_t{1} << 22;

class FileRows final : public SampleRows {
 public:
  FileRows(std::shared_ptr<const DataFile> file, int64_t offset, int64_t row_bytes)
      : file_(std::move(file)), offset_(offset), row_bytes_(row_bytes) {}

  void read(int64_t first, std::span<std::byte> into) const override {
    if (file_->read_at(offset_ + first * row_bytes_, into) != into.size())
      throw Error(file_->name() + ": it became shorter while it was read, sample " + std::to_string(first) +
                  " is not there any more");
  }

 private:
  std::shared_ptr<const DataFile> file_;
  int64_t offset_, row_bytes_;
};

class PickedRows final : public SampleRows {
 public:
  PickedRows(std::shared_ptr<const SampleRows> rows, std::vector<int64_t> picks, int64_t row_bytes)
      : rows_(std::move(rows)), picks_(std::move(picks)), row_bytes_(row_bytes) {}

  void read(int64_t first, std::span<std::byte> into) const override {
    if (row_bytes_ == 0) return;
    const auto bytes = static_cast<size_t>(row_bytes_);
    // Neighbours in the file are read together.
    for (auto at = static_cast<size_t>(first); !into.empty();) {
      size_t count = 1;
      while (count * bytes < into.size() && picks_[at + count] == picks_[at] + static_cast<int64_t>(count)) ++count;
      rows_->read(picks_[at], into.first(count * bytes));
      into = into.subspan(count * bytes), at += count;
    }
  }

 private:
  std::shared_ptr<const SampleRows> rows_;
  std::vector<int64_t> picks_;
  int64_t row_bytes_;
};

[[noreturn]] void fail_to_store(const std::string& what, const std::string& reason = std::strerror(errno)) {
  const char* const folder = std::getenv("TMPDIR");
  throw Error(what + ": no temporary file for it in '" + (folder != nullptr ? folder : "/tmp") + "': " + reason +
              ": let TMPDIR name another folder, or data_memory be more");
}

// Removed as it is closed.
int open_temporary(const std::string& what) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  if (error) fail_to_store(what, error.message());
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  std::string name = (folder / "halfstep-XXXXXX").string();  // not every file system has such files
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named < 0) fail_to_store(what);
  ::unlink(name.c_str());
  return named;
}

}  // namespace

int64_t SampleValues::row_elements() const {
  int64_t count = 1;
  for (size_t i = 1; i < type.shape.size(); ++i) count *= type.shape[i];
  return count;
}

const std::byte* SampleValues::row(int64_t sample, std::vector<std::byte>& buffer) const {
  const int64_t bytes = row_bytes();
  if (!stored) return data.data() + sample * bytes;
  buffer.resize(static_cast<size_t>(bytes));
  stored->read(sample, buffer);
  return buffer.data();
}

void SampleValues::scan(const std::function<bool(int64_t, std::span<const std::byte>)>& body) const {
  if (!stored) {
    body(0, data);
    return;
  }
  const int64_t rows = type.shape.front(), bytes = row_bytes();
  const int64_t step = std::max<int64_t>(kPiece / std::max<int64_t>(bytes, 1), 1);
  std::vector<std::byte> piece;
  for (int64_t row = 0; row < rows; row += step) {
    piece.resize(static_cast<size_t>(std::min(step, rows - row) * bytes));
    stored->read(row, piece);
    if (!body(row * row_elements(), piece)) return;
  }
}

int64_t SampleValues::first_that_fails(const std::function<bool(double)>& holds) const {
  int64_t found = -1;
  const int64_t size = size_of(type.dtype);
  scan([&](int64_t first, std::span<const std::byte> elements) {
    for (size_t at = 0; at < elements.size() && found < 0; at += static_cast<size_t>(size))
      if (!holds(load_as_double(type.dtype, elements.data() + at))) found = first + static_cast<int64_t>(at) / size;
    return found < 0;
  });
  return found;
}

double SampleValues::at(int64_t element) const {
  std::vector<std::byte> buffer;
  const int64_t of_row = row_elements();
  return load_as_double(type.dtype, row(element / of_row, buffer) + element % of_row * size_of(type.dtype));
}

Tensor SampleValues::tensor() && {
  require(!stored, "values in memory");
  Tensor tensor;
  tensor.type = std::move(type), tensor.data = std::move(data);
  return tensor;
}

void SampleValues::set(int64_t element, double value) {
  require(!stored, "values in memory");
  store_from_double(type.dtype, data.data() + element * size_of(type.dtype), value);
}

std::vector<double> SampleValues::values() const {
  std::vector<double> all;
  const auto size = static_cast<size_t>(size_of(type.dtype));
  scan([&](int64_t, std::span<const std::byte> elements) {
    for (size_t at = 0; at < elements.size(); at += size)
      all.push_back(load_as_double(type.dtype, elements.data() + at));
    return true;
  });
  return all;
}

std::shared_ptr<const SampleRows> rows_in_file(std::shared_ptr<const DataFile> file, int64_t offset,
                                               int64_t row_bytes) {
  return std::make_shared<const FileRows>(std::move(file), offset, row_bytes);
}

SampleValues picked_rows(const SampleValues& values, std::span<const int64_t> rows) {
  TensorType type = values.type;
  type.shape[0] = static_cast<int64_t>(rows.size());
  if (values.stored)
    return {std::move(type), std::make_shared<const PickedRows>(
                                 values.stored, std::vector<int64_t>(rows.begin(), rows.end()), values.row_bytes())};
  Tensor picked(std::move(type));
  const auto bytes = static_cast<size_t>(values.row_bytes());
  for (size_t i = 0; i < rows.size(); ++i)
    std::memcpy(picked.data.data() + i * bytes, values.data.data() + static_cast<size_t>(rows[i]) * bytes, bytes);
  return picked;
}

SampleSink::SampleSink(std::string what, int64_t memory, int64_t expected) : what_(std::move(what)), memory_(memory) {
  expect(expected);
}

SampleSink::~SampleSink() {
  if (fd_ >= 0) ::close(fd_);
}

void SampleSink::expect(int64_t bytes) {
  if (fd_ < 0 && bytes <= memory_) buffer_.reserve(static_cast<size_t>(std::max<int64_t>(bytes, 0)));
}

void SampleSink::flush() {
  for (std::span<const std::byte> rest(buffer_); !rest.empty();) {
    const ssize_t wrote = ::write(fd_, rest.data(), rest.size());
    if (wrote < 0 && errno != EINTR) fail_to_store(what_);
    rest = rest.subspan(static_cast<size_t>(std::max<ssize_t>(wrote, 0)));
  }
  buffer_.clear();
}

void SampleSink::write(std::span<const std::byte> bytes) {
  if (fd_ < 0 && static_cast<int64_t>(buffer_.size() + bytes.size()) > memory_) {
    fd_ = open_temporary(what_);
    flush();
    std::vector<std::byte>().swap(buffer_);
  }
  const size_t at = buffer_.size(), size = at + bytes.size();
  if (buffer_.capacity() < size) buffer_.reserve(std::max(size, at + at / 2));
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (fd_ >= 0 && static_cast<int64_t>(buffer_.size()) >= kPiece) flush();
}

SampleValues SampleSink::finish(TensorType type) {
  SampleValues values;
  values.type = std::move(type);
  if (fd_ < 0) {
    values.data = std::move(buffer_);
    return values;
  }
  flush();
  values.stored = rows_in_file(std::make_shared<const DataFile>(std::exchange(fd_, -1), what_ + ", its temporary file"),
                               0, values.row_bytes());
  return values;
}

SampleValues read_samples(ByteSource& source, TensorType type, int64_t memory) {
  const std::string where = source.name() + ": " + to_string(type);
  const int64_t elements = checked_element_count(type.shape, where);
  const int64_t bytes = checked_mul(elements, size_of(type.dtype), where);
  if (bytes <= memory || type.shape.empty() || elements <= type.shape.front())
    return read_elements(source, std::move(type));
  check_elements(source, type);
  const FilePlace place = source.place();
  SampleSink sink(source.name(), memory);
  std::vector<std::byte> piece(static_cast<size_t>(kPiece));
  // What lies in the file is read for its checksum alone.
  for (int64_t rest = place.file && !place.checked ? 0 : bytes; rest > 0;) {
    const std::span<std::byte> part = std::span(piece).first(static_cast<size_t>(std::min(rest, kPiece)));
    read_exactly(source, part, "element data");
    if (!place.file) sink.write(part);
    rest -= static_cast<int64_t>(part.size());
  }
  if (place.file && !place.checked) {
    if (source.most_remaining() != bytes) refuse_more(source, type);
    return {type, rows_in_file(place.file, place.offset, bytes / type.shape.front())};
  }
  std::byte extra;
  if (source.read({&extra, 1}) != 0) refuse_more(source, type);
  if (!place.file) return sink.finish(std::move(type));
  return {type, rows_in_file(place.file, place.offset, bytes / type.shape.front())};
}

}  // namespace halfstep
