// What convolutions and pools share: window attributes and the way to channels-last and back.
#pragma once

#include "frontend/import/node_context.h"

namespace halfstep {

struct Window {
  Ints size, strides, pads_begin, pads_end, dilations;
  // Positions behind the padding that ceil_mode adds so that the last window fits.
  Ints overhang;
};

// Reads strides, dilations, pads and auto_pad for windows of `size` over `spatial`. ceil_mode is read where `has_ceil`.
enum class CeilMode : uint8_t { absent, attribute };
Window read_window(NodeContext& c, const Shape& spatial, Ints size, CeilMode ceil_mode);

// The geometry of a transposed convolution: the convolution whose input's gradient it is, and its output's spatial
// axes. Explicit output shapes can make paddings negative.
struct TransposedWindow {
  Window window;
  Shape output;
};
TransposedWindow read_transposed_window(NodeContext& c, const Shape& spatial, Ints size);

// [N, C, spatial...] to [N, spatial..., C] and back; adjacent ones cancel. Filters [O, I, window...] go the same way.
Value to_channels_last(Builder& b, Value v);
Value to_channels_first(Builder& b, Value v);
// The axes behind N and C.
Shape spatial_shape(NodeContext& c, const Shape& channels_first);

}  // namespace halfstep
