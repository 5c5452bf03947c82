// Functions of the CUDA driver, found when they are wanted: the library loads where there is no driver, and its tests
// can say so.
#pragma once

#include <string>

namespace halfstep {

// Throws Error naming the function if the driver has none, of the version that CUDA 12.0 introduced or kept.
void* find_driver_function(const char* name);

template <typename Function>
Function* driver_function(const char* name) {
  return reinterpret_cast<Function*>(find_driver_function(name));
}

}  // namespace halfstep
