// A parsed ONNX model: repairs edit it in place, import, diagnosis and export read it. It is parsed once.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "frontend/onnx/onnx_file.h"

namespace onnx {
class ModelProto;
}

namespace halfstep {

class TensorReader;

// Copies share the messages until one of them is edited.
class OnnxModel {
 public:
  // Throws Error if the bytes are no whole ModelProto, saying what they look like instead.
  explicit OnnxModel(const OnnxFile& file);

  const std::string& name() const { return name_; }                      // of the file, for messages
  const std::filesystem::path& directory() const { return directory_; }  // the only place its external data may lie in
  const onnx::ModelProto& proto() const { return *proto_; }
  onnx::ModelProto& edit();
  // For pointers into the messages that outlive this object.
  std::shared_ptr<const onnx::ModelProto> share() const { return proto_; }
  TensorReader reader() const;

 private:
  std::string name_;
  std::filesystem::path directory_;
  std::shared_ptr<onnx::ModelProto> proto_;
};

}  // namespace halfstep
