// How far a correct execution of a graph may lie from the interpreter's: Monte Carlo arithmetic (Parker, Pierce and
// Eggert 2000). Every node's result is moved by up to what one correct computation of this node may be wrong by, and
// rounded to its type; what comes out at the end of several such runs shows how the graph amplifies that, through
// cancellation, comparisons and ties. A node that computes the same of the same operands is moved alike, as a kernel
// that computes a value again gets the same bits.
#pragma once

#include "ir/interpret.h"
#include "program/program.h"

namespace halfstep::fuzz {

// What one computation of a node may be wrong by, in every floating element:
// - a pointwise body in f32: IEEE arithmetic as it is, but products, which may go unrounded into a sum; elementary
//   functions to kFunctionError units in the last place;
// - a sum of n products, in any order: n * 2^-24 * sum |x y|; none where all partial sums are exact in f32;
// - on a GPU, of low operands: tensor cores shorten the terms of a sum to those bits that its largest one has in f32
//   (Fasi, Higham, Mikaitis and Pranesh 2021), twice the unit and never exact; cuDNN rounds a convolution's result to
//   the operands' type, also where it writes f32, as PyTorch's autocast does. There IEEE arithmetic has a unit, too.
// - nothing where elements are moved or chosen.
//
// Where everything is rounded, several sources that become one tensor (pad, concat, scatter) are rounded as they meet,
// but no constant below a type's normal numbers is; a gradient that meets a cast to a low type is rounded there, up or
// down, or not at all, since casts change places with movements and sums.
inline constexpr double kFunctionError = 2.5;          // codegen/emit/emit_math.h
inline constexpr double kDistributionError = 0x1p-22;  // absolute; there too

enum class Rounded : uint8_t {
  to_type,     // each result to its own type, to nearest
  low_only,    // as the graph says where it says f16 or bf16, nothing else
  everything,  // so, and all f32 results and leaves to one type, up or down at random
};

struct Perturbation {
  uint64_t run = 0;
  Rounded rounded = Rounded::to_type;
  DType type = DType::f32;  // of Rounded::everything
  bool mixed = false;       // of Rounded::everything: the results of some ops to f32 instead
  bool nearest = false;     // of Rounded::everything: the forward to nearest, with nothing moved
  DeviceKind device = DeviceKind::cpu;
};

using Observe = std::function<void(NodeId, const std::vector<InterpretedTensor>&)>;
// Outputs and updates of one run. `graph` holds no composites.
InterpretResult interpret_perturbed(const Graph& graph, const NamedTensors& leaves, const Perturbation& perturbation,
                                    const Observe& observe = nullptr);
// In double, with the roundings that the graph asks for itself: Rounded::low_only, and nothing moved.
InterpretResult interpret_exactly(const Graph& graph, const NamedTensors& leaves, const Observe& observe = nullptr);

}  // namespace halfstep::fuzz
