#include "data/image_files.h"

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "base/parallel.h"
#include "data/byte_source.h"

namespace halfstep {
namespace {

constexpr int64_t kMostFileBytes = int64_t{1} << 30;

class PathFiles final : public ImageFiles {
 public:
  PathFiles(std::string root, std::vector<std::string> paths) : root_(std::move(root)), paths_(std::move(paths)) {}

  int64_t size() const override { return static_cast<int64_t>(paths_.size()); }
  std::string name(int64_t image) const override { return "image '" + path(image).string() + "'"; }
  std::vector<std::byte> read(int64_t image) const override {
    const DataFile file(path(image));
    if (file.size() > kMostFileBytes)
      throw Error(name(image) + ": " + std::to_string(file.size()) + " bytes are too many for an image");
    std::vector<std::byte> bytes(static_cast<size_t>(file.size()));
    bytes.resize(file.read_at(0, bytes));
    return bytes;
  }

 private:
  std::filesystem::path path(int64_t image) const {
    return std::filesystem::path(root_) / paths_[static_cast<size_t>(image)];
  }

  std::string root_;
  std::vector<std::string> paths_;
};

}  // namespace

std::shared_ptr<const ImageFiles> image_files(std::string root, std::vector<std::string> paths) {
  return std::make_shared<const PathFiles>(std::move(root), std::move(paths));
}

Image read_image(const ImageSpan& images, int64_t row, int64_t channels) {
  const int64_t image = images.rows[static_cast<size_t>(row)];
  return decode_image(images.files->read(image), images.files->name(image), channels, images.options.max_image_pixels);
}

std::vector<BadImage> find_bad_images(const ImageSpan& images) {
  std::vector<BadImage> bad;
  std::mutex mutex;
  parallel_stretches(
      images.size(),
      [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) try {
            read_image(images, row, 3);
          } catch (const std::exception& e) {
            const std::lock_guard lock(mutex);
            bad.push_back({row, e.what()});
          }
      },
      1);
  std::ranges::sort(bad, {}, &BadImage::row);
  return bad;
}

}  // namespace halfstep
