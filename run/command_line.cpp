#include "run/command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/version.h"
#include "cli/command_texts.h"
#include "cli/output.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

constexpr const char* kUsage = R"(usage:
  halfstep-run train DIR [--KEY VALUE ...] [--json]
  halfstep-run eval DIR [--checkpoint PATH] [--KEY VALUE ...] [--json]
  halfstep-run predict DIR -o FILE [--checkpoint PATH] [--top N] [--probabilities] [--KEY VALUE ...] [--json]
  halfstep-run completion bash|zsh|fish
  halfstep-run man

examples:
  halfstep-run train lenet.step --data /usr/share/datasets/fashion-mnist --epochs 5 --out run
  halfstep-run predict lenet.step --checkpoint run/checkpoints --data images=test.npy -o predictions.npz

)";
constexpr const char* kNotes =
    R"(DIR is a directory that `halfstep compile` made. It holds native code: run none that you would not run as a program.
Data and checkpoints may come from anyone. PATH of --checkpoint is one, or a directory of them: its newest. predict
takes a step that was compiled with --keep_outputs true, and data without labels; FILE ends in .npz, .npy, .csv or
.jsonl. --top: of each sample the N classes with the highest scores; --probabilities: of logits.
)";
constexpr const char* kKeys = R"(
keys, with defaults as the step was compiled:
)";
constexpr const char* kExitCodes = R"(
exit codes: 0 done; 1 the step, the data, an option or the machine is at fault; 2 the command line is wrong; 3 a bug in
halfstep; 130 stopped by SIGINT after writing a checkpoint (129: by SIGHUP, 143: by SIGTERM)
)";

bool is_of_runs(const RecipeKey& key) { return key.scope == RecipeKey::run; }

struct CommandRow {
  const char *name, *help;
};
// In the order of RunCommand::Kind.
constexpr CommandRow kCommands[] = {{"train", "train a compiled step"},
                                    {"eval", "loss and accuracy over a data set"},
                                    {"predict", "outputs of a data set as a file: .npz, .npy, .csv or .jsonl"}};
// What only writes a text of these tables.
constexpr CommandRow kTexts[] = {{"completion", "what a shell completes of these commands, as a script for it"},
                                 {"man", "the manual page, in troff"}};
constexpr const char* kShells[] = {"bash", "zsh", "fish"};

// Options that are no keys of recipes; `set` gets "" of those without a unit.
struct OptionRow {
  std::vector<const char*> names;
  const char *unit, *help;
  std::vector<RunCommand::Kind> commands;
  void (*set)(RunCommand&, const std::string& value);
};

[[noreturn]] void refuse(const std::string& why) { throw UsageError(why + "\nsee halfstep-run --help"); }

int64_t positive(const std::string& text) {
  int64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || value < 1)
    refuse("--top '" + text + "': a whole number of at least 1 expected");
  return value;
}

const std::vector<OptionRow>& options() {
  using Run = RunCommand;
  static const std::vector<OptionRow> table{
      {{"--json"},
       "",
       "print JSON, also for errors",
       {Run::train, Run::eval, Run::predict},
       [](Run& run, const std::string&) { run.format = Format::json; }},
      {{"--checkpoint"},
       "PATH",
       "a checkpoint, or a directory of them: its newest",
       {Run::eval, Run::predict},
       [](Run& run, const std::string& value) { run.checkpoint = value; }},
      {{"-o", "--output"},
       "FILE",
       "the file to write",
       {Run::predict},
       [](Run& run, const std::string& value) { run.output = value; }},
      {{"--top"},
       "NUMBER",
       "of each sample so many classes with the highest scores, in place of all outputs",
       {Run::predict},
       [](Run& run, const std::string& value) { run.top = positive(value); }},
      {{"--probabilities"},
       "",
       "the softmax, or sigmoid, of outputs that are logits, by the loss",
       {Run::predict},
       [](Run& run, const std::string&) { run.scores = PredictOptions::probabilities; }},
  };
  return table;
}

bool takes(const OptionRow& row, RunCommand::Kind command) {
  return std::ranges::find(row.commands, command) != row.commands.end();
}

std::string help_text() {
  std::string text = fmt::format("halfstep-run {} trains, evaluates and predicts with compiled steps\n\n{}", version(),
                                 std::string(kUsage) + kNotes + kKeys);
  for (const RecipeKey& key : recipe_keys())
    if (is_of_runs(key)) text += fmt::format("  {:<36} {}\n", "--" + key.name + " " + key.unit, key.help);
  for (const auto& [alias, key] : key_aliases())
    if (is_of_runs(*find_key(std::string(key)))) text += fmt::format("  {:<36} --{}\n", "--" + std::string(alias), key);
  return text + kExitCodes;
}

// For completions and the manual page.
ProgramText program_text() {
  ProgramText program{.name = "halfstep-run",
                      .about = "trains, evaluates and predicts with compiled steps",
                      .operand = "DIR",
                      .keys = "With defaults as the step was compiled.",
                      .notes = std::string(kNotes) + kExitCodes};
  for (size_t i = 0; i < std::size(kCommands); ++i) {
    CommandText command{.name = kCommands[i].name, .help = kCommands[i].help, .takes_file = true};
    for (const OptionRow& row : options())
      if (takes(row, static_cast<RunCommand::Kind>(i)))
        command.options.push_back({.names = {row.names.begin(), row.names.end()}, .unit = row.unit, .help = row.help});
    for (const RecipeKey& key : recipe_keys()) {
      if (!is_of_runs(key)) continue;
      OptionText option{.names = {"--" + key.name}, .unit = key.unit, .help = key.help, .group = key.group};
      for (const auto& [alias, name] : key_aliases())
        if (name == key.name) option.names.push_back("--" + std::string(alias));
      command.options.push_back(std::move(option));
    }
    program.commands.push_back(std::move(command));
  }
  for (const CommandRow& row : kTexts) program.commands.push_back({.name = row.name, .help = row.help});
  program.commands[std::size(kCommands)].operands = {std::begin(kShells), std::end(kShells)};
  return program;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string near = nearest(word, candidates);
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", near);
}

RunCommand::Kind kind_of(const std::string& word) {
  std::vector<std::string> names;
  for (const CommandRow& row : kCommands) names.emplace_back(row.name);
  for (const CommandRow& row : kTexts) names.emplace_back(row.name);
  const auto found = std::ranges::find(names, word);
  if (found == names.end())
    refuse(fmt::format("no command '{}'{} There are: {}", word, did_you_mean(word, names), fmt::join(names, ", ")));
  return static_cast<RunCommand::Kind>(found - names.begin());
}

// Whether a text of the tables was asked for, and is printed.
bool writes_text(const std::vector<std::string>& arguments) {
  if (arguments.front() == "man") return write_out(manual_page(program_text())), true;
  if (arguments.front() != "completion") return false;
  if (arguments.size() != 2 || std::ranges::find(kShells, arguments[1]) == std::end(kShells))
    refuse(fmt::format("completion: a shell expected: {}", fmt::join(kShells, ", ")));
  return write_out(completion_script(program_text(), arguments[1])), true;
}

// Reads options one after the other; keys of recipes may be written with dashes.
class OptionReader {
 public:
  explicit OptionReader(RunCommand& command) : command_(command) {}

  void read(const std::vector<std::string>& arguments) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& argument = arguments[i];
      if (!argument.starts_with('-')) {
        if (!command_.given.model.empty()) refuse("'" + argument + "' is one argument too many");
        command_.given.model = argument;
        continue;
      }
      const size_t equals = argument.find('=');
      const std::string option = argument.substr(0, equals);
      const OptionRow* row = row_of(option);
      if (row != nullptr && std::string_view(row->unit).empty()) {
        row->set(command_, "");
        continue;
      }
      if (equals == std::string::npos && i + 1 == arguments.size()) refuse("option '" + option + "' lacks its value");
      set(row, option, equals == std::string::npos ? arguments[++i] : argument.substr(equals + 1));
    }
    problems_.throw_if_any();
  }

 private:
  const OptionRow* row_of(const std::string& option) const {
    for (const OptionRow& row : options())
      if (takes(row, command_.kind) && std::ranges::find(row.names, option) != row.names.end()) return &row;
    return nullptr;
  }

  void set(const OptionRow* row, const std::string& option, const std::string& value) try {
    if (row != nullptr) return row->set(command_, value);
    std::string name = option.starts_with("--") ? option.substr(2) : "";
    std::ranges::replace(name, '-', '_');
    name = key_of_option(name);
    const RecipeKey* key = find_key(name);
    if (key == nullptr || name == "model") refuse_option(option);
    set_key(command_.given, name, value);
  } catch (const Error& e) {
    problems_.add(std::string("--") + e.what());
  }

  [[noreturn]] void refuse_option(const std::string& option) const {
    std::vector<std::string> names;
    for (const OptionRow& row : options())
      if (takes(row, command_.kind)) names.insert(names.end(), row.names.begin(), row.names.end());
    for (const RecipeKey& k : recipe_keys())
      if (is_of_runs(k)) names.push_back("--" + k.name);
    refuse(fmt::format("no option '{}'{}", option, did_you_mean(option, names)));
  }

  RunCommand& command_;
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
  if (writes_text(arguments)) return std::nullopt;
  RunCommand command;
  command.kind = kind_of(arguments.front());
  OptionReader(command).read({arguments.begin() + 1, arguments.end()});
  if (command.given.model.empty()) refuse("DIR is missing: a directory that `halfstep compile` made");
  if (command.kind == RunCommand::predict && row_format(command.output) == nullptr)
    refuse("-o is missing, or no file that ends in " + row_format_endings());
  return command;
}

}  // namespace halfstep
