#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <functional>

#include "base/error.h"
#include "driver/commands.h"
#include "passes/pipeline.h"

namespace halfstep {
namespace {

constexpr const char* kExamples = R"(compiles ONNX models for training in automatic mixed precision, and trains them

examples:
  halfstep train models/lenet.toml --epochs 5        train as a recipe says, with one key changed
  halfstep inspect models/lenet.onnx                 which precision each node gets, and why
)";

constexpr const char* kExitCodes =
    R"(exit codes: 0 done; 1 the model, data, an option or the machine is at fault; 2 wrong command line; 3 a bug in halfstep;
4 check found problems; 130 and 143 stopped by SIGINT and SIGTERM after writing a checkpoint)";

// Options that override the recipe, in the order of the command line.
using Overrides = std::vector<std::pair<std::string, std::string>>;

struct CommandLine {
  CommandOptions options;
  std::string model_or_recipe;
  Overrides overrides;
  bool json = false, time_passes = false, per_call = false;
};

Recipe recipe_of(const CommandLine& line) {
  Recipe recipe;
  const std::string& given = line.model_or_recipe;
  if (given.ends_with(".toml"))
    read_recipe(recipe, given);
  else if (!given.empty())
    recipe.model = given;
  Problems problems;
  for (const auto& [key, value] : line.overrides) try {
      set_key(recipe, key, value);
    } catch (const Error& e) {
      problems.add(std::string("--") + e.what());
    }
  problems.throw_if_any();
  return recipe;
}

void add_recipe_keys(CLI::App& command, CommandLine& line) {
  for (const RecipeKey& key : recipe_keys()) {
    if (key.name == "model") continue;
    std::string names = "--" + key.name;
    if (key.name.find('_') != std::string::npos) {
      std::string dashed = key.name;
      std::replace(dashed.begin(), dashed.end(), '_', '-');
      names += ",--" + dashed;
    }
    command
        .add_option_function<std::string>(
            names, [&line, name = key.name](const std::string& value) { line.overrides.emplace_back(name, value); },
            key.help)
        ->type_name(key.unit)
        ->group(key.group);
  }
}

CLI::App* add_command(CLI::App& app, CommandLine& line, const char* name, const char* help, const char* operand) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_flag("--json", line.json, "print JSON for machines");
  if (!operand) return command;
  command->add_option("model", line.model_or_recipe, operand)->required();
  add_recipe_keys(*command, line);
  command->add_option("--stop-after", line.options.compile.stop_after, "stop after this pass and print its graphs")
      ->group("compiler");
  command
      ->add_option("--dump", line.options.compile.dump,
                   "write what each pass changed, the kernels and the programs into this directory")
      ->group("compiler");
  command->add_flag("--time-passes", line.time_passes, "print the time each pass takes")->group("compiler");
  return command;
}

int run(int argc, char** argv) {
  CLI::App app{kExamples, "halfstep"};
  app.footer(kExitCodes);
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("halfstep ") + HALFSTEP_VERSION);
  CommandLine line;
  constexpr const char* kModel = "an ONNX file or a recipe (.toml)";
  constexpr const char* kModelOrStep = "an ONNX file, a recipe (.toml), or a directory that `compile` made";
  add_command(app, line, "info", "devices and library versions", nullptr);
  add_command(app, line, "check", "every problem that keeps a model from training, at once", kModel);
  add_command(app, line, "inspect", "precision of every node, and the reason", kModel);
  CLI::App* compile = add_command(app, line, "compile", "compile the training step into a directory", kModel);
  compile->add_option("-o,--target", line.options.target, "the directory to write");
  add_command(app, line, "train", "train a model", kModelOrStep);
  CLI::App* eval = add_command(app, line, "eval", "loss and accuracy over a data set", kModelOrStep);
  CLI::App* export_ = add_command(app, line, "export", "put trained weights back into the ONNX model", kModel);
  export_->add_option("-o,--target", line.options.target, "the ONNX file to write")->required();
  CLI::App* bench = add_command(app, line, "bench", "step time, throughput, memory and compile time", kModelOrStep);
  for (CLI::App* command : {eval, export_})
    command->add_option("--checkpoint", line.options.checkpoint, "weights to use");
  bench->add_option("--repeats", line.options.repeats, "steps that are timed");
  bench->add_flag("--calls", line.per_call, "a row for each call of the step");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? static_cast<int>(ExitCode::success) : static_cast<int>(ExitCode::usage);
  }
  if (line.json) line.options.format = Format::json;
  if (line.time_passes) line.options.timing = CommandOptions::time_passes;
  if (line.per_call) line.options.detail = CommandOptions::per_call;
  const std::string command = app.get_subcommands().front()->get_name();
  if (command == "info") return static_cast<int>(run_info(line.options));
  const Recipe recipe = recipe_of(line);
  using Run = std::function<ExitCode(const Recipe&, const CommandOptions&)>;
  const std::map<std::string, Run> commands{{"check", run_check}, {"inspect", run_inspect}, {"compile", run_compile},
                                            {"train", run_train}, {"eval", run_eval},       {"export", run_export},
                                            {"bench", run_bench}};
  return static_cast<int>(commands.at(command)(recipe, line.options));
}

}  // namespace
}  // namespace halfstep

int main(int argc, char** argv) {
  using halfstep::ExitCode;
  try {
    return halfstep::run(argc, argv);
  } catch (const halfstep::Error& e) {
    fmt::print(stderr, "halfstep: {}\n", e.what());
    return static_cast<int>(ExitCode::error);
  } catch (const std::exception& e) {
    fmt::print(stderr, "halfstep: internal error: {}\nplease report this with the command and the model\n", e.what());
    return static_cast<int>(ExitCode::internal);
  }
}
