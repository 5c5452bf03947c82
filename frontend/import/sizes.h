// A model exported at some sizes, read at others. A first import at the exported sizes records what it saw; in the
// second every dimension is a list of factors, by which the sizes that the exporter wrote into constants follow the
// inputs' where that can be proven.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/tensor.h"
#include "ir/attributes.h"

namespace halfstep {

// A number where both sizes are the same, else a symbol, which cannot be split: the batch, the length of a sequence,
// the extent of a convolution's result.
struct Factor {
  int64_t exported = 1;
  int64_t wanted = 1;
  bool is_number() const { return exported == wanted; }
  friend bool operator==(const Factor&, const Factor&) = default;
};

using Factors = std::vector<Factor>;  // of one dimension, the outermost first; none: 1
using Dimensions = std::vector<Factors>;

Dimensions numbers(const Shape& shape);
// Throws Error if a product overflows.
Shape exported_sizes(const Dimensions& dimensions);
Shape wanted_sizes(const Dimensions& dimensions);

// A reshape took `operand` to `exported_result`; the dimensions of its result. They are read by consuming the operand's
// factors in order: adjacent numbers are one and may be split, a symbol is taken whole. Nothing if that cannot be, or
// in more than one way (a symbol of exported size 1 between two dimensions).
std::optional<Dimensions> read_target(const Dimensions& operand, const Shape& exported_result);

// The dimensions of a result of which only the sizes are known: those of an operand's dimension of the same sizes, at
// the same place if there is one; else a number or a symbol of its own.
Dimensions inherit_dimensions(std::span<const Dimensions> operands, const Shape& exported, const Shape& wanted);

// What the import at the exported sizes saw.
struct Recording {
  std::unordered_map<std::string, std::vector<Shape>> results;  // by node; empty for a result that is left out
  std::unordered_map<std::string, Ints> constants;              // by node and operand
};

}  // namespace halfstep
