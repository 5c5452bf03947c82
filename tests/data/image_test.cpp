// What image files become.
#include "data/image.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include "base/error.h"
#include "data/augment.h"
#include "tests/data/image_writing.h"
#include "tests/recorded.h"

namespace halfstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int64_t kMost = 1 << 20;

Image decode(const std::string& file, int64_t channels = 3, int64_t most = kMost) {
  return decode_image(std::as_bytes(std::span(file)), "image 'x'", channels, most);
}

void refuse(const std::string& file, const std::string& message, int64_t most = kMost) {
  EXPECT_THAT([&] { decode(file, 3, most); }, ThrowsMessage<Error>(HasSubstr("image 'x': " + message)));
}

void expect_near(const Image& image, const std::vector<uint8_t>& pixels, int distance) {
  ASSERT_EQ(image.pixels.size(), pixels.size());
  for (size_t i = 0; i < pixels.size(); ++i) ASSERT_NEAR(image.pixels[i], pixels[i], distance) << i;
}

TEST(Images, PngOfEveryKindIsRead) {
  const std::vector<uint8_t> rgb = pattern(5, 7, 3);
  EXPECT_EQ(decode(png_file(5, 7, rgb)).pixels, rgb);
  EXPECT_EQ(decode(png_file(5, 7, rgb, {.interlace = PNG_INTERLACE_ADAM7})).pixels, rgb);
  const Image grey = decode(png_file(1, 2, {3, 200}, {.color = PNG_COLOR_TYPE_GRAY}));
  EXPECT_THAT(grey.pixels, ElementsAre(3, 3, 3, 200, 200, 200));
  EXPECT_THAT(decode(png_file(1, 1, {10, 20, 30, 0}, {.color = PNG_COLOR_TYPE_RGB_ALPHA})).pixels,
              ElementsAre(10, 20, 30));
  EXPECT_THAT(decode(png_file(1, 1, {9, 0}, {.color = PNG_COLOR_TYPE_GRAY_ALPHA}), 1).pixels, ElementsAre(9));
  EXPECT_THAT(decode(png_file(1, 1, {0x80, 0x00, 0xff, 0xff, 0x00, 0x7f}, {.bits = 16})).pixels,
              ElementsAre(128, 255, 0));
  EXPECT_THAT(
      decode(png_file(1, 2, {1, 0}, {.color = PNG_COLOR_TYPE_PALETTE, .palette = {{1, 2, 3}, {4, 5, 6}}})).pixels,
      ElementsAre(4, 5, 6, 1, 2, 3));
  EXPECT_THAT(decode(png_file(1, 9, {0xa0, 0x80}, {.color = PNG_COLOR_TYPE_GRAY, .bits = 1}), 1).pixels,
              ElementsAre(255, 0, 255, 0, 0, 0, 0, 0, 255));
  // Colour becomes grey as ITU-R 601 weighs it.
  EXPECT_THAT(decode(png_file(1, 3, {255, 0, 0, 0, 255, 0, 0, 0, 255}), 1).pixels, ElementsAre(76, 150, 29));
}

TEST(Images, JpegOfEveryKindIsRead) {
  const std::vector<uint8_t> rgb = pattern(40, 30, 3);
  expect_near(decode(jpeg_file(40, 30, rgb)), rgb, 12);
  expect_near(decode(jpeg_file(40, 30, rgb, {.progressive = true})), rgb, 12);
  const std::vector<uint8_t> grey = pattern(40, 30, 1);
  expect_near(decode(jpeg_file(40, 30, grey, {.color = JCS_GRAYSCALE}), 1), grey, 6);
  // Inks are the light that they leave; the library marks such files as Adobe does, which writes them inverted.
  std::vector<uint8_t> cmyk;
  for (int i = 0; i < 64; ++i) cmyk.insert(cmyk.end(), {255, 128, 0, 255});
  const Image image = decode(jpeg_file(8, 8, cmyk, {.color = JCS_CMYK}));
  EXPECT_NEAR(image.pixels[0], 255, 2);
  EXPECT_NEAR(image.pixels[1], 128, 2);
  EXPECT_NEAR(image.pixels[2], 0, 2);
}

TEST(Images, AreUprightAsExifSays) {
  const std::vector<uint8_t> grey = pattern(32, 16, 1);
  const auto corner = [&](int orientation) {
    const Image image =
        decode(jpeg_file(32, 16, grey, {.color = JCS_GRAYSCALE, .exif = exif_orientation(orientation)}), 1);
    EXPECT_EQ(image.height, orientation > 4 ? 16 : 32) << orientation;
    const auto at = [&](int64_t y, int64_t x) { return static_cast<int>(image.pixels[y * image.width + x]); };
    return std::array<int, 2>{at(0, 0), at(0, image.width - 1)};
  };
  // The file's corners: 0 at the top left, 75 at the top right, 155 at the bottom left, 230 at the bottom right.
  const int expected[][2] = {{0, 75}, {75, 0}, {230, 155}, {155, 230}, {0, 155}, {155, 0}, {230, 75}, {75, 230}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const auto [left, right] = corner(orientation);
    EXPECT_NEAR(left, expected[orientation - 1][0], 6) << orientation;
    EXPECT_NEAR(right, expected[orientation - 1][1], 6) << orientation;
  }
  // What is no orientation changes nothing, and a directory beyond the marker is none.
  EXPECT_EQ(decode(jpeg_file(32, 16, grey, {.color = JCS_GRAYSCALE, .exif = exif_orientation(9)}), 1).height, 32);
  std::string exif = exif_orientation(6);
  exif[6 + 4] = '\x7f';
  EXPECT_EQ(decode(jpeg_file(32, 16, grey, {.color = JCS_GRAYSCALE, .exif = exif}), 1).height, 32);
  for (size_t cut = 0; cut < exif.size(); ++cut)
    EXPECT_NO_THROW(decode(
        jpeg_file(8, 8, pattern(8, 8, 1), {.color = JCS_GRAYSCALE, .exif = exif_orientation(6).substr(0, cut)})));
}

TEST(Images, WhatIsCutOffOrCorruptIsRefused) {
  const std::string png = png_file(20, 20, pattern(20, 20, 3)), jpeg = jpeg_file(60, 60, pattern(60, 60, 3));
  for (const size_t bytes : {size_t{8}, size_t{20}, size_t{40}, png.size() / 2, png.size() - 1})
    refuse(png.substr(0, bytes), "it is cut off");
  for (const size_t bytes : {size_t{3}, size_t{100}, jpeg.size() / 2, jpeg.size() - 40})
    refuse(jpeg.substr(0, bytes), "it is cut off");
  std::string wrong = png;
  wrong[png.size() / 2] ^= 1;
  refuse(wrong, "the PNG file is corrupt: ");
  wrong = jpeg;
  for (size_t i = jpeg.size() / 2; i < jpeg.size() / 2 + 40; ++i) wrong[i] = '\xff';
  refuse(wrong, "");
  refuse("", "it is empty");
  refuse("GIF89a.............", "it is GIF: PNG and JPEG are read, convert it");
  refuse(std::string("\0\0\0\x18"
                     "ftypheic....",
                     16),
         "it is HEIF");
  refuse("<html>", "it is neither PNG nor JPEG");
}

TEST(Images, SizesAreCheckedBeforeAnythingIsAllocated) {
  const std::string png = png_file(20, 30, pattern(20, 30, 3)), jpeg = jpeg_file(20, 30, pattern(20, 30, 3));
  EXPECT_NO_THROW(decode(png, 3, 600));
  refuse(png, "its 30 x 20 pixels are more than max_image_pixels, 599", 599);
  refuse(jpeg, "its 30 x 20 pixels are more than max_image_pixels, 599", 599);
  // A header of 2^31 - 1 by 2^31 - 1.
  std::string bomb = png;
  for (size_t i = 16; i < 24; ++i) bomb[i] = i % 4 == 0 ? '\x7f' : '\xff';
  const uLong sum = ::crc32(0, reinterpret_cast<const Bytef*>(bomb.data() + 12), 17);
  for (size_t i = 0; i < 4; ++i) bomb[29 + i] = static_cast<char>(sum >> (24 - 8 * i));
  refuse(bomb, "its 2147483647 x 2147483647 pixels are more than", int64_t{1} << 40);
}

// Recorded from Pillow 13.0.0: Image.fromarray(pattern).resize((width, height), BILINEAR).
TEST(Images, AreResizedAsPillowDoes) {
  const Image image{7, 11, 3, pattern(7, 11, 3)};
  EXPECT_EQ(
      resize(image, {0, 0, 7, 11}, 3, 4).pixels,
      (std::vector<uint8_t>{27,  37,  47,  45,  55,  65,  65,  75,  85,  83,  93,  103, 76,  86,  96,  94,  104, 114,
                            114, 124, 134, 132, 142, 152, 125, 135, 145, 143, 153, 163, 163, 173, 183, 181, 191, 201}));
  EXPECT_EQ(resize(image, {0, 0, 7, 11}, 9, 5).pixels,
            (std::vector<uint8_t>{6,   16,  26,  19,  29,  39,  36,  46,  56,  52,  62,  72,  66,  76,  86,  21,  31,
                                  41,  34,  44,  54,  51,  61,  71,  67,  77,  87,  81,  91,  101, 38,  48,  58,  51,
                                  61,  71,  68,  78,  88,  84,  94,  104, 98,  108, 118, 56,  66,  76,  69,  79,  89,
                                  86,  96,  106, 102, 112, 122, 116, 126, 136, 74,  84,  94,  87,  97,  107, 104, 114,
                                  124, 120, 130, 140, 134, 144, 154, 92,  102, 112, 105, 115, 125, 122, 132, 142, 138,
                                  148, 158, 152, 162, 172, 110, 120, 130, 123, 133, 143, 140, 150, 160, 156, 166, 176,
                                  170, 180, 190, 128, 138, 148, 141, 151, 161, 158, 168, 178, 174, 184, 194, 188, 198,
                                  208, 143, 153, 163, 156, 166, 176, 173, 183, 193, 189, 199, 209, 203, 213, 223}));
  EXPECT_EQ(resize(image, {0, 0, 7, 11}, 2, 16).pixels,
            (std::vector<uint8_t>{36,  46,  56,  40,  50,  60,  45,  55,  65,  49,  59,  69,  54,  64,  74,  59,
                                  69,  79,  65,  75,  85,  70,  80,  90,  74,  84,  94,  79,  89,  99,  84,  94,
                                  104, 89,  99,  109, 95,  105, 115, 99,  109, 119, 104, 114, 124, 108, 118, 128,
                                  101, 111, 121, 105, 115, 125, 110, 120, 130, 114, 124, 134, 119, 129, 139, 124,
                                  134, 144, 130, 140, 150, 135, 145, 155, 139, 149, 159, 144, 154, 164, 149, 159,
                                  169, 154, 164, 174, 160, 170, 180, 164, 174, 184, 169, 179, 189, 173, 183, 193}));
  EXPECT_EQ(resize(image, {0, 0, 7, 11}, 3, 11).pixels,
            (std::vector<uint8_t>{19,  29,  39,  26,  36,  46,  33,  43,  53,  40,  50,  60,  48,  58,  68,  55,  65,
                                  75,  62,  72,  82,  69,  79,  89,  77,  87,  97,  84,  94,  104, 91,  101, 111, 68,
                                  78,  88,  75,  85,  95,  82,  92,  102, 89,  99,  109, 97,  107, 117, 104, 114, 124,
                                  111, 121, 131, 118, 128, 138, 126, 136, 146, 133, 143, 153, 140, 150, 160, 117, 127,
                                  137, 124, 134, 144, 131, 141, 151, 138, 148, 158, 146, 156, 166, 153, 163, 173, 160,
                                  170, 180, 167, 177, 187, 175, 185, 195, 182, 192, 202, 189, 199, 209}));
  EXPECT_EQ(resize(image, {0, 0, 7, 11}, 7, 3).pixels,
            (std::vector<uint8_t>{12,  22,  32,  36,  46,  56,  60,  70,  80,  34,  44,  54,  58,  68,  78,  82,
                                  92,  102, 57,  67,  77,  81,  91,  101, 105, 115, 125, 80,  90,  100, 104, 114,
                                  124, 128, 138, 148, 103, 113, 123, 127, 137, 147, 151, 161, 171, 126, 136, 146,
                                  150, 160, 170, 174, 184, 194, 149, 159, 169, 173, 183, 193, 197, 207, 217}));
  // The part that is cut out is all that counts.
  const Image part = resize(image, {2, 3, 4, 5}, 4, 5);
  EXPECT_EQ(part.pixels[0], image.pixels[(2 * 11 + 3) * 3]);
  // One so narrow would become too much on its way.
  const Image thread{1 << 20, 1, 1, std::vector<uint8_t>(1 << 20)};
  EXPECT_THAT([&] { resize(thread, {0, 0, 1 << 20, 1}, 4, 4096); },
              ThrowsMessage<Error>(HasSubstr("its sides, 1 x 1048576, differ too much")));
}

TEST(Images, AreFittedAsTorchvisionDoes) {
  const Image image{20, 33, 1, pattern(20, 33, 1)};
  const Image by_size = fitted(image, {16, 16, 18, false});  // 18 x 29, and the middle
  EXPECT_EQ(by_size.pixels.size(), 256u);
  EXPECT_EQ(by_size.pixels, resize(resize(image, {0, 0, 20, 33}, 18, 29), {1, 6, 16, 16}, 16, 16).pixels);
  EXPECT_EQ(fitted(image, {10, 10, 0, false}).pixels,
            resize(resize(image, {0, 0, 20, 33}, 10, 16), {0, 3, 10, 10}, 10, 10).pixels);
  EXPECT_EQ(fitted(image, {8, 4, 0, true}).pixels, resize(image, {0, 0, 20, 33}, 8, 4).pixels);
  const Image narrow{2, 5000, 1, std::vector<uint8_t>(10000)};
  EXPECT_THAT([&] { fitted(narrow, {8, 8, 0, false}); }, ThrowsMessage<Error>(HasSubstr("differ too much")));
}

TEST(Images, AreChangedByChanceTheSameEachTime) {
  const Image image{24, 32, 3, pattern(24, 32, 3)};
  const ImageGeometry geometry{16, 16, 0, false};
  const AugmentOptions all = augment_options({"crop", "flip", "shift", "color", "hue", "cutout"}, 0.2);
  const auto made = [&](uint64_t seed, int64_t epoch, int64_t place) {
    return augmented(image, geometry, all, AugmentRandom(seed, epoch, place)).pixels;
  };
  EXPECT_EQ(made(1, 2, 3), made(1, 2, 3));
  EXPECT_NE(made(1, 2, 3), made(2, 2, 3));
  EXPECT_NE(made(1, 2, 3), made(1, 3, 3));
  EXPECT_NE(made(1, 2, 3), made(1, 2, 4));
  EXPECT_EQ(augmented(image, geometry, {}, AugmentRandom(1, 2, 3)).pixels, fitted(image, geometry).pixels);
  EXPECT_THAT([&] { augment_options({"flips", "mixup"}, 1); },
              ThrowsMessage<Error>(
                  HasSubstr("augment: crop, flip, shift, color, hue or cutout expected, found 'flips'; did you "
                            "mean 'flip'?")));
}

TEST(Images, PartsByChanceLieInsideAndCoverWhatTheyShould) {
  AugmentRandom random(7, 0, 0);
  double least = 1, most = 0;
  for (int i = 0; i < 2000; ++i) {
    const ImagePart p = random_part(60, 90, 0.25, random);
    ASSERT_TRUE(p.top >= 0 && p.left >= 0 && p.top + p.height <= 60 && p.left + p.width <= 90);
    const double area = static_cast<double>(p.height * p.width) / 5400,
                 ratio = static_cast<double>(p.width) / static_cast<double>(p.height);
    least = std::min(least, area), most = std::max(most, area);
    ASSERT_GT(ratio, 0.7);
    ASSERT_LT(ratio, 1.4);
  }
  EXPECT_NEAR(least, 0.25, 0.02);
  EXPECT_GT(most, 0.8);
  const ImagePart strip = random_part(3, 300, 0.9, random);  // no such part is there: the middle
  EXPECT_EQ(strip.height, 3);
  EXPECT_EQ(strip.width, 4);
}

// Recorded from Pillow 13.0.0's ImageEnhance on pattern(3, 4, 3, 2).
TEST(Images, ColoursChangeAsPillowDoes) {
  const auto expect = [](void (*change)(Image&, double), double factor, const std::vector<uint8_t>& pixels) {
    Image image{3, 4, 3, pattern(3, 4, 3, 2)};
    change(image, factor);
    EXPECT_EQ(image.pixels, pixels);
  };
  expect(change_brightness, 1.3,
         {18,  31,  44,  44,  57,  70,  70,  83,  96,  96,  109, 122, 87,  100, 113, 113, 126, 139,
          139, 152, 165, 165, 178, 191, 156, 169, 182, 182, 195, 208, 208, 220, 233, 233, 246, 255});
  expect(change_brightness, 0.55, {7,  13, 18, 18, 24, 29, 29, 35, 40, 40, 46, 51, 36, 42, 47, 47, 53,  58,
                                   58, 64, 69, 69, 75, 80, 66, 71, 77, 77, 82, 88, 88, 93, 99, 99, 104, 110});
  expect(change_contrast, 1.37,
         {0,   0,   7,   7,   21,  35,  35,  48,  62,  62,  76,  89,  52,  66,  80,  80,  94,  107,
          107, 121, 135, 135, 148, 162, 125, 139, 152, 152, 166, 180, 180, 194, 207, 207, 221, 235});
  expect(change_contrast, 0.6,
         {50,  56,  62,  62,  68,  74,  74,  80,  86,  86,  92,  98,  82,  88,  94,  94,  100, 106,
          106, 112, 118, 118, 124, 130, 114, 120, 126, 126, 132, 138, 138, 144, 150, 150, 156, 162});
  expect(change_saturation, 1.4,
         {10,  24,  38,  30,  44,  58,  50,  64,  78,  70,  84,  98,  63,  77,  91,  83,  97,  111,
          103, 117, 131, 123, 137, 151, 116, 130, 144, 136, 150, 164, 156, 170, 184, 176, 190, 204});
  expect(change_saturation, 0.3,
         {19,  22,  25,  39,  42,  45,  59,  62,  65,  79,  82,  85,  72,  75,  78,  92,  95,  98,
          112, 115, 118, 132, 135, 138, 125, 128, 131, 145, 148, 151, 165, 168, 171, 185, 188, 191});
}

// Recorded from torchvision's adjust_hue (tools/record_images.py).
TEST(Images, HuesTurnAsTorchvisionTurnsThem) {
  Image image{4, 5, 3, pattern(4, 5, 3, 31)};
  const std::vector<uint8_t> other = pattern(4, 5, 3, 3);
  for (size_t i = 0; i < other.size(); ++i) image.pixels[i] ^= static_cast<uint8_t>(other[i] * 3);
  const nlohmann::json reference = recorded("images");
  for (const nlohmann::json& c : reference.at("hues")) {
    Image turned = image;
    change_hue(turned, c.at("factor"));
    EXPECT_EQ(turned.pixels, c.at("pixels").get<std::vector<uint8_t>>()) << c.at("factor");
  }
  Image grey{1, 3, 1, {1, 2, 3}};
  change_hue(grey, 0.3);
  EXPECT_THAT(grey.pixels, ElementsAre(1, 2, 3));
}

TEST(Images, AreFlippedAndShifted) {
  Image image{2, 3, 1, {1, 2, 3, 4, 5, 6}};
  flip(image);
  EXPECT_THAT(image.pixels, ElementsAre(3, 2, 1, 6, 5, 4));
  shift(image, 1, -1);
  EXPECT_THAT(image.pixels, ElementsAre(0, 0, 0, 2, 1, 0));
  Image white{32, 32, 3, std::vector<uint8_t>(32 * 32 * 3, 255)};
  AugmentRandom random(3, 0, 1);
  cut_out(white, {1, 2, 3}, random);
  const auto gone = std::ranges::count(white.pixels, 1);
  EXPECT_GT(gone, 15);
  EXPECT_LT(gone, 360);
  EXPECT_EQ(std::ranges::count(white.pixels, 3), gone);
}

}  // namespace
}  // namespace halfstep
