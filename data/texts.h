// Texts as tokens, a sample each, of different lengths.
#pragma once

#include <optional>

#include "data/token_feed.h"
#include "data/tokenizer.h"

namespace halfstep {

struct TextTokens {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<uint32_t> ids;
  std::vector<size_t> begins{0};  // of each text, and the end of the last

  void add(const std::vector<uint32_t>& text);
};

struct TextSpan {
  std::shared_ptr<const TextTokens> tokens;
  std::vector<int64_t> rows;

  int64_t size() const { return static_cast<int64_t>(rows.size()); }
  std::span<const uint32_t> text(int64_t row) const;
};

// Fills [batch, length] of ids and, where there is such an input, of a mask: 1 where a token stands. A text that is too
// long is cut, with what the tokenizer puts behind it kept; a short one is padded.
class TextFeed {
 public:
  // Error where the inputs are not integers [batch, length].
  TextFeed(const TextSpan& texts, const InputPlace& ids, const std::optional<InputPlace>& mask);

  int64_t cut() const;  // texts that are too long
  // Error where an id is beyond the table of `rows` rows that it chooses from.
  void check(int64_t rows) const;
  void fill(std::span<const int64_t> samples, std::span<const std::span<std::byte>> staging) const;

 private:
  const TextSpan& texts_;
  InputPlace ids_;
  std::optional<InputPlace> mask_;
  int64_t batch_, length_, most_;  // tokens of a text
};

}  // namespace halfstep
