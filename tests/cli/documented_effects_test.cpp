// The examples of docs/mixed_precision.md: its commands are run, and give its numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "tests/cli/cli_fixture.h"
#include "tests/recorded.h"

namespace halfstep::test {
namespace {

using nlohmann::json;

struct Example {
  Arguments command;  // without "halfstep"
  std::vector<double> numbers;
};

// "| `halfstep eval ...` | 1.5 | 2 |"
std::vector<Example> documented_examples() {
  std::vector<Example> examples;
  std::istringstream page(read_file(source_directory() / "docs/mixed_precision.md"));
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| `halfstep ")) continue;
    Example example;
    const size_t end = line.find('`', 3);
    std::istringstream words(line.substr(3, end - 3)), cells(line.substr(end));
    words.ignore(256, ' ');
    for (std::string word; words >> word;)
      example.command.push_back(word.starts_with("models/") ? (source_directory() / word).string() : word);
    for (std::string word; cells >> word;)
      if (std::isdigit(static_cast<unsigned char>(word[0]))) example.numbers.push_back(std::stod(word));
    examples.push_back(std::move(example));
  }
  return examples;
}

double loss_of(const json& row) {
  return row.contains("losses") ? row["losses"].begin().value()["loss"].get<double>() : row["loss"].get<double>();
}

class DocumentedEffects : public Cli {};

TEST_F(DocumentedEffects, AreAsMeasured) {
  const std::vector<Example> examples = documented_examples();
  ASSERT_EQ(examples.size(), 10u);
  int number = 0;
  for (const Example& example : examples) {
    std::string command;
    for (const std::string& word : example.command) command += word + " ";
    SCOPED_TRACE(command);
    Arguments arguments = example.command + Arguments{"--json"};
    if (arguments[0] == "train") arguments = arguments + Arguments{"--out", "run" + std::to_string(number++)};
    const json result = json::parse(succeed(arguments));
    const bool trained = result.contains("epochs");
    const std::vector<double> found =
        trained ? std::vector{loss_of(result["epochs"].front()), loss_of(result["epochs"].back())}
                : std::vector{loss_of(result)};
    ASSERT_EQ(example.numbers.size(), found.size());
    // Other processors sum in another order, of which an error that is nearly 0 shows more: as much as it is itself.
    for (size_t i = 0; i < found.size(); ++i) {
      const double number = example.numbers[i];
      EXPECT_NEAR(found[i], number, 0.05 * number + std::min(number, 1e-4)) << "number " << i;
    }
  }
}

}  // namespace
}  // namespace halfstep::test
