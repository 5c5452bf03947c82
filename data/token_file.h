// Text and token files: one long stream of token ids, read in pieces.
#pragma once

#include <memory>

#include "data/byte_source.h"
#include "data/tokenizer.h"

namespace halfstep {

class TokenFile {
 public:
  // By the end of the name: .u16 and .bin hold uint16, .u32 uint32, little-endian; .npy one axis of integers; any other
  // file is text, a token a byte. Throws Error where the file cannot be read or its size does not fit.
  explicit TokenFile(const std::filesystem::path& path);

  // The text file's tokens, all of them kept. Error where it has none, or is larger than 2 GiB.
  TokenFile(const std::filesystem::path& path, const Tokenizer& tokenizer);

  const std::string& name() const { return file_.name(); }  // quoted path
  int64_t size() const { return size_; }                    // tokens
  bool is_text() const { return text_; }                    // a token a byte
  // Of text; 0: the tokens are not known to be of one.
  double bytes_per_token() const { return text_ ? 1 : bytes_per_token_; }
  // Tokens [first, first + into.size()), which must lie inside the file.
  void read(int64_t first, std::span<int64_t> into) const;

 private:
  // uint8, uint16, uint32, int32, int64
  enum class Element : uint8_t { u8, u16, u32, i32, i64 };
  void open_npy(const std::filesystem::path& path);
  int64_t element_bytes() const;

  DataFile file_;
  Element element_ = Element::u8;
  bool text_ = false;
  int64_t offset_ = 0;  // of the first token, in bytes
  int64_t size_ = 0;
  std::vector<uint32_t> encoded_;  // the tokens, where they are not the file's
  double bytes_per_token_ = 0;
};

// A part of a file that a data set is made of.
struct TokenSpan {
  std::shared_ptr<const TokenFile> file;
  int64_t begin = 0, end = 0;

  int64_t size() const { return end - begin; }
};

// Throws Error naming the file, the position and the value of the first token outside [0, vocabulary).
void check_tokens(const TokenSpan& tokens, int64_t vocabulary);

}  // namespace halfstep
