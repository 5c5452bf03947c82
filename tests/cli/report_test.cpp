// halfstep report and bench --trace: what they read and write. report_page_test.py opens the page.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Report : public Cli {
 protected:
  json page_data(const std::string& page) const {
    const std::string text = read(page), mark = "<script id=\"data\" type=\"application/json\">";
    const size_t begin = text.find(mark) + mark.size();
    return json::parse(text.substr(begin, text.find("</script>", begin) - begin));
  }
};

TEST_F(Report, IsOfARunAndOfOneThatWentOn) {
  write("m.onnx", tiny_mlp());
  const Arguments keys = Arguments{"--batch", "8", "--shape", "-1,4", "--out", "run", "--json"} + data({4});
  succeed(Arguments{"train", "m.onnx", "--epochs", "2", "--tensorboard", "true"} + keys);
  succeed(Arguments{"train", "m.onnx", "--epochs", "3", "--resume", "run/checkpoints"} + keys);
  EXPECT_EQ(json::parse(succeed({"report", "run", "--json"}))["epochs"], 3);
  const json data = page_data("run/report.html");
  EXPECT_EQ(data["epochs"].size(), 3u);
  EXPECT_EQ(data["curves"]["loss"].size(), 24u);
  EXPECT_EQ(data["curves"]["loss"][23][0], 24);
  EXPECT_EQ(data["end"]["reason"], "completed");
  EXPECT_GT(data["precision"]["precision"].size(), 3u);
  EXPECT_THAT(data["recipe"].get<std::string>(), HasSubstr("epochs"));
  // A step that is told again, as after a checkpoint before the end, takes back what came after.
  std::string lines = read("run/metrics.jsonl");
  lines += R"({"kind":"step","step":20,"epoch":3,"loss":7})"
           "\n"
           R"({"kind":"ep)";  // and one that is being written
  write("run/metrics.jsonl", lines);
  succeed({"report", "run", "-o", "page.html"});
  const json again = page_data("page.html");
  EXPECT_EQ(again["curves"]["loss"].size(), 20u);
  EXPECT_EQ(again["curves"]["loss"][19][1], 7);
}

TEST_F(Report, HasWhatEachLayerTakesWhereItWasTimed) {
  write("m.onnx", tiny_mlp());
  const Arguments keys = Arguments{"--batch", "8", "--shape", "-1,4", "--device", "cpu", "--layer_times"} + data({4});
  const std::string text = succeed(Arguments{"train", "m.onnx", "--out", "run"} + keys);
  EXPECT_THAT(text, testing::AllOf(HasSubstr("a step's calls, each timed by itself"), HasSubstr("fc1")));
  succeed({"report", "run"});
  const json layers = page_data("run/report.html")["layers"];
  double share = 0, all = 0;
  std::string names;
  for (const json& row : layers["layers"]) {
    EXPECT_LE(row["share"], layers["layers"][0]["share"]) << "what takes most first";
    share += row["share"].get<double>();
    all += row["forward"].get<double>() + row["backward"].get<double>() + row["update"].get<double>();
    names += row["layer"].get<std::string>() + " ";
  }
  EXPECT_NEAR(share, 1, 1e-9);
  EXPECT_NEAR(all, layers["microseconds"].get<double>(), 1e-6 * all);
  EXPECT_THAT(names, testing::AllOf(HasSubstr("fc1"), HasSubstr("fc2")));
  // Timing leaves the weights as they were.
  succeed(Arguments{"train", "m.onnx", "--out", "plain", "--layer_times", "false", "--batch", "8", "--shape", "-1,4",
                    "--device", "cpu"} +
          data({4}));
  const auto weights_of = [&](const std::string& file) {
    return read(file).substr(0, read(file).find("halfstep.data"));
  };
  EXPECT_EQ(weights_of("run/m.trained.onnx"), weights_of("plain/m.trained.onnx"));
  write("run/layers.json", R"({"layers":[{"layer":1}]})");
  succeed({"report", "run"});
  EXPECT_TRUE(page_data("run/report.html")["layers"].is_null());
}

TEST_F(Report, OfALongRunHasAFewPoints) {
  std::string lines;
  for (int step = 1; step <= 5000; ++step)
    lines += R"({"kind":"step","step":)" + std::to_string(step) + R"(,"loss":)" + std::to_string(step % 2) + "}\n";
  std::filesystem::create_directory(path("run"));
  write("run/metrics.jsonl", lines);
  succeed({"report", "run"});
  const json data = page_data("run/report.html");
  const json& curve = data["curves"]["loss"];
  EXPECT_LE(curve.size(), 1024u);
  EXPECT_GT(curve.size(), 500u);
  for (size_t i = 0; i + 1 < curve.size(); ++i) {
    EXPECT_NEAR(curve[i][1].get<double>(), 0.5, 1e-12) << "the mean of a stretch";
    EXPECT_EQ(curve[i][2], 0);
    EXPECT_EQ(curve[i][3], 1);
  }
}

TEST_F(Report, RefusesByName) {
  fail(1, {"report", "none"}, {"'none' is no output directory of a run: it has no metrics.jsonl"});
  std::filesystem::create_directory(path("run"));
  write("run/metrics.jsonl", "");
  fail(1, {"report", "run"}, {"has no step and no epoch yet: train first"});
  write("run/metrics.jsonl", "{\"kind\":\"step\",\"step\":1,\"loss\":1}\n{\"kind\":\n{}\n");
  fail(1, {"report", "run"}, {"line 2 is no JSON object"});
  write("run/metrics.jsonl", "{\"kind\":\"step\",\"step\":-1,\"loss\":1}\n");
  fail(1, {"report", "run"}, {"line 1"});
  write("run/metrics.jsonl", "{\"kind\":[1]}\n");
  fail(1, {"report", "run"}, {"line 1"});
  fail(2, {"report"}, {"see halfstep report --help"});
  write("run/metrics.jsonl", "{\"kind\":\"step\",\"step\":1,\"loss\":1}\n");
  write("run/precision.json", "[]");
  succeed({"report", "run"});
  EXPECT_TRUE(page_data("run/report.html")["precision"].is_null());
  succeed({"report", "run"});
  write("notes.html", "<h1>mine</h1>");
  fail(1, {"report", "run", "-o", "notes.html"},
       {"'notes.html' is there, is no page of halfstep's and would be written over: name another file with -o"});
  EXPECT_EQ(read("notes.html"), "<h1>mine</h1>");
}

TEST_F(Report, TraceHasACallAfterTheOther) {
  write("m.onnx", tiny_mlp());
  succeed(
      {"bench", "m.onnx", "--batch", "8", "--shape", "-1,4", "--repeats", "3", "--trace", "t.json", "--device", "cpu"});
  const json trace = json::parse(read("t.json"));
  double end = 0;
  std::string names;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    EXPECT_NEAR(event["ts"].get<double>(), end, 1e-6);
    EXPECT_GT(event["dur"].get<double>(), 0);
    end = event["ts"].get<double>() + event["dur"].get<double>();
    names += event["name"].get<std::string>() + " ";
  }
  EXPECT_THAT(names, testing::AllOf(HasSubstr("fc1"), HasSubstr("fc2"), HasSubstr("(backward)")));
}

}  // namespace
}  // namespace halfstep::test
