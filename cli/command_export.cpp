#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "base/bytes_text.h"
#include "base/error.h"
#include "base/printable.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/table.h"
#include "compiler/file_training.h"
#include "compiler/mixed_export.h"
#include "compiler/provenance.h"
#include "compiler/session.h"
#include "compiler/training_graph.h"
#include "frontend/export/export.h"
#include "frontend/export/training_graph.h"
#include "training/checkpoint.h"

namespace halfstep {
namespace {

void export_step(const Recipe& given, const CommandOptions& options) {
  if (is_compiled_directory(given.model))
    throw Error("'" + given.model + "' is a compiled step: name the ONNX file or the recipe for --training-graph");
  if (!options.outputs.empty())
    throw Error(
        "--outputs cuts a model for inference: leave it out of --training-graph, --training-info and "
        "--training-operators, which have the loss");
  if (options.exported == CommandOptions::training_operators) {
    if (!options.checkpoint.empty())
      throw Error("--training-operators takes the model's own weights: leave out --checkpoint, or export twice");
    export_with_training(given, options.target, provenance(given, std::nullopt));
    if (options.format == Format::json)
      print_out("{}\n", json_text({{"model", given.model}, {"training_operators", options.target}}));
    return;
  }
  const FileTensors weights = options.checkpoint.empty() ? FileTensors() : read_checkpoint_weights(options.checkpoint);
  Recipe recipe = given;
  if (!options.checkpoint.empty() && recipe.init == "from_file") recipe.init = "absent";
  const TrainingGraph graph = training_graph(recipe, weights);
  const ExportOptions written{.metadata = provenance(recipe, std::nullopt)};
  if (options.exported == CommandOptions::training_info)
    export_training_info(graph.inference, graph.step, graph.initial, options.target, written);
  else
    export_training_graph(graph.step, graph.initial, options.target, written);
  if (options.format == Format::json)
    print_out("{}\n", json_text({{"model", recipe.model}, {"training_graph", options.target}}));
  else
    for (const std::string& remark : graph.remarks) print_err("halfstep: {}\n", remark);
}

void tell(const CutModel& cut, const CommandOptions& options) {
  if (options.outputs.empty() || options.format == Format::json) return;
  const auto names = [](const std::vector<std::string>& list) {
    return printable(fmt::format("{}", fmt::join(list, ", ")));
  };
  print_err("halfstep: {} nodes lead to none of the outputs and are left out{}{}\n", cut.nodes,
            cut.outputs.empty() ? "" : "; outputs that went: " + names(cut.outputs),
            cut.inputs.empty() ? "" : "; inputs that went: " + names(cut.inputs));
}
void put(nlohmann::json& json, const CutModel& cut, const CommandOptions& options) {
  if (!options.outputs.empty()) json["cut"] = {{"nodes", cut.nodes}, {"inputs", cut.inputs}, {"outputs", cut.outputs}};
}

void tell(const DataFacts& facts) {
  if (const std::string remark = remark_on_columns(facts); !remark.empty()) print_err("halfstep: note: {}\n", remark);
}

// Of a checkpoint, for engines that infer; without one the model's own weights stay.
struct Exported {
  FileTensors weights = {};
  std::optional<int64_t> step = {};
  DataFacts facts = {};
};
Exported exported(const Recipe& recipe, const std::string& checkpoint) {
  if (checkpoint.empty()) return {};
  Checkpoint read = read_checkpoint(checkpoint);
  tell(read.train.data);
  Exported result{.step = read.train.step, .facts = std::move(read.train.data)};
  if (recipe.ema_weights && has_average(read.model)) {
    print_err("halfstep: note: the weights are their running mean (ema); --ema_weights false takes the last ones\n");
    result.weights = weights_of(read.model, WeightsKind::average);
  } else {
    result.weights = std::move(read.model.weights);
  }
  return result;
}

void export_weights(const Recipe& given, const CommandOptions& options) {
  if (options.checkpoint.empty() && options.outputs.empty())
    throw Error("no checkpoint is given: name it with --checkpoint");
  const Recipe recipe = open_job(given).recipe;
  const Exported from = exported(recipe, options.checkpoint);
  const Recipe run = options.checkpoint.empty() ? recipe : recipe_of_run(options.checkpoint).value_or(recipe);
  const CutModel cut =
      export_cut(recipe, from.weights, options.target, provenance(run, from.step, from.facts), options.outputs);
  tell(cut, options);
  if (options.format != Format::json) return;
  nlohmann::json json{{"model", recipe.model}, {"trained_model", options.target}};
  put(json, cut, options);
  print_out("{}\n", json_text(json));
}

void export_low(const Recipe& given, const CommandOptions& options) {
  const Recipe recipe = open_job(given).recipe;
  const Exported from = exported(recipe, options.checkpoint);
  const MixedExport made =
      export_mixed(recipe, from.weights, options.target, provenance(recipe, from.step, from.facts), options.outputs);
  tell(made.cut, options);
  nlohmann::json lost = nlohmann::json::object();
  for (const auto& [name, count] : made.lost_weights) {
    lost[name] = count;
    print_err(
        "halfstep: note: {} values of weight '{}' become 0 or infinite in {}: keep its readers in fp32, or take bf16\n",
        count, printable(name), recipe.precision);
  }
  nlohmann::json json{{"model", recipe.model},
                      {"lost_weights", lost},
                      {"mixed_model", options.target},
                      {"precision", recipe.precision},
                      {"preset", made.inspection.preset},
                      {"low_nodes", made.low_nodes},
                      {"casts", made.casts},
                      {"low_weights", made.low_weights},
                      {"weight_bytes", made.weight_bytes},
                      {"weight_bytes_fp32", made.weight_bytes_before}};
  put(json, made.cut, options);
  if (options.format == Format::json)
    print_out("{}\n", json_text(json));
  else
    print_err("halfstep: {} nodes in {} by preset {}, {} casts; weights {} of {}\n", made.low_nodes, recipe.precision,
              made.inspection.preset, made.casts, bytes_text(made.weight_bytes), bytes_text(made.weight_bytes_before));
}

}  // namespace

ExitCode run_export(const Recipe& given, const CommandOptions& options) {
  if (options.exported == CommandOptions::mixed_model)
    export_low(given, options);
  else if (options.exported == CommandOptions::model)
    export_weights(given, options);
  else
    export_step(given, options);
  if (options.format == Format::text) print_err("halfstep: wrote {}\n", options.target);
  return ExitCode::success;
}

}  // namespace halfstep
