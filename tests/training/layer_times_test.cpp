#include "training/layer_times.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace halfstep {
namespace {

TEST(LayerTimes, AreOfNodesAndPhases) {
  const std::vector<StepTime> calls{{"fc1", "gemm", 3},
                                    {"fc1 + relu1", "kernel", 1},
                                    {"fc1 (backward)", "gemm", 5},
                                    {"fc1 (backward)", "gemm", 4},
                                    {"optimizer (update)", "kernel", 2},
                                    {"loss (loss)", "kernel", 0.75},
                                    {"(backward)", "kernel", 0.5}};
  const std::vector<LayerTime> layers = by_layer(calls);
  std::string text;
  for (const LayerTime& row : layers)
    text += row.layer + " " + std::to_string(row.calls) + " " + std::to_string(static_cast<int>(row.forward)) + " " +
            std::to_string(static_cast<int>(row.backward)) + " " + std::to_string(static_cast<int>(row.update)) + "\n";
  EXPECT_EQ(text,
            "fc1 3 3 9 0\n"
            "optimizer 1 0 0 2\n"
            "fc1 + relu1 1 1 0 0\n"
            "loss 1 0 0 0\n"
            " 1 0 0 0\n");
  const TemporaryDirectory directory;
  write_layer_times(directory.path() / kLayerTimesFile, layers);
  EXPECT_TRUE(read_file(directory.path() / kLayerTimesFile).starts_with(kLayerTimesMark))
      << "a run is told by it to have written the file";
}

}  // namespace
}  // namespace halfstep
