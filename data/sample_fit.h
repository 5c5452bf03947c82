// Whether and how the samples of an array become those of an input.
#pragma once

#include <cstdint>
#include <string>

#include "data/data.h"
#include "program/program.h"

namespace halfstep {

// Axes of size 1 do not count. Where one of both has a single axis then, elements keep their order: [28,28] is [784].
// Where the array has its last axis first in the input or its first one last, as images of the other layout have their
// channels, samples are transposed. Nothing else fits, however many elements it has.
struct SampleFit {
  enum Kind : uint8_t { none, same, flat, transposed } kind = none;
  int64_t columns = 0;  // transposed: of the array's sample as a matrix
};
SampleFit fit_sample(const Buffer& input, const TensorType& array);

// The array's type can become the input's, and its samples fit.
bool fits(const Buffer& input, const TensorType& array);

// Both shapes, and what may be wrong; `what` names the array: "data array 'x'".
std::string misfit(const Buffer& input, const std::string& what, const TensorType& array);
// What the user should know of the fit; empty: nothing.
std::string describe(const SampleFit& fit, const Buffer& input, const std::string& what, const TensorType& array);
// Why the array's values are none of the input; empty: they are. Bytes, which images hold, become floating numbers
// only where they are `scaled`.
std::string conversion_problem(const Buffer& input, const NamedArray& array, bool scaled);

}  // namespace halfstep
