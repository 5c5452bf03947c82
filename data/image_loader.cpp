#include "data/image_loader.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"

namespace halfstep {
namespace {

constexpr int64_t kMostBytesAhead = int64_t{1} << 29;
constexpr int64_t kBatchesAhead = 4;

bool is_channels(int64_t size) { return size == 1 || size == 3; }

}  // namespace

void write_pixels(const Image& image, const ImageInput& input, std::byte* to) {
  const auto* from = reinterpret_cast<const std::byte*>(image.pixels.data());
  if (input.channels_last || image.channels == 1) {
    std::memcpy(to, from, image.pixels.size());
    return;
  }
  const int64_t pixels = image.height * image.width;
  for (int64_t c = 0; c < image.channels; ++c)
    for (int64_t i = 0; i < pixels; ++i) to[c * pixels + i] = from[i * image.channels + c];
}

Image read_pixels(const std::byte* from, const ImageInput& input) {
  Image image{input.geometry.height, input.geometry.width, input.channels, {}};
  image.pixels.resize(static_cast<size_t>(input.bytes()));
  const int64_t pixels = image.height * image.width;
  const bool planes = !input.channels_last && image.channels > 1;
  for (int64_t i = 0; i < input.bytes(); ++i)
    image.pixels[static_cast<size_t>(planes ? i % pixels * image.channels + i / pixels : i)] =
        static_cast<uint8_t>(from[i]);
  return image;
}

bool takes_images(const Buffer& input) {
  const Shape& shape = input.type.shape;
  return input.type.dtype == DType::u8 &&
         (shape.size() == 3 || (shape.size() == 4 && (is_channels(shape[1]) || is_channels(shape[3]))));
}

ImageInput image_input(const Buffer& input, const DataOptions& options) {
  const std::string where = "input '" + input.name.text + "': ";
  const Shape& shape = input.type.shape;
  if (shape.size() >= 3 && is_floating(input.type.dtype))
    throw Error(where + "it takes " + to_string(input.type) +
                ", and images are bytes: say with scale what they are multiplied by (0.00392157 makes 0 to 255 0 to "
                "1), with mean and std as the model was trained");
  if (!takes_images(input))
    throw Error(where + to_string(input.type) +
                " takes no images, which are [batch, channels, height, width] or [batch, height, width, channels] with "
                "1 or 3 channels");
  ImageInput result;
  // Where both axes could be the channels', ONNX has them first.
  result.channels_last = shape.size() == 4 && !is_channels(shape[1]);
  result.channels = shape.size() == 3 ? 1 : shape[result.channels_last ? 3 : 1];
  const size_t height = shape.size() == 3 || result.channels_last ? 1 : 2;
  result.geometry = {shape[height], shape[height + 1], options.resize, options.image_fit == "stretch"};
  if (!result.geometry.stretch && options.resize > 0 &&
      options.resize < std::max(result.geometry.height, result.geometry.width))
    throw Error("resize: " + std::to_string(options.resize) + " is less than a side of input '" + input.name.text +
                "', " + to_string(input.type) + ", which is cut out of the resized image");
  return result;
}

ImageLoader::ImageLoader(const ImageSpan& images, const ImageInput& input, const AugmentOptions& augment, int64_t batch)
    : images_(images), input_(input), augment_(augment) {
  const int64_t most = std::max<int64_t>(kMostBytesAhead / std::max<int64_t>(input.bytes(), 1), 1);
  slots_.resize(static_cast<size_t>(std::clamp<int64_t>(kBatchesAhead * batch, 1, most)));
}

ImageLoader::~ImageLoader() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  room_.notify_all();
}

void ImageLoader::make(int64_t sample, const AugmentRandom* random, std::span<std::byte> to) const {
  const Image image = read_image(images_, sample, input_.channels);
  try {
    const Image made =
        random != nullptr ? augmented(image, input_.geometry, augment_, *random) : fitted(image, input_.geometry);
    require(made.pixels.size() == to.size(), "an image has the input's size");
    write_pixels(made, input_, to.data());
  } catch (const Error& e) {
    throw Error(images_.files->name(images_.rows[static_cast<size_t>(sample)]) + ": " + e.what());
  }
}

void ImageLoader::work() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);  // they are another thread's
  std::unique_lock lock(mutex_);
  for (;;) {
    room_.wait(lock, [&] { return ends_ || (begun_ < order_.samples.size() && begun_ < taken_ + slots_.size()); });
    if (ends_) return;
    const size_t place = begun_++;
    const int64_t sample = order_.samples[place];
    const AugmentRandom random(order_.seed, order_.epoch, order_.position + static_cast<int64_t>(place));
    Slot& slot = slots_[place % slots_.size()];
    ++busy_;
    lock.unlock();
    std::string problem;
    try {
      slot.bytes.resize(static_cast<size_t>(input_.bytes()));
      make(sample, images_.training ? &random : nullptr, slot.bytes);
    } catch (const std::exception& e) {
      problem = e.what();
      if (problem.empty()) problem = "an image cannot be decoded";
    }
    lock.lock();
    slot.problem = std::move(problem);
    slot.ready = true;
    --busy_;
    ready_.notify_all();
  }
}

// What was announced and not taken is forgotten.
void ImageLoader::withdraw(std::unique_lock<std::mutex>& lock) {
  order_ = {};
  begun_ = taken_ = 0;
  ready_.wait(lock, [&] { return busy_ == 0; });
  for (Slot& slot : slots_) slot.ready = false;
}

void ImageLoader::announce(ImageOrder order) {
  std::unique_lock lock(mutex_);
  withdraw(lock);
  order_ = std::move(order);
  const int64_t wanted =
      images_.options.loader_threads > 0 ? images_.options.loader_threads : int64_t{usable_processors()};
  while (static_cast<int64_t>(threads_.size()) < wanted) try {
      threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // no more threads for this user
      if (threads_.empty()) order_ = {};  // `fill` decodes itself
      break;
    }
  lock.unlock();
  room_.notify_all();
}

void ImageLoader::fill_now(std::span<const int64_t> samples, std::span<std::byte> to) const {
  const auto bytes = static_cast<size_t>(input_.bytes());
  std::vector<std::string> problems(samples.size());
  parallel_stretches(
      static_cast<int64_t>(samples.size()),
      [&](int64_t begin, int64_t end) {
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) try {
            make(samples[i], nullptr, to.subspan(i * bytes, bytes));
          } catch (const std::exception& e) {
            problems[i] = e.what();
          }
      },
      1);
  for (const std::string& problem : problems)
    if (!problem.empty()) throw Error(problem);
}

void ImageLoader::fill(std::span<const int64_t> samples, std::span<std::byte> to) {
  const auto bytes = static_cast<size_t>(input_.bytes());
  require(to.size() >= samples.size() * bytes, "staging span has the input's size");
  std::unique_lock lock(mutex_);
  const std::span<const int64_t> rest = std::span<const int64_t>(order_.samples).subspan(taken_);
  if (rest.size() < samples.size() || !std::ranges::equal(rest.first(samples.size()), samples)) {
    lock.unlock();
    fill_now(samples, to);
    return;
  }
  for (size_t i = 0; i < samples.size(); ++i) {
    Slot& slot = slots_[taken_ % slots_.size()];
    const auto start = std::chrono::steady_clock::now();
    ready_.wait(lock, [&] { return slot.ready; });
    waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!slot.problem.empty()) throw Error(slot.problem + "; bad_images skip leaves out what cannot be decoded");
    lock.unlock();  // until it is taken the slot is this thread's
    std::memcpy(to.data() + i * bytes, slot.bytes.data(), bytes);
    lock.lock();
    slot.ready = false;
    ++taken_;
    room_.notify_one();
  }
}

}  // namespace halfstep
