// Byte-pair encoding: a word's bytes, whose neighbours are merged, the pair of the lowest rank first.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace halfstep {

class BytePairs {
 public:
  // `ids` of the bytes, by value.
  explicit BytePairs(std::vector<uint32_t> ids) : bytes_(std::move(ids)) {}
  // Pairs are given in the order of their ranks.
  void add(uint32_t left, uint32_t right, uint32_t merged);
  void encode(std::string_view word, std::vector<uint32_t>& to) const;

 private:
  struct Merge {
    uint32_t rank = 0, merged = 0;
  };
  std::vector<uint32_t> bytes_;
  std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace halfstep
