#include "base/losses.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace halfstep {
namespace {

// ---- formulas of an element's loss ----

// torch.nn.functional.binary_cross_entropy_with_logits: -w y log(sigmoid(x)) - (1 - y) log(1 - sigmoid(x)), by
// softplus, which loses nothing where a sigmoid is 0 or 1. With focal_gamma torchvision.ops.sigmoid_focal_loss: each of
// both parts times (1 - p)^gamma of its own probability p, which is torchvision's for labels 0 and 1.
Term bce_with_logits(LossContext& l) {
  const Term x = l.output(), y = l.target();
  const Term if_one = softplus(-x), if_zero = softplus(x);  // -log of the probability of 1, of 0
  Term one = y * if_one;
  Term zero = (1 - y) * if_zero;
  if (const double gamma = l.parameter("focal_gamma"); gamma != 0) {
    one = one * exp(if_zero * -gamma);
    zero = zero * exp(if_one * -gamma);
  }
  if (l.given("focal_alpha")) {
    const double alpha = l.parameter("focal_alpha");
    one = one * alpha;
    zero = zero * (1 - alpha);
  }
  if (l.given("pos_weight")) one = l.by_class("pos_weight") * one;
  const Term loss = one + zero;
  return l.given("class_weights") ? loss * l.by_class("class_weights") : loss;
}

// torch.nn.functional.mse_loss
Term mean_squared_error(LossContext& l) {
  const Term difference = l.output() - l.target();
  return difference * difference;
}

// torch.nn.functional.l1_loss
Term l1(LossContext& l) { return abs(l.output() - l.target()); }

// d^2 / 2 up to `delta`, delta (d - delta / 2) beyond, of one formula that squares nothing beyond delta.
Term huber_of(LossContext& l, double delta) {
  const Term distance = l1(l), near = min(distance, delta);
  return near * (distance - near * 0.5);
}

// torch.nn.functional.huber_loss
Term huber(LossContext& l) { return huber_of(l, l.parameter("delta")); }

// torch.nn.functional.smooth_l1_loss
Term smooth_l1(LossContext& l) {
  const double beta = l.parameter("beta");
  return beta == 0 ? l1(l) : huber_of(l, beta) * (1 / beta);
}

// torch.nn.functional.kl_div: y (log y - x), 0 where y is 0.
Term kl_div(LossContext& l) {
  const Term x = l.output(), y = l.target();
  if (l.parameter("log_target") != 0) return exp(y) * (y - x);
  const Term zero = l.constant(0), loss = y * (log(y) - x);
  return where_less(zero, y, loss, zero);
}

// ---- the tables ----

constexpr double kMostWeight = 1e10;

const std::vector<LossKey> kKeys{
    {.name = "class_axis",
     .meaning = "of the output; default: 1, the last of [N, S, V] where the model takes token ids",
     .value = std::nullopt,
     .least = -std::numeric_limits<double>::infinity(),
     .kind = LossKey::whole},
    {.name = "ignore_index",
     .meaning = "the label that does not count",
     .value = std::nullopt,
     .least = -std::numeric_limits<double>::infinity(),
     .kind = LossKey::whole},
    {.name = "label_smoothing", .meaning = "share of a label spread over all classes", .most = 1},
    {.name = "class_weights",
     .meaning = "of each class in the loss, whose mean is then a weighted one; bce_with_logits: one, or one for each "
                "class, times the loss",
     .value = std::nullopt,
     .most = kMostWeight,
     .kind = LossKey::list},
    {.name = "pos_weight",
     .meaning = "of labels 1 beside labels 0: one, or one for each class",
     .value = std::nullopt,
     .most = kMostWeight,
     .kind = LossKey::list},
    {.name = "focal_gamma",
     .meaning = "focal loss: the loss of a label of probability p is taken times (1 - p)^gamma",
     .most = 100},
    {.name = "focal_alpha",
     .meaning = "focal loss: weight of labels 1; labels 0 weigh 1 - alpha",
     .value = std::nullopt,
     .most = 1},
    {.name = "delta", .meaning = "the distance up to which errors are squared", .value = 1, .least = 1e-10},
    {.name = "beta", .meaning = "the distance up to which errors are squared; 0: none is", .value = 1},
    {.name = "log_target", .meaning = "targets are logarithms of probabilities", .most = 1, .kind = LossKey::yes_or_no},
};

const std::vector<LossFunction> kRows{
    {.name = "softmax_cross_entropy",
     .aliases = {"cross_entropy"},
     .meaning = "one of several classes, from logits; with `focal_gamma` the focal loss",
     .scores = LossFunction::class_logits,
     .labels = LossFunction::classes,
     .keys = {"class_axis", "ignore_index", "label_smoothing", "class_weights", "focal_gamma"}},
    {.name = "bce_with_logits",
     .aliases = {"bce"},
     .meaning = "yes or no, from one logit or from many; with `focal_gamma` the focal loss",
     .scores = LossFunction::logits,
     .labels = LossFunction::yes_or_no,
     .keys = {"class_axis", "ignore_index", "class_weights", "pos_weight", "focal_gamma", "focal_alpha"},
     .element = bce_with_logits},
    {.name = "nll",
     .aliases = {},
     .meaning = "one of several classes, from the logarithms of their probabilities",
     .scores = LossFunction::class_log_likelihood,
     .labels = LossFunction::classes,
     .keys = {"class_axis", "ignore_index", "class_weights"}},
    {.name = "mean_squared_error",
     .aliases = {"mse"},
     .meaning = "the square of the distance",
     .keys = {},
     .element = mean_squared_error},
    {.name = "l1", .aliases = {"mae"}, .meaning = "the distance", .keys = {}, .element = l1},
    {.name = "huber",
     .aliases = {},
     .meaning = "half the square of the distance d up to `delta`, `delta` (d - `delta` / 2) beyond",
     .keys = {"delta"},
     .element = huber},
    {.name = "smooth_l1",
     .aliases = {},
     .meaning = "as huber with `delta` = `beta`, over `beta`",
     .keys = {"beta"},
     .element = smooth_l1},
    {.name = "kl_div",
     .aliases = {},
     .meaning = "the divergence of probabilities from the targets', summed over a sample (PyTorch's `batchmean`)",
     .scores = LossFunction::log_likelihood,
     .keys = {"log_target"},
     .element = kl_div,
     .sample = LossFunction::sum},
    {.name = "from_graph",
     .aliases = {},
     .meaning = "the model computes it",
     .scores = LossFunction::own_loss,
     .labels = LossFunction::none,
     .keys = {}},
};

}  // namespace

bool LossFunction::reads(std::string_view key) const { return std::ranges::find(keys, key) != keys.end(); }

std::span<const LossFunction> loss_functions() { return kRows; }

const LossFunction* find_loss(std::string_view name) {
  const auto found = std::ranges::find_if(kRows, [&](const LossFunction& row) {
    return row.name == name || std::ranges::find(row.aliases, name) != row.aliases.end();
  });
  return found == kRows.end() ? nullptr : &*found;
}

std::span<const LossKey> loss_keys() { return kKeys; }

const LossKey* find_loss_key(std::string_view name) {
  const auto found = std::ranges::find(kKeys, name, &LossKey::name);
  return found == kKeys.end() ? nullptr : &*found;
}

std::string loss_names(std::string_view separator) {
  std::string names;
  for (const LossFunction& row : kRows) {
    names += (names.empty() ? "" : std::string(separator)) + std::string(row.name);
    for (const std::string_view alias : row.aliases) names += std::string(separator) + std::string(alias);
  }
  return names;
}

const LossFunction& function_of(const OutputLoss& loss) {
  const LossFunction* row = find_loss(loss.kind);
  require(row != nullptr, "options name a loss of the table");
  return *row;
}

double value_of(const OutputLoss& loss, std::string_view key) {
  const auto given = loss.parameters.find(key);
  if (given != loss.parameters.end() && function_of(loss).reads(key)) return given->second.front();
  const LossKey* row = find_loss_key(key);
  require(row != nullptr, "a loss reads keys of the table");
  return row->value.value_or(0);
}

std::string label_input(const OutputLoss& loss) {
  const LossFunction::Labels labels = function_of(loss).labels;
  if (labels == LossFunction::none) return "";
  if (!loss.labels.empty()) return loss.labels;
  return labels == LossFunction::targets ? "targets" : "labels";
}

std::optional<LabelBounds> label_bounds(const OutputLoss& loss) {
  const LossFunction& row = function_of(loss);
  if (row.labels == LossFunction::yes_or_no) return LabelBounds{0, 1};
  if (row.scores != LossFunction::log_likelihood) return std::nullopt;
  return value_of(loss, "log_target") != 0 ? LabelBounds{.most = 0} : LabelBounds{0, 1};
}

void check_parameters(const OutputLoss& loss) {
  constexpr double kLeastWeight = 1e-10;
  Problems problems;
  for (const auto& [name, values] : loss.parameters) {
    const LossKey* key = find_loss_key(name);
    require(key != nullptr, "parameters of a loss are keys of the table");
    if (key->kind != LossKey::list || !function_of(loss).reads(name)) continue;
    const auto is_faint = [](double v) { return v != 0 && v < kLeastWeight; };
    if (std::ranges::any_of(values, is_faint)) problems.add(name + ": 0, or at least 1e-10 expected");
    if (name == "class_weights" && std::ranges::all_of(values, [](double v) { return v == 0; }))
      problems.add(name + ": all are 0, so that there is nothing to train on");
  }
  const LossFunction& row = function_of(loss);
  if (const double beta = row.reads("beta") ? value_of(loss, "beta") : 0; beta != 0 && beta < kLeastWeight)
    problems.add("beta: 0, or at least 1e-10 expected");
  if (row.reads("label_smoothing") && value_of(loss, "label_smoothing") != 0 && value_of(loss, "focal_gamma") != 0)
    problems.add(
        "label_smoothing and focal_gamma: a label that is spread has no probability to focus on: leave one out");
  if (row.labels == LossFunction::yes_or_no && loss.ignore_index &&
      std::abs(static_cast<double>(*loss.ignore_index)) > 0x1p24)
    problems.add("ignore_index: labels of " + std::string(row.name) + " are f32, which does not hold " +
                 std::to_string(*loss.ignore_index) + ": take one from -16777216 to 16777216");
  problems.throw_if_any();
}

}  // namespace halfstep
