// Image files made by the libraries that read them.
#pragma once

#include <csetjmp>
#include <cstdio>
#include <string>
#include <vector>

#include "data/image.h"

// clang-format off: jpeglib.h needs what stands above
#include <jpeglib.h>
#include <png.h>
// clang-format on

namespace halfstep {

struct PngOptions {
  int color = PNG_COLOR_TYPE_RGB;  // the pixels have its channels
  int bits = 8;                    // 16: two bytes a value, the high one first
  int interlace = PNG_INTERLACE_NONE;
  std::vector<png_color> palette{};
};

inline std::string png_file(int64_t height, int64_t width, const std::vector<uint8_t>& pixels,
                            const PngOptions& options = {}) {
  std::string file;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &file,
      [](png_structp p, png_bytep bytes, size_t count) {
        static_cast<std::string*>(png_get_io_ptr(p))->append(reinterpret_cast<const char*>(bytes), count);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), options.bits,
               options.color, options.interlace, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!options.palette.empty())
    png_set_PLTE(png, info, options.palette.data(), static_cast<int>(options.palette.size()));
  png_write_info(png, info);
  const size_t row_bytes = pixels.size() / static_cast<size_t>(height);
  std::vector<png_bytep> rows;
  for (size_t y = 0; y < static_cast<size_t>(height); ++y)
    rows.push_back(const_cast<png_bytep>(pixels.data()) + y * row_bytes);
  png_write_image(png, rows.data());
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  return file;
}

struct JpegOptions {
  J_COLOR_SPACE color = JCS_RGB;  // of the pixels: JCS_GRAYSCALE, JCS_RGB, JCS_CMYK
  int quality = 95;
  bool progressive = false;
  std::string exif{};  // a marker's content
};

inline std::string jpeg_file(int64_t height, int64_t width, const std::vector<uint8_t>& pixels,
                             const JpegOptions& options = {}) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &buffer, &size);
  info.image_height = static_cast<JDIMENSION>(height), info.image_width = static_cast<JDIMENSION>(width);
  info.input_components = static_cast<int>(pixels.size() / static_cast<size_t>(height * width));
  info.in_color_space = options.color;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, options.quality, TRUE);
  if (options.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  if (!options.exif.empty())
    jpeg_write_marker(&info, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(options.exif.data()),
                      static_cast<unsigned>(options.exif.size()));
  const size_t row_bytes = pixels.size() / static_cast<size_t>(height);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(pixels.data()) + info.next_scanline * row_bytes;
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  std::string file(reinterpret_cast<const char*>(buffer), size);
  jpeg_destroy_compress(&info);
  std::free(buffer);
  return file;
}

// Values that differ along each axis: smooth, so that JPEG keeps them.
inline std::vector<uint8_t> pattern(int64_t height, int64_t width, int64_t channels, int64_t phase = 0) {
  std::vector<uint8_t> pixels;
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      for (int64_t c = 0; c < channels; ++c)
        pixels.push_back(static_cast<uint8_t>((y * 160 / height + x * 80 / width + c * 10 + phase * 7) % 256));
  return pixels;
}

inline std::string exif_orientation(int orientation) {
  std::string exif("Exif\0\0MM\0*\0\0\0\x8\0\x1\x1\x12\0\x3\0\0\0\x1\0", 6 + 8 + 2 + 8 + 1);
  exif += static_cast<char>(orientation);
  return exif + std::string(6, '\0');
}

}  // namespace halfstep
