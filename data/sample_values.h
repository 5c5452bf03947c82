// The samples of an array: in memory, or where a file has them, which is then read when they are needed.
#pragma once

#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "data/byte_source.h"

namespace halfstep {

inline constexpr int64_t kAllInMemory = std::numeric_limits<int64_t>::max();

class SampleRows {
 public:
  virtual ~SampleRows() = default;
  // Samples from `first` on, one after the other, as many as `into` holds. From any thread. Error naming the file where
  // they are not there any more.
  virtual void read(int64_t first, std::span<std::byte> into) const = 0;
};

struct SampleValues {
  TensorType type;                           // axis 0 counts samples
  std::vector<std::byte> data;               // of type.byte_count(); empty where they are stored
  std::shared_ptr<const SampleRows> stored;  // null: they are in memory

  SampleValues() = default;
  SampleValues(Tensor tensor) : type(std::move(tensor.type)), data(std::move(tensor.data)) {}
  SampleValues(TensorType of, std::shared_ptr<const SampleRows> rows) : type(std::move(of)), stored(std::move(rows)) {}

  int64_t row_elements() const;
  int64_t row_bytes() const { return row_elements() * size_of(type.dtype); }
  // One sample: where memory has it, or read into `buffer`.
  const std::byte* row(int64_t sample, std::vector<std::byte>& buffer) const;
  // Calls body(index of the first element, elements), in order, for stretches of whole samples, until it returns false.
  void scan(const std::function<bool(int64_t, std::span<const std::byte>)>& body) const;
  // Index of the first element that `holds` is false for; -1: none.
  int64_t first_that_fails(const std::function<bool(double)>& holds) const;

  double at(int64_t element) const;
  std::vector<double> values() const;
  // In memory.
  Tensor tensor() &&;
  void set(int64_t element, double value);
  template <typename T>
  std::span<T> as() {
    require(!stored, "values in memory");
    return {reinterpret_cast<T*>(data.data()), data.size() / sizeof(T)};
  }
  template <typename T>
  std::span<const T> as() const {
    require(!stored, "values in memory");
    return {reinterpret_cast<const T*>(data.data()), data.size() / sizeof(T)};
  }
  friend bool operator==(const SampleValues& a, const SampleValues& b) {
    return a.type == b.type && a.values() == b.values();
  }
};

// Rows of `row_bytes` in a file from `offset` on.
std::shared_ptr<const SampleRows> rows_in_file(std::shared_ptr<const DataFile> file, int64_t offset, int64_t row_bytes);
// These samples of them, in this order.
SampleValues picked_rows(const SampleValues& values, std::span<const int64_t> rows);

// Values that are written to memory, or beyond `memory` bytes to a file without a name in the folder of temporary files
// (TMPDIR).
class SampleSink {
 public:
  // `what` is named where the file cannot be written. `expected` bytes, as far as one can tell.
  SampleSink(std::string what, int64_t memory, int64_t expected = 0);
  ~SampleSink();
  void write(std::span<const std::byte> bytes);
  void expect(int64_t bytes);  // of all
  SampleValues finish(TensorType type);

 private:
  void flush();

  std::string what_;
  int64_t memory_;
  std::vector<std::byte> buffer_;
  int fd_ = -1;  // -1: all is in the buffer
};

// The rest of the source: as read_elements (its size is checked first), but beyond `memory` bytes the samples stay in
// their file, or, compressed, in a temporary one. An array of one value a sample comes to memory.
SampleValues read_samples(ByteSource& source, TensorType type, int64_t memory);

}  // namespace halfstep
