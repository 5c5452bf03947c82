#include "frontend/onnx/foreign_training.h"

#include <onnx/onnx_pb.h>

#include <cstdint>

#include "base/error.h"
#include "base/file.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

// "adamw" or "sgd" by the operator of the optimizer's model; "" where it is neither.
std::string optimizer_of(const fs::path& model) {
  constexpr int64_t kLargest = 1 << 24;
  try {
    const std::string bytes = read_file(model, kLargest);
    if (bytes.find("AdamWOptimizer") != std::string::npos) return "adamw";
    if (bytes.find("SGDOptimizer") != std::string::npos) return "sgd";
  } catch (const Error&) {  // there may be none
  }
  return "";
}

}  // namespace

bool carries_training_step(const OnnxModel& model) { return model.proto().training_info_size() > 0; }

std::optional<std::string> advice_on_artefacts(const fs::path& directory) {
  std::error_code unreadable;
  const bool training = fs::exists(directory / "training_model.onnx", unreadable),
             checkpoint = fs::exists(directory / "checkpoint", unreadable);
  if (!training || !checkpoint) return std::nullopt;
  const std::string optimizer = optimizer_of(directory / "optimizer_model.onnx");
  return "'" + directory.string() +
         "' holds artefacts of onnxruntime-training, whose gradients and checkpoint are not read: give the model they "
         "were generated from, or, for the checkpoint's weights, what its Module.export_model_for_inferencing writes" +
         (optimizer.empty() ? "" : "; the optimizer there is --optimizer " + optimizer);
}

}  // namespace halfstep
