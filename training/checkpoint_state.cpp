#include "training/checkpoint_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/optimizers.h"
#include "program/initial_state.h"

namespace halfstep {
namespace {

struct StateBuffer {
  Name name;
  TensorType type;
  enum class Kind : uint8_t { parameters, slot_arena, low_copy, weight, slot } kind = Kind::weight;
  Name base;  // of a low copy
};
using Kind = StateBuffer::Kind;

bool is_arena(const CompiledModel& model, const Name& state) {
  return std::ranges::find(model.arenas, state) != model.arenas.end();
}

StateBuffer state_buffer(const CompiledModel& model, const Buffer& buffer) {
  const std::optional<Name> base = base_of_low_copy(model, buffer.name);
  const Kind kind = base                             ? Kind::low_copy
                    : buffer.name == kParameterArena ? Kind::parameters
                    : is_arena(model, buffer.name)   ? Kind::slot_arena
                    : buffer.name.is(Role::slot)     ? Kind::slot
                                                     : Kind::weight;
  return {buffer.name, buffer.type, kind, base.value_or(Name())};
}

// Every state buffer once, low copies after their bases. What a batch's gradients leave for their reader is no state of
// the model.
std::vector<StateBuffer> state_buffers(const CompiledModel& model) {
  std::vector<StateBuffer> buffers, copies;
  std::set<Name> seen;
  for (const Program& program : model.programs) {
    if (program.name == kGradientsProgram) continue;
    for (const Buffer& buffer : program.buffers) {
      if (buffer.kind != BufferKind::state || buffer.name.is(Role::transient) || !seen.insert(buffer.name).second)
        continue;
      StateBuffer state = state_buffer(model, buffer);
      (state.kind == Kind::low_copy ? copies : buffers).push_back(std::move(state));
    }
  }
  buffers.insert(buffers.end(), copies.begin(), copies.end());
  return buffers;
}

std::string slot_name(const StateBuffer& arena, const ParameterSlice& slice) {
  return arena.kind == Kind::parameters ? slice.name : fmt::format("{}/{}", arena.name.text, slice.name);
}

Shape onnx_shape(const ParameterSlice& slice) {
  Shape shape = slice.shape;
  for (size_t i = 0; i < slice.permutation.size(); ++i)
    shape[static_cast<size_t>(slice.permutation[i])] = slice.shape[i];
  return shape;
}

Tensor to_onnx_layout(const Tensor& arena, const ParameterSlice& slice) {
  Tensor stored(TensorType{arena.type.dtype, slice.shape});
  const int64_t size = size_of(arena.type.dtype);
  require(slice.offset >= 0 && slice.offset + stored.type.element_count() <= arena.type.element_count(),
          "a parameter lies inside the arena");
  std::memcpy(stored.data.data(), arena.data.data() + slice.offset * size, stored.data.size());
  if (slice.permutation.empty()) return stored;
  std::vector<int64_t> inverse(slice.permutation.size());
  for (size_t i = 0; i < inverse.size(); ++i)
    inverse[static_cast<size_t>(slice.permutation[i])] = static_cast<int64_t>(i);
  return stored.transpose(inverse);
}

void to_arena(const Tensor& onnx, const ParameterSlice& slice, Tensor& arena) {
  const Tensor stored = slice.permutation.empty() ? onnx : onnx.transpose(slice.permutation);
  require(slice.offset >= 0 && slice.offset + stored.type.element_count() <= arena.type.element_count(),
          "a parameter lies inside the arena");
  std::memcpy(arena.data.data() + slice.offset * size_of(arena.type.dtype), stored.data.data(), stored.data.size());
}

// Collects the new contents of state buffers from tensors by name and finds everything that does not fit.
class Restore {
 public:
  Restore(const CompiledModel& model, const std::string& where) : model_(model), where_(where) {}

  void take(const StateBuffer& buffer, const FileTensors& tensors) {
    if ((buffer.name == kAverageArena || buffer.name == kAverageCount) && !holds_average(tensors)) {
      contents_.emplace(buffer.name, Tensor(buffer.type));  // a run may begin it later: the next step does
    } else if (buffer.kind == Kind::parameters || buffer.kind == Kind::slot_arena) {
      Tensor arena(buffer.type);
      for (const ParameterSlice& slice : model_.parameters)
        if (const Tensor* t = find(tensors, slot_name(buffer, slice), {buffer.type.dtype, onnx_shape(slice)}))
          to_arena(*t, slice, arena);
      contents_.emplace(buffer.name, std::move(arena));
    } else if (buffer.kind == Kind::low_copy) {
      if (const auto base = contents_.find(buffer.base); base != contents_.end())
        contents_.emplace(buffer.name, base->second.cast(buffer.type.dtype));
    } else if (is_left_out(buffer, tensors)) {
      contents_.emplace(buffer.name, model_.state.at(buffer.name));
    } else if (const Tensor* t = find(tensors, buffer.name.text, buffer.type)) {
      contents_.emplace(buffer.name, is_hysteresis(buffer.name) ? at_most_the_models(buffer.name, *t) : *t);
    }
  }

  void refuse_unused(const FileTensors& tensors) {
    for (const auto& [name, unused] : tensors)
      if (!used_.contains(name) && !is_hysteresis({Role::slot, name}) && !is_of_average(name))
        problems_.add(where_ + ": it holds '" + name +
                      "', which this model does not have: was it another model or optimizer?");
  }

  void write(Executor& executor) {
    problems_.throw_if_any();
    for (const auto& [name, value] : contents_) executor.write_state(name, value);
  }

 private:
  static bool is_hysteresis(const Name& name) {
    return name == kLossScaleHysteresis || is_of_a_loss(name, kLossScaleHysteresis);
  }
  // A run may go on with the running mean of weights, and without.
  static bool is_of_average(const std::string& name) {
    return name == kAverageCount.text || name.starts_with(std::string(kAverageArena.text) + "/");
  }
  static bool holds_average(const FileTensors& tensors) {
    return std::ranges::any_of(tensors, [](const auto& entry) { return is_of_average(entry.first); });
  }

  // A run may go on with hysteresis, and without.
  bool is_left_out(const StateBuffer& buffer, const FileTensors& tensors) const {
    return is_hysteresis(buffer.name) && !tensors.contains(buffer.name.text) && model_.state.contains(buffer.name);
  }

  // A run that goes on may spare fewer overflows.
  Tensor at_most_the_models(const Name& state, const Tensor& left) const {
    const auto most = model_.state.find(state);
    return most != model_.state.end() && most->second.at(0) < left.at(0) ? most->second : left;
  }

  const Tensor* find(const FileTensors& tensors, const std::string& name, const TensorType& type) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      problems_.add(where_ + ": '" + name + "' " + to_string(type) + " is missing");
      return nullptr;
    }
    used_.insert(name);
    if (found->second.type == type) return &found->second;
    problems_.add(where_ + ": '" + name + "': expected " + to_string(type) + ", found " +
                  to_string(found->second.type));
    return nullptr;
  }

  const CompiledModel& model_;
  const std::string& where_;
  Problems problems_;
  NamedTensors contents_;
  std::set<std::string> used_;
};

bool is_weight(const StateBuffer& buffer) { return buffer.kind == Kind::parameters || buffer.kind == Kind::weight; }

void read_buffer(Executor& executor, const StateBuffer& buffer, FileTensors& tensors) {
  Tensor value = executor.read_state(buffer.name);
  if (buffer.kind == Kind::parameters || buffer.kind == Kind::slot_arena)
    for (const ParameterSlice& slice : executor.model().parameters)
      tensors.emplace(slot_name(buffer, slice), to_onnx_layout(value, slice));
  else
    tensors.emplace(buffer.name.text, std::move(value));
}

}  // namespace

std::vector<WeightTensor> weights_of(const CompiledModel& model) {
  std::vector<WeightTensor> trainable, fixed;
  for (const StateBuffer& buffer : state_buffers(model)) {
    if (buffer.kind == Kind::parameters)
      for (const ParameterSlice& slice : model.parameters)
        trainable.push_back({slice.name, {buffer.type.dtype, onnx_shape(slice)}, WeightTensor::trainable});
    if (buffer.kind == Kind::weight) fixed.push_back({buffer.name.text, buffer.type, WeightTensor::fixed});
  }
  std::ranges::sort(fixed, {}, &WeightTensor::name);
  trainable.insert(trainable.end(), fixed.begin(), fixed.end());
  return trainable;
}

bool has_average(const ModelState& state) {
  const auto updates = state.slots.find(std::string(kAverageCount.text));
  return updates != state.slots.end() && updates->second.at(0) > 0;
}

FileTensors weights_of(ModelState state, WeightsKind kind) {
  if (kind == WeightsKind::last || !has_average(state)) return std::move(state.weights);
  for (auto& [name, weight] : state.weights)
    if (const auto mean = state.slots.find(fmt::format("{}/{}", kAverageArena.text, name));
        mean != state.slots.end() && mean->second.type == weight.type)
      weight = std::move(mean->second);
  return std::move(state.weights);
}

void with_average(Executor& executor, const std::function<void()>& run) {
  const CompiledModel& model = executor.model();
  if (!is_arena(model, kAverageArena) || executor.read_state(kAverageCount).at(0) == 0) return run();
  const auto put = [&](const Tensor& weights) {
    for (const StateBuffer& buffer : state_buffers(model))
      if (buffer.kind == Kind::parameters)
        executor.write_state(buffer.name, weights);
      else if (buffer.kind == Kind::low_copy && buffer.base == kParameterArena)
        executor.write_state(buffer.name, weights.cast(buffer.type.dtype));
  };
  const Tensor weights = executor.read_state(kParameterArena);
  put(executor.read_state(kAverageArena));
  try {
    run();
  } catch (...) {
    put(weights);
    throw;
  }
  put(weights);
}

FileTensors read_weights(Executor& executor) {
  FileTensors weights;
  for (const StateBuffer& buffer : state_buffers(executor.model()))
    if (is_weight(buffer)) read_buffer(executor, buffer, weights);
  return weights;
}

ModelState read_model_state(Executor& executor) {
  ModelState state;
  for (const StateBuffer& buffer : state_buffers(executor.model()))
    if (buffer.kind != Kind::low_copy) read_buffer(executor, buffer, is_weight(buffer) ? state.weights : state.slots);
  return state;
}

FileTensors read_gradients(Executor& executor) {
  FileTensors gradients;
  const Tensor arena = executor.read_state(kGradientArena);
  for (const ParameterSlice& slice : executor.model().parameters)
    gradients.emplace(slice.name, to_onnx_layout(arena, slice));
  return gradients;
}

void write_model_state(Executor& executor, const ModelState& state, const std::string& where) {
  Restore restore(executor.model(), where);
  for (const StateBuffer& buffer : state_buffers(executor.model()))
    restore.take(buffer, is_weight(buffer) ? state.weights : state.slots);
  restore.refuse_unused(state.weights);
  restore.refuse_unused(state.slots);
  restore.write(executor);
}

void write_weights(Executor& executor, const FileTensors& weights, const std::string& where) {
  Restore restore(executor.model(), where);
  for (const StateBuffer& buffer : state_buffers(executor.model()))
    if (is_weight(buffer) || (buffer.kind == Kind::low_copy && buffer.base == kParameterArena))
      restore.take(buffer, weights);
  restore.refuse_unused(weights);
  restore.write(executor);
}

}  // namespace halfstep
