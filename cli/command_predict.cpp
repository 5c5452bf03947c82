#include <fmt/format.h>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/predict_report.h"
#include "cli/report.h"
#include "compiler/session.h"
#include "training/predict.h"

namespace halfstep {

ExitCode run_predict(const Recipe& given, const CommandOptions& options) {
  if (row_format(options.target) == nullptr)
    throw Error(fmt::format("-o '{}': a file that ends in {} expected", options.target, row_format_endings()));
  Job job = open_job(given);
  Recipe& recipe = job.recipe;
  const WeightsKind weights = recipe.ema_weights ? WeightsKind::average : WeightsKind::last;
  CompileOptions compile = options.compile;
  compile.purpose = TrainingPipelineOptions::predicting;
  if (!options.checkpoint.empty() && !job.compiled) {
    if (recipe.init == "from_file") recipe.init = "absent";
    compile.weights = read_checkpoint_weights(options.checkpoint, weights);
    compile.weights_from = "checkpoint '" + options.checkpoint + "'";
  }
  const bool was_compiled = job.compiled.has_value();
  Dataset data = open_evaluation_data(recipe, options.checkpoint);
  const Session session = open_session(job, compile);
  if (options.format == Format::text) {
    print_remarks(*session.executor);
    if (session.report)
      for (const std::string& remark : session.report->remarks) print_err("halfstep: note: {}\n", remark);
  }
  if (!options.checkpoint.empty() && was_compiled)
    write_weights(*session.executor, read_checkpoint_weights(options.checkpoint, weights),
                  "checkpoint '" + options.checkpoint + "'");
  if (options.format == Format::text && !was_compiled && recipe.precision != "fp32" &&
      !given.given.contains("precision"))
    print_err("halfstep: note: computed in {}, as training would be; --precision fp32 is closest to other engines\n",
              recipe.precision);
  const SignalGuard signals;
  const CompiledModel& model = session.executor->model();
  PredictOptions predicting{.evaluate = {.feed = feed_options(recipe, model),
                                         .ranges = value_ranges(recipe, model),
                                         .seed = static_cast<uint64_t>(recipe.seed),
                                         .signals = &signals},
                            .top = options.top,
                            .scores = options.scores};
  if (!recipe.class_names.empty()) predicting.class_names = read_class_names(recipe.class_names, 0);
  const std::optional<Predicted> predicted = predict(*session.executor, std::move(data), predicting, options.target);
  if (!predicted) return stopped_by(signals.received());
  report_prediction(*predicted, "halfstep", options.target, recipe.precision, options.format);
  return ExitCode::success;
}

}  // namespace halfstep
