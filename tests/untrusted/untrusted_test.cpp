// A part of each campaign with untrusted files (docs/untrusted_files.md): they are read, or refused by an Error.
#include <gtest/gtest.h>

#include "base/file.h"
#include "tests/untrusted/cases.h"

namespace halfstep::test {
namespace {

constexpr Limits kLimits{.seconds = 10, .megabytes = 200};  // beside other tests

std::string text_of(const Outcome& outcome) {
  std::string text;
  for (const Failure& f : outcome.failures) text += std::to_string(f.index) + ": " + f.what + "\n";
  return text;
}

TEST(Untrusted, OneOperatorWithAnyOperandsAndResults) {
  const TemporaryDirectory directory;
  const std::vector<OperatorCase> cases = operator_cases();
  constexpr int64_t kEvery = 31;
  const int64_t count = static_cast<int64_t>(cases.size()) / kEvery;
  const Outcome outcome = run_cases(0, count, kLimits, [&](int64_t i) {
    Random random(static_cast<uint64_t>(i));
    check_bytes(operator_model(cases[static_cast<size_t>(i * kEvery)], random).SerializeAsString(),
                directory.path().string());
  });
  EXPECT_EQ(text_of(outcome), "");
  EXPECT_GT(outcome.accepted, 0);
  EXPECT_GT(outcome.refused, 0);
}

TEST(Untrusted, MutantsOfModels) {
  const TemporaryDirectory directory;
  for (const char* name : {"lenet.raw.onnx", "mlp.dynamo.onnx", "mlp.trained.onnx"}) {
    const std::string bytes = read_file(std::filesystem::path(HALFSTEP_SOURCE_DIR) / "models/exports" / name);
    const Outcome outcome = run_cases(0, 300, kLimits, [&](int64_t i) {
      Random random(static_cast<uint64_t>(i));
      check_bytes(mutated_model(bytes, random), directory.path().string());
    });
    EXPECT_EQ(text_of(outcome), "") << name;
    EXPECT_GT(outcome.refused, 0);
  }
}

TEST(Untrusted, MutantsForEveryReader) {
  const TemporaryDirectory directory;
  for (const ReaderCase& reader : reader_cases(directory.path().string())) {
    const Outcome whole =
        run_cases(0, 1, kLimits, [&](int64_t) { reader.read(reader.seeds.front(), directory.path().string()); });
    EXPECT_EQ(whole.accepted, 1) << reader.name << ": " << text_of(whole);
    const Outcome outcome = run_cases(0, 300, kLimits, [&](int64_t i) {
      Random random(static_cast<uint64_t>(i));
      reader.read(mutated_bytes(one_of(random, reader.seeds), random), directory.path().string());
    });
    EXPECT_EQ(text_of(outcome), "") << reader.name;
    EXPECT_GT(outcome.refused, 0) << reader.name;
  }
}

}  // namespace
}  // namespace halfstep::test
