#include "api/tensors.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "api/dtypes.h"
#include "api/status.h"

namespace halfstep {
namespace {

std::string type_text(const halfstep_tensor& tensor) {
  constexpr size_t kMostAxes = 64;
  if (tensor.rank > kMostAxes || (tensor.rank > 0 && tensor.shape == nullptr))
    return dtype_text(tensor.dtype) + " of rank " + std::to_string(tensor.rank) +
           (tensor.shape == nullptr ? " without a shape" : "");
  return dtype_text(tensor.dtype) + to_string(Shape(tensor.shape, tensor.shape + tensor.rank));
}

bool has_type(const halfstep_tensor& tensor, const TensorType& type) {
  return tensor.dtype == code_of(type.dtype) && tensor.rank == type.shape.size() &&
         (tensor.rank == 0 ||
          (tensor.shape != nullptr && std::equal(type.shape.begin(), type.shape.end(), tensor.shape)));
}

// Of a dense tensor.
std::vector<int64_t> dense_strides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t axis = shape.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * shape[axis];
  return strides;
}

bool is_dense(const halfstep_tensor& tensor, const Shape& shape) {
  const std::vector<int64_t> dense = dense_strides(shape);
  for (size_t axis = 0; tensor.strides != nullptr && axis < shape.size(); ++axis)
    if (shape[axis] != 1 && tensor.strides[axis] != dense[axis]) return false;
  return true;
}

std::string device_text(halfstep_device device, int index) {
  switch (device) {
    case HALFSTEP_CPU:
      return "the CPU";
    case HALFSTEP_CUDA:
      return "cuda:" + std::to_string(index);
    case HALFSTEP_CUDA_HOST:
      return "page-locked memory";
    case HALFSTEP_CUDA_MANAGED:
      return "managed memory of CUDA";
    default:
      return "a device of DLPack's type " + std::to_string(device);
  }
}

bool is_of_cuda(halfstep_device device) { return device == HALFSTEP_CUDA || device == HALFSTEP_CUDA_MANAGED; }

// What keeps the step from reading or writing it; "": nothing.
std::string problem_of(const halfstep_tensor& tensor, const TensorType& type, const DevicePlace& step) {
  if (!has_type(tensor, type)) return "is " + type_text(tensor) + ", expected " + to_string(type);
  if (!is_dense(tensor, type.shape))
    return "is not contiguous: its strides are " + to_string(Shape(tensor.strides, tensor.strides + tensor.rank)) +
           ", expected " + to_string(dense_strides(type.shape)) +
           ": give a contiguous copy (numpy.ascontiguousarray, tensor.contiguous())";
  if (tensor.data == nullptr) return "has data that is NULL";
  if (tensor.device == HALFSTEP_CPU || tensor.device == HALFSTEP_CUDA_HOST) return "";
  const bool on_cuda = step.executor.model().device == DeviceKind::cuda;
  if (!is_of_cuda(tensor.device) || !on_cuda || (tensor.device == HALFSTEP_CUDA && tensor.device_index != step.index))
    return "lies on " + device_text(tensor.device, tensor.device_index) + ", the step runs on " +
           device_text(on_cuda ? HALFSTEP_CUDA : HALFSTEP_CPU, step.index) + ": give a copy that lies there" +
           (on_cuda ? " or in host memory" : ", in host memory");
  if (!step.executor.on_device(tensor.data))
    return "is said to lie on " + device_text(tensor.device, tensor.device_index) +
           ", its data is no memory of that device";
  return "";
}

std::string unknown(const char* kind, const std::string& name, const ProgramValues& values) {
  std::vector<std::string> names;
  std::string all;
  for (const ProgramValue& value : values) {
    names.push_back(value.name);
    all += (all.empty() ? "there are '" : ", '") + value.name + "'";
  }
  const std::string near = nearest(name, names);
  if (!near.empty()) all = "did you mean '" + near + "'?";
  return std::string("no ") + kind + " '" + name + "'; " + (all.empty() ? "there is none" : all);
}

// Finds the values that the caller names, each once.
class NameMatch {
 public:
  NameMatch(const char* kind, const ProgramValues& values) : kind_(kind), values_(values) {}

  // nullptr: the problem is noted.
  const ProgramValue* find(const char* name) {
    if (name == nullptr) return add("the name of an " + std::string(kind_) + " is NULL");
    const auto value = std::ranges::find(values_, name, &ProgramValue::name);
    if (value == values_.end()) return add(unknown(kind_, name, values_));
    if (++seen_[&*value] > 1) return add(place(*value) + "is given twice");
    return &*value;
  }
  const ProgramValue* add(std::string problem) {
    problems_.push_back(std::move(problem));
    return nullptr;
  }
  std::string place(const ProgramValue& value) const { return std::string(kind_) + " '" + value.name + "' "; }
  bool seen(const ProgramValue& value) const { return seen_.contains(&value); }
  void throw_if_any() const {
    if (!problems_.empty()) throw ArgumentError(problems_);
  }

 private:
  const char* kind_;
  const ProgramValues& values_;
  std::map<const ProgramValue*, int> seen_;
  std::vector<std::string> problems_;
};

}  // namespace

halfstep_tensor tensor_of(const halfstep_input& input) {
  return {.name = input.name,
          .dtype = input.dtype,
          .rank = input.rank,
          .shape = input.shape,
          .strides = nullptr,
          .data = const_cast<void*>(input.data),  // inputs are read only
          .device = HALFSTEP_CPU,
          .device_index = 0};
}

std::vector<BoundInput> bind_inputs(const ProgramValues& values, std::span<const halfstep_tensor> inputs,
                                    const DevicePlace& step) {
  NameMatch match("input", values);
  std::vector<BoundInput> bound(values.size());
  for (const halfstep_tensor& input : inputs) {
    const ProgramValue* value = match.find(input.name);
    if (value == nullptr) continue;
    if (const std::string problem = problem_of(input, value->type, step); !problem.empty())
      match.add(match.place(*value) + problem);
    bound[static_cast<size_t>(value - values.data())] = {static_cast<const std::byte*>(input.data),
                                                         is_of_cuda(input.device)};
  }
  for (const ProgramValue& value : values)
    if (!match.seen(value)) match.add(match.place(value) + to_string(value.type) + " is missing");
  match.throw_if_any();
  return bound;
}

std::vector<BoundOutput> bind_outputs(const ProgramValues& values, std::span<const halfstep_output> outputs) {
  NameMatch match("output", values);
  std::vector<BoundOutput> bound;
  for (const halfstep_output& output : outputs) {
    const ProgramValue* value = match.find(output.name);
    if (value == nullptr) continue;
    const auto bytes = static_cast<size_t>(value->type.byte_count());
    if (output.dtype != code_of(value->type.dtype))
      match.add(match.place(*value) + "is asked for as " + dtype_text(output.dtype) + ", it is " +
                to_string(value->type));
    else if (output.bytes != bytes)
      match.add(match.place(*value) + to_string(value->type) + " has " + std::to_string(bytes) +
                " bytes, the buffer given " + std::to_string(output.bytes));
    else if (output.data == nullptr)
      match.add(match.place(*value) + "has data that is NULL");
    bound.push_back({value, output.data, false});
  }
  match.throw_if_any();
  return bound;
}

std::vector<BoundOutput> bind_outputs(const ProgramValues& values, std::span<const halfstep_tensor> outputs,
                                      const DevicePlace& step) {
  NameMatch match("output", values);
  std::vector<BoundOutput> bound;
  for (const halfstep_tensor& output : outputs) {
    const ProgramValue* value = match.find(output.name);
    if (value == nullptr) continue;
    if (const std::string problem = problem_of(output, value->type, step); !problem.empty())
      match.add(match.place(*value) + problem);
    bound.push_back({value, output.data, is_of_cuda(output.device)});
  }
  match.throw_if_any();
  return bound;
}

bool is_checked(const ProgramValue& value, const ValueRanges& ranges) {
  if (value.type.dtype == DType::boolean) return true;
  const std::optional<LabelRange> labels = label_range(ranges, value.name);
  if (value.type.shape.empty()) return false;
  return (labels && labels->bounds) || (!is_floating(value.type.dtype) &&
                                        (labels || value.name == ranges.labels || ranges.rows.contains(value.name)));
}

void check_values(const ProgramValues& values, std::span<const BoundInput> inputs, const ValueRanges& ranges) {
  Dataset checked;
  for (size_t i = 0; i < values.size(); ++i) {
    const ProgramValue& value = values[i];
    if (!is_checked(value, ranges)) continue;
    if (value.type.dtype == DType::boolean) {
      const std::span bytes(inputs[i].data, static_cast<size_t>(value.type.byte_count()));
      const auto bad = std::ranges::find_if(bytes, [](std::byte b) { return b > std::byte{1}; });
      if (bad != bytes.end())
        throw ArgumentError("input '" + value.name + "': element " + std::to_string(bad - bytes.begin()) + " is " +
                            std::to_string(std::to_integer<int>(*bad)) + ", a bool is 0 or 1");
      continue;
    }
    Tensor tensor(value.type);
    std::memcpy(tensor.data.data(), inputs[i].data, tensor.data.size());
    checked.arrays.push_back({value.name, std::move(tensor)});
  }
  check_ranges(checked, ranges);
}

}  // namespace halfstep
