// Planted faults: one `halfstep doctor` names the node, and what it writes makes training match fp32, as runs of
// `halfstep train` beside it say, which know nothing of doctor's criteria.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>

#include "tests/cli/planted_faults.h"

namespace halfstep::test {
namespace {

using nlohmann::json;

class Faults : public Cli, public testing::WithParamInterface<PlantedFault> {
 protected:
  void SetUp() override {
    write("m.onnx", GetParam().model);
    keys_ = fault_data(path(""), GetParam()) + GetParam().keys;
  }

  // Of the steps that were applied.
  std::vector<double> losses(const Arguments& arguments) const {
    const Finished done = run(Arguments{"train"} + arguments + Arguments{"--out", "run"});
    if (done.exit_code != 0 && done.err.find("not finite") == std::string::npos) ADD_FAILURE() << done.err;
    std::vector<double> found;
    std::istringstream lines(read("run/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (const json row = json::parse(line); row["kind"] == "step" && row["skipped"] == false)
        found.push_back(row["loss"].is_null() ? std::nan("") : row["loss"].get<double>());
    std::filesystem::remove_all(path("run"));
    return found;
  }

  // fp32 from weights that are disturbed as rounding them to f16 would.
  std::vector<double> disturbed_losses(const std::string& recipe, uint32_t seed) const {
    TestModel model = GetParam().model;
    std::mt19937 random(seed);
    const double half_unit = std::ranges::find(keys_, "bf16") == keys_.end() ? 0x1p-11 : 0x1p-8;
    for (onnx::TensorProto& tensor : *model.proto.mutable_graph()->mutable_initializer()) {
      if (tensor.data_type() != onnx::TensorProto::FLOAT || !tensor.name().ends_with("weight")) continue;
      std::string& bytes = *tensor.mutable_raw_data();
      for (size_t i = 0; i + 4 <= bytes.size(); i += 4) {
        float value = 0;
        std::memcpy(&value, bytes.data() + i, 4);
        value *= static_cast<float>(1 + half_unit * (static_cast<double>(random()) / 2147483648.0 - 1));
        std::memcpy(bytes.data() + i, &value, 4);
      }
    }
    write("disturbed.onnx", model);
    std::string text = read(recipe);
    const size_t at = text.find("model = ");
    text.replace(at, text.find('\n', at) - at, "model = \"disturbed.onnx\"");
    write("disturbed.toml", text);
    return losses({"disturbed.toml", "--precision", "fp32"});
  }

  // Where the curve leaves the spread of fp32's, four times as wide, or two hundredths of the loss.
  std::string apart(const std::vector<double>& curve, const std::vector<std::vector<double>>& fp32) const {
    if (curve.size() < fp32[0].size()) return fmt::format("ends after {} of {} steps", curve.size(), fp32[0].size());
    double spread = 0;
    const double share = std::ranges::find(keys_, "bf16") == keys_.end() ? 0.02 : 0.06;
    for (size_t i = 0; i < fp32[0].size(); ++i) {
      for (const std::vector<double>& other : fp32) spread = std::max(spread, std::abs(other[i] - fp32[0][i]));
      const double allowed = std::max(4 * spread, share * std::abs(fp32[0][i]));
      if (!(std::abs(curve[i] - fp32[0][i]) <= allowed))
        return fmt::format("step {}: {} and {} in fp32, {} allowed", i + 1, curve[i], fp32[0][i], allowed);
    }
    return "";
  }

  Arguments keys_;
};

TEST_P(Faults, AreNamedAndMended) {
  const PlantedFault& fault = GetParam();
  const Finished done = run(Arguments{"doctor", "m.onnx", "--steps", "8", "--json"} + keys_);
  ASSERT_THAT(done.exit_code, testing::AnyOf(0, 4)) << done.err;
  const json report = json::parse(done.out);
  std::string told;
  for (const json& finding : report["findings"])
    told += finding["kind"].get<std::string>() + " " + finding["node"].get<std::string>() + ": " +
            finding["text"].get<std::string>() + "\n";
  told += "settings " + report["settings"].dump() + ", rules " + report["policy"]["rules"].dump() + ", " +
          report["proof"]["runs"].dump() + " runs\n";
  if (std::getenv("SHOW_FINDINGS")) fmt::print("{}", told);
  if (fault.nodes.empty()) {
    EXPECT_EQ(report["healthy"], true) << told;
    return;
  }
  ASSERT_EQ(done.exit_code, 4) << "found nothing";
  EXPECT_THAT(fault.nodes, testing::Contains(report["findings"][0]["node"].get<std::string>())) << told;
  EXPECT_EQ(report["proof"]["outcome"], "proven") << told;

  const std::string mended = "doctor.recipe.toml";
  std::vector<std::vector<double>> curves{losses({mended, "--precision", "fp32"})};
  for (uint32_t seed = 1; seed <= 3; ++seed) curves.push_back(disturbed_losses(mended, seed));
  EXPECT_EQ(apart(losses({mended}), curves), "") << told;
  // The fault is one: as it was, training does not match.
  EXPECT_NE(apart(losses(Arguments{"m.onnx"} + keys_), curves), "") << told;
}

const auto kName = [](const testing::TestParamInfo<PlantedFault>& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Planted, Faults, testing::ValuesIn(planted_faults()), kName);
INSTANTIATE_TEST_SUITE_P(Further, Faults, testing::ValuesIn(further_faults()), kName);

}  // namespace
}  // namespace halfstep::test
