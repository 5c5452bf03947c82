// Presets of autocast: each a table of rows and a way of propagating types between what the rows decide.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ir/op.h"

namespace halfstep {

// How the types of nodes that the rows leave open follow from the others'.
enum class Propagation : uint8_t {
  // Kernels that compute in f32 write what their readers take; weights and constants promote nothing.
  readers,
  // As PyTorch's dispatcher: operands decide, and f32 tensors that are no scalars promote.
  operands,
  // As TensorFlow's grappler: low = allow, full = deny, widest = infer, follow = clear; what has no row is f32. Colours
  // spread from allow and deny, and casts stand at their borders.
  colours,
  // None: a node has the class of its row, and what has no row follows its operands.
  rows,
};

struct PresetRow {
  std::string_view pattern;  // an operator, ours or ONNX's; "*": every node of the model
  Precision precision = Precision::follow;
  std::string_view list;  // where the source has it
};

struct Preset {
  std::string_view name;
  std::string_view version;  // of what it is taken from
  std::string_view source;
  Propagation propagation = Propagation::readers;
  enum OperatorRows : uint8_t { below, none } operator_rows = below;  // whether ir/ops decides what has no row here
  enum LossScale : uint8_t { dynamic, one } loss_scale = dynamic;     // in fp16, with loss_scale auto
  enum Masters : uint8_t { f32, rounded } masters = f32;              // rounded: weights hold values of the low type
  std::span<const PresetRow> rows;                                    // the last one that matches decides
};

std::span<const Preset> presets();
// "default" is "halfstep". Error with the nearest name for another.
const Preset& find_preset(std::string_view name);
// nullptr if there is none.
const Preset* preset_or_null(std::string_view name);
// "torch 2.11".
std::string to_string(const Preset& preset);

}  // namespace halfstep
