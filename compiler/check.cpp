#include "compiler/check.h"

#include "base/error.h"
#include "base/printable.h"

namespace halfstep {

Diagnostics check_recipe(const Recipe& recipe, const CompileOptions& options) {
  ImportOptions import = import_options(recipe);
  import.reading = ImportOptions::on_demand;
  // Of a graph without its data all else is told; a remark says what it lacks.
  if (recipe.init != "from_file") import.constants = MissingConstants::zeros;
  const OnnxModel model = onnx_model_of(recipe);
  Diagnostics found = check_model(model, import);
  if (const std::string remark = batch_norm_remark(recipe, model); !remark.empty()) {
    found.remarks.push_back(remark);
    found.imported.remarks.push_back(remark);
  }
  // A model that imports may still lack a gradient or a loss: the passes say so.
  if (found.problems.empty()) try {
      CompileOptions compile = options;
      compile.stop_after = "differentiate";
      compile.purpose = TrainingPipelineOptions::checking;
      const CompiledTraining compiled = compile_imported(recipe, std::move(found.imported), DeviceKind::cpu, compile);
      found.remarks = compiled.report.remarks;
    } catch (const Error& e) {
      found.problems = lines_of(e.what());
    }
  return found;
}

}  // namespace halfstep
