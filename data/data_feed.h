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
#include "data/image_loader.h"
#include "data/mix.h"
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
  // In training image arrays are changed by chance, by (seed, iteration, place in the batch), and batches mixed.
  enum Use : uint8_t { looked_at, trained_on } use = looked_at;
};

struct FeedOptions {
  std::map<std::string, Normalization> normalization{};  // by input name, for floating inputs
  TokenObjective tokens{};
  std::set<std::string> zeros{};            // inputs that hold zeros and take no data
  std::set<std::string> labels{};           // inputs of labels, whose bytes are numbers and no pixels
  std::vector<std::string> class_arrays{};  // arrays that may hold the classes of SampleOrder::balanced
  // Of arrays that hold images as bytes, as their input takes them; folders and shards have their own.
  std::vector<std::string> augment{};
  double crop_scale = 1;
  std::array<uint8_t, 3> cutout_fill{};  // what a part of an image becomes that augment's cutout takes
  MixOptions mix{};                      // of programs with a share to mix by
};

// Binds the arrays or the tokens of a data set to the inputs of one program and fills batches. The data set must
// outlive it.
class DataFeed {
 public:
  // An input takes the array of its name, or the column of a table; each input left over the first array left that fits
  // it, and the columns left of a table count as one. A sample has the
  // input's shape (see data/sample_fit.h). Tokens go to the input that the options name and to "labels". Without
  // data, inputs "attention_mask", "token_type_ids" and "position_ids" are ones, zeros and 0, 1, ... Throws Error
  // listing all that does not fit.
  DataFeed(const Dataset& dataset, const Program& program, const FeedOptions& options);

  int64_t batch() const { return batch_; }
  int64_t samples() const;  // in an epoch
  // The samples of one epoch. Of tokens they are positions in the file. Error where classes that the order needs are
  // not there.
  std::vector<int64_t> order(SampleOrder order, uint64_t seed, int64_t epoch) const;
  // The samples that `fill` is going to ask for, so that images are decoded ahead; see ImageLoader.
  void announce(ImageOrder order) const;
  // `fill` of both, of the same images, goes on where the other's stopped.
  void share_images(const DataFeed& other) { loader_ = other.loader_; }
  // Seconds that `fill` waited for images; nullopt: there are none.
  std::optional<double> waited() const;
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
    const SampleValues* array = nullptr;
    DType dtype = DType::f32;           // of the input
    int64_t elements = 0;               // a sample
    int64_t columns = 0;                // of the samples in the array as matrices, which are transposed; 0: are not
    std::vector<int64_t> picks;         // elements of a sample in the array that are one of the input; empty: all
    int64_t channel_elements = 0;       // elements that share a mean and deviation
    std::vector<float> factor, offset;  // value * factor + offset per channel; empty: the value as it is
    std::vector<float> table;           // u8 to f32: 256 results per channel
    std::optional<ImageInput> image{};  // to be changed by chance in training
  };
  struct Constant {
    size_t input = 0;
    std::vector<std::byte> bytes;
  };
  // An array, or columns of a table.
  struct Part {
    const NamedArray* array = nullptr;
    std::vector<int64_t> picks{};  // empty: the whole array

    TensorType type() const;
    std::string name() const;
  };
  // The inputs that the data set has to serve.
  std::vector<InputPlace> data_inputs(const Program& program, Problems& problems);
  void bind_arrays(const Program& program, std::vector<InputPlace> inputs, const FeedOptions& options,
                   Problems& problems);
  void bind_tokens(const TokenSpan& tokens, std::vector<InputPlace> inputs, const TokenObjective& objective);
  // Takes the input of the images out of `inputs`.
  void bind_images(const ImageSpan& images, std::vector<InputPlace>& inputs, const FeedOptions& options);
  // Takes the inputs of the texts out of `inputs`.
  void bind_texts(const TextSpan& texts, std::vector<InputPlace>& inputs, const FeedOptions& options);
  void bind_mixer(const Program& program, const FeedOptions& options, Problems& problems);
  // Takes the inputs that have a default out of `inputs`.
  void bind_constants(std::vector<InputPlace>& inputs);
  // Pairs of inputs with what is called like them; takes them out of `inputs`, and leaves what no input is called like.
  std::vector<std::pair<InputPlace, Part>> pair_names(std::vector<InputPlace>& inputs, std::vector<Part>& spare) const;
  void bind(const Buffer& input, size_t index, const Part& part, const FeedOptions& options, Problems& problems);
  static void normalize(const Buffer& input, const Normalization& normalization, Binding& binding, Problems& problems);
  static void copy_sample(const Binding& binding, const std::byte* from, std::byte* to);
  void copy_rows(const Binding& binding, std::span<const int64_t> samples, const StepInputs& step, int64_t begin,
                 int64_t end, std::span<std::byte> to) const;

  const Dataset& dataset_;
  std::vector<std::string> class_arrays_;
  std::vector<Binding> bindings_;
  std::optional<TokenFeed> tokens_;
  std::optional<TextFeed> texts_;
  std::string texts_input_;              // that takes their ids
  std::shared_ptr<ImageLoader> loader_;  // of images
  size_t images_input_ = 0;
  AugmentOptions augment_;  // of arrays
  std::vector<Constant> constants_;
  std::vector<std::string> remarks_;
  std::optional<size_t> learning_rate_, iteration_, seed_, mix_share_;  // places among the program's inputs
  std::optional<BatchMixer> mixer_;
  size_t rates_ = 1;  // elements of the learning rate
  int64_t batch_ = 0;
};

}  // namespace halfstep
