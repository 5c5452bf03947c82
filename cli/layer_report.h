// What layers take of a step, as a table of what takes most.
#pragma once

#include <string>
#include <vector>

#include "training/layer_times.h"

namespace halfstep {

// The `most` largest, and what the rest takes; for lines of `columns`, 0: of any length.
std::string layers_text(const std::vector<LayerTime>& layers, size_t columns, size_t most = 12);

}  // namespace halfstep
