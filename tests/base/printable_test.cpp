#include "base/printable.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace halfstep {
namespace {

TEST(Printable, OrdinaryTextStays) {
  for (const std::string text : {"", "layer/1.weight", "a\\b", "Größe 重み ✓ █", "\xf0\x9f\x99\x82"})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, WhatMovesTheCursorOrReordersALineIsEscaped) {
  EXPECT_EQ(printable("\x1b[2J\r\a\b\t\x7f"), "\\u001b[2J\\u000d\\u0007\\u0008\\u0009\\u007f");
  EXPECT_EQ(printable("\xc2\x9b"), "\\u009b") << "a control sequence in one character";
  EXPECT_EQ(printable("\xe2\x80\xae\xe2\x80\xa8\xe2\x81\xa6"), "\\u202e\\u2028\\u2066");
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a\\u0000b");
}

TEST(Printable, ALineCanNotBeForged) {
  EXPECT_EQ(printable("a\nb"), "a\\u000ab");
  EXPECT_EQ(printable("a\nb", Lines::kept), "a\nb");
  EXPECT_STREQ(Error(std::vector<std::string>{"mode 'a\nb'", "c"}).what(), "mode 'a\\u000ab'\nc");
}

TEST(Printable, LinesAreWhatStandsBetweenNewlines) {
  EXPECT_EQ(lines_of("a\n\nb"), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(lines_of(""), std::vector<std::string>{""});
  EXPECT_TRUE(holds_control_character("a\nb") && holds_control_character("\x7f"));
  EXPECT_FALSE(holds_control_character("Größe 重み"));
}

TEST(Printable, BytesThatAreNoUtf8AreEscaped) {
  EXPECT_EQ(printable("\x9b\xff"), "\\x9b\\xff");
  EXPECT_EQ(printable("\xc3"), "\\xc3") << "cut off";
  EXPECT_EQ(printable("\xc0\x8a"), "\\xc0\\x8a") << "a longer form of a newline";
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "a surrogate";
  EXPECT_EQ(printable("\xf4\x90\x80\x80z"), "\\xf4\\x90\\x80\\x80z");
}

}  // namespace
}  // namespace halfstep
