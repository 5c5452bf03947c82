// The table of libhalfstep-runtime.
#include "api/dtypes.h"
#include "api/status.h"
#include "api/step.h"
#include "base/version.h"

namespace halfstep {

std::string node_of(const std::string&) { return ""; }

namespace {

template <typename T>
std::span<const T> given_span(const T* first, size_t count, const char* name) {
  if (count > 0) given(first, name);
  return {first, count};
}

LoadedStep& loaded(halfstep_step* step) { return given(step, "step").loaded; }
const LoadedStep& loaded(const halfstep_step* step) { return given(step, "step").loaded; }

std::vector<halfstep_tensor> host_tensors(const halfstep_input* inputs, size_t count) {
  std::vector<halfstep_tensor> tensors;
  for (const halfstep_input& input : given_span(inputs, count, "inputs")) tensors.push_back(tensor_of(input));
  return tensors;
}

void run_on_host(halfstep_step* step, halfstep_program program, const halfstep_input* inputs, size_t input_count,
                 const halfstep_output* outputs, size_t output_count) {
  LoadedStep& to_run = loaded(step);
  const std::span<const halfstep_output> wanted = given_span(outputs, output_count, "outputs");
  to_run.run(program, host_tensors(inputs, input_count), nullptr,
             [&](const ProgramValues& values) { return bind_outputs(values, wanted); });
}

void run_tensors(halfstep_step* step, halfstep_program program, const halfstep_tensor* inputs, size_t input_count,
                 const halfstep_tensor* outputs, size_t output_count, void* stream) {
  LoadedStep& to_run = loaded(step);
  const std::span<const halfstep_tensor> wanted = given_span(outputs, output_count, "outputs");
  to_run.run(program, given_span(inputs, input_count, "inputs"), stream,
             [&](const ProgramValues& values) { return bind_outputs(values, wanted, to_run.place()); });
}

template <typename T>
const T& element(const std::vector<T>& list, size_t index, const char* what) {
  if (index >= list.size())
    throw ArgumentError(std::string(what) + " " + std::to_string(index) + ": there are " + std::to_string(list.size()));
  return list[index];
}

halfstep_code status_code(const halfstep_status* status) { return status == nullptr ? HALFSTEP_OK : status->code; }
const char* status_message(const halfstep_status* status) { return status == nullptr ? "" : status->message.c_str(); }
const char* status_node(const halfstep_status* status) { return status == nullptr ? "" : status->node.c_str(); }
void release_status(halfstep_status* status) {
  if (status_code(status) != HALFSTEP_OUT_OF_MEMORY) delete status;  // that one is static
}

size_t strings_count(const halfstep_strings* strings) { return strings == nullptr ? 0 : strings->texts.size(); }
const char* strings_at(const halfstep_strings* strings, size_t index) {
  return index < strings_count(strings) ? strings->texts[index].c_str() : nullptr;
}
void release_strings(halfstep_strings* strings) { delete strings; }

halfstep_status* load_step(const char* directory, const halfstep_option* options, size_t option_count,
                           halfstep_step** step) {
  return guarded([&] {
    halfstep_step*& result = given(step, "step");
    result = new halfstep_step{LoadedStep(given_text(directory, "directory"), given_options(options, option_count))};
  });
}
void release_step(halfstep_step* step) { delete step; }

halfstep_status* value_count(const halfstep_step* step, halfstep_program program, halfstep_direction direction,
                             size_t* count) {
  return guarded([&] { given(count, "count") = loaded(step).values(program, direction).size(); });
}
halfstep_status* value_at(const halfstep_step* step, halfstep_program program, halfstep_direction direction,
                          size_t index, halfstep_value* value) {
  return guarded([&] {
    const ProgramValue& found = element(loaded(step).values(program, direction), index, "value");
    given(value, "value") = {found.name.c_str(), code_of(found.type.dtype), found.type.shape.size(),
                             found.type.shape.data()};
  });
}

halfstep_status* train_step(halfstep_step* step, const halfstep_input* inputs, size_t input_count) {
  return guarded([&] { loaded(step).train(host_tensors(inputs, input_count), nullptr); });
}
halfstep_status* loss(halfstep_step* step, double* loss) {
  return guarded([&] { given(loss, "loss") = loaded(step).loss(); });
}
halfstep_status* loss_scale(halfstep_step* step, double* scale) {
  return guarded([&] { given(scale, "scale") = loaded(step).loss_scale(); });
}
halfstep_status* skipped(halfstep_step* step, int32_t* skipped) {
  return guarded([&] { given(skipped, "skipped") = loaded(step).skipped() ? 1 : 0; });
}
halfstep_status* step_count(const halfstep_step* step, int64_t* count) {
  return guarded([&] { given(count, "count") = loaded(step).steps(); });
}

halfstep_status* set_learning_rate(halfstep_step* step, double rate) {
  return guarded([&] { loaded(step).set_learning_rate(rate); });
}
halfstep_status* learning_rate(const halfstep_step* step, double* rate) {
  return guarded([&] { given(rate, "rate") = loaded(step).learning_rate(); });
}

halfstep_status* evaluate_step(halfstep_step* step, const halfstep_input* inputs, size_t input_count,
                               const halfstep_output* outputs, size_t output_count) {
  return guarded([&] { run_on_host(step, HALFSTEP_EVALUATE, inputs, input_count, outputs, output_count); });
}
halfstep_status* predict(halfstep_step* step, const halfstep_input* inputs, size_t input_count,
                         const halfstep_output* outputs, size_t output_count) {
  return guarded([&] { run_on_host(step, HALFSTEP_PREDICT, inputs, input_count, outputs, output_count); });
}

halfstep_status* parameter_count(const halfstep_step* step, size_t* tensors, size_t* elements) {
  return guarded([&] {
    const LoadedStep& of = loaded(step);
    size_t& parts = given(tensors, "tensors");
    given(elements, "elements") = of.parameter_elements();
    parts = of.parameters().size();
  });
}
halfstep_status* parameter_at(const halfstep_step* step, size_t index, halfstep_parameter* parameter) {
  return guarded([&] { given(parameter, "parameter") = element(loaded(step).parameters(), index, "parameter"); });
}
halfstep_status* read_parameters(halfstep_step* step, float* values, size_t count) {
  return guarded([&] {
    if (count > 0) given(values, "values");
    loaded(step).read_parameters({values, count});
  });
}
halfstep_status* write_parameters(halfstep_step* step, const float* values, size_t count) {
  return guarded([&] { loaded(step).write_parameters(given_span(values, count, "values")); });
}

halfstep_status* save_checkpoint(halfstep_step* step, const char* directory, int32_t keep) {
  return guarded([&] { loaded(step).save(given_text(directory, "directory"), keep); });
}
halfstep_status* load_checkpoint(halfstep_step* step, const char* path) {
  return guarded([&] { loaded(step).load(given_text(path, "path")); });
}

const char* status_hint(const halfstep_status* status) { return status == nullptr ? "" : status->hint.c_str(); }

halfstep_status* step_device(const halfstep_step* step, halfstep_device* device, int32_t* device_index) {
  return guarded([&] {
    const DevicePlace place = loaded(step).place();
    int32_t& index = given(device_index, "device_index");
    given(device, "device") = place.executor.model().device == DeviceKind::cuda ? HALFSTEP_CUDA : HALFSTEP_CPU;
    index = place.index;
  });
}

halfstep_status* tensor_of_dlpack(const void* dltensor, halfstep_tensor* tensor) {
  return guarded([&] { read_dlpack(dltensor, given(tensor, "tensor")); });
}

halfstep_status* train_tensors(halfstep_step* step, const halfstep_tensor* inputs, size_t input_count, void* stream) {
  return guarded([&] { loaded(step).train(given_span(inputs, input_count, "inputs"), stream); });
}
halfstep_status* evaluate_tensors(halfstep_step* step, const halfstep_tensor* inputs, size_t input_count,
                                  const halfstep_tensor* outputs, size_t output_count, void* stream) {
  return guarded([&] { run_tensors(step, HALFSTEP_EVALUATE, inputs, input_count, outputs, output_count, stream); });
}
halfstep_status* predict_tensors(halfstep_step* step, const halfstep_tensor* inputs, size_t input_count,
                                 const halfstep_tensor* outputs, size_t output_count, void* stream) {
  return guarded([&] { run_tensors(step, HALFSTEP_PREDICT, inputs, input_count, outputs, output_count, stream); });
}

halfstep_status* next_finished(halfstep_step* step, int64_t* number, double* loss, double* scale, int32_t* skipped) {
  return guarded([&] {
    LoadedStep& of = loaded(step);
    int64_t& told = given(number, "number");
    double &of_loss = given(loss, "loss"), &of_scale = given(scale, "scale");
    int32_t& was_skipped = given(skipped, "skipped");
    const std::optional<LoadedStep::Finished> finished = of.next_finished();
    told = finished ? finished->number : 0;
    if (!finished) return;
    of_loss = finished->loss, of_scale = finished->loss_scale, was_skipped = finished->skipped ? 1 : 0;
  });
}

halfstep_status* set_epochs(halfstep_step* step, int64_t epochs, int64_t samples) {
  return guarded([&] { loaded(step).set_epochs(epochs, samples); });
}

halfstep_status* epoch_count(const halfstep_step* step, int64_t* count) {
  return guarded([&] { given(count, "count") = loaded(step).epochs(); });
}

halfstep_grad_scaler told(const GradScalerState& s) {
  return {.scale = s.scale,
          .growth_factor = s.growth_factor,
          .backoff_factor = s.backoff_factor,
          .growth_interval = s.growth_interval,
          .growth_tracker = s.growth_tracker};
}
GradScalerState asked(const halfstep_grad_scaler& s) {
  return {.scale = s.scale,
          .growth_factor = s.growth_factor,
          .backoff_factor = s.backoff_factor,
          .growth_interval = s.growth_interval,
          .growth_tracker = s.growth_tracker};
}

halfstep_status* read_grad_scaler(halfstep_step* step, halfstep_grad_scaler* state) {
  return guarded([&] {
    const GradScalerState read = loaded(step).grad_scaler();
    given(state, "state") = told(read);
  });
}
halfstep_status* write_grad_scaler(halfstep_step* step, const halfstep_grad_scaler* state) {
  return guarded([&] { loaded(step).set_grad_scalers({{"", asked(given(state, "state"))}}); });
}

halfstep_status* grad_scaler_count(const halfstep_step* step, size_t* count) {
  return guarded([&] { given(count, "count") = loaded(step).grad_scaler_losses().size(); });
}
halfstep_status* read_grad_scalers(halfstep_step* step, halfstep_loss_grad_scaler* states, size_t count) {
  return guarded([&] {
    LoadedStep& of = loaded(step);
    const std::vector<const char*> losses = of.grad_scaler_losses();
    if (count != losses.size())
      throw ArgumentError("count " + std::to_string(count) + ": the step has " + std::to_string(losses.size()) +
                          " loss scales");
    if (count == 0) return;
    halfstep_loss_grad_scaler* const to = &given(states, "states");
    const GradScalers read = of.grad_scalers();
    for (size_t i = 0; i < count; ++i) to[i] = {losses[i], told(read.at(losses[i]))};
  });
}
halfstep_status* write_grad_scalers(halfstep_step* step, const halfstep_loss_grad_scaler* states, size_t count) {
  return guarded([&] {
    LoadedStep& of = loaded(step);
    GradScalers wanted;
    for (const halfstep_loss_grad_scaler& one : given_span(states, count, "states"))
      if (const std::string loss = given_text(one.loss, "loss"); !wanted.emplace(loss, asked(one.state)).second)
        throw ArgumentError("loss '" + loss + "' is given twice");
    of.set_grad_scalers(wanted);
  });
}

halfstep_status* loss_count(const halfstep_step* step, size_t* count) {
  return guarded([&] { given(count, "count") = loaded(step).losses().size(); });
}
halfstep_status* loss_at(const halfstep_step* step, size_t index, halfstep_loss* loss) {
  return guarded([&] {
    const LossNote& found = element(loaded(step).losses(), index, "loss");
    given(loss, "loss") = {found.name.c_str(), found.labels.c_str(), found.weight};
  });
}
halfstep_status* read_losses(halfstep_step* step, double* values, size_t count) {
  return guarded([&] {
    LoadedStep& of = loaded(step);
    if (count != of.losses().size())
      throw ArgumentError("count " + std::to_string(count) + ": the step has " + std::to_string(of.losses().size()) +
                          " losses");
    if (count == 0) return;
    double& first = given(values, "values");
    const std::vector<double> read = of.read_losses();
    std::ranges::copy(read, &first);
  });
}

halfstep_status* begin_measures(halfstep_step* step, const char* names) {
  return guarded([&] { loaded(step).begin_measures(names == nullptr ? "" : names); });
}
halfstep_status* measure_tensors(halfstep_step* step, const halfstep_tensor* inputs, size_t input_count, void* stream,
                                 size_t rows) {
  return guarded([&] { loaded(step).measure(given_span(inputs, input_count, "inputs"), stream, rows); });
}
halfstep_status* measure_count(halfstep_step* step, size_t* count) {
  return guarded([&] { given(count, "count") = loaded(step).measured().size(); });
}
halfstep_status* measure_at(halfstep_step* step, size_t index, const char** name, double* value) {
  return guarded([&] {
    const MeasureValue& found = element(loaded(step).measured(), index, "measure");
    given(name, "name") = found.name.c_str(), given(value, "value") = found.value;
  });
}

constexpr halfstep_api kApi{.version = version,
                            .status_code = status_code,
                            .status_message = status_message,
                            .status_node = status_node,
                            .release_status = release_status,
                            .strings_count = strings_count,
                            .strings_at = strings_at,
                            .release_strings = release_strings,
                            .load_step = load_step,
                            .release_step = release_step,
                            .value_count = value_count,
                            .value_at = value_at,
                            .train_step = train_step,
                            .loss = loss,
                            .loss_scale = loss_scale,
                            .skipped = skipped,
                            .step_count = step_count,
                            .set_learning_rate = set_learning_rate,
                            .learning_rate = learning_rate,
                            .evaluate_step = evaluate_step,
                            .predict = predict,
                            .parameter_count = parameter_count,
                            .parameter_at = parameter_at,
                            .read_parameters = read_parameters,
                            .write_parameters = write_parameters,
                            .save_checkpoint = save_checkpoint,
                            .load_checkpoint = load_checkpoint,
                            .status_hint = status_hint,
                            .step_device = step_device,
                            .tensor_of_dlpack = tensor_of_dlpack,
                            .train_tensors = train_tensors,
                            .evaluate_tensors = evaluate_tensors,
                            .predict_tensors = predict_tensors,
                            .next_finished = next_finished,
                            .set_epochs = set_epochs,
                            .read_grad_scaler = read_grad_scaler,
                            .write_grad_scaler = write_grad_scaler,
                            .loss_count = loss_count,
                            .loss_at = loss_at,
                            .read_losses = read_losses,
                            .begin_measures = begin_measures,
                            .measure_tensors = measure_tensors,
                            .measure_count = measure_count,
                            .measure_at = measure_at,
                            .epoch_count = epoch_count,
                            .grad_scaler_count = grad_scaler_count,
                            .read_grad_scalers = read_grad_scalers,
                            .write_grad_scalers = write_grad_scalers};

}  // namespace
}  // namespace halfstep

const halfstep_api* halfstep_get_api(uint32_t version) {
  return version >= 1 && version <= HALFSTEP_API_VERSION ? &halfstep::kApi : nullptr;
}
