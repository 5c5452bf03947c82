// CRC-32C (Castagnoli), as iSCSI and TFRecord files have it.
#pragma once

#include <cstdint>
#include <string_view>

namespace halfstep {

// Of "123456789": 0xe3069283.
uint32_t crc32c(std::string_view bytes);

}  // namespace halfstep
