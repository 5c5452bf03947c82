// Damaged files: whatever stands in them, the import succeeds or throws Error.
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/philox.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

class Mutation : public ::testing::TestWithParam<const char*> {};

TEST_P(Mutation, NeverCrashesTheImport) {
  const OnnxFile whole = read_onnx_file(std::filesystem::path(HALFSTEP_SOURCE_DIR) / "models/exports" / GetParam());
  int imported = 0, refused = 0;
  for (uint32_t round = 0; round < 1500; ++round) {
    OnnxFile file = whole;
    const PhiloxBlock random = philox({round, 0, 0, 0}, 1);
    // One to three bytes anywhere: lengths, names, types, shapes, attributes.
    for (uint32_t i = 0; i <= random[3] % 3; ++i)
      file.bytes[random[i] % file.bytes.size()] = static_cast<char>(random[3] >> (8 * (i + 1)));
    try {
      import_model(file, {.batch = 3, .weights = InitialWeights::none});
      ++imported;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(imported, 0);
  EXPECT_GT(refused, 0);
}

INSTANTIATE_TEST_SUITE_P(Exports, Mutation,
                         ::testing::Values("lenet.raw.onnx", "mlp.dynamo.onnx", "squeezenet1_1.dynamo.onnx"));

}  // namespace
}  // namespace halfstep::test
