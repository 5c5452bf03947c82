#include "compiler/inspect/weight_ranges.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "ir/op.h"

namespace halfstep {
namespace {

// The largest finite number, the smallest normal one, and the largest that becomes 0.
struct LowRange {
  float largest, normal, zero;
};
LowRange range_of(DType low) {
  if (low == DType::bf16) return {0x1.fep127F, 0x1p-126F, 0x1p-134F};
  return {65504.0F, 0x1p-14F, 0x1p-25F};
}

WeightRange measure(const std::string& name, std::span<const float> values, DType low) {
  const LowRange range = range_of(low);
  // Half an ulp beyond the largest is infinity.
  const float beyond = low == DType::bf16 ? 0x1.ffp127F : 65520.0F;
  std::atomic<int64_t> overflow = 0, underflow = 0, subnormal = 0;
  std::atomic<float> largest = 0;
  parallel_stretches(static_cast<int64_t>(values.size()), [&](int64_t begin, int64_t end) {
    int64_t over = 0, under = 0, all_small = 0;
    float most = 0;
    for (int64_t i = begin; i < end; ++i) {
      const float v = std::fabs(values[static_cast<size_t>(i)]);
      over += v >= beyond;
      under += v > 0 && v <= range.zero;
      all_small += v > 0 && v < range.normal;
      most = v > most ? v : most;
    }
    overflow += over, underflow += under, subnormal += all_small - under;
    for (float seen = largest; seen < most && !largest.compare_exchange_weak(seen, most);) {
    }
  });
  return {name, static_cast<int64_t>(values.size()), overflow, underflow, subnormal, largest};
}

}  // namespace

std::vector<WeightRange> weight_ranges(const ImportedModel& model, DType low, std::string& unknown) {
  std::vector<WeightRange> ranges;
  for (const Node& node : model.graph.nodes()) {
    if (node.op->leaf != Leaf::parameter) continue;
    const std::string& name = node.attributes.text("name");
    const auto reader = model.weight_readers.find(name);
    if (reader == model.weight_readers.end()) continue;
    try {
      const Tensor tensor = reader->second();
      ranges.push_back(measure(name, tensor.as<float>(), low));
    } catch (const Error& e) {
      if (unknown.empty()) unknown = e.what();
    }
  }
  const auto beyond = [](const WeightRange& w) { return w.overflow > 0 ? 0 : w.underflow > 0 ? 1 : 2; };
  std::ranges::stable_sort(ranges, {}, beyond);
  return ranges;
}

}  // namespace halfstep
