#include "base/optimizers.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace halfstep {

Term ParameterContext::norm(Term x) { return sqrt(sum(x * x, {})); }

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr HyperParameter kMomentum{.name = "momentum", .most = 1};
constexpr HyperParameter kEpsilon{.name = "epsilon", .value = 1e-8};
constexpr HyperParameter kBeta1{.name = "beta1", .value = 0.9, .most = 1},
    kBeta2{.name = "beta2", .value = 0.999, .most = 1};
constexpr HyperParameter kAlwaysAdapt{.name = "always_adapt", .most = 1, .kind = HyperParameter::yes_or_no},
    kTrustClip{.name = "trust_clip", .most = 1, .kind = HyperParameter::yes_or_no};

// x' = x + (to - x) * share
Term nearer(Term x, Term to, double share) { return x + (to - x) * share; }

// What SGD makes of a gradient.
Term with_momentum(UpdateContext& u, Term g) {
  const double momentum = u.parameter("momentum"), dampening = u.parameter("dampening");
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

// torch.optim.SGD
Term sgd(UpdateContext& u) { return with_momentum(u, u.gradient()); }

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

// First and second moments, kept, and what corrects them for their start.
struct Moments {
  Term first, second, step, correction1, spread;  // spread: the root of the second's correction
};
Moments moments(UpdateContext& u) {
  const double beta1 = u.parameter("beta1"), beta2 = u.parameter("beta2");
  const Term g = u.gradient(), m = u.slot("adam.m"), v = u.slot("adam.v"), count = u.count("adam.step");
  const Term step = count + 1;
  const Term first = nearer(m, g, 1 - beta1), second = v * beta2 + g * g * (1 - beta2);
  u.set(m, first);
  u.set(v, second);
  u.set(count, step);
  const Term correction1 = bias_correction(u, step, beta1);
  return {first, second, step, correction1, sqrt(bias_correction(u, step, beta2))};
}

// torch.optim.Adam, AdamW
Term adam(UpdateContext& u) {
  const Moments m = moments(u);
  Term largest = m.second;
  if (u.parameter("amsgrad") != 0) {
    const Term before = u.slot("adam.v_max");
    largest = max(before, m.second);
    u.set(before, largest);
  }
  const Term size = u.learning_rate() / m.correction1;
  return m.first / (sqrt(largest) / m.spread + u.parameter("epsilon")) * size;
}

// torch.optim.NAdam. What it multiplies up is kept as 1 minus it: a state begins at 0, and nothing cancels.
Term nadam(UpdateContext& u) {
  const double beta1 = u.parameter("beta1"), decay = std::log(0.96) * u.parameter("momentum_decay");
  const Moments m = moments(u);
  const Term before = u.count("nadam.rest");
  const auto mu_at = [&](Term step) { return (1 - exp(step * decay) * 0.5) * beta1; };
  const Term mu = mu_at(m.step), next = mu_at(m.step + 1);
  const Term rest = (1 - mu) + before * mu, rest_next = (1 - next) + rest * next;
  u.set(before, rest);
  const Term spread = sqrt(m.second) / m.spread + u.parameter("epsilon"), rate = u.learning_rate();
  const Term of_gradient = rate * (1 - mu) / rest, of_moment = rate * next / rest_next;
  return u.gradient() / spread * of_gradient + m.first / spread * of_moment;
}

// torch.optim.RAdam. rho_t, there a difference of two numbers near 2000, is 2 T / S - 1 of two sums: S of beta2^k, T of
// (k + 1) beta2^k.
Term radam(UpdateContext& u) {
  const double beta2 = u.parameter("beta2"), longest = 2 / (1 - beta2) - 1;
  const Moments m = moments(u);
  const Term sum = u.count("radam.sum"), weighted = u.count("radam.weighted");
  const Term power = exp((m.step + -1) * std::log(beta2));
  const Term sum_after = sum + power, weighted_after = weighted + power * m.step;
  u.set(sum, sum_after);
  u.set(weighted, weighted_after);
  const Term length = weighted_after / sum_after * 2 + -1;
  const Term square = (length + -4) * (length + -2) / length * (longest / ((longest - 4) * (longest - 2)));
  const Term spread = sqrt(sum_after * (1 - beta2));
  const Term size = u.learning_rate() / m.correction1, plain = u.constant(1);
  // Below that length the root is of a negative number, which is not taken.
  const Term rectified = sqrt(max(square, 0)) * spread;
  const Term adaptive = rectified / (sqrt(m.second) + u.parameter("epsilon"));
  return m.first * size * where_less(u.constant(5), length, adaptive, plain);
}

// torch.optim.Adamax
Term adamax(UpdateContext& u) {
  const double beta1 = u.parameter("beta1"), beta2 = u.parameter("beta2");
  const Term g = u.gradient(), m = u.slot("adam.m"), largest = u.slot("adamax.u"), count = u.count("adam.step");
  const Term step = count + 1;
  const Term first = nearer(m, g, 1 - beta1), after = max(largest * beta2, abs(g) + u.parameter("epsilon"));
  u.set(m, first);
  u.set(largest, after);
  u.set(count, step);
  return first / after * (u.learning_rate() / bias_correction(u, step, beta1));
}

// torch.optim.Adadelta
Term adadelta(UpdateContext& u) {
  const double rho = u.parameter("rho"), epsilon = u.parameter("epsilon");
  const Term g = u.gradient(), squares = u.slot("adadelta.v"), deltas = u.slot("adadelta.d");
  const Term square = squares * rho + g * g * (1 - rho);
  const Term delta = sqrt(deltas + epsilon) / sqrt(square + epsilon) * g;
  u.set(squares, square);
  u.set(deltas, deltas * rho + delta * delta * (1 - rho));
  return delta * u.learning_rate();
}

// The paper's algorithm 2, as timm.optim.Lion
Term lion(UpdateContext& u) {
  const Term g = u.gradient(), m = u.slot("momentum");
  const Term step = sign(nearer(m, g, 1 - u.parameter("beta1")));
  u.set(m, nearer(m, g, 1 - u.parameter("beta2")));
  return step * u.learning_rate();
}

// The norm of the weights over that of what moves them; 1 where one of them is 0.
Term trust(UpdateContext& u, Term weights, Term moves, Term ratio) {
  const Term zero = u.constant(0), one = u.constant(1);
  return where_less(zero, weights, where_less(zero, moves, ratio, one), one);
}

// timm.optim.Lamb, which is NVIDIA's: what has no weight decay is not adapted unless `always_adapt`
Term lamb(UpdateContext& u) {
  const Moments m = moments(u);
  const Term weights = u.weights();
  const Term direction = m.first / m.correction1 / (sqrt(m.second) / m.spread + u.parameter("epsilon"));
  const Term moves = direction + weights * u.weight_decay();
  const Term ratio = u.each([&](ParameterContext& p) {
    if (p.weight_decay() == 0 && u.parameter("always_adapt") == 0) return u.constant(1);
    const Term w = p.norm(p.of(weights)), d = p.norm(p.of(moves));
    const Term t = trust(u, w, d, w / d);
    return u.parameter("trust_clip") != 0 ? min(t, u.constant(1)) : t;
  });
  return moves * ratio * u.learning_rate();
}

// timm.optim.Lars; with trust_clip LARC
Term lars(UpdateContext& u) {
  const Term weights = u.weights(), g = u.gradient();
  const Term ratio = u.each([&](ParameterContext& p) {
    if (p.weight_decay() == 0 && u.parameter("always_adapt") == 0) return u.constant(1);
    const Term w = p.norm(p.of(weights)), d = p.norm(p.of(g));
    const Term whole = d + w * p.weight_decay() + u.parameter("epsilon");
    const Term t = trust(u, w, d, w * u.parameter("trust_coefficient") / whole);
    return u.parameter("trust_clip") != 0 ? min(t / p.learning_rate(), u.constant(1)) : t;
  });
  return with_momentum(u, (g + weights * u.weight_decay()) * ratio);
}

// Nearly U V^T of the matrix U S V^T, by the iteration of torch.optim.Muon, here in f32.
Term orthogonalised(ParameterContext& p, Term matrix, int steps) {
  constexpr double kA = 3.4445, kB = -4.775, kC = 2.0315, kLeastNorm = 1e-7;
  const bool tall = p.shape()[0] > p.shape()[1];
  Term x = tall ? p.transposed(matrix) : matrix;
  x = x / max(p.norm(x), kLeastNorm);
  for (int i = 0; i < steps; ++i) {
    const Term gram = p.product(x, p.transposed(x));
    const Term change = gram * kB + p.product(gram, gram) * kC;
    x = x * kA + p.product(change, x);
  }
  return tall ? p.transposed(x) : x;
}

// torch.optim.Muon of matrices, AdamW of the rest; both keep a first moment, in one slot
Term muon(UpdateContext& u) {
  const double momentum = u.parameter("momentum"), beta1 = u.parameter("beta1"), beta2 = u.parameter("beta2");
  const Term g = u.gradient(), m = u.slot("momentum"), v = u.slot("adam.v"), count = u.count("adam.step");
  const Term step = count + 1, rate = u.learning_rate();
  const Term buffer = nearer(m, g, 1 - momentum), first = nearer(m, g, 1 - beta1);
  const Term second = v * beta2 + g * g * (1 - beta2);
  u.set(m, u.where_apart(buffer, first));
  u.set(v, u.where_apart(v, second));
  u.set(count, step);
  const Term towards = u.parameter("nesterov") != 0 ? nearer(g, buffer, momentum) : buffer;
  const Term matrices = u.each([&](ParameterContext& p) {
    if (!p.is_apart()) return u.constant(0);
    const size_t axis = p.output_axis();
    const auto outputs = static_cast<double>(p.shape()[axis]), inputs = static_cast<double>(p.shape()[1 - axis]);
    const double size = u.parameter("match_rms_adamw") != 0 ? 0.2 * std::sqrt(std::max(outputs, inputs))
                                                            : std::sqrt(std::max(1.0, outputs / inputs));
    return orthogonalised(p, p.of(towards), static_cast<int>(u.parameter("ns_steps"))) * size;
  });
  const Term size = rate / bias_correction(u, step, beta1), spread = sqrt(bias_correction(u, step, beta2));
  const Term others = first / (sqrt(second) / spread + u.parameter("epsilon")) * size;
  return u.where_apart(matrices * rate, others);
}

// torch.optim.Adafactor: of more than one axis the second moment is kept as its means along the last two.
Term adafactor(UpdateContext& u) {
  constexpr double kLeast = 0x1p-23;  // f32's epsilon, torch's default
  const Term count = u.count("adafactor.step"), step = count + 1, g = u.gradient(), weights = u.weights();
  u.set(count, step);
  const Term fresh = exp(log(step) * u.parameter("beta2_decay"));
  const Term limit = 1 / sqrt(step);
  return u.each([&](ParameterContext& p) {
    const Term x = p.of(g), square = x * x;
    const Shape& shape = p.shape();
    const auto mean = [&](Term t, size_t axis) {
      return p.sum(t, {static_cast<int64_t>(axis)}) * (1 / static_cast<double>(shape[axis]));
    };
    const auto moved = [&](std::string_view name, const Shape& of, Term to) {
      const Term before = p.slot(name, of), after = before + (to - before) * fresh;
      u.set(before, after);
      return after;
    };
    Term variance = square;
    if (const size_t axes = shape.size(); axes > 1) {
      Shape rows = shape, columns = shape;
      rows[axes - 1] = columns[axes - 2] = 1;
      const Term row = moved("adafactor.row", rows, mean(square, axes - 1));
      const Term column = moved("adafactor.column", columns, mean(square, axes - 2));
      variance = row * column / max(mean(row, axes - 2), kLeast);
    } else {
      variance = moved("adafactor.v", {1, axes == 0 ? 1 : shape[0]}, square);
    }
    double elements = 1;
    for (const int64_t size : shape) elements *= static_cast<double>(size);
    const double mean_root = 1 / std::sqrt(elements);
    const Term update = x / sqrt(max(variance, kLeast * kLeast));
    const Term root = p.norm(update) * (mean_root / u.parameter("d")), least = u.constant(u.parameter("epsilon2"));
    const Term size = max(p.norm(p.of(weights)) * mean_root, least) * min(p.learning_rate(), limit);
    return update * (size / max(root, 1));
  });
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

constexpr HyperParameter kAmsgrad{.name = "amsgrad", .most = 1, .kind = HyperParameter::yes_or_no};
const std::vector<HyperParameter> kAdam{kBeta1, kBeta2, kEpsilon, kAmsgrad};

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
    {.name = "nadam",
     .meaning = "adam with Nesterov's momentum",
     .parameters = {kBeta1, kBeta2, kEpsilon, {.name = "momentum_decay", .value = 0.004}},
     .step = nadam},
    {.name = "radam",
     .meaning = "adam whose second moment counts when it is known well enough",
     .parameters = {kBeta1, kBeta2, kEpsilon},
     .step = radam},
    {.name = "adamax",
     .meaning = "adam with a decayed maximum for the second moment",
     .parameters = {kBeta1, kBeta2, kEpsilon},
     .step = adamax},
    {.name = "adadelta",
     .meaning = "steps as large as those before, by running mean squares of both; PyTorch's own rate is 1",
     .parameters = {{.name = "rho", .value = 0.9, .most = 1}, {.name = "epsilon", .value = 1e-6}},
     .step = adadelta},
    {.name = "lion",
     .meaning = "the sign of a mix of gradient and momentum",
     .parameters = {kBeta1, {.name = "beta2", .value = 0.99, .most = 1}},
     .decay = OptimizerRow::of_weights,
     .step = lion,
     .source = "timm"},
    {.name = "lars",
     .meaning = "sgd whose rate follows, for each parameter, the norm of weights over that of gradients",
     .parameters = {kMomentum,
                    {.name = "nesterov", .most = 1, .kind = HyperParameter::yes_or_no, .beside = "momentum"},
                    {.name = "dampening", .most = 1, .beside = "momentum"},
                    {.name = "trust_coefficient", .value = 0.001},
                    kEpsilon,
                    kTrustClip,
                    kAlwaysAdapt},
     .decay = OptimizerRow::of_step,
     .step = lars,
     .source = "timm"},
    {.name = "lamb",
     .meaning = "adam whose rate follows, for each parameter, the norm of weights over that of the step",
     .parameters = {kBeta1, kBeta2, {.name = "epsilon", .value = 1e-6}, kTrustClip, kAlwaysAdapt},
     .decay = OptimizerRow::of_step,
     .step = lamb,
     .source = "timm"},
    {.name = "muon",
     .meaning =
         "momentum made orthogonal, of matrices; AdamW of vectors, tables of ids, filters and groups that say so",
     .parameters =
         {{.name = "momentum", .value = 0.95, .most = 1},
          {.name = "nesterov", .value = 1, .most = 1, .kind = HyperParameter::yes_or_no, .beside = "momentum"},
          {.name = "ns_steps", .value = 5, .most = 99, .kind = HyperParameter::whole},
          {.name = "match_rms_adamw", .most = 1, .kind = HyperParameter::yes_or_no},
          kBeta1,
          kBeta2,
          kEpsilon},
     .decay = OptimizerRow::of_weights,
     .step = muon,
     .apart = OptimizerRow::matrices,
     .rest = "adamw"},
    {.name = "adafactor",
     .meaning = "steps of a share of the weights' size, with means of rows and columns for the second moment",
     .parameters = {{.name = "beta2_decay", .value = -0.8, .least = -kInfinity, .most = 0},
                    {.name = "epsilon2", .value = 1e-3},
                    {.name = "d", .value = 1}},
     .decay = OptimizerRow::of_weights,
     .step = adafactor},
    {.name = "onnx_adam",
     .meaning = "adam as ai.onnx.preview.training has it: epsilon is not corrected for the start",
     .parameters = {{.name = "beta1", .value = 0.9, .most = 1},
                    {.name = "beta2", .value = 0.999, .most = 1},
                    {.name = "epsilon", .value = 1e-6},
                    {.name = "first_count", .value = 1, .most = 1}},
     .step = onnx_adam,
     .source = "ONNX"},
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
