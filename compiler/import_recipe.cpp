// What a recipe says of its model, and what the import makes of that.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "compiler/compile.h"
#include "frontend/export/export.h"
#include "frontend/export/restore_parameters.h"
#include "frontend/import/import_model.h"
#include "frontend/onnx/foreign_training.h"
#include "frontend/repairs/folded_batch_norm.h"
#include "frontend/repairs/read_model.h"
#include "frontend/repairs/resized_head.h"

namespace halfstep {
namespace {

const std::string& model_path(const Recipe& recipe) {
  if (recipe.model.empty()) throw Error("no model is given: name an ONNX file, or a recipe with the key 'model'");
  if (std::error_code unreadable; std::filesystem::is_directory(recipe.model, unreadable)) {
    if (const std::optional<std::string> advice = advice_on_artefacts(recipe.model)) throw Error(*advice);
    throw Error("'" + recipe.model + "' is a directory: name an ONNX file or a recipe");
  }
  return recipe.model;
}

}  // namespace

std::string batch_norm_remark(const Recipe& recipe, const OnnxModel& model) {
  if (!recipe.bn_insert || recipe.bn_epsilon) return "";
  return fmt::format(
      "batch norms come back with epsilon {:g}: files do not keep it; where the model's is another (0.001 "
      "in Keras, MobileNetV3 and some EfficientNets) give it with bn_epsilon",
      assumed_epsilon(model, {}));
}

OnnxModel onnx_model_of(const Recipe& recipe) {
  OnnxModel model = read_model(model_path(recipe));
  if (recipe.restore_parameters) model = restore_parameters(std::move(model));
  if (recipe.bn_insert)
    model = insert_batch_norms(std::move(model), {.after = recipe.bn_after, .epsilon = recipe.bn_epsilon});
  if (recipe.resize_head == 0) return model;
  return resize_head(std::move(model), recipe.losses.empty() ? recipe.output : recipe.losses.front().loss.output,
                     recipe.resize_head);
}

namespace {

InitialScheme::Kind init_scheme(const std::string& name) {
  const auto rows = initial_schemes();
  const auto row = std::ranges::find(rows, name, &InitialSchemeRow::name);
  require(row != rows.end(), "a recipe names a scheme of the table");
  return row->kind;
}

}  // namespace

ImportOptions import_options(const Recipe& recipe) {
  ImportOptions options;
  options.batch = recipe.batch;
  options.freeze = recipe.freeze;
  options.train = recipe.train, options.fresh = recipe.fresh;
  options.scheme = {.kind = init_scheme(recipe.init_scheme), .deviation = recipe.init_std};
  options.seed = static_cast<uint64_t>(recipe.seed);
  options.dropout = recipe.dropout;
  options.weights = recipe.init == "fresh"    ? InitialWeights::fresh
                    : recipe.init == "absent" ? InitialWeights::fresh_where_absent
                                              : InitialWeights::from_file;
  options.shapes = recipe.shapes;
  options.values = recipe.values;
  options.output = recipe.output;
  const ImportBudget ample;
  options.budget = {.nodes = recipe.max_nodes.value_or(ample.nodes),
                    .iterations = recipe.max_iterations.value_or(ample.iterations),
                    .folded_bytes = recipe.max_folded_bytes.value_or(ample.folded_bytes),
                    .folded_operations = recipe.max_folded_operations.value_or(ample.folded_operations)};
  return options;
}

namespace {

ImportedModel import_with(const Recipe& recipe, const ImportOptions& options) {
  const OnnxModel model = onnx_model_of(recipe);
  ImportedModel imported = import_model(model, options);
  imported.dropouts_left_out = dropouts_left_out(model);
  if (const std::string remark = batch_norm_remark(recipe, model); !remark.empty()) imported.remarks.push_back(remark);
  if (carries_training_step(model))
    imported.remarks.emplace_back(
        "the file carries a training step of its own (TrainingInfoProto): where loss or optimizer are named, and of a "
        "step that is no operators, it is not read; of an inference graph dropouts may be gone and batch norms frozen");
  return imported;
}

}  // namespace

ImportedModel import_for(const Recipe& recipe, MissingConstants constants, ImportOptions::Reading reading,
                         ImportOptions::RecurrentLayers recurrent) {
  ImportOptions options = import_options(recipe);
  options.recurrent = recurrent;
  options.constants = constants;
  options.reading = reading;
  return import_with(recipe, options);
}

ImportedModel import_graph(const Recipe& recipe, ImportOptions::Statistics statistics,
                           ImportOptions::RecurrentLayers recurrent) {
  ImportOptions options = import_options(recipe);
  options.recurrent = recurrent;
  options.statistics = statistics;
  options.weights = InitialWeights::none;
  return import_with(recipe, options);
}

}  // namespace halfstep
