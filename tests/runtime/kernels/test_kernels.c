// What codegen would emit: void kernel(void* const* arguments, int64_t begin, int64_t end).
#include <stdint.h>

void affine(void* const* arguments, int64_t begin, int64_t end) {
  const float* from = arguments[0];
  float* to = arguments[1];
  for (int64_t i = begin; i < end; ++i) to[i] = 2 * from[i] + 1;
}

// Counts the visits of every unit and notes in which range it was.
void visit(void* const* arguments, int64_t begin, int64_t end) {
  int64_t* visits = arguments[0];
  int64_t* begins = arguments[1];
  for (int64_t i = begin; i < end; ++i) {
    ++visits[i];
    begins[i] = begin;
  }
}
