#include "data/data_feed.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/parallel.h"
#include "data/sample_fit.h"

namespace halfstep {
namespace {

constexpr int64_t kBytesWorthAThread = 1 << 20;

template <typename T>
void store(std::span<std::byte> to, T value) {
  require(to.size() == sizeof value, "staging span has the input's size");
  std::memcpy(to.data(), &value, sizeof value);
}

// Row-major [rows, columns] to [columns, rows], elements of `size` bytes.
void transpose(const std::byte* from, std::byte* to, int64_t elements, int64_t columns, int64_t size) {
  const int64_t rows = elements / columns;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column)
      std::memcpy(to + (column * rows + row) * size, from + (row * columns + column) * size, static_cast<size_t>(size));
}

std::string quoted_names(const auto& named, auto name_of) {
  std::string text;
  for (const auto& n : named) text += (text.empty() ? "'" : ", '") + std::string(name_of(n)) + "'";
  return text;
}

// What an input without data holds: `value` of the position along its last axis.
struct DefaultInput {
  std::string_view name;
  std::string_view meaning;
  double (*value)(int64_t position);
};
constexpr DefaultInput kDefaultInputs[] = {
    {"attention_mask", "ones: every token is seen", [](int64_t) { return 1.0; }},
    {"token_type_ids", "zeros: one segment", [](int64_t) { return 0.0; }},
    {"position_ids", "0, 1, ...", [](int64_t position) { return static_cast<double>(position); }},
};

}  // namespace

DataFeed::DataFeed(const Dataset& dataset, const Program& program, const FeedOptions& options) : dataset_(dataset) {
  Problems problems;
  std::vector<InputPlace> inputs = data_inputs(program, problems);
  std::erase_if(inputs, [&](const InputPlace& place) {
    if (!options.zeros.contains(place.buffer->name.text)) return false;
    constants_.push_back({place.input, std::vector<std::byte>(static_cast<size_t>(place.buffer->type.byte_count()))});
    return true;
  });
  if (inputs.empty()) throw Error("program '" + program.name + "' has no data inputs");
  if (dataset.tokens) {
    bind_tokens(*dataset.tokens, std::move(inputs), options.tokens);
  } else {
    bind_arrays(program, std::move(inputs), options, problems);
  }
  problems.throw_if_any();
}

std::vector<InputPlace> DataFeed::data_inputs(const Program& program, Problems& problems) {
  std::vector<InputPlace> inputs;
  size_t place = 0;
  const auto reserve = [&](const Buffer& buffer, DType dtype, std::optional<size_t>& where) {
    if (buffer.type != TensorType{dtype, {}})
      problems.add("input '" + to_string(buffer.name) + "': expected " + to_string(TensorType{dtype, {}}) + ", found " +
                   to_string(buffer.type));
    where = place;
  };
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::input) continue;
    if (buffer.name == kStepLearningRate && buffer.type.dtype == DType::f32 && buffer.type.shape.size() == 1) {
      learning_rate_ = place, rates_ = static_cast<size_t>(buffer.type.shape[0]);
    } else if (buffer.name == kStepLearningRate) {
      reserve(buffer, DType::f32, learning_rate_);
    } else if (buffer.name == kStepIteration) {
      reserve(buffer, DType::i32, iteration_);
    } else if (buffer.name == kStepSeed) {
      reserve(buffer, DType::i64, seed_);
    } else {
      inputs.push_back({&buffer, place});
    }
    ++place;
  }
  return inputs;
}

void DataFeed::bind_constants(std::vector<InputPlace>& inputs) {
  std::erase_if(inputs, [&](const InputPlace& place) {
    const TensorType& type = place.buffer->type;
    const auto known = std::ranges::find(kDefaultInputs, place.buffer->name.text, &DefaultInput::name);
    if (known == std::end(kDefaultInputs) || type.shape.empty()) return false;
    Tensor values(type);
    for (int64_t i = 0; i < type.element_count(); ++i) values.set(i, known->value(i % type.shape.back()));
    constants_.push_back({place.input, std::vector<std::byte>(values.data.begin(), values.data.end())});
    remarks_.push_back("input '" + place.buffer->name.text + "' has no data and holds " + std::string(known->meaning));
    return true;
  });
}

void DataFeed::bind_arrays(const Program& program, std::vector<InputPlace> inputs, const FeedOptions& options,
                           Problems& problems) {
  const auto buffer_name = [](const InputPlace& p) -> const std::string& { return p.buffer->name.text; };
  std::vector<InputPlace> left;
  std::vector<const NamedArray*> spare;
  std::vector<std::pair<InputPlace, const NamedArray*>> pairs;
  for (const NamedArray& array : dataset_.arrays)
    if (std::ranges::find(inputs, array.name, buffer_name) == inputs.end()) spare.push_back(&array);
  for (const InputPlace& input : inputs) {
    const auto array = std::ranges::find(dataset_.arrays, input.buffer->name.text, &NamedArray::name);
    if (array == dataset_.arrays.end()) {
      left.push_back(input);
    } else {
      pairs.emplace_back(input, &*array);
    }
  }
  if (left.size() > spare.size()) bind_constants(left);
  // By name alone, data of more than this program reads is no mistake.
  if (left.size() > spare.size() || (!left.empty() && left.size() < spare.size()))
    throw Error("program '" + program.name + "' has the inputs " + quoted_names(inputs, buffer_name) +
                ", the data set the arrays " +
                quoted_names(dataset_.arrays, [](const NamedArray& a) { return a.name; }) +
                ": give one array for each input");
  for (const InputPlace& input : left) {
    auto array = std::ranges::find_if(spare, [&](const NamedArray* a) { return fits(*input.buffer, a->values.type); });
    if (array == spare.end()) array = spare.begin();  // the binding says what does not fit
    pairs.emplace_back(input, *array);
    spare.erase(array);
  }
  for (const NamedArray* array : spare)
    remarks_.push_back("data array '" + array->name + "' is not used: program '" + program.name +
                       "' has no such input");
  for (const auto& [input, array] : pairs) {
    bind(*input.buffer, input.input, *array, options, problems);
    if (const auto found = options.normalization.find(input.buffer->name.text);
        found != options.normalization.end() && problems.empty())
      normalize(*input.buffer, found->second, bindings_.back(), problems);
  }
  for (const auto& [input_name, unused] : options.normalization)
    if (std::ranges::find(inputs, input_name, buffer_name) == inputs.end())
      problems.add("normalization is given for '" + input_name + "', which is not an input of the program");
}

void DataFeed::bind_tokens(const TokenSpan& tokens, std::vector<InputPlace> inputs, const TokenObjective& objective) {
  const auto take = [&](const std::string& wanted) -> std::optional<InputPlace> {
    const auto found = std::ranges::find(inputs, wanted, [](const InputPlace& p) { return p.buffer->name.text; });
    if (found == inputs.end()) return std::nullopt;
    const InputPlace place = *found;
    inputs.erase(found);
    return place;
  };
  const std::optional<InputPlace> labels = take(kTokenLabels);
  if (!labels) throw Error("the model has no input 'labels': the token objectives go with loss softmax_cross_entropy");
  const std::string all = quoted_names(inputs, [](const InputPlace& p) { return p.buffer->name.text; });
  std::optional<InputPlace> ids;
  if (!objective.ids.empty()) {
    ids = take(objective.ids);
    if (!ids) throw Error("ids: the model has no input '" + objective.ids + "'; its inputs are " + all);
  }
  bind_constants(inputs);
  if (!ids && inputs.size() == 1) ids = take(inputs[0].buffer->name.text);
  if (!ids) throw Error("the model has the inputs " + all + ": say with ids which one takes the tokens");
  if (!inputs.empty())
    throw Error("a token file feeds input '" + ids->buffer->name.text + "' alone, and the model also has " +
                quoted_names(inputs, [](const InputPlace& p) { return p.buffer->name.text; }) +
                ": give an NPZ file with an array for each input");
  tokens_.emplace(tokens, *ids, *labels, objective);
  batch_ = tokens_->batch();
}

int64_t DataFeed::samples() const { return tokens_ ? tokens_->samples() : dataset_.size(); }

std::vector<int64_t> DataFeed::order(SampleOrder order, uint64_t seed, int64_t epoch) const {
  if (order == SampleOrder::shuffled)
    return tokens_ ? tokens_->shuffled_order(seed, epoch) : epoch_order(seed, epoch, samples());
  return tokens_ ? tokens_->stored_order() : stored_order(samples());
}

void DataFeed::check(const ValueRanges& ranges) const {
  ValueRanges by_array{.labels = {}, .classes = ranges.classes, .ignored = {}, .labels_of = {}, .rows = {}};
  for (const NamedArray& array : dataset_.arrays)
    for (const Binding& binding : bindings_) {
      if (binding.array != &array.values) continue;
      if (const std::optional<LabelRange> labels = label_range(ranges, binding.name))
        by_array.labels_of[array.name] = *labels;
      if (const auto rows = ranges.rows.find(binding.name); rows != ranges.rows.end())
        by_array.rows[array.name] = rows->second;
    }
  check_ranges(dataset_, by_array);
}

std::optional<TokenMeasures> DataFeed::measure(double loss, double samples_per_second) const {
  return tokens_ ? std::optional(tokens_->measure(loss, samples_per_second)) : std::nullopt;
}

void DataFeed::bind(const Buffer& input, size_t index, const NamedArray& array, const FeedOptions& options,
                    Problems& problems) {
  const std::string where = "input '" + input.name.text + "': ";
  const TensorType& type = array.values.type;
  if (input.type.shape.empty() || input.type.shape[0] < 1) {
    problems.add(where + "it has no batch axis: " + to_string(input.type));
    return;
  }
  const int64_t batch = input.type.shape[0];
  if (batch_ == 0) batch_ = batch;
  if (batch != batch_)
    problems.add(where + "batch " + std::to_string(batch) + ", but other inputs have " + std::to_string(batch_));
  Binding binding{.name = input.name.text,
                  .input = index,
                  .array = &array.values,
                  .dtype = input.type.dtype,
                  .elements = input.type.element_count() / batch,
                  .columns = 0,
                  .channel_elements = input.type.element_count() / batch,
                  .factor = {},
                  .offset = {},
                  .table = {}};
  const SampleFit fit = fit_sample(input, type);
  if (fit.kind == SampleFit::none) problems.add(where + misfit(input, array));
  if (fit.kind == SampleFit::transposed) binding.columns = fit.columns;
  if (const std::string remark = describe(fit, input, array); !remark.empty()) remarks_.push_back(remark);
  const bool scaled = options.normalization.contains(input.name.text) || options.labels.contains(input.name.text);
  if (const std::string problem = conversion_problem(input, array, scaled); !problem.empty())
    problems.add(where + problem);
  bindings_.push_back(std::move(binding));
}

void DataFeed::normalize(const Buffer& input, const Normalization& normalization, Binding& binding,
                         Problems& problems) {
  const std::string where = "normalization of input '" + input.name.text + "': ";
  if (!is_floating(input.type.dtype)) {
    problems.add(where + "the input is " + std::string(name(input.type.dtype)) + ", expected a floating type");
    return;
  }
  const Shape& shape = input.type.shape;
  const size_t channels = std::max(normalization.mean.size(), normalization.deviation.size());
  for (const auto& [list, size] :
       {std::pair{"mean", normalization.mean.size()}, {"std", normalization.deviation.size()}})
    if (size != 1 && (shape.size() < 2 || static_cast<int64_t>(size) != shape[1])) {
      problems.add(where + std::to_string(size) + " values of " + list + ", expected 1 or one per channel of " +
                   to_string(shape));
      return;
    }
  for (size_t c = 0; c < channels; ++c) {
    const double mean = normalization.mean[normalization.mean.size() == 1 ? 0 : c];
    const double deviation = normalization.deviation[normalization.deviation.size() == 1 ? 0 : c];
    if (!(deviation > 0)) {
      problems.add(where + "std must be above 0, found " + std::to_string(deviation));
      return;
    }
    binding.factor.push_back(static_cast<float>(normalization.scale / deviation));
    binding.offset.push_back(static_cast<float>(-mean / deviation));
  }
  binding.channel_elements = binding.elements / static_cast<int64_t>(channels);
  if (binding.array->type.dtype == DType::u8 && binding.dtype == DType::f32)
    for (size_t c = 0; c < channels; ++c)
      for (int value = 0; value < 256; ++value)
        binding.table.push_back(static_cast<float>(value) * binding.factor[c] + binding.offset[c]);
}

void DataFeed::copy_sample(const Binding& binding, const std::byte* from, std::byte* to) {
  const DType source = binding.array->type.dtype;
  if (source == binding.dtype && binding.factor.empty()) {
    std::memcpy(to, from, static_cast<size_t>(binding.elements * size_of(source)));
    return;
  }
  for (int64_t begin = 0, channel = 0; begin < binding.elements; begin += binding.channel_elements, ++channel) {
    const int64_t end = begin + binding.channel_elements;
    if (!binding.table.empty()) {
      const float* table = binding.table.data() + channel * 256;
      const auto* bytes = reinterpret_cast<const uint8_t*>(from);
      auto* floats = reinterpret_cast<float*>(to);
      for (int64_t i = begin; i < end; ++i) floats[i] = table[bytes[i]];
      continue;
    }
    const float factor = binding.factor.empty() ? 1 : binding.factor[static_cast<size_t>(channel)];
    const float offset = binding.factor.empty() ? 0 : binding.offset[static_cast<size_t>(channel)];
    if (source == DType::f32 && binding.dtype == DType::f32) {
      const auto* values = reinterpret_cast<const float*>(from);
      auto* floats = reinterpret_cast<float*>(to);
      for (int64_t i = begin; i < end; ++i) floats[i] = values[i] * factor + offset;
      continue;
    }
    for (int64_t i = begin; i < end; ++i) {
      double value = load_as_double(source, from + i * size_of(source));
      if (!binding.factor.empty()) value = static_cast<float>(value) * factor + offset;
      store_from_double(binding.dtype, to + i * size_of(binding.dtype), value);
    }
  }
}

void DataFeed::fill(std::span<const int64_t> samples, const StepInputs& step,
                    std::span<const std::span<std::byte>> staging) const {
  require(!samples.empty() && static_cast<int64_t>(samples.size()) <= batch_, "a batch holds 1 to batch() samples");
  for (const Binding& binding : bindings_) {
    const std::span<std::byte> to = staging[binding.input];
    const int64_t to_bytes = binding.elements * size_of(binding.dtype);
    const int64_t from_bytes = binding.elements * size_of(binding.array->type.dtype);
    require(static_cast<int64_t>(to.size()) == to_bytes * batch_, "staging span has the input's size");
    const auto copy_rows = [&](int64_t begin, int64_t end) {
      std::vector<std::byte> turned(static_cast<size_t>(binding.columns > 0 ? from_bytes : 0));
      for (int64_t row = begin; row < end; ++row) {
        const int64_t sample = samples[std::min(static_cast<size_t>(row), samples.size() - 1)];
        const std::byte* from = binding.array->data.data() + sample * from_bytes;
        if (binding.columns > 0) {
          transpose(from, turned.data(), binding.elements, binding.columns, size_of(binding.array->type.dtype));
          from = turned.data();
        }
        copy_sample(binding, from, to.data() + row * to_bytes);
      }
    };
    parallel_stretches(batch_, copy_rows, kBytesWorthAThread / std::max<int64_t>(to_bytes, 1));
  }
  if (tokens_) tokens_->fill(samples, step.seed, step.iteration, staging);
  for (const Constant& constant : constants_) std::ranges::copy(constant.bytes, staging[constant.input].begin());
  if (learning_rate_) {
    const std::span<const double> shares = step.rate_shares;
    require(shares.empty() || shares.size() == rates_, "a share of the learning rate for each of the step's");
    for (size_t i = 0; i < rates_; ++i)
      store(staging[*learning_rate_].subspan(i * sizeof(float), sizeof(float)),
            static_cast<float>(step.learning_rate * (shares.empty() ? 1 : shares[i])));
  }
  if (iteration_) store(staging[*iteration_], static_cast<int32_t>(step.iteration));
  if (seed_) store(staging[*seed_], static_cast<int64_t>(step.seed));
}

}  // namespace halfstep
