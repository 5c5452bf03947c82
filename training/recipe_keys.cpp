#include "training/recipe_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <limits>

#include "base/error.h"
#include "base/initial_schemes.h"
#include "base/printable.h"
#include "training/learning_rate.h"
#include "training/recipe_groups.h"
#include "training/recipe_losses.h"
#include "training/recipe_values.h"

namespace halfstep {
namespace {

using recipe_values::read;
using recipe_values::write;
void read(std::vector<LossTerm>& to, const std::string& text) { to = read_losses(text); }
void read(std::vector<RecipeGroup>& to, const std::string& text) { to = read_groups(text); }
void read(std::vector<UnfreezeRule>& to, const std::string& text) { to = read_unfreeze(text); }
std::string write(const std::vector<LossTerm>& v) { return write_losses(v); }
std::string write(const std::vector<RecipeGroup>& v) { return write_groups(v); }
std::string write(const std::vector<UnfreezeRule>& v) { return write_unfreeze(v); }

// The choice that a word means which others have for it, or the one that is spelt most alike.
std::string meant_choice(const std::string& text, const std::vector<std::string>& known) {
  static constexpr std::pair<std::string_view, std::string_view> kMeant[] = {
      {"gpu", "cuda"},      {"nvidia", "cuda"},    {"float16", "fp16"}, {"half", "fp16"},       {"f16", "fp16"},
      {"16", "fp16"},       {"mixed", "fp16"},     {"amp", "fp16"},     {"bfloat16", "bf16"},   {"float32", "fp32"},
      {"float", "fp32"},    {"f32", "fp32"},       {"full", "fp32"},    {"32", "fp32"},         {"single", "fp32"},
      {"yes", "true"},      {"on", "true"},        {"1", "true"},       {"no", "false"},        {"off", "false"},
      {"0", "false"},       {"off", "none"},       {"static", "fixed"}, {"kaiming", "pytorch"}, {"he", "pytorch"},
      {"glorot", "xavier"}, {"gaussian", "normal"}};
  std::string word = text;
  std::ranges::transform(word, word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (std::ranges::find(known, word) != known.end()) return word;
  for (const auto& [other, choice] : kMeant)
    if (word == other && std::ranges::find(known, choice) != known.end()) return std::string(choice);
  return nearest(text, known);
}

// Words separated by | in `choices`.
void expect_choice(const std::string& choices, const std::string& text) {
  const std::vector<std::string> known = split(choices, '|');
  for (const std::string& choice : known)
    if (choice == text) return;
  const std::string near = meant_choice(text, known);
  throw Error("one of " + choices + " expected, found '" + text + "'" +
              (near.empty() ? "" : "; did you mean '" + near + "'?"));
}

constexpr double kNone = std::numeric_limits<double>::infinity();
// Loss scales are f32, and so are their reciprocals.
constexpr double kLeastScale = 0x1p-126, kMostScale = 0x1p126;
constexpr double kMostAlpha = 1e6;
constexpr double kMostEma = 0.9999999;       // in f32 below 1
constexpr double kMostHysteresis = 1 << 30;  // counted in 32 bits

struct Group {
  const char* name;
  RecipeKey::Scope scope;
};
constexpr Group kModel{"model", RecipeKey::compiled}, kData{"data", RecipeKey::run}, kStep{"step", RecipeKey::compiled},
    kPrecision{"precision", RecipeKey::compiled}, kTarget{"target", RecipeKey::compiled}, kRun{"run", RecipeKey::run};

template <auto Member>
RecipeKey key(Group group, std::string name, std::string unit, std::string help, double least = -kNone,
              double most = kNone) {
  return {std::move(name),
          group.name,
          group.scope,
          std::move(unit),
          std::move(help),
          least,
          most,
          [](Recipe& r, const std::string& text) { read(r.*Member, text); },
          [](const Recipe& r) { return write(r.*Member); }};
}

// Where a policy stands, which may extend another preset, it has no value unless it was given.
RecipeKey preset_key() {
  RecipeKey k = key<&Recipe::preset>(kPrecision, "preset",
                                     "halfstep|torch|tensorflow|apex-o0|apex-o1|apex-o2|apex-o3|fp32|default",
                                     "the rows autocast starts from; default is halfstep");
  k.get = [](const Recipe& r) { return r.policy.empty() || r.given.contains("preset") ? r.preset : std::string(); };
  return k;
}

// "sgd|adam"
std::string names_of(const auto& rows) {
  std::string names;
  for (const auto& row : rows) names += (names.empty() ? "" : "|") + std::string(row.name);
  return names;
}

RecipeKey parameter_key(const HyperParameter& parameter) {
  const bool number = parameter.kind != HyperParameter::yes_or_no, whole = parameter.kind == HyperParameter::whole;
  const std::string name(parameter.name);
  const auto set = [=](Recipe& r, const std::string& text) {
    bool yes = false;
    int64_t count = 0;
    double value = 0;
    whole ? read(count, text) : number ? read(value, text) : read(yes, text);
    r.optimizer_parameters[name] = whole ? static_cast<double>(count) : number ? value : yes;
  };
  const auto get = [=](const Recipe& r) {
    const OptimizerRow* row = find_optimizer(r.optimizer);
    if (!row || !row->find(name)) return std::string();
    const double value = value_of(*row, name, r.optimizer_parameters);
    return number ? write(value) : write(value != 0);
  };
  return {name,           kStep.name, kStep.scope, number ? "NUMBER" : "true|false", "", parameter.least,
          parameter.most, set,        get};
}

// One for each parameter of the optimizers, which may share it.
std::vector<RecipeKey> parameter_keys() {
  std::vector<RecipeKey> keys;
  std::map<std::string, std::vector<std::pair<std::string, std::string>>> defaults;  // by key: of rows with that value
  for (const OptimizerRow& row : optimizers())
    for (const HyperParameter& parameter : row.parameters) {
      const std::string name(parameter.name);
      if (std::ranges::find(keys, name, &RecipeKey::name) == keys.end()) keys.push_back(parameter_key(parameter));
      const bool number = parameter.kind != HyperParameter::yes_or_no;
      const std::string value = number ? write(parameter.value) : write(parameter.value != 0);
      auto& rows = defaults[name];
      auto same = std::ranges::find(rows, value, &std::pair<std::string, std::string>::second);
      if (same == rows.end()) same = rows.insert(same, {"", value});
      same->first += (same->first.empty() ? "" : ", ") + std::string(row.name);
    }
  for (RecipeKey& key : keys)
    for (const auto& [rows, value] : defaults.at(key.name))
      key.help += fmt::format("{}{} [{}]", key.help.empty() ? "" : "; ", rows, value);
  return keys;
}

// Takes aliases too, and gives the row's name.
RecipeKey loss_key() {
  RecipeKey k = key<&Recipe::loss>(kStep, "loss", loss_names("|"), "what is minimised");
  k.set = [](Recipe& r, const std::string& text) { r.loss = find_loss(text)->name; };
  return k;
}

// "sgd, adam": the losses that read a key.
std::string readers_of(const LossKey& key) {
  std::string names;
  for (const LossFunction& row : loss_functions())
    if (row.reads(key.name)) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

RecipeKey key_of_losses(const LossKey& key) {
  const std::string name(key.name);
  const auto set = [=](Recipe& r, const std::string& text) {
    OutputLoss loss = one_loss(r);
    set_loss_key(loss, key, text, ',');
    r.class_axis = loss.class_axis, r.ignore_index = loss.ignore_index;
    r.loss_parameters = std::move(loss.parameters);
  };
  const auto get = [=](const Recipe& r) {
    const OutputLoss loss = one_loss(r);
    const std::string given = get_loss_key(loss, key, ',');
    if (!given.empty() || !r.losses.empty() || !key.value || !function_of(loss).reads(name)) return given;
    return key.kind == LossKey::yes_or_no ? write(*key.value != 0) : write(*key.value);
  };
  const char* unit = key.kind == LossKey::list        ? "NUMBER,..."
                     : key.kind == LossKey::yes_or_no ? "true|false"
                                                      : "NUMBER";
  return {name,      kStep.name, kStep.scope, unit, fmt::format("{} ({})", key.meaning, readers_of(key)),
          key.least, key.most,   set,         get};
}

std::vector<RecipeKey> keys_of_losses() {
  std::vector<RecipeKey> keys;
  for (const LossKey& key : loss_keys()) keys.push_back(key_of_losses(key));
  return keys;
}

std::vector<RecipeKey> all_keys() {
  using R = Recipe;
  std::vector<RecipeKey> table{
      key<&R::model>(kModel, "model", "PATH", "the ONNX file, or a directory that `compile` made"),
      key<&R::init>(kModel, "init", "from_file|absent|fresh",
                    "where weights come from; alone: absent, fresh where missing"),
      key<&R::bn_insert>(kModel, "bn_insert", "true|false",
                         "put batch norms back that the export folded into convolutions"),
      key<&R::bn_after>(kModel, "bn_after", "PATTERN,...",
                        "bn_insert: names of the convolutions; default: those the file tells of"),
      key<&R::bn_epsilon>(kModel, "bn_epsilon", "NUMBER",
                          "bn_insert: the model's, which matters in training; default: 1e-05, PyTorch's", 0),
      key<&R::restore_parameters>(kModel, "restore_parameters", "true|false",
                                  "put parameters back that the export merged or removed for their values"),
      key<&R::shapes>(kModel, "shape", "[NAME=]D,D,...", "an input's shape; -1 leaves an axis as exported"),
      key<&R::values>(kModel, "set", "NAME=NUMBER,...", "inputs that are constants: every element has this value"),
      key<&R::freeze>(kModel, "freeze", "PATTERN,...", "patterns of parameters that are not trained"),
      key<&R::train>(kModel, "train", "PATTERN,...",
                     "patterns of what is trained though freeze names it, or it looks like a constant"),
      key<&R::fresh>(kModel, "fresh", "PATTERN,...", "patterns of parameters that start fresh; others as init says"),
      key<&R::resize_head>(kModel, "resize_head", "NUMBER",
                           "classes of a new last layer, which starts fresh, in the place of the file's; 0: the file's",
                           0),
      key<&R::init_scheme>(kModel, "init_scheme", names_of(initial_schemes()),
                           "how fresh weights are drawn; auto: normal where the model has attention, else as PyTorch's "
                           "layers"),
      key<&R::init_std>(kModel, "init_std", "NUMBER", "standard deviation of scheme normal", 0),
      key<&R::max_nodes>(kModel, "max_nodes", "NUMBER", "of the model, with functions inlined and loops unrolled", 1),
      key<&R::max_iterations>(kModel, "max_iterations", "NUMBER", "of all loops of the model together", 1),
      key<&R::max_folded_bytes>(kModel, "max_folded_bytes", "NUMBER",
                                "of all constant expressions that an import evaluates", 1),
      key<&R::max_folded_operations>(kModel, "max_folded_operations", "NUMBER", "the same", 1),
      key<&R::scale>(kModel, "scale", "NUMBER", "the image input takes bytes, multiplied by this (1/255: 0.00392157)"),
      key<&R::mean>(kModel, "mean", "NUMBER,...", "subtracted after scaling: one value, or one a channel"),
      key<&R::std>(kModel, "std", "NUMBER,...", "divided by afterwards: one value, or one a channel"),

      key<&R::data>(
          kData, "data", "PATH",
          "training data: a folder of images by class, tar shards, IDX directory, NAME=FILE,NAME=FILE, FILE.npz, "
          "FILE.h5, FILE.csv or - (standard input); text or a token file for the token objectives"),
      key<&R::test_data>(kData, "test_data", "PATH",
                         "held-out data; default: the test part of a directory that has one"),
      key<&R::test_fraction>(kData, "test_fraction", "NUMBER",
                             "share of the data that is held out; of a token stream its end", 0, 1),
      key<&R::folds>(kData, "folds", "NUMBER", "parts that the data is dealt into, one of which is held out; 0: none",
                     0),
      key<&R::fold>(kData, "fold", "NUMBER", "the one that is held out, from 1", 1),
      key<&R::stratify>(kData, "stratify", "auto|none",
                        "auto: each class is split by itself, where there is one a sample"),
      key<&R::sampling>(kData, "sampling", "natural|balanced",
                        "balanced: each epoch has as many samples of each class"),
      key<&R::header>(kData, "header", "auto|true|false", "tables: the first line names the columns"),
      key<&R::delimiter>(kData, "delimiter", "CHARACTER", "tables: between columns, or tab; auto: , ; tab or |"),
      key<&R::label_column>(
          kData, "label_column", "NAME,...",
          "tables: columns of labels; tar shards: fields of .json; none: there are none; default: the "
          "last, .cls"),
      key<&R::columns>(kData, "columns", "PATTERN,...", "tables: columns that are read; default: all but the labels"),
      key<&R::drop_columns>(kData, "drop_columns", "PATTERN,...", "tables: columns that are left out"),
      key<&R::standardize>(kData, "standardize", "PATTERN,...",
                           "tables: columns that get the training part's mean 0 and deviation 1"),
      key<&R::bad_rows>(kData, "bad_rows", "stop|skip",
                        "tables: what rows with missing values or another number of columns do"),
      key<&R::text_column>(kData, "text_column", "NAME",
                           "tables: a column of texts, which a tokenizer makes numbers of"),
      key<&R::image_column>(kData, "image_column", "NAME",
                            "tables: a column of paths of images, from the table's folder"),
      key<&R::tokenizer>(kData, "tokenizer", "PATH",
                         "a tokenizer.json (byte-level BPE or WordPiece) for texts of a table or a text file"),
      key<&R::resize>(kData, "resize", "NUMBER",
                      "images: length of the shorter side before the middle is cut out; 0: as small as it fits", 0),
      key<&R::image_fit>(kData, "image_fit", "crop|stretch", "images: cut the middle out, or change the sides' ratio"),
      key<&R::augment>(kData, "augment", "NAME,...",
                       "images, in training: crop, flip, shift, color, hue, cutout, each by chance"),
      key<&R::crop_scale>(kData, "crop_scale", "NUMBER", "augment's crop: least share of the image's area", 0, 1),
      key<&R::bad_images>(kData, "bad_images", "stop|skip",
                          "images that cannot be decoded; skip: all are read before training, and these left out"),
      key<&R::max_image_pixels>(kData, "max_image_pixels", "NUMBER", "of an image, larger ones are refused", 1),
      key<&R::shuffle_buffer>(kData, "shuffle_buffer", "NUMBER",
                              "tar shards: read one after the other, each time in a new order, with so many samples "
                              "mixed; 0: all are mixed",
                              0),
      key<&R::loader_threads>(kData, "loader_threads", "NUMBER",
                              "that decode images; 0: as many as there are processors", 0),
      key<&R::data_memory>(kData, "data_memory", "SIZE",
                           "arrays and tables of more bytes stay in files, and samples are read as they are needed"),
      key<&R::classes>(kData, "classes", "NUMBER", "labels are below it; default: from the output's shape", 0),

      key<&R::batch>(kStep, "batch", "NUMBER", "samples in a batch", 1),
      key<&R::accumulation>(kStep, "accumulation", "NUMBER", "batches whose gradients make one optimizer step", 1),
      loss_key(),
      key<&R::output>(kStep, "output", "NAME", "the output the loss is attached to; default: the only one"),
      key<&R::losses>(kStep, "losses", "KEY=VALUE,...;...",
                      "several, whose weighted sum is minimised: name, kind, output, labels, weight, and the keys of "
                      "one loss, lists as 1:2:3; in recipes a [[loss]] each"),
      key<&R::loss_scales>(kStep, "loss_scales", "shared|each",
                           "of several losses: one scale and one backward for their sum, or for each its own"),
      key<&R::keep_outputs>(kStep, "keep_outputs", "true|false",
                            "evaluation also gives the model's outputs, for predictions through the API"),
      key<&R::objective>(kStep, "objective", "labels|next_token|masked_token",
                         "where labels come from: the data, or one stream of tokens"),
      key<&R::mixup>(kStep, "mixup", "NUMBER",
                     "alpha of Beta(alpha, alpha), which the share of a sample in a mixed batch is drawn from, in "
                     "training; 0: none is mixed",
                     0, kMostAlpha),
      key<&R::cutmix>(kStep, "cutmix", "NUMBER",
                      "the same for images of which a part is another's; with mixup each batch takes one of both", 0,
                      kMostAlpha),
      key<&R::ids>(kStep, "ids", "NAME", "the input that takes the tokens; default: the only one that can"),
      key<&R::mask_token>(kStep, "mask_token", "NUMBER", "masked_token: what stands for a hidden token", 0),
      key<&R::mask_probability>(kStep, "mask_probability", "NUMBER", "masked_token: share of the tokens to predict", 0,
                                1),
      key<&R::special_tokens>(kStep, "special_tokens", "NUMBER,...", "masked_token: FIRST,LAST that are never hidden"),
      key<&R::dropout>(kStep, "dropout", "NUMBER", "replaces every dropout ratio of the model", 0, 1),
      key<&R::optimizer>(kStep, "optimizer", names_of(optimizers()), "the update rule"),
      key<&R::weight_decay>(kStep, "weight_decay", "NUMBER", "all optimizers", 0),
      key<&R::no_decay>(kStep, "no_decay", "PATTERN,...",
                        "parameters without weight decay; vectors: those of one axis (biases, norms)"),
      key<&R::groups>(kStep, "groups", "KEY=VALUE,...;...",
                      "parameters (PATTERN|PATTERN) with a learning_rate, a weight_decay, or the optimizer of muon's "
                      "rest; in recipes a [[group]] each"),
      key<&R::unfreeze>(kStep, "unfreeze", "PATTERN=EPOCH,...", "parameters that stay as they are before that epoch"),
      key<&R::clip_norm>(kStep, "clip_norm", "NUMBER", "largest global gradient norm; 0: no limit", 0),
      key<&R::clip_value>(kStep, "clip_value", "NUMBER", "largest element of a gradient; 0: no limit", 0),
      key<&R::clip_adaptive>(kStep, "clip_adaptive", "NUMBER",
                             "largest norm of a gradient as a share of its weights', for each output; 0: no limit", 0),
      key<&R::ema>(kStep, "ema", "NUMBER", "decay of a running mean of the weights, such as 0.999; 0: none", 0,
                   kMostEma),
      key<&R::tensorboard_gradients>(kStep, "tensorboard_gradients", "true|false",
                                     "tensorboard: histograms of the gradients too, of each epoch's last batch"),

      key<&R::precision>(kPrecision, "precision", "fp16|bf16|fp32", "the low type of autocast; fp32: none"),
      preset_key(),
      key<&R::policy>(kPrecision, "policy", "PATH",
                      "a file of rules (TOML), which may extend a preset and other files"),
      key<&R::allow>(kPrecision, "allow", "PATTERN,...", "operators or node-name patterns that run low"),
      key<&R::deny>(kPrecision, "deny", "PATTERN,...", "operators or node-name patterns that run in fp32"),
      key<&R::infer>(kPrecision, "infer", "PATTERN,...", "operators or node-name patterns that follow their operands"),
      key<&R::nodes_to_exclude>(kPrecision, "nodes_to_exclude", "REGEX,...", "AutoCast's: nodes that run in fp32"),
      key<&R::nodes_to_include>(kPrecision, "nodes_to_include", "REGEX,...",
                                "AutoCast's: nodes that run low whatever excludes them"),
      key<&R::op_types_to_exclude>(kPrecision, "op_types_to_exclude", "OPERATOR,...",
                                   "AutoCast's: operators that run in fp32"),
      key<&R::op_types_to_include>(kPrecision, "op_types_to_include", "OPERATOR,...",
                                   "AutoCast's: operators that run low whatever excludes them"),
      key<&R::data_max>(kPrecision, "data_max", "NUMBER",
                        "AutoCast's: nodes that read or write larger values on the calibration data run in fp32; "
                        "default with calibration_data: 512",
                        0),
      key<&R::init_max>(kPrecision, "init_max", "NUMBER", "AutoCast's: nodes with larger weights run in fp32", 0),
      key<&R::max_depth_of_reduction>(kPrecision, "max_depth_of_reduction", "NUMBER",
                                      "AutoCast's: nodes that sum more values run in fp32", 1),
      key<&R::calibration_data>(kPrecision, "calibration_data", "PATH",
                                "AutoCast's: an .npz file of the model's inputs, on which it is run in fp32"),
      key<&R::loss_scale>(kPrecision, "loss_scale", "auto|dynamic|fixed|none",
                          "keeps gradients out of fp16's underflow; auto: dynamic there, 1 elsewhere; none: nor are "
                          "steps skipped whose gradients are not finite"),
      key<&R::initial_scale>(kPrecision, "initial_scale", "NUMBER", "the first, or fixed, loss scale", kLeastScale,
                             kMostScale),
      key<&R::growth_factor>(kPrecision, "growth_factor", "NUMBER", "dynamic scaling", 1),
      key<&R::backoff_factor>(kPrecision, "backoff_factor", "NUMBER", "dynamic scaling", 0, 1),
      key<&R::growth_interval>(kPrecision, "growth_interval", "NUMBER", "steps without overflow until it grows", 1),
      key<&R::hysteresis>(kPrecision, "hysteresis", "NUMBER",
                          "the overflow at which the scale backs off; those before it only cost their step", 1,
                          kMostHysteresis),
      key<&R::consecutive_hysteresis>(kPrecision, "consecutive_hysteresis", "true|false",
                                      "hysteresis: any step without overflow starts the count again, not growth alone"),
      key<&R::min_scale>(kPrecision, "min_scale", "NUMBER", "the scale's floor", kLeastScale, kMostScale),

      key<&R::device>(kTarget, "device", "auto|cpu|cuda", "where the step runs; auto: cuda where there is a GPU"),
      key<&R::architecture>(
          kTarget, "architecture", "NAME",
          "LLVM's name of a CPU, or native: this one; sm_80, which later GPUs run too; default: native, of compiled "
          "directories x86-64-v3"),
      key<&R::memory_budget>(
          kTarget, "memory_budget", "SIZE",
          "most memory of states and of what a step keeps, as 6GiB; where it is short, large logits are "
          "computed in chunks of rows, and values again"),
      key<&R::attention>(kTarget, "attention", "library|deterministic|expanded",
                         "on CUDA, in f16 and bf16: one library call each where there is no mask but causal, the same "
                         "with gradients summed "
                         "in one order, or its parts"),
      key<&R::recurrent>(kTarget, "recurrent", "library|expanded",
                         "on CUDA: plain LSTM, GRU and RNN layers, and stacks of them, as one library call each, or "
                         "step by step as on the CPU"),

      key<&R::epochs>(kRun, "epochs", "NUMBER", "passes over the training data", 1),
      key<&R::max_steps>(kRun, "max_steps", "NUMBER", "stops earlier; 0: no limit", 0),
      key<&R::learning_rate>(kRun, "learning_rate", "NUMBER", "the full rate", 0),
      key<&R::schedule>(kRun, "schedule", names_of(learning_rate_schedules()), "how the rate changes"),
      key<&R::warmup_steps>(kRun, "warmup_steps", "NUMBER", "steps over which the rate rises", 0),
      key<&R::step_epochs>(kRun, "step_epochs", "NUMBER", "schedule step: epochs between changes", 1),
      key<&R::milestones>(kRun, "milestones", "NUMBER,...", "schedule multistep: epochs after which it changes"),
      key<&R::gamma>(kRun, "gamma", "NUMBER", "schedules step, multistep, exponential and plateau: factor at a change",
                     0),
      key<&R::final_rate>(kRun, "final_rate", "NUMBER",
                          "schedules linear, cosine, cosine_restarts and polynomial: the last rate; plateau: the least",
                          0),
      key<&R::decay_steps>(kRun, "decay_steps", "NUMBER",
                           "schedules linear, cosine, polynomial and one_cycle: the step of the last rate; 0: that of "
                           "all epochs",
                           0),
      key<&R::power>(kRun, "power", "NUMBER", "schedule polynomial: of the share of steps that is left", 0),
      key<&R::restart_epochs>(kRun, "restart_epochs", "NUMBER", "schedule cosine_restarts: epochs to the first restart",
                              1),
      key<&R::restart_factor>(kRun, "restart_factor", "NUMBER",
                              "schedule cosine_restarts: how many times as long each next period is", 1),
      key<&R::rise_fraction>(kRun, "rise_fraction", "NUMBER", "schedule one_cycle: share of the steps that rise", 0, 1),
      key<&R::rise_factor>(kRun, "rise_factor", "NUMBER",
                           "schedule one_cycle: the full rate is so many times the first", 1),
      key<&R::fall_factor>(kRun, "fall_factor", "NUMBER",
                           "schedule one_cycle: the first rate is so many times the last", 1),
      key<&R::three_phases>(kRun, "three_phases", "true|false",
                            "schedule one_cycle: falls as long as it rose, and then on to the last rate"),
      key<&R::plateau_measure>(kRun, "plateau_measure", "MEASURE",
                               "schedule plateau: what has to improve; default: the held-out loss, or the training's"),
      key<&R::plateau_patience>(kRun, "plateau_patience", "NUMBER",
                                "schedule plateau: epochs without improvement that are borne", 0),
      key<&R::plateau_threshold>(kRun, "plateau_threshold", "NUMBER",
                                 "schedule plateau: the share by which it has to improve", 0),
      key<&R::plateau_cooldown>(kRun, "plateau_cooldown", "NUMBER",
                                "schedule plateau: epochs after a change that do not count", 0),
      key<&R::schedule_file>(kRun, "schedule_file", "PATH",
                             "schedule file: a rate a line, or a line STEP,RATE where it changes"),
      key<&R::skipped_steps_count>(kRun, "skipped_steps_count", "true|false",
                                   "the schedule goes on with steps that were skipped too"),
      key<&R::seed>(kRun, "seed", "NUMBER", "of data order, dropout and fresh weights", 0),
      key<&R::shuffle>(kRun, "shuffle", "true|false", "samples in a new order each epoch; false: in the files' order"),
      key<&R::measures>(
          kRun, "measures", "NAME,...",
          "of evaluation, beside loss and accuracy: f1, auc, confusion, ... (docs/measures.md); of several "
          "losses one's as LOSS.NAME"),
      key<&R::per_class>(kRun, "per_class", "true|false", "measures also of each class by itself"),
      key<&R::class_names>(kRun, "class_names", "PATH", "a text file with the name of a class in each line"),
      key<&R::grad_scaler>(kRun, "grad_scaler", "PATH",
                           "start from the state of PyTorch's GradScaler: its state_dict() as JSON; a resumed run has "
                           "its own"),
      key<&R::skip_limit>(kRun, "skip_limit", "NUMBER",
                          "steps skipped in a row that end training, at whatever scale; 0: no limit", 0),
      key<&R::overflow_limit>(kRun, "overflow_limit", "NUMBER", "overflows in a row at the floor that end training", 1),
      key<&R::threads>(kRun, "threads", "NUMBER", "CPU threads; 0: as many as its affinity and quota let run", 0),
      key<&R::autotune>(kRun, "autotune", "NUMBER", "library algorithms timed per shape on CUDA", 1),
      key<&R::tf32>(kRun, "tf32", "true|false", "let fp32 contractions use TF32 on CUDA"),
      key<&R::out>(kRun, "out", "PATH", "directory for checkpoints, metrics and the trained model"),
      key<&R::resume>(kRun, "resume", "PATH", "a checkpoint, or a directory of them, to continue from"),
      key<&R::trust>(kRun, "trust", "PATH", "a public key (Ed25519, PEM): a compiled step must be signed with it"),
      key<&R::checkpoint_every>(kRun, "checkpoint_every", "NUMBER", "steps between checkpoints; 0: one an epoch", 0),
      key<&R::keep>(kRun, "keep", "NUMBER", "checkpoints that stay; 0: all", 0),
      key<&R::best>(kRun, "best", "MEASURE",
                    "keep the checkpoint after the epoch that is best by this measure, such as test_accuracy"),
      key<&R::patience>(kRun, "patience", "NUMBER",
                        "epochs without improvement of `best` after which training ends; 0: no limit", 0),
      key<&R::min_delta>(kRun, "min_delta", "NUMBER", "patience: what counts as an improvement is larger", 0),
      key<&R::overwrite>(kRun, "overwrite", "true|false", "remove what another run left in `out`"),
      key<&R::ema_weights>(kRun, "ema_weights", "true|false",
                           "evaluate and export the mean of the weights where there is one"),
      key<&R::metrics_every>(kRun, "metrics_every", "NUMBER", "one step in so many goes to metrics.jsonl", 0),
      key<&R::tensorboard>(kRun, "tensorboard", "true|false", "also write event files for TensorBoard into out"),
      key<&R::layer_times>(kRun, "layer_times", "true|false",
                           "after training, time each call of the step, for the report: what each layer takes"),
  };
  const std::vector<RecipeKey> of_losses = keys_of_losses();
  const auto outputs = std::ranges::find(table, "keep_outputs", &RecipeKey::name);
  table.insert(outputs + 1, of_losses.begin(), of_losses.end());
  const std::vector<RecipeKey> parameters = parameter_keys();
  const auto optimizer = std::ranges::find(table, "optimizer", &RecipeKey::name);
  table.insert(optimizer + 1, parameters.begin(), parameters.end());
  return table;
}

const std::vector<RecipeKey>& keys() {
  static const std::vector<RecipeKey> table = all_keys();
  return table;
}

std::string unknown_key(const std::string& name) {
  std::vector<std::string> names;
  for (const RecipeKey& k : keys()) names.push_back(k.name);
  const std::string near = nearest(name, names);
  return "no key '" + name + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?");
}

void expect_within(const RecipeKey& k, const std::string& text) {
  double value = 0;
  read(value, text);
  if (value < k.least) throw Error(fmt::format("at least {:g} expected, found {}", k.least, text));
  if (value > k.most) throw Error(fmt::format("at most {:g} expected, found {}", k.most, text));
}

}  // namespace

std::span<const RecipeKey> recipe_keys() { return keys(); }

std::span<const std::pair<std::string_view, std::string_view>> key_aliases() {
  static constexpr std::pair<std::string_view, std::string_view> kAliases[] = {{"lr", "learning_rate"},
                                                                               {"wd", "weight_decay"},
                                                                               {"bs", "batch"},
                                                                               {"batch_size", "batch"},
                                                                               {"warmup", "warmup_steps"}};
  return kAliases;
}

std::string key_of_option(const std::string& option) {
  for (const auto& [alias, name] : key_aliases())
    if (option == alias) return std::string(name);
  return option;
}

const RecipeKey* find_key(const std::string& name) {
  for (const RecipeKey& k : keys())
    if (k.name == name) return &k;
  return nullptr;
}

std::string from_folder(const std::filesystem::path& base, const RecipeKey& key, const std::string& value) {
  if (key.unit != "PATH" || key.name == "out" || key.name == "resume") return value;
  std::string result;
  for (const std::string& part : split(value, ',')) {  // NAME=FILE,... too
    const size_t equals = part.find('=');
    const std::string prefix = equals == std::string::npos ? "" : part.substr(0, equals + 1);
    const std::filesystem::path path = part.substr(prefix.size());
    if (path == "-") return value;  // standard input
    result +=
        (result.empty() ? "" : ",") + prefix + (path.is_absolute() ? path : (base / path).lexically_normal()).string();
  }
  return result;
}

void set_key(Recipe& recipe, const std::string& name, const std::string& value) {
  const RecipeKey* k = find_key(name);
  if (!k) throw Error(unknown_key(name));
  try {
    if (holds_control_character(value)) throw Error("'" + printable(value) + "' holds a control character");
    if (k->unit.find('|') != std::string::npos) expect_choice(k->unit, value);
    k->set(recipe, value);
    if (k->unit == "NUMBER") expect_within(*k, value);
  } catch (const Error& e) {
    throw Error(name + ": " + e.what());
  }
  recipe.given.insert(name);
}

}  // namespace halfstep
