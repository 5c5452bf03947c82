#include "data/csv.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace halfstep {
namespace {

constexpr size_t kPiece = size_t{1} << 20;
constexpr size_t kLongestRecord = size_t{1} << 26;

}  // namespace

CsvReader::CsvReader(std::unique_ptr<ByteSource> source, char delimiter)
    : source_(std::move(source)), delimiter_(delimiter) {
  refill();
  const std::string_view head(buffer_.data(), end_);
  if (head.starts_with("\xff\xfe") || head.starts_with("\xfe\xff"))
    throw Error(source_->name() + ": it is UTF-16: store it as UTF-8");
  if (head.starts_with("\xef\xbb\xbf")) begin_ = 3;
}

bool CsvReader::refill() {
  if (source_ended_) return false;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_, begin_ = 0;
  }
  if (end_ > kLongestRecord)
    throw Error(source_->name() + ", line " + std::to_string(next_line_) + ": a record of more than " +
                std::to_string(kLongestRecord >> 20) + " MiB: is a quote not closed?");
  if (buffer_.size() < end_ + kPiece) buffer_.resize(std::max(end_ + kPiece, 2 * end_));
  const size_t got = source_->read(std::as_writable_bytes(std::span(buffer_).subspan(end_)));
  source_ended_ = got < buffer_.size() - end_;
  end_ += got;
  return true;
}

// Leaves everything as it was and returns false where the record does not end in the buffer.
bool CsvReader::read_record(std::vector<std::string_view>& fields) {
  fields.clear();
  const char* const data = buffer_.data();
  const auto fail = [&](const std::string& what) {
    throw Error(source_->name() + ", line " + std::to_string(next_line_) + ": " + what);
  };
  size_t at = begin_;
  int64_t lines = 0;
  struct Quoted {
    size_t field, begin, end;  // what stands between the quotes
  };
  std::vector<Quoted> doubled;  // fields whose doubled quotes become one where the record is whole
  for (bool more = true; more;) {
    if (at < end_ && data[at] == '"') {
      const size_t begin = ++at;
      bool doubles = false;
      for (;; ++at) {
        if (at >= end_) {
          if (source_ended_) fail("a quote is not closed");
          return false;
        }
        if (data[at] == '\n') ++lines;
        if (data[at] != '"') continue;
        if (at + 1 >= end_ && !source_ended_) return false;
        if (at + 1 >= end_ || data[at + 1] != '"') break;
        doubles = true, ++at;
      }
      fields.emplace_back(data + begin, at - begin);
      if (doubles) doubled.push_back({fields.size() - 1, begin, at});
      ++at;
      if (at < end_ && data[at] == '\r') ++at;
      if (at < end_ && data[at] != delimiter_ && data[at] != '\n')
        fail("text stands behind the closing quote of field " + std::to_string(fields.size()) +
             ": a quote inside a field is doubled");
    } else {
      const size_t begin = at;
      while (at < end_ && data[at] != delimiter_ && data[at] != '\n') ++at;
      const bool carriage = at > begin && data[at - 1] == '\r' && (at >= end_ || data[at] == '\n');
      fields.emplace_back(data + begin, at - begin - (carriage ? 1 : 0));
    }
    if (at >= end_ && !source_ended_) return false;
    more = at < end_ && data[at] == delimiter_;
    if (more) ++at;
  }
  if (at < end_) ++at;  // the line's end
  for (const Quoted& q : doubled) {
    char* to = buffer_.data() + q.begin;
    for (size_t from = q.begin; from < q.end; ++from) {
      *to++ = data[from];
      if (data[from] == '"') ++from;
    }
    fields[q.field] = {data + q.begin, static_cast<size_t>(to - data) - q.begin};
  }
  line_ = next_line_;
  next_line_ += lines + 1;
  taken_ += static_cast<int64_t>(at - begin_);
  begin_ = at;
  return true;
}

bool CsvReader::next(std::vector<std::string_view>& fields) {
  for (;;) {
    if (begin_ >= end_ && !refill()) return false;
    if (begin_ >= end_) return false;
    while (!read_record(fields)) refill();
    if (fields.size() > 1 || !fields[0].empty()) return true;
  }
}

char find_delimiter(std::string_view head) {
  constexpr size_t kRecords = 20;
  char found = ',';
  size_t most = 1;
  bool found_even = false;
  for (const char candidate : {',', ';', '\t', '|'}) {
    size_t fields = 1, first = 0, records = 0;
    bool quoted = false, even = true;
    for (const char c : head) {
      if (c == '"') quoted = !quoted;
      if (quoted) continue;
      if (c == candidate) ++fields;
      if (c != '\n') continue;
      if (records == 0) first = fields;
      even = even && fields == first;
      fields = 1;
      if (++records == kRecords) break;
    }
    if (records == 0) first = fields;
    if (first > 1 && (even > found_even || (even == found_even && first > most)))
      found = candidate, most = first, found_even = even;
  }
  return found;
}

}  // namespace halfstep
