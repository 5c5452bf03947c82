#include "data/texts.h"

#include <algorithm>

#include "base/error.h"

namespace halfstep {

void TextTokens::add(const std::vector<uint32_t>& text) {
  ids.insert(ids.end(), text.begin(), text.end());
  begins.push_back(ids.size());
}

std::span<const uint32_t> TextSpan::text(int64_t row) const {
  const auto i = static_cast<size_t>(rows[static_cast<size_t>(row)]);
  return std::span(tokens->ids).subspan(tokens->begins[i], tokens->begins[i + 1] - tokens->begins[i]);
}

TextFeed::TextFeed(const TextSpan& texts, const InputPlace& ids, const std::optional<InputPlace>& mask)
    : texts_(texts), ids_(ids), mask_(mask) {
  const TensorType& type = ids.buffer->type;
  if (type.shape.size() != 2 || is_floating(type.dtype))
    throw Error("input '" + ids.buffer->name.text + "': " + to_string(type) +
                " takes no texts, integers [batch, length] do: name the input with ids");
  batch_ = type.shape[0], length_ = type.shape[1];
  if (mask && mask->buffer->type.shape != type.shape)
    throw Error("input '" + mask->buffer->name.text + "': " + to_string(mask->buffer->type) +
                ", expected the shape of '" + ids.buffer->name.text + "', " + to_string(type.shape));
  const Tokenizer& tokenizer = *texts.tokens->tokenizer;
  most_ = length_ - static_cast<int64_t>(tokenizer.before().size() + tokenizer.behind().size());
  if (most_ < 1)
    throw Error("input '" + ids.buffer->name.text + "': " + to_string(type) +
                " has no room for a text beside the tokenizer's own tokens: give more with shape");
}

int64_t TextFeed::cut() const {
  int64_t count = 0;
  for (int64_t row = 0; row < texts_.size(); ++row) count += static_cast<int64_t>(texts_.text(row).size()) > most_;
  return count;
}

void TextFeed::check(int64_t rows) const {
  const Tokenizer& tokenizer = *texts_.tokens->tokenizer;
  int64_t most = tokenizer.padding();
  for (const std::vector<uint32_t>* ids : {&tokenizer.before(), &tokenizer.behind(), &texts_.tokens->ids})
    for (const uint32_t id : *ids) most = std::max(most, int64_t{id});
  if (most >= rows)
    throw Error("the tokenizer makes token " + std::to_string(most) + ", and the model's table for input '" +
                ids_.buffer->name.text + "' has " + std::to_string(rows) + " rows: is it another model's?");
}

void TextFeed::fill(std::span<const int64_t> samples, std::span<const std::span<std::byte>> staging) const {
  const Tokenizer& tokenizer = *texts_.tokens->tokenizer;
  std::vector<uint32_t> row;
  const auto store = [&](const InputPlace& place, int64_t element, double value) {
    const DType type = place.buffer->type.dtype;
    store_from_double(type, staging[place.input].data() + element * size_of(type), value);
  };
  for (int64_t i = 0; i < batch_; ++i) {
    const std::span<const uint32_t> text = texts_.text(samples[std::min(static_cast<size_t>(i), samples.size() - 1)]);
    row = tokenizer.before();
    row.insert(row.end(), text.begin(), text.begin() + std::min(static_cast<int64_t>(text.size()), most_));
    row.insert(row.end(), tokenizer.behind().begin(), tokenizer.behind().end());
    for (int64_t j = 0; j < length_; ++j) {
      const bool stands = j < static_cast<int64_t>(row.size());
      store(ids_, i * length_ + j, stands ? row[static_cast<size_t>(j)] : tokenizer.padding());
      if (mask_) store(*mask_, i * length_ + j, stands ? 1 : 0);
    }
  }
}

}  // namespace halfstep
