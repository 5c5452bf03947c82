#include "frontend/onnx/onnx_file.h"

#include <google/protobuf/io/coded_stream.h>

#include <algorithm>
#include <cctype>
#include <limits>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "frontend/onnx/check_names.h"
#include "frontend/onnx/model_proto.h"

namespace halfstep {
namespace {

bool looks_like_text(const std::string& bytes) {
  const size_t sample = std::min<size_t>(bytes.size(), 512);
  return std::all_of(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(sample), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return std::isprint(u) || std::isspace(u) || u >= 0x80;
  });
}

// What a file of another kind begins with, and what to do with it.
std::string other_format(const std::string& bytes) {
  using namespace std::string_view_literals;
  constexpr std::pair<std::string_view, std::string_view> kFormats[] = {
      {"PK\x03\x04"sv,
       "a zip archive, as torch.save and Keras write: export the model to ONNX (torch.onnx.export, tf2onnx)"},
      {"\x80\x02"sv, "a Python pickle, as torch.save writes: export the model with torch.onnx.export"},
      {"\x89HDF"sv, "an HDF5 file, as Keras writes: export the model with tf2onnx"},
      {"\x89PNG"sv, "an image: the model comes first, images are data"},
      {"\xff\xd8\xff"sv, "an image: the model comes first, images are data"},
      {"\x93NUMPY"sv, "a NumPy array: the model comes first, arrays are data"},
      {"\x1f\x8b"sv, "compressed with gzip: decompress it first"}};
  for (const auto& [begin, what] : kFormats)
    if (bytes.starts_with(begin)) return std::string(what);
  // safetensors: the length of a JSON header, and the header.
  if (bytes.size() > 9 && bytes[8] == '{' && bytes[5] == 0 && bytes[6] == 0 && bytes[7] == 0)
    return "a safetensors file, which holds weights and no graph: export the model to ONNX";
  return "";
}

}  // namespace

OnnxFile read_onnx_file(const std::filesystem::path& path) {
  const std::filesystem::path directory = path.has_parent_path() ? path.parent_path() : ".";
  return {path.filename().string(), read_file(path, std::numeric_limits<int32_t>::max()), directory};
}

std::string onnx_versions() {
  return "ONNX opset " + std::to_string(kOldestOpset) + " to " + std::to_string(kNewestOpset) + ", Protocol Buffers " +
         google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION);
}

onnx::ModelProto parse_model(const OnnxFile& file) {
  const std::string place = "model '" + file.name + "'";
  const std::string& bytes = file.bytes;
  if (bytes.empty()) throw Error(place + ": the file is empty");
  if (bytes.starts_with("version https://git-lfs"))
    throw Error(place + ": this is a Git LFS pointer, not the model; fetch it with 'git lfs pull'");
  if (looks_like_text(bytes)) throw Error(place + ": this is a text file; a binary ONNX model is expected");
  if (const std::string other = other_format(bytes); !other.empty()) throw Error(place + ": this is " + other);
  onnx::ModelProto model;
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                static_cast<int>(bytes.size()));
  if (!model.ParseFromCodedStream(&stream) || !stream.ConsumedEntireMessage())
    throw Error(place + ": not a whole ONNX model; the file of " + std::to_string(bytes.size()) +
                " bytes is truncated, damaged or of another format");
  if (!model.has_graph()) throw Error(place + ": it has no graph; the file is truncated or of another format");
  Problems names;
  check_names(model, names);
  names.throw_if_any();
  return model;
}

bool is_exporters_name(const std::string& name) { return name.starts_with("val_") || name.starts_with("onnx::"); }

std::string canonical_domain(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

std::string operator_name(const onnx::NodeProto& node) {
  const std::string domain = canonical_domain(node.domain());
  return domain.empty() ? node.op_type() : domain + "." + node.op_type();
}

std::string operand_name(const onnx::NodeProto& node, int i) {
  return i < node.input_size() ? node.input(i) : std::string();
}

std::string result_name(const onnx::NodeProto& node, int i) {
  return i < node.output_size() ? node.output(i) : std::string();
}

std::string node_name(const onnx::NodeProto& node, int index) {
  return node.name().empty() ? node.op_type() + "_" + std::to_string(index) : node.name();
}

std::string describe(const onnx::NodeProto& node, int index) {
  return operator_name(node) + " '" + node_name(node, index) + "'";
}

}  // namespace halfstep
