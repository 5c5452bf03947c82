// What a fuzzer runs: an Error is an answer, all else that is thrown ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/file.h"

namespace halfstep::test {

template <typename Body>
int read_or_refuse(const Body& body) {
  try {
    body();
  } catch (const Error&) {
  }
  return 0;
}

inline std::string text_of(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// For the files of one process.
inline std::string directory() {
  static const TemporaryDirectory directory;
  return directory.path().string();
}

}  // namespace halfstep::test
