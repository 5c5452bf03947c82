#include "run/command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/version.h"
#include "cli/output.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

constexpr const char* kUsage = R"(usage:
  halfstep-run train DIR [--KEY VALUE ...] [--json]
  halfstep-run eval DIR [--checkpoint PATH] [--KEY VALUE ...] [--json]
  halfstep-run predict DIR -o FILE [--checkpoint PATH] [--top N] [--probabilities] [--KEY VALUE ...] [--json]

examples:
  halfstep-run train lenet.step --data /usr/share/datasets/fashion-mnist --epochs 5 --out run
  halfstep-run predict lenet.step --checkpoint run/checkpoints --data images=test.npy -o predictions.npz

DIR is a directory that `halfstep compile` made. It holds native code: run none that you would not run as a program.
Data and checkpoints may come from anyone. PATH of --checkpoint is one, or a directory of them: its newest. predict
takes a step that was compiled with --keep_outputs true, and data without labels; FILE ends in .npz, .npy, .csv or
.jsonl. --top: of each sample the N classes with the highest scores; --probabilities: of logits.

keys, with defaults as the step was compiled:
)";
constexpr const char* kExitCodes = R"(
exit codes: 0 done; 1 the step, the data, an option or the machine is at fault; 2 the command line is wrong; 3 a bug in
halfstep; 130 stopped by SIGINT after writing a checkpoint (129: by SIGHUP, 143: by SIGTERM)
)";

bool is_of_runs(const RecipeKey& key) { return key.scope == RecipeKey::run; }

std::string help_text() {
  std::string text =
      fmt::format("halfstep-run {} trains, evaluates and predicts with compiled steps\n\n{}", version(), kUsage);
  for (const RecipeKey& key : recipe_keys())
    if (is_of_runs(key)) text += fmt::format("  {:<36} {}\n", "--" + key.name + " " + key.unit, key.help);
  for (const auto& [alias, key] : key_aliases())
    if (is_of_runs(*find_key(std::string(key)))) text += fmt::format("  {:<36} --{}\n", "--" + std::string(alias), key);
  return text + kExitCodes;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string near = nearest(word, candidates);
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", near);
}

[[noreturn]] void refuse(const std::string& why) { throw UsageError(why + "\nsee halfstep-run --help"); }

RunCommand::Kind kind_of(const std::string& word) {
  static const std::vector<std::string> names{"train", "eval", "predict"};
  const auto found = std::ranges::find(names, word);
  if (found == names.end())
    refuse(fmt::format("no command '{}'{} There are: {}", word, did_you_mean(word, names), fmt::join(names, ", ")));
  return static_cast<RunCommand::Kind>(found - names.begin());
}

// Reads options one after the other; keys of recipes may be written with dashes.
class Options {
 public:
  explicit Options(RunCommand& command) : command_(command) {
    if (command.kind != RunCommand::train) others_.emplace_back("checkpoint", &command.checkpoint);
    if (command.kind == RunCommand::predict)
      others_.emplace_back("output", &command.output), others_.emplace_back("top", &top_);
  }

  void read(const std::vector<std::string>& arguments) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& argument = arguments[i];
      if (argument == "--json") {
        command_.format = Format::json;
      } else if (argument == "--probabilities" && command_.kind == RunCommand::predict) {
        command_.scores = PredictOptions::probabilities;
      } else if (!argument.starts_with('-')) {
        if (!command_.given.model.empty()) refuse("'" + argument + "' is one argument too many");
        command_.given.model = argument;
      } else {
        const size_t equals = argument.find('=');
        const std::string option = argument.substr(0, equals);
        if (equals == std::string::npos && i + 1 == arguments.size()) refuse("option '" + option + "' lacks its value");
        set(option, equals == std::string::npos ? arguments[++i] : argument.substr(equals + 1));
      }
    }
    problems_.throw_if_any();
    if (top_.empty()) return;
    const auto [end, failed] = std::from_chars(top_.data(), top_.data() + top_.size(), command_.top);
    if (failed != std::errc() || end != top_.data() + top_.size() || command_.top < 1)
      refuse("--top '" + top_ + "': a whole number of at least 1 expected");
  }

 private:
  void set(const std::string& option, const std::string& value) {
    std::string name = option == "-o" ? "output" : option.starts_with("--") ? option.substr(2) : "";
    std::ranges::replace(name, '-', '_');
    std::vector<std::string> names;
    for (const auto& [other, member] : others_) {
      names.push_back("--" + other);
      if (name == other) {
        *member = value;
        return;
      }
    }
    name = key_of_option(name);
    const RecipeKey* key = find_key(name);
    if (key == nullptr || name == "model") {
      for (const RecipeKey& k : recipe_keys())
        if (is_of_runs(k)) names.push_back("--" + k.name);
      refuse(fmt::format("no option '{}'{}", option, did_you_mean(option, names)));
    }
    try {
      set_key(command_.given, name, value);
    } catch (const Error& e) {
      problems_.add(std::string("--") + e.what());
    }
  }

  RunCommand& command_;
  std::string top_;
  std::vector<std::pair<std::string, std::string*>> others_;
  Problems problems_;
};

}  // namespace

std::optional<RunCommand> parse_run_command(int argc, const char* const* argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  const auto asked = [&](const char* word) { return std::ranges::find(arguments, word) != arguments.end(); };
  if (asked("--help") || asked("-h")) {
    write_out(help_text());
    return std::nullopt;
  }
  if (asked("--version")) {
    print_out("halfstep-run {}\n", version_and_commit());
    return std::nullopt;
  }
  if (arguments.empty()) refuse("a command is missing: train, eval or predict");
  RunCommand command;
  command.kind = kind_of(arguments.front());
  Options(command).read({arguments.begin() + 1, arguments.end()});
  if (command.given.model.empty()) refuse("DIR is missing: a directory that `halfstep compile` made");
  if (command.kind == RunCommand::predict && row_format(command.output) == nullptr)
    refuse("-o is missing, or no file that ends in " + row_format_endings());
  return command;
}

}  // namespace halfstep
