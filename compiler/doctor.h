// What precision does to a training: the same steps in fp32 and as the recipe says, side by side, the first causes of
// what differs, and the fewest changes that end it, proven by another run. docs/doctor.md says how it judges.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "compiler/doctor_run.h"

namespace halfstep {

struct DoctorOptions {
  TapOptions taps{.most_counted = int64_t{1} << 20, .samples = 4096};
  int disturbed_runs = 3;
  int most_runs = 60;  // after which a remedy is not made smaller any more
  std::function<void(const std::string&)> progress = [](const std::string&) {};
};

// How a tensor of step 1 differs from the fp32 run's.
struct Difference {
  double error = 0;        // relative L2, over the samples; infinite: it is not finite where the other is
  double lost = 0;         // share of the other's energy in values that are 0 here
  double worst_input = 0;  // error, of the tensors that it is computed of
  double allowed = 0;      // what error raises no suspicion
};
// By the kind and node of a tensor.
using TensorErrors = std::map<std::pair<Tap::Kind, std::string>, double>;

struct Symptom {
  enum Kind : uint8_t { overflow, underflow, diverges, limits_scale, update_vanishes, weight_range, loss } kind = loss;
  std::string node;  // the user's; of an update and a weight the parameter; "loss": of the curve
  Tap::Kind direction = Tap::forward;
  std::string text, remedy;
  std::vector<std::string> deny = {};  // nodes that may be at fault
  bool in_fp32 = false;                // it is so in the fp32 run too
  int32_t tensor = -1;                 // of Examination::low that shows it; -1: none
};
std::string_view name(Symptom::Kind kind);

// By how much (relative L2) a tensor may differ from the fp32 run's before its precision is suspected.
double noise_of(DType low);

// How far a loss may be from the fp32 run's at each step: settled before the run that is judged.
struct LossBand {
  std::vector<double> allowed;
  std::string criterion;
};

struct Examination {
  RunOfSteps full, low;
  std::vector<Difference> differences;  // by tensor of `low`
  std::vector<Symptom> findings;        // first causes first; none: healthy
  bool is_sound() const;                // but for updates that vanish in fp32 too: that is no matter of precision
};

struct Remedy {
  std::vector<std::pair<std::string, std::string>> denied;    // nodes, and why each
  std::vector<std::pair<std::string, std::string>> settings;  // recipe keys and values
  enum Outcome : uint8_t { not_needed, proven, partly, none } outcome = not_needed;
  Examination after;
  int runs = 0;        // that the search took
  bool fewest = true;  // nothing can be left out; false: the search was ended before
  bool empty() const { return denied.empty() && settings.empty(); }
};

struct Diagnosis {
  Recipe recipe;  // as examined
  DeviceKind device = DeviceKind::cpu;
  TapBins bins;
  LossBand band;
  Examination before;
  std::optional<double> fitting_scale;  // fp16: the largest that keeps every gradient in range, a power of two
  std::string limiting_tensor;          // that decides it
  Remedy remedy;
};

// Error where the fp32 run is not finite itself, or the data does not fit.
Diagnosis diagnose(const Recipe& recipe, DeviceKind device, const Batches& batches, const DoctorOptions& options);

// The recipe with a remedy's changes.
Recipe with_remedy(const Recipe& recipe, const Remedy& remedy);
// The same with its settings alone.
Recipe with_settings(const Recipe& recipe, const Remedy& remedy);
// Names of nodes as patterns that match nothing else: what patterns read as more is quoted.
std::string as_pattern(const std::string& node);

// The fewest nodes that must run in fp32 for the user's command, which gets them as a policy file, to succeed.
struct Bisection {
  std::vector<std::string> denied;
  int runs = 0;
  size_t candidates = 0;
  std::vector<std::string> low_nodes;
};
// `good`: whether the command succeeds with these denied. Error if it fails with all of them, or succeeds with none.
Bisection bisect(const Recipe& recipe, DeviceKind device,
                 const std::function<bool(const std::vector<std::string>&)>& good);

}  // namespace halfstep
