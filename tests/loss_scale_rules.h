// The loss scale's own update against the rules that it follows, line by line, on random overflows, for a step however
// it is run.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/torch_steps.h"

namespace halfstep {

// torch.amp.GradScaler: _amp_update_scale_ of one device.
struct TorchRule {
  float scale = 65536;
  double growth = 2, backoff = 0.5;
  int interval = 2000;
  int tracker = 0;

  void update(bool overflow) {
    if (overflow) {
      scale = static_cast<float>(scale * backoff);
      tracker = 0;
    } else if (++tracker == interval) {
      const float grown = static_cast<float>(scale * growth);
      if (std::isfinite(grown)) scale = grown;
      tracker = 0;
    }
  }
};

// deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler, which does not raise at the least scale.
struct DeepSpeedRule {
  double scale = 65536, factor = 2, least = 1;
  int window = 1000, delayed_shift = 1;
  bool consecutive_hysteresis = false;
  int iteration = 0, last_overflow = -1;
  int hysteresis = delayed_shift;

  void update(bool overflow) {
    if (overflow) {
      if (delayed_shift == 1 || hysteresis == 1)
        scale = std::max(scale / factor, least);
      else
        --hysteresis;
      last_overflow = iteration;
    } else {
      if (consecutive_hysteresis) hysteresis = delayed_shift;
      if ((iteration - last_overflow) % window == 0) {
        if (!consecutive_hysteresis) hysteresis = delayed_shift;
        if (std::isfinite(static_cast<float>(scale * factor))) scale *= factor;  // theirs is a double, and goes on
      }
    }
    ++iteration;
  }
};

// One weight whose gradient is 1 or infinite.
class ScaledStep {
 public:
  ScaledStep(const MakeTrainingStep& make_step, const LossScaling& scaling) {
    LossOptions from_graph;
    from_graph.kind = "from_graph";
    OptimizerOptions options;
    options.scaling = scaling;
    const Graph model = parse_graph(R"(
      graph one {
        %g = input() {name="g"} : f32[1]
        %w = parameter() {name="w"} : f32[1]
        %0 = mul(%w, %g)
        output "loss" = %0
      })");
    step_ = make_step(model, from_graph, options, {{"w", vector_of_one(0)}});
  }
  void run(bool overflow) {
    const double g = overflow ? std::numeric_limits<double>::infinity() : 1;
    step_->loss({{"g", vector_of_one(g)}, {kStepLearningRate, Tensor::scalar(DType::f32, 0.001)}});
  }
  double at(const Name& state) { return step_->scalar_state(state); }

 private:
  static Tensor vector_of_one(double v) { return Tensor::from_values({DType::f32, {1}}, std::vector<double>{v}); }
  std::unique_ptr<TrainingStep> step_;
};

struct RandomRuns {
  int runs = 0, steps = 60;
};

// Factors are such that f32 holds them, and a product is rounded once in either arithmetic.
inline void expect_torch_rule(const MakeTrainingStep& make_step, const RandomRuns& runs) {
  for (int run = 0; run < runs.runs; ++run) {
    SCOPED_TRACE(run);
    std::mt19937 random(static_cast<unsigned>(run));
    const auto one_of = [&](std::initializer_list<double> values) {
      return *(values.begin() + random() % values.size());
    };
    TorchRule torch{.scale = static_cast<float>(one_of({65536, 1000, 0x1p120, 0x1p-20})),
                    .growth = one_of({2, 1.5, 4, 1.0009765625}),
                    .backoff = one_of({0.5, 0.25, 0.75}),
                    .interval = static_cast<int>(one_of({1, 2, 3, 7}))};
    ScaledStep step(make_step, {.initial = torch.scale,
                                .growth = torch.growth,
                                .backoff = torch.backoff,
                                .interval = torch.interval,
                                .floor = 0});
    const double rate = one_of({0.05, 0.3, 0.7});
    std::bernoulli_distribution overflows(rate);
    for (int i = 0; i < runs.steps; ++i) {
      const bool overflow = overflows(random);
      torch.update(overflow);
      step.run(overflow);
      ASSERT_EQ(step.at(kLossScaleState), torch.scale) << "step " << i;
      ASSERT_EQ(step.at(kLossScaleTracker), torch.tracker) << "step " << i;
    }
  }
}

inline void expect_deepspeed_rule(const MakeTrainingStep& make_step, const RandomRuns& runs) {
  for (int run = 0; run < runs.runs; ++run) {
    SCOPED_TRACE(run);
    std::mt19937 random(static_cast<unsigned>(1000 + run));
    const auto one_of = [&](std::initializer_list<double> values) {
      return *(values.begin() + random() % values.size());
    };
    const int shift = static_cast<int>(one_of({1, 2, 3, 5}));
    DeepSpeedRule rule{.scale = one_of({65536, 1024, 16}),
                       .factor = one_of({2, 4}),
                       .least = one_of({1, 0.25, 64}),
                       .window = static_cast<int>(one_of({1, 2, 3, 7})),
                       .delayed_shift = shift,
                       .consecutive_hysteresis = random() % 2 == 0};
    ScaledStep step(make_step,
                    {.initial = rule.scale,
                     .growth = rule.factor,
                     .backoff = 1 / rule.factor,
                     .interval = rule.window,
                     .floor = rule.least,
                     .hysteresis = shift,
                     .spares = rule.consecutive_hysteresis ? LossScaling::after_each_step : LossScaling::after_growth});
    const double rate = one_of({0.1, 0.3, 0.6});
    std::bernoulli_distribution overflows(rate);
    for (int i = 0; i < runs.steps; ++i) {
      const bool overflow = overflows(random);
      rule.update(overflow);
      step.run(overflow);
      ASSERT_EQ(step.at(kLossScaleState), rule.scale) << "step " << i;
      if (shift > 1) {
        ASSERT_EQ(step.at(kLossScaleHysteresis), rule.hysteresis) << "step " << i;
      }
    }
  }
}

}  // namespace halfstep
