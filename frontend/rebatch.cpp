#include "frontend/rebatch.h"

#include <algorithm>

namespace halfstep {
namespace {

bool same_ratio(int64_t exported, int64_t now, Batch batch) {
  return static_cast<__int128>(exported) * batch.wanted == static_cast<__int128>(now) * batch.exported;
}

// The axis whose size follows the batch, if there is exactly one and nothing else changed.
std::optional<size_t> batch_axis(const Shape& exported, const Shape& now, Batch batch) {
  std::optional<size_t> axis;
  for (size_t i = 0; i < exported.size(); ++i) {
    if (exported[i] == now[i]) continue;
    if (axis || !same_ratio(exported[i], now[i], batch)) return std::nullopt;
    axis = i;
  }
  return axis;
}

}  // namespace

std::optional<Shape> follow_batch(const Shape& exported_in, const Shape& in, const Shape& exported_out, Batch batch) {
  if (exported_in == in) return exported_out;
  if (exported_in.size() != in.size()) return std::nullopt;
  const std::optional<size_t> axis = batch_axis(exported_in, in, batch);
  if (!axis || std::find(in.begin(), in.end(), 0) != in.end()) return std::nullopt;
  // The result must have a boundary between axes where the batch begins in the operand.
  int64_t before = 1, covered = 1;
  for (size_t i = 0; i < *axis; ++i) before *= exported_in[i];
  size_t at = 0;
  while (at < exported_out.size() && covered != before) covered *= exported_out[at++];
  if (covered != before) return std::nullopt;
  size_t ones = 0;
  while (at + ones < exported_out.size() && exported_out[at + ones] == 1) ++ones;
  if (batch.exported > 1 || ones == 0)
    at += ones;
  else if (ones > 1) {  // a batch of 1 could be any of these axes: only the place it had is sure
    if (exported_in[*axis] != 1 || *axis < at || *axis >= at + ones) return std::nullopt;
    at = *axis;
  }
  if (at == exported_out.size() || exported_out[at] % batch.exported != 0) return std::nullopt;
  Shape out = exported_out;
  out[at] = out[at] / batch.exported * batch.wanted;
  return out;
}

}  // namespace halfstep
