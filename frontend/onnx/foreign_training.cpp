#include "frontend/onnx/foreign_training.h"

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <fstream>

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

// The fields of a ModelProto are stepped over by their sizes.
bool carries_training_step(const fs::path& model) {
  enum WireType : uint64_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
  constexpr uint64_t kTrainingInfo = 20;
  std::ifstream file(model, std::ios::binary);
  const auto read_varint = [&] {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const int byte = file.get();
      if (byte == EOF) break;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  while (file && file.peek() != EOF) {
    const uint64_t tag = read_varint();
    if (tag >> 3 == kTrainingInfo) return (tag & 7) == bytes;
    switch (tag & 7) {
      case varint:
        read_varint();
        break;
      case fixed64:
        file.seekg(8, std::ios::cur);
        break;
      case fixed32:
        file.seekg(4, std::ios::cur);
        break;
      case bytes: {
        constexpr uint64_t kMost = uint64_t{1} << 31;
        const uint64_t size = read_varint();
        if (size > kMost) return false;
        file.seekg(static_cast<std::streamoff>(size), std::ios::cur);
        break;
      }
      default:
        return false;  // no such message, as the reader will say
    }
  }
  return false;
}

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
