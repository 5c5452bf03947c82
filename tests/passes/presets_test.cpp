// The presets' rows beside the published lists that they are taken from.
#include "passes/precision/presets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <sstream>

#include "base/file.h"

namespace halfstep {
namespace {

const PresetRow* last_row(const Preset& preset, const std::string& pattern) {
  const PresetRow* found = nullptr;
  for (const PresetRow& row : preset.rows)
    if (row.pattern == pattern) found = &row;
  return found;
}

struct Lists {
  std::map<std::string, std::set<std::string>> lists;       // list: its operators
  std::map<std::string, std::vector<std::string>> made_of;  // operator: ours
  std::set<std::string> without;                            // operators without a counterpart
};

Lists read_lists(const std::string& file) {
  Lists result;
  std::istringstream lines(read_file(std::string(HALFSTEP_SOURCE_DIR "/tests/references/presets/") + file));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string kind, word;
    words >> kind;
    if (kind == "made") {
      std::string made;
      words >> made;
      while (words >> word) result.made_of[made].push_back(word);
    } else {
      while (words >> word) (kind == "none" ? result.without : result.lists[kind]).insert(word);
    }
  }
  return result;
}

// "infer (Add, BiasAdd)" and "infer (of its Softplus, Tanh)": the list, and the operators; without any that of the row.
std::pair<std::string, std::vector<std::string>> named(const PresetRow& row) {
  const std::string_view text = row.list;
  std::string list(text.substr(0, text.find(' ')));
  if (list.size() == text.size()) {
    std::string own(row.pattern);
    std::ranges::transform(own, own.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return {list, {own}};
  }
  std::string inside(text.substr(text.find('(') + 1));
  inside = inside.substr(0, inside.find(')'));
  if (inside.starts_with("of its ")) inside = inside.substr(7);
  std::vector<std::string> names;
  for (size_t begin = 0; begin <= inside.size();) {
    const size_t end = std::min(inside.find(", ", begin), inside.size());
    names.push_back(inside.substr(begin, end - begin));
    begin = end + 2;
  }
  return {list, names};
}

void expect_published(const std::string& preset_name, const std::map<std::string, Precision>& classes) {
  const Preset& preset = find_preset(preset_name);
  const Lists published = read_lists(preset_name + ".txt");
  std::set<std::string> found = published.without;
  for (const PresetRow& row : preset.rows) {
    if (row.list == "not listed" || row.list == "accumulates") continue;
    const auto [list, names] = named(row);
    ASSERT_TRUE(classes.contains(list)) << row.pattern << ": " << row.list;
    EXPECT_EQ(row.precision, classes.at(list)) << row.pattern;
    for (const std::string& name : names) {
      EXPECT_TRUE(published.lists.at(list).contains(name)) << row.pattern << ": " << name << " is not in " << list;
      found.insert(name);
    }
  }
  for (const auto& [list, names] : published.lists)
    for (const std::string& name : names) {
      const auto made = published.made_of.find(name);
      if (made == published.made_of.end()) {
        EXPECT_TRUE(found.contains(name)) << name << " of " << list << " has no row";
        continue;
      }
      for (const std::string& ours : made->second) {
        const PresetRow* row = last_row(preset, ours);
        ASSERT_NE(row, nullptr) << name << " of " << list << ": no row of " << ours;
        EXPECT_EQ(row->precision, classes.at(list)) << name << " of " << list << ": " << ours;
      }
    }
}

TEST(Presets, TensorFlowsRowsAreThePublishedLists) {
  expect_published("tensorflow", {{"allow", Precision::low},
                                  {"infer", Precision::widest},
                                  {"deny", Precision::full},
                                  {"clear", Precision::follow}});
}

TEST(Presets, ApexO1sRowsAreThePublishedLists) {
  expect_published("apex-o1", {{"FP16_FUNCS", Precision::low}, {"FP32_FUNCS", Precision::full}});
}

// amp/frontend.py: opt levels.
TEST(Presets, ApexsLevels) {
  const auto check = [](const char* name, Preset::LossScale scale, Preset::Masters masters) {
    EXPECT_EQ(find_preset(name).loss_scale, scale) << name;
    EXPECT_EQ(find_preset(name).masters, masters) << name;
  };
  check("apex-o0", Preset::one, Preset::f32);
  check("apex-o1", Preset::dynamic, Preset::f32);
  check("apex-o2", Preset::dynamic, Preset::f32);
  check("apex-o3", Preset::one, Preset::rounded);
  EXPECT_EQ(last_row(find_preset("apex-o0"), "*")->precision, Precision::full);
  EXPECT_EQ(last_row(find_preset("apex-o2"), "*")->precision, Precision::low);
  EXPECT_EQ(last_row(find_preset("apex-o2"), "batch_norm")->precision, Precision::follow);
  EXPECT_EQ(last_row(find_preset("apex-o3"), "*")->precision, Precision::low);
  EXPECT_EQ(last_row(find_preset("apex-o3"), "batch_norm"), nullptr);
}

}  // namespace
}  // namespace halfstep
