// A message as an ONNX file, and where it is large its tensors in a file beside it.
#pragma once

#include <onnx/onnx_pb.h>

#include <filesystem>
#include <map>
#include <string>

namespace halfstep {

void add_metadata(onnx::ModelProto& model, const std::map<std::string, std::string>& metadata);
// Atomically. Error if the file cannot be written.
void write_model(onnx::ModelProto& model, const std::filesystem::path& path, int64_t largest_inline);

}  // namespace halfstep
