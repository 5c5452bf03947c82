#include "data/data_feed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <string_view>
#include <utility>

#include "base/parallel.h"
#include "data/sample_fit.h"
#include "data/split.h"
#include "data/table.h"

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

// Place among the buffers of the program's input of that number.
size_t buffer_of(const Program& program, size_t input) {
  for (size_t i = 0; i < program.buffers.size(); ++i)
    if (program.buffers[i].kind == BufferKind::input && input-- == 0) return i;
  throw InternalError("a binding is of an input");
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

DataFeed::DataFeed(const Dataset& dataset, const Program& program, const FeedOptions& options)
    : dataset_(dataset), class_arrays_(options.class_arrays), remarks_(dataset.remarks) {
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
  if (mix_share_) bind_mixer(program, options, problems);
  problems.throw_if_any();
}

void DataFeed::bind_mixer(const Program& program, const FeedOptions& options, Problems& problems) {
  mixer_.emplace(options.mix, *mix_share_, problems);
  if (!options.mix.any()) return;
  if (texts_ || tokens_) problems.add("mixup and cutmix: texts cannot be mixed: leave them out");
  if (loader_) mixer_->add(program.buffers[buffer_of(program, images_input_)], images_input_, problems);
  for (const Binding& binding : bindings_)
    if (!options.labels.contains(binding.name))
      mixer_->add(program.buffers[buffer_of(program, binding.input)], binding.input, problems);
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
    } else if (buffer.name == kStepMixShare) {
      reserve(buffer, DType::f32, mix_share_);
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

TensorType DataFeed::Part::type() const {
  if (picks.empty()) return array->values.type;
  return {array->values.type.dtype, {array->values.type.shape[0], static_cast<int64_t>(picks.size())}};
}

std::string DataFeed::Part::name() const {
  if (picks.empty()) return "data array '" + array->name + "'";
  constexpr size_t kMost = 5;
  std::string text = picks.size() == 1 ? "column " : "columns ";
  for (size_t i = 0; i < std::min(picks.size(), kMost); ++i)
    text += (i == 0 ? "'" : ", '") + array->columns[static_cast<size_t>(picks[i])] + "'";
  return picks.size() > kMost ? text + " and " + std::to_string(picks.size() - kMost) + " more" : text;
}

std::vector<std::pair<InputPlace, DataFeed::Part>> DataFeed::pair_names(std::vector<InputPlace>& inputs,
                                                                        std::vector<Part>& spare) const {
  std::vector<std::pair<InputPlace, Part>> pairs;
  const auto take = [&](const std::string& wanted, Part part) {
    const auto found = std::ranges::find(inputs, wanted,
                                         [](const InputPlace& p) -> const std::string& { return p.buffer->name.text; });
    if (found == inputs.end()) return false;
    // An input of several numbers takes the table, whatever one of its columns is called.
    const TensorType& type = found->buffer->type;
    if (!part.picks.empty() && !type.shape.empty() && type.element_count() != type.shape[0]) return false;
    pairs.emplace_back(*found, std::move(part));
    inputs.erase(found);
    return true;
  };
  for (const NamedArray& array : dataset_.arrays) {
    if (take(array.name, {&array})) continue;
    Part rest{&array};
    for (size_t i = 0; i < array.columns.size(); ++i)
      if (const auto column = static_cast<int64_t>(i); !take(array.columns[i], {&array, {column}}))
        rest.picks.push_back(column);
    if (!array.columns.empty() && rest.picks.empty()) continue;  // each column has its input
    if (rest.picks.size() == array.columns.size()) rest.picks.clear();
    spare.push_back(std::move(rest));
  }
  return pairs;
}

void DataFeed::bind_images(const ImageSpan& images, std::vector<InputPlace>& inputs, const FeedOptions& options) {
  const auto has_sides = [](const InputPlace& place) { return place.buffer->type.shape.size() >= 3; };
  auto found = std::ranges::find_if(inputs, [](const InputPlace& place) { return takes_images(*place.buffer); });
  if (found == inputs.end()) found = std::ranges::find_if(inputs, has_sides);  // which says why it does not
  if (found == inputs.end())
    throw Error("the data set has images, and no input of the model takes them: " +
                quoted_names(inputs, [](const InputPlace& p) { return p.buffer->name.text; }) + " is left");
  const Buffer& buffer = *found->buffer;
  const ImageInput input = image_input(buffer, images.options);
  AugmentOptions augment = augment_options(images.options.augment, images.options.crop_scale);
  augment.fill = options.cutout_fill;
  batch_ = buffer.type.shape[0];
  images_input_ = found->input;
  loader_ = std::make_shared<ImageLoader>(images, input, augment, batch_);
  const ImageGeometry& g = input.geometry;
  remarks_.push_back("images go to input '" + buffer.name.text + "' " + to_string(buffer.type) +
                     (input.channels == 1 ? " in grey" : " in colour") +
                     (input.channels_last             ? ", channels last"
                      : buffer.type.shape.size() == 4 ? ", channels first"
                                                      : "") +
                     ": " +
                     (g.stretch ? "stretched to its sides"
                      : g.resize > 0
                          ? "the shorter side becomes " + std::to_string(g.resize) + ", and the middle is cut out"
                          : "as small as they still fill it, and the middle is cut out") +
                     (images.training && !images.options.augment.empty() ? "; in training changed by chance" : ""));
  inputs.erase(found);
}

void DataFeed::bind_texts(const TextSpan& texts, std::vector<InputPlace>& inputs, const FeedOptions& options) {
  const auto take = [&](const auto& wanted) -> std::optional<InputPlace> {
    const auto found = std::ranges::find_if(inputs, wanted);
    if (found == inputs.end()) return std::nullopt;
    const InputPlace place = *found;
    inputs.erase(found);
    return place;
  };
  const auto named = [](const std::string& name) {
    return [name](const InputPlace& place) { return place.buffer->name.text == name; };
  };
  const std::string all = quoted_names(inputs, [](const InputPlace& p) { return p.buffer->name.text; });
  const std::optional<InputPlace> mask = take(named("attention_mask"));
  std::optional<InputPlace> ids = take(named(options.tokens.ids.empty() ? "input_ids" : options.tokens.ids));
  if (!ids && options.tokens.ids.empty())
    ids = take([](const InputPlace& place) {
      return place.buffer->type.shape.size() == 2 && !is_floating(place.buffer->type.dtype);
    });
  if (!ids) throw Error("the data set has texts, and no input of the model takes them: " + all + ": name it with ids");
  texts_.emplace(texts, *ids, mask);
  texts_input_ = ids->buffer->name.text;
  batch_ = ids->buffer->type.shape[0];
  if (const int64_t cut = texts_->cut(); cut > 0)
    remarks_.push_back(std::to_string(cut) + " of " + std::to_string(texts.size()) + " texts are longer than input '" +
                       texts_input_ + "' " + to_string(ids->buffer->type) + ", and are cut");
  bind_constants(inputs);
}

void DataFeed::announce(ImageOrder order) const {
  if (loader_) loader_->announce(std::move(order));
}

std::optional<double> DataFeed::waited() const { return loader_ ? std::optional(loader_->waited()) : std::nullopt; }

void DataFeed::bind_arrays(const Program& program, std::vector<InputPlace> inputs, const FeedOptions& options,
                           Problems& problems) {
  const auto buffer_name = [](const InputPlace& p) -> const std::string& { return p.buffer->name.text; };
  std::vector<InputPlace> left = inputs;
  std::vector<Part> spare;
  std::vector<std::pair<InputPlace, Part>> pairs = pair_names(left, spare);
  if (dataset_.images) bind_images(*dataset_.images, left, options);
  if (dataset_.texts) bind_texts(*dataset_.texts, left, options);
  if (left.size() > spare.size()) bind_constants(left);
  // By name alone, data of more than this program reads is no mistake.
  if (left.size() > spare.size() || (!left.empty() && left.size() < spare.size()))
    throw Error("program '" + program.name + "' has the inputs " + quoted_names(inputs, buffer_name) +
                ", the data set the arrays " +
                quoted_names(dataset_.arrays, [](const NamedArray& a) { return a.name; }) +
                ": give one array for each input");
  for (const InputPlace& input : left) {
    auto part = std::ranges::find_if(spare, [&](const Part& p) { return fits(*input.buffer, p.type()); });
    if (part == spare.end()) part = spare.begin();  // the binding says what does not fit
    pairs.emplace_back(input, *part);
    spare.erase(part);
  }
  for (const Part& part : spare)
    remarks_.push_back(part.name() + " is not used: program '" + program.name + "' has no such input");
  for (const auto& [input, part] : pairs) {
    bind(*input.buffer, input.input, part, options, problems);
    if (const auto found = options.normalization.find(input.buffer->name.text);
        found != options.normalization.end() && problems.empty())
      normalize(*input.buffer, found->second, bindings_.back(), problems);
  }
  if (!options.augment.empty() && !loader_) {
    augment_ = augment_options(options.augment, options.crop_scale);
    augment_.fill = options.cutout_fill;
    for (Binding& binding : bindings_)
      if (const Buffer& input = program.buffers[buffer_of(program, binding.input)]; takes_images(input))
        binding.image = image_input(input, {.image_fit = "stretch"});
    if (std::ranges::none_of(bindings_, [](const Binding& b) { return b.image.has_value(); }))
      problems.add(
          "augment: no input takes images as bytes, [batch, channels, height, width] or [batch, height, width, "
          "channels] with scale: leave it out");
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
  if (order == SampleOrder::balanced) {
    const std::optional<ClassLabels> labels = class_labels(dataset_, class_arrays_);
    if (!labels)
      throw Error("sampling: balanced needs an array of one class a sample, and the data has none: leave it out");
    return balanced_order(seed, epoch, labels->of_sample);
  }
  if (dataset_.images && dataset_.images->options.shuffle_buffer > 0 && order == SampleOrder::shuffled) {
    const ImageSpan& images = *dataset_.images;
    std::vector<int64_t> groups;
    for (const int64_t row : images.rows) groups.push_back(images.files->group(row));
    return grouped_order(seed, epoch, groups, images.options.shuffle_buffer);
  }
  if (order == SampleOrder::shuffled)
    return tokens_ ? tokens_->shuffled_order(seed, epoch) : epoch_order(seed, epoch, samples());
  return tokens_ ? tokens_->stored_order() : stored_order(samples());
}

void DataFeed::check(const ValueRanges& ranges) const {
  ValueRanges by_array{.labels = {}, .classes = ranges.classes, .ignored = {}, .labels_of = {}, .rows = {}};
  for (const NamedArray& array : dataset_.arrays)
    for (const Binding& binding : bindings_) {
      if (binding.array != &array.values) continue;
      if (!array.columns.empty()) {
        if (!is_floating(binding.dtype))
          check_ranges({{{binding.name, *integer_columns(*binding.array, binding.picks)}}}, ranges);
        continue;
      }
      if (const std::optional<LabelRange> labels = label_range(ranges, binding.name))
        by_array.labels_of[array.name] = *labels;
      if (const auto rows = ranges.rows.find(binding.name); rows != ranges.rows.end())
        by_array.rows[array.name] = rows->second;
    }
  check_ranges(dataset_, by_array);
  if (texts_)
    if (const auto rows = ranges.rows.find(texts_input_); rows != ranges.rows.end()) texts_->check(rows->second);
}

std::optional<TokenMeasures> DataFeed::measure(double loss, double samples_per_second) const {
  return tokens_ ? std::optional(tokens_->measure(loss, samples_per_second)) : std::nullopt;
}

void DataFeed::bind(const Buffer& input, size_t index, const Part& part, const FeedOptions& options,
                    Problems& problems) {
  const std::string where = "input '" + input.name.text + "': ";
  const TensorType type = part.type();
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
                  .array = &part.array->values,
                  .dtype = input.type.dtype,
                  .elements = input.type.element_count() / batch,
                  .columns = 0,
                  .picks = part.picks,
                  .channel_elements = input.type.element_count() / batch,
                  .factor = {},
                  .offset = {},
                  .table = {}};
  const SampleFit fit = fit_sample(input, type);
  if (fit.kind == SampleFit::none) problems.add(where + misfit(input, part.name(), type));
  if (fit.kind == SampleFit::transposed) binding.columns = fit.columns;
  if (const std::string remark = describe(fit, input, part.name(), type); !remark.empty()) remarks_.push_back(remark);
  const bool scaled = options.normalization.contains(input.name.text) || options.labels.contains(input.name.text);
  const bool of_table = !part.array->columns.empty();
  if (of_table && !is_floating(input.type.dtype)) {
    if (fit.kind != SampleFit::none && !integer_columns(*binding.array, binding.picks))
      problems.add(where + "it takes integers up to 2^24 of a table, and " + part.name() +
                   " holds others: standardize is for columns of measurements");
  } else if (const std::string problem = conversion_problem(input, *part.array, scaled); !problem.empty()) {
    problems.add(where + problem);
  }
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

void DataFeed::copy_rows(const Binding& binding, std::span<const int64_t> samples, const StepInputs& step,
                         int64_t begin, int64_t end, std::span<std::byte> to) const {
  const int64_t to_bytes = binding.elements * size_of(binding.dtype);
  const int64_t element_bytes = size_of(binding.array->type.dtype);
  std::vector<std::byte> read, turned(static_cast<size_t>(binding.columns > 0 ? binding.array->row_bytes() : 0)),
      picked(binding.picks.size() * static_cast<size_t>(element_bytes));
  for (int64_t row = begin; row < end; ++row) {
    const int64_t sample = samples[std::min(static_cast<size_t>(row), samples.size() - 1)];
    const std::byte* from = binding.array->row(sample, read);
    if (!binding.picks.empty()) {
      for (size_t i = 0; i < binding.picks.size(); ++i)
        std::memcpy(picked.data() + i * static_cast<size_t>(element_bytes), from + binding.picks[i] * element_bytes,
                    static_cast<size_t>(element_bytes));
      from = picked.data();
    }
    if (binding.columns > 0) {
      transpose(from, turned.data(), binding.elements, binding.columns, element_bytes);
      from = turned.data();
    }
    copy_sample(binding, from, to.data() + row * to_bytes);
    if (!binding.image || step.use != StepInputs::trained_on) continue;
    const AugmentRandom random(step.seed, 0, step.iteration * batch_ + row);
    const Image changed =
        augmented(read_pixels(to.data() + row * to_bytes, *binding.image), binding.image->geometry, augment_, random);
    write_pixels(changed, *binding.image, to.data() + row * to_bytes);
  }
}

void DataFeed::fill(std::span<const int64_t> samples, const StepInputs& step,
                    std::span<const std::span<std::byte>> staging) const {
  require(!samples.empty() && static_cast<int64_t>(samples.size()) <= batch_, "a batch holds 1 to batch() samples");
  for (const Binding& binding : bindings_) {
    const std::span<std::byte> to = staging[binding.input];
    const int64_t to_bytes = binding.elements * size_of(binding.dtype);
    require(static_cast<int64_t>(to.size()) == to_bytes * batch_, "staging span has the input's size");
    std::mutex mutex;
    std::string problem;
    const auto copy = [&](int64_t begin, int64_t end) {
      try {
        copy_rows(binding, samples, step, begin, end, to);
      } catch (const std::exception& e) {
        const std::lock_guard lock(mutex);
        problem = e.what();
      }
    };
    parallel_stretches(batch_, copy, kBytesWorthAThread / std::max<int64_t>(to_bytes, 1));
    if (!problem.empty()) throw Error(problem);
  }
  if (texts_) texts_->fill(samples, staging);
  if (loader_) {
    const std::span<std::byte> to = staging[images_input_];
    const size_t bytes = to.size() / static_cast<size_t>(batch_);
    loader_->fill(samples, to);
    for (size_t row = samples.size(); row < static_cast<size_t>(batch_); ++row)
      std::memcpy(to.data() + row * bytes, to.data() + (samples.size() - 1) * bytes, bytes);
  }
  if (tokens_) tokens_->fill(samples, step.seed, step.iteration, staging);
  if (mixer_)
    mixer_->apply(step.use == StepInputs::trained_on ? mixer_->draw(step.seed, step.iteration) : BatchMix(), staging);
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
