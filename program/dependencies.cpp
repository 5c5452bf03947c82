// Which steps of a program must wait for which, from the memory they touch.
#include <algorithm>
#include <functional>
#include <map>

#include "program/program_check.h"

namespace halfstep {
namespace {

// The steps that last touched each stretch of one buffer.
class BufferHistory {
 public:
  // Calls `conflict` for each earlier step that this use must wait for.
  void use(size_t step, const MemoryUse& use, const std::function<void(size_t)>& conflict) {
    if (use.bytes == 0) return;
    const int64_t begin = use.ref.offset, end = begin + use.bytes;
    split(begin), split(end);
    const auto first = stretches_.lower_bound(begin), last = stretches_.lower_bound(end);
    for (auto at = first; at != last; ++at) {
      for (size_t writer : at->second.writer) conflict(writer);
      if (use.access == Access::write)
        for (size_t reader : at->second.readers) conflict(reader);
    }
    if (use.access == Access::write) {
      stretches_.erase(first, last);
      stretches_[begin] = {end, {step}, {}};
      return;
    }
    for (auto at = first; at != last; ++at)
      if (at->second.readers.empty() || at->second.readers.back() != step) at->second.readers.push_back(step);
    cover(begin, end, step);
  }

 private:
  struct Stretch {
    int64_t end = 0;
    std::vector<size_t> writer;   // one or none
    std::vector<size_t> readers;  // since then, ascending
  };

  void split(int64_t position) {
    auto at = stretches_.upper_bound(position);
    if (at == stretches_.begin()) return;
    --at;
    if (at->first == position || at->second.end <= position) return;
    Stretch upper = at->second;
    at->second.end = position;
    stretches_.emplace(position, std::move(upper));
  }

  // A range that nobody has touched before is known from here on, too.
  void cover(int64_t begin, int64_t end, size_t reader) {
    for (auto at = stretches_.lower_bound(begin); begin < end; ++at) {
      const int64_t next = at == stretches_.end() ? end : std::min(at->first, end);
      if (begin < next) at = stretches_.emplace_hint(at, begin, Stretch{next, {}, {reader}});
      begin = at->second.end;
    }
  }

  std::map<int64_t, Stretch> stretches_;  // by their begin, disjoint
};

// Which of the latest steps each step comes after already.
class Ancestors {
 public:
  explicit Ancestors(size_t steps) : rows_(steps) {}

  bool comes_after(size_t step, size_t earlier) const {
    const Row& row = rows_[step];
    const size_t word = earlier / kBits;
    return word >= row.first && word - row.first < row.words.size() &&
           (row.words[word - row.first] >> earlier % kBits & 1) != 0;
  }
  void start(size_t step) {
    rows_[step].first = first_word(step);
    rows_[step].words.assign(step / kBits + 1 - rows_[step].first, 0);
    if (step >= kWindow) rows_[step - kWindow] = {};
  }
  void add(size_t step, size_t earlier) {
    Row &row = rows_[step], &other = rows_[earlier];
    if (earlier / kBits < row.first) return;
    row.words[earlier / kBits - row.first] |= uint64_t{1} << earlier % kBits;
    for (size_t word = std::max(row.first, other.first); word < other.first + other.words.size(); ++word)
      row.words[word - row.first] |= other.words[word - other.first];
  }

 private:
  static constexpr size_t kBits = 64, kWindow = 8192;  // what lies further back may be named needlessly
  struct Row {
    size_t first = 0;  // the word of steps that `words` begins with
    std::vector<uint64_t> words;
  };
  static size_t first_word(size_t step) { return step < kWindow ? 0 : (step - kWindow) / kBits + 1; }

  std::vector<Row> rows_;
};

}  // namespace

std::vector<std::vector<size_t>> dependencies(const Program& program) {
  const size_t count = program.steps.size();
  std::vector<std::vector<size_t>> result(count);
  std::map<int32_t, BufferHistory> buffers;
  Ancestors ancestors(count);
  std::vector<size_t> conflicts;
  for (size_t i = 0; i < count; ++i) {
    conflicts.clear();
    const std::vector<MemoryUse> uses = memory_uses(program, program.steps[i]);
    // Reads before writes: a step does not wait for itself.
    for (const Access access : {Access::read, Access::write})
      for (const MemoryUse& use : uses)
        if (use.access == access)
          buffers[use.ref.buffer].use(i, use, [&](size_t step) {
            if (step != i) conflicts.push_back(step);
          });
    std::ranges::sort(conflicts, std::greater());
    conflicts.erase(std::unique(conflicts.begin(), conflicts.end()), conflicts.end());
    ancestors.start(i);
    for (size_t j : conflicts) {
      if (ancestors.comes_after(i, j)) continue;
      result[i].push_back(j);
      ancestors.add(i, j);
    }
  }
  return result;
}

}  // namespace halfstep
