// Names of the tensors that graphs, programs and compiled steps share: a text, and what it names. A model's tensors
// keep the names of its file; ours have roles of their own, so that none meets one of a model's.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace halfstep {

enum class Role : uint8_t {
  model,       // of the file: an input, a weight, an output; the labels that the loss adds to the inputs
  gradient,    // of the parameter with this name
  measure,     // what a step says of itself: loss, correct, overflow
  step_input,  // what a step is told beside its batch: learning_rate, iteration, seed, mix_share
  slot,        // state of the training step: parameters, momentum, loss_scale.scale
  transient,   // state that carries nothing from one step to the next: constants, arenas inside a step
};

inline constexpr std::array<std::string_view, 6> kRoles{"model",      "gradient", "measure",
                                                        "step_input", "slot",     "transient"};
inline constexpr std::string_view name(Role role) { return kRoles[static_cast<size_t>(role)]; }
inline constexpr std::optional<Role> parse_role(std::string_view text) {
  for (size_t i = 0; i < kRoles.size(); ++i)
    if (kRoles[i] == text) return static_cast<Role>(i);
  return std::nullopt;
}

struct Name {
  Role role = Role::model;
  std::string text;

  Name() = default;
  Name(Role r, std::string t) : role(r), text(std::move(t)) {}
  // Of a model's tensor.
  Name(std::string t) : text(std::move(t)) {}
  Name(std::string_view t) : text(t) {}
  Name(const char* t) : text(t) {}

  bool is(Role r) const { return role == r; }
  friend auto operator<=>(const Name&, const Name&) = default;
  friend bool operator==(const Name&, const Name&) = default;
};

// For messages: "fc1.weight", "slot momentum".
inline std::string to_string(const Name& of) {
  return of.is(Role::model) ? of.text : std::string(name(of.role)) + " " + of.text;
}
// As files of ours spell it: "slot/momentum". The role is the part before the first '/'.
inline std::string spelled(const Name& of) { return std::string(name(of.role)) + "/" + of.text; }
inline std::optional<Name> parse_name(std::string_view spelled) {
  const size_t slash = spelled.find('/');
  const std::optional<Role> role = parse_role(spelled.substr(0, slash));
  if (!role || slash == std::string_view::npos) return std::nullopt;
  return Name(*role, std::string(spelled.substr(slash + 1)));
}
// Where outputs lie in files and in the API: "loss", "outputs/logits", "gradients/fc1.weight". Measures have no '/'.
inline std::string path_of(const Name& output) {
  return (output.is(Role::model) ? "outputs/" : output.is(Role::gradient) ? "gradients/" : "") + output.text;
}

// A name of ours.
struct OwnName {
  Role role;
  std::string_view text;
  operator Name() const { return {role, std::string(text)}; }
  friend bool operator==(const Name& a, const OwnName& b) { return a.role == b.role && a.text == b.text; }
};

inline constexpr OwnName kLoss{Role::measure, "loss"}, kCorrect{Role::measure, "correct"},
    kCounted{Role::measure, "counted"}, kRowLoss{Role::measure, "row_loss"}, kRowCorrect{Role::measure, "row_correct"},
    kRowCounted{Role::measure, "row_counted"}, kWeighed{Role::measure, "weighed"},
    kRowWeighed{Role::measure, "row_weighed"}, kOverflow{Role::measure, "overflow"},
    kUsedLossScale{Role::measure, "loss_scale"};
inline constexpr OwnName kStepLearningRate{Role::step_input, "learning_rate"},
    kStepIteration{Role::step_input, "iteration"}, kStepSeed{Role::step_input, "seed"},
    kStepMixShare{Role::step_input, "mix_share"};
inline constexpr OwnName kParameterArena{Role::slot, "parameters"}, kGradientArena{Role::slot, "gradients"},
    kCountedLabels{Role::slot, "gradients.counted"}, kLossScaleState{Role::slot, "loss_scale.scale"},
    kLossScaleTracker{Role::slot, "loss_scale.tracker"}, kLossScaleHysteresis{Role::slot, "loss_scale.hysteresis"};

// Of one of several losses, counted from 0: measure "loss.1".
inline Name of_loss(const OwnName& measure, size_t index) {
  return {measure.role, std::string(measure.text) + "." + std::to_string(index)};
}
inline bool is_of_a_loss(const Name& name, const OwnName& measure) {
  return name.role == measure.role && name.text.size() > measure.text.size() && name.text.starts_with(measure.text) &&
         name.text[measure.text.size()] == '.';
}

}  // namespace halfstep
