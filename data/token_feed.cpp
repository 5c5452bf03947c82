#include "data/token_feed.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/philox.h"
#include "data/sample_order.h"

namespace halfstep {
namespace {

// Keep these random numbers apart from those of the graph and of the samples' order.
constexpr uint64_t kMaskKey = 0x6b73616d20656874, kShiftKey = 0x7466696873206568;

uint64_t below(uint64_t limit, uint32_t low, uint32_t high) {
  const uint64_t word = uint64_t{high} << 32 | low;
  return static_cast<uint64_t>(static_cast<unsigned __int128>(word) * limit >> 64);
}

double unit(uint32_t word) { return static_cast<double>(word) * 0x1p-32; }

void store_all(DType type, std::span<const int64_t> values, std::byte* to) {
  for (size_t i = 0; i < values.size(); ++i)
    store_from_double(type, to + i * static_cast<size_t>(size_of(type)), static_cast<double>(values[i]));
}

}  // namespace

TokenFeed::TokenFeed(TokenSpan tokens, const InputPlace& ids, const InputPlace& labels, const TokenObjective& objective)
    : tokens_(std::move(tokens)),
      objective_(objective),
      ids_input_(ids.input),
      labels_input_(labels.input),
      ids_type_(ids.buffer->type.dtype),
      labels_type_(labels.buffer->type.dtype),
      ahead_(objective.kind == Objective::next_token ? 1 : 0) {
  const TensorType &taken = ids.buffer->type, &predicted = labels.buffer->type;
  if (taken.shape.size() != 2 || is_floating(taken.dtype))
    throw Error("input '" + ids.buffer->name.text + "': " + to_string(taken) +
                " cannot take tokens, integers [batch, length] can: name the input with ids");
  if (predicted.shape != taken.shape || is_floating(predicted.dtype))
    throw Error("the model takes tokens " + to_string(taken) + ", but its loss compares with " + to_string(predicted) +
                ": the token objectives need an output with one prediction for each token");
  batch_ = taken.shape[0], length_ = taken.shape[1];
  if (tokens_.size() < length_ + ahead_)
    throw Error("token file " + tokens_.file->name() + ": " + std::to_string(tokens_.size()) +
                " tokens, but one window takes " + std::to_string(length_ + ahead_) +
                ": give more text, or a shorter length with --shape");
}

int64_t TokenFeed::last_start() const { return tokens_.end - length_ - ahead_; }

int64_t TokenFeed::samples() const { return (tokens_.size() - ahead_) / length_; }

std::vector<int64_t> TokenFeed::stored_order() const {
  std::vector<int64_t> order = halfstep::stored_order(samples());
  for (int64_t& start : order) start = tokens_.begin + start * length_;
  return order;
}

std::vector<int64_t> TokenFeed::shuffled_order(uint64_t seed, int64_t epoch) const {
  std::vector<int64_t> order = epoch_order(seed, epoch, samples());
  const PhiloxBlock block =
      philox({0, 0, static_cast<uint32_t>(epoch), static_cast<uint32_t>(epoch >> 32)}, seed ^ kShiftKey);
  const auto shift = static_cast<int64_t>(below(static_cast<uint64_t>(length_), block[0], block[1]));
  // What the shift pushes over the end overlaps its neighbour instead.
  for (int64_t& start : order) start = std::min(tokens_.begin + start * length_ + shift, last_start());
  return order;
}

TokenMeasures TokenFeed::measure(double loss, double samples_per_second) const {
  TokenMeasures measures{std::exp(loss), samples_per_second * static_cast<double>(length_), std::nullopt};
  if (const double bytes = tokens_.file->bytes_per_token(); bytes > 0)
    measures.bits_per_byte = loss / std::numbers::ln2 / bytes;
  return measures;
}

void TokenFeed::hide(std::span<int64_t> ids, std::span<int64_t> labels, int64_t row, uint64_t seed,
                     int64_t iteration) const {
  constexpr double kMasked = 0.8, kRandom = 0.9;
  for (size_t i = 0; i < ids.size(); ++i) {
    labels[i] = kUncounted;
    if (ids[i] >= objective_.first_special && ids[i] <= objective_.last_special) continue;
    const uint64_t element = static_cast<uint64_t>(row * length_) + i;
    const PhiloxBlock block = philox({static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32),
                                      static_cast<uint32_t>(iteration), static_cast<uint32_t>(iteration >> 32)},
                                     seed ^ kMaskKey);
    // The block's words decide: whether, how, and (two of them) with which token.
    if (unit(block[0]) >= objective_.mask_probability) continue;
    labels[i] = ids[i];
    if (const double how = unit(block[1]); how < kMasked) {
      ids[i] = objective_.mask_token;
    } else if (how < kRandom) {
      ids[i] = static_cast<int64_t>(below(static_cast<uint64_t>(objective_.vocabulary), block[2], block[3]));
    }
  }
}

void TokenFeed::fill(std::span<const int64_t> samples, uint64_t seed, int64_t iteration,
                     std::span<const std::span<std::byte>> staging) const {
  std::vector<int64_t> window(static_cast<size_t>(length_ + ahead_)), hidden(static_cast<size_t>(length_));
  const auto length = static_cast<size_t>(length_);
  for (int64_t row = 0; row < batch_; ++row) {
    tokens_.file->read(samples[std::min(static_cast<size_t>(row), samples.size() - 1)], window);
    const std::span<int64_t> ids = std::span(window).first(length);
    std::span<int64_t> labels = std::span(window).last(length);
    if (objective_.kind == Objective::masked_token) {
      labels = hidden;
      hide(ids, labels, row, seed, iteration);
    }
    const auto place = [&](size_t input, DType type) { return staging[input].data() + row * length_ * size_of(type); };
    store_all(ids_type_, ids, place(ids_input_, ids_type_));
    store_all(labels_type_, labels, place(labels_input_, labels_type_));
  }
}

}  // namespace halfstep
