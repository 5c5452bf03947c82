#include "frontend/export/onnx_builder.h"

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/error.h"

namespace halfstep {
namespace {

Shape broadcast_shape(const Shape& x, const Shape& y) {
  Shape result(std::max(x.size(), y.size()), 1);
  for (const Shape* shape : {&x, &y})
    for (size_t i = 0; i < shape->size(); ++i) {
      int64_t& size = result[result.size() - shape->size() + i];
      if ((*shape)[i] != 1) size = (*shape)[i];
    }
  return result;
}

}  // namespace

int32_t onnx_type(DType type) {
  using T = onnx::TensorProto;
  constexpr std::array types{T::FLOAT16, T::BFLOAT16, T::FLOAT, T::DOUBLE, T::UINT8,
                             T::INT8,    T::INT32,    T::INT64, T::BOOL};
  static_assert(types.size() == kDTypeCount);
  return types[static_cast<size_t>(type)];
}

onnx::TensorProto tensor_message(const std::string& name, const Tensor& tensor) {
  onnx::TensorProto message;
  message.set_name(name);
  message.set_data_type(onnx_type(tensor.type.dtype));
  for (const int64_t size : tensor.type.shape) message.add_dims(size);
  message.set_raw_data(tensor.data.data(), tensor.data.size());
  return message;
}

onnx::ValueInfoProto value_message(const std::string& name, const TensorType& type) {
  onnx::ValueInfoProto message;
  message.set_name(name);
  onnx::TypeProto::Tensor& tensor = *message.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(onnx_type(type.dtype));
  tensor.mutable_shape();
  for (const int64_t size : type.shape) tensor.mutable_shape()->add_dim()->set_dim_value(size);
  return message;
}

std::string OnnxBuilder::fresh_name() {
  std::string name;
  do name = prefix_ + std::to_string(count_++);
  while (taken_.contains(name));
  return name;
}

OnnxValue OnnxBuilder::node(std::string_view op, const std::vector<OnnxValue>& operands, TensorType result,
                            const OnnxAttributes& attributes) {
  onnx::NodeProto& node = *graph_.add_node();
  node.set_op_type(std::string(op));
  const int number = origins_[origin_]++;
  node.set_name(number == 0 ? origin_ : origin_ + "/" + std::to_string(number));
  for (const OnnxValue& operand : operands) node.add_input(operand.name);
  OnnxValue value{fresh_name(), std::move(result)};
  node.add_output(value.name);
  for (const auto& [name, content] : attributes) {
    onnx::AttributeProto& attribute = *node.add_attribute();
    attribute.set_name(std::string(name));
    if (const int64_t* integer = std::get_if<int64_t>(&content)) {
      attribute.set_type(onnx::AttributeProto::INT);
      attribute.set_i(*integer);
    } else if (const std::string* text = std::get_if<std::string>(&content)) {
      attribute.set_type(onnx::AttributeProto::STRING);
      attribute.set_s(*text);
    } else {
      attribute.set_type(onnx::AttributeProto::INTS);
      for (const int64_t i : std::get<Ints>(content)) attribute.add_ints(i);
    }
  }
  made_[value.name] = value.type;
  return value;
}

OnnxValue OnnxBuilder::binary(std::string_view op, const OnnxValue& x, const OnnxValue& y) {
  return node(op, {x, y}, {x.type.dtype, broadcast_shape(x.type.shape, y.type.shape)});
}

OnnxValue OnnxBuilder::compare(std::string_view op, const OnnxValue& x, const OnnxValue& y) {
  return node(op, {x, y}, {DType::boolean, broadcast_shape(x.type.shape, y.type.shape)});
}

OnnxValue OnnxBuilder::select(const OnnxValue& condition, const OnnxValue& if_true, const OnnxValue& if_false) {
  const Shape shape = broadcast_shape(if_true.type.shape, if_false.type.shape);
  return node("Where", {condition, if_true, if_false},
              {if_true.type.dtype, broadcast_shape(condition.type.shape, shape)});
}

OnnxValue OnnxBuilder::constant(const Tensor& tensor) {
  std::string bytes(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
  const auto [entry, is_new] = constants_.emplace(std::pair(to_string(tensor.type), std::move(bytes)), "");
  if (is_new) {
    entry->second = fresh_name();
    *graph_.add_initializer() = tensor_message(entry->second, tensor);
  }
  return {entry->second, tensor.type};
}

OnnxValue OnnxBuilder::integers(const Ints& values) {
  Tensor tensor(TensorType{DType::i64, {static_cast<int64_t>(values.size())}});
  std::ranges::copy(values, tensor.as<int64_t>().begin());
  return constant(tensor);
}

OnnxValue OnnxBuilder::cast(const OnnxValue& x, DType to) {
  if (x.type.dtype == to) return x;
  OnnxValue& result = casts_[{x.name, to}];
  if (!result) result = node("Cast", {x}, {to, x.type.shape}, {{"to", int64_t{onnx_type(to)}}});
  return result;
}

OnnxValue OnnxBuilder::reshape(const OnnxValue& x, const Shape& shape) {
  if (x.type.shape == shape) return x;
  const bool empty = std::ranges::find(shape, 0) != shape.end();
  const OnnxAttributes zeros_as_they_are{{"allowzero", int64_t{1}}};
  return node("Reshape", {x, integers(shape)}, {x.type.dtype, shape}, empty ? zeros_as_they_are : OnnxAttributes{});
}

OnnxValue OnnxBuilder::transpose(const OnnxValue& x, const Ints& permutation) {
  if (std::ranges::is_sorted(permutation)) return x;
  TensorType type{x.type.dtype, {}};
  for (const int64_t axis : permutation) type.shape.push_back(x.type.shape[static_cast<size_t>(axis)]);
  return node("Transpose", {x}, std::move(type), {{"perm", permutation}});
}

OnnxValue OnnxBuilder::expand(const OnnxValue& x, const Shape& shape) {
  if (x.type.shape == shape) return x;
  return node("Expand", {x, integers(shape)}, {x.type.dtype, shape});
}

OnnxValue OnnxBuilder::slice(const OnnxValue& x, const Ints& starts, const Ints& limits, const Ints& steps) {
  Ints begin, end, axes, step;
  TensorType type = x.type;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t by = steps.empty() ? 1 : steps[i];
    if (starts[i] == 0 && limits[i] == x.type.shape[i] && by == 1) continue;
    type.shape[i] = ceil_div(limits[i] - starts[i], by);
    begin.push_back(starts[i]), end.push_back(limits[i]), axes.push_back(static_cast<int64_t>(i)), step.push_back(by);
  }
  if (axes.empty()) return x;
  std::vector<OnnxValue> operands{x, integers(begin), integers(end), integers(axes)};
  if (std::ranges::any_of(step, [](int64_t s) { return s != 1; })) operands.push_back(integers(step));
  return node("Slice", operands, std::move(type));
}

OnnxValue OnnxBuilder::pad(const OnnxValue& x, const Ints& low, const Ints& high, double value) {
  Ints pads = low;
  pads.insert(pads.end(), high.begin(), high.end());
  if (std::ranges::all_of(pads, [](int64_t p) { return p == 0; })) return x;
  TensorType type = x.type;
  for (size_t i = 0; i < low.size(); ++i) type.shape[i] += low[i] + high[i];
  std::vector<OnnxValue> operands{x, integers(pads)};
  if (value != 0) operands.push_back(scalar(x.type.dtype, value));
  return node("Pad", operands, std::move(type));
}

OnnxValue OnnxBuilder::concat(const std::vector<OnnxValue>& operands, size_t axis) {
  if (operands.size() == 1) return operands[0];
  TensorType type = operands[0].type;
  type.shape[axis] = 0;
  for (const OnnxValue& operand : operands) type.shape[axis] += operand.type.shape[axis];
  return node("Concat", operands, std::move(type), {{"axis", static_cast<int64_t>(axis)}});
}

OnnxValue OnnxBuilder::reduce(std::string_view op, const OnnxValue& x, const Ints& axes) {
  if (axes.empty()) return x;
  TensorType type = x.type;
  for (const int64_t axis : axes) type.shape[static_cast<size_t>(axis)] = 1;
  return node(op, {x, integers(axes)}, std::move(type), {{"keepdims", int64_t{1}}});
}

void OnnxBuilder::rename(const OnnxValue& value, const std::string& name) {
  if (made_.contains(value.name) && new_names_.emplace(value.name, name).second) return;
  new_names_[node("Identity", {value}, value.type).name] = name;
}

void OnnxBuilder::finish() {
  const auto renamed = [&](std::string& name) {
    if (const auto found = new_names_.find(name); found != new_names_.end()) name = found->second;
  };
  for (onnx::NodeProto& node : *graph_.mutable_node()) {
    for (std::string& name : *node.mutable_input()) renamed(name);
    for (std::string& name : *node.mutable_output()) renamed(name);
  }
  for (const auto& [name, type] : made_)
    if (!new_names_.contains(name)) *graph_.add_value_info() = value_message(name, type);
}

}  // namespace halfstep
