// Types of ONNX's operators: what must be cast with what.
#pragma once

#include <cstdint>
#include <string_view>

namespace halfstep {

struct TypeRow {
  std::string_view op;  // of the standard domain
  int64_t since;        // the version of the operator set
  bool f16, bf16;       // whether the type may be these
  // A letter each: T of that type, U of one that follows it, - of another; a last * repeats the letter before it.
  std::string_view operands, results;

  char operand(size_t i) const { return letter(operands, i); }
  char result(size_t i) const { return letter(results, i); }

 private:
  static char letter(std::string_view letters, size_t i);
};

// nullptr: values of other types, or none of floating type.
const TypeRow* find_type_row(std::string_view op, int64_t opset);

}  // namespace halfstep
