// The flat buffer of parameters of a step.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "api/status.h"
#include "api/step.h"

namespace halfstep {

void LoadedStep::list_parameters() {
  weights_ = weights_of(executor_->model());
  size_t offset = 0;
  for (const WeightTensor& weight : weights_) {
    require(weight.type.dtype == DType::f32, "weights are f32");
    const auto elements = static_cast<size_t>(weight.type.element_count());
    parameters_.push_back({.name = weight.name.c_str(),
                           .rank = weight.type.shape.size(),
                           .shape = weight.type.shape.data(),
                           .offset = offset,
                           .elements = elements,
                           .trainable = weight.kind == WeightTensor::trainable});
    offset += elements;
  }
}

size_t LoadedStep::parameter_elements() const {
  return parameters_.empty() ? 0 : parameters_.back().offset + parameters_.back().elements;
}

void LoadedStep::read_parameters(std::span<float> values) {
  if (values.size() != parameter_elements())
    throw ArgumentError("the parameters are " + std::to_string(parameter_elements()) + " floats, the buffer has " +
                        std::to_string(values.size()));
  const FileTensors weights = read_weights(*executor_);
  for (const halfstep_parameter& parameter : parameters_)
    std::ranges::copy(weights.at(parameter.name).as<float>(),
                      values.begin() + static_cast<std::ptrdiff_t>(parameter.offset));
}

void LoadedStep::write_parameters(std::span<const float> values) {
  if (values.size() != parameter_elements())
    throw ArgumentError("the parameters are " + std::to_string(parameter_elements()) + " floats, the buffer has " +
                        std::to_string(values.size()));
  FileTensors weights;
  std::vector<std::string> problems;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const std::span<const float> part = values.subspan(parameters_[i].offset, parameters_[i].elements);
    const auto bad = std::ranges::find_if(part, [](float v) { return !std::isfinite(v); });
    if (bad != part.end())
      problems.push_back("parameter '" + weights_[i].name + "': element " + std::to_string(bad - part.begin()) +
                         " of " + std::to_string(part.size()) + " is " + std::to_string(*bad) +
                         ", a finite number expected");
    Tensor tensor(weights_[i].type);
    std::ranges::copy(part, tensor.as<float>().begin());
    weights.emplace(weights_[i].name, std::move(tensor));
  }
  if (!problems.empty()) throw ArgumentError(problems);
  write_weights(*executor_, weights, "the parameters");
}

}  // namespace halfstep
