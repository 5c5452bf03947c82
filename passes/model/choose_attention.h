// Attention that a library's fused kernels take becomes one call, without its scores in memory:
//
//   %q = transpose(%1) {permutation=[0,2,1,3]}    ->    %y, %s = flash_attention(%1, %2, %3) {causal=1, scale=0.125}
//   %y, %m, %s = attention(%q, %k, %v) {...}            %r = transpose(%y) {permutation=[0,2,1,3]}
//
// q, k and v that are the parts of one projection's result stay there, and so do their gradients: one operand and
// key_heads=12. The one place that decides it, from types and shapes alone: f16 and bf16, depths up to 128 that are
// multiples of 8, no dropout (ours is the same on every device, the library's is its own), no softcap, and no mask but
// the causal one, under which every query sees a key. All else stays, and is expanded later. Runs after autocast, which
// gives the types, and before differentiate: the gradient is a call too, and reads the logarithm that this one keeps.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// deterministic: gradients are summed in one order, with memory for all scores.
enum class AttentionForm : uint8_t { expanded, library, deterministic };

Graph choose_attention(const Graph& graph, AttentionForm form);

}  // namespace halfstep
