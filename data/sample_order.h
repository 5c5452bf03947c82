// The order in which samples are used.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace halfstep {

enum class SampleOrder : uint8_t {
  shuffled,   // anew each epoch, by the seed
  as_stored,  // for comparisons on the same batches
  balanced,   // anew each epoch, with as many samples of each class
};

std::vector<int64_t> stored_order(int64_t samples);  // 0, 1, ...
// A permutation of [0, samples) that depends on (seed, epoch) alone, the same on every machine.
std::vector<int64_t> epoch_order(uint64_t seed, int64_t epoch, int64_t samples);
// As many samples as there are, the same number of each class to one, in a new order that depends on (seed, epoch) and
// the classes alone. Those of a class that is seldom come several times, all of them once before one comes again; of
// one that is frequent each epoch sees others.
std::vector<int64_t> balanced_order(uint64_t seed, int64_t epoch, std::span<const int64_t> class_of_sample);

// A permutation for samples that lie in groups, near one another on a disk: the groups, runs of equal numbers, in a new
// order, and the samples mixed in stretches of `stretch`.
std::vector<int64_t> grouped_order(uint64_t seed, int64_t epoch, std::span<const int64_t> group_of_sample,
                                   int64_t stretch);

}  // namespace halfstep
