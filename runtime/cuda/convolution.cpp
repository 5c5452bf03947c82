#include "runtime/cuda/convolution.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "program/lanes.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/engine_choice.h"

namespace halfstep {
namespace {

// For all shapes of a model together; when it is used up, the shapes that are left, which are the smallest, take the
// library's first engine.
constexpr std::chrono::milliseconds kTimingBudget{5000};
constexpr int kRepeats = 3;
// What the half precision engines are made for: images of four channels, and multiples of eight.
constexpr int64_t kImageChannels = 4, kChannelMultiple = 8;
constexpr double kDeterminismPrice = 1.05;
constexpr std::string_view kDoes = " does ";

std::string key_of(const Convolution& c) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", name(c.kind), c.batch, c.in_channels,
                     c.out_channels, c.groups, c.spatial, c.window, c.out_spatial, c.strides, c.pads_begin, c.pads_end,
                     c.dilations, name(c.operand), name(c.result), c.bias ? name(c.bias_type) : "-", c.relu);
}

// cuDNN has no convolution over one axis: a leading axis of size 1 is added.
Convolution at_least_2d(Convolution c) {
  if (c.spatial.size() > 1) return c;
  for (Shape* shape : {&c.spatial, &c.window, &c.out_spatial, &c.strides, &c.dilations}) {
    shape->insert(shape->begin(), 1);
  }
  for (Shape* shape : {&c.pads_begin, &c.pads_end}) shape->insert(shape->begin(), 0);
  return c;
}

Convolution with_padded_channels(Convolution c) {
  c.in_channels = c.in_channels <= kImageChannels ? kImageChannels : round_up(c.in_channels, kChannelMultiple);
  c.out_channels = round_up(c.out_channels, kChannelMultiple);
  return c;
}

Convolution without_epilogue(Convolution c, DType result) {
  c.bias.reset();
  c.relu = false;
  c.result = result;
  return c;
}

struct Attempt {
  Convolution problem;
  Engines engines = Engines::precompiled;
  friend bool operator==(const Attempt&, const Attempt&) = default;
};

// What cuDNN can be asked for, best first; the next is asked for if no engine does the one before.
std::vector<Attempt> attempts(const Convolution& convolution) {
  Convolution exact = at_least_2d(convolution);
  if (!exact.bias) exact.relu = false;  // relu and rounding commute, so nothing is lost by a pass of its own
  const bool forward = exact.kind == ConvolutionKind::forward;
  const DType accumulator = exact.operand == DType::f64 ? DType::f64 : DType::f32;
  std::vector<Attempt> list;
  const auto add = [&](Convolution problem, Engines engines) {
    Attempt attempt{std::move(problem), engines};
    if (std::ranges::find(list, attempt) == list.end()) list.push_back(std::move(attempt));
  };
  // No gradient engine of cuDNN 9 writes another type than it reads, and asking takes milliseconds a shape.
  if (forward || exact.result == exact.operand) add(exact, Engines::precompiled);
  if (exact.bias && exact.bias_type != exact.operand) {
    Convolution low_bias = exact;
    low_bias.bias_type = exact.operand;
    add(low_bias, Engines::precompiled);
  }
  if (exact.operand == accumulator) add(without_epilogue(exact, accumulator), Engines::precompiled);
  if (forward) add(exact, Engines::compiled_at_runtime);
  for (const Engines engines : {Engines::precompiled, Engines::compiled_at_runtime}) {
    add(without_epilogue(exact, exact.operand), engines);  // rounded to the operands' type before the epilogue
  }
  if (is_low(exact.operand)) {
    Convolution wide = without_epilogue(exact, accumulator);
    wide.operand = accumulator;
    add(wide, Engines::precompiled);
  }
  return list;
}

std::vector<Convolution> problems_of(const Attempt& attempt) {
  std::vector<Convolution> problems = {attempt.problem};
  Convolution padded = with_padded_channels(attempt.problem);
  if (is_low(padded.operand) && padded.groups == 1 && padded != attempt.problem) problems.push_back(std::move(padded));
  return problems;
}

int64_t product(const Shape& shape) { return checked_element_count(shape, "convolution"); }

enum Operand : size_t { kOperandX, kOperandW, kOperandY, kOperandBias, kOperandCount };

Operand result_of(ConvolutionKind kind) {
  return kind == ConvolutionKind::forward ? kOperandY : kind == ConvolutionKind::data_grad ? kOperandX : kOperandW;
}

// An operand as dense rows of channels.
struct Matrix {
  int64_t rows = 0, columns = 0;
  DType type = DType::f32;
  int64_t bytes() const { return rows * columns * size_of(type); }
  friend bool operator==(const Matrix&, const Matrix&) = default;
};

std::array<Matrix, kOperandCount> matrices_of(const Convolution& c) {
  std::array<Matrix, kOperandCount> matrices = {
      Matrix{c.batch * product(c.spatial), c.in_channels, c.operand},
      Matrix{c.out_channels * product(c.window), c.in_channels / c.groups, c.operand},
      Matrix{c.batch * product(c.out_spatial), c.out_channels, c.operand},
      Matrix{1, c.out_channels, c.bias_type},
  };
  matrices[result_of(c.kind)].type = c.result;
  return matrices;
}

// Where the operands of `problem` that are not those of `convolution` lie behind the engine's workspace; -1: not there.
struct Staging {
  std::array<int64_t, kOperandCount> offsets;
  int64_t bytes = 0;
};

Staging stage(const Convolution& convolution, const Convolution& problem, int64_t engine_bytes) {
  const auto given = matrices_of(convolution), wanted = matrices_of(problem);
  Staging staging{{-1, -1, -1, -1}, round_up(engine_bytes, 256)};
  for (size_t i = 0; i < kOperandCount; ++i) {
    const bool used = i != kOperandBias || problem.bias;
    if (!used || given[i] == wanted[i]) continue;
    staging.offsets[i] = staging.bytes;
    staging.bytes += round_up(wanted[i].bytes(), 256);
  }
  return staging;
}

RowsFormat plain_format(DType from, DType to) {
  RowsFormat format;
  format.from = from;
  format.to = to;
  return format;
}

}  // namespace

CudnnConvolutions::CudnnConvolutions(ContractionOptions options, DeviceLane& lane, RowsKernels& rows,
                                     ChoiceStore& choices, int64_t workspace_limit)
    : options_(options),
      lane_(lane),
      rows_(rows),
      choices_(choices),
      workspace_limit_(workspace_limit),
      handle_(make_cudnn_handle()),
      overflows_(handle_.get(), lane.stream) {
  check(cudnnSetStream(handle_.get(), lane.stream.get()), "cudnnSetStream");
}

CudnnPlanLimits CudnnConvolutions::limits_of(Engines engines) const {
  return {options_.allow_tf32 ? Tf32::allow : Tf32::refuse, engines, workspace_limit_,
          engines == Engines::precompiled ? std::max(1, options_.autotune) : 1};
}

// "engine 47 knobs 3=1 does KEY": of what cuDNN may be asked for, what KEY says.
CudnnConvolutions::Route CudnnConvolutions::restore(const Convolution& convolution, const std::string& choice) const {
  const size_t middle = choice.find(kDoes);
  const std::optional<EngineChoice> engine = parse_engine_choice(std::string_view(choice).substr(0, middle));
  if (middle == std::string::npos || !engine) throw Error("no engine, knobs and problem");
  const std::string_view wanted = std::string_view(choice).substr(middle + kDoes.size());
  std::string reason = "it is no way to this convolution";
  for (const Attempt& attempt : attempts(convolution)) {
    for (const Convolution& problem : problems_of(attempt)) {
      if (key_of(problem) != wanted) continue;
      try {
        CudnnPlan plan = build_plan(handle_.get(), problem, limits_of(attempt.engines), *engine);
        const int64_t bytes = stage(convolution, problem, plan.workspace_bytes).bytes;
        return {problem, std::move(plan), bytes};
      } catch (const Error& error) {
        reason = error.what();
      }
    }
  }
  throw Error(reason);
}

void CudnnConvolutions::find_routes(Candidates& candidates) const {
  const Convolution& convolution = *candidates.call.convolution;
  const auto lost = refused_.find({convolution.kind, convolution.operand});
  const std::vector<int64_t> refused = lost == refused_.end() ? std::vector<int64_t>() : lost->second;
  for (const Attempt& attempt : attempts(convolution)) {
    CudnnPlanLimits limits = limits_of(attempt.engines);
    limits.refused = refused;
    for (const Convolution& problem : problems_of(attempt)) {
      for (CudnnPlan& plan : build_plans(handle_.get(), problem, limits, candidates.reason)) {
        const int64_t bytes = stage(convolution, problem, plan.workspace_bytes).bytes;
        candidates.routes.push_back({problem, std::move(plan), bytes});
      }
    }
    if (!candidates.routes.empty()) return;
  }
}

void CudnnConvolutions::prepare(std::span<const ConvolutionCall> calls) {
  const auto deadline = std::chrono::steady_clock::now() + kTimingBudget;
  std::vector<ConvolutionCall> largest_first(calls.begin(), calls.end());
  std::ranges::stable_sort(largest_first, std::greater(),
                           [](const ConvolutionCall& call) { return estimated_microseconds({*call.convolution, {}}); });
  for (const ConvolutionCall& call : largest_first) {
    const std::string key = key_of(*call.convolution), kept = "convolution " + key;
    if (routes_.contains(key)) continue;
    if (const std::string* const choice = choices_.find(kept)) try {
        const Route& route = routes_.emplace(key, restore(*call.convolution, *choice)).first->second;
        lane_.workspace.grow(route.workspace_bytes);
        continue;
      } catch (const Error& error) {
        choices_.refuse(kept, error.what());
      }
    Route& route = routes_.emplace(key, sound_route(call, deadline)).first->second;
    try {
      const std::string choice =
          print(choice_of(route.plan.configuration)) + std::string(kDoes) + key_of(route.problem);
      if (!built_again(call, choice, route)) continue;
      choices_.keep(kept, choice);
    } catch (const Error&) {  // an engine that does not say what it is is chosen at each start
    }
  }
}

// Puts the plan that `choice` gives in the place of the one it was read from, unless it is slower: engines do not tell
// all that was set for them.
bool CudnnConvolutions::built_again(const ConvolutionCall& call, const std::string& choice, Route& route) {
  constexpr double kAsFast = 1.1, kNoise = 1;  // microseconds
  Route again = restore(*call.convolution, choice);
  lane_.workspace.grow(std::max(route.workspace_bytes, again.workspace_bytes));
  const auto time = [&](const Route& r) {
    return time_call(lane_.stream, [&] { run(*call.convolution, call.operands, r, lane_); }, kRepeats);
  };
  if (time(again) > kAsFast * time(route) + kNoise) return false;
  route = std::move(again);
  return true;
}

CudnnConvolutions::Route CudnnConvolutions::fastest(Candidates candidates,
                                                    std::chrono::steady_clock::time_point deadline) {
  const Convolution& c = *candidates.call.convolution;
  const std::string shape =
      fmt::format("convolution {} of {} channels over {} to {} over {}, window {}, groups {}, {} to {}",
                  candidates.call.origin, name(c.kind), c.in_channels, c.spatial, c.out_channels, c.out_spatial,
                  c.window, c.groups, name(c.operand), name(c.result));
  if (candidates.routes.empty()) {
    throw Error(
        fmt::format("{}: cuDNN has no engine ({}){}", shape, candidates.reason,
                    c.operand == DType::f32 && !options_.allow_tf32 ? "; allow TF32, or train in f16 or bf16" : ""));
  }
  std::optional<Route> best;
  double best_time = 0;
  for (Route& route : candidates.routes) {
    if (candidates.routes.size() == 1) return std::move(route);
    if (best && std::chrono::steady_clock::now() > deadline) break;
    double time = 0;
    try {
      lane_.workspace.grow(route.workspace_bytes);
      time = time_call(lane_.stream, [&] { run(c, candidates.call.operands, route, lane_); }, kRepeats);
    } catch (const Error& error) {  // an engine may still refuse to run, or to be captured
      candidates.reason = error.what();
      continue;
    }
    if (!route.plan.deterministic) time *= kDeterminismPrice;
    if (best && time >= best_time) continue;
    best = std::move(route);
    best_time = time;
  }
  if (!best) throw Error(fmt::format("{}: no engine of cuDNN runs ({})", shape, candidates.reason));
  return std::move(*best);
}

CudnnConvolutions::Route CudnnConvolutions::sound_route(const ConvolutionCall& call,
                                                        std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    Candidates candidates{call, {}, {}};
    find_routes(candidates);
    Route route = fastest(std::move(candidates), deadline);
    if (overflows_.shows_overflows(route.problem, route.plan.engine)) return route;
    refused_[{route.problem.kind, route.problem.operand}].push_back(route.plan.engine);
  }
}

void CudnnConvolutions::run(const Convolution& convolution, const CudnnOperands& operands, const DeviceLane& lane) {
  const auto route = routes_.find(key_of(convolution));
  require(route != routes_.end(), "convolution: not prepared");
  run(convolution, operands, route->second, lane);
}

void CudnnConvolutions::run(const Convolution& c, const CudnnOperands& operands, const Route& route,
                            const DeviceLane& lane) {
  const Convolution& problem = route.problem;
  const auto given = matrices_of(c), wanted = matrices_of(problem);
  const Staging staging = stage(c, problem, route.plan.workspace_bytes);
  const Operand result = result_of(c.kind);
  const std::array<void*, kOperandCount> ours = {operands.x, operands.w, operands.y, operands.bias};
  for (const void* operand : ours) {
    require(reinterpret_cast<uintptr_t>(operand) % 16 == 0, "operands of a convolution are aligned to 16 bytes");
  }
  std::array<void*, kOperandCount> theirs = ours;
  for (size_t i = 0; i < kOperandCount; ++i) {
    if (staging.offsets[i] < 0) continue;
    theirs[i] = lane.workspace.data() + staging.offsets[i];
    if (i == result) continue;
    rows_.run(plain_format(given[i].type, wanted[i].type),
              {.from = ours[i],
               .to = theirs[i],
               .bias = nullptr,
               .from_rows = given[i].rows,
               .from_columns = given[i].columns,
               .to_rows = wanted[i].rows,
               .to_columns = wanted[i].columns},
              lane.stream);
  }
  check(cudnnSetStream(handle_.get(), lane.stream.get()), "cudnnSetStream");
  execute(handle_.get(), route.plan,
          {theirs[kOperandX], theirs[kOperandW], theirs[kOperandY], problem.bias ? theirs[kOperandBias] : nullptr},
          lane.workspace.data());

  RowsFormat format = plain_format(wanted[result].type, given[result].type);
  const bool add_bias = c.bias && !problem.bias;
  const bool apply_relu = c.relu && !problem.relu;
  if (staging.offsets[result] < 0 && !add_bias && !apply_relu) return;
  if (add_bias) format.bias = c.bias_type;
  if (apply_relu) format.activation = Activation::relu;
  rows_.run(format,
            {.from = theirs[result],
             .to = ours[result],
             .bias = add_bias ? operands.bias : nullptr,
             .from_rows = wanted[result].rows,
             .from_columns = wanted[result].columns,
             .to_rows = given[result].rows,
             .to_columns = given[result].columns},
            lane.stream);
}

int64_t CudnnConvolutions::workspace_bytes() const {
  int64_t bytes = 0;
  for (const auto& [key, route] : routes_) bytes = std::max(bytes, route.workspace_bytes);
  return bytes;
}

}  // namespace halfstep
