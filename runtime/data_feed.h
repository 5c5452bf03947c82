// From a data set to a program's inputs: the order of the samples, and the copy of a batch into staging memory.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "runtime/data.h"
#include "runtime/program.h"

namespace halfstep {

// A permutation of [0, samples) that depends on (seed, epoch) alone, the same on every machine.
std::vector<int64_t> epoch_order(uint64_t seed, int64_t epoch, int64_t samples);

std::vector<int64_t> stored_order(int64_t samples);  // 0, 1, ...

// Host-side preprocessing of a floating input: (value * scale - mean) / deviation, in fp32. `mean` and `deviation` hold
// one value, or one per channel (axis 1 of the input).
struct Normalization {
  double scale = 1;
  std::vector<double> mean{0};
  std::vector<double> deviation{1};
};

// The host's values for the inputs with reserved names, where a program has them.
struct StepInputs {
  double learning_rate = 0;  // "step.learning_rate" f32[]
  int64_t iteration = 0;     // "step.iteration" i32[]
  uint64_t seed = 0;         // "step.seed" i64[]
};

// Binds the arrays of a data set to the inputs of one program and fills batches. The data set must outlive it.
class DataFeed {
 public:
  // An input takes the array of its name; each input left over the first array left that fits it. A sample may have
  // another shape than the input's as long as it has as many elements. Throws Error listing all that does not fit.
  // `normalization`: by input name.
  DataFeed(const Dataset& dataset, const Program& program, const std::map<std::string, Normalization>& normalization);

  int64_t batch() const { return batch_; }
  // Writes the rows `samples` (1 to batch() of them; the last is repeated up to batch()) and the step's values into the
  // spans of Executor::begin_step.
  void fill(std::span<const int64_t> samples, const StepInputs& step,
            std::span<const std::span<std::byte>> staging) const;

 private:
  struct Binding {
    size_t input = 0;  // index among the program's inputs
    const Tensor* array = nullptr;
    DType dtype = DType::f32;           // of the input
    int64_t elements = 0;               // a sample
    int64_t channel_elements = 0;       // elements that share a mean and deviation
    std::vector<float> factor, offset;  // value * factor + offset per channel; empty: the value as it is
    std::vector<float> table;           // u8 to f32: 256 results per channel
  };
  void bind(const Buffer& input, size_t index, const NamedArray& array, Problems& problems);
  static void normalize(const Buffer& input, const Normalization& normalization, Binding& binding, Problems& problems);
  static void copy_sample(const Binding& binding, const std::byte* from, std::byte* to);

  std::vector<Binding> bindings_;
  std::optional<size_t> learning_rate_, iteration_, seed_;  // their places among the program's inputs
  int64_t batch_ = 0;
};

}  // namespace halfstep
