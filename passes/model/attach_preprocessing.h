// Lets an image input take the bytes of the data set: the model's f32 input becomes a u8 one, and the graph converts
// it.
//
//   %x = input() {name="image"} : f32[128,1,28,28]
// becomes
//   %u = input() {name="image"} : u8[128,1,28,28]
//   %x = cast(%u) * (scale / std) - mean / std        (per channel)
//
// Runs first, so that layout choice, autocast and fusion see the conversion: a quarter of the bytes cross the bus, and
// the first convolution's operand is made in one kernel. Leaves every other input alone.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

struct PreprocessingOptions {
  std::string input;         // empty: the model's only input
  double scale = 1.0 / 255;  // applied before mean and std
  std::vector<double> mean;  // one value, or one a channel; empty: 0
  std::vector<double> std;   // likewise; empty: 1
  size_t channel_axis = 1;
};

// Error if the input is missing or not f32, or a list does not fit its channels.
Graph attach_preprocessing(const Graph& graph, const PreprocessingOptions& options);

}  // namespace halfstep
