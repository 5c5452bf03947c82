#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/layer_report.h"
#include "cli/loss_curve.h"
#include "cli/measure_report.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/step_trace.h"
#include "cli/table.h"
#include "cli/trace.h"
#include "cli/train_report.h"
#include "compiler/find_non_finite.h"
#include "compiler/inspect/inspection.h"
#include "compiler/provenance.h"
#include "compiler/session.h"
#include "frontend/export/export.h"
#include "training/checkpoint.h"
#include "training/confusion.h"
#include "training/grad_scaler.h"
#include "training/layer_times.h"
#include "training/metrics.h"
#include "training/run_directory.h"
#include "training/tensorboard.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

// The trainer knows that a run is stuck, the compiler's side why.
TrainReport train_or_explain(Executor& executor, const Data& data, const Recipe& recipe, const TrainOptions& options,
                             TrainObserver& observer) try {
  return train(executor, data.train, data.test ? &*data.test : nullptr, options, observer);
} catch (const HeadwayError& e) {
  std::vector<std::string> lines{
      e.what(), explain_non_finite(recipe, read_model_state(executor), data.train, options.feed, e.step())};
  if (const fs::path& last = e.step().checkpoint; !last.empty())
    lines.push_back(fmt::format("the last checkpoint is '{}': go on from it with --resume", last.string()));
  throw Error(std::move(lines));
}

// The trained ONNX file; empty where the original is gone, as with a compiled step on another machine.
fs::path export_trained(const Recipe& recipe, const FileTensors& weights, int64_t steps, const DataFacts& facts,
                        const Narration& narration) {
  if (std::error_code unreadable; !fs::exists(recipe.model, unreadable)) {
    narration.note(fmt::format("'{}' is not there, so no trained ONNX file is written", recipe.model));
    return {};
  }
  const fs::path trained = trained_file(recipe);
  export_model(onnx_model_of(recipe), weights, trained, {.metadata = provenance(recipe, steps, facts)});
  if (const std::string remark = remark_on_columns(facts); !remark.empty()) narration.note(remark);
  return trained;
}

// What the trainer, too, takes before its first step.
void begin_as_training(Executor& executor, const Recipe& recipe) {
  if (const fs::path checkpoints = fs::path(recipe.out) / "checkpoints"; fs::is_directory(checkpoints))
    recover_checkpoints(checkpoints);
  if (!recipe.resume.empty())
    load_checkpoint(recipe.resume, executor);
  else if (!recipe.grad_scaler.empty())
    write_grad_scalers(executor, read_grad_scalers(recipe.grad_scaler), "grad_scaler");
}

// A run with its records: the recipe that held, metrics, checkpoints, progress.
TrainReport run_recorded(Executor& executor, const Data& data, const Recipe& recipe, const CommandOptions& options,
                         const SignalGuard& signals, LossRecorder& losses) {
  const fs::path out = recipe.out;
  write_file_atomically(out / "recipe.toml", std::string(kRunRecipeMark) + to_toml(recipe));
  MetricsFile metrics(out / "metrics.jsonl", recipe.metrics_every);
  const MemoryReport memory = executor.memory();
  const bool verbose = options.verbosity == CommandOptions::verbose_run;
  TerminalObserver terminal({.epochs = recipe.epochs,
                             .max_steps = recipe.max_steps,
                             .memory_bytes = memory.state_bytes + memory.scratch_bytes + memory.workspace_bytes},
                            verbose ? TerminalObserver::each : TerminalObserver::summed);
  ConfusionPictures pictures(out);
  std::vector<TrainObserver*> observers{&metrics, &losses, &pictures};
  if (options.format == Format::text && options.verbosity != CommandOptions::quiet_run) observers.push_back(&terminal);
  std::optional<TensorBoard> board;
  if (recipe.tensorboard) observers.push_back(&board.emplace(out, recipe, executor));
  ObserverList observer(observers);
  return train_or_explain(executor, data, recipe, train_options(recipe, executor.model(), signals), observer);
}

// What a run ends with: the weights of its best epoch where it has kept them, and their mean where there is one.
struct Trained {
  ModelState state;
  int64_t step = 0;
  std::string what;  // where these are not simply the last ones
};
Trained trained_state(Executor& executor, const Recipe& recipe, const TrainReport& report) {
  Trained result{read_model_state(executor), report.steps, {}};
  if (const auto& best = report.best; best && !best->checkpoint.empty() && best->step != report.steps) {
    result.state = read_checkpoint(best->checkpoint).model, result.step = best->step;
    result.what = fmt::format("its weights are those of epoch {}, the best by {} ({:.4f})", best->epoch, best->measure,
                              best->value);
  }
  if (recipe.ema_weights && has_average(result.state)) {
    result.what += (result.what.empty() ? "its weights are" : ", as") + std::string(" their running mean (ema)");
    result.state.weights = weights_of(result.state, WeightsKind::average);
  }
  return result;
}

// null: the step was skipped, or its loss is no finite number.
nlohmann::json losses_json(const std::vector<double>& losses) {
  nlohmann::json list = nlohmann::json::array();
  for (const double loss : losses) list.push_back(std::isfinite(loss) ? nlohmann::json(loss) : nlohmann::json());
  return list;
}

std::string files_text(const TrainReport& report, const Recipe& recipe, const fs::path& trained,
                       const std::string& weights) {
  const std::string checkpoint = report.checkpoint.empty() ? recipe.resume : report.checkpoint.string();
  std::string text = fmt::format("  checkpoint     {}\n", checkpoint);
  if (!trained.empty()) text += fmt::format("  trained model  {}\n", trained.string());
  if (!trained.empty() && !weights.empty()) text += fmt::format("                 {}\n", weights);
  return text + fmt::format("  metrics        {}\n", (fs::path(recipe.out) / "metrics.jsonl").string());
}

// The modules that the file's nodes stand in, as inspect tells them; none where the file is gone.
std::map<std::string, std::string> scopes_of_nodes(const Recipe& recipe) {
  std::map<std::string, std::string> scopes;
  if (std::error_code unreadable; !fs::exists(recipe.model, unreadable)) return scopes;
  for (const InspectedNode& node : inspect(recipe, {}).nodes)
    if (node.origin.phase == Phase::forward) scopes.emplace(node.origin.name, node.scope);
  return scopes;
}

// The training is done: what keeps the step from being timed is no error of it.
std::vector<LayerTime> timed_layers(Executor& executor, const Recipe& recipe, const Narration& narration) try {
  std::vector<LayerTime> layers = time_layers(executor, recipe.learning_rate);
  const std::map<std::string, std::string> scopes = scopes_of_nodes(recipe);
  for (LayerTime& row : layers)
    if (const auto scope = scopes.find(row.layer.substr(0, row.layer.find(" + "))); scope != scopes.end())
      row.scope = scope->second;
  write_layer_times(fs::path(recipe.out) / kLayerTimesFile, layers);
  return layers;
} catch (const Error& e) {
  narration.note(std::string("the layers are not timed: ") + e.what());
  return {};
}

// The training is done: what keeps a sample from being followed is no error of it.
std::optional<Trace> followed_sample(const Recipe& recipe, const ModelState& state, const Dataset& test,
                                     const Narration& narration) try {
  return trace_prediction(recipe, state, test, 0);
} catch (const Error& e) {
  narration.note(std::string("no sample is followed layer by layer, which takes a batch of 1: ") + e.what());
  return std::nullopt;
}

}  // namespace

ExitCode run_train(const Recipe& given, const CommandOptions& options) {
  const Narration narration(options.format, options.verbosity);
  Job job = open_job(given);
  const RunDirectory directory = take_run_directory(job.recipe, RunWrites::records_and_model);
  job.recipe.out = directory.path.string();
  const Recipe& recipe = job.recipe;
  if (!directory.remark.empty()) narration.note(directory.remark);
  narration.stage(1, "data");
  const Data data = open_data(recipe);
  narration.say(data_text(data));
  narration.stage(2, "preprocessing");
  narration.say(preprocessing_text(recipe));

  narration.stage(3, "tensors");
  const Session session = open_session(job, options.compile);
  Executor& executor = *session.executor;
  narration.say(tensors_text(executor));
  for (const std::string& remark : executor.remarks()) narration.note(remark);
  const DataFeed feed(data.train, *executor.model().find("train"), feed_options(recipe, executor.model()));
  if (data.train.tokens)
    narration.say(fmt::format("  {} windows of tokens an epoch, {} in a step\n", count_text(feed.samples()),
                              recipe.batch * recipe.accumulation));
  for (const std::string& remark : feed.remarks()) narration.note(remark);
  if (const int64_t step = recipe.batch * recipe.accumulation, rest = feed.samples() % step;
      rest > 0 && rest < feed.samples())
    narration.note(fmt::format("{} of {} samples do not fill a step of {} and are left out of each epoch{}", rest,
                               feed.samples(), step, recipe.shuffle ? ", others each time" : ""));
  if (!recipe.measures.empty() && !data.test)
    narration.note("measures are of held-out data, and there is none: name it with test_data");
  nlohmann::json json;
  std::vector<NodeRow> precision;
  if (const std::optional<CompileReport>& compiled = session.report) {
    narration.say(fmt::format("  compiled in {:.2f} s to {} calls\n", compiled->seconds, compiled->steps));
    for (const std::string& remark : compiled->remarks) narration.note(remark);
    if (options.timing == CommandOptions::time_passes) print_err("{}", pass_times_table(*compiled));
    precision = by_onnx_node(*compiled);
    json["compile"] = compile_json(*compiled), json["precision"] = precision_json(precision);
    // For the run's report.
    write_file_atomically(fs::path(recipe.out) / "precision.json", json_text(json) + "\n");
  }

  const bool traced = options.trace == CommandOptions::traced;
  if (traced) {
    begin_as_training(executor, recipe);
    const StepTrace trace = trace_step(recipe, executor, session.report ? &*session.report : nullptr, data.train);
    narration.say(step_trace_text(trace, output_width()));
    json["trace"] = step_trace_json(trace);
  }
  narration.stage(4, recipe.precision == "fp32" ? "training" : "training with AMP");
  if (!precision.empty() && !traced)
    narration.say(precision_table(precision, output_width()) + "\n  " + precision_summary(precision) + "\n\n");
  std::optional<SignalGuard> signals(std::in_place);
  LossRecorder losses;
  const TrainReport report = run_recorded(executor, data, recipe, options, *signals, losses);
  json.update(train_json(report));
  if (traced) {
    narration.say("\n  the loss of each step\n" + loss_curve(losses.losses(), losses.first_step(), output_width()));
    json["trace"]["losses"] = losses_json(losses.losses());
  }
  if (report.reason == StopReason::interrupted) {
    if (options.format == Format::json) print_out("{}\n", json_text(json));
    narration.note(fmt::format("stopped by a signal after step {}; go on with --resume {}", report.steps,
                               report.checkpoint.string()));
    return stopped_by(signals->received());
  }
  signals.reset();

  narration.stage(5, "metrics");
  if (report.reason == StopReason::no_improvement)
    narration.note(fmt::format("training ended after step {}: patience {} is reached without an improvement",
                               report.steps, recipe.patience));
  else if (report.epochs.empty())
    narration.note("the checkpoint is at the end of the run already; give more --epochs to go on");
  const Trained result = trained_state(executor, recipe, report);
  if (const auto& best = report.best; best && best->checkpoint.empty() && best->step != report.steps)
    narration.note(
        fmt::format("the checkpoint of epoch {}, the best by {}, is not there: the trained model has the "
                    "last step's weights",
                    best->epoch, best->measure));
  const ModelState& state = result.state;
  if (const std::string ruined = non_finite_weights(state); !ruined.empty())
    throw Error(ruined + ": no trained model is written; lower the learning rate and go on from a checkpoint before");
  const fs::path trained = export_trained(recipe, state.weights, result.step, data.train.facts, narration);
  const bool predicts = (traced || options.format == Format::text) && data.test && !data.test->tokens;
  const auto prediction = predicts ? followed_sample(recipe, state, *data.test, narration) : std::nullopt;
  std::vector<LayerTime> layers;
  if (recipe.layer_times) layers = timed_layers(executor, recipe, narration);
  if (options.format == Format::json) {
    if (traced && prediction) json["trace"]["prediction"] = trace_json(*prediction);
    json["trained_model"] = trained.string(), json["metrics"] = (fs::path(recipe.out) / "metrics.jsonl").string();
    print_out("{}\n", json_text(json));
    return ExitCode::success;
  }
  if (prediction) narration.say("  test sample 0, layer by layer:\n" + trace_table(*prediction, output_width()) + "\n");
  if (!layers.empty())
    narration.say("  a step's calls, each timed by itself:\n" + layers_text(layers, output_width()) + "\n");
  narration.say(fmt::format("  step {} reached in {:.1f} s\n", report.steps, report.seconds));
  narration.say(counters_text(report, executor.model().device) + "\n");
  narration.tell(files_text(report, recipe, trained, result.what));
  if (!report.epochs.empty() && report.epochs.back().test && report.epochs.back().test->accuracy)
    narration.tell(fmt::format("test accuracy {:.4f}\n", *report.epochs.back().test->accuracy));
  if (!report.epochs.empty() && report.epochs.back().test)
    narration.tell(class_tables_text(report.epochs.back().test->measures, output_width()));
  if (!report.epochs.empty() && report.epochs.back().test && report.epochs.back().test->tokens)
    narration.tell(fmt::format("test loss {:.4f}, {}\n", report.epochs.back().test->loss,
                               tokens_text(*report.epochs.back().test->tokens)));
  return ExitCode::success;
}

}  // namespace halfstep
