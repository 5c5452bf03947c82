// Images of a data set: where their files lie. They are read and decoded when they are needed.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/augment.h"
#include "data/data_options.h"

namespace halfstep {

class ImageFiles {
 public:
  virtual ~ImageFiles() = default;
  virtual int64_t size() const = 0;
  virtual std::string name(int64_t image) const = 0;             // for messages, quoted
  virtual std::vector<std::byte> read(int64_t image) const = 0;  // all of the file; Error where it cannot be
  // Images of one number lie near one another, as in one shard.
  virtual int64_t group(int64_t) const { return 0; }
};

// `paths` are relative to `root`.
std::shared_ptr<const ImageFiles> image_files(std::string root, std::vector<std::string> paths);

// Some of them, in an order, with what is done to each.
struct ImageSpan {
  std::shared_ptr<const ImageFiles> files;
  std::vector<int64_t> rows;
  bool training = false;  // augmented
  DataOptions options{};

  int64_t size() const { return static_cast<int64_t>(rows.size()); }
};

// The image as `channels` channels. Error naming its file.
Image read_image(const ImageSpan& images, int64_t row, int64_t channels);

// Reads all of them, on all processors: the rows that cannot be decoded, and why.
struct BadImage {
  int64_t row = 0;
  std::string problem;
};
std::vector<BadImage> find_bad_images(const ImageSpan& images);

}  // namespace halfstep
