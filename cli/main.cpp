#include <map>
#include <nlohmann/json.hpp>

#include "cli/command_diff.h"
#include "cli/command_line.h"
#include "cli/output.h"
#include "compiler/file_training.h"
#include "compiler/idle_keys.h"
#include "compiler/session.h"
#include "runtime/signals.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

// Of a compiled step with the keys it was compiled with.
void print_config(const Recipe& given, Format format) {
  const Recipe recipe = open_job(given).recipe;
  if (format == Format::text) return write_out(to_toml(recipe));
  nlohmann::json json;
  for (const RecipeKey& key : recipe_keys())
    if (const std::string value = key.get(recipe); !value.empty()) json[key.name] = value;
  print_out("{}\n", json_text(json));
}

ExitCode run(const CommandLine& line) {
  if (line.command == "info") return run_info(line.options);
  if (line.command == "diff") return run_diff(line);
  if (line.command == "report") return run_report(line.model_or_recipe, line.options);
  using Run = ExitCode (*)(const Recipe&, const CommandOptions&);
  const std::map<std::string, Run> commands{
      {"check", run_check},   {"inspect", run_inspect}, {"compile", run_compile}, {"train", run_train},
      {"eval", run_eval},     {"export", run_export},   {"bench", run_bench},     {"gradients", run_gradients},
      {"doctor", run_doctor}, {"predict", run_predict}};
  const Recipe given = recipe_of(line);
  if (line.options.config == CommandOptions::printed) {
    print_config(given, line.options.format);
    return ExitCode::success;
  }
  const bool needs_loss = line.command != "check" && line.command != "inspect" && line.command != "predict";
  const Recipe recipe = needs_loss ? over_training_of_file(given) : over_training_of_file(given, std::nothrow);
  // Beside a compiled step's own keys, which are not known yet, they may have one.
  if (line.options.format == Format::text && !is_compiled_directory(recipe.model))
    for (const std::string& sentence : idle_keys(recipe)) print_err("halfstep: note: {}\n", sentence);
  return commands.at(line.command)(recipe, line.options);
}

}  // namespace
}  // namespace halfstep

int main(int argc, char** argv) {
  halfstep::open_standard_descriptors();
  const halfstep::SignalThread signals;
  return static_cast<int>(halfstep::guarded("halfstep", halfstep::format_of(argc, argv), [&] {
    const std::optional<halfstep::CommandLine> line = halfstep::parse_command_line(argc, argv);
    return line ? halfstep::run(*line) : halfstep::ExitCode::success;
  }));
}
