// Inputs for measuring a step where there is no data.
#pragma once

#include <cstddef>
#include <span>

#include "program/program.h"

namespace halfstep {

// Fills the spans of Executor::begin_step for `program`, always with the same values: floating inputs from the standard
// normal distribution; integers that have a bound (labels, rows of a table) below it, others and bools 0 or 1; the
// step's own inputs as in its first step, at `learning_rate`.
void fill_random(const CompiledModel& model, const Program& program, double learning_rate,
                 std::span<const std::span<std::byte>> staging);

}  // namespace halfstep
