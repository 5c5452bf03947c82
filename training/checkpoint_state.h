// An executor's state as tensors by name, independent of the device and of the order of the arenas.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/executor.h"

namespace halfstep {

struct ModelState {
  // Parameters and non-trainable tensors in the ONNX layout under their ONNX names.
  FileTensors weights;
  // "<arena>/<parameter>", such as "momentum/fc1.weight", in the ONNX layout; the optimizer's and the loss scale's own
  // ("adam.step", "loss_scale.scale") as they are.
  FileTensors slots;
};

// The tensors of ModelState::weights: the trainable ones in the order of the arenas, then the others by name.
struct WeightTensor {
  std::string name;
  TensorType type;  // in the ONNX layout
  enum Kind : uint8_t { trainable, fixed } kind = trainable;
};
std::vector<WeightTensor> weights_of(const CompiledModel& model);

// The weights as the last step left them, or their running mean (recipe key ema) where there is one.
enum class WeightsKind : uint8_t { last, average };
bool has_average(const ModelState& state);
FileTensors weights_of(ModelState state, WeightsKind kind);

// ModelState::weights alone. Waits for the device.
FileTensors read_weights(Executor& executor);

// Low copies ("parameters.f16") are left out: they follow from their base arena. Waits for the device.
ModelState read_model_state(Executor& executor);

// The program of a step that leaves the gradients of one batch, and changes nothing else; not every step has it.
inline constexpr std::string_view kGradientsProgram = "gradients";
// What it left, by parameter in the ONNX layout: unscaled, in f32. Waits for the device.
FileTensors read_gradients(Executor& executor);

// Replaces all of the state and rebuilds the low copies. Throws Error, every problem listed and each line beginning
// with `where`, before anything is written: a tensor is missing, is left over, or has another type or shape.
void write_model_state(Executor& executor, const ModelState& state, const std::string& where);

// Calls `run` with the running mean in the weights' place, where the model has one and a step has made it; the weights
// are then what they were, bit for bit. Waits for the device.
void with_average(Executor& executor, const std::function<void()>& run);

// The same for the weights alone; slots keep what they hold.
void write_weights(Executor& executor, const FileTensors& weights, const std::string& where);

}  // namespace halfstep
