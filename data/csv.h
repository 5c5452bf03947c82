// Records of separated values (RFC 4180): fields may be quoted, a quote inside is doubled, lines end in LF or CRLF.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/byte_source.h"

namespace halfstep {

class CsvReader {
 public:
  // A byte order mark of UTF-8 is passed over; Error for one of UTF-16.
  CsvReader(std::unique_ptr<ByteSource> source, char delimiter);

  // The fields of the next record that is no empty line, which hold until the next call; false: there is none. Error
  // naming the line where a quote is not closed or something stands behind a closing one.
  bool next(std::vector<std::string_view>& fields);
  int64_t line() const { return line_; }    // that the record begins on, from 1
  int64_t bytes() const { return taken_; }  // of the records so far
  const std::string& name() const { return source_->name(); }

 private:
  bool refill();
  bool read_record(std::vector<std::string_view>& fields);

  std::unique_ptr<ByteSource> source_;
  char delimiter_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;  // of what was read and not taken
  bool source_ended_ = false;
  int64_t line_ = 0, next_line_ = 1, taken_ = 0;
};

// Of comma, semicolon, tab and |: the one that divides the first records into most fields, all into the same number.
char find_delimiter(std::string_view head);

}  // namespace halfstep
