#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "driver/commands.h"
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

void stage(const CommandOptions& options, int number, const char* title) {
  if (options.format == Format::text) fmt::print("\n[{}/5] {}\n", number, title), std::fflush(stdout);
}

void say(const CommandOptions& options, const std::string& text) {
  if (options.format == Format::text) fmt::print("{}", text), std::fflush(stdout);
}

std::string dataset_text(const char* name, const Dataset& dataset) {
  std::string text = fmt::format("  {:<6} {} samples", name, count_text(dataset.size()));
  for (const NamedArray& a : dataset.arrays) {
    TensorType sample = a.values.type;
    sample.shape.erase(sample.shape.begin());
    text += fmt::format("  {} {}", a.name, to_string(sample));
  }
  return text + "\n";
}

std::string preprocessing_text(const Recipe& r) {
  if (!r.scale && r.mean.empty() && r.std.empty()) return "  none: values go to the model as they are\n";
  const auto list = [](const std::vector<double>& v, double otherwise) {
    std::string text;
    for (double d : v) text += fmt::format("{}{:g}", text.empty() ? "" : ", ", d);
    return v.empty() ? fmt::format("{:g}", otherwise) : text;
  };
  return fmt::format("  bytes cross to the device; the graph computes (x * {:g} - {}) / {}\n",
                     r.scale.value_or(1.0 / 255), list(r.mean, 0), list(r.std, 1));
}

std::string tensors_text(const Executor& executor) {
  const CompiledModel& model = executor.model();
  Table table({"tensor", "kind", "type", "bytes"});
  int64_t parameters = 0;
  for (const ParameterSlice& p : model.parameters) parameters += TensorType{DType::f32, p.shape}.element_count();
  for (const Buffer& b : model.find("train")->buffers)
    if (b.kind != BufferKind::scratch && !b.name.starts_with('.'))
      table.add({b.name, std::string(name(b.kind)), to_string(b.type), bytes_text(b.type.byte_count())});
  const MemoryReport m = executor.memory();
  return table.text() +
         fmt::format("  {} trainable values in {} parameters; {} of state, {} of scratch, {} of library workspace\n",
                     count_text(parameters), model.parameters.size(), bytes_text(m.state_bytes),
                     bytes_text(m.scratch_bytes), bytes_text(m.workspace_bytes));
}

TrainOptions train_options(const Recipe& r, const SignalGuard& signals) {
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
  o.classes = r.classes;
  o.min_scale = r.min_scale, o.overflow_limit = r.overflow_limit;
  o.checkpoints = {.directory = std::filesystem::path(r.out) / "checkpoints",
                   .every_steps = r.checkpoint_every,
                   .keep = static_cast<int>(r.keep)};
  o.resume = r.resume;
  o.signals = &signals;
  return o;
}

int64_t classes_of(const Recipe& recipe, const CompiledModel& model) {
  if (recipe.classes > 0) return recipe.classes;
  const auto found = model.notes.find("classes");
  return found == model.notes.end() ? 0 : std::stoll(found->second);
}

nlohmann::json report_json(const TrainReport& report) {
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
  return {{"steps", report.steps},
          {"seconds", report.seconds},
          {"checkpoint", report.checkpoint.string()},
          {"epochs", epochs}};
}

// The original file, wherever the recipe of a compiled step says it was.
std::string onnx_path(const Recipe& recipe, const CompiledModel& model) {
  if (!is_compiled_directory(recipe.model)) return recipe.model;
  const auto found = model.notes.find("model");
  return found == model.notes.end() ? "" : found->second;
}

}  // namespace

ExitCode run_train(Recipe recipe, const CommandOptions& options) {
  stage(options, 1, "data");
  const Data data = open_data(recipe);
  say(options, dataset_text("train", data.train));
  if (data.test) say(options, dataset_text("test", *data.test));
  stage(options, 2, "preprocessing");
  say(options, preprocessing_text(recipe));

  stage(options, 3, "tensors");
  Session session = open_session(recipe, options.compile);
  Executor& executor = *session.executor;
  if (session.report)
    for (const std::string& remark : session.report->remarks) fmt::print(stderr, "halfstep: note: {}\n", remark);
  recipe.classes = classes_of(recipe, executor.model());
  say(options, tensors_text(executor));
  if (session.report) say(options, "  " + compile_summary(*session.report));
  if (session.report && options.timing == CommandOptions::time_passes)
    fmt::print(stderr, "{}", pass_times_table(*session.report));

  stage(options, 4, recipe.precision == "fp32" ? "training" : "training with AMP");
  if (session.report)
    say(options,
        precision_table(session.report->precision) + "  " + precision_summary(session.report->precision) + "\n\n");
  const std::filesystem::path out = recipe.out;
  std::error_code failed;
  std::filesystem::create_directories(out, failed);
  if (failed) throw Error("cannot create '" + out.string() + "': " + failed.message());
  write_file_atomically(out / "recipe.toml", to_toml(recipe));
  MetricsFile metrics(out / "metrics.jsonl", recipe.metrics_every);
  TerminalObserver terminal(recipe.epochs);
  std::vector<TrainObserver*> observers{&metrics};
  if (options.format == Format::text) observers.push_back(&terminal);
  ObserverList observer(observers);
  const SignalGuard signals;
  const TrainReport report =
      train(executor, data.train, data.test ? &*data.test : nullptr, train_options(recipe, signals), observer);

  if (report.reason == StopReason::interrupted) {
    fmt::print(stderr, "halfstep: stopped by a signal after step {}; continue with --resume {}\n", report.steps,
               report.checkpoint.string());
    return signals.received() == SIGTERM ? ExitCode::terminated : ExitCode::interrupted;
  }
  stage(options, 5, "metrics");
  const ModelState state = read_model_state(executor);
  const std::string original = onnx_path(recipe, executor.model());
  const std::filesystem::path trained = out / (std::filesystem::path(original).stem().string() + ".trained.onnx");
  if (std::filesystem::exists(original)) export_model(read_onnx_file(original), state.weights, trained);
  if (options.format == Format::json) {
    nlohmann::json json = report_json(report);
    json["trained_model"] = trained.string(), json["metrics"] = (out / "metrics.jsonl").string();
    if (session.report)
      json["compile"] = compile_json(*session.report), json["precision"] = precision_json(session.report->precision);
    fmt::print("{}\n", json.dump());
    return ExitCode::success;
  }
  if (session.report && data.test)
    if (const auto trace = trace_prediction(recipe, state.weights, *data.test, 0))
      say(options, "  test sample 0, layer by layer:\n" + trace_table(*trace));
  const ExecutorCounters& c = report.counters;
  say(options,
      fmt::format("  {} steps in {:.1f} s; {} graph launches, {} waits inside a step, {} waits for a free slot\n",
                  c.steps, report.seconds, c.graph_launches, c.stream_synchronisations, c.slot_waits));
  say(options, fmt::format("  checkpoint     {}\n  trained model  {}\n  metrics        {}\n",
                           report.checkpoint.string(), trained.string(), (out / "metrics.jsonl").string()));
  if (!report.epochs.empty() && report.epochs.back().test && report.epochs.back().test->accuracy)
    say(options, fmt::format("test accuracy {:.4f}\n", *report.epochs.back().test->accuracy));
  return ExitCode::success;
}

ExitCode run_eval(Recipe recipe, const CommandOptions& options) {
  std::optional<Dataset> data = open_test_data(recipe);
  if (!data && !recipe.data.empty()) data = open_dataset(recipe.data, Split::test);
  if (!data) throw Error("no data given: name it with --test_data or --data");
  Session session = open_session(recipe, options.compile);
  if (!options.checkpoint.empty())
    write_weights(*session.executor, read_checkpoint_weights(options.checkpoint),
                  "checkpoint '" + options.checkpoint + "': ");
  const SignalGuard signals;
  const Evaluation e = evaluate(*session.executor, *data,
                                {.normalization = {},
                                 .classes = classes_of(recipe, session.executor->model()),
                                 .seed = static_cast<uint64_t>(recipe.seed),
                                 .signals = &signals});
  if (e.interrupted) return signals.received() == SIGTERM ? ExitCode::terminated : ExitCode::interrupted;
  if (options.format == Format::json) {
    nlohmann::json json{{"samples", e.samples}, {"loss", e.loss}, {"seconds", e.seconds}};
    if (e.accuracy) json["accuracy"] = *e.accuracy;
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("samples {}  loss {:.4f}{}  {:.1f} s\n", count_text(e.samples), e.loss,
               e.accuracy ? fmt::format("  accuracy {:.4f}", *e.accuracy) : "", e.seconds);
  }
  return ExitCode::success;
}

ExitCode run_export(const Recipe& recipe, const CommandOptions& options) {
  if (options.checkpoint.empty()) throw Error("no checkpoint given: name it with --checkpoint");
  if (options.target.empty()) throw Error("no target given: name the ONNX file to write with -o");
  export_model(read_onnx_file(recipe.model), read_checkpoint_weights(options.checkpoint), options.target);
  fmt::print(stderr, "halfstep: wrote {}\n", options.target);
  return ExitCode::success;
}

}  // namespace halfstep
