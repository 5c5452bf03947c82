// The bytes of an ONNX file: read, import and the passes up to the gradients.
#include "tests/libfuzzer/target.h"
#include "tests/untrusted/cases.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace halfstep::test;
  return read_or_refuse([&] { check_bytes(text_of(data, size), directory()); });
}
