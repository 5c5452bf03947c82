#include "compiler/doctor_judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace halfstep {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Of the strongest gradient's mean square root; below it gradients are what cancels out: a bias before a batch norm.
constexpr double kFaint = 1e-4;
constexpr double kMoreThanInputs = 4;  // an error's cause: so many times what came in
constexpr double kSpreads = 3;         // of fp32 runs whose weights are disturbed
constexpr double kUnits = 8;           // roundings of half a unit that a sum's terms may have gone through
constexpr double kLostEnergy = 0.1;    // of values that became 0
constexpr double kMostUpdatesLost = 0.5;

double mean_square_root(const std::vector<float>& values) {
  double sum = 0;
  for (const float v : values) sum += std::isfinite(v) ? double{v} * v : 0;
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

bool is_gradient(Tap::Kind kind) { return kind == Tap::backward || kind == Tap::gradient; }

// The mean square root of the strongest gradient.
double strongest_gradient(const RunOfSteps& run) {
  double strongest = 0;
  for (const TensorReading& t : run.tensors)
    if (is_gradient(t.tap.kind) && t.tap.node != "loss") strongest = std::max(strongest, mean_square_root(t.samples));
  return strongest;
}

double not_zero(const TapCounts& c) { return c.counted - c.zero; }

// The node that reads the parameter.
const TensorReading* reader_of(const RunOfSteps& run, const std::string& parameter) {
  for (const TensorReading& t : run.tensors)
    if (t.tap.kind == Tap::forward && std::ranges::count(t.tap.parameters, parameter) > 0) return &t;
  return nullptr;
}

std::string direction_text(const Tap& tap) {
  switch (tap.kind) {
    case Tap::forward:
      return fmt::format("the output of '{}'", tap.node);
    case Tap::backward:
      return fmt::format("the gradient of the output of '{}'", tap.node);
    case Tap::gradient:
      return fmt::format("the gradient of parameter '{}'", tap.node);
    case Tap::update:
      return fmt::format("the update of parameter '{}'", tap.node);
  }
  return "";
}

}  // namespace

std::string_view name(Symptom::Kind kind) {
  switch (kind) {
    case Symptom::overflow:
      return "overflow";
    case Symptom::underflow:
      return "underflow";
    case Symptom::diverges:
      return "diverges";
    case Symptom::limits_scale:
      return "limits_scale";
    case Symptom::update_vanishes:
      return "update_vanishes";
    case Symptom::weight_range:
      return "weight_range";
    case Symptom::loss:
      return "loss";
  }
  return "";
}

double noise_of(DType low) { return low == DType::f16 ? 0.04 : 0.25; }

// `noise`: of a sum whose terms are rounded; what of it is lost to zeros is no more than that.
Difference Judge::difference(const TensorReading& low, const TensorReading& full, double floor, double noise) const {
  Difference d;
  const size_t count = std::min(low.samples.size(), full.samples.size());
  double off = 0, all = 0, lost = 0;
  for (size_t i = 0; i < count; ++i) {
    const double a = low.samples[i], b = full.samples[i];
    if (a == b || !std::isfinite(b)) continue;  // an infinite mask is meant
    if (!std::isfinite(a)) return {.error = kInfinity};
    off += (a - b) * (a - b);
    if (a == 0) lost += b * b;
  }
  for (size_t i = 0; i < count; ++i)
    if (const double b = full.samples[i]; std::isfinite(b)) all += b * b;
  // Samples may miss what the maximum and the counts of all elements show.
  if (std::isfinite(full.first.largest) && !std::isfinite(low.first.largest)) return {.error = kInfinity};
  const double faintest = floor * floor * static_cast<double>(count);
  d.error = off == 0 ? 0 : std::sqrt(off / std::max(all, std::max(faintest, 1e-300)));
  const bool is_noise = lost <= noise * noise * static_cast<double>(count);
  d.lost = all > 0 && !is_noise ? lost / all : 0;
  return d;
}

// A parameter's gradient is a sum of products: what rounding its terms does to each element (root mean square), however
// much of the sum cancels out, as of a bias before a norm.
double Judge::noise_of_sum(const RunOfSteps& full, const Tap& tap) const {
  const TensorReading* reader = tap.kind == Tap::gradient ? reader_of(full, tap.node) : nullptr;
  const TensorReading* gradient = reader ? full.find(Tap::backward, reader->tap.node) : nullptr;
  if (!gradient) return 0;
  double operand = 1;
  for (const int32_t input : reader->tap.inputs)
    operand = std::max(operand, mean_square_root(full.tensors[static_cast<size_t>(input)].samples));
  // Of a bias or a norm's scale all positions are summed, of a product's weight as many as there are rows at most.
  const double elements = static_cast<double>(gradient->tap.type.element_count());
  const double channels = static_cast<double>(tap.type.shape.empty() ? 1 : std::ranges::max(tap.type.shape));
  const double terms = std::max(1.0, elements / channels);
  const double half_unit = low_ == DType::f16 ? 0x1p-11 : 0x1p-8;
  return kUnits * half_unit * mean_square_root(gradient->samples) * operand * std::sqrt(terms);
}

void Judge::widen(TensorErrors& spread, const RunOfSteps& full, const RunOfSteps& disturbed) const {
  const std::vector<Difference> found = differences(full, disturbed, {});
  for (size_t i = 0; i < found.size(); ++i) {
    const Tap& tap = disturbed.tensors[i].tap;
    if (!is_gradient(tap.kind)) continue;
    double& widest = spread[{tap.kind, tap.node}];
    widest = std::max(widest, found[i].error);
  }
}

std::vector<Difference> Judge::differences(const RunOfSteps& full, const RunOfSteps& low,
                                           const TensorErrors& spread) const {
  const double strongest = strongest_gradient(full);
  std::map<std::pair<Tap::Kind, std::string>, const TensorReading*> others;
  for (const TensorReading& t : full.tensors) others[{t.tap.kind, t.tap.node}] = &t;
  std::vector<Difference> found;
  for (const TensorReading& t : low.tensors) {
    const auto other = others.find({t.tap.kind, t.tap.node});
    if (other == others.end() || t.tap.kind == Tap::update) {
      found.emplace_back();
      continue;
    }
    const TapCounts& c = t.first;
    const bool is_subnormal = halfstep::is_low(t.tap.type.dtype) && c.underflow + c.subnormal >= 0.25 * not_zero(c);
    const bool faint = is_gradient(t.tap.kind) && !is_subnormal;
    const double noise = noise_of_sum(full, t.tap);
    const double floor = std::max(faint ? kFaint * strongest : 0, noise / noise_of(low_));
    found.push_back(difference(t, *other->second, floor, noise));
    const auto wide = spread.find({t.tap.kind, t.tap.node});
    found.back().allowed = std::max(noise_of(low_), wide == spread.end() ? 0 : kSpreads * wide->second);
  }
  for (size_t i = 0; i < found.size(); ++i) {
    const Tap& tap = low.tensors[i].tap;
    double& worst = found[i].worst_input;
    for (const int32_t input : tap.inputs) worst = std::max(worst, found[static_cast<size_t>(input)].error);
    // A parameter's gradient is made of its reader's operands and gradient.
    if (tap.kind != Tap::gradient) continue;
    const TensorReading* reader = reader_of(low, tap.node);
    for (size_t j = 0; reader && j < i; ++j) {
      const Tap& other = low.tensors[j].tap;
      const bool operand =
          other.kind == Tap::forward && std::ranges::count(reader->tap.inputs, static_cast<int32_t>(j));
      if (operand || (other.kind == Tap::backward && other.node == reader->tap.node))
        worst = std::max(worst, found[j].error);
    }
  }
  return found;
}

bool Judge::is_off(const Difference& d) const {
  return d.error == kInfinity || d.error > d.allowed || d.lost > kLostEnergy;
}

// Whose tensor it is, and the nodes that may be at fault.
Symptom Judge::of_tensor(const Examination& e, size_t tensor) const {
  const TensorReading& t = e.low.tensors[tensor];
  Symptom f;
  f.node = t.tap.node, f.direction = t.tap.kind, f.tensor = static_cast<int32_t>(tensor);
  const TensorReading* forward = t.tap.kind == Tap::forward    ? &t
                                 : t.tap.kind == Tap::backward ? e.low.find(Tap::forward, t.tap.node)
                                                               : reader_of(e.low, t.tap.node);
  if (!forward || forward->tap.node == "loss") return f;
  f.deny.push_back(forward->tap.node);
  if (t.tap.kind == Tap::gradient) f.node = forward->tap.node;
  if (t.tap.kind == Tap::backward)
    f.deny.insert(f.deny.end(), forward->tap.readers.begin(), forward->tap.readers.end());
  f.remedy = fmt::format("keep '{}' in fp32", f.deny.front());
  return f;
}

Symptom Judge::finding(const Examination& e, size_t tensor) const {
  const TensorReading& t = e.low.tensors[tensor];
  const TensorReading* full = e.full.find(t.tap.kind, t.tap.node);
  const Difference& d = e.differences[tensor];
  Symptom f = of_tensor(e, tensor);
  const std::string what = direction_text(t.tap);
  const std::string scale = t.scale > 1 ? fmt::format(", loss scale {:g}", t.scale) : "";
  if (d.error == kInfinity) {
    f.kind = Symptom::overflow;
    f.text = fmt::format("{} is not finite in {} (fp32 reaches {:.3g}{}; {} ends at {:g})", what, name(low_),
                         full->first.largest, scale, name(low_), largest());
  } else if (d.lost > kLostEnergy) {
    f.kind = Symptom::underflow;
    f.text = fmt::format("{} underflows: {:.0f}% of it is 0 in {} and {:.0f}% in fp32, which reaches {:.3g}{}", what,
                         100 * t.first.zero / t.first.counted, name(low_), 100 * full->first.zero / full->first.counted,
                         full->first.largest, scale);
  } else {
    f.kind = t.first.subnormal > 0.25 * not_zero(t.first) && is_gradient(t.tap.kind) ? Symptom::underflow
                                                                                     : Symptom::diverges;
    f.text = fmt::format("{} differs from fp32 by {:.1f}% (relative L2), what it is computed of by {:.1f}%", what,
                         100 * d.error, 100 * d.worst_input);
  }
  if (is_gradient(t.tap.kind) && f.kind == Symptom::underflow) f.remedy = "a larger loss scale, or " + f.remedy;
  if (is_gradient(t.tap.kind) && f.kind == Symptom::overflow && t.scale > 1)
    f.remedy = "a smaller loss scale, or " + f.remedy;
  return f;
}

void Judge::weights_beyond(const CompiledModel& model, const Examination& e, std::vector<Symptom>& found) const {
  const auto arena = model.state.find(kParameterArena);
  if (arena == model.state.end()) return;
  const std::span<const float> all = arena->second.as<float>();
  for (const ParameterSlice& slice : model.parameters) {
    const auto size = static_cast<size_t>(TensorType{DType::f32, slice.shape}.element_count());
    double most = 0;
    for (const float w : all.subspan(static_cast<size_t>(slice.offset), size))
      most = std::max(most, std::abs(double{w}));
    const TensorReading* reader = reader_of(e.low, slice.name);
    if (most <= largest() || !reader) continue;
    // Beyond the range in the arena is no fault where the node reads the master.
    for (size_t i = 0; i < e.low.tensors.size(); ++i)
      if (&e.low.tensors[i] == reader && e.differences[i].error == kInfinity &&
          e.differences[i].worst_input < kInfinity)
        found.push_back({.kind = Symptom::weight_range,
                         .node = reader->tap.node,
                         .direction = Tap::forward,
                         .text = fmt::format("weight '{}' reaches {:.4g}, beyond {}, which ends at {:g}", slice.name,
                                             most, name(low_), largest()),
                         .remedy = fmt::format("keep '{}' in fp32", reader->tap.node),
                         .deny = {reader->tap.node},
                         .tensor = static_cast<int32_t>(i)});
  }
}

void Judge::vanishing_updates(const Examination& e, std::vector<Symptom>& found) const {
  const double strongest = strongest_gradient(e.full);
  for (const TensorReading& t : e.low.tensors) {
    if (t.tap.kind != Tap::update) continue;
    const double steps = static_cast<double>(e.low.losses.size() + (e.low.stuck.empty() ? 0 : 1));
    const double elements = static_cast<double>(t.tap.type.element_count()) * steps;
    const double moving = t.all.counted > 0 ? elements * not_zero(t.all) / t.all.counted : 0;
    if (moving == 0 || t.all.lost_master / moving <= kMostUpdatesLost) continue;
    const TensorReading* full = e.full.find(Tap::update, t.tap.node);
    const double of_full = static_cast<double>(t.tap.type.element_count()) * static_cast<double>(e.full.losses.size());
    const bool in_fp32 = full && full->all.counted > 0 &&
                         full->all.lost_master > kMostUpdatesLost * of_full * not_zero(full->all) / full->all.counted;
    // What cancels out, as the bias of an attention's keys does, has no updates to lose.
    const TensorReading* gradient = e.full.find(Tap::gradient, t.tap.node);
    if (in_fp32 && gradient && mean_square_root(gradient->samples) < kFaint * strongest) continue;
    found.push_back(
        {.kind = Symptom::update_vanishes,
         .node = t.tap.node,
         .direction = Tap::update,
         .text = fmt::format("{:.0f}% of the updates of parameter '{}', up to {:.3g}, are below half a unit "
                             "in the last place of its weights{}",
                             100 * t.all.lost_master / moving, t.tap.node, t.largest, in_fp32 ? ", in fp32 too" : ""),
         .remedy = in_fp32 ? "a larger learning rate" : "weights that are kept in fp32",
         .deny = {},
         .in_fp32 = in_fp32});
  }
}

// What is finite in step 1 and not in a later one: the first such tensor.
void Judge::later_overflow(const Examination& e, std::vector<Symptom>& found) const {
  for (size_t i = 0; i < e.low.tensors.size(); ++i) {
    const TensorReading& t = e.low.tensors[i];
    const TensorReading* full = e.full.find(t.tap.kind, t.tap.node);
    if (std::isfinite(t.all.largest) || !full || !std::isfinite(full->all.largest)) continue;
    if (e.differences[i].error == kInfinity) return;  // it was found in step 1
    if (t.tap.kind == Tap::update) continue;
    Symptom f = of_tensor(e, i);
    f.kind = Symptom::overflow;
    f.text =
        fmt::format("{} is not finite in {} after {} steps (fp32 reaches {:.3g}; {} ends at {:g})",
                    direction_text(t.tap), name(low_), e.low.losses.size(), full->all.largest, name(low_), largest());
    found.push_back(std::move(f));
    return;
  }
}

// What forced the scale down, where that is a fault: other gradients underflow, or nothing was left of it.
void Judge::limits_of_scale(const Examination& e, std::vector<Symptom>& found) const {
  if (e.low.limits_scale < 0 || e.low.tensors.empty()) return;
  // Where the forward overflows no scale is at fault.
  const bool is_told = std::ranges::any_of(found, [&](const Symptom& f) {
    return f.direction == Tap::forward ? f.kind == Symptom::overflow || f.kind == Symptom::weight_range
                                       : f.kind == Symptom::overflow && f.tensor == e.low.limits_scale;
  });
  const bool harms = !e.low.stuck.empty() || std::ranges::any_of(found, [](const Symptom& f) {
    return f.kind == Symptom::underflow && is_gradient(f.direction);
  });
  if (!harms || is_told) return;
  const Tap& tap = e.low.tensors[static_cast<size_t>(e.low.limits_scale)].tap;
  const TensorReading* forward =
      tap.kind == Tap::gradient ? reader_of(e.low, tap.node) : e.low.find(Tap::forward, tap.node);
  Symptom f{.kind = Symptom::limits_scale,
            .node = forward ? forward->tap.node : tap.node,
            .direction = tap.kind,
            .text = fmt::format("{} is the first that overflows at loss scale {:g}, and keeps the scale down",
                                direction_text(tap), e.low.limited_scale),
            .remedy = "",
            .deny = {},
            .tensor = e.low.limits_scale};
  if (forward && forward->tap.node != "loss") {
    f.deny.push_back(forward->tap.node);
    f.deny.insert(f.deny.end(), forward->tap.readers.begin(), forward->tap.readers.end());
    f.remedy = fmt::format("keep '{}' in fp32", forward->tap.node);
  }
  // What the forward does comes before it.
  const auto behind_forward = std::ranges::find_if(found, [](const Symptom& s) { return s.direction != Tap::forward; });
  found.insert(behind_forward, std::move(f));
}

void Judge::loss_curve(const Examination& e, const LossBand& band, std::vector<Symptom>& found) const {
  const std::vector<double>&low = e.low.losses, &full = e.full.losses;
  Symptom f{.kind = Symptom::loss, .node = "loss", .direction = Tap::forward, .text = "", .remedy = "", .deny = {}};
  if (!e.low.stuck.empty()) {
    f.text = fmt::format("training stops after {} of {} steps: {}", low.size(), full.size(), e.low.stuck);
  } else {
    for (size_t i = 0; i < std::min(low.size(), full.size()) && f.text.empty(); ++i)
      if (std::abs(low[i] - full[i]) > band.allowed[i])
        f.text = fmt::format("the loss of step {} is {:.6g} and {:.6g} in fp32, further apart than {:.2g}", i + 1,
                             low[i], full[i], band.allowed[i]);
  }
  if (!f.text.empty()) found.push_back(std::move(f));
}

std::vector<Symptom> Judge::findings(const Examination& e, const LossBand& band, const CompiledModel& model) const {
  std::vector<Symptom> found;
  weights_beyond(model, e, found);
  std::set<std::string> named;
  for (const Symptom& f : found) named.insert(f.node);
  for (size_t i = 0; i < e.low.tensors.size(); ++i) {
    const TensorReading& t = e.low.tensors[i];
    const Difference& d = e.differences[i];
    if (t.tap.kind == Tap::update || !is_off(d)) continue;
    const bool caused = d.worst_input == kInfinity ||
                        (d.lost <= kLostEnergy && d.error < kInfinity && d.error <= kMoreThanInputs * d.worst_input);
    bool inputs_off = t.tap.kind == Tap::gradient && d.worst_input > noise_of(low_);
    for (const int32_t input : t.tap.inputs) inputs_off |= is_off(e.differences[static_cast<size_t>(input)]);
    if (caused || inputs_off) continue;
    Symptom f = finding(e, i);
    if (f.kind == Symptom::overflow && named.contains(f.node)) continue;  // by its weight
    found.push_back(std::move(f));
  }
  later_overflow(e, found);
  limits_of_scale(e, found);
  vanishing_updates(e, found);
  loss_curve(e, band, found);
  // A gradient that differs, of which nothing vanished or overflowed, is no fault where the loss does not show it.
  if (found.empty() || found.back().kind != Symptom::loss)
    std::erase_if(found, [](const Symptom& f) { return f.kind == Symptom::diverges && is_gradient(f.direction); });
  return found;
}

void Judge::fit_scale(const RunOfSteps& full, const RunOfSteps& low, std::optional<double>& scale,
                      std::string& limiting) const {
  if (low_ != DType::f16) return;
  constexpr double kRoom = 2;
  double most = 0;
  for (const TensorReading& t : low.tensors) {
    if (!is_gradient(t.tap.kind) || (t.tap.kind == Tap::backward && !halfstep::is_low(t.tap.type.dtype))) continue;
    const TensorReading* other = full.find(t.tap.kind, t.tap.node);
    if (!other || other->largest <= most) continue;
    most = other->largest, limiting = direction_text(t.tap);
  }
  if (most > 0) scale = std::clamp(std::exp2(std::floor(std::log2(largest() / kRoom / most))), 1.0, 0x1p24);
}

}  // namespace halfstep
