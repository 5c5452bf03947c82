// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace halfstep {

class Sha256 {
 public:
  void add(std::span<const std::byte> bytes);
  std::string hex();  // of all that was added; adds nothing more

 private:
  void take_block();

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> block_{};
  size_t filled_ = 0;
  uint64_t bytes_ = 0;
};

// Error if the file cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace halfstep
