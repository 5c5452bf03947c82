// The same with changes of the message instead of its bytes, so that what is read stays an ONNX file.
#include <cstring>

#include "tests/libfuzzer/target.h"
#include "tests/untrusted/cases.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace halfstep::test;
  return read_or_refuse([&] { check_bytes(text_of(data, size), directory()); });
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  using namespace halfstep::test;
  Random random(seed);
  const std::string mutant = mutated_model(text_of(data, size), random);
  if (mutant.size() > most) return size;
  std::memcpy(data, mutant.data(), mutant.size());
  return mutant.size();
}
