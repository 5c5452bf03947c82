// Losses that are taken element by element (base/losses.h), told by the formula that operators of a file compute.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/losses.h"

namespace halfstep {

// A formula as text, "abs(sub(x,y))": x the output, y its target, operations by the IR's names, the operands of those
// that commute in order, numbers as short as their float allows, "[1,2]" one for each class.
std::string formula_number(double value);
std::string formula_list(const std::vector<double>& values);
std::string formula_of(std::string_view op, std::vector<std::string> operands);
// Of a loss, which has an element's formula.
std::string formula_of(const OutputLoss& loss);

// Longer than any loss's, so that a file cannot ask for more.
inline constexpr size_t kLongestFormula = 4096;

// The loss whose formula is `text`, also where it takes the distance the other way round; `lists`: the numbers in it,
// which are what the loss's parameters are sought among. nullopt: no row's, or one of more numbers than any has.
std::optional<OutputLoss> loss_of_formula(const std::string& text, const std::vector<std::vector<double>>& lists,
                                          LossFunction::Sample sample);

}  // namespace halfstep
