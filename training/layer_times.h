// What each layer of a model takes of a training step: its calls timed by themselves, under the user's node names.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "runtime/executor.h"

namespace halfstep {

// The file in a run's directory, and what it begins with.
inline constexpr std::string_view kLayerTimesFile = "layers.json", kLayerTimesMark = "{\"layers\":[";

// In microseconds. Calls that compute several nodes at once are a row of their own, "conv1 + relu1"; what belongs to no
// node of the file is "".
struct LayerTime {
  std::string layer;
  std::string scope = {};  // the modules that it stands in, "encoder/layer.0", where they are known
  int64_t calls = 0;
  double forward = 0, backward = 0, update = 0;
  double total() const { return forward + backward + update; }
};

// Calls by the node that they compute, what takes most first.
std::vector<LayerTime> by_layer(std::span<const StepTime> calls);
// Of program "train", on inputs of chance; the state is restored. Some seconds' worth at most, but three times at
// least.
std::vector<LayerTime> time_layers(Executor& executor, double learning_rate);
void write_layer_times(const std::filesystem::path& file, const std::vector<LayerTime>& layers);

}  // namespace halfstep
