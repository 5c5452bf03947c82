// Small models with recorded truth, tests/cases/*/: loss, outputs and gradients in double, by the ONNX reference
// evaluator and central differences. case.json: "args" of `halfstep gradients`, "tolerance" relative to the largest
// value, "what" is tested. want.npz: loss, outputs/NAME, gradients/NAME; NaN where an element was not differentiated.
#include <gtest/gtest.h>

#include <cmath>

#include "data/npy.h"
#include "program/safetensors.h"
#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const fs::path kCases = fs::path(HALFSTEP_SOURCE_DIR) / "tests/cases";

class Cases : public Cli, public testing::WithParamInterface<std::string> {};

double largest_magnitude(const Tensor& tensor) {
  double largest = 1e-6;
  for (int64_t i = 0; i < tensor.type.element_count(); ++i)
    if (const double v = std::abs(tensor.at(i)); v > largest) largest = v;
  return largest;
}

TEST_P(Cases, AgreesWithTheRecordedTruth) {
  const fs::path folder = kCases / GetParam();
  const json about = json::parse(read_file(folder / "case.json"));
  SCOPED_TRACE(about["what"].get<std::string>());
  succeed(Arguments{"gradients", folder / "model.onnx", "--data", folder / "batch.npz", "--device", "cpu", "-o",
                    "g.safetensors"} +
          about["args"].get<Arguments>());
  const FileTensors found = read_safetensors(path("g.safetensors")).tensors;
  for (const auto& [name, want] : read_npz(folder / "want.npz")) {
    ASSERT_TRUE(found.contains(name)) << "no " << name;
    const Tensor& actual = found.at(name);
    ASSERT_EQ(actual.type.element_count(), want.type.element_count()) << name;
    const double room = about["tolerance"].get<double>() * largest_magnitude(want);
    for (int64_t i = 0; i < want.type.element_count(); ++i) {
      if (std::isnan(want.at(i))) continue;
      EXPECT_LE(std::abs(actual.at(i) - want.at(i)), room) << name << "[" << i << "]";
    }
  }
}

Arguments case_names() {
  Arguments names;
  for (const auto& entry : fs::directory_iterator(kCases)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, Cases, testing::ValuesIn(case_names()), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace_if(name, [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

}  // namespace
}  // namespace halfstep::test
