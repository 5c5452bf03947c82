// What the names of an ONNX graph stand for while it is imported.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "frontend/import/sizes.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/ties.h"
#include "ir/graph.h"

namespace halfstep {

// What an ONNX name stands for.
struct Binding {
  enum Kind : uint8_t {
    value,
    initializer,
    sequence,     // of tensors; its length is known while importing
    left_out,     // an operand that a function's call does not give, an optional without its element
    unsupported,  // a result that its operator's row does not make
    failed,       // its node's problem is reported already
  } kind = failed;
  Value as_value = {};
  const onnx::TensorProto* tensor = nullptr;  // of an initializer: becomes a leaf or a constant where it is read
  Tie::Orientation orientation = Tie::same;   // of an initializer that repeats `tensor`
  Dimensions dimensions = {};                 // of a value that is read at other sizes than exported
  std::vector<Binding> elements = {};         // of a sequence
  int32_t narrow = 0;                         // of a value whose ONNX type has fewer bits than what holds it: that type
};

// The names that are visible in a graph, a branch or a function body.
struct Scope {
  const Scope* outer = nullptr;
  std::string prefix = {};  // of node names; keeps the calls of a function apart
  const Opsets* opsets = nullptr;
  std::unordered_map<std::string_view, Binding> bindings = {};  // by names that the model holds

  const Binding* find(std::string_view name) const;  // nullptr where nothing visible has the name
  const Binding& at(const std::string& name) const;  // Error there
};

}  // namespace halfstep
