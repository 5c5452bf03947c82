// What the executable does where its output goes nowhere, where names are hostile, and where signals arrive.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Streams : public Cli {
 protected:
  Arguments train(const Arguments& more = {}) const {
    write("m.onnx", tiny_mlp());
    return Arguments{"train", "m.onnx", "--batch", "8", "--out", "run", "--epochs", "1"} + data({4}) + more;
  }
};

TEST_F(Streams, OutputThatCannotBeWrittenIsAnErrorAtTheEnd) {
  for (const Arguments& command : std::vector<Arguments>{{"info"}, {"info", "--json"}, {"--help"}, train()}) {
    const Finished finished = run(command, {.out_file = "/dev/full"});
    EXPECT_EQ(finished.exit_code, 1) << command[0];
    EXPECT_THAT(finished.err, HasSubstr("cannot write to standard output: No space left on device"));
  }
  EXPECT_TRUE(std::filesystem::exists(path("run/m.trained.onnx"))) << "the work is not lost";
}

TEST_F(Streams, ClosedDescriptorsAreNoFilesOfOurs) {
  EXPECT_EQ(run(train(), {.out_file = "closed"}).exit_code, 0);
  const std::string metrics = read("run/metrics.jsonl");
  for (size_t begin = 0; begin < metrics.size(); begin = metrics.find('\n', begin) + 1)
    EXPECT_EQ(metrics[begin], '{') << metrics.substr(begin, 60);
}

TEST_F(Streams, NamesCannotReachTheTerminalOrForgeALine) {
  TestModel m = tiny_mlp();
  m.proto.mutable_graph()->mutable_node(0)->set_name("a\x1b[2Jb\nhalfstep: ready to train");
  write("m.onnx", m);
  fail(1, {"inspect", "m.onnx"}, {"the name of node 'a\\u001b[2Jb\\u000ahalfstep: ready to train' holds a control"});
  TestModel said = tiny_mlp();
  said.proto.set_producer_name("x\x1b[2J\nready to train");
  write("said.onnx", said);
  EXPECT_THAT(succeed({"check", "said.onnx"}),
              AllOf(HasSubstr("written by x\\u001b[2J\\u000aready"), Not(HasSubstr("\x1b"))));
  fail(1, {"check", "gone\x1b[2J.onnx"}, {"gone\\u001b[2J.onnx"});
}

TEST_F(Streams, AnExportReplacesNoDevice) {
  succeed(train());
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  for (const std::string target : {"pipe", "/dev/null"})
    fail(1, {"export", "m.onnx", "--checkpoint", "run/checkpoints", "-o", target},
         {"cannot write '" + target + "': it is a "});
}

TEST_F(Streams, AHandlerEveryMillisecondHarmsNoStep) {
  const Arguments steps{"--epochs", "400", "--precision", "fp32", "--threads", "2"};
  EXPECT_EQ(run(train(steps), {.preload = HALFSTEP_TICKER}).exit_code, 0);
}

TEST_F(Streams, AClosedTerminalLeavesACheckpoint) {
  // Its metrics stay, while a checkpoint goes when newer ones are there.
  const auto trains = [metrics = path("run/metrics.jsonl")] {
    return std::filesystem::exists(metrics) && std::filesystem::file_size(metrics) > 0;
  };
  const Finished stopped = run(train({"--epochs", "100000"}), {.interrupt_when = trains, .signal = SIGHUP});
  EXPECT_EQ(stopped.exit_code, 129);
  EXPECT_THAT(stopped.err, HasSubstr("stopped by a signal after step "));
  EXPECT_FALSE(std::filesystem::is_empty(path("run/checkpoints")));
}

}  // namespace
}  // namespace halfstep::test
