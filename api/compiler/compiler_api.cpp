// The table of libhalfstep-compiler.
#include "api/dtypes.h"
#include "api/status.h"
#include "api/step.h"
#include "compiler/check.h"
#include "compiler/file_training.h"
#include "compiler/find_non_finite.h"
#include "compiler/idle_keys.h"
#include "compiler/precision_rows.h"
#include "compiler/session.h"
#include "frontend/export/export.h"
#include "training/grad_scaler.h"
#include "training/recipe_keys.h"

struct halfstep_precision {
  std::vector<halfstep::NodeRow> rows;
  std::vector<std::string> nodes;  // of each row
};

namespace halfstep {
namespace {

// A model or recipe file with keys over it, as on the command line.
Recipe recipe_of(const char* model, const halfstep_option* options, size_t option_count) {
  Recipe recipe;
  const std::string path = given_text(model, "model");
  if (path.ends_with(".toml"))
    read_recipe(recipe, path);
  else
    recipe.model = path;
  Problems problems;
  for (const auto& [key, value] : given_options(options, option_count)) try {
      set_key(recipe, key, value);
    } catch (const Error& e) {
      problems.add(e.what());
    }
  problems.throw_if_any();
  take_batch_from_shape(recipe);
  take_grad_scaler(recipe);
  return over_training_of_file(std::move(recipe));
}

halfstep_status* check_model(const char* model, const halfstep_option* options, size_t option_count,
                             halfstep_strings** problems) {
  return guarded([&] {
    halfstep_strings*& result = given(problems, "problems");
    result = new halfstep_strings{check_recipe(recipe_of(model, options, option_count)).problems};
  });
}

halfstep_status* inspect_model(const char* model, const halfstep_option* options, size_t option_count,
                               halfstep_precision** precision) {
  return guarded([&] {
    halfstep_precision*& result = given(precision, "precision");
    CompileOptions compile;
    compile.stop_after = "autocast";
    const CompileReport report =
        compile_training(recipe_of(model, options, option_count), DeviceKind::cpu, compile).report;
    auto table = std::make_unique<halfstep_precision>();
    table->rows = by_onnx_node(report);
    for (const NodeRow& row : table->rows) table->nodes.push_back(*row.origin.name);
    result = table.release();
  });
}
size_t precision_count(const halfstep_precision* precision) {
  return precision == nullptr ? 0 : precision->rows.size();
}
halfstep_status* precision_at(const halfstep_precision* precision, size_t index, halfstep_precision_row* row) {
  return guarded([&] {
    const halfstep_precision& table = given(precision, "precision");
    halfstep_precision_row& result = given(row, "row");
    if (index >= table.rows.size())
      throw ArgumentError("row " + std::to_string(index) + ": there are " + std::to_string(table.rows.size()));
    const NodeRow& found = table.rows[index];
    result = {.node = table.nodes[index].c_str(),
              .op = found.op.c_str(),
              .operand = found.typed ? code_of(found.operand) : HALFSTEP_NO_DTYPE,
              .accumulator = found.accumulator ? code_of(*found.accumulator) : HALFSTEP_NO_DTYPE,
              .result = found.typed ? code_of(found.result) : HALFSTEP_NO_DTYPE,
              .reason = found.reason.c_str()};
  });
}
void release_precision(halfstep_precision* precision) { delete precision; }

halfstep_status* compile_model(const char* model, const halfstep_option* options, size_t option_count,
                               const char* directory, halfstep_strings** remarks) {
  return guarded([&] {
    const std::string target = given_text(directory, "directory");
    const Recipe recipe = recipe_of(model, options, option_count);
    const DeviceKind device = choose_device(recipe);
    std::unique_ptr<halfstep_strings> told;
    CompileOptions compile;
    compile.model_outputs = outputs_of_runs(recipe);
    const CompiledTraining compiled = compile_training(portable(recipe, device), device, compile);
    if (remarks != nullptr) {
      told.reset(new halfstep_strings{compiled.report.remarks});
      for (std::string& sentence : idle_keys(recipe)) told->texts.push_back(std::move(sentence));
    }
    save_compiled(compiled.model, target);
    if (remarks != nullptr) *remarks = told.release();
  });
}

halfstep_status* export_onnx(halfstep_step* step, const char* model, const char* path) {
  return guarded([&] {
    LoadedStep& loaded = given(step, "step").loaded;
    const std::string target = given_text(path, "path");
    Recipe recipe = recipe_of_step(loaded.executor().model(), loaded.directory());
    if (model != nullptr) recipe.model = model;
    const ModelState state{read_weights(loaded.executor()), {}};
    if (const std::string ruined = non_finite_weights(state); !ruined.empty())
      throw Error(ruined + ": no model is written; lower the learning rate and go on from a checkpoint before");
    export_model(onnx_model_of(recipe), state.weights, target);
  });
}

constexpr halfstep_compiler_api kApi{.check_model = check_model,
                                     .inspect_model = inspect_model,
                                     .precision_count = precision_count,
                                     .precision_at = precision_at,
                                     .release_precision = release_precision,
                                     .compile_model = compile_model,
                                     .export_onnx = export_onnx};

}  // namespace
}  // namespace halfstep

const halfstep_compiler_api* halfstep_get_compiler_api(uint32_t version) {
  return version >= 1 && version <= HALFSTEP_API_VERSION ? &halfstep::kApi : nullptr;
}
