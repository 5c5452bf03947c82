// A model as it is in its file, with texts beside its nodes.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "frontend/onnx/onnx_file.h"

namespace halfstep {

using NodeTexts = std::vector<std::pair<std::string, std::string>>;

// Writes `file` to `path` with metadata_props (IR version 10) for each node of the main graph, in its order. Error
// where weights lie beside the file and `path` is in another folder, or it cannot be written.
void annotate_model(const OnnxFile& file, const std::vector<NodeTexts>& texts, const std::filesystem::path& path);

}  // namespace halfstep
