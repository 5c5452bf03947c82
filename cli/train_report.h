// What a training run tells: five stages of text on stdout while it goes, or one JSON object at its end.
#pragma once

#include <string>

#include "cli/commands.h"
#include "cli/results.h"
#include "compiler/session.h"
#include "training/trainer_events.h"

namespace halfstep {

// In JSON mode only the object at the end is printed: stdout holds nothing else, and stderr at most an error.
class Narration {
 public:
  explicit Narration(Format format, CommandOptions::Verbosity verbosity = CommandOptions::usual_run)
      : format_(format), verbosity_(verbosity) {}
  void stage(int number, const std::string& title) const;
  void say(const std::string& text) const;   // on stdout, unless the run is quiet
  void tell(const std::string& text) const;  // on stdout: what the run ends with
  void note(const std::string& text) const;  // on stderr

 private:
  Format format_;
  CommandOptions::Verbosity verbosity_;
};

std::string data_text(const Data& data);
std::string preprocessing_text(const Recipe& recipe);
// Inputs, states and outputs of the training step, and the memory they take.
std::string tensors_text(const Executor& executor);
// The host's counters with what each means.
std::string counters_text(const TrainReport& report, DeviceKind device);

}  // namespace halfstep
