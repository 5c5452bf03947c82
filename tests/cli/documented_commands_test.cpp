// The commands of pages that take a reader by the hand: run in the page's order, in one directory.
#include <gtest/gtest.h>

#include <cstdlib>
#include <regex>
#include <sstream>

#include "tests/cli/cli_fixture.h"
#include "tests/recorded.h"

namespace halfstep::test {
namespace {

// A page's blocks of code: commands, which are indented by four, and files, whose name stands in backquotes in the
// sentence before the fence (`run.py`: or A recipe, `shapes.toml`; ...).
struct Block {
  enum Kind : uint8_t { command, file } kind = command;
  std::string name, text;
};

std::string named_file(const std::string& line) {
  for (size_t at = line.find('`'); at != std::string::npos; at = line.find('`', line.find('`', at + 1) + 1)) {
    const std::string name = line.substr(at + 1, line.find('`', at + 1) - at - 1);
    if ((name.ends_with(".toml") || name.ends_with(".py")) && name.find('/') == std::string::npos) return name;
    if (line.find('`', at + 1) == std::string::npos) break;
  }
  return "";
}

std::vector<Block> blocks_of(const std::string& page) {
  std::vector<Block> blocks;
  std::istringstream lines(read_file(source_directory() / "docs" / page));
  std::string name, fenced;
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("```")) {
      if (inside && !name.empty()) blocks.push_back({Block::file, name, fenced});
      if (inside) name.clear();
      inside = !inside, fenced.clear();
    } else if (inside) {
      fenced += line + "\n";
    } else if (line.starts_with("    ")) {
      blocks.push_back({Block::command, "", line.substr(4)});
    } else if (!line.empty()) {
      name = named_file(line);
    }
  }
  return blocks;
}

// Words as a shell reads them, with single quotes.
Arguments words_of(const std::string& command) {
  Arguments words;
  std::string word;
  bool quoted = false, any = false;
  for (const char c : command) {
    if (c == '\'') {
      quoted = !quoted, any = true;
    } else if (c == ' ' && !quoted) {
      if (any) words.push_back(word);
      word.clear(), any = false;
    } else {
      word += c, any = true;
    }
  }
  if (any) words.push_back(word);
  return words;
}

// A page's table of limits: "| `run` | `measure` | ... | at least 0.8 |".
struct Limit {
  std::string run, measure;
  double number = 0;
  bool least = false;
};

std::vector<Limit> limits_of(const std::string& page) {
  std::vector<Limit> limits;
  std::istringstream lines(read_file(source_directory() / "docs" / page));
  for (std::string line; std::getline(lines, line);) {
    std::smatch parts;
    if (std::regex_match(line, parts, std::regex("\\| `(\\w+)` \\| `(\\w+)` \\|.*\\| at (least|most) ([0-9.]+) \\|")))
      limits.push_back({parts[1], parts[2], std::stod(parts[4]), parts[3] == "least"});
  }
  return limits;
}

class DocumentedCommands : public Cli, public testing::WithParamInterface<const char*> {
 protected:
  nlohmann::json last_epoch(const std::string& directory) const {
    nlohmann::json last;
    std::istringstream lines(read(directory + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (nlohmann::json row = nlohmann::json::parse(line); row["kind"] == "epoch") last = row;
    return last;
  }
};

TEST_P(DocumentedCommands, RunInTheirOrder) {
  std::filesystem::create_directory_symlink(source_directory() / "models", path("models"));
  size_t commands = 0;
  for (const Block& block : blocks_of(GetParam())) {
    SCOPED_TRACE(block.text);
    if (block.kind == Block::file) {
      write(block.name, block.text);
      continue;
    }
    ++commands;
    Arguments words = words_of(block.text);
    if (words[0] == "python3") {
      if (std::system("python3 -c 'import numpy, onnx, onnxruntime' 2> /dev/null") == 0) {
        EXPECT_EQ(std::system(("cd '" + path("").string() + "' && " + block.text).c_str()), 0);
      }
      continue;
    }
    const std::string executable = words[0];
    ASSERT_TRUE(executable == "halfstep" || executable == "halfstep-run");
    words.erase(words.begin());
    const Finished done = run(words, {.executable = executable});
    ASSERT_EQ(done.exit_code, 0) << done.err << done.out;
  }
  EXPECT_GE(commands, 4u);
  const std::vector<Limit> limits = limits_of(GetParam());
  EXPECT_EQ(limits.size(), GetParam() == std::string("tasks.md") ? 6u : 0u);
  for (const Limit& limit : limits) {
    const double reached = last_epoch(limit.run).at(limit.measure).get<double>();
    EXPECT_TRUE(limit.least ? reached >= limit.number : reached <= limit.number)
        << limit.run << ": " << limit.measure << " " << reached << ", limit " << limit.number;
  }
}

INSTANTIATE_TEST_SUITE_P(Pages, DocumentedCommands, testing::Values("first_model.md", "fine_tuning.md", "tasks.md"),
                         [](const auto& info) {
                           const std::string page = info.param;
                           return page.substr(0, page.find('.'));
                         });

}  // namespace
}  // namespace halfstep::test
