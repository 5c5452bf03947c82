#include "data/sample_order.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <numeric>
#include <utility>

#include "base/philox.h"

namespace halfstep {
namespace {

// Keeps the data order's random numbers apart from those of the graph, which use the seed itself as the key.
constexpr uint64_t kOrderKey = 0x6f72646572206f66, kClassKey = 0x636c617373206f66, kGroupKey = 0x67726f7570206f66;

}  // namespace

std::vector<int64_t> stored_order(int64_t samples) {
  std::vector<int64_t> order(static_cast<size_t>(samples));
  std::iota(order.begin(), order.end(), int64_t{0});
  return order;
}

std::vector<int64_t> epoch_order(uint64_t seed, int64_t epoch, int64_t samples) {
  std::vector<int64_t> order = stored_order(samples);
  const uint32_t epoch_low = static_cast<uint32_t>(epoch), epoch_high = static_cast<uint32_t>(epoch >> 32);
  for (uint64_t i = order.size(); i-- > 1;) {
    const PhiloxBlock block =
        philox({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), epoch_low, epoch_high}, seed ^ kOrderKey);
    const uint64_t word = uint64_t{block[1]} << 32 | block[0];
    // The high half of a 128-bit product maps the word to [0, i]; its bias is below 2^-32 for any real data set.
    const auto j = static_cast<uint64_t>(static_cast<unsigned __int128>(word) * (i + 1) >> 64);
    std::swap(order[i], order[j]);
  }
  return order;
}

std::vector<int64_t> balanced_order(uint64_t seed, int64_t epoch, std::span<const int64_t> class_of_sample) {
  std::map<int64_t, std::vector<int64_t>> by_class;
  for (size_t i = 0; i < class_of_sample.size(); ++i) by_class[class_of_sample[i]].push_back(static_cast<int64_t>(i));
  const auto samples = static_cast<int64_t>(class_of_sample.size()), classes = static_cast<int64_t>(by_class.size());
  std::vector<int64_t> drawn;
  drawn.reserve(class_of_sample.size());
  // Which classes get one of the samples that do not divide among all changes with the epoch.
  int64_t place = classes == 0 ? 0 : epoch % classes;
  for (const auto& [label, members] : by_class) {
    const auto size = static_cast<int64_t>(members.size());
    int64_t wanted = samples / classes + (place < samples % classes ? 1 : 0);
    place = (place + 1) % classes;
    // An order of its own for each class and each time that all of it was seen.
    for (int64_t round = 0; wanted > 0; ++round) {
      const uint64_t key = seed ^ kClassKey ^ static_cast<uint64_t>(label) * 0x9e3779b97f4a7c15u;
      const std::vector<int64_t> order = epoch_order(key + static_cast<uint64_t>(round), epoch, size);
      for (int64_t i = 0; i < size && wanted > 0; ++i, --wanted)
        drawn.push_back(members[static_cast<size_t>(order[static_cast<size_t>(i)])]);
    }
  }
  const std::vector<int64_t> order = epoch_order(seed, epoch, samples);
  std::vector<int64_t> mixed;
  mixed.reserve(drawn.size());
  for (const int64_t i : order) mixed.push_back(drawn[static_cast<size_t>(i)]);
  return mixed;
}

std::vector<int64_t> grouped_order(uint64_t seed, int64_t epoch, std::span<const int64_t> group_of_sample,
                                   int64_t stretch) {
  std::vector<size_t> begins;
  for (size_t i = 0; i < group_of_sample.size(); ++i)
    if (i == 0 || group_of_sample[i] != group_of_sample[i - 1]) begins.push_back(i);
  std::vector<int64_t> order;
  order.reserve(group_of_sample.size());
  for (const int64_t group : epoch_order(seed ^ kGroupKey, epoch, static_cast<int64_t>(begins.size()))) {
    const size_t begin = begins[static_cast<size_t>(group)];
    const size_t end = static_cast<size_t>(group) + 1 < begins.size() ? begins[static_cast<size_t>(group) + 1]
                                                                      : group_of_sample.size();
    for (size_t i = begin; i < end; ++i) order.push_back(static_cast<int64_t>(i));
  }
  const auto samples = static_cast<int64_t>(order.size());
  std::vector<int64_t> mixed(order.size());
  for (int64_t begin = 0; begin < samples; begin += stretch) {
    const int64_t count = std::min(stretch, samples - begin);
    const std::vector<int64_t> inside = epoch_order(seed + static_cast<uint64_t>(begin), epoch, count);
    for (int64_t i = 0; i < count; ++i)
      mixed[static_cast<size_t>(begin + i)] = order[static_cast<size_t>(begin + inside[static_cast<size_t>(i)])];
  }
  return mixed;
}

}  // namespace halfstep
