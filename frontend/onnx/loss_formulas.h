// Losses that are taken element by element (base/losses.h), told by the formula that operators of a file compute.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/losses.h"

namespace halfstep {

// The numbers of a formula, of which those that are one for each class are told by their place here.
using FormulaNumbers = std::vector<std::vector<double>>;

// A formula as text, "abs(sub(x,y))": x the output, y its target, operations by the IR's names, the operands of those
// that commute in order, numbers as short as their float allows, "[2]" the list at place 2.
std::string formula_number(double value);
std::string formula_list(const std::vector<double>& values, const FormulaNumbers& numbers);
std::string formula_of(std::string_view op, std::vector<std::string> operands);
// Of a loss, which has an element's formula.
std::string formula_of(const OutputLoss& loss, const FormulaNumbers& numbers);

// Longer than any loss's, so that a file cannot ask for more.
inline constexpr size_t kLongestFormula = 4096;

// The loss whose formula is `text`, also where it takes the distance the other way round; its parameters are sought
// among `numbers`, each of which is there once. nullopt: no row's, or one of more numbers than any has.
std::optional<OutputLoss> loss_of_formula(const std::string& text, const FormulaNumbers& numbers,
                                          LossFunction::Sample sample);

}  // namespace halfstep
