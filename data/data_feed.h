// From a data set to a program's inputs: the order of the samples, and the copy of a batch into staging memory.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/data.h"
#include "data/sample_order.h"
#include "data/token_feed.h"
#include "program/program.h"

namespace halfstep {

// Host-side preprocessing of a floating input: (value * scale - mean) / deviation, in fp32. `mean` and `deviation` hold
// one value, or one per channel (axis 1 of the input).
struct Normalization {
  double scale = 1;
  std::vector<double> mean{0};
  std::vector<double> deviation{1};
};

// The host's values for a program's step inputs, where it has them.
struct StepInputs {
  double learning_rate = 0;               // f32[], or f32[n] of parameters whose rates differ
  std::span<const double> rate_shares{};  // of it for each of these; empty: all have it
  int64_t iteration = 0;                  // i32[]
  uint64_t seed = 0;                      // i64[]
};

struct FeedOptions {
  std::map<std::string, Normalization> normalization{};  // by input name, for floating inputs
  TokenObjective tokens{};
  std::set<std::string> zeros{};   // inputs that hold zeros and take no data
  std::set<std::string> labels{};  // inputs of labels, whose bytes are numbers and no pixels
};

// Binds the arrays or the tokens of a data set to the inputs of one program and fills batches. The data set must
// outlive it.
class DataFeed {
 public:
  // An input takes the array of its name; each input left over the first array left that fits it. A sample has the
  // input's shape (see data/sample_fit.h). Tokens go to the input that the options name and to "labels". Without
  // data, inputs "attention_mask", "token_type_ids" and "position_ids" are ones, zeros and 0, 1, ... Throws Error
  // listing all that does not fit.
  DataFeed(const Dataset& dataset, const Program& program, const FeedOptions& options);

  int64_t batch() const { return batch_; }
  int64_t samples() const;  // in an epoch
  // The samples of one epoch. Of tokens they are positions in the file.
  std::vector<int64_t> order(SampleOrder order, uint64_t seed, int64_t epoch) const;
  // Checks all of the data set; `ranges` name inputs. Throws Error as check_ranges does.
  void check(const ValueRanges& ranges) const;
  // nullopt: the samples are no windows of tokens.
  std::optional<TokenMeasures> measure(double loss, double samples_per_second) const;
  // What the user should know of the binding, a sentence each.
  const std::vector<std::string>& remarks() const { return remarks_; }
  // Writes the rows `samples` (1 to batch() of them; the last is repeated up to batch()) and the step's values into the
  // spans of Executor::begin_step.
  void fill(std::span<const int64_t> samples, const StepInputs& step,
            std::span<const std::span<std::byte>> staging) const;

 private:
  struct Binding {
    std::string name;  // of the input
    size_t input = 0;  // index among the program's inputs
    const Tensor* array = nullptr;
    DType dtype = DType::f32;           // of the input
    int64_t elements = 0;               // a sample
    int64_t columns = 0;                // of the samples in the array as matrices, which are transposed; 0: are not
    int64_t channel_elements = 0;       // elements that share a mean and deviation
    std::vector<float> factor, offset;  // value * factor + offset per channel; empty: the value as it is
    std::vector<float> table;           // u8 to f32: 256 results per channel
  };
  struct Constant {
    size_t input = 0;
    std::vector<std::byte> bytes;
  };
  // The inputs that the data set has to serve.
  std::vector<InputPlace> data_inputs(const Program& program, Problems& problems);
  void bind_arrays(const Program& program, std::vector<InputPlace> inputs, const FeedOptions& options,
                   Problems& problems);
  void bind_tokens(const TokenSpan& tokens, std::vector<InputPlace> inputs, const TokenObjective& objective);
  // Takes the inputs that have a default out of `inputs`.
  void bind_constants(std::vector<InputPlace>& inputs);
  void bind(const Buffer& input, size_t index, const NamedArray& array, const FeedOptions& options, Problems& problems);
  static void normalize(const Buffer& input, const Normalization& normalization, Binding& binding, Problems& problems);
  static void copy_sample(const Binding& binding, const std::byte* from, std::byte* to);

  const Dataset& dataset_;
  std::vector<Binding> bindings_;
  std::optional<TokenFeed> tokens_;
  std::vector<Constant> constants_;
  std::vector<std::string> remarks_;
  std::optional<size_t> learning_rate_, iteration_, seed_;  // their places among the program's inputs
  size_t rates_ = 1;                                        // elements of the learning rate
  int64_t batch_ = 0;
};

}  // namespace halfstep
