// The order in which samples are used.
#pragma once

#include <cstdint>
#include <vector>

namespace halfstep {

enum class SampleOrder : uint8_t {
  shuffled,   // anew each epoch, by the seed
  as_stored,  // for comparisons on the same batches
};

std::vector<int64_t> stored_order(int64_t samples);  // 0, 1, ...
// A permutation of [0, samples) that depends on (seed, epoch) alone, the same on every machine.
std::vector<int64_t> epoch_order(uint64_t seed, int64_t epoch, int64_t samples);

}  // namespace halfstep
