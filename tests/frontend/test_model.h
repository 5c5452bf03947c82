// ONNX models written in C++, and what they compute.
#pragma once

#include <onnx/onnx_pb.h>

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "frontend/import/import.h"
#include "ir/attributes.h"

namespace halfstep::test {

using AttributeValue = std::variant<int64_t, double, std::string, Ints, std::vector<double>, std::vector<std::string>,
                                    Tensor, onnx::GraphProto>;
using AttributeList = std::vector<std::pair<std::string, AttributeValue>>;

onnx::TensorProto tensor_proto(const std::string& name, const Tensor& tensor);
onnx::NodeProto node_proto(const std::string& op, const std::vector<std::string>& inputs,
                           const std::vector<std::string>& outputs, const AttributeList& attributes = {},
                           const std::string& name = "");
// A shape entry below 0 is an open dimension with the symbol "d<axis>".
onnx::ValueInfoProto value_info(const std::string& name, const Shape& shape, int32_t type = onnx::TensorProto::FLOAT);

class TestModel {
 public:
  explicit TestModel(int64_t opset = 17);

  TestModel& input(const std::string& name, const Shape& shape, int32_t type = onnx::TensorProto::FLOAT);
  TestModel& weight(const std::string& name, const Tensor& tensor);
  TestModel& node(const std::string& op, const std::vector<std::string>& inputs,
                  const std::vector<std::string>& outputs, const AttributeList& attributes = {},
                  const std::string& name = "");
  TestModel& output(const std::string& name);

  onnx::ModelProto proto;
  OnnxFile file(const std::filesystem::path& directory = ".") const;
};

Tensor floats(const Shape& shape, const std::vector<double>& values);
Tensor ints(const Shape& shape, const std::vector<double>& values);
Tensor ramp(const Shape& shape, double first = 0, double step = 1);  // first, first + step, ...

// What the model computes as exported, by output name.
std::map<std::string, std::vector<double>> evaluate(const TestModel& model, const NamedTensors& inputs,
                                                    const ImportOptions& options = {.mode = ImportMode::as_exported});
// The Error's message; a failure if there is none.
std::string import_error(const TestModel& model, const ImportOptions& options = {.mode = ImportMode::as_exported});

}  // namespace halfstep::test
