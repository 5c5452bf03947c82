#include "data/sample_order.h"

#include <cstddef>
#include <numeric>
#include <utility>

#include "base/philox.h"

namespace halfstep {
namespace {

// Keeps the data order's random numbers apart from those of the graph, which use the seed itself as the key.
constexpr uint64_t kOrderKey = 0x6f72646572206f66;

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

}  // namespace halfstep
