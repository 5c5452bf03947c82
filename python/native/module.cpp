// The module halfstep._native: halfstep.hpp for Python. The GIL is released while the library works.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <optional>
#include <string>
#include <tuple>

#include "arrays.h"

namespace nb = nanobind;

namespace halfstep::python {
namespace {

using NamedValue = std::tuple<std::string, std::string, nb::tuple>;  // name, type, shape

nb::tuple tuple_of(const Shape& shape) {
  nb::list list;
  for (const int64_t axis : shape) list.append(axis);
  return nb::tuple(list);
}

class NativeStep {
 public:
  NativeStep(const std::string& directory, const Options& options) {
    const nb::gil_scoped_release released;
    step_.emplace(directory, options);
  }

  void close() {
    const nb::gil_scoped_release released;
    const Use use(*this);
    step_.reset();
  }
  bool closed() const { return !step_.has_value(); }

  // Runs `body` on the step without the GIL. Another thread that comes meanwhile is refused; one that comes while this
  // one waits for the GIL again is not.
  template <typename Body>
  auto with(const Body& body) {
    const nb::gil_scoped_release released;
    const Use use(*this);
    if (!step_) throw Error(Code::invalid_argument, "the step is closed: load it again", "", "load it again");
    return body(*step_);
  }

  void train(const nb::dict& batch, uintptr_t stream) {
    const Arrays inputs(batch, Access::read, stream);
    with([&](Step& step) {
      check(runtime().train_tensors(step.handle(), inputs.tensors().data(), inputs.tensors().size(),
                                    handle(inputs.stream())));
    });
  }
  void run(bool predicts, const nb::dict& batch, const nb::dict& results, uintptr_t stream) {
    const Arrays inputs(batch, Access::read, stream);
    const Arrays outputs(results, Access::write, inputs.stream());
    with([&](Step& step) {
      const auto function = predicts ? runtime().predict_tensors : runtime().evaluate_tensors;
      check(function(step.handle(), inputs.tensors().data(), inputs.tensors().size(), outputs.tensors().data(),
                     outputs.tensors().size(), handle(outputs.stream())));
    });
  }

  void measure(const nb::dict& batch, size_t rows, uintptr_t stream) {
    const Arrays inputs(batch, Access::read, stream);
    with([&](Step& step) {
      check(runtime().measure_tensors(step.handle(), inputs.tensors().data(), inputs.tensors().size(),
                                      handle(inputs.stream()), rows));
    });
  }

  nb::list values(const std::string& program, bool outputs) {
    const Program of = program == "train"      ? Program::train
                       : program == "evaluate" ? Program::evaluate
                                               : Program::predict;
    const std::vector<Value> found = with([&](Step& step) { return outputs ? step.outputs(of) : step.inputs(of); });
    nb::list list;
    for (const Value& v : found) list.append(NamedValue(v.name, dtype_name(v.dtype), tuple_of(v.shape)));
    return list;
  }
  nb::list parameters() {
    const std::vector<Parameter> found = with([](Step& step) { return step.parameters(); });
    nb::list list;
    for (const Parameter& p : found)
      list.append(std::make_tuple(p.name, tuple_of(p.shape), p.offset, p.elements, p.trainable));
    return list;
  }
  void copy_parameters(nb::handle array, Access access) {
    Py_buffer buffer{};
    if (PyObject_GetBuffer(array.ptr(), &buffer, access == Access::read ? PyBUF_RECORDS_RO : PyBUF_RECORDS) != 0)
      throw nb::python_error();
    try {
      const std::span<float> values = flat_floats(buffer);
      with([&](Step& step) { access == Access::read ? step.write_parameters(values) : step.read_parameters(values); });
    } catch (...) {
      PyBuffer_Release(&buffer);
      throw;
    }
    PyBuffer_Release(&buffer);
  }

 private:
  class Use {
   public:
    explicit Use(NativeStep& step) : step_(step) {
      if (step_.busy_.exchange(true))
        throw Error(Code::invalid_argument,
                    "another thread is using the step: use it from one thread at a time, or load it once for each", "",
                    "use it from one thread at a time, or load it once for each");
    }
    ~Use() { step_.busy_ = false; }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    NativeStep& step_;
  };
  static void* handle(uintptr_t stream) { return reinterpret_cast<void*>(stream); }

  std::optional<Step> step_;
  std::atomic<bool> busy_ = false;
};

nb::list inspected(const std::string& model, const Options& options) {
  std::vector<PrecisionRow> rows;
  {
    const nb::gil_scoped_release released;
    rows = inspect_model(model, options);
  }
  nb::list list;
  for (const PrecisionRow& row : rows) {
    nb::dict item;
    item["node"] = row.node, item["op"] = row.op, item["operand"] = dtype_name(row.operand);
    item["accumulator"] = dtype_name(row.accumulator), item["result"] = dtype_name(row.result);
    item["reason"] = row.reason;
    list.append(item);
  }
  return list;
}

void raise(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& e) {
    constexpr const char* kCodes[] = {"", "invalid_argument", "error", "out_of_memory", "internal_error"};
    const nb::object error_class = nb::module_::import_("halfstep._errors").attr("Error");
    const nb::object error = error_class(e.what(), kCodes[static_cast<size_t>(e.code())], e.node(), e.hint());
    PyErr_SetObject(error_class.ptr(), error.ptr());
  }
}

}  // namespace

NB_MODULE(_native, m) {
  nb::register_exception_translator(raise);
  const auto released = nb::call_guard<nb::gil_scoped_release>();
  m.def("version", [] { return version(); });
  m.def(
      "check_model", [](const std::string& model, const Options& options) { return check_model(model, options); },
      released);
  m.def("inspect_model", inspected);
  m.def(
      "compile_model",
      [](const std::string& model, const Options& options, const std::string& directory) {
        return compile_model(model, options, directory);
      },
      released);

  nb::class_<NativeStep>(m, "Step")
      .def(nb::init<const std::string&, const Options&>())
      .def("close", &NativeStep::close)
      .def_prop_ro("closed", &NativeStep::closed)
      .def("train", &NativeStep::train)
      .def("run", &NativeStep::run)
      .def("begin_measures",
           [](NativeStep& s, const std::string& names) { s.with([&](Step& step) { step.begin_measures(names); }); })
      .def("measure", &NativeStep::measure)
      .def("measures", [](NativeStep& s) { return s.with([](Step& step) { return step.measures(); }); })
      .def("values", &NativeStep::values)
      .def("parameters", &NativeStep::parameters)
      .def("read_parameters", [](NativeStep& s, nb::handle array) { s.copy_parameters(array, Access::write); })
      .def("write_parameters", [](NativeStep& s, nb::handle array) { s.copy_parameters(array, Access::read); })
      .def("loss", [](NativeStep& s) { return s.with([](Step& step) { return step.loss(); }); })
      .def("loss_scale", [](NativeStep& s) { return s.with([](Step& step) { return step.loss_scale(); }); })
      .def("losses", [](NativeStep& s) { return s.with([](Step& step) { return step.losses(); }); })
      .def("loss_weights",
           [](NativeStep& s) {
             return s.with([](Step& step) {
               std::vector<std::pair<std::string, double>> weights;
               for (size_t i = 0; i < step.loss_count(); ++i)
                 weights.emplace_back(step.loss_at(i).name, step.loss_at(i).weight);
               return weights;
             });
           })
      .def("grad_scalers",
           [](NativeStep& s) {
             nb::dict named;  // each of torch.amp.GradScaler.state_dict()
             for (const auto& [loss, state] : s.with([](Step& step) { return step.grad_scalers(); })) {
               nb::dict dict;
               dict["scale"] = state.scale, dict["growth_factor"] = state.growth_factor;
               dict["backoff_factor"] = state.backoff_factor, dict["growth_interval"] = state.growth_interval;
               dict["_growth_tracker"] = state.growth_tracker;
               named[nb::str(loss.c_str(), loss.size())] = dict;
             }
             return named;
           })
      .def("set_grad_scalers",
           [](NativeStep& s,
              const std::vector<std::tuple<std::string, double, double, double, int64_t, int64_t>>& given) {
             std::vector<std::pair<std::string, halfstep_grad_scaler>> states;
             for (const auto& [loss, scale, growth, backoff, interval, tracker] : given)
               states.emplace_back(loss, halfstep_grad_scaler{scale, growth, backoff, interval, tracker});
             s.with([&](Step& step) { step.set_grad_scalers(states); });
           })
      .def("skipped", [](NativeStep& s) { return s.with([](Step& step) { return step.skipped(); }); })
      .def("next_finished",
           [](NativeStep& s) -> std::optional<std::tuple<int64_t, double, double, bool>> {
             const std::optional<FinishedStep> f = s.with([](Step& step) { return step.next_finished(); });
             if (!f) return std::nullopt;
             return std::make_tuple(f->number, f->loss, f->loss_scale, f->skipped);
           })
      .def("step_count", [](NativeStep& s) { return s.with([](Step& step) { return step.step_count(); }); })
      .def("device",
           [](NativeStep& s) {
             const Device d = s.with([](Step& step) { return step.device(); });
             return std::make_pair(d.type, d.index);
           })
      .def("learning_rate", [](NativeStep& s) { return s.with([](Step& step) { return step.learning_rate(); }); })
      .def("set_learning_rate",
           [](NativeStep& s, double rate) { s.with([&](Step& step) { step.set_learning_rate(rate); }); })
      .def("epoch_count", [](NativeStep& s) { return s.with([](Step& step) { return step.epoch_count(); }); })
      .def("set_epochs", [](NativeStep& s, int64_t epochs,
                            int64_t samples) { s.with([&](Step& step) { step.set_epochs(epochs, samples); }); })
      .def("save", [](NativeStep& s, const std::string& directory,
                      int32_t keep) { s.with([&](Step& step) { step.save_checkpoint(directory, keep); }); })
      .def("restore",
           [](NativeStep& s, const std::string& path) { s.with([&](Step& step) { step.load_checkpoint(path); }); })
      .def(
          "export",
          [](NativeStep& s, const std::string& path, const std::optional<std::string>& model) {
            s.with([&](Step& step) { model ? export_onnx(step, *model, path) : export_onnx(step, path); });
          },
          nb::arg(), nb::arg().none());
}

}  // namespace halfstep::python
