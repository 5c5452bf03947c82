#include <png.h>

#include <csetjmp>
#include <cstring>

#include "base/error.h"
#include "data/image.h"

namespace halfstep {
namespace {

constexpr size_t kMostChunkBytes = size_t{1} << 26;

struct Source {
  std::span<const std::byte> rest;
  char problem[160] = {};
};

void read(png_structp png, png_bytep into, size_t bytes) {
  auto& source = *static_cast<Source*>(png_get_io_ptr(png));
  if (bytes > source.rest.size()) png_error(png, "it is cut off");
  std::memcpy(into, source.rest.data(), bytes);
  source.rest = source.rest.subspan(bytes);
}

[[noreturn]] void fail(png_structp png, png_const_charp message) {
  auto& source = *static_cast<Source*>(png_get_error_ptr(png));
  std::strncpy(source.problem, message, sizeof source.problem - 1);
  std::longjmp(*png_set_longjmp_fn(png, std::longjmp, sizeof(std::jmp_buf)), 1);
}
void ignore(png_structp, png_const_charp) {}

// libpng leaves its calls by a jump, so that no object with a destructor may live in the functions below it: they are
// all here.
struct Decoding {
  explicit Decoding(std::span<const std::byte> file) : source{file} {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, fail, ignore);
    if (png != nullptr) info = png_create_info_struct(png);
    if (info == nullptr) throw Error("out of memory");
  }
  ~Decoding() { png_destroy_read_struct(&png, &info, nullptr); }
  Decoding(const Decoding&) = delete;
  Decoding& operator=(const Decoding&) = delete;

  bool begin() {
    if (setjmp(*png_set_longjmp_fn(png, std::longjmp, sizeof(std::jmp_buf))) != 0) return false;
    png_set_read_fn(png, &source, read);
    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // the product is what counts
    png_set_chunk_malloc_max(png, kMostChunkBytes);
    png_read_info(png, info);
    return true;
  }
  // Grey or colours of 8 bits, without transparency.
  bool convert() {
    if (setjmp(*png_set_longjmp_fn(png, std::longjmp, sizeof(std::jmp_buf))) != 0) return false;
    png_set_scale_16(png);
    png_set_expand(png);
    png_set_strip_alpha(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    return true;
  }
  bool finish(png_bytepp rows) {
    if (setjmp(*png_set_longjmp_fn(png, std::longjmp, sizeof(std::jmp_buf))) != 0) return false;
    png_read_image(png, rows);
    png_read_end(png, nullptr);
    return true;
  }
  [[noreturn]] void refuse() const {
    const std::string problem = source.problem;
    throw Error(problem == "it is cut off" ? problem : "the PNG file is corrupt: " + problem);
  }

  Source source;
  png_structp png = nullptr;
  png_infop info = nullptr;
};

}  // namespace

Image decode_png(std::span<const std::byte> file, int64_t most_pixels) {
  Decoding decoding(file);
  if (!decoding.begin()) decoding.refuse();
  check_image_size(png_get_image_width(decoding.png, decoding.info), png_get_image_height(decoding.png, decoding.info),
                   most_pixels);
  if (!decoding.convert()) decoding.refuse();
  Image image{png_get_image_height(decoding.png, decoding.info),
              png_get_image_width(decoding.png, decoding.info),
              png_get_channels(decoding.png, decoding.info),
              {}};
  const size_t row_bytes = png_get_rowbytes(decoding.png, decoding.info);
  if ((image.channels != 1 && image.channels != 3) || row_bytes != static_cast<size_t>(image.width * image.channels))
    throw Error("the PNG file has " + std::to_string(image.channels) + " channels of an unknown kind");
  image.pixels.resize(static_cast<size_t>(image.height) * row_bytes);
  std::vector<png_bytep> rows(static_cast<size_t>(image.height));
  for (size_t y = 0; y < rows.size(); ++y) rows[y] = image.pixels.data() + y * row_bytes;
  if (!decoding.finish(rows.data())) decoding.refuse();
  return image;
}

}  // namespace halfstep
