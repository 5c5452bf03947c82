#include "frontend/repairs/read_model.h"

#include "frontend/repairs/constant_weights.h"

namespace halfstep {

OnnxModel read_model(const OnnxFile& file) {
  OnnxModel model(file);
  store_constant_weights(model.edit());
  return model;
}

OnnxModel read_model(const std::filesystem::path& path) { return read_model(read_onnx_file(path)); }

}  // namespace halfstep
