// Recipe: everything a step and its runs can be told. Its keys are rows of training/recipe_keys.h; compiler/recipe.h
// reads it from TOML, a compiled step keeps it in its notes.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/losses.h"
#include "base/optimizers.h"
#include "base/tensor.h"
#include "data/data_options.h"
#include "program/program.h"
#include "training/recipe_groups.h"

namespace halfstep {

struct Recipe : DataOptions {
  // The model and its data.
  std::string model, data, test_data;
  std::string init = "from_file";
  bool bn_insert = false, restore_parameters = false;
  std::vector<std::string> bn_after;
  std::optional<double> bn_epsilon;
  std::map<std::string, Shape> shapes;
  std::map<std::string, double> values;  // of inputs that are constants
  std::vector<std::string> freeze, train, fresh;
  int64_t resize_head = 0;  // classes of the last layer; 0: as in the file
  std::string init_scheme = "auto";
  double init_std = 0.02;
  // What a model file may make the import do; the defaults are those of ImportBudget.
  std::optional<int64_t> max_nodes, max_iterations, max_folded_bytes, max_folded_operations;
  int64_t classes = 0;
  // Preprocessing of a u8 image input inside the graph.
  std::optional<double> scale;
  std::vector<double> mean, std;

  // The step.
  int64_t batch = 32;
  int64_t accumulation = 1;
  std::string loss = "softmax_cross_entropy", output;
  std::vector<LossTerm> losses;  // several; empty: the one above
  bool keep_outputs = false;
  std::optional<int64_t> ignore_index, class_axis;
  LossParameters loss_parameters;      // where they are given
  std::string loss_scales = "shared";  // of several losses
  // What token data is turned into.
  std::string objective = "labels", ids;
  std::optional<int64_t> mask_token;
  double mask_probability = 0.15;
  std::vector<int64_t> special_tokens;
  std::optional<double> dropout;
  std::string optimizer = "sgd";
  HyperParameters optimizer_parameters;  // where they are given
  double weight_decay = 0, clip_norm = 0, clip_value = 0, clip_adaptive = 0, ema = 0;
  std::vector<std::string> no_decay;
  std::vector<RecipeGroup> groups;
  std::vector<UnfreezeRule> unfreeze;

  // Precision.
  std::string precision = "fp16", preset = "halfstep", policy, loss_scale = "auto";
  std::vector<std::string> allow, deny, infer;
  // NVIDIA AutoCast's.
  std::vector<std::string> nodes_to_exclude, nodes_to_include, op_types_to_exclude, op_types_to_include;
  std::optional<double> data_max, init_max;
  std::optional<int64_t> max_depth_of_reduction;
  std::string calibration_data;
  double initial_scale = 65536, growth_factor = 2, backoff_factor = 0.5, min_scale = 1;
  int64_t growth_interval = 2000, hysteresis = 1, overflow_limit = 50, skip_limit = 0;
  bool consecutive_hysteresis = false;
  std::string grad_scaler;  // a file that holds torch.amp.GradScaler's state to start from

  // The run.
  int64_t epochs = 1, max_steps = 0;
  std::string schedule = "constant";
  double learning_rate = 0.01, gamma = 0.1, final_rate = 0;
  int64_t warmup_steps = 0, step_epochs = 1, decay_steps = 0;
  std::vector<int64_t> milestones;
  int64_t restart_epochs = 1, restart_factor = 1;
  double power = 1, rise_fraction = 0.3, rise_factor = 25, fall_factor = 1e4;
  bool three_phases = false;
  int64_t plateau_patience = 10, plateau_cooldown = 0;
  double plateau_threshold = 1e-4;
  std::string plateau_measure, schedule_file;
  bool skipped_steps_count = false;
  int64_t seed = 0;
  bool shuffle = true;
  std::vector<std::string> measures;
  bool per_class = false, tensorboard = false, tensorboard_gradients = false, layer_times = false;
  std::string class_names;
  std::string device = "auto", architecture, attention = "library", recurrent = "library";
  std::optional<ByteSize> memory_budget;
  int64_t threads = 0, autotune = 8;
  bool tf32 = false;
  std::string out = "halfstep-out", resume, trust;
  int64_t checkpoint_every = 0, keep = 3, metrics_every = 1;
  std::string best;
  int64_t patience = 0;
  double min_delta = 0;
  bool overwrite = false, ema_weights = true;
  std::set<std::string> given;  // keys that were set, by a file or an option
};

// The one loss, where there are not several.
OutputLoss one_loss(const Recipe& recipe);

// A shape with a first axis names the batch too. Error if `batch` is given and differs.
void take_batch_from_shape(Recipe& recipe);
// Its keys as the notes of a compiled step keep them, with absolute paths.
std::map<std::string, std::string> notes_of(const Recipe& recipe);
// What `step`, a compiled one, was compiled with. Error where its notes do not say, or say what no recipe may.
Recipe recipe_of_step(const CompiledModel& model, const std::string& step);

// `given` over the recipe that `step` was compiled with. Error naming every key of it that needs another compilation.
Recipe recipe_over_compiled(const Recipe& compiled, const Recipe& given, const std::string& step);

}  // namespace halfstep
