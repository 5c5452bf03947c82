// Optimizers, one row each: the recipe's keys and what an update computes. The recipe reads the keys, the compiler
// makes nodes of the update; what follows from these (checkpoints, export, evaluation) knows no optimizer.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.h"
#include "base/terms.h"

namespace halfstep {

// One parameter by itself: its terms are tensors, which meet each other as numpy has it.
class ParameterContext {
 public:
  virtual ~ParameterContext() = default;
  virtual const Shape& shape() const = 0;  // in the model's file
  // The axis of the shape along which the outputs of the layer lie.
  virtual size_t output_axis() const = 0;
  virtual double weight_decay() const = 0;
  virtual bool is_apart() const = 0;   // as the row says
  virtual Term learning_rate() = 0;    // one number
  virtual Term of(Term elements) = 0;  // this parameter's part of a term for each element; a number stays one
  virtual Term sum(Term x, const std::vector<int64_t>& axes) = 0;  // no axes: all; keeps them with size 1
  virtual Term product(Term a, Term b) = 0;                        // of matrices
  virtual Term transposed(Term matrix) = 0;
  // A state of this parameter's own that begins at zero, of at least two axes.
  virtual Term slot(std::string_view name, const Shape& shape) = 0;

  Term norm(Term x);  // of the whole tensor
};

// What a row's update is computed with.
class UpdateContext : public TermContext {
 public:
  virtual double parameter(std::string_view name) const = 0;  // of the row
  virtual Term gradient() = 0;                                // unscaled and clipped, with its weight decay
  virtual Term learning_rate() = 0;
  virtual Term weights() = 0;  // before the step and its weight decay
  virtual Term weight_decay() = 0;
  // What `of_each` makes of every parameter by itself: a number, or a tensor of its shape. It costs kernels for each.
  virtual Term each(const std::function<Term(ParameterContext&)>& of_each) = 0;
  // One term for the parameters that the row sets apart, another for the others.
  virtual Term where_apart(Term apart, Term others) = 0;
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
  enum Kind : uint8_t { number, yes_or_no, whole } kind = number;
  std::string_view beside = {};  // the parameter without which, at 0, it has no effect
};

struct OptimizerRow {
  std::string_view name;
  std::string_view meaning;
  std::vector<HyperParameter> parameters;
  // weight_decay: added to the gradient, taken off the weights beside the step (decoupled), or part of the step.
  enum Decay : uint8_t { of_gradient, of_weights, of_step } decay = of_gradient;
  Term (*step)(UpdateContext&);  // what is subtracted from the parameters
  // Which parameters are set apart, by what they are; none where there is no `rest`: the optimizer of the others.
  enum Apart : uint8_t { none, matrices } apart = none;
  std::string_view rest = {};
  std::string_view source = "torch.optim";  // whose formula it is

  const HyperParameter* find(std::string_view parameter) const;  // nullptr: it has none
};

std::span<const OptimizerRow> optimizers();
const OptimizerRow* find_optimizer(std::string_view name);  // nullptr: there is none

// The running mean of the weights, and how many steps have made it.
inline constexpr OwnName kAverageArena{Role::slot, "ema"}, kAverageCount{Role::slot, "ema.updates"};

// By name, where they are given.
using HyperParameters = std::map<std::string, double, std::less<>>;
// Of a parameter that the row has.
double value_of(const OptimizerRow& row, std::string_view parameter, const HyperParameters& given);

}  // namespace halfstep
