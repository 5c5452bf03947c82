// A parsed ONNX model: repairs edit it in place, import, diagnosis and export read it. It is parsed once.
#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "frontend/onnx/onnx_file.h"

namespace onnx {
class ModelProto;
}

namespace halfstep {

class TensorReader;

// A node of the main graph as the file has it, whatever repairs and import make of it.
struct FileNode {
  std::string name;  // or operator and position, "Conv_12", where it has none
  bool has_name = true;
  std::string op;                     // "Conv", "com.microsoft.FusedConv"
  std::vector<std::string> operands;  // names of tensors; behind them those that its branches and bodies read
  std::vector<std::string> results;
  std::string module;  // "encoder.layers.0.norm", where the exporter wrote it beside the node
};

// Copies share the messages until one of them is edited.
class OnnxModel {
 public:
  // Throws Error if the bytes are no whole ModelProto, saying what they look like instead.
  explicit OnnxModel(const OnnxFile& file);

  const std::string& name() const { return name_; }                      // of the file, for messages
  const std::filesystem::path& directory() const { return directory_; }  // the only place its external data may lie in
  const onnx::ModelProto& proto() const { return *proto_; }
  onnx::ModelProto& edit();
  const std::vector<FileNode>& file_nodes() const { return *file_nodes_; }
  const std::string& graph_name() const;
  // Initializers that a repair left without values: they start fresh. What repairs say to the user.
  const std::set<std::string>& fresh() const { return fresh_; }
  void set_fresh(const std::string& initializer) { fresh_.insert(initializer); }
  const std::vector<std::string>& remarks() const { return remarks_; }
  void add_remark(std::string remark) { remarks_.push_back(std::move(remark)); }
  // For pointers into the messages that outlive this object.
  std::shared_ptr<const onnx::ModelProto> share() const { return proto_; }
  TensorReader reader() const;

 private:
  std::string name_;
  std::filesystem::path directory_;
  std::shared_ptr<onnx::ModelProto> proto_;
  std::shared_ptr<const std::vector<FileNode>> file_nodes_;
  std::set<std::string> fresh_;
  std::vector<std::string> remarks_;
};

}  // namespace halfstep
