#include "base/optimizers.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace halfstep {

namespace {

constexpr HyperParameter kMomentum{.name = "momentum", .most = 1};
constexpr HyperParameter kEpsilon{.name = "epsilon", .value = 1e-8};

// torch.optim.SGD
Term sgd(UpdateContext& u) {
  const double momentum = u.parameter("momentum"), dampening = u.parameter("dampening");
  const Term g = u.gradient();
  if (momentum == 0) return g * u.learning_rate();
  const Term before = u.slot("momentum");
  Term after = before * momentum + g * (1 - dampening);
  if (dampening != 0) {
    // The first step's buffer is the gradient itself.
    const Term started = u.count("momentum.started");
    after = where_less(u.constant(0), started, after, g);
    u.set(started, u.constant(1));
  }
  u.set(before, after);
  return (u.parameter("nesterov") != 0 ? g + after * momentum : after) * u.learning_rate();
}

// 1 - beta^step, without cancellation: with y = step log(beta), a Taylor series of -(e^y - 1) near 0.
Term bias_correction(UpdateContext& u, Term step, double beta) {
  constexpr int kTerms = 5;
  const Term y = step * std::log(beta);
  Term series = u.constant(1);  // (e^y - 1) / y = 1 + y/2 (1 + y/3 (1 + ...))
  for (int k = kTerms; k > 1; --k) series = y * series * (1.0 / k) + 1;
  // One after the other: the order of arguments would be the compiler's.
  const Term near = -(y * series), far = 1 - exp(y);
  return where_less(u.constant(-0.125), y, near, far);
}

// torch.optim.Adam, AdamW
Term adam(UpdateContext& u) {
  const double beta1 = u.parameter("beta1"), beta2 = u.parameter("beta2");
  const Term g = u.gradient(), m = u.slot("adam.m"), v = u.slot("adam.v"), count = u.count("adam.step");
  const Term step = count + 1;
  const Term first = m + (g - m) * (1 - beta1), second = v * beta2 + g * g * (1 - beta2);
  u.set(m, first);
  u.set(v, second);
  u.set(count, step);
  const Term size = u.learning_rate() / bias_correction(u, step, beta1);
  const Term spread = sqrt(bias_correction(u, step, beta2));
  return first / (sqrt(second) / spread + u.parameter("epsilon")) * size;
}

// torch.optim.RMSprop
Term rmsprop(UpdateContext& u) {
  const double alpha = u.parameter("alpha"), momentum = u.parameter("momentum");
  const Term g = u.gradient(), squares = u.slot("rmsprop.v");
  const Term square = squares * alpha + g * g * (1 - alpha);
  u.set(squares, square);
  Term variance = square;
  if (u.parameter("centered") != 0) {
    const Term mean = u.slot("rmsprop.g"), after = mean + (g - mean) * (1 - alpha);
    u.set(mean, after);
    variance = square - after * after;
    // What cancels may fall below 0, where torch.optim has no number any more.
    variance = where_less(variance, u.constant(0), u.constant(0), variance);
  }
  Term step = g / (sqrt(variance) + u.parameter("epsilon"));
  if (momentum != 0) {
    const Term before = u.slot("rmsprop.momentum");
    step = before * momentum + step;
    u.set(before, step);
  }
  return step * u.learning_rate();
}

// Adam of ai.onnx.preview.training: epsilon beside the uncorrected root, and a count that the file starts at 0 or 1.
Term onnx_adam(UpdateContext& u) {
  const double beta1 = u.parameter("beta1"), beta2 = u.parameter("beta2");
  const Term g = u.gradient(), m = u.slot("adam.m"), v = u.slot("adam.v"), count = u.count("adam.step");
  const Term first = m * beta1 + g * (1 - beta1), second = v * beta2 + g * g * (1 - beta2);
  u.set(m, first);
  u.set(v, second);
  u.set(count, count + 1);
  const Term updates = count + u.parameter("first_count"), rate = u.learning_rate();
  const Term corrected = rate * sqrt(bias_correction(u, updates, beta2)) / bias_correction(u, updates, beta1);
  const Term size = where_less(u.constant(0), updates, corrected, rate);
  return first / (sqrt(second) + u.parameter("epsilon")) * size;
}

// torch.optim.Adagrad
Term adagrad(UpdateContext& u) {
  const Term g = u.gradient(), squares = u.slot("adagrad.sum");
  const Term sum = squares + g * g;
  u.set(squares, sum);
  Term size = u.learning_rate();
  if (const double decay = u.parameter("rate_decay"); decay != 0) {
    const Term count = u.count("adagrad.step");
    u.set(count, count + 1);
    size = size / (count * decay + 1);
  }
  return g / (sqrt(sum) + u.parameter("epsilon")) * size;
}

const std::vector<HyperParameter> kAdam{
    {.name = "beta1", .value = 0.9, .most = 1}, {.name = "beta2", .value = 0.999, .most = 1}, kEpsilon};

const std::vector<OptimizerRow> kRows{
    {.name = "sgd",
     .meaning = "stochastic gradient descent, with momentum where it is given",
     .parameters = {kMomentum,
                    {.name = "nesterov", .most = 1, .kind = HyperParameter::yes_or_no, .beside = "momentum"},
                    {.name = "dampening", .most = 1, .beside = "momentum"}},
     .step = sgd},
    {.name = "adam",
     .meaning = "first and second moments of the gradient, corrected for their start",
     .parameters = kAdam,
     .step = adam},
    {.name = "adamw",
     .meaning = "adam with decoupled weight decay",
     .parameters = kAdam,
     .decay = OptimizerRow::of_weights,
     .step = adam},
    {.name = "rmsprop",
     .meaning = "the gradient over the root of its running mean square, or variance where centered",
     .parameters = {{.name = "alpha", .value = 0.99, .most = 1},
                    kEpsilon,
                    kMomentum,
                    {.name = "centered", .most = 1, .kind = HyperParameter::yes_or_no}},
     .step = rmsprop},
    {.name = "adagrad",
     .meaning = "the gradient over the root of the sum of its squares",
     .parameters = {{.name = "rate_decay"}, {.name = "epsilon", .value = 1e-10}},
     .step = adagrad},
    {.name = "onnx_adam",
     .meaning = "adam as ai.onnx.preview.training has it: epsilon is not corrected for the start",
     .parameters = {{.name = "beta1", .value = 0.9, .most = 1},
                    {.name = "beta2", .value = 0.999, .most = 1},
                    {.name = "epsilon", .value = 1e-6},
                    {.name = "first_count", .value = 1, .most = 1}},
     .step = onnx_adam},
};

}  // namespace

const HyperParameter* OptimizerRow::find(std::string_view parameter) const {
  const auto found = std::ranges::find(parameters, parameter, &HyperParameter::name);
  return found == parameters.end() ? nullptr : &*found;
}

std::span<const OptimizerRow> optimizers() { return kRows; }

const OptimizerRow* find_optimizer(std::string_view name) {
  const auto found = std::ranges::find(kRows, name, &OptimizerRow::name);
  return found == kRows.end() ? nullptr : &*found;
}

double value_of(const OptimizerRow& row, std::string_view parameter, const HyperParameters& given) {
  const HyperParameter* found = row.find(parameter);
  require(found != nullptr, "an optimizer's update reads parameters of its row");
  const auto value = given.find(parameter);
  return value == given.end() ? found->value : value->second;
}

}  // namespace halfstep
