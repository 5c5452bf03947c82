// Images decoded by threads of their own, ahead of the step that takes them.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "data/image_files.h"
#include "program/program.h"

namespace halfstep {

// How an input takes images: bytes [batch, channels, height, width], [batch, height, width, channels] or [batch,
// height, width].
struct ImageInput {
  ImageGeometry geometry;
  int64_t channels = 0;
  bool channels_last = false;

  int64_t bytes() const { return geometry.height * geometry.width * channels; }
};
// Error saying what such an input is, where it is none.
ImageInput image_input(const Buffer& input, const DataOptions& options);
bool takes_images(const Buffer& input);
// A sample's bytes as such an input has them, and back.
void write_pixels(const Image& image, const ImageInput& input, std::byte* to);
Image read_pixels(const std::byte* from, const ImageInput& input);

// An epoch's samples from some place in it on.
struct ImageOrder {
  std::vector<int64_t> samples{};
  uint64_t seed = 0;
  int64_t epoch = 0, position = 0;  // of the first of them
};

class ImageLoader {
 public:
  ImageLoader(const ImageSpan& images, const ImageInput& input, const AugmentOptions& augment, int64_t batch);
  ~ImageLoader();
  ImageLoader(const ImageLoader&) = delete;
  ImageLoader& operator=(const ImageLoader&) = delete;

  // What `fill` is going to ask for, in this order: threads begin with it. Of training images each is changed by
  // chance, by (seed, epoch, place in it) alone, whatever the number of threads.
  void announce(ImageOrder order);
  // The samples as the input has them, one after the other. What was not announced as the next is decoded now, and not
  // changed by chance. Error naming the image that cannot be decoded.
  void fill(std::span<const int64_t> samples, std::span<std::byte> to);
  // Seconds that fill waited for images since the loader was made.
  double waited() const { return waited_; }

 private:
  struct Slot {
    std::vector<std::byte> bytes;
    std::string problem;
    bool ready = false;
  };
  void work();
  void withdraw(std::unique_lock<std::mutex>& lock);
  void make(int64_t sample, const AugmentRandom* random, std::span<std::byte> to) const;
  void fill_now(std::span<const int64_t> samples, std::span<std::byte> to) const;

  const ImageSpan& images_;
  const ImageInput input_;
  const AugmentOptions augment_;
  std::mutex mutex_;
  std::condition_variable room_, ready_;
  ImageOrder order_;
  size_t begun_ = 0, taken_ = 0;  // of the order
  int64_t busy_ = 0;              // threads that decode
  bool ends_ = false;
  std::vector<Slot> slots_;
  double waited_ = 0;
  std::vector<std::jthread> threads_;
};

}  // namespace halfstep
