#include "compiler/inspect/weight_ranges.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/parallel.h"
#include "ir/op.h"

namespace halfstep {
namespace {

// The smallest number that becomes infinity, half an ulp beyond the largest; the smallest normal one; the largest that
// becomes 0.
struct LowRange {
  float beyond, normal, zero;
};
LowRange range_of(DType low) {
  if (low == DType::bf16) return {0x1.ffp127F, 0x1p-126F, 0x1p-134F};
  return {65520.0F, 0x1p-14F, 0x1p-25F};
}

WeightRange measure(const std::string& name, std::span<const float> values, DType low) {
  const LowRange range = range_of(low);
  WeightRange found{name, static_cast<int64_t>(values.size())};
  int64_t small = 0;
  float largest = 0;
  for (const float value : values) {
    const float v = std::fabs(value);
    found.overflow += v >= range.beyond;
    found.underflow += v > 0 && v <= range.zero;
    small += v > 0 && v < range.normal;
    largest = v > largest ? v : largest;
  }
  found.subnormal = small - found.underflow, found.largest = largest;
  return found;
}

}  // namespace

std::vector<WeightRange> weight_ranges(const ImportedModel& model, DType low, std::string& unknown) {
  struct Weight {
    const std::string* name;
    const std::function<Tensor()>* read;
    std::optional<WeightRange> range;
    std::string error;
  };
  std::vector<Weight> weights;
  for (const Node& node : model.graph.nodes())
    if (node.op->leaf == Leaf::parameter)
      if (const auto reader = model.weight_readers.find(node.attributes.text("name"));
          reader != model.weight_readers.end())
        weights.push_back({&reader->first, &reader->second, {}, {}});
  parallel_stretches(
      static_cast<int64_t>(weights.size()),
      [&](int64_t begin, int64_t end) {
        for (Weight& weight : std::span(weights).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)))
          try {
            weight.range = measure(*weight.name, (*weight.read)().as<float>(), low);
          } catch (const std::exception& e) {
            weight.error = e.what();
          }
      },
      1);
  std::vector<WeightRange> ranges;
  for (Weight& weight : weights) {
    if (weight.range)
      ranges.push_back(std::move(*weight.range));
    else if (unknown.empty())
      unknown = weight.error;
  }
  const auto beyond = [](const WeightRange& w) { return w.overflow > 0 ? 0 : w.underflow > 0 ? 1 : 2; };
  std::ranges::stable_sort(ranges, {}, beyond);
  return ranges;
}

}  // namespace halfstep
