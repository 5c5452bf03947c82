// Between the IR's channels-last tensors and those of ONNX's spatial operators.
#pragma once

#include "frontend/export/onnx_builder.h"
#include "ir/ops/families.h"

namespace halfstep {

// [N, spatial..., C] -> [N, C, spatial...]
inline OnnxValue channels_first(OnnxBuilder& onnx, const OnnxValue& v) {
  const auto rank = static_cast<int64_t>(v.type.shape.size());
  Ints permutation{0, rank - 1};
  for (int64_t axis = 1; axis + 1 < rank; ++axis) permutation.push_back(axis);
  return onnx.transpose(v, permutation);
}

// [N, C, spatial...] -> [N, spatial..., C]
inline OnnxValue channels_last(OnnxBuilder& onnx, const OnnxValue& v) {
  const auto rank = static_cast<int64_t>(v.type.shape.size());
  Ints permutation{0};
  for (int64_t axis = 2; axis < rank; ++axis) permutation.push_back(axis);
  permutation.push_back(1);
  return onnx.transpose(v, permutation);
}

inline Ints onnx_pads(const ops::WindowGeometry& g) {
  Ints pads = g.pads_begin;
  pads.insert(pads.end(), g.pads_end.begin(), g.pads_end.end());
  return pads;
}

// What a transposed convolution from `output` (channels-last) lacks behind to give `input`.
inline Ints output_padding(const ops::WindowGeometry& g, const Shape& input, const Shape& output) {
  Ints padding;
  for (size_t i = 0; i < g.window.size(); ++i)
    padding.push_back(input[i + 1] + g.pads_begin[i] + g.pads_end[i] - (g.window[i] - 1) * g.dilations[i] - 1 -
                      (output[i + 1] - 1) * g.strides[i]);
  return padding;
}

}  // namespace halfstep
