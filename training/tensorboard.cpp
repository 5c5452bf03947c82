#include "training/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/crc32c.h"
#include "base/error.h"
#include "training/checkpoint_state.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

// ---- protobuf's wire format ----

enum WireType : uint8_t { kVarint = 0, kEight = 1, kBytes = 2, kFour = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string tag(uint32_t field, WireType type) { return varint(field << 3 | type); }
template <typename T>
std::string fixed(T value) {
  static_assert(std::endian::native == std::endian::little);
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string number(uint32_t field, int64_t value) { return tag(field, kVarint) + varint(static_cast<uint64_t>(value)); }
std::string real(uint32_t field, double value) { return tag(field, kEight) + fixed(value); }
std::string single(uint32_t field, float value) { return tag(field, kFour) + fixed(value); }
std::string bytes(uint32_t field, std::string_view content) {
  return tag(field, kBytes) + varint(content.size()) + std::string(content);
}
std::string reals(uint32_t field, const std::vector<double>& values) {
  std::string packed;
  for (const double value : values) packed += fixed(value);
  return bytes(field, packed);
}

// Fields of tensorflow/core/util/event.proto, framework/summary.proto and tensor.proto.
constexpr uint32_t kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
constexpr uint32_t kStatus = 1;  // of a session
constexpr int64_t kStart = 1;
constexpr uint32_t kValue = 1, kTag = 1, kSimpleValue = 2, kHistogram = 5, kTensor = 8, kMetadata = 9;
constexpr uint32_t kMin = 1, kMax = 2, kNumber = 3, kSum = 4, kSumOfSquares = 5, kLimits = 6, kCounts = 7;
constexpr uint32_t kPluginData = 1, kPluginName = 1;
constexpr uint32_t kTensorType = 1, kTensorShape = 2, kStringValue = 8, kDimension = 2, kSize = 1;
constexpr int64_t kString = 7;

// As TFRecord masks what is a checksum of bytes that hold checksums.
uint32_t masked(std::string_view content) {
  const uint32_t crc = crc32c(content);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::string record(std::string_view content) {
  const std::string length = fixed(static_cast<uint64_t>(content.size()));
  return length + fixed(masked(length)) + std::string(content) + fixed(masked(content));
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::vector<float> spread(std::span<const float> values, size_t most) {
  if (values.size() <= most) return {values.begin(), values.end()};
  std::vector<float> chosen;
  chosen.reserve(most);
  for (size_t i = 0; i < most; ++i) chosen.push_back(values[i * values.size() / most]);
  return chosen;
}

void add(std::vector<EventFile::Scalar>& scalars, const std::string& tag, const std::optional<double>& value) {
  if (value) scalars.push_back({tag, *value});
}

void add(std::vector<EventFile::Scalar>& scalars, const std::string& group, const std::vector<LossRow>& losses) {
  for (const LossRow& row : losses) {
    scalars.push_back({group + "loss." + row.name, row.loss});
    add(scalars, group + "accuracy." + row.name, row.accuracy);
  }
}

void add(std::vector<EventFile::Scalar>& scalars, const std::string& group,
         const std::optional<TokenMeasures>& tokens) {
  if (!tokens) return;
  scalars.push_back({group + "perplexity", tokens->perplexity});
  add(scalars, group + "bits_per_byte", tokens->bits_per_byte);
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& directory) {
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) throw Error("cannot create directory '" + directory.string() + "': " + failed.message());
  const auto seconds = static_cast<int64_t>(now());
  path_ =
      directory / ("events.out.tfevents." + std::to_string(seconds) + "." + std::to_string(::getpid()) + ".halfstep");
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw Error("cannot open event file '" + path_ + "': " + std::strerror(errno));
  write_event(0, bytes(kFileVersion, "brain.Event:2"));
}

EventFile::~EventFile() { ::close(fd_); }

void EventFile::scalars(int64_t step, const std::vector<Scalar>& values) {
  std::string summary;
  for (const Scalar& scalar : values)
    summary += bytes(kValue, bytes(kTag, scalar.tag) + single(kSimpleValue, static_cast<float>(scalar.value)));
  write_event(step, bytes(kSummary, summary));
}

void EventFile::histogram(int64_t step, const std::string& name, std::span<const float> values) {
  constexpr size_t kParts = 40;
  double least = INFINITY, greatest = -INFINITY, count = 0, sum = 0, squares = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    const double v = static_cast<double>(value);
    least = std::min(least, v), greatest = std::max(greatest, v);
    ++count, sum += v, squares += v * v;
  }
  if (count == 0) return;
  std::vector<double> limits(kParts), counts(kParts);
  const double width = (greatest - least) / kParts;
  for (size_t i = 0; i < kParts; ++i)
    limits[i] = i + 1 == kParts ? greatest : least + width * static_cast<double>(i + 1);
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    const double place = width > 0 ? (static_cast<double>(value) - least) / width : 0;
    ++counts[std::min(kParts - 1, static_cast<size_t>(place))];
  }
  if (width == 0) limits = {greatest}, counts = {count};
  const std::string histogram = real(kMin, least) + real(kMax, greatest) + real(kNumber, count) + real(kSum, sum) +
                                real(kSumOfSquares, squares) + reals(kLimits, limits) + reals(kCounts, counts);
  write_event(step, bytes(kSummary, bytes(kValue, bytes(kTag, name) + bytes(kHistogram, histogram))));
}

void EventFile::text(int64_t step, const std::string& name, const std::string& markdown) {
  const std::string shape = bytes(kDimension, number(kSize, 1));
  const std::string tensor = number(kTensorType, kString) + bytes(kTensorShape, shape) + bytes(kStringValue, markdown);
  const std::string metadata = bytes(kPluginData, bytes(kPluginName, "text"));
  write_event(step,
              bytes(kSummary, bytes(kValue, bytes(kTag, name) + bytes(kTensor, tensor) + bytes(kMetadata, metadata))));
}

void EventFile::begins_again(int64_t step) { write_event(step, bytes(kSessionLog, number(kStatus, kStart))); }

// Each record goes to the system in one write: a run that dies leaves whole ones.
void EventFile::write_event(int64_t step, std::string_view content) {
  const std::string whole = record(real(kWallTime, now()) + number(kStep, step) + std::string(content));
  for (size_t done = 0; done < whole.size();) {
    const ssize_t n = ::write(fd_, whole.data() + done, whole.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error("cannot write event file '" + path_ + "': " + std::strerror(errno));
    done += static_cast<size_t>(n);
  }
}

TensorBoard::TensorBoard(const std::filesystem::path& out, const Recipe& recipe, Executor& executor)
    : file_(out / "tensorboard"), executor_(executor), every_steps_(recipe.metrics_every) {
  std::string text;
  for (const RecipeKey& key : recipe_keys())
    if (const std::string value = key.get(recipe); !value.empty()) text += "    " + key.name + " = " + value + "\n";
  file_.text(0, "recipe", text);
}

void TensorBoard::run_begun(int64_t step) {
  if (step > 0) file_.begins_again(step + 1);
}

void TensorBoard::step_finished(const StepRow& row) {
  if (every_steps_ <= 0 || row.step % every_steps_ != 0) return;
  std::vector<EventFile::Scalar> scalars{{"train/loss", row.loss}, {"train/learning_rate", row.learning_rate}};
  add(scalars, "train/accuracy", row.accuracy);
  add(scalars, "train/", row.losses);
  add(scalars, "train/", row.tokens);
  add(scalars, "train/loss_scale", row.loss_scale);
  scalars.push_back({"train/skipped", row.skipped ? 1.0 : 0.0});
  scalars.push_back({"train/samples_per_second", row.samples_per_second});
  file_.scalars(row.step, scalars);
}

void TensorBoard::epoch_finished(const EpochRow& row) {
  std::vector<EventFile::Scalar> scalars{{"epoch/loss", row.loss}, {"epoch/seconds", row.seconds}};
  add(scalars, "epoch/accuracy", row.accuracy);
  if (row.test) {
    scalars.push_back({"test/loss", row.test->loss});
    add(scalars, "test/accuracy", row.test->accuracy);
    add(scalars, "test/", row.test->losses);
    add(scalars, "test/", row.test->tokens);
    for (const MeasureValue& measure : row.test->measures.values)
      scalars.push_back({"test/" + measure.name, measure.value});
  }
  file_.scalars(row.step, scalars);
  histograms(row.step, "weights/", read_weights(executor_));
}

void TensorBoard::gradients_read(const EpochRow& row, const FileTensors& gradients) {
  histograms(row.step, "gradients/", gradients);
  double square = 0;
  for (const auto& [name, gradient] : gradients)
    for (const float value : gradient.as<float>()) square += static_cast<double>(value) * static_cast<double>(value);
  file_.scalars(row.step, {{"epoch/gradient_norm", std::sqrt(square)}});
}

void TensorBoard::histograms(int64_t step, const std::string& group, const FileTensors& tensors) {
  for (const auto& [name, tensor] : tensors)
    if (tensor.type.dtype == DType::f32) file_.histogram(step, group + name, spread(tensor.as<float>(), kMostBinned));
}

}  // namespace halfstep
