#include "frontend/export/write_model.h"

#include "base/checked.h"
#include "base/file.h"

namespace halfstep {
namespace {

using onnx::TensorProto;

// Calls `visit` for the initializers of the graph and of every branch.
template <typename Visit>
void for_each_initializer(onnx::GraphProto& graph, Visit&& visit) {
  for (TensorProto& tensor : *graph.mutable_initializer()) visit(tensor);
  for (onnx::NodeProto& node : *graph.mutable_node())
    for (onnx::AttributeProto& attribute : *node.mutable_attribute())
      if (attribute.has_g()) for_each_initializer(*attribute.mutable_g(), visit);
}

void add_entry(TensorProto& tensor, const char* key, const std::string& value) {
  onnx::StringStringEntryProto& entry = *tensor.add_external_data();
  entry.set_key(key);
  entry.set_value(value);
}

// Moves the large initializers' data to `path`, aligned for mapping.
void write_external(onnx::ModelProto& model, const std::filesystem::path& path) {
  constexpr size_t kSmall = 1024;  // stays in the model
  constexpr int64_t kAlignment = 4096;
  int64_t end = 0;
  write_file_atomically(path, [&](FileSink& sink) {
    for_each_initializer(*model.mutable_graph(), [&](TensorProto& tensor) {
      if (!tensor.has_raw_data() || tensor.raw_data().size() <= kSmall) return;
      const int64_t offset = round_up(end, kAlignment), length = static_cast<int64_t>(tensor.raw_data().size());
      sink.write(std::string(static_cast<size_t>(offset - end), '\0'));
      sink.write(tensor.raw_data());
      end = offset + length;
      tensor.clear_raw_data();
      tensor.set_data_location(TensorProto::EXTERNAL);
      add_entry(tensor, "location", path.filename().string());
      add_entry(tensor, "offset", std::to_string(offset));
      add_entry(tensor, "length", std::to_string(length));
    });
  });
}

}  // namespace

void add_metadata(onnx::ModelProto& model, const std::map<std::string, std::string>& metadata) {
  for (const auto& [key, value] : metadata) {
    onnx::StringStringEntryProto* entry = nullptr;
    for (onnx::StringStringEntryProto& existing : *model.mutable_metadata_props())
      if (existing.key() == key) entry = &existing;
    if (!entry) entry = model.add_metadata_props();
    entry->set_key(key);
    entry->set_value(value);
  }
}

void write_model(onnx::ModelProto& model, const std::filesystem::path& path, int64_t largest_inline) {
  int64_t bytes = 0;
  for_each_initializer(*model.mutable_graph(),
                       [&](TensorProto& tensor) { bytes += static_cast<int64_t>(tensor.ByteSizeLong()); });
  if (bytes > largest_inline) write_external(model, path.string() + ".data");
  write_file_atomically(path, model.SerializeAsString());
}

}  // namespace halfstep
