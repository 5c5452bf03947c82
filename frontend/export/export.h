// Trained weights back into an ONNX inference model that keeps every name of the original.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/tensor.h"
#include "frontend/onnx/onnx_model.h"

namespace halfstep {

// `original` with the data of `trained` (by initializer name, in ONNX layout) and the nodes of inference
// (inference_form.h). Error if a tensor does not fit its initializer, or data is missing that was not trained.
OnnxModel inference_model(OnnxModel original, const FileTensors& trained);

// The inputs for all of whose axes the file says a size, and these.
std::map<std::string, Shape> fixed_inputs(const OnnxModel& model);

struct ExportOptions {
  // A model with more bytes of weights than this gets them in a file beside it, "<name>.data".
  int64_t largest_inline = 1'900'000'000;
  std::map<std::string, std::string> metadata = {};  // metadata_props; those of the original stay
};

// Writes inference_model(original, trained) to `path`, atomically. Element types stay as in the original. Error also
// if the file cannot be written.
void export_model(OnnxModel original, const FileTensors& trained, const std::filesystem::path& path,
                  const ExportOptions& options = {});
// The same of any model.
void export_model(OnnxModel model, const std::filesystem::path& path, const ExportOptions& options = {});

// How many dropouts the export that wrote the file left out; 0: none, or another program wrote it.
int64_t dropouts_left_out(const OnnxModel& model);

}  // namespace halfstep
