// What a file may make the import do. Beyond it the import ends with an Error that names the budget.
#pragma once

#include <cstdint>

namespace halfstep {

struct ImportBudget {
  int64_t nodes = 200'000;                  // with functions inlined and loops unrolled
  int64_t iterations = 50'000;              // of all loops together
  int64_t folded_bytes = int64_t{1} << 26;  // of all values that are evaluated, as doubles
  int64_t folded_operations = int64_t{1} << 24;
};

}  // namespace halfstep
