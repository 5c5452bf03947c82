// From a stream of tokens to batches: windows of the stream, and what is to be predicted in them.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/token_file.h"
#include "program/program.h"

namespace halfstep {

enum class Objective : uint8_t {
  labels,        // the data set has them
  next_token,    // each position's label is the token after it
  masked_token,  // some tokens are hidden, and are the labels (Devlin et al. 2018)
};

// The input of the tokens that are to be predicted.
inline constexpr const char* kTokenLabels = "labels";
// Labels of positions where nothing is to be predicted.
inline constexpr int64_t kUncounted = -100;

struct TokenObjective {
  Objective kind = Objective::labels;
  std::string ids;         // the input that takes the tokens; empty: the only one that can
  int64_t vocabulary = 0;  // masked_token: random tokens are below it
  // masked_token: of the chosen positions 8 in 10 become `mask_token`, 1 in 10 a random token, and the rest stay.
  int64_t mask_token = 0;
  double mask_probability = 0.15;
  int64_t first_special = 0, last_special = -1;  // tokens that are never chosen; an empty range: any may be
};

// What a mean loss over tokens says.
struct TokenMeasures {
  double perplexity = 0;
  double per_second = 0;                  // tokens
  std::optional<double> bits_per_byte{};  // of text
};

struct InputPlace {
  const Buffer* buffer = nullptr;
  size_t input = 0;  // index among the program's inputs
};

// A sample is a window, and its number the position of its first token in the file.
class TokenFeed {
 public:
  // Throws Error where `ids` and `labels` are not both integers [batch, length], or the stream has no window.
  TokenFeed(TokenSpan tokens, const InputPlace& ids, const InputPlace& labels, const TokenObjective& objective);

  int64_t batch() const { return batch_; }
  int64_t length() const { return length_; }  // of a window
  int64_t samples() const;                    // windows side by side
  std::vector<int64_t> stored_order() const;
  // All windows in a new order, the whole grid of them shifted by less than a window: depends on (seed, epoch) alone.
  std::vector<int64_t> shuffled_order(uint64_t seed, int64_t epoch) const;
  TokenMeasures measure(double loss, double samples_per_second) const;
  // Masks are drawn by (seed, iteration).
  void fill(std::span<const int64_t> samples, uint64_t seed, int64_t iteration,
            std::span<const std::span<std::byte>> staging) const;

 private:
  int64_t last_start() const;
  void hide(std::span<int64_t> ids, std::span<int64_t> labels, int64_t row, uint64_t seed, int64_t iteration) const;

  TokenSpan tokens_;
  TokenObjective objective_;
  size_t ids_input_, labels_input_;
  DType ids_type_, labels_type_;
  int64_t batch_, length_;
  int64_t ahead_;  // tokens that a window reads behind its end
};

}  // namespace halfstep
