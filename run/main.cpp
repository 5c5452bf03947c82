// halfstep-run: a compiled step, its data and the runtime; no compiler.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/layer_report.h"
#include "cli/measure_report.h"
#include "cli/output.h"
#include "cli/predict_report.h"
#include "cli/progress.h"
#include "cli/results.h"
#include "program/signature.h"
#include "run/command_line.h"
#include "runtime/signals.h"
#include "training/confusion.h"
#include "training/layer_times.h"
#include "training/metrics.h"
#include "training/predict.h"
#include "training/run_directory.h"
#include "training/run_setup.h"
#include "training/tensorboard.h"

namespace halfstep {
namespace {

struct LoadedRun {
  Recipe recipe;  // that holds
  std::unique_ptr<Executor> executor;
};

LoadedRun load(const RunCommand& command) {
  const std::string& directory = command.given.model;
  if (!is_compiled_directory(directory))
    throw Error("'" + directory + "' is no directory that `halfstep compile` made: compile the model first");
  CompiledModel model = load_compiled(directory, command.given.trust);
  LoadedRun run;
  run.recipe = recipe_over_compiled(recipe_of_step(model, directory), command.given, directory);
  refuse_missing_constants(model);
  expect_device(model.device);
  ExecutorOptions options = executor_options(run.recipe);
  options.keep_in = directory;
  run.executor = make_executor(std::move(model), options);
  if (command.format == Format::text)
    for (const std::string& remark : run.executor->remarks()) print_err("halfstep-run: note: {}\n", remark);
  if (!command.checkpoint.empty())
    write_weights(
        *run.executor,
        read_checkpoint_weights(command.checkpoint, run.recipe.ema_weights ? WeightsKind::average : WeightsKind::last),
        "checkpoint '" + command.checkpoint + "'");
  return run;
}

void print_remarks(const Dataset& data, const RunCommand& command) {
  if (command.format == Format::text)
    for (const std::string& remark : data.remarks) print_err("halfstep-run: note: {}\n", remark);
}

TrainReport train_or_name_checkpoint(Executor& executor, const Data& data, const TrainOptions& options,
                                     TrainObserver& observer) try {
  return train(executor, data.train, data.test ? &*data.test : nullptr, options, observer);
} catch (const HeadwayError& e) {
  const std::filesystem::path& last = e.step().checkpoint;
  if (last.empty()) throw;
  throw Error(std::vector<std::string>{e.what(), "the last checkpoint is '" + last.string() + "'"});
}

ExitCode run_train(const RunCommand& command) {
  LoadedRun run = load(command);
  const RunDirectory directory = take_run_directory(run.recipe, RunWrites::records);
  run.recipe.out = directory.path.string();
  const Recipe& recipe = run.recipe;
  if (command.format == Format::text && !directory.remark.empty())
    print_err("halfstep-run: note: {}\n", directory.remark);
  const Data data = open_data(recipe);
  print_remarks(data.train, command);
  const std::filesystem::path metrics_file = std::filesystem::path(recipe.out) / "metrics.jsonl";
  MetricsFile metrics(metrics_file, recipe.metrics_every);
  const MemoryReport memory = run.executor->memory();
  TerminalObserver terminal({.epochs = recipe.epochs,
                             .max_steps = recipe.max_steps,
                             .memory_bytes = memory.state_bytes + memory.scratch_bytes + memory.workspace_bytes});
  ConfusionPictures pictures(recipe.out);
  std::vector<TrainObserver*> observers{&metrics, &pictures};
  if (command.format == Format::text) observers.push_back(&terminal);
  std::optional<TensorBoard> board;
  if (recipe.tensorboard) observers.push_back(&board.emplace(recipe.out, recipe, *run.executor));
  ObserverList observer(observers);
  const SignalGuard signals;
  const TrainReport report =
      train_or_name_checkpoint(*run.executor, data, train_options(recipe, run.executor->model(), signals), observer);
  if (command.format == Format::json) print_out("{}\n", json_text(train_json(report)));
  if (report.reason == StopReason::interrupted) {
    if (command.format == Format::text)
      print_err("halfstep-run: note: stopped by a signal after step {}; go on with --resume {}\n", report.steps,
                report.checkpoint.string());
    return stopped_by(signals.received());
  }
  if (recipe.layer_times) try {
      const std::vector<LayerTime> layers = time_layers(*run.executor, recipe.learning_rate);
      write_layer_times(std::filesystem::path(recipe.out) / kLayerTimesFile, layers);
      if (command.format == Format::text) print_out("{}", layers_text(layers, output_width()));
    } catch (const Error& e) {  // the training is done
      print_err("halfstep-run: note: layer_times: {}\n", e.what());
    }
  if (command.format == Format::text && !report.epochs.empty() && report.epochs.back().test)
    print_out("{}", class_tables_text(report.epochs.back().test->measures, output_width()));
  if (command.format == Format::text)
    print_out("  checkpoint  {}\n  metrics     {}\n",
              report.checkpoint.empty() ? recipe.resume : report.checkpoint.string(), metrics_file.string());
  if (command.format == Format::text && report.best) print_out("{}", best_text(*report.best));
  return ExitCode::success;
}

EvaluateOptions evaluate_options(const LoadedRun& run, const SignalGuard& signals) {
  return {.feed = feed_options(run.recipe, run.executor->model()),
          .ranges = value_ranges(run.recipe, run.executor->model()),
          .seed = static_cast<uint64_t>(run.recipe.seed),
          .signals = &signals,
          .measures = measure_options(run.recipe)};
}

ExitCode run_eval(const RunCommand& command) {
  const LoadedRun run = load(command);
  const Dataset data = open_evaluation_data(run.recipe, command.checkpoint);
  print_remarks(data, command);
  const SignalGuard signals;
  const Evaluation evaluation = evaluate(*run.executor, data, evaluate_options(run, signals));
  if (evaluation.interrupted) return stopped_by(signals.received());
  if (command.format == Format::json)
    print_out("{}\n", json_text(evaluation_json(evaluation)));
  else
    print_out("{}", evaluation_text(evaluation, output_width()));
  if (command.format == Format::text)
    for (const std::string& remark : evaluation.measures.remarks) print_err("halfstep-run: note: {}\n", remark);
  if (!command.given.given.contains("out")) return ExitCode::success;
  const ConfusionFiles pictures = confusions_in(run.recipe.out, evaluation.measures);
  if (command.format == Format::text) print_err("{}", confusion_files_text("halfstep-run", pictures));
  return ExitCode::success;
}

ExitCode run_predict(const RunCommand& command) {
  LoadedRun run = load(command);
  const std::set<std::string>& given = command.given.given;
  if (given.contains("data") && !given.contains("test_data")) predict_given_data(run.recipe);
  const SignalGuard signals;
  Dataset data = open_evaluation_data(run.recipe, command.checkpoint);
  PredictOptions options{
      .evaluate = evaluate_options(run, signals), .top = command.top, .scores = command.scores, .class_names = {}};
  if (!run.recipe.class_names.empty()) options.class_names = read_class_names(run.recipe.class_names, 0);
  const std::optional<Predicted> predicted = predict(*run.executor, std::move(data), options, command.output);
  if (!predicted) return stopped_by(signals.received());
  report_prediction(*predicted, "halfstep-run", command.output, run.recipe.precision, command.format);
  return ExitCode::success;
}

ExitCode run(const RunCommand& command) {
  if (command.kind == RunCommand::train) return run_train(command);
  return command.kind == RunCommand::eval ? run_eval(command) : run_predict(command);
}

}  // namespace
}  // namespace halfstep

int main(int argc, char** argv) {
  halfstep::open_standard_descriptors();
  const halfstep::SignalThread signals;
  return static_cast<int>(halfstep::guarded("halfstep-run", halfstep::format_of(argc, argv), [&] {
    const std::optional<halfstep::RunCommand> command = halfstep::parse_run_command(argc, argv);
    return command ? halfstep::run(*command) : halfstep::ExitCode::success;
  }));
}
