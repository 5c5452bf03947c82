// Hugging Face's tokenizer.json, of two kinds: byte-level BPE (GPT-2, RoBERTa) and WordPiece (BERT).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace halfstep {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // The tokens of a text, without those that a post-processor puts around it.
  virtual std::vector<uint32_t> encode(std::string_view text) const = 0;
  // Those before and behind a text: [CLS] and [SEP].
  const std::vector<uint32_t>& before() const { return before_; }
  const std::vector<uint32_t>& behind() const { return behind_; }
  uint32_t padding() const { return padding_; }
  int64_t vocabulary() const { return vocabulary_; }  // ids are below it

 protected:
  std::vector<uint32_t> before_, behind_;
  uint32_t padding_ = 0;
  int64_t vocabulary_ = 0;
};

// Error naming the file, and the part of it that is of another kind.
std::shared_ptr<const Tokenizer> read_tokenizer(const std::filesystem::path& path);

// The parts of GPT-2's pattern: contractions, letters, numbers and others with the space before them, spaces.
std::vector<std::string_view> split_as_gpt2(std::string_view text);

}  // namespace halfstep
