// The elementary functions as the GPU computes them, against libm in double: its kernels have instructions of their own
// for powers of two and reciprocals.
#include <numbers>

#include "ir/text.h"
#include "tests/compiled_graph.h"
#include "tests/gpu/gpu_test.h"
#include "tests/ulps.h"

namespace halfstep {
namespace {

class MathOnTheGpu : public GpuTest {};

struct FunctionRow {
  const char* op;
  double (*exact)(double);
  double low, high;     // where it is neither constant nor infinite
  double absolute = 0;  // what it may be off by anyway, times |x| where that is above 1
  double bound = 3;     // units in the last place
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double normal_cdf(double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }
double normal_density(double x) { return std::exp(x * x / -2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2; }
double gelu_tanh(double x) { return x * sigmoid(2 * std::sqrt(2 / std::numbers::pi) * x * (1 + 0.044715 * x * x)); }

constexpr FunctionRow kFunctions[] = {
    {"exp", [](double x) { return std::exp(x); }, -105, 90},
    {"log", [](double x) { return std::log(x); }, 0, 2},
    {"sin", [](double x) { return std::sin(x); }, -1e5, 1e5},
    {"cos", [](double x) { return std::cos(x); }, -1e5, 1e5},
    {"tanh", [](double x) { return std::tanh(x); }, -10, 10},
    {"erf", [](double x) { return std::erf(x); }, -5, 5},
    {"sigmoid", sigmoid, -100, 50, 0x1p-126, 4},
    {"normal_cdf", normal_cdf, -10, 10, 0x1p-22},
    {"normal_density", normal_density, -10, 10, 0x1p-22},
    {"gelu", [](double x) { return x * normal_cdf(x); }, -10, 10, 0x1p-22},
    {"gelu_tanh", gelu_tanh, -10, 10, 0x1p-22},
};

TEST_F(MathOnTheGpu, FunctionsOverEveryMagnitude) {
  constexpr int64_t kCount = 500000;
  for (const FunctionRow& f : kFunctions)
    for (const Tensor& x : {all_magnitudes(kCount), range(kCount, f.low, f.high)}) {
      const std::string text = "graph f {\n %x = input() {name=\"x\"} : f32[" + std::to_string(kCount) +
                               "]\n %y = " + f.op + "(%x)\n output \"y\" = %y\n}\n";
      const Tensor y = compile_graph(parse_graph(text), DeviceKind::cuda).run({{"x", x}}).at("y");
      double worst = 0, at = 0;
      for (int64_t i = 0; i < kCount; ++i)
        if (!(std::abs(y.at(i) - f.exact(x.at(i))) <= f.absolute * std::max(1.0, std::abs(x.at(i)))))
          if (const double u = ulps(static_cast<float>(y.at(i)), f.exact(x.at(i))); !(u <= worst))
            worst = u, at = x.at(i);
      EXPECT_LE(worst, f.bound) << f.op << " at " << at;
      RecordProperty(f.op, std::to_string(worst));
    }
}

}  // namespace
}  // namespace halfstep
