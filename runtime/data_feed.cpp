#include "runtime/data_feed.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/philox.h"

namespace halfstep {
namespace {

// Keeps the data order's random numbers apart from those of the graph, which use the seed itself as the key.
constexpr uint64_t kOrderKey = 0x6f72646572206f66;

// Batches below this size are copied by the calling thread: waking others would take longer.
constexpr int64_t kParallelBytes = 1 << 20;

bool can_convert(DType from, DType to) {
  if (from == to || is_floating(to)) return true;
  return !is_floating(from) && (to == DType::i32 || to == DType::i64);
}

template <typename T>
void store(std::span<std::byte> to, T value) {
  require(to.size() == sizeof value, "staging span has the input's size");
  std::memcpy(to.data(), &value, sizeof value);
}

int64_t sample_elements(const TensorType& type) { return type.element_count() / type.shape[0]; }

bool fits(const TensorType& array, const TensorType& input) {
  return !input.shape.empty() && input.shape[0] > 0 && sample_elements(array) == sample_elements(input) &&
         can_convert(array.dtype, input.dtype);
}

// Pairs every data input with an array: by name first, what is left over in order among those that fit.
std::vector<const NamedArray*> match_arrays(const Dataset& dataset, const std::vector<const Buffer*>& inputs,
                                            const Program& program) {
  std::vector<const NamedArray*> matched(inputs.size(), nullptr);
  std::vector<const NamedArray*> left;
  for (const NamedArray& array : dataset.arrays) {
    const auto input = std::ranges::find_if(inputs, [&](const Buffer* b) { return b->name == array.name; });
    if (input == inputs.end()) {
      left.push_back(&array);
    } else {
      matched[static_cast<size_t>(input - inputs.begin())] = &array;
    }
  }
  if (static_cast<size_t>(std::ranges::count(matched, nullptr)) != left.size()) {
    std::string wants, has;
    for (const Buffer* input : inputs) wants += (wants.empty() ? "'" : ", '") + input->name + "'";
    for (const NamedArray& array : dataset.arrays) has += (has.empty() ? "'" : ", '") + array.name + "'";
    throw Error("program '" + program.name + "' has the inputs " + wants + ", the data set the arrays " + has +
                ": give one array for each input");
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (matched[i] != nullptr) continue;
    auto array = std::ranges::find_if(left, [&](const NamedArray* a) { return fits(a->values.type, inputs[i]->type); });
    if (array == left.end()) array = left.begin();  // the binding says what does not fit
    matched[i] = *array;
    left.erase(array);
  }
  return matched;
}

}  // namespace

std::vector<int64_t> stored_order(int64_t samples) {
  std::vector<int64_t> order(static_cast<size_t>(samples));
  std::iota(order.begin(), order.end(), int64_t{0});
  return order;
}

std::vector<int64_t> epoch_order(uint64_t seed, int64_t epoch, int64_t samples) {
  std::vector<int64_t> order = stored_order(samples);
  const uint32_t epoch_low = static_cast<uint32_t>(epoch), epoch_high = static_cast<uint32_t>(epoch >> 32);
  for (uint64_t i = order.size(); i-- > 1;) {
    const PhiloxBlock block =
        philox({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), epoch_low, epoch_high}, seed ^ kOrderKey);
    const uint64_t word = uint64_t{block[1]} << 32 | block[0];
    // The high half of a 128-bit product maps the word to [0, i]; its bias is below 2^-32 for any real data set.
    const auto j = static_cast<uint64_t>(static_cast<unsigned __int128>(word) * (i + 1) >> 64);
    std::swap(order[i], order[j]);
  }
  return order;
}

DataFeed::DataFeed(const Dataset& dataset, const Program& program,
                   const std::map<std::string, Normalization>& normalization) {
  std::vector<const Buffer*> inputs;
  std::vector<size_t> places;
  Problems problems;
  size_t place = 0;
  const auto reserve = [&](const Buffer& buffer, DType dtype, std::optional<size_t>& where) {
    if (buffer.type != TensorType{dtype, {}})
      problems.add("input '" + buffer.name + "': expected " + to_string(TensorType{dtype, {}}) + ", found " +
                   to_string(buffer.type));
    where = place;
  };
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::input) continue;
    if (buffer.name == "step.learning_rate") {
      reserve(buffer, DType::f32, learning_rate_);
    } else if (buffer.name == "step.iteration") {
      reserve(buffer, DType::i32, iteration_);
    } else if (buffer.name == "step.seed") {
      reserve(buffer, DType::i64, seed_);
    } else {
      inputs.push_back(&buffer);
      places.push_back(place);
    }
    ++place;
  }
  if (inputs.empty()) throw Error("program '" + program.name + "' has no data inputs");
  const std::vector<const NamedArray*> arrays = match_arrays(dataset, inputs, program);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Buffer& input = *inputs[i];
    bind(input, places[i], *arrays[i], problems);
    if (const auto found = normalization.find(input.name); found != normalization.end() && problems.empty())
      normalize(input, found->second, bindings_.back(), problems);
  }
  for (const auto& [input_name, unused] : normalization)
    if (std::ranges::none_of(inputs, [&](const Buffer* b) { return b->name == input_name; }))
      problems.add("normalization is given for '" + input_name + "', which is not an input of the program");
  problems.throw_if_any();
}

void DataFeed::bind(const Buffer& input, size_t index, const NamedArray& array, Problems& problems) {
  const std::string where = "input '" + input.name + "': ";
  const TensorType& type = array.values.type;
  if (input.type.shape.empty() || input.type.shape[0] < 1) {
    problems.add(where + "it has no batch axis: " + to_string(input.type));
    return;
  }
  const int64_t batch = input.type.shape[0];
  if (batch_ == 0) batch_ = batch;
  if (batch != batch_)
    problems.add(where + "batch " + std::to_string(batch) + ", but other inputs have " + std::to_string(batch_));
  Binding binding{.input = index,
                  .array = &array.values,
                  .dtype = input.type.dtype,
                  .elements = sample_elements(input.type),
                  .channel_elements = sample_elements(input.type),
                  .factor = {},
                  .offset = {},
                  .table = {}};
  if (const int64_t found = sample_elements(type); found != binding.elements)
    problems.add(where + to_string(input.type) + " takes " + std::to_string(binding.elements) +
                 " elements a sample, but data array '" + array.name + "' " + to_string(type) + " has " +
                 std::to_string(found));
  if (!can_convert(type.dtype, input.type.dtype))
    problems.add(where + "expected " + std::string(name(input.type.dtype)) + ", but data array '" + array.name +
                 "' is " + std::string(name(type.dtype)));
  bindings_.push_back(std::move(binding));
}

void DataFeed::normalize(const Buffer& input, const Normalization& normalization, Binding& binding,
                         Problems& problems) {
  const std::string where = "normalization of input '" + input.name + "': ";
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
      for (int64_t row = begin; row < end; ++row) {
        const int64_t sample = samples[std::min(static_cast<size_t>(row), samples.size() - 1)];
        copy_sample(binding, binding.array->data.data() + sample * from_bytes, to.data() + row * to_bytes);
      }
    };
    if (to_bytes * batch_ < kParallelBytes) {
      copy_rows(0, batch_);
    } else {
      tbb::parallel_for(tbb::blocked_range<int64_t>(0, batch_),
                        [&](const tbb::blocked_range<int64_t>& rows) { copy_rows(rows.begin(), rows.end()); });
    }
  }
  if (learning_rate_) store(staging[*learning_rate_], static_cast<float>(step.learning_rate));
  if (iteration_) store(staging[*iteration_], static_cast<int32_t>(step.iteration));
  if (seed_) store(staging[*seed_], static_cast<int64_t>(step.seed));
}

}  // namespace halfstep
