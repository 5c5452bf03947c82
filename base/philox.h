// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): the same on every device and in any order.
#pragma once

#include <array>
#include <cstdint>

namespace halfstep {

using PhiloxBlock = std::array<uint32_t, 4>;

// Four random words for one 128-bit counter and one 64-bit key. 10 rounds.
constexpr PhiloxBlock philox(PhiloxBlock counter, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

constexpr PhiloxBlock philox_at(uint64_t seed, uint32_t step, uint32_t site, uint64_t index) {
  return philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), site, step}, seed);
}

// In [0, 1): the upper 24 bits of a word.
constexpr float unit_interval(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// The IR op `uniform`: element `index` of random site `site` in step `step`. Four neighbours share a block: word
// index % 4 of philox({(index / 4) low, (index / 4) high, site, step}, seed).
constexpr float philox_element(uint64_t seed, uint32_t step, uint32_t site, uint64_t index) {
  return unit_interval(philox_at(seed, step, site, index / 4)[index % 4]);
}

// A block for each number: what the tensors of tests and recorded references are made of (models/philox.py).
constexpr float philox_uniform(uint64_t seed, uint32_t step, uint32_t site, uint64_t index) {
  return unit_interval(philox_at(seed, step, site, index)[0]);
}

}  // namespace halfstep
