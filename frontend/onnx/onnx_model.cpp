#include "frontend/onnx/onnx_model.h"

#include "frontend/onnx/exporter_metadata.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {
namespace {

constexpr int kDeepest = 64;  // what is nested deeper is refused later

void add_reads(const onnx::NodeProto& node, std::vector<std::string>& names, int depth) {
  for (const std::string& operand : node.input()) names.push_back(operand);
  if (depth == kDeepest) return;
  for (const onnx::AttributeProto& attribute : node.attribute())
    for (const onnx::NodeProto& inner : attribute.g().node()) add_reads(inner, names, depth + 1);
}

std::vector<FileNode> nodes_of(const onnx::ModelProto& model) {
  std::vector<FileNode> nodes;
  for (int i = 0; i < model.graph().node_size(); ++i) {
    const onnx::NodeProto& node = model.graph().node(i);
    FileNode& row = nodes.emplace_back();
    row.name = node_name(node, i), row.op = operator_name(node), row.module = module_of(node);
    row.has_name = !node.name().empty();
    add_reads(node, row.operands, 0);
    row.results.assign(node.output().begin(), node.output().end());
  }
  return nodes;
}

}  // namespace

OnnxModel::OnnxModel(const OnnxFile& file)
    : name_(file.name),
      directory_(file.directory),
      proto_(std::make_shared<onnx::ModelProto>(parse_model(file))),
      file_nodes_(std::make_shared<std::vector<FileNode>>(nodes_of(*proto_))) {}

const std::string& OnnxModel::graph_name() const { return proto_->graph().name(); }

onnx::ModelProto& OnnxModel::edit() {
  if (proto_.use_count() > 1) proto_ = std::make_shared<onnx::ModelProto>(*proto_);
  return *proto_;
}

TensorReader OnnxModel::reader() const { return TensorReader(directory_); }

}  // namespace halfstep
