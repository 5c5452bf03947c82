#include "training/random_inputs.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>

#include "base/error.h"
#include "training/notes.h"

namespace halfstep {
namespace {

// Values of an integer input are below it.
int64_t bound_of(const ValueRanges& ranges, const CompiledModel& model, const std::string& input) {
  if (const auto rows = ranges.rows.find(input); rows != ranges.rows.end()) return rows->second;
  if (const auto labels = ranges.labels_of.find(input); labels != ranges.labels_of.end())
    return std::max<int64_t>(labels->second.classes, 1);
  return model.notes.label_input == input && ranges.classes > 0 ? ranges.classes : 2;
}

// Of labels with bounds.
std::optional<LabelBounds> bounds_of(const ValueRanges& ranges, const std::string& input) {
  const auto labels = ranges.labels_of.find(input);
  return labels == ranges.labels_of.end() ? std::nullopt : labels->second.bounds;
}

Tensor random_tensor(const TensorType& type, const LabelBounds& bounds, std::mt19937_64& random) {
  Tensor tensor(type);
  std::uniform_real_distribution<double> within(std::max(bounds.least, bounds.most - 10), bounds.most);
  for (int64_t i = 0; i < type.element_count(); ++i) tensor.set(i, within(random));
  return tensor;
}

Tensor random_tensor(const TensorType& type, int64_t bound, std::mt19937_64& random) {
  Tensor tensor(type);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int64_t> below(0, bound - 1);
  const bool floating = is_floating(type.dtype);
  for (int64_t i = 0; i < type.element_count(); ++i)
    tensor.set(i, floating ? normal(random) : static_cast<double>(below(random)));
  return tensor;
}

}  // namespace

void fill_random(const CompiledModel& model, const Program& program, double learning_rate,
                 std::span<const std::span<std::byte>> staging) {
  const ValueRanges ranges = noted_ranges(model.notes);
  std::mt19937_64 random(0);
  size_t input = 0;
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::input) continue;
    Tensor value(buffer.type);
    if (buffer.name == kStepLearningRate)
      for (int64_t i = 0; i < buffer.type.element_count(); ++i) value.set(i, learning_rate);
    else if (const auto bounds = bounds_of(ranges, buffer.name.text); bounds && !buffer.name.is(Role::step_input))
      value = random_tensor(buffer.type, *bounds, random);
    else if (!buffer.name.is(Role::step_input))
      value = random_tensor(buffer.type, bound_of(ranges, model, buffer.name.text), random);
    const std::span<std::byte> to = staging[input++];
    require(to.size() == value.data.size(), "staging span has the input's size");
    std::memcpy(to.data(), value.data.data(), value.data.size());
  }
}

}  // namespace halfstep
