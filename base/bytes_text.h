// Sizes as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace halfstep {

// "12 B", "1.5 KiB", "12.0 MiB".
std::string bytes_text(int64_t bytes);

}  // namespace halfstep
