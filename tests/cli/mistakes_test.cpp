// What a new user gets wrong, and what the terminal says: mistakes.txt has each command, its exit code and its message,
// word for word. UPDATE_EXPECTED=1 writes what is said now: read it as its user would before you believe it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "tests/cli/cli_fixture.h"
#include "tests/data/data_files.h"
#include "tests/recorded.h"

namespace halfstep::test {
namespace {

class Mistakes : public Cli {
 protected:
  void SetUp() override {
    data({4});
    write("mlp.onnx", tiny_mlp());
    write("cnn.onnx", tiny_convnet());
    std::string four, floats, few, nan;
    for (int64_t i = 0; i < 64; ++i) append(four, i % 4), append(floats, static_cast<float>(i % 3));
    for (int64_t i = 0; i < 10; ++i) append(few, i % 3);
    for (int i = 0; i < 256; ++i) append(nan, i == 100 ? std::numeric_limits<float>::quiet_NaN() : 1.0f);
    write("four_classes.npy", npy("<i8", "(64,)", four)), write("float_labels.npy", npy("<f4", "(64,)", floats));
    write("ten_labels.npy", npy("<i8", "(10,)", few)), write("nan.npy", npy("<f4", "(64, 4)", nan));
    write("wide.npy", npy("<f4", "(64, 5)", std::string(64 * 5 * 4, '\0')));
    write("bytes.npy", npy("|u1", "(64, 4)", std::string(64 * 4, '\7')));
    write("photo.png", std::string("\x89PNG\r\n\x1a\n", 8) + std::string(100, '\0'));
    write("weights.pt", zip({{"archive/data.pkl", "\x80\x02"}}));
    write("empty.onnx", std::string()), write("notes.txt", "not a model\n");
    write("typo.toml", "model = \"mlp.onnx\"\nepoch = 3\nlearning_rate = \"fast\"\n");
    write("broken.toml", "model = \"mlp.onnx\nepochs = 3\n");
    write("nothing.toml", "epochs = 3\n");
    write("policy.toml", "version = 1\n[[rule]]\nnode = \"fc9\"\nprecision = \"fp16\"\n");
    std::filesystem::create_directory(path("folder"));
  }

  // Words as a shell reads them, with single quotes.
  static Arguments words_of(const std::string& command) {
    Arguments words;
    std::string word;
    bool quoted = false, any = false;
    for (const char c : command + " ") {
      if (c == '\'') {
        quoted = !quoted, any = true;
      } else if (c == ' ' && !quoted) {
        if (any) words.push_back(word);
        word.clear(), any = false;
      } else {
        word += c, any = true;
      }
    }
    return words;
  }

  std::string said(const std::string& command) const {
    Arguments words = words_of(command);
    words.erase(words.begin());
    std::filesystem::remove_all(path("halfstep-out"));
    const Finished done = run(words);
    std::string text = done.err;
    for (const std::string& place : {path("").string(), path(".").parent_path().string()})
      for (size_t at; !place.empty() && (at = text.find(place)) != std::string::npos;) text.erase(at, place.size());
    return "$ " + command + "\nexit " + std::to_string(done.exit_code) + "\n" + text;
  }
};

TEST_F(Mistakes, AreAnsweredSo) {
  const std::filesystem::path file = source_directory() / "tests/cli/mistakes.txt";
  std::istringstream lines(read_file(file));
  std::vector<std::string> expected;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("$ ")) expected.emplace_back();
    if (!expected.empty()) expected.back() += line + "\n";
  }
  ASSERT_GE(expected.size(), 60u);
  std::string written;
  for (std::string& wanted : expected) {
    while (wanted.ends_with("\n\n")) wanted.pop_back();
    const std::string found = said(wanted.substr(2, wanted.find('\n') - 2));
    written += (written.empty() ? "" : "\n") + found;
    if (!std::getenv("UPDATE_EXPECTED")) {
      EXPECT_EQ(found, wanted);
    }
    EXPECT_EQ(found.find("exit 0"), std::string::npos) << found;
    EXPECT_EQ(found.find("internal error"), std::string::npos) << found;
  }
  if (std::getenv("UPDATE_EXPECTED")) write_file_atomically(file, written);
}

}  // namespace
}  // namespace halfstep::test
