// What can be told of a program without running it: whether its places hold, and which steps depend on which.
#pragma once

#include <functional>
#include <string>

#include "program/program.h"

namespace halfstep {

// check(Program) for callers that know better names for buffers and steps than their numbers: the parser has lines.
struct PlaceNames {
  std::function<std::string(size_t index)> buffer, step;
};

void check(const Program& program, const PlaceNames& names);

enum class Access : uint8_t { read, write };

// A step's use of one dense place.
struct MemoryUse {
  std::string name;  // "a", "x", "argument 3"
  Ref ref;
  int64_t bytes = 0;
  Access access = Access::read;
};
// Everything a step touches. Throws Error if its sizes make no sense.
std::vector<MemoryUse> memory_uses(const Program& program, const Step& step);

// For each step the earlier steps it must wait for: it reads or overwrites what they wrote, or overwrites what they
// read. Only those that no other of them waits for already.
std::vector<std::vector<size_t>> dependencies(const Program& program);

}  // namespace halfstep
