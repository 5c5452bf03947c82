// Screens of 80 columns, completion in a shell, and the manual page.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>

#include "cli/progress.h"
#include "tests/cli/cli_fixture.h"
#include "tests/cli/screen.h"
#include "training/recipe_keys.h"

namespace halfstep::test {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

size_t columns_of(const std::string& text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

class Terminal : public Cli {
 protected:
  Arguments training(int64_t samples = 4000) const {
    write("m.onnx", tiny_mlp());
    return Arguments{"train", "m.onnx", "--batch", "4", "--epochs", "3", "--out", "run"} + data({4}, samples);
  }
  OnTerminal on_terminal(const Arguments& arguments, unsigned short columns, unsigned short rows,
                         const Arguments& environment = {}) const {
    return run_on_terminal(executable("halfstep").string(), arguments, path("").string(), columns, rows, environment);
  }
};

TEST_F(Terminal, TrainingFitsEightyColumnsAndLeavesRowsAndACurve) {
  const OnTerminal shown = on_terminal(training(), 80, 40);
  ASSERT_EQ(shown.exit_code, 0) << shown.bytes;
  // What went by: the line of the progress, with its bar.
  EXPECT_THAT(shown.bytes, AllOf(HasSubstr("epoch 1/3 "), HasSubstr("samples/s"), HasSubstr("loss "), HasSubstr("█")));
  Screen screen(80, 40);
  screen.write(shown.bytes);
  const std::vector<std::string> lines = screen.lines();
  EXPECT_TRUE(screen.coloured());
  const auto wide = [](const std::string& l) { return columns_of(l) > 79; };
  const auto row_of = [&](const std::string& begin) {
    return std::ranges::find_if(lines, [&](const std::string& line) { return line.starts_with(begin); });
  };
  const auto header = row_of(" epoch train loss");
  ASSERT_NE(header, lines.end());
  for (int epoch = 1; epoch <= 3; ++epoch)
    EXPECT_THAT(*(header + epoch), StartsWith("     " + std::to_string(epoch) + " ")) << "rows follow each other";
  EXPECT_EQ(std::find_if(header, header + 4, wide), header + 4);
  EXPECT_EQ(std::ranges::count_if(lines, [](const std::string& l) { return l.starts_with("  epoch 1/3"); }), 0)
      << "the line of the progress is gone";
}

TEST_F(Terminal, TheCurveStandsBelowTheRowsUntilTheNextOne) {
  // An epoch takes longer than the progress waits between two lines.
  const OnTerminal shown = on_terminal(training(200000) + Arguments{"--epochs", "2"}, 80, 40);
  ASSERT_EQ(shown.exit_code, 0);
  // The screen as it is when the second epoch's first line of progress has come.
  const size_t at = shown.bytes.find("epoch 2/2 ");
  ASSERT_NE(at, std::string::npos);
  Screen screen(80, 40);
  screen.write(shown.bytes.substr(0, shown.bytes.find('\r', at)));
  const std::vector<std::string> lines = screen.lines();
  const auto row = std::ranges::find_if(lines, [](const std::string& l) { return l.starts_with("     1 "); });
  ASSERT_NE(row, lines.end());
  ASSERT_GE(lines.end() - row, 10);
  EXPECT_THAT(*(row + 1), HasSubstr("┤"));
  EXPECT_THAT(*(row + 9), HasSubstr("step 50000"));
  EXPECT_THAT(lines.back(), StartsWith("  epoch 2/2 "));
}

TEST_F(Terminal, NoColorAndASmallScreen) {
  const OnTerminal shown = on_terminal(training(), 60, 12, {"NO_COLOR=1"});
  ASSERT_EQ(shown.exit_code, 0);
  Screen screen(60, 12);
  screen.write(shown.bytes);
  EXPECT_FALSE(screen.coloured());
  EXPECT_THAT(shown.bytes, Not(HasSubstr("┤"))) << "no room for a curve";
}

TEST_F(Terminal, QuietSaysHowItEndedAndVerboseEachStep) {
  const Arguments arguments = training(40) + Arguments{"--epochs", "1"};
  const std::string quiet = succeed(arguments + Arguments{"--quiet"});
  EXPECT_THAT(quiet, AllOf(HasSubstr("trained model  run/m.trained.onnx"), Not(HasSubstr("[1/5]")),
                           Not(HasSubstr("train loss"))));
  const Finished verbose = run(arguments + Arguments{"--verbose", "--out", "verbose"});
  EXPECT_THAT(verbose.err, AllOf(HasSubstr("epoch 1/1  step 1  loss "), HasSubstr("epoch 1/1  step 10  loss ")));
}

Progress progress(int64_t step, int64_t skipped) {
  Progress p;
  p.last.step = step, p.last.loss = 0.123456, p.last.accuracy = 0.9125, p.last.loss_scale = 65536;
  p.last.samples_per_second = 9850.4;
  p.step_in_epoch = step, p.steps_per_epoch = 1875, p.skipped = skipped;
  return p;
}

TEST(ProgressLine, TellsAllWhereThereIsRoomAndLeavesOutWhatTellsLeast) {
  const RunLength length{.epochs = 5, .memory_bytes = 1 << 20};
  const auto line = [&](size_t columns) { return progress_line(progress(625, 3), 2, length, 125, columns).text(); };
  EXPECT_EQ(line(140),
            "  epoch 2/5 ████████░░░░░░░░░░░░░░░░  625/1875  loss 0.1235  acc  91.2 %  scale 65536  3 skipped  9850 "
            "samples/s  1.0 MiB  ETA 2:05");
  EXPECT_EQ(line(79), "  epoch 2/5 █░░░░  625/1875  loss 0.1235  acc  91.2 %  9850 samples/s  ETA 2:05");
  EXPECT_EQ(line(50), "  epoch 2/5 █░░░░  625/1875  loss 0.1235  ETA 2:05");
  for (size_t columns = 20; columns < 160; ++columns) EXPECT_LE(columns_of(line(columns)), columns) << columns;
  Progress starved = progress(625, 3);
  starved.data_wait = 0.624;
  const auto of_starved = [&](size_t columns) { return progress_line(starved, 2, length, 125, columns).text(); };
  EXPECT_EQ(of_starved(79), "  epoch 2/5 ██░░░░░  625/1875  loss 0.1235  9850 samples/s  wait 62 %  ETA 2:05");
  EXPECT_THAT(of_starved(140), HasSubstr("9850 samples/s  wait 62 %  1.0 MiB"));
  starved.data_wait = 0.04;
  EXPECT_EQ(of_starved(140), line(140)) << "a little of it is not told";
}

TEST(ProgressLine, Durations) {
  EXPECT_EQ(duration_text(0.4), "0 s");
  EXPECT_EQ(duration_text(59.7), "1:00");
  EXPECT_EQ(duration_text(3661), "1:01:01");
  EXPECT_EQ(duration_text(200000), "2 d 07 h");
}

class Completion : public Cli {
 protected:
  // What bash offers for the last of these words.
  std::string offered(const std::string& words) const {
    write("halfstep.bash", succeed({"completion", "bash"}));
    return offered_by("_halfstep", words);
  }
  std::string offered_by(const std::string& function, const std::string& words) const {
    const std::string script = "source halfstep.bash; COMP_WORDS=(" + words +
                               "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); " + function +
                               "; printf '%s\\n' \"${COMPREPLY[@]}\"";
    write("ask.sh", script);
    const std::string command = "cd '" + path("").string() + "' && bash ask.sh > offered 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << read("offered");
    return read("offered");
  }
};

TEST_F(Completion, BashOffersCommandsOptionsValuesAndFiles) {
  EXPECT_EQ(offered("halfstep tr"), "train\n");
  EXPECT_EQ(offered("halfstep train --learning_r"), "--learning_rate\n");
  EXPECT_EQ(offered("halfstep train --lr"), "--lr\n");
  EXPECT_EQ(offered("halfstep train --schedule cosi"), "cosine\ncosine_restarts\n");
  EXPECT_EQ(offered("halfstep train --shuffle ''"), "true\nfalse\n");
  EXPECT_EQ(offered("halfstep train --seed ''"), "\n") << "a number has no choice";
  EXPECT_EQ(offered("halfstep inspect --epo"), "\n") << "inspect reads no epochs";
  EXPECT_EQ(offered("halfstep completion z"), "zsh\n");
  write("model.onnx", std::string("x"));
  EXPECT_EQ(offered("halfstep check mod"), "model.onnx\n");
  EXPECT_EQ(offered("halfstep train m --data mod"), "model.onnx\n");
}

TEST_F(Completion, OfTheRunnerOfCompiledSteps) {
  const auto written = [&](const Arguments& arguments) {
    const Finished text = run(arguments, {.executable = "halfstep-run"});
    EXPECT_EQ(text.exit_code, 0) << text.err;
    return text.out;
  };
  write("halfstep.bash", written({"completion", "bash"}));
  EXPECT_EQ(offered_by("_halfstep_run", "halfstep-run pre"), "predict\n");
  EXPECT_EQ(offered_by("_halfstep_run", "halfstep-run predict --prob"), "--probabilities\n");
  EXPECT_EQ(offered_by("_halfstep_run", "halfstep-run train --prob"), "\n");
  EXPECT_EQ(offered_by("_halfstep_run", "halfstep-run train --learning_r"), "--learning_rate\n");
  EXPECT_EQ(offered_by("_halfstep_run", "halfstep-run train --batc"), "\n") << "the step's batch is compiled";
  EXPECT_EQ(offered_by("_halfstep_run", "halfstep-run completion f"), "fish\n");
  EXPECT_THAT(written({"completion", "zsh"}), StartsWith("#compdef halfstep-run\n"));
  EXPECT_THAT(written({"completion", "fish"}),
              HasSubstr("complete -c halfstep-run -n '__fish_seen_subcommand_from eval'"));
  const std::string page = written({"man"});
  EXPECT_THAT(page, AllOf(StartsWith(".TH HALFSTEP\\-RUN 1"), HasSubstr(".SS predict\n"), HasSubstr("\\-\\-checkpoint"),
                          HasSubstr("\\-\\-learning_rate, \\-\\-lr"), HasSubstr("exit codes:")));
  EXPECT_EQ(run({"completion", "tcsh"}, {.executable = "halfstep-run"}).exit_code, 2);
}

TEST_F(Completion, ScriptsForTheOtherShellsHaveEveryCommand) {
  const std::string zsh = succeed({"completion", "zsh"}), fish = succeed({"completion", "fish"});
  EXPECT_THAT(zsh, StartsWith("#compdef halfstep\n"));
  for (const char* command : {"train", "check", "inspect", "doctor", "export"}) {
    EXPECT_THAT(zsh, HasSubstr("    " + std::string(command) + ")\n      _arguments"));
    EXPECT_THAT(fish, HasSubstr("-n __fish_use_subcommand -a " + std::string(command)));
  }
  EXPECT_THAT(zsh, HasSubstr("'--shuffle["));
  EXPECT_THAT(fish, HasSubstr("-l learning_rate -l lr -x -d"));
  fail(2, {"completion", "tcsh"}, {"tcsh"});
}

TEST_F(Completion, TheManualPageHasEveryCommandAndEveryKey) {
  const std::string page = succeed({"man"});
  EXPECT_THAT(page, AllOf(StartsWith(".TH HALFSTEP 1"), HasSubstr(".SS train\n"),
                          HasSubstr("\\fB\\-\\-learning_rate, \\-\\-lr\\fR")));
  for (const RecipeKey& key : recipe_keys()) {
    if (key.name == "model") continue;
    std::string name = key.name;
    EXPECT_THAT(page, HasSubstr("\\-\\-" + name)) << key.name;
  }
}

TEST_F(Completion, HelpListsWhatACommandReadsWithItsDefaults) {
  const std::string train = succeed({"train", "--help"}), inspect = succeed({"inspect", "--help"});
  EXPECT_THAT(train, AllOf(HasSubstr("--learning_rate"), HasSubstr("[0.01]"), HasSubstr("--epochs")));
  EXPECT_THAT(inspect, AllOf(HasSubstr("--precision"), Not(HasSubstr("--epochs")), Not(HasSubstr("--resume"))));
  // It takes them all the same.
  write("m.onnx", tiny_mlp());
  succeed({"inspect", "m.onnx", "--epochs", "3"});
}

TEST_F(Completion, PrintConfigIsARecipeOfWhatHolds) {
  write("m.onnx", tiny_mlp());
  write("r.toml",
        std::string("model = \"m.onnx\"\nbatch = 8\n[[group]]\nparameters = [\"fc2.*\", \"vectors\"]\nlearning_rate = "
                    "0.5\n"));
  const std::string config = succeed({"train", "r.toml", "--lr", "0.25", "--unfreeze", "fc1.*=2", "--print-config"});
  EXPECT_THAT(config, AllOf(HasSubstr("batch = 8\n"), HasSubstr("learning_rate = 0.25\n"),
                            HasSubstr("groups = \"parameters=fc2.*|vectors,learning_rate=0.5\"\n"),
                            HasSubstr("unfreeze = [\"fc1.*=2\"]\n")));
  write("again.toml", config);
  EXPECT_EQ(succeed({"train", "again.toml", "--print-config"}), config);
  EXPECT_FALSE(std::filesystem::exists(path("halfstep-out"))) << "it does nothing else";
}

}  // namespace
}  // namespace halfstep::test
