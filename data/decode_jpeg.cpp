#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "data/image.h"

// clang-format off: the first needs what stands above, the second the first
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

namespace halfstep {
namespace {

constexpr int kMostScans = 500;  // of a progressive file; each is work on all of its pixels

// libjpeg leaves its calls by a jump, so that no object with a destructor may live in the functions below it: they are
// all here.
struct Decoding {
  explicit Decoding(std::span<const std::byte> bytes) : file(bytes) {
    info.err = jpeg_std_error(&errors);
    info.client_data = this;
    errors.error_exit = [](j_common_ptr common) {
      auto& decoding = *static_cast<Decoding*>(common->client_data);
      if (decoding.problem[0] == '\0') common->err->format_message(common, decoding.problem);
      std::longjmp(decoding.jump, 1);
    };
    // Where data is missing or wrong the library would go on with grey.
    errors.emit_message = [](j_common_ptr common, int level) {
      const int code = common->err->msg_code;
      if (level >= 0 || code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR) return;
      common->err->error_exit(common);
    };
    errors.output_message = [](j_common_ptr) {};
    progress.progress_monitor = [](j_common_ptr common) {
      const auto& decompress = *reinterpret_cast<j_decompress_ptr>(common);
      auto& decoding = *static_cast<Decoding*>(common->client_data);
      if (decompress.input_scan_number <= kMostScans) return;
      std::strncpy(decoding.problem, "it has more scans than any picture needs", sizeof decoding.problem - 1);
      common->err->error_exit(common);
    };
  }
  ~Decoding() { jpeg_destroy_decompress(&info); }
  Decoding(const Decoding&) = delete;
  Decoding& operator=(const Decoding&) = delete;

  bool begin() {
    if (setjmp(jump) != 0) return false;
    jpeg_create_decompress(&info);
    info.client_data = this;
    info.progress = &progress;
    jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(file.data()), static_cast<unsigned long>(file.size()));
    jpeg_save_markers(&info, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&info, TRUE);
    return true;
  }
  bool start() {
    if (setjmp(jump) != 0) return false;
    jpeg_start_decompress(&info);
    return true;
  }
  bool finish(uint8_t* pixels, size_t row_bytes) {
    if (setjmp(jump) != 0) return false;
    while (info.output_scanline < info.output_height) {
      JSAMPROW row = pixels + info.output_scanline * row_bytes;
      jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
    return true;
  }
  [[noreturn]] void refuse() const {
    throw Error(errors.msg_code == JWRN_JPEG_EOF || errors.msg_code == JERR_INPUT_EOF
                    ? std::string("it is cut off")
                    : std::string("the JPEG file is corrupt: ") + problem);
  }

  std::span<const std::byte> file;
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump{};
  char problem[JMSG_LENGTH_MAX] = {};
};

// EXIF is a TIFF file in the marker; its first directory has the orientation.
int orientation_of(std::span<const uint8_t> exif) {
  constexpr size_t kEntryBytes = 12;
  constexpr uint32_t kOrientation = 0x112;
  if (exif.size() < 14 || std::memcmp(exif.data(), "Exif\0\0", 6) != 0) return 1;
  const std::span<const uint8_t> tiff = exif.subspan(6);
  const bool little = tiff[0] == 'I';
  const auto number = [&](size_t at, size_t bytes) -> uint32_t {
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value = value << 8 | tiff[at + (little ? bytes - 1 - i : i)];
    return value;
  };
  const size_t directory = number(4, 4);
  if (directory > tiff.size() || tiff.size() - directory < 2) return 1;
  const size_t entries = number(directory, 2);
  for (size_t i = 0; i < entries && (i + 1) * kEntryBytes <= tiff.size() - directory - 2; ++i) {
    const size_t entry = directory + 2 + i * kEntryBytes;
    if (number(entry, 2) == kOrientation) return static_cast<int>(number(entry + 8, 2));
  }
  return 1;
}

}  // namespace

Image decode_jpeg(std::span<const std::byte> file, int64_t most_pixels, int& orientation) {
  Decoding decoding(file);
  if (!decoding.begin()) decoding.refuse();
  jpeg_decompress_struct& info = decoding.info;
  check_image_size(info.image_width, info.image_height, most_pixels);
  for (jpeg_saved_marker_ptr marker = info.marker_list; marker != nullptr; marker = marker->next)
    if (const int found = orientation_of({marker->data, marker->data_length}); found != 1) orientation = found;
  const bool four = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  if (info.jpeg_color_space == JCS_UNKNOWN)
    throw Error("the JPEG file has " + std::to_string(info.num_components) + " channels of an unknown kind");
  info.out_color_space = four ? JCS_CMYK : info.jpeg_color_space == JCS_GRAYSCALE ? JCS_GRAYSCALE : JCS_RGB;
  if (!decoding.start()) decoding.refuse();
  Image image{info.output_height, info.output_width, info.output_components, {}};
  const auto row_bytes = static_cast<size_t>(image.width * image.channels);
  image.pixels.resize(static_cast<size_t>(image.height) * row_bytes);
  if (!decoding.finish(image.pixels.data(), row_bytes)) decoding.refuse();
  // Adobe writes the inks as light.
  if (four && info.saw_Adobe_marker != 0)
    for (uint8_t& value : image.pixels) value = static_cast<uint8_t>(255 - value);
  return image;
}

}  // namespace halfstep
