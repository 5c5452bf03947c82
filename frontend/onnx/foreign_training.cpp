#include "frontend/onnx/foreign_training.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <vector>

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

namespace {

// A file's bytes one after the other, read in blocks; what is skipped within a block is not read again.
class Bytes {
 public:
  explicit Bytes(const fs::path& path) : file_(path, std::ios::binary) {}

  int next() {
    if (at_ == end_) {
      file_.read(block_.data(), static_cast<std::streamsize>(block_.size()));
      at_ = 0, end_ = static_cast<size_t>(file_.gcount());
      if (end_ == 0) return EOF;
    }
    return static_cast<unsigned char>(block_[at_++]);
  }
  void skip(uint64_t count) {
    const uint64_t here = std::min<uint64_t>(count, end_ - at_);
    at_ += static_cast<size_t>(here);
    if (count > here) file_.seekg(static_cast<std::streamoff>(count - here), std::ios::cur);
  }

 private:
  std::ifstream file_;
  std::vector<char> block_ = std::vector<char>(1 << 16);
  size_t at_ = 0, end_ = 0;
};

}  // namespace

// The fields of a ModelProto are stepped over by their sizes.
bool carries_training_step(const fs::path& model) {
  enum WireType : uint64_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
  constexpr uint64_t kTrainingInfo = 20, kMost = uint64_t{1} << 31;
  std::error_code unreadable;
  if (!fs::is_regular_file(model, unreadable)) return false;  // the reader says what it is; a pipe would not end
  Bytes file(model);
  bool ended = false;
  const auto read_varint = [&] {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const int byte = file.next();
      ended |= byte == EOF;
      if (byte == EOF) break;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  while (true) {
    const uint64_t tag = read_varint();
    if (ended || tag >> 3 == 0) return false;  // no such message, as the reader will say
    if (tag >> 3 == kTrainingInfo) return (tag & 7) == bytes;
    switch (tag & 7) {
      case varint:
        read_varint();
        break;
      case fixed64:
        file.skip(8);
        break;
      case fixed32:
        file.skip(4);
        break;
      case bytes: {
        const uint64_t size = read_varint();
        if (size > kMost) return false;
        file.skip(size);
        break;
      }
      default:
        return false;
    }
  }
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
