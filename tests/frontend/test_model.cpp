#include "test_model.h"

#include <gtest/gtest.h>

#include "ir/interpret.h"

namespace halfstep::test {

onnx::TensorProto tensor_proto(const std::string& name, const Tensor& tensor) {
  onnx::TensorProto proto;
  proto.set_name(name);
  for (int64_t d : tensor.type.shape) proto.add_dims(d);
  const std::map<DType, int32_t> types{
      {DType::f32, onnx::TensorProto::FLOAT},     {DType::f16, onnx::TensorProto::FLOAT16},
      {DType::bf16, onnx::TensorProto::BFLOAT16}, {DType::f64, onnx::TensorProto::DOUBLE},
      {DType::i64, onnx::TensorProto::INT64},     {DType::i32, onnx::TensorProto::INT32},
      {DType::i8, onnx::TensorProto::INT8},       {DType::u8, onnx::TensorProto::UINT8},
      {DType::boolean, onnx::TensorProto::BOOL}};
  proto.set_data_type(types.at(tensor.type.dtype));
  proto.set_raw_data(tensor.data.data(), tensor.data.size());
  return proto;
}

onnx::NodeProto node_proto(const std::string& op, const std::vector<std::string>& inputs,
                           const std::vector<std::string>& outputs, const AttributeList& attributes,
                           const std::string& name) {
  onnx::NodeProto node;
  const size_t dot = op.rfind('.');
  if (dot != std::string::npos) node.set_domain(op.substr(0, dot));
  node.set_op_type(dot == std::string::npos ? op : op.substr(dot + 1));
  node.set_name(name);
  for (const std::string& i : inputs) node.add_input(i);
  for (const std::string& o : outputs) node.add_output(o);
  for (const auto& [key, value] : attributes) {
    onnx::AttributeProto& a = *node.add_attribute();
    a.set_name(key);
    if (const auto* v = std::get_if<int64_t>(&value)) a.set_i(*v), a.set_type(onnx::AttributeProto::INT);
    if (const auto* v = std::get_if<double>(&value))
      a.set_f(static_cast<float>(*v)), a.set_type(onnx::AttributeProto::FLOAT);
    if (const auto* v = std::get_if<std::string>(&value)) a.set_s(*v), a.set_type(onnx::AttributeProto::STRING);
    if (const auto* v = std::get_if<Ints>(&value)) {
      a.set_type(onnx::AttributeProto::INTS);
      for (int64_t i : *v) a.add_ints(i);
    }
    if (const auto* v = std::get_if<std::vector<double>>(&value)) {
      a.set_type(onnx::AttributeProto::FLOATS);
      for (double f : *v) a.add_floats(static_cast<float>(f));
    }
    if (const auto* v = std::get_if<std::vector<std::string>>(&value)) {
      a.set_type(onnx::AttributeProto::STRINGS);
      for (const std::string& text : *v) a.add_strings(text);
    }
    if (const auto* v = std::get_if<Tensor>(&value))
      *a.mutable_t() = tensor_proto("", *v), a.set_type(onnx::AttributeProto::TENSOR);
    if (const auto* v = std::get_if<onnx::GraphProto>(&value))
      *a.mutable_g() = *v, a.set_type(onnx::AttributeProto::GRAPH);
  }
  return node;
}

onnx::ValueInfoProto value_info(const std::string& name, const Shape& shape, int32_t type) {
  onnx::ValueInfoProto info;
  info.set_name(name);
  onnx::TypeProto::Tensor& tensor = *info.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(type);
  tensor.mutable_shape();
  for (size_t i = 0; i < shape.size(); ++i) {
    auto& dim = *tensor.mutable_shape()->add_dim();
    if (shape[i] < 0)
      dim.set_dim_param("d" + std::to_string(i));
    else
      dim.set_dim_value(shape[i]);
  }
  return info;
}

TestModel::TestModel(int64_t opset) {
  proto.set_ir_version(8);
  proto.add_opset_import()->set_version(opset);
  proto.mutable_graph()->set_name("test");
}

TestModel& TestModel::input(const std::string& name, const Shape& shape, int32_t type) {
  *proto.mutable_graph()->add_input() = value_info(name, shape, type);
  return *this;
}

TestModel& TestModel::weight(const std::string& name, const Tensor& tensor) {
  *proto.mutable_graph()->add_initializer() = tensor_proto(name, tensor);
  return *this;
}

TestModel& TestModel::node(const std::string& op, const std::vector<std::string>& inputs,
                           const std::vector<std::string>& outputs, const AttributeList& attributes,
                           const std::string& name) {
  *proto.mutable_graph()->add_node() = node_proto(op, inputs, outputs, attributes, name);
  return *this;
}

TestModel& TestModel::output(const std::string& name) {
  proto.mutable_graph()->add_output()->set_name(name);
  return *this;
}

OnnxFile TestModel::file(const std::filesystem::path& directory) const {
  return {"test.onnx", proto.SerializeAsString(), directory};
}

Tensor floats(const Shape& shape, const std::vector<double>& values) {
  return Tensor::from_values({DType::f32, shape}, values);
}

Tensor ints(const Shape& shape, const std::vector<double>& values) {
  return Tensor::from_values({DType::i64, shape}, values);
}

Tensor ramp(const Shape& shape, double first, double step) {
  Tensor tensor(TensorType{DType::f32, shape});
  for (int64_t i = 0; i < tensor.type.element_count(); ++i) tensor.set(i, first + step * static_cast<double>(i));
  return tensor;
}

std::map<std::string, std::vector<double>> evaluate(const TestModel& model, const NamedTensors& inputs,
                                                    const ImportOptions& options) {
  const ImportedModel imported = import_model(model.file(), options);
  NamedTensors leaves = named(imported.weights);
  leaves.insert(inputs.begin(), inputs.end());
  leaves[kStepSeed] = Tensor::scalar(DType::i64, 7);
  leaves[kStepIteration] = Tensor::scalar(DType::i32, 3);
  std::map<std::string, std::vector<double>> outputs;
  for (const auto& [name, tensor] : interpret(imported.graph, leaves).outputs) outputs[name.text] = tensor.values;
  return outputs;
}

std::string import_error(const TestModel& model, const ImportOptions& options) {
  try {
    import_model(model.file(), options);
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "the model was imported";
  return "";
}

}  // namespace halfstep::test
