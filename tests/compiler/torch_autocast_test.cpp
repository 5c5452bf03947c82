// Preset torch beside what was recorded of PyTorch 2.11 under autocast("cuda", float16).
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "base/file.h"
#include "compiler/inspect/inspection.h"

namespace halfstep {
namespace {

const std::filesystem::path kRecorded = HALFSTEP_SOURCE_DIR "/tests/references/torch_autocast";

std::map<std::string, std::string> types_of(const std::filesystem::path& model, const std::string& output = "") {
  Recipe recipe;
  recipe.model = model, recipe.device = "cpu", recipe.preset = "torch", recipe.precision = "fp16";
  recipe.output = output;
  std::map<std::string, std::string> types;
  for (const InspectedNode& node : inspect(recipe, {}).nodes)
    if (node.origin.phase == Phase::forward) types.emplace(node.origin.name, name(node.result));
  return types;
}

std::vector<std::string> split(const std::string& text, const std::string& by) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(by, begin);
    parts.push_back(text.substr(begin, end == std::string::npos ? end : end - begin));
    if (end == std::string::npos) return parts;
    begin = end + by.size();
  }
}

// Every node of every family's file: tools/compare_autocast_files.py --families --record.
TEST(TorchAutocast, EveryNodeOfTheFamiliesHasPyTorchsType) {
  std::istringstream lines(read_file(kRecorded / "families.txt"));
  std::map<std::string, std::map<std::string, std::string>> known;
  size_t compared = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('#')) continue;
    const std::vector<std::string> words = split(line, " ");
    if (!known.contains(words[0])) known[words[0]] = types_of(HALFSTEP_SOURCE_DIR "/models/families/" + words[0]);
    for (size_t i = 2; i < words.size(); ++i, ++compared)
      EXPECT_EQ(known[words[0]][words[i]], words[1]) << words[0] << ": " << words[i];
  }
  EXPECT_EQ(known.size(), 20u);
  EXPECT_GE(compared, 1500u);
}

// Every operator of PyTorch's lists, its result as its dispatcher gives it: tools/record_autocast.py.
TEST(TorchAutocast, EveryListedOperatorHasTheDispatchersType) {
  // What a file does not show. The operator is written as others are that stand in another list, or in none.
  const std::set<std::string> unseen{
#include "tests/references/torch_autocast/unseen.inc"
  };
  const std::map<std::string, std::string> of_file[] = {types_of(kRecorded / "default.onnx", "logits"),
                                                        types_of(kRecorded / "torchscript.onnx", "logits")};
  std::istringstream lines(read_file(kRecorded / "operators.txt"));
  size_t compared = 0;
  std::set<std::string> differ, operators;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('#')) continue;
    const std::vector<std::string> cells = split(line.substr(0, line.find(" #")), " | ");
    ASSERT_EQ(cells.size(), 6u) << line;
    for (size_t i : {0u, 1u}) {
      const std::string& node = cells[4 + i];
      if (node == "-") continue;
      ++compared, operators.insert(cells[1]);
      ASSERT_TRUE(of_file[i].contains(node)) << line;
      if (of_file[i].at(node) != cells[3]) differ.insert(cells[1] + (i == 0 ? ", default" : ", TorchScript"));
    }
  }
  EXPECT_EQ(differ, unseen);
  EXPECT_GE(operators.size(), 80u);
  EXPECT_GE(compared, 350u);
}

}  // namespace
}  // namespace halfstep
