// What the states of a compiled model start as.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "program/program.h"

namespace halfstep {

using Piece = std::span<const std::byte>;

// The arena that `arena` repeats in a low type: "parameters" of "parameters.f16".
std::optional<Name> base_of_low_copy(const CompiledModel& model, const Name& arena);

// The initial contents of the state `name`, in pieces in their order, each valid while `take` runs; none for zeros. A
// low copy whose contents are not given is made of its arena's, piece by piece: it takes no memory.
void read_initial_state(const CompiledModel& model, const Name& name, DType dtype,
                        const std::function<void(Piece)>& take);

}  // namespace halfstep
