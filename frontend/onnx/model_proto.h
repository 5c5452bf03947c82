// The parsed ONNX messages and how problems speak about them.
#pragma once

#include <onnx/onnx_pb.h>

#include <map>
#include <string>

#include "frontend/onnx/onnx_file.h"

namespace halfstep {

inline constexpr int64_t kOldestOpset = 7;
inline constexpr int64_t kNewestOpset = 28;

// Throws Error if the bytes are no whole ModelProto, saying what they look like instead.
onnx::ModelProto parse_model(const OnnxFile& file);

// "" for the standard domain, which files also call "ai.onnx".
std::string canonical_domain(const std::string& domain);
// "Conv", "com.microsoft.FusedConv".
std::string operator_name(const onnx::NodeProto& node);
// The node's name, or operator and position for a node without one: "Conv_12".
std::string node_name(const onnx::NodeProto& node, int index);
// The name of an operand or result, "" where the node has none there.
std::string operand_name(const onnx::NodeProto& node, int i);
std::string result_name(const onnx::NodeProto& node, int i);
// "Conv 'conv1'": messages about a node begin with this behind the word "node".
std::string describe(const onnx::NodeProto& node, int index);

// Whether a convolution took in a batch norm: PyTorch's default exporter leaves traces of it in names and metadata.
bool took_in_batch_norm(const onnx::NodeProto& node);
// Whether an initializer got its name from PyTorch's exporters, which number what they fold: "val_12",
// "onnx::MatMul_34".
bool is_exporters_name(const std::string& name);

using Opsets = std::map<std::string, int64_t>;  // version by canonical domain
template <typename Entries>
Opsets opsets_of(const Entries& entries) {
  Opsets opsets;
  for (const auto& entry : entries) opsets[canonical_domain(entry.domain())] = entry.version();
  return opsets;
}

}  // namespace halfstep
