#include "cli/train_report.h"

#include <fmt/format.h>

#include "base/bytes_text.h"
#include "cli/output.h"
#include "cli/table.h"

namespace halfstep {

void Narration::stage(int number, const std::string& title) const { say(fmt::format("\n[{}/5] {}\n", number, title)); }

void Narration::say(const std::string& text) const {
  if (verbosity_ != CommandOptions::quiet_run) tell(text);
}

void Narration::tell(const std::string& text) const {
  if (format_ == Format::text) print_out("{}", text);
}

void Narration::note(const std::string& text) const {
  if (format_ == Format::text) print_err("halfstep: note: {}\n", text);
}

std::string data_text(const Data& data) {
  Table table({"set", "samples", "array", "type of a sample"});
  const auto add = [&](const char* set, const Dataset& dataset) {
    if (dataset.tokens)
      table.add({set, "-",
                 "tokens " + std::to_string(dataset.tokens->begin) + " to " + std::to_string(dataset.tokens->end) +
                     " of " + dataset.tokens->file->name(),
                 "-"});
    if (dataset.images) table.add({set, count_text(dataset.size()), "images", "PNG and JPEG files"});
    if (dataset.texts) table.add({set, count_text(dataset.size()), "texts", "tokens"});
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
      if (b.kind == kind && !b.name.is(Role::transient))
        table.add({to_string(b.name), std::string(name(b.kind)), to_string(b.type), bytes_text(b.type.byte_count())});
  const MemoryReport m = executor.memory();
  int64_t values = 0;
  for (const ParameterSlice& p : model.parameters) values += TensorType{DType::f32, p.shape}.element_count();
  return table.text() +
         fmt::format("  {} trainable values in {} parameters\n  {} of state, {} of scratch, {} of library workspace\n",
                     count_text(values), model.parameters.size(), bytes_text(m.state_bytes),
                     bytes_text(m.scratch_bytes), bytes_text(m.workspace_bytes));
}

std::string counters_text(const TrainReport& report, DeviceKind device) {
  const ExecutorCounters& c = report.counters;
  Table table({"counter", "count", "meaning"});
  table.add({"batches submitted", count_text(c.steps), "training and evaluation"});
  if (device == DeviceKind::cuda) table.add({"graph launches", count_text(c.graph_launches), "one a batch"});
  table.add({"waits inside a step", count_text(c.stream_synchronisations), "the host waited for the device: stays 0"});
  table.add({"waits for a slot", count_text(c.slot_waits), "all were in flight: the device sets the pace"});
  table.add({"waits for a result", count_text(c.result_waits), "at the end of an epoch, for a checkpoint"});
  return table.text();
}

}  // namespace halfstep
