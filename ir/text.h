// Graphs as text: the debug dump, the --stop-after output and the test format. parse(print(g)) prints the same again.
//
//   graph lenet {
//     %0 = input() {name="x"} : f32[128,28,28,1]
//     %1 = parameter() {name="c1.weight", permutation=[0,2,3,1]} : f32[32,3,3,1]
//     %2 = convolution(%0, %1) {pads_begin=[1,1], pads_end=[1,1]} : f32[128,28,28,32] @"Conv_0"
//     %3, %4 = max_pool(%2) {window=[2,2], strides=[2,2]} : f32[128,14,14,32], u8[128,14,14,32] @"pool" backward
//     %5 = state() {name="momentum", role="slot"} : f32[1024]
//     output "y" = %3
//     output measure "loss" = %6
//     update %5 = %9
//   }
//
// The role of a name that is none of the model's stands with it. Attributes equal to their default are left out. `_` is
// an absent operand. Leaves carry their type; the types of other nodes are optional on input and checked if given.
// Tensors: {value=f32[2](1, 2)}; dtypes: to=f16; a region is a nested graph.
#pragma once

#include <string>
#include <string_view>

#include "ir/graph.h"

namespace halfstep {

std::string print(const Graph& graph);
// Throws Error with line and column.
Graph parse_graph(std::string_view text);

}  // namespace halfstep
