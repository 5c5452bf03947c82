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

// The IR op `uniform`: element `index` of random site `site` in step `step`. Word 0 of
// philox({index low, index high, site, step}, seed), its upper 24 bits scaled to [0, 1).
constexpr float philox_uniform(uint64_t seed, uint32_t step, uint32_t site, uint64_t index) {
  const PhiloxBlock block =
      philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), site, step}, seed);
  return static_cast<float>(block[0] >> 8) * 0x1p-24f;
}

}  // namespace halfstep
