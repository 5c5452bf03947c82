// Optimizers, one row each: the recipe's keys and what an update computes. The recipe reads the keys, the compiler
// makes nodes of the update; what follows from these (checkpoints, export, evaluation) knows no optimizer.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/terms.h"

namespace halfstep {

// What a row's update is computed with.
class UpdateContext : public TermContext {
 public:
  virtual double parameter(std::string_view name) const = 0;  // of the row
  virtual Term gradient() = 0;                                // unscaled and clipped, with its weight decay
  virtual Term learning_rate() = 0;
  // States that begin at zero, by the names that checkpoints know them by.
  virtual Term slot(std::string_view name) = 0;   // for each element
  virtual Term count(std::string_view name) = 0;  // one number
  virtual void set(Term state, Term after) = 0;   // unless the step overflows
};

// A key of the recipe; rows that share one share its range.
struct HyperParameter {
  std::string_view name;
  double value = 0;  // where it is not given
  double least = 0, most = std::numeric_limits<double>::infinity();
  enum Kind : uint8_t { number, yes_or_no } kind = number;
  std::string_view beside = {};  // the parameter without which, at 0, it has no effect
};

struct OptimizerRow {
  std::string_view name;
  std::string_view meaning;
  std::vector<HyperParameter> parameters;
  // weight_decay: added to the gradient, or taken off the weights beside the step (decoupled).
  enum Decay : uint8_t { of_gradient, of_weights } decay = of_gradient;
  Term (*step)(UpdateContext&);  // what is subtracted from the parameters

  const HyperParameter* find(std::string_view parameter) const;  // nullptr: it has none
};

std::span<const OptimizerRow> optimizers();
const OptimizerRow* find_optimizer(std::string_view name);  // nullptr: there is none

// By name, where they are given.
using HyperParameters = std::map<std::string, double, std::less<>>;
// Of a parameter that the row has.
double value_of(const OptimizerRow& row, std::string_view parameter, const HyperParameters& given);

}  // namespace halfstep
