#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "driver/commands.h"
#include "driver/find_non_finite.h"
#include "driver/progress.h"
#include "driver/report.h"
#include "driver/session.h"
#include "driver/table.h"
#include "driver/trace.h"
#include "frontend/export.h"
#include "runtime/metrics.h"
#include "runtime/trainer.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

// What a run says on stdout as it goes; JSON comes at the end, alone.
class Narration {
 public:
  explicit Narration(Format format) : format_(format) {}
  void stage(int number, const char* title) const { say(fmt::format("\n[{}/5] {}\n", number, title)); }
  void say(const std::string& text) const {
    if (format_ == Format::json) return;
    fmt::print("{}", text);
    std::fflush(stdout);
  }
  void note(const std::string& text) const {
    if (format_ == Format::text) fmt::print(stderr, "halfstep: note: {}\n", text);
  }

 private:
  Format format_;
};

std::string dataset_text(const Data& data) {
  Table table({"set", "samples", "array", "type of a sample"});
  const auto add = [&](const char* set, const Dataset& dataset) {
    for (const NamedArray& array : dataset.arrays) {
      TensorType sample = array.values.type;
      sample.shape.erase(sample.shape.begin());
      table.add({set, count_text(dataset.size()), array.name, to_string(sample)});
    }
  };
  add("train", data.train);
  if (data.test) add("test", *data.test);
  return table.text();
}

std::string preprocessing_text(const Recipe& r) {
  if (!r.scale && r.mean.empty() && r.std.empty()) return "  none: values go to the model as they are\n";
  const auto list = [](const std::vector<double>& v, double otherwise) {
    std::string text;
    for (double d : v) text += fmt::format("{}{:g}", text.empty() ? "" : ", ", d);
    return v.size() > 1 ? "[" + text + "]" : v.empty() ? fmt::format("{:g}", otherwise) : text;
  };
  return fmt::format("  bytes cross to the device; the graph computes (x * {:g} - {}) / {}\n",
                     r.scale.value_or(1.0 / 255), list(r.mean, 0), list(r.std, 1));
}

std::string tensors_text(const Executor& executor) {
  const CompiledModel& model = executor.model();
  Table table({"tensor", "kind", "type", "bytes"});
  for (BufferKind kind : {BufferKind::input, BufferKind::state, BufferKind::output})
    for (const Buffer& b : model.find("train")->buffers)
      if (b.kind == kind && !b.name.starts_with('.'))
        table.add({b.name, std::string(name(b.kind)), to_string(b.type), bytes_text(b.type.byte_count())});
  const MemoryReport m = executor.memory();
  int64_t values = 0;
  for (const ParameterSlice& p : model.parameters) values += TensorType{DType::f32, p.shape}.element_count();
  return table.text() +
         fmt::format("  {} trainable values in {} parameters; {} of state, {} of scratch, {} of library workspace\n",
                     count_text(values), model.parameters.size(), bytes_text(m.state_bytes),
                     bytes_text(m.scratch_bytes), bytes_text(m.workspace_bytes));
}

std::string counters_text(const TrainReport& report, DeviceKind device) {
  const ExecutorCounters& c = report.counters;
  Table table({"counter", "count", "meaning"});
  table.add({"batches submitted", count_text(c.steps), "training and evaluation"});
  if (device == DeviceKind::cuda) table.add({"graph launches", count_text(c.graph_launches), "one a batch"});
  table.add({"waits inside a step", count_text(c.stream_synchronisations), "the host waited for the device: stays 0"});
  table.add({"waits for a slot", count_text(c.slot_waits), "every input slot was in flight: the device sets the pace"});
  table.add({"waits for a result", count_text(c.result_waits), "at the end of an epoch, for a checkpoint"});
  return table.text();
}

TrainOptions train_options(const Recipe& r, const CompiledModel& model, const SignalGuard& signals) {
  TrainOptions o;
  o.epochs = r.epochs, o.max_steps = r.max_steps, o.accumulation = r.accumulation;
  o.seed = static_cast<uint64_t>(r.seed);
  o.schedule = {.kind = r.schedule == "step"     ? ScheduleKind::step
                        : r.schedule == "cosine" ? ScheduleKind::cosine
                                                 : ScheduleKind::constant,
                .learning_rate = r.learning_rate,
                .warmup_steps = r.warmup_steps,
                .step_epochs = r.step_epochs,
                .gamma = r.gamma,
                .final_rate = r.final_rate};
  o.labels = {classes_of(r, model), r.ignore_index};
  o.min_scale = r.loss_scale == "fixed" ? r.initial_scale : r.min_scale;  // a fixed scale has nowhere to go
  o.overflow_limit = r.overflow_limit;
  o.checkpoints = {.directory = fs::path(r.out) / "checkpoints",
                   .every_steps = r.checkpoint_every,
                   .keep = static_cast<int>(r.keep)};
  o.resume = r.resume;
  o.signals = &signals;
  return o;
}

// The trainer knows that a run is stuck, the compiler's side why.
TrainReport train_or_explain(Executor& executor, const Data& data, const Recipe& recipe, const TrainOptions& options,
                             TrainObserver& observer) try {
  return train(executor, data.train, data.test ? &*data.test : nullptr, options, observer);
} catch (const HeadwayError& e) {
  std::vector<std::string> lines{e.what(),
                                 explain_non_finite(recipe, read_model_state(executor), data.train, e.step())};
  if (const fs::path& last = e.step().checkpoint; !last.empty())
    lines.push_back(fmt::format("the last checkpoint is '{}': go on from it with --resume", last.string()));
  throw Error(std::move(lines));
}

nlohmann::json json_of(const ExecutorCounters& c) {
  return {{"batches", c.steps},
          {"graph_launches", c.graph_launches},
          {"stream_synchronisations", c.stream_synchronisations},
          {"slot_waits", c.slot_waits},
          {"result_waits", c.result_waits}};
}

nlohmann::json json_of(const TrainReport& report) {
  nlohmann::json epochs = nlohmann::json::array();
  for (const EpochRow& e : report.epochs) {
    nlohmann::json row{{"epoch", e.epoch},
                       {"loss", e.loss},
                       {"skipped", e.skipped},
                       {"images_per_second", e.images_per_second},
                       {"seconds", e.seconds}};
    if (e.accuracy) row["accuracy"] = *e.accuracy;
    if (e.test) row["test_loss"] = e.test->loss;
    if (e.test && e.test->accuracy) row["test_accuracy"] = *e.test->accuracy;
    if (e.loss_scale) row["loss_scale"] = *e.loss_scale;
    epochs.push_back(std::move(row));
  }
  return {{"reason", report.reason == StopReason::completed ? "completed" : "interrupted"},
          {"steps", report.steps},
          {"seconds", report.seconds},
          {"checkpoint", report.checkpoint.string()},
          {"counters", json_of(report.counters)},
          {"epochs", epochs}};
}

// The trained ONNX file; empty where the original is gone, as with a compiled step on another machine.
fs::path export_trained(const Recipe& recipe, const NamedTensors& weights, const Narration& narration) {
  if (std::error_code unreadable; !fs::exists(recipe.model, unreadable)) {
    narration.note(fmt::format("'{}' is not there, so no trained ONNX file is written", recipe.model));
    return {};
  }
  const fs::path trained = fs::path(recipe.out) / (fs::path(recipe.model).stem().string() + ".trained.onnx");
  export_model(read_onnx_file(recipe.model), weights, trained);
  return trained;
}

ExitCode interrupted(const TrainReport& report, const SignalGuard& signals, const CommandOptions& options) {
  if (options.format == Format::json)
    fmt::print("{}\n", json_of(report).dump());
  else
    fmt::print(stderr, "halfstep: stopped by a signal after step {}; go on with --resume {}\n", report.steps,
               report.checkpoint.string());
  return signals.received() == SIGTERM ? ExitCode::terminated : ExitCode::interrupted;
}

// A new run beside the checkpoints of another would be taken for its end, or remove it.
void prepare_output_directory(const Recipe& recipe) {
  const fs::path out = recipe.out;
  std::error_code failed;
  fs::create_directories(out, failed);
  if (failed) throw Error("cannot create output directory '" + out.string() + "': " + failed.message());
  const fs::path checkpoints = out / "checkpoints";
  if (recipe.resume.empty() && fs::exists(checkpoints, failed) && !list_checkpoints(checkpoints).empty())
    throw Error(
        fmt::format("output directory '{0}' holds the checkpoints of another run: go on with that by --resume "
                    "{0}/checkpoints, or choose another directory with --out",
                    out.string()));
}

}  // namespace

ExitCode run_train(const Recipe& given, const CommandOptions& options) {
  const Narration narration(options.format);
  Job job = open_job(given);
  const Recipe& recipe = job.recipe;
  prepare_output_directory(recipe);
  narration.stage(1, "data");
  const Data data = open_data(recipe);
  narration.say(dataset_text(data));
  narration.stage(2, "preprocessing");
  narration.say(preprocessing_text(recipe));

  narration.stage(3, "tensors");
  const Session session = open_session(job, options.compile);
  Executor& executor = *session.executor;
  narration.say(tensors_text(executor));
  if (session.report) {
    narration.say(fmt::format("  compiled in {:.2f} s to {} calls\n", session.report->seconds, session.report->steps));
    for (const std::string& remark : session.report->remarks) narration.note(remark);
    if (options.timing == CommandOptions::time_passes) fmt::print(stderr, "{}", pass_times_table(*session.report));
  }

  narration.stage(4, recipe.precision == "fp32" ? "training" : "training with AMP");
  AutocastReport precision;
  if (session.report) {
    precision = by_onnx_node(session.report->precision, session.report->onnx_nodes);
    narration.say(precision_table(precision) + "\n  " + precision_summary(precision) + "\n\n");
  }
  const fs::path out = recipe.out;
  write_file_atomically(out / "recipe.toml", to_toml(recipe));
  MetricsFile metrics(out / "metrics.jsonl", recipe.metrics_every);
  TerminalObserver terminal(recipe.epochs);
  std::vector<TrainObserver*> observers{&metrics};
  if (options.format == Format::text) observers.push_back(&terminal);
  ObserverList observer(observers);
  const SignalGuard signals;
  const TrainReport report =
      train_or_explain(executor, data, recipe, train_options(recipe, executor.model(), signals), observer);
  if (report.reason == StopReason::interrupted) return interrupted(report, signals, options);

  narration.stage(5, "metrics");
  if (report.epochs.empty())
    narration.note("the checkpoint is at the end of the run already; give more --epochs to go on");
  const ModelState state = read_model_state(executor);
  const fs::path trained = export_trained(recipe, state.weights, narration);
  if (options.format == Format::json) {
    nlohmann::json json = json_of(report);
    json["trained_model"] = trained.string(), json["metrics"] = (out / "metrics.jsonl").string();
    if (session.report) json["compile"] = compile_json(*session.report), json["precision"] = precision_json(precision);
    fmt::print("{}\n", json.dump());
    return ExitCode::success;
  }
  if (data.test)
    if (const auto trace = trace_prediction(recipe, state, *data.test, 0))
      narration.say("  test sample 0, layer by layer:\n" + trace_table(*trace) + "\n");
  narration.say(fmt::format("  step {} reached in {:.1f} s\n", report.steps, report.seconds));
  narration.say(counters_text(report, executor.model().device));
  narration.say(fmt::format("\n  checkpoint     {}\n  trained model  {}\n  metrics        {}\n",
                            report.checkpoint.string(), trained.string(), (out / "metrics.jsonl").string()));
  if (!report.epochs.empty() && report.epochs.back().test && report.epochs.back().test->accuracy)
    narration.say(fmt::format("test accuracy {:.4f}\n", *report.epochs.back().test->accuracy));
  return ExitCode::success;
}

ExitCode run_eval(const Recipe& given, const CommandOptions& options) {
  Job job = open_job(given);
  Recipe& recipe = job.recipe;
  if (!options.checkpoint.empty() && recipe.init == "from_file") recipe.init = "absent";
  std::optional<Dataset> data = open_test_data(recipe);
  if (!data && !recipe.data.empty()) data = open_dataset(recipe.data, Split::test);
  if (!data) throw Error("no data is given: name it with --test_data or --data");
  const Session session = open_session(job, options.compile);
  if (session.report && options.timing == CommandOptions::time_passes)
    fmt::print(stderr, "{}", pass_times_table(*session.report));
  if (!options.checkpoint.empty())
    write_weights(*session.executor, read_checkpoint_weights(options.checkpoint),
                  "checkpoint '" + options.checkpoint + "'");
  const SignalGuard signals;
  const Evaluation e = evaluate(*session.executor, *data,
                                {.normalization = {},
                                 .labels = {classes_of(recipe, session.executor->model()), recipe.ignore_index},
                                 .seed = static_cast<uint64_t>(recipe.seed),
                                 .signals = &signals});
  if (e.interrupted) return signals.received() == SIGTERM ? ExitCode::terminated : ExitCode::interrupted;
  if (options.format == Format::json) {
    nlohmann::json json{{"model", given.model}, {"samples", e.samples}, {"loss", e.loss}, {"seconds", e.seconds}};
    if (e.accuracy) json["accuracy"] = *e.accuracy;
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("{} samples in {:.1f} s: loss {:.4f}{}\n", count_text(e.samples), e.seconds, e.loss,
               e.accuracy ? fmt::format(", accuracy {:.4f}", *e.accuracy) : "");
  }
  return ExitCode::success;
}

ExitCode run_export(const Recipe& given, const CommandOptions& options) {
  if (options.checkpoint.empty()) throw Error("no checkpoint is given: name it with --checkpoint");
  const Recipe recipe = open_job(given).recipe;
  export_model(read_onnx_file(recipe.model), read_checkpoint_weights(options.checkpoint), options.target);
  if (options.format == Format::json)
    fmt::print("{}\n", nlohmann::json{{"model", recipe.model}, {"trained_model", options.target}}.dump());
  else
    fmt::print(stderr, "halfstep: wrote {}\n", options.target);
  return ExitCode::success;
}

}  // namespace halfstep
