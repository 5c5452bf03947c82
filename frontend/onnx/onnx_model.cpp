#include "frontend/onnx/onnx_model.h"

#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {

OnnxModel::OnnxModel(const OnnxFile& file)
    : name_(file.name), directory_(file.directory), proto_(std::make_shared<onnx::ModelProto>(parse_model(file))) {}

onnx::ModelProto& OnnxModel::edit() {
  if (proto_.use_count() > 1) proto_ = std::make_shared<onnx::ModelProto>(*proto_);
  return *proto_;
}

TensorReader OnnxModel::reader() const { return TensorReader(directory_); }

}  // namespace halfstep
