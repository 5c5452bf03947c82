// What a recipe says about precision, as rules of autocast: its preset, policy files (TOML), lists of patterns, and the
// options of NVIDIA's AutoCast.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "passes/precision/precision_rules.h"
#include "training/recipe.h"

namespace halfstep {

struct PrecisionPolicy {
  std::string preset = "halfstep";
  std::vector<std::string> removed;  // operators that the preset does not decide any more
  std::vector<PrecisionRule> rules;  // in the order in which they win: the last one
};

// A policy file and what it extends. Each rule's source is its file and line. All problems of all files at once: what
// is no policy, an unknown preset, a cycle of `extends`. `preset` is empty where no preset is extended.
PrecisionPolicy read_policy(const std::filesystem::path& path);

// That file and those it extends, canonical.
std::vector<std::filesystem::path> policy_files(const std::filesystem::path& path);

// Whether a TOML file is a policy, by its keys; a recipe or what is neither is none.
bool is_policy(const std::filesystem::path& path);

// Everything the recipe says: its policy file, then allow, deny and infer, then AutoCast's exclusions by name,
// operator, range and depth, then its inclusions. Ranges read the model's weights, and run it on the calibration data
// in fp32.
PrecisionPolicy precision_policy(const Recipe& recipe);

// Rules for the nodes that `init_max`, `data_max` and `max_depth_of_reduction` keep in f32.
std::vector<PrecisionRule> range_rules(const Recipe& recipe);

// The preset that decides: the policy's, or the recipe's.
const Preset& preset_of(const PrecisionPolicy& policy);

}  // namespace halfstep
