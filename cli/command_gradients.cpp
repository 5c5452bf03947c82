#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"
#include "compiler/session.h"
#include "program/safetensors.h"
#include "training/checkpoint.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

constexpr std::string_view kGradients = "gradients/";  // before the names of their parameters

// The first batch of the data, in its order.
NamedTensors run_first_batch(Executor& executor, const Dataset& dataset, const Recipe& recipe, Format format) {
  const int program = program_index(executor.model(), std::string(kGradientsProgram));
  const DataFeed feed(dataset, executor.model().programs[static_cast<size_t>(program)],
                      feed_options(recipe, executor.model()));
  feed.check(value_ranges(recipe, executor.model()));
  if (format == Format::text) print_remarks(feed);
  if (feed.samples() < feed.batch())
    throw Error(fmt::format("the data holds {} samples, the batch takes {}: give --batch {}", feed.samples(),
                            feed.batch(), feed.samples()));
  const uint64_t seed = static_cast<uint64_t>(recipe.seed);
  std::vector<int64_t> samples = feed.order(SampleOrder::as_stored, seed, 0);
  samples.resize(static_cast<size_t>(feed.batch()));
  feed.fill(samples, {.seed = seed}, executor.begin_step(program));
  executor.submit();
  return executor.poll(Wait::yes)->outputs;
}

// Scale and overflow, of each loss too.
bool is_of_scaling(const Name& name) {
  const auto is = [&](const OwnName& own) { return name == own || is_of_a_loss(name, own); };
  return is(kOverflow) || is(kUsedLossScale);
}

// "loss" and what else the loss counts, "outputs/NAME" and "gradients/PARAMETER".
FileTensors named_results(NamedTensors outputs, FileTensors gradients) {
  FileTensors named;
  for (auto& [name, value] : outputs)
    if (!is_of_scaling(name)) named[path_of(name)] = std::move(value);
  for (auto& [name, value] : gradients) named[std::string(kGradients) + name] = std::move(value);
  return named;
}

double gradient_norm(const FileTensors& results) {
  double square = 0;
  for (const auto& [name, value] : results)
    if (name.starts_with(kGradients))
      for (const float v : value.as<float>()) square += static_cast<double>(v) * v;
  return std::sqrt(square);
}

}  // namespace

ExitCode run_gradients(const Recipe& given, const CommandOptions& options) {
  if (is_compiled_directory(given.model))
    throw Error("'" + given.model + "' is a compiled step, which holds no program for this: name the ONNX file");
  Job job{given, std::nullopt, {}};
  Recipe& recipe = job.recipe;
  if (!options.checkpoint.empty() && recipe.init == "from_file") recipe.init = "absent";
  // Random masks differ between frameworks.
  if (!recipe.given.contains("dropout")) recipe.dropout = 0;
  recipe.accumulation = 1;
  const Dataset dataset = open_data(recipe).train;
  CompileOptions compile = options.compile;
  compile.programs = TrainingPipelineOptions::training_and_gradients;
  const Session session = open_session(job, compile);
  Executor& executor = *session.executor;
  if (!options.checkpoint.empty())
    write_weights(executor, read_checkpoint_weights(options.checkpoint), "checkpoint '" + options.checkpoint + "'");

  const NamedTensors outputs = run_first_batch(executor, dataset, recipe, options.format);
  const double loss = outputs.at(kLoss).at(0);
  const bool overflow = outputs.contains(kOverflow) && outputs.at(kOverflow).at(0) != 0;
  const double scale = outputs.contains(kUsedLossScale) ? outputs.at(kUsedLossScale).at(0) : 1;
  const FileTensors results = named_results(outputs, read_gradients(executor));
  write_safetensors(options.target, results,
                    {{"precision", recipe.precision},
                     {"device", std::string(name(executor.model().device))},
                     {"loss_scale", fmt::format("{:g}", scale)},
                     {"overflow", overflow ? "true" : "false"}});
  const size_t parameters = executor.model().parameters.size();
  const double norm = gradient_norm(results);
  if (options.format == Format::json)
    print_out("{}\n", json_text({{"model", given.model},
                                 {"loss", loss},
                                 {"parameters", parameters},
                                 {"gradient_norm", norm},
                                 {"loss_scale", scale},
                                 {"overflow", overflow},
                                 {"gradients", options.target}}));
  else
    print_out("loss {:.6f}, gradients of {} parameters with norm {:.6g}, written to {}\n", loss,
              count_text(static_cast<int64_t>(parameters)), norm, options.target);
  if (overflow && options.format == Format::text)
    print_err("halfstep: note: {}\n",
              !std::isfinite(loss) ? "the loss is not finite, and so no loss scale makes the gradients finite"
              : scale > 1
                  ? fmt::format("gradients overflowed at loss scale {:g}: give a smaller --initial_scale", scale)
                  : std::string("gradients are not finite"));
  return ExitCode::success;
}

}  // namespace halfstep
