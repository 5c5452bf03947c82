#include "frontend/export/annotate.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "frontend/onnx/exporter_metadata.h"
#include "frontend/onnx/model_proto.h"

namespace halfstep {
namespace {

bool has_data_beside(const onnx::GraphProto& graph) {
  return std::ranges::any_of(graph.initializer(), [](const onnx::TensorProto& tensor) {
    return tensor.data_location() == onnx::TensorProto::EXTERNAL;
  });
}

}  // namespace

void annotate_model(const OnnxFile& file, const std::vector<NodeTexts>& texts, const std::filesystem::path& path) {
  constexpr int64_t kWithNodeMetadata = 10;
  onnx::ModelProto model = parse_model(file);
  const auto folder = [](const std::filesystem::path& of) {
    return std::filesystem::weakly_canonical(of.empty() ? std::filesystem::path(".") : of);
  };
  if (has_data_beside(model.graph()) && folder(path.parent_path()) != folder(file.directory))
    throw Error("'" + path.string() + "' would not find the weights that lie beside '" + file.name +
                "': write it into the same folder");
  model.set_ir_version(std::max(model.ir_version(), kWithNodeMetadata));
  require(texts.size() == static_cast<size_t>(model.graph().node_size()), "every node has its texts");
  for (int i = 0; i < model.graph().node_size(); ++i)
    for (const auto& [key, value] : texts[static_cast<size_t>(i)])
      set_metadata(*model.mutable_graph()->mutable_node(i), key, value);
  write_file_atomically(path, model.SerializeAsString());
}

}  // namespace halfstep
