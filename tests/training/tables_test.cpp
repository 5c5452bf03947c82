// The tables of optimizers and schedules: rows agree with each other and with the page about them.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/optimizers.h"
#include "training/learning_rate.h"
#include "training/recipe.h"

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
