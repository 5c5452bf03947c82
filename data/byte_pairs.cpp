#include "data/byte_pairs.h"

#include <functional>
#include <queue>
#include <tuple>

namespace halfstep {
namespace {

uint64_t pair_of(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }
constexpr size_t kNone = static_cast<size_t>(-1);

}  // namespace

void BytePairs::add(uint32_t left, uint32_t right, uint32_t merged) {
  merges_.try_emplace(pair_of(left, right), Merge{static_cast<uint32_t>(merges_.size()), merged});
}

void BytePairs::encode(std::string_view word, std::vector<uint32_t>& to) const {
  struct Part {
    uint32_t id;
    size_t before, behind;
    bool gone = false;
  };
  // Rank, place of the left one, and the pair as it was then: what has changed since is passed over.
  using Candidate = std::tuple<uint32_t, size_t, uint64_t, uint32_t>;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  std::vector<Part> parts;
  parts.reserve(word.size());
  for (size_t i = 0; i < word.size(); ++i)
    parts.push_back(
        {bytes_[static_cast<uint8_t>(word[i])], i == 0 ? kNone : i - 1, i + 1 < word.size() ? i + 1 : kNone});
  const auto consider = [&](size_t left) {
    if (left == kNone || parts[left].behind == kNone) return;
    const uint64_t pair = pair_of(parts[left].id, parts[parts[left].behind].id);
    if (const auto merge = merges_.find(pair); merge != merges_.end())
      candidates.emplace(merge->second.rank, left, pair, merge->second.merged);
  };
  for (size_t i = 0; i < parts.size(); ++i) consider(i);
  while (!candidates.empty()) {
    const auto [rank, left, pair, merged] = candidates.top();
    candidates.pop();
    const size_t right = parts[left].behind;
    if (parts[left].gone || right == kNone || pair_of(parts[left].id, parts[right].id) != pair) continue;
    parts[left].id = merged;
    parts[left].behind = parts[right].behind;
    parts[right].gone = true;
    if (parts[left].behind != kNone) parts[parts[left].behind].before = left;
    consider(parts[left].before);
    consider(left);
  }
  for (const Part& part : parts)
    if (!part.gone) to.push_back(part.id);
}

}  // namespace halfstep
