// The message of the Error that `body` throws; "" if it throws none. Other exceptions pass through.
#pragma once

#include <string>

#include "base/error.h"

namespace halfstep {

template <typename Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace halfstep
