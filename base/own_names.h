// Names that are Halfstep's own among those of a model's tensors: of the states and inputs that the training step has
// beside the model's. They begin with ':'; the import refuses a model's names that do, so that none meets one of these.
// Outputs are apart by construction: of the model "outputs/NAME", of a parameter "gradient/NAME", ours have no '/'.
#pragma once

#include <string>
#include <string_view>

namespace halfstep {

inline constexpr char kOwnMark = ':';
// Begins the names of states that carry nothing from one step to the next: constants, and arenas inside a step.
inline constexpr std::string_view kTransientMark = ".:";

inline constexpr std::string_view kStepLearningRate = ":step.learning_rate", kStepIteration = ":step.iteration",
                                  kStepSeed = ":step.seed";
inline constexpr std::string_view kParameterArena = ":parameters", kGradientArena = ":gradients",
                                  kCountedLabels = ":gradients.counted", kMomentumArena = ":momentum",
                                  kMomentumStarted = ":momentum.started", kAdamFirst = ":adam.m",
                                  kAdamSecond = ":adam.v", kAdamStep = ":adam.step", kLossScale = ":loss_scale.scale",
                                  kLossScaleTracker = ":loss_scale.tracker";
inline constexpr std::string_view kModelOutput = "outputs/", kGradientOutput = "gradient/";

inline bool is_transient(std::string_view name) { return name.starts_with(kTransientMark); }
inline bool is_own_name(std::string_view name) { return name.starts_with(kOwnMark) || is_transient(name); }
// As files write it, where a model's names have a place of their own: without the mark.
inline std::string_view unmarked(std::string_view name) { return name.substr(name.starts_with(kOwnMark)); }

// The problem with a model's name that is one.
inline std::string own_name_refused(const std::string& name) {
  return "value '" + name + "': names that begin with ':' or '.:' are Halfstep's own; rename it";
}

}  // namespace halfstep
