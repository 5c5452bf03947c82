#include "api/tensors.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "api/dtypes.h"
#include "api/status.h"

namespace halfstep {
namespace {

std::string type_text(const halfstep_input& input) {
  constexpr size_t kMostAxes = 64;
  if (input.rank > kMostAxes || (input.rank > 0 && input.shape == nullptr))
    return dtype_text(input.dtype) + " of rank " + std::to_string(input.rank) +
           (input.shape == nullptr ? " without a shape" : "");
  return dtype_text(input.dtype) + to_string(Shape(input.shape, input.shape + input.rank));
}

bool has_type(const halfstep_input& input, const TensorType& type) {
  return input.dtype == code_of(type.dtype) && input.rank == type.shape.size() &&
         (input.rank == 0 || (input.shape != nullptr && std::equal(type.shape.begin(), type.shape.end(), input.shape)));
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

std::vector<const std::byte*> bind_inputs(const ProgramValues& values, std::span<const halfstep_input> inputs) {
  NameMatch match("input", values);
  std::vector<const std::byte*> data(values.size());
  for (const halfstep_input& input : inputs) {
    const ProgramValue* value = match.find(input.name);
    if (value == nullptr) continue;
    if (!has_type(input, value->type))
      match.add(match.place(*value) + "is " + type_text(input) + ", expected " + to_string(value->type));
    else if (input.data == nullptr)
      match.add(match.place(*value) + "has data that is NULL");
    data[static_cast<size_t>(value - values.data())] = static_cast<const std::byte*>(input.data);
  }
  for (const ProgramValue& value : values)
    if (!match.seen(value)) match.add(match.place(value) + to_string(value.type) + " is missing");
  match.throw_if_any();
  return data;
}

std::vector<const ProgramValue*> bind_outputs(const ProgramValues& values, std::span<const halfstep_output> outputs) {
  NameMatch match("output", values);
  std::vector<const ProgramValue*> bound;
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
    bound.push_back(value);
  }
  match.throw_if_any();
  return bound;
}

void check_values(const ProgramValues& values, std::span<const std::byte* const> data, const ValueRanges& ranges) {
  Dataset checked;
  for (size_t i = 0; i < values.size(); ++i) {
    const ProgramValue& value = values[i];
    if (value.type.dtype == DType::boolean) {
      const std::span bytes(data[i], static_cast<size_t>(value.type.byte_count()));
      const auto bad = std::ranges::find_if(bytes, [](std::byte b) { return b > std::byte{1}; });
      if (bad != bytes.end())
        throw ArgumentError("input '" + value.name + "': element " + std::to_string(bad - bytes.begin()) + " is " +
                            std::to_string(std::to_integer<int>(*bad)) + ", a bool is 0 or 1");
    }
    if (is_floating(value.type.dtype) || value.type.shape.empty() ||
        (value.name != ranges.labels && !ranges.rows.contains(value.name)))
      continue;
    Tensor tensor(value.type);
    std::memcpy(tensor.data.data(), data[i], tensor.data.size());
    checked.arrays.push_back({value.name, std::move(tensor)});
  }
  check_ranges(checked, ranges);
}

}  // namespace halfstep
