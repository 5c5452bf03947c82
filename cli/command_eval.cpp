#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"
#include "cli/train_report.h"
#include "compiler/session.h"
#include "training/confusion.h"
#include "training/trainer.h"

namespace halfstep {

ExitCode run_eval(const Recipe& given, const CommandOptions& options) {
  Job job = open_job(given);
  Recipe& recipe = job.recipe;
  if (!options.checkpoint.empty() && recipe.init == "from_file") recipe.init = "absent";
  const Dataset data = open_evaluation_data(recipe, options.checkpoint);
  const Session session = open_session(job, options.compile);
  if (options.format == Format::text) print_remarks(*session.executor);
  if (session.report && options.timing == CommandOptions::time_passes)
    print_err("{}", pass_times_table(*session.report));
  if (!options.checkpoint.empty())
    write_weights(
        *session.executor,
        read_checkpoint_weights(options.checkpoint, recipe.ema_weights ? WeightsKind::average : WeightsKind::last),
        "checkpoint '" + options.checkpoint + "'");
  const SignalGuard signals;
  const CompiledModel& model = session.executor->model();
  if (options.format == Format::text)
    print_remarks(DataFeed(data, model.programs[static_cast<size_t>(program_index(model, "evaluate"))],
                           feed_options(recipe, model)));
  const Evaluation e = evaluate(*session.executor, data,
                                {.feed = feed_options(recipe, model),
                                 .ranges = value_ranges(recipe, model),
                                 .seed = static_cast<uint64_t>(recipe.seed),
                                 .signals = &signals,
                                 .measures = measure_options(recipe)});
  if (e.interrupted) return stopped_by(signals.received());
  if (options.format == Format::json) {
    nlohmann::json json = evaluation_json(e);
    json["model"] = given.model;
    print_out("{}\n", json_text(json));
  } else {
    print_out("{}", evaluation_text(e, output_width()));
    for (const std::string& remark : e.measures.remarks) print_err("halfstep: note: {}\n", remark);
  }
  if (!given.given.contains("out")) return ExitCode::success;
  const ConfusionFiles pictures = confusions_in(recipe.out, e.measures);
  if (options.format == Format::text) print_err("{}", confusion_files_text("halfstep", pictures));
  return ExitCode::success;
}

}  // namespace halfstep
