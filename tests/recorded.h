// What models/record_references.py recorded, and the tensors it was recorded on.
#pragma once

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "base/philox.h"
#include "base/tensor.h"

namespace halfstep {

// The tree the tests were built from; on another machine they are run from a copy of it.
inline std::filesystem::path source_directory() {
  const std::filesystem::path built_from = HALFSTEP_SOURCE_DIR;
  return std::filesystem::exists(built_from) ? built_from : std::filesystem::current_path();
}

inline nlohmann::json recorded(const std::string& name) {
  return nlohmann::json::parse(read_file(source_directory() / "tests/references" / (name + ".json")));
}

inline uint32_t crc32(const std::string& text) {
  uint32_t crc = ~0u;
  for (unsigned char c : text) {
    crc ^= c;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

// As philox.tensor of models/philox.py: every operation rounded to f32. `entry`: shape, low, high.
inline Tensor recorded_tensor(const std::string& name, const nlohmann::json& entry) {
  Tensor t(TensorType{DType::f32, entry.at("shape").get<Shape>()});
  const float low = entry.at("low"), high = entry.at("high");
  const uint32_t seed = crc32(name);
  uint64_t index = 0;
  for (float& value : t.as<float>()) value = low + (high - low) * philox_uniform(seed, 0, 0, index++);
  return t;
}

// As labels_of of models/record_references.py. `entry`: shape, classes.
inline Tensor recorded_labels(const nlohmann::json& entry) {
  Tensor t(TensorType{DType::i64, entry.at("shape").get<Shape>()});
  const float classes = entry.at("classes");
  const uint32_t seed = crc32("labels");
  uint64_t index = 0;
  for (int64_t& label : t.as<int64_t>())
    label = static_cast<int64_t>(std::floor(classes * philox_uniform(seed, 0, 0, index++)));
  return t;
}

}  // namespace halfstep
