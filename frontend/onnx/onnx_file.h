// An ONNX file as it came from disk.
#pragma once

#include <filesystem>
#include <string>

namespace halfstep {

struct OnnxFile {
  std::string name;                 // for messages
  std::string bytes;                // a serialized ModelProto
  std::filesystem::path directory;  // the only place its external data may lie in
};

// Throws Error if the file cannot be read or is larger than a protobuf message can be (2 GiB).
OnnxFile read_onnx_file(const std::filesystem::path& path);

// What models can be read: "ONNX opset 7 to 25, Protocol Buffers 3.21.12".
std::string onnx_versions();

}  // namespace halfstep
