// Halfstep's C++ API: halfstep.h as values that release what they hold, spans and exceptions. Header-only, C++20. What
// a function does, its units, errors and threads stand in halfstep.h beside the function of the same name.
//
// The functions of the compiler (check_model, inspect_model, compile_model, export_onnx) need libhalfstep-compiler; a
// program that calls none of them links libhalfstep-runtime alone.
#pragma once

#include <halfstep/halfstep.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace halfstep {
// The names in programs are halfstep::Step and so on; symbols are apart from those inside the libraries.
inline namespace v1 {

inline const halfstep_api& runtime() {
  static const halfstep_api* const table = halfstep_get_api(HALFSTEP_API_VERSION);
  if (table == nullptr) throw std::runtime_error(HALFSTEP_API_MISSING);
  return *table;
}

inline const halfstep_compiler_api& compiler() {
  static const halfstep_compiler_api* const table = halfstep_get_compiler_api(HALFSTEP_API_VERSION);
  if (table == nullptr) throw std::runtime_error(HALFSTEP_API_MISSING);
  return *table;
}

enum class Code : halfstep_code {
  invalid_argument = HALFSTEP_INVALID_ARGUMENT,
  error = HALFSTEP_ERROR,
  out_of_memory = HALFSTEP_OUT_OF_MEMORY,
  internal_error = HALFSTEP_INTERNAL_ERROR
};

// A status as an exception.
class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message, std::string node, std::string hint = {})
      : std::runtime_error(message), code_(code), node_(std::move(node)), hint_(std::move(hint)) {}
  Code code() const { return code_; }
  const std::string& node() const { return node_; }  // the ONNX node at fault; empty: none is
  const std::string& hint() const { return hint_; }  // what to do, as the message says; empty: it does not

 private:
  Code code_;
  std::string node_, hint_;
};

// Throws what a function of the tables returned, and releases it.
inline void check(halfstep_status* status) {
  if (status == nullptr) return;
  const std::unique_ptr<halfstep_status, void (*)(halfstep_status*)> owned(status, runtime().release_status);
  throw Error(static_cast<Code>(runtime().status_code(status)), runtime().status_message(status),
              runtime().status_node(status), runtime().status_hint(status));
}

enum class DType : halfstep_dtype {
  none = HALFSTEP_NO_DTYPE,
  f16 = HALFSTEP_F16,
  bf16 = HALFSTEP_BF16,
  f32 = HALFSTEP_F32,
  f64 = HALFSTEP_F64,
  u8 = HALFSTEP_U8,
  i8 = HALFSTEP_I8,
  i32 = HALFSTEP_I32,
  i64 = HALFSTEP_I64,
  boolean = HALFSTEP_BOOL
};

template <typename T>
inline constexpr DType dtype_of = DType::none;
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<uint8_t> = DType::u8;
template <>
inline constexpr DType dtype_of<int8_t> = DType::i8;
template <>
inline constexpr DType dtype_of<int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<int64_t> = DType::i64;
template <>
inline constexpr DType dtype_of<bool> = DType::boolean;

using Shape = std::vector<int64_t>;
using Options = std::vector<std::pair<std::string, std::string>>;

// A tensor of the caller's that a step reads during a call. For f16 and bf16 name the type and give the bits.
struct Input {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::span<const std::byte> data;

  template <typename T>
  Input(std::string of, Shape with, std::span<const T> values)
      : Input(std::move(of), dtype_of<T>, std::move(with), std::as_bytes(values)) {
    static_assert(dtype_of<T> != DType::none, "name the type of these elements");
  }
  template <typename T>
  Input(std::string of, Shape with, const std::vector<T>& values)
      : Input(std::move(of), std::move(with), std::span<const T>(values)) {}
  Input(std::string of, DType type, Shape with, std::span<const std::byte> bytes)
      : name(std::move(of)), dtype(type), shape(std::move(with)), data(bytes) {}
};

// A tensor of the caller's that a step writes during a call.
struct Output {
  std::string name;
  DType dtype = DType::f32;
  std::span<std::byte> data;

  template <typename T>
  Output(std::string of, std::span<T> values) : Output(std::move(of), dtype_of<T>, std::as_writable_bytes(values)) {
    static_assert(dtype_of<T> != DType::none, "name the type of these elements");
  }
  template <typename T>
  Output(std::string of, std::vector<T>& values) : Output(std::move(of), std::span<T>(values)) {}
  Output(std::string of, DType type, std::span<std::byte> bytes) : name(std::move(of)), dtype(type), data(bytes) {}
};

// Where a step runs or a tensor lies.
struct Device {
  halfstep_device type = HALFSTEP_CPU;
  int32_t index = 0;
};

// A tensor of the caller's, in host memory or in that of the step's GPU: by its pointer, or from DLPack.
struct Tensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  Shape strides;  // in elements; empty: dense
  void* data = nullptr;
  Device device;

  // `dltensor`: a DLTensor*, &managed->dl_tensor. Its data stays the caller's.
  static Tensor from_dlpack(std::string name, const void* dltensor) {
    halfstep_tensor t{};
    check(runtime().tensor_of_dlpack(dltensor, &t));
    return {std::move(name),
            static_cast<DType>(t.dtype),
            Shape(t.shape, t.shape + t.rank),
            t.strides == nullptr ? Shape() : Shape(t.strides, t.strides + t.rank),
            t.data,
            {t.device, t.device_index}};
  }
};

// An optimizer step that the device has finished.
struct FinishedStep {
  int64_t number = 0;
  double loss = 0, loss_scale = 1;
  bool skipped = false;
};

struct Value {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

struct Parameter {
  std::string name;
  Shape shape;
  size_t offset = 0, elements = 0;  // floats
  bool trainable = true;
};

struct PrecisionRow {
  std::string node, op;
  DType operand = DType::none, accumulator = DType::none, result = DType::none;
  std::string reason;
};

enum class Program : halfstep_program {
  train = HALFSTEP_TRAIN,
  evaluate = HALFSTEP_EVALUATE,
  predict = HALFSTEP_PREDICT
};

namespace detail {

inline std::vector<halfstep_option> options(const Options& pairs) {
  std::vector<halfstep_option> list;
  for (const auto& [key, value] : pairs) list.push_back({key.c_str(), value.c_str()});
  return list;
}

// The C API takes data of the shape's size on trust; here the size is known.
inline void check_size(const Input& input) {
  constexpr size_t kSizes[] = {0, 2, 2, 4, 8, 1, 1, 4, 8, 1};
  const auto code = static_cast<size_t>(input.dtype);
  size_t bytes = code < std::size(kSizes) ? kSizes[code] : 0;
  for (const int64_t axis : input.shape) bytes *= axis > 0 ? static_cast<size_t>(axis) : 0;
  if (bytes != input.data.size())
    throw Error(Code::invalid_argument,
                "input '" + input.name + "': its shape has " + std::to_string(bytes) + " bytes, its data " +
                    std::to_string(input.data.size()),
                "");
}

inline std::vector<halfstep_input> inputs(std::span<const Input> list) {
  std::vector<halfstep_input> result;
  for (const Input& i : list) {
    check_size(i);
    result.push_back(
        {i.name.c_str(), static_cast<halfstep_dtype>(i.dtype), i.shape.size(), i.shape.data(), i.data.data()});
  }
  return result;
}

inline std::vector<halfstep_output> outputs(std::span<const Output> list) {
  std::vector<halfstep_output> result;
  for (const Output& o : list)
    result.push_back({o.name.c_str(), static_cast<halfstep_dtype>(o.dtype), o.data.data(), o.data.size()});
  return result;
}

inline std::vector<halfstep_tensor> tensors(std::span<const Tensor> list) {
  std::vector<halfstep_tensor> result;
  for (const Tensor& t : list) {
    if (!t.strides.empty() && t.strides.size() != t.shape.size())
      throw Error(Code::invalid_argument,
                  "tensor '" + t.name + "': " + std::to_string(t.strides.size()) + " strides for " +
                      std::to_string(t.shape.size()) + " axes",
                  "");
    result.push_back({t.name.c_str(), static_cast<halfstep_dtype>(t.dtype), t.shape.size(), t.shape.data(),
                      t.strides.empty() ? nullptr : t.strides.data(), t.data, t.device.type, t.device.index});
  }
  return result;
}

// Takes a list of texts over.
inline std::vector<std::string> texts(halfstep_strings* list) {
  const std::unique_ptr<halfstep_strings, void (*)(halfstep_strings*)> owned(list, runtime().release_strings);
  std::vector<std::string> result;
  for (size_t i = 0; i < runtime().strings_count(list); ++i) result.emplace_back(runtime().strings_at(list, i));
  return result;
}

}  // namespace detail

inline std::string version() { return runtime().version(); }

// A compiled step on its device, with its weights. Moves; one thread at a time.
class Step {
 public:
  explicit Step(const std::string& directory, const Options& options = {}) : step_(nullptr, runtime().release_step) {
    const std::vector<halfstep_option> list = detail::options(options);
    halfstep_step* step = nullptr;
    check(runtime().load_step(directory.c_str(), list.data(), list.size(), &step));
    step_.reset(step);
  }

  std::vector<Value> inputs(Program program) const { return values(program, HALFSTEP_INPUT); }
  std::vector<Value> outputs(Program program) const { return values(program, HALFSTEP_OUTPUT); }

  void train(std::span<const Input> batch) {
    const std::vector<halfstep_input> list = detail::inputs(batch);
    check(runtime().train_step(handle(), list.data(), list.size()));
  }
  void train(std::initializer_list<Input> batch) { train(std::span(batch.begin(), batch.size())); }
  // Tensors on any device that the step can read; `stream` as in halfstep.h.
  void train_tensors(std::span<const Tensor> batch, void* stream = nullptr) {
    const std::vector<halfstep_tensor> list = detail::tensors(batch);
    check(runtime().train_tensors(handle(), list.data(), list.size(), stream));
  }
  // Of the oldest finished step not told yet; does not wait.
  std::optional<FinishedStep> next_finished() {
    FinishedStep step;
    int32_t skipped = 0;
    check(runtime().next_finished(handle(), &step.number, &step.loss, &step.loss_scale, &skipped));
    step.skipped = skipped != 0;
    return step.number == 0 ? std::nullopt : std::optional(step);
  }
  double loss() { return number(runtime().loss); }
  double loss_scale() { return number(runtime().loss_scale); }
  // Of a step that was compiled with several; 0 of another.
  size_t loss_count() const {
    size_t count = 0;
    check(runtime().loss_count(handle(), &count));
    return count;
  }
  // By name, of the last step; empty where there is one loss.
  std::vector<std::pair<std::string, double>> losses() {
    const size_t count = loss_count();
    std::vector<double> values(count);
    if (count > 0) check(runtime().read_losses(handle(), values.data(), count));
    std::vector<std::pair<std::string, double>> named;
    for (size_t i = 0; i < count; ++i) named.emplace_back(loss_at(i).name, values[i]);
    return named;
  }
  // With texts of the step's.
  halfstep_loss loss_at(size_t index) const {
    halfstep_loss loss{};
    check(runtime().loss_at(handle(), index, &loss));
    return loss;
  }
  halfstep_grad_scaler grad_scaler() {
    halfstep_grad_scaler state{};
    check(runtime().read_grad_scaler(handle(), &state));
    return state;
  }
  void set_grad_scaler(const halfstep_grad_scaler& state) { check(runtime().write_grad_scaler(handle(), &state)); }
  // Of each loss that has its own, by name, or one with the name "", of all; empty where none is dynamic.
  std::vector<std::pair<std::string, halfstep_grad_scaler>> grad_scalers() {
    size_t count = 0;
    check(runtime().grad_scaler_count(handle(), &count));
    std::vector<halfstep_loss_grad_scaler> states(count);
    if (count > 0) check(runtime().read_grad_scalers(handle(), states.data(), count));
    std::vector<std::pair<std::string, halfstep_grad_scaler>> named;
    for (const halfstep_loss_grad_scaler& one : states) named.emplace_back(one.loss, one.state);
    return named;
  }
  void set_grad_scalers(std::span<const std::pair<std::string, halfstep_grad_scaler>> named) {
    std::vector<halfstep_loss_grad_scaler> states;
    for (const auto& [loss, state] : named) states.push_back({loss.c_str(), state});
    check(runtime().write_grad_scalers(handle(), states.data(), states.size()));
  }
  bool skipped() {
    int32_t skipped = 0;
    check(runtime().skipped(handle(), &skipped));
    return skipped != 0;
  }
  int64_t step_count() const {
    int64_t count = 0;
    check(runtime().step_count(handle(), &count));
    return count;
  }

  void set_learning_rate(double rate) { check(runtime().set_learning_rate(handle(), rate)); }
  double learning_rate() const {
    double rate = 0;
    check(runtime().learning_rate(handle(), &rate));
    return rate;
  }

  void evaluate(std::span<const Input> batch, std::span<const Output> results) {
    run(runtime().evaluate_step, batch, results);
  }
  void evaluate(std::initializer_list<Input> batch, std::initializer_list<Output> results) {
    evaluate(std::span(batch.begin(), batch.size()), std::span(results.begin(), results.size()));
  }
  void predict(std::span<const Input> batch, std::span<const Output> results) {
    run(runtime().predict, batch, results);
  }
  void predict(std::initializer_list<Input> batch, std::initializer_list<Output> results) {
    predict(std::span(batch.begin(), batch.size()), std::span(results.begin(), results.size()));
  }

  void evaluate_tensors(std::span<const Tensor> batch, std::span<const Tensor> results, void* stream = nullptr) {
    run(runtime().evaluate_tensors, batch, results, stream);
  }
  void predict_tensors(std::span<const Tensor> batch, std::span<const Tensor> results, void* stream = nullptr) {
    run(runtime().predict_tensors, batch, results, stream);
  }
  // Measures over batches: see begin_measures in halfstep.h.
  void begin_measures(const std::string& names = "") { check(runtime().begin_measures(handle(), names.c_str())); }
  void measure_tensors(std::span<const Tensor> batch, size_t rows = 0, void* stream = nullptr) {
    const std::vector<halfstep_tensor> list = detail::tensors(batch);
    check(runtime().measure_tensors(handle(), list.data(), list.size(), stream, rows));
  }
  std::vector<std::pair<std::string, double>> measures() {
    size_t count = 0;
    check(runtime().measure_count(handle(), &count));
    std::vector<std::pair<std::string, double>> named;
    for (size_t i = 0; i < count; ++i) {
      const char* name = nullptr;
      double value = 0;
      check(runtime().measure_at(handle(), i, &name, &value));
      named.emplace_back(name, value);
    }
    return named;
  }
  Device device() const {
    Device device;
    check(runtime().step_device(handle(), &device.type, &device.index));
    return device;
  }

  size_t parameter_elements() const {
    size_t tensors = 0, elements = 0;
    check(runtime().parameter_count(handle(), &tensors, &elements));
    return elements;
  }
  std::vector<Parameter> parameters() const {
    size_t tensors = 0, elements = 0;
    check(runtime().parameter_count(handle(), &tensors, &elements));
    std::vector<Parameter> list;
    for (size_t i = 0; i < tensors; ++i) {
      halfstep_parameter p{};
      check(runtime().parameter_at(handle(), i, &p));
      list.push_back({p.name, Shape(p.shape, p.shape + p.rank), p.offset, p.elements, p.trainable != 0});
    }
    return list;
  }
  void read_parameters(std::span<float> values) {
    check(runtime().read_parameters(handle(), values.data(), values.size()));
  }
  std::vector<float> read_parameters() {
    std::vector<float> values(parameter_elements());
    read_parameters(values);
    return values;
  }
  void write_parameters(std::span<const float> values) {
    check(runtime().write_parameters(handle(), values.data(), values.size()));
  }

  int64_t epoch_count() const {
    int64_t count = 0;
    check(runtime().epoch_count(handle(), &count));
    return count;
  }
  void set_epochs(int64_t epochs, int64_t samples) { check(runtime().set_epochs(handle(), epochs, samples)); }
  void save_checkpoint(const std::string& directory, int32_t keep = 3) {
    check(runtime().save_checkpoint(handle(), directory.c_str(), keep));
  }
  void load_checkpoint(const std::string& path) { check(runtime().load_checkpoint(handle(), path.c_str())); }

  halfstep_step* handle() const { return step_.get(); }

 private:
  std::vector<Value> values(Program program, halfstep_direction direction) const {
    const auto code = static_cast<halfstep_program>(program);
    size_t count = 0;
    check(runtime().value_count(handle(), code, direction, &count));
    std::vector<Value> list;
    for (size_t i = 0; i < count; ++i) {
      halfstep_value v{};
      check(runtime().value_at(handle(), code, direction, i, &v));
      list.push_back({v.name, static_cast<DType>(v.dtype), Shape(v.shape, v.shape + v.rank)});
    }
    return list;
  }
  double number(halfstep_status* (*read)(halfstep_step*, double*)) {
    double value = 0;
    check(read(handle(), &value));
    return value;
  }
  template <typename Run>
  void run(Run* function, std::span<const Input> batch, std::span<const Output> results) {
    const std::vector<halfstep_input> in = detail::inputs(batch);
    const std::vector<halfstep_output> out = detail::outputs(results);
    check(function(handle(), in.data(), in.size(), out.data(), out.size()));
  }

  template <typename Run>
  void run(Run* function, std::span<const Tensor> batch, std::span<const Tensor> results, void* stream) {
    const std::vector<halfstep_tensor> in = detail::tensors(batch), out = detail::tensors(results);
    check(function(handle(), in.data(), in.size(), out.data(), out.size(), stream));
  }

  std::unique_ptr<halfstep_step, void (*)(halfstep_step*)> step_;
};

// ---- the compiler ----

inline std::vector<std::string> check_model(const std::string& model, const Options& options = {}) {
  const std::vector<halfstep_option> list = detail::options(options);
  halfstep_strings* problems = nullptr;
  check(compiler().check_model(model.c_str(), list.data(), list.size(), &problems));
  return detail::texts(problems);
}

inline std::vector<PrecisionRow> inspect_model(const std::string& model, const Options& options = {}) {
  const std::vector<halfstep_option> list = detail::options(options);
  halfstep_precision* table = nullptr;
  check(compiler().inspect_model(model.c_str(), list.data(), list.size(), &table));
  const std::unique_ptr<halfstep_precision, void (*)(halfstep_precision*)> owned(table, compiler().release_precision);
  std::vector<PrecisionRow> rows;
  for (size_t i = 0; i < compiler().precision_count(table); ++i) {
    halfstep_precision_row r{};
    check(compiler().precision_at(table, i, &r));
    rows.push_back({r.node, r.op, static_cast<DType>(r.operand), static_cast<DType>(r.accumulator),
                    static_cast<DType>(r.result), r.reason});
  }
  return rows;
}

// Returns the remarks.
inline std::vector<std::string> compile_model(const std::string& model, const Options& options,
                                              const std::string& directory) {
  const std::vector<halfstep_option> list = detail::options(options);
  halfstep_strings* remarks = nullptr;
  check(compiler().compile_model(model.c_str(), list.data(), list.size(), directory.c_str(), &remarks));
  return detail::texts(remarks);
}

inline void export_onnx(Step& step, const std::string& path) {
  check(compiler().export_onnx(step.handle(), nullptr, path.c_str()));
}
inline void export_onnx(Step& step, const std::string& model, const std::string& path) {
  check(compiler().export_onnx(step.handle(), model.c_str(), path.c_str()));
}

}  // namespace v1
}  // namespace halfstep
