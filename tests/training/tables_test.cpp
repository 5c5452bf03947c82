// The tables of optimizers and schedules: rows agree with each other and with the page about them.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/losses.h"
#include "base/optimizers.h"
#include "training/learning_rate.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

std::string parameter_text(const HyperParameter& p) {
  const std::string value =
      p.kind == HyperParameter::yes_or_no ? (p.value != 0 ? "true" : "false") : fmt::format("{:g}", p.value);
  return fmt::format("`{}` {}{}", p.name, value, p.beside.empty() ? "" : fmt::format(", beside `{}`", p.beside));
}

std::string page() {
  std::string text =
      "# Optimizers and learning-rate schedules\n\nThe tables are written from `base/optimizers.cpp` and "
      "`training/learning_rate.cpp` (`UPDATE_EXPECTED=1 training_test`).\n`weight_decay`, `no_decay`, groups, clipping "
      "and `ema` go with every optimizer.\n\n| `optimizer` | what | formula | its keys, with their defaults | weight "
      "decay |\n|---|---|---|---|---|\n";
  for (const OptimizerRow& row : optimizers()) {
    std::string parameters;
    for (const HyperParameter& p : row.parameters) parameters += (parameters.empty() ? "" : "; ") + parameter_text(p);
    text += fmt::format("| `{}` | {} | {} | {} | {} |\n", row.name, row.meaning, row.source, parameters,
                        row.decay == OptimizerRow::of_weights    ? "decoupled"
                        : row.decay == OptimizerRow::of_gradient ? "of the gradient"
                                                                 : "in the step");
  }
  text +=
      "\nRates rise over the first `warmup_steps` in equal parts to `learning_rate`, whatever the schedule.\n\n"
      "| `schedule` | the rate from there on | its keys |\n|---|---|---|\n";
  for (const ScheduleRow& row : learning_rate_schedules()) {
    std::string keys;
    for (const std::string_view key : row.keys) keys += fmt::format("{}`{}`", keys.empty() ? "" : ", ", key);
    text += fmt::format("| `{}` | {} | {} |\n", row.name, row.meaning, keys);
  }
  return text;
}

TEST(Tables, PageIsThatOfTheRows) {
  const std::filesystem::path path = std::filesystem::path(HALFSTEP_SOURCE_DIR) / "docs/optimizers.md";
  // What stands behind the tables is written by hand.
  const std::string found = std::filesystem::exists(path) ? read_file(path) : "";
  const size_t tables = std::min(found.find("\n## "), found.size());
  if (std::getenv("UPDATE_EXPECTED")) write_file_atomically(path, page() + found.substr(tables));
  EXPECT_EQ(page(), found.substr(0, tables)) << "run with UPDATE_EXPECTED=1";
}

// Bars end a cell of a table.
std::string cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  return text;
}

std::string recipe_page() {
  std::string text =
      "# Recipes: every key\n\nWritten from the table of keys, `training/recipe_keys.cpp` (`UPDATE_EXPECTED=1 "
      "training_test`). A recipe is a TOML file, `key = value` a line; each key is\nalso an option of the commands "
      "(`--batch 64`, with dashes too: `--learning-rate`), of the C API and of Python, and wins there over the file. "
      "Paths are relative to the recipe.\nA list is `[\"a\", \"b\"]` in TOML and `a,b` as an option. Keys of model, "
      "step, precision and target are fixed when a step is compiled; the others belong to each run.\n";
  std::string group;
  for (const RecipeKey& key : recipe_keys()) {
    if (key.group != group)
      text += fmt::format("\n## {}\n\n| key | value | default | |\n|---|---|---|---|\n", group = key.group);
    const std::string value = key.get(Recipe());
    text += fmt::format("| `{}` | {} | {} | {} |\n", key.name, cell(key.unit),
                        value.empty() ? "" : "`" + cell(value) + "`", cell(key.help));
  }
  text +=
      "\nSeveral losses are a `[[loss]]` each, behind all other keys ([losses.md](losses.md)). Optimizers, schedules "
      "and "
      "their keys: [optimizers.md](optimizers.md); data: [data.md](data.md);\nnew heads and fresh weights: "
      "[fine_tuning.md](fine_tuning.md); precision: [precision.md](precision.md).\n";
  return text;
}

TEST(Tables, RecipePageIsThatOfTheKeys) {
  const std::filesystem::path path = std::filesystem::path(HALFSTEP_SOURCE_DIR) / "docs/recipe.md";
  if (std::getenv("UPDATE_EXPECTED")) write_file_atomically(path, recipe_page());
  EXPECT_EQ(recipe_page(), std::filesystem::exists(path) ? read_file(path) : "") << "run with UPDATE_EXPECTED=1";
}

TEST(Tables, OptimizersThatShareAKeyShareItsRange) {
  std::map<std::string_view, HyperParameter> seen;
  for (const OptimizerRow& row : optimizers())
    for (const HyperParameter& p : row.parameters) {
      const HyperParameter& first = seen.emplace(p.name, p).first->second;
      EXPECT_EQ(std::pair(first.least, first.most), std::pair(p.least, p.most)) << row.name << ": " << p.name;
      EXPECT_EQ(first.kind, p.kind) << row.name << ": " << p.name;
      EXPECT_TRUE(p.value >= p.least && p.value <= p.most) << row.name << ": " << p.name;
      EXPECT_TRUE(p.beside.empty() || row.find(p.beside)) << row.name << ": " << p.name;
      EXPECT_NE(find_key(std::string(p.name)), nullptr) << row.name << ": " << p.name;
    }
}

std::string code(std::string_view name) { return fmt::format("`{}`", name); }

// What stands in docs/losses.md between its marks.
std::string loss_tables() {
  constexpr std::string_view kScores[] = {"logits `[N, ..., classes, ...]`",
                                          "log-probabilities `[N, ..., classes, ...]`",
                                          "logits of any shape",
                                          "numbers of any shape",
                                          "log-probabilities of any shape",
                                          "the loss, `[]` or `[N]`"};
  constexpr std::string_view kLabels[] = {"`labels` `[N, ...]`: classes from 0",
                                          "`labels` of its shape: 0, 1 or between", "`targets` of its shape", "none"};
  std::string text = "\n| `loss` | what | the output holds | compared with | its keys |\n|---|---|---|---|---|\n";
  for (const LossFunction& row : loss_functions()) {
    std::string names = code(row.name), keys;
    for (const std::string_view alias : row.aliases) names += ", " + code(alias);
    for (const std::string_view key : row.keys) keys += (keys.empty() ? "" : ", ") + code(key);
    text +=
        fmt::format("| {} | {} | {} | {} | {} |\n", names, row.meaning, kScores[row.scores], kLabels[row.labels], keys);
  }
  text += "\n| key | | default | from | to |\n|---|---|---|---|---|\n";
  for (const LossKey& key : loss_keys()) {
    const auto bound = [](double value) { return std::isfinite(value) ? fmt::format("{:g}", value) : std::string(); };
    const bool is_switch = key.kind == LossKey::yes_or_no;
    text += fmt::format("| {} | {} | {} | {} | {} |\n", code(key.name), key.meaning,
                        !key.value  ? std::string()
                        : is_switch ? (*key.value != 0 ? "true" : "false")
                                    : fmt::format("{:g}", *key.value),
                        is_switch ? "" : bound(key.least), is_switch ? "" : bound(key.most));
  }
  return text + "\n";
}

TEST(Tables, LossesOfTheirPageAreThoseOfTheRows) {
  constexpr std::string_view kBegin = "<!-- rows of base/losses.cpp -->\n", kEnd = "<!-- end of rows -->";
  const std::filesystem::path path = std::filesystem::path(HALFSTEP_SOURCE_DIR) / "docs/losses.md";
  std::string page = read_file(path);
  const size_t begin = page.find(kBegin), end = page.find(kEnd);
  ASSERT_TRUE(begin != std::string::npos && end != std::string::npos && begin < end);
  const size_t first = begin + kBegin.size();
  if (std::getenv("UPDATE_EXPECTED")) {
    write_file_atomically(path, page.replace(first, end - first, loss_tables()));
    return;
  }
  EXPECT_EQ(page.substr(first, end - first), loss_tables()) << "run with UPDATE_EXPECTED=1";
}

TEST(Tables, LossesReadKeysOfTheirTableAndOfTheRecipe) {
  for (const LossFunction& row : loss_functions()) {
    for (const std::string_view key : row.keys) EXPECT_NE(find_loss_key(key), nullptr) << row.name << ": " << key;
    for (const std::string_view alias : row.aliases) EXPECT_EQ(find_loss(alias), &row) << alias;
    EXPECT_EQ(find_loss(row.name), &row);
    const bool elements = row.scores == LossFunction::logits || row.scores == LossFunction::numbers ||
                          row.scores == LossFunction::log_likelihood;
    EXPECT_EQ(row.element != nullptr, elements) << row.name;
  }
  for (const LossKey& key : loss_keys()) {
    EXPECT_NE(find_key(std::string(key.name)), nullptr) << key.name;
    EXPECT_TRUE(!key.value || (*key.value >= key.least && *key.value <= key.most)) << key.name;
  }
}

TEST(Tables, LossesAreTakenByTheirAliasesAndWrittenByTheirNames) {
  Recipe recipe;
  set_key(recipe, "loss", "mse");
  EXPECT_EQ(find_key("loss")->get(recipe), "mean_squared_error");
  EXPECT_EQ(find_key("label_smoothing")->get(recipe), "") << "it has none";
  set_key(recipe, "loss", "smooth_l1");
  EXPECT_EQ(find_key("beta")->get(recipe), "1");
  set_key(recipe, "beta", "0.25");
  EXPECT_EQ(find_key("beta")->get(recipe), "0.25");
  set_key(recipe, "class_weights", "1,0.5");
  EXPECT_EQ(find_key("class_weights")->get(recipe), "1,0.5");
  const std::string losses =
      "kind=bce_with_logits,output=a,weight=1,class_axis=2,pos_weight=1:2.5,focal_gamma=2;"
      "name=b,kind=kl_div,output=b,labels=t,weight=0.5,log_target=true";
  set_key(recipe, "losses", losses);
  EXPECT_EQ(find_key("losses")->get(recipe), losses);
  EXPECT_THAT(
      [&] { set_key(recipe, "losses", "kind=hinge,pos_weight=1:x"); },
      testing::ThrowsMessage<Error>(testing::AllOf(testing::HasSubstr("loss 1: kind: one of softmax_cross_entropy"),
                                                   testing::HasSubstr("pos_weight: a number expected, found 'x'"))));
}

TEST(Tables, SchedulesReadKeysOfTheRecipe) {
  for (const ScheduleRow& row : learning_rate_schedules())
    for (const std::string_view key : row.keys)
      EXPECT_NE(find_key(std::string(key)), nullptr) << row.name << ": " << key;
}

TEST(Tables, ARecipeHasTheOptimizersOwnValues) {
  Recipe recipe;
  EXPECT_EQ(find_key("momentum")->get(recipe), "0");
  EXPECT_EQ(find_key("beta1")->get(recipe), "") << "sgd has none";
  set_key(recipe, "beta1", "0.5");
  set_key(recipe, "optimizer", "adamw");
  EXPECT_EQ(find_key("beta1")->get(recipe), "0.5");
  EXPECT_EQ(find_key("beta2")->get(recipe), "0.999");
  EXPECT_THAT([&] { set_key(recipe, "beta2", "1.5"); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("beta2: at most 1 expected, found 1.5")));
  EXPECT_THAT([&] { set_key(recipe, "optimizer", "adan"); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("did you mean 'adam'?")));
}

}  // namespace
}  // namespace halfstep
