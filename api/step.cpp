#include "api/step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "api/load_options.h"
#include "api/status.h"
#include "program/signature.h"
#include "runtime/cuda_probe.h"
#include "training/notes.h"
#include "training/recipe.h"
#include "training/recipe_losses.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

template <typename T>
void store(std::span<std::byte> to, T value) {
  require(to.size() == sizeof(T), "a reserved input is a scalar of its type");
  std::memcpy(to.data(), &value, sizeof(T));
}

std::unique_ptr<Executor> open_executor(CompiledModel model, const LoadOptions& options, const std::string& directory) {
  if (const std::string& missing = model.notes.missing_constants; !missing.empty())
    throw Error("the step was compiled without constants of its model: compile it again with them; " + missing);
  if (options.device != "auto" && options.device != name(model.device))
    throw Error("device: '" + directory + "' was compiled for " + std::string(name(model.device)) + ", " +
                options.device + " is asked for: compile the model again, or leave it out");
  if (model.device == DeviceKind::cuda)
    if (const CudaProbe cuda = probe_cuda(options.executor.device_index); !cuda.available) throw Error(cuda.reason);
  ExecutorOptions executor = options.executor;
  executor.keep_in = directory;
  return make_executor(std::move(model), executor);
}

}  // namespace

LoadedStep::LoadedStep(const std::string& directory, const Options& options) : directory_(directory) {
  const LoadOptions given = load_options(options);
  executor_ = open_executor(load_compiled(directory, given.trust), given, directory);
  const CompiledModel& model = executor_->model();
  if (model.device == DeviceKind::cuda) device_index_ = given.executor.device_index;
  accumulation_ = std::max<int64_t>(model.notes.accumulation, 1);
  learning_rate_ = model.notes.learning_rate;
  state_.seed = given.seed.value_or(static_cast<uint64_t>(model.notes.seed));
  ranges_ = noted_ranges(model.notes);
  list_values();
  list_parameters();
}

void LoadedStep::list_values() {
  const CompiledModel& model = executor_->model();
  const auto list = [&](const char* program, BufferKind kind) {
    ProgramValues values;
    for (const Buffer& buffer : model.programs[static_cast<size_t>(program_index(model, program))].buffers)
      if (buffer.kind == kind && !buffer.name.is(Role::step_input))
        values.push_back(
            {kind == BufferKind::output ? path_of(buffer.name) : buffer.name.text, buffer.type, buffer.name});
    return values;
  };
  for (const auto& [program, name] : {std::pair{HALFSTEP_TRAIN, "train"}, {HALFSTEP_EVALUATE, "evaluate"}}) {
    values_[static_cast<size_t>(program)][HALFSTEP_INPUT] = list(name, BufferKind::input);
    values_[static_cast<size_t>(program)][HALFSTEP_OUTPUT] = list(name, BufferKind::output);
  }
  for (ProgramValue& value : values_[HALFSTEP_EVALUATE][HALFSTEP_OUTPUT])
    if (value.buffer.is(Role::model) && is_low(value.type.dtype)) value.type.dtype = DType::f32;
  const std::set<std::string> labels = label_inputs(model.notes);
  for (const ProgramValue& value : values_[HALFSTEP_EVALUATE][HALFSTEP_INPUT])
    if (!labels.contains(value.name)) values_[HALFSTEP_PREDICT][HALFSTEP_INPUT].push_back(value);
  for (const ProgramValue& value : values_[HALFSTEP_EVALUATE][HALFSTEP_OUTPUT])
    if (value.buffer.is(Role::model))
      values_[HALFSTEP_PREDICT][HALFSTEP_OUTPUT].push_back({value.buffer.text, value.type, value.buffer});
  // Of samples: an input without a batch axis has one value for all of them.
  for (const ProgramValue& value : values_[HALFSTEP_TRAIN][HALFSTEP_INPUT])
    if (batch_ == 1 && !value.type.shape.empty()) batch_ = value.type.shape.front();
}

const ProgramValues& LoadedStep::values(halfstep_program program, halfstep_direction direction) const {
  if (program < HALFSTEP_TRAIN || program > HALFSTEP_PREDICT)
    throw ArgumentError("program " + std::to_string(program) + ": HALFSTEP_TRAIN, _EVALUATE or _PREDICT expected");
  if (direction != HALFSTEP_INPUT && direction != HALFSTEP_OUTPUT)
    throw ArgumentError("direction " + std::to_string(direction) + ": HALFSTEP_INPUT or HALFSTEP_OUTPUT expected");
  return values_[static_cast<size_t>(program)][static_cast<size_t>(direction)];
}

LoadedStep::Batch LoadedStep::bind(const ProgramValues& values, std::span<const halfstep_tensor> inputs, void* stream,
                                   const std::vector<std::string>& read) {
  Batch batch{values, bind_inputs(values, inputs, place()), {}, stream};  // an input that lies elsewhere says more
  if (stream != nullptr && executor_->model().device != DeviceKind::cuda)
    throw ArgumentError("stream: the step runs on the CPU, which has none: give NULL");
  batch.read_back.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    BoundInput& input = batch.inputs[i];
    const bool is_read = std::ranges::find(read, values[i].buffer.text) != read.end();
    if (!input.on_device || !(is_read || is_checked(values[i], ranges_))) continue;
    Tensor& copy = batch.read_back.emplace_back(values[i].type);
    executor_->copy_from_device(copy.data, input.data, stream);
    input = {copy.data.data(), false};
  }
  check_values(values, batch.inputs, ranges_);
  return batch;
}

int64_t LoadedStep::submit(const std::string& program, const Batch& batch, int64_t iteration,
                           const std::function<void(Staging)>& staged) {
  const int index = program_index(executor_->model(), program);
  const std::vector<std::span<std::byte>> staging = executor_->begin_step(index);
  size_t place = 0;
  for (const Buffer& buffer : executor_->model().programs[static_cast<size_t>(index)].buffers) {
    if (buffer.kind != BufferKind::input) continue;
    const std::span<std::byte> to = staging[place];
    const auto value = std::ranges::find(batch.values, buffer.name, &ProgramValue::buffer);
    if (value != batch.values.end()) {
      const BoundInput& input = batch.inputs[static_cast<size_t>(value - batch.values.begin())];
      if (input.on_device)
        executor_->take_from_device(place, input.data, batch.stream);
      else
        std::memcpy(to.data(), input.data, to.size());
    } else if (buffer.name == kStepLearningRate) {
      const std::vector<double> shares =
          rate_shares(executor_->model().notes, executor_->model().notes.learning_rate, state_.epoch + 1);
      for (size_t i = 0; i < to.size() / sizeof(float); ++i)
        store(to.subspan(i * sizeof(float), sizeof(float)),
              static_cast<float>(learning_rate_ * (shares.empty() ? 1 : shares[i])));
    } else if (buffer.name == kStepIteration) {
      store(to, static_cast<int32_t>(iteration));
    } else if (buffer.name == kStepSeed) {
      store(to, static_cast<int64_t>(state_.seed));
    } else {
      std::ranges::fill(to, std::byte{0});  // the labels of a prediction
    }
    ++place;
  }
  if (staged) staged(staging);
  return executor_->submit();
}

namespace {

// Its batches are the caller's, which is not to find out later that nobody mixed them.
void refuse_mixed(const Program& train) {
  if (std::ranges::any_of(train.buffers, [](const Buffer& buffer) { return buffer.name == kStepMixShare; }))
    throw Error(
        "mixup and cutmix: a step that mixes the samples of a batch is trained by `halfstep train` or halfstep-run: "
        "compile it without them");
}

}  // namespace

void LoadedStep::train(std::span<const halfstep_tensor> inputs, void* stream) {
  const CompiledModel& model = executor_->model();
  refuse_mixed(model.programs[static_cast<size_t>(program_index(model, "train"))]);
  const Batch batch = bind(values_[HALFSTEP_TRAIN][HALFSTEP_INPUT], inputs, stream);
  const bool ends_step = batches_ + 1 == accumulation_;
  in_flight_.push_back({submit(ends_step ? "train" : "accumulate", batch, state_.iteration), ends_step});
  state_.samples = 0;  // nobody knows where this batch stood
  ++state_.iteration;
  batches_ = ends_step ? 0 : batches_ + 1;
  if (ends_step) ++state_.step;
  collect(Wait::no);
}

void LoadedStep::collect(Wait wait) {
  while (!in_flight_.empty()) {
    const std::optional<StepResult> result = executor_->poll(wait);
    if (!result) return;
    take(*result);
  }
}

void LoadedStep::take(const StepResult& result) {
  require(!in_flight_.empty() && result.ticket == in_flight_.front().ticket, "results come in order of submission");
  const bool ends_step = in_flight_.front().ends_step;
  in_flight_.pop_front();
  if (std::exchange(sums_ended_, ends_step)) sums_ = {};
  sums_.add(result.outputs, batch_);
  loss_ = sums_.mean_loss();
  if (!ends_step) return;
  finished_ = {.number = ++finished_steps_,
               .loss = *loss_,
               .loss_scale = scalar_output(result.outputs, kUsedLossScale).value_or(1),
               .skipped = scalar_output(result.outputs, kOverflow).value_or(0) != 0};
  constexpr size_t kMostUntold = 1024;
  if (untold_.size() == kMostUntold) untold_.pop_front();
  untold_.push_back(*finished_);
}

std::optional<LoadedStep::Finished> LoadedStep::next_finished() {
  collect(Wait::no);
  if (untold_.empty()) return std::nullopt;
  const Finished oldest = untold_.front();
  untold_.pop_front();
  return oldest;
}

double LoadedStep::loss() {
  collect(Wait::yes);
  if (!loss_) throw ArgumentError("there is no loss yet: call train_step first");
  return *loss_;
}

std::vector<double> LoadedStep::read_losses() {
  loss();
  std::vector<double> values;
  for (const LossSums& sums : sums_.each) values.push_back(sums.mean());
  require(values.size() == losses().size(), "a step's result holds each of its losses");
  return values;
}

double LoadedStep::loss_scale() {
  collect(Wait::yes);
  if (!finished_) throw ArgumentError("no optimizer step has finished yet: call train_step first");
  return finished_->loss_scale;
}

bool LoadedStep::skipped() {
  collect(Wait::yes);
  if (!finished_) throw ArgumentError("no optimizer step has finished yet: call train_step first");
  return finished_->skipped;
}

GradScalerState LoadedStep::grad_scaler() {
  collect(Wait::yes);
  return read_grad_scaler(*executor_);
}

std::vector<const char*> LoadedStep::grad_scaler_losses() const {
  const std::vector<std::string> scaled = losses_with_scale(executor_->model());
  std::vector<const char*> names;
  for (const LossNote& loss : losses())
    if (std::ranges::find(scaled, loss.name) != scaled.end()) names.push_back(loss.name.c_str());
  if (names.empty() && !scaled.empty()) names.push_back("");
  return names;
}

GradScalers LoadedStep::grad_scalers() {
  collect(Wait::yes);
  return read_grad_scalers(*executor_);
}

void LoadedStep::set_grad_scalers(const GradScalers& states) {
  // The sum of the gradients so far is scaled by the loss scale that was.
  if (batches_ != 0)
    throw ArgumentError("a loss scale changes between optimizer steps: call train_step " +
                        std::to_string(accumulation_ - batches_) + " times more");
  collect(Wait::yes);
  write_grad_scalers(*executor_, states, "grad scaler");
}

void LoadedStep::set_learning_rate(double rate) {
  if (!std::isfinite(rate) || rate < 0)
    throw ArgumentError("learning rate " + std::to_string(rate) + ": a finite number of at least 0 expected");
  learning_rate_ = rate;
}

NamedTensors LoadedStep::wait_for(int64_t ticket) {
  for (;;) {
    std::optional<StepResult> result = executor_->poll(Wait::yes);
    require(result.has_value(), "a submitted batch has a result");
    if (result->ticket == ticket) return std::move(result->outputs);
    take(*result);
  }
}

const ProgramValues& LoadedStep::outputs_of(halfstep_program program) const {
  const ProgramValues& outputs = values(program, HALFSTEP_OUTPUT);
  if (outputs.empty())
    throw ArgumentError("'" + directory_ +
                        "' was compiled without the model's outputs: compile it again with keep_outputs true");
  return outputs;
}

void LoadedStep::run(halfstep_program program, std::span<const halfstep_tensor> inputs, void* stream,
                     std::span<const BoundOutput> outputs) {
  const Batch batch = bind(values(program, HALFSTEP_INPUT), inputs, stream);
  const NamedTensors results = wait_for(submit("evaluate", batch, 0));
  for (const BoundOutput& output : outputs) {
    const Tensor& computed = results.at(output.value->buffer);
    const DType wanted = output.value->type.dtype;
    const Tensor result = computed.type.dtype == wanted ? computed : computed.cast(wanted);
    if (output.on_device)
      executor_->copy_to_device(output.data, result.data, stream);
    else
      std::memcpy(output.data, result.data.data(), result.data.size());
  }
}

void LoadedStep::begin_measures(const std::string& names) {
  const CompiledModel& model = executor_->model();
  MeasureOptions options;
  options.names = names.empty() ? recipe_of_step(model, directory_).measures : split(names, ',');
  const Program& program = model.programs[static_cast<size_t>(program_index(model, "evaluate"))];
  measures_.emplace(model.notes, Measures(options, program, model.notes, 0));
  measured_.clear();
}

void LoadedStep::measure(std::span<const halfstep_tensor> inputs, void* stream, size_t rows) {
  if (!measures_) throw ArgumentError("there are no measures yet: call begin_measures first");
  if (rows > static_cast<size_t>(batch_))
    throw ArgumentError("rows " + std::to_string(rows) + ": the step has a batch of " + std::to_string(batch_));
  const Batch batch =
      bind(values(HALFSTEP_EVALUATE, HALFSTEP_INPUT), inputs, stream, measures_->measures().label_inputs());
  Measures::Labels labels;
  const auto keep_labels = [&](Staging staging) { labels = measures_->measures().labels(staging); };
  const NamedTensors results = wait_for(submit("evaluate", batch, 0, keep_labels));
  measured_.clear();
  measures_->add(results, labels, rows == 0 ? batch_ : static_cast<int64_t>(rows));
}

const std::vector<MeasureValue>& LoadedStep::measured() {
  if (!measures_) throw ArgumentError("there are no measures yet: call begin_measures first");
  if (!measured_.empty()) return measured_;
  const Evaluation evaluation = measures_->evaluation();
  measured_ = {{"loss", evaluation.loss}};
  if (evaluation.accuracy) measured_.push_back({"accuracy", *evaluation.accuracy});
  for (const LossRow& row : evaluation.losses) {
    measured_.push_back({"loss." + row.name, row.loss});
    if (row.accuracy) measured_.push_back({"accuracy." + row.name, *row.accuracy});
  }
  for (const MeasureValue& measure : evaluation.measures.values)
    if (measure.name != "accuracy" || !evaluation.accuracy) measured_.push_back(measure);
  return measured_;
}

void LoadedStep::set_epochs(int64_t epochs, int64_t samples) {
  if (epochs < 0 || samples < 1)
    throw ArgumentError("epochs " + std::to_string(epochs) + " of " + std::to_string(samples) +
                        " samples: at least 0 and at least 1 expected");
  state_.epoch = epochs, state_.samples = samples;
}

void LoadedStep::save(const std::string& directory, int keep) {
  if (keep < 0) throw ArgumentError("keep " + std::to_string(keep) + ": at least 0 expected");
  if (batches_ != 0)
    throw ArgumentError("a checkpoint stands between optimizer steps: call train_step " +
                        std::to_string(accumulation_ - batches_) + " times more");
  collect(Wait::yes);
  save_checkpoint(directory, *executor_, state_, keep);
}

void LoadedStep::load(const std::string& path) {
  collect(Wait::yes);
  const TrainState loaded = load_checkpoint(path, *executor_);
  state_ = TrainState{.step = loaded.step, .epoch = loaded.epoch, .iteration = loaded.iteration, .seed = loaded.seed};
  batches_ = 0, sums_ = {}, sums_ended_ = true;
  loss_.reset(), finished_.reset();
  finished_steps_ = state_.step, untold_.clear();
}

}  // namespace halfstep
