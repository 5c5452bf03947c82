// The elementary functions of f32 against libm in double, in units in the last place.
#include <numbers>

#include "tests/codegen/compare.h"
#include "tests/ulps.h"

namespace halfstep {
namespace {

// To `bound` units, where that is more than `relative` of the operand.
void expect_accurate(const char* op, double (*exact)(double), const std::vector<Tensor>& inputs, double bound,
                     double relative = 0) {
  for (const Tensor& x : inputs) {
    const int64_t n = x.type.element_count();
    const RegionRunner runner(parse_graph("graph f {\n %x = input() {name=\"0\"} : f32[" + std::to_string(n) +
                                          "]\n %y = " + op + "(%x)\n output \"0\" = %y\n}\n"));
    const Tensor y = runner.run({{"0", x}})[0];
    double worst = 0, at = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double wanted = exact(x.at(i));
      if (std::abs(y.at(i) - wanted) <= relative * std::max(1.0, std::abs(x.at(i)))) continue;
      const double u = ulps(static_cast<float>(y.at(i)), wanted);
      if (!(u <= worst)) worst = u, at = x.at(i);
    }
    EXPECT_LE(worst, bound) << op << " at " << at;
  }
}

constexpr int64_t kCount = 500000;

TEST(Math, Exponential) {
  expect_accurate("exp", [](double x) { return std::exp(x); }, {all_magnitudes(kCount), range(kCount, -105, 90)}, 1.5);
}

TEST(Math, Logarithm) {
  expect_accurate(
      "log", [](double x) { return std::log(x); },
      {all_magnitudes(kCount), range(kCount, 0.5, 2), range(1000, 0, 1e-40)}, 1.5);
}

TEST(Math, SineAndCosine) {
  const Tensor special = Tensor::from_values(
      {DType::f32, {10}}, std::vector<double>{0, -0.0, 1e-40, INFINITY, -INFINITY, NAN, 0x1p32, -0x1p51, 0x1p127,
                                              // Near a multiple of pi / 2.
                                              -0x1.a1de6ep+43});
  const std::vector<Tensor> inputs{all_magnitudes(500009),        range(kCount, -20, 20),     range(kCount, -1e6, 1e9),
                                   range(kCount, 0x1p31, 0x1p33), range(kCount, -3e38, 3e38), special};
  expect_accurate("sin", [](double x) { return std::sin(x); }, inputs, 2);
  expect_accurate("cos", [](double x) { return std::cos(x); }, inputs, 2);
}

TEST(Math, HyperbolicTangent) {
  expect_accurate("tanh", [](double x) { return std::tanh(x); }, {all_magnitudes(kCount), range(kCount, -10, 10)}, 2);
}

TEST(Math, ErrorFunction) {
  expect_accurate("erf", [](double x) { return std::erf(x); }, {all_magnitudes(kCount), range(kCount, -5, 5)}, 2);
}

TEST(Math, NormalDistributionAndDensity) {
  const std::vector<Tensor> inputs{all_magnitudes(kCount), range(kCount, -10, 10)};
  expect_accurate("normal_cdf", [](double x) { return std::erfc(x / -std::numbers::sqrt2) / 2; }, inputs, 0, 0x1p-22);
  expect_accurate(
      "normal_density", [](double x) { return std::exp(x * x / -2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2; },
      inputs, 0, 0x1p-22);
}

TEST(Math, Power) {
  const RegionRunner runner(
      parse_graph("graph p {\n %x = input() {name=\"0\"} : f32[200000]\n %y = input() {name=\"1\"} : f32[200000]\n"
                  " %z = pow(%x, %y)\n output \"0\" = %z\n}\n"));
  const auto check = [&](const Tensor& x, const Tensor& y) {
    const Tensor z = runner.run({{"0", x}, {"1", y}})[0];
    for (int64_t i = 0; i < 200000; ++i) {
      const double exact = std::pow(x.at(i), y.at(i));
      ASSERT_LE(ulps(static_cast<float>(z.at(i)), exact), 1) << x.at(i) << " ^ " << y.at(i) << " = " << exact;
    }
  };
  check(random_tensor({DType::f32, {200000}}, 1, 0, 20, 2), random_tensor({DType::f32, {200000}}, 2, -30, 30, 2));
  check(random_tensor({DType::f32, {200000}}, 3, 0.99, 1, 2), random_tensor({DType::f32, {200000}}, 4, 0, 100000, 2));
  // Every pair of special values.
  const std::vector<double> special{0,    -0.0, 1,    -1,   2,     -2,       3,         -3,  0.5,
                                    -0.5, 2.5,  -2.5, 1e30, -1e30, INFINITY, -INFINITY, NAN, 1e-42};
  Tensor x({DType::f32, {200000}}), y = x;
  for (size_t i = 0; i < 200000; ++i) {
    x.set(static_cast<int64_t>(i), special[i % special.size()]);
    y.set(static_cast<int64_t>(i), special[i / special.size() % special.size()]);
  }
  check(x, y);
  // Bases of every magnitude, exponents of every magnitude and of few.
  for (int64_t i = 0; i < 200000; ++i) {
    x.as<uint32_t>()[static_cast<size_t>(i)] = static_cast<uint32_t>(i * 2654435761);
    y.set(i, i % 2 == 0 ? (i / 2 % 4001 - 2000) * 0.25 : std::ldexp(i % 3 - 1, static_cast<int>(i / 2 % 277) - 149));
  }
  check(x, y);
}

// Exact, the sign of a zero too.
void expect_remainders(const Tensor& x, const Tensor& y) {
  const int64_t n = x.type.element_count();
  const std::string type = to_string(x.type);
  const RegionRunner runner(parse_graph("graph r {\n %x = input() {name=\"0\"} : " + type +
                                        "\n %y = input() {name=\"1\"} : " + type +
                                        "\n %z = fmod(%x, %y)\n output \"0\" = %z\n}\n"));
  const Tensor z = runner.run({{"0", x}, {"1", y}})[0];
  for (int64_t i = 0; i < n; ++i) {
    const double exact = std::fmod(x.at(i), y.at(i));
    ASSERT_TRUE(std::isnan(exact) ? std::isnan(z.at(i))
                                  : z.at(i) == exact && std::signbit(z.at(i)) == std::signbit(exact))
        << type << ": " << x.at(i) << " mod " << y.at(i) << " = " << exact << ", not " << z.at(i);
  }
}

TEST(Math, RemaindersAreExact) {
  const int64_t count = 200000;
  Tensor x({DType::f32, {count}}), y = x;
  // Every pair of exponents is met.
  const auto fill = [&](uint64_t seed) {
    for (auto* t : {&x, &y})
      for (uint32_t& bits : t->as<uint32_t>())
        bits = static_cast<uint32_t>((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 32);
  };
  for (const uint64_t seed : {1, 2, 3}) {
    fill(seed);
    expect_remainders(x, y);
  }
  // Quotients that are integers, or next to one.
  for (int64_t i = 0; i < count; ++i) {
    const float divisor = std::ldexp(static_cast<float>(i % 1009 + 1), static_cast<int>(i % 200) - 149);
    const float multiple = divisor * static_cast<float>(i / 7 + 1);
    y.set(i, i % 2 ? divisor : -divisor);
    x.set(i, i % 3 == 0 ? multiple : std::nextafter(multiple, i % 3 == 1 ? 0.0F : INFINITY));
  }
  expect_remainders(x, y);
  const std::vector<double> special{
      0, -0.0, 1, -1, 3, -3, 0.1F, -0.5, 1e20, -1e20, 0x1p-149, -0x1p-126, 0x1.fffffep127, INFINITY, -INFINITY, NAN};
  for (const DType type : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
    Tensor a({type, {256}}), b = a;
    for (size_t i = 0; i < 256; ++i) {
      a.set(static_cast<int64_t>(i), special[i / 16]);
      b.set(static_cast<int64_t>(i), special[i % 16]);
    }
    expect_remainders(a, b);
  }
  // Of every pair of halves some 10,000.
  for (const DType type : {DType::f16, DType::bf16}) {
    Tensor a({type, {10007}}), b = a;
    for (size_t i = 0; i < 10007; ++i) {
      a.as<uint16_t>()[i] = static_cast<uint16_t>(i * 40503);
      b.as<uint16_t>()[i] = static_cast<uint16_t>(i * 30011 / 7);
    }
    expect_remainders(a, b);
  }
}

double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

// Bodies made of several functions. A few units each; 1 + x and e^x - 1 must not lose a small x.
TEST(Math, ComposedFunctionsKeepTheirDigits) {
  const std::vector<Tensor> around_zero{range(kCount, -20, 20), range(kCount, -1e-3, 1e-3), range(1000, -1e-30, 1e-30)};
  expect_accurate("softplus", softplus, {range(kCount, -80, 80), range(kCount, -1e-3, 1e-3)}, 8);
  expect_accurate(
      "mish", [](double x) { return x * std::tanh(softplus(x)); }, {range(kCount, -80, 80), range(kCount, -1, 1)}, 12);
  expect_accurate("expm1", [](double x) { return std::expm1(x); }, around_zero, 8);
  expect_accurate("sinh", [](double x) { return std::sinh(x); }, around_zero, 12);
  expect_accurate("asinh", [](double x) { return std::asinh(x); }, around_zero, 12);
  expect_accurate("atan", [](double x) { return std::atan(x); }, around_zero, 12);
  expect_accurate(
      "asin", [](double x) { return std::asin(x); }, {range(kCount, -1e-3, 1e-3), range(kCount, -1, 1)}, 12);
  expect_accurate(
      "atanh", [](double x) { return std::atanh(x); }, {range(kCount, -1e-3, 1e-3), range(kCount, -0.99, 0.99)}, 12);
}

double gelu_tanh(double x) {
  const double inner = std::sqrt(2 / std::numbers::pi) * x * (1 + 0.044715 * x * x);
  return x / (1 + std::exp(-2 * inner));
}

// No function leaves its range early: every binade of both signs, infinities, NaN.
TEST(Math, EveryFunctionOverEveryMagnitude) {
  const std::vector<Tensor> all{all_magnitudes(400009)};
  const auto check = [&](const char* op, double (*exact)(double), double bound = 12, double relative = 0) {
    expect_accurate(op, exact, all, bound, relative);
  };
  check("sqrt", [](double x) { return std::sqrt(x); }, 0.5);
  check("rsqrt", [](double x) { return 1 / std::sqrt(x); }, 2);
  check("reciprocal", [](double x) { return 1 / x; }, 0.5);
  check("floor", [](double x) { return std::floor(x); }, 0);
  check("ceil", [](double x) { return std::ceil(x); }, 0);
  check("round", [](double x) { return std::nearbyint(x); }, 0);
  check("tan", [](double x) { return std::tan(x); });
  check("asin", [](double x) { return std::asin(x); });
  check("acos", [](double x) { return std::acos(x); });
  check("atan", [](double x) { return std::atan(x); });
  check("sinh", [](double x) { return std::sinh(x); });
  check("cosh", [](double x) { return std::cosh(x); });
  check("asinh", [](double x) { return std::asinh(x); });
  check("acosh", [](double x) { return std::acosh(x); });
  check("atanh", [](double x) { return std::atanh(x); });
  check("expm1", [](double x) { return std::expm1(x); });
  check("softplus", softplus);
  // As PyTorch writes them: e^-x overflows where the sigmoid is below f32's normal numbers, and 1 + erf cancels.
  check("sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }, 4, 0x1p-126);
  check("silu", [](double x) { return x / (1 + std::exp(-x)); }, 6, 0x1p-126);
  check("mish", [](double x) { return x * std::tanh(softplus(x)); }, 12, 0x1p-149);
  check("gelu", [](double x) { return x * 0.5 * std::erfc(-x * std::numbers::sqrt2 / 2); }, 4, 0x1p-23);
  check("gelu_tanh", gelu_tanh, 4, 0x1p-23);
}

TEST(Math, SoftplusOfInfinities) {
  const Graph region =
      parse_graph("graph f {\n %x = input() {name=\"0\"} : f32[3]\n %y = softplus(%x)\n output \"0\" = %y\n}\n");
  Tensor x({DType::f32, {3}});
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  x.set(0, kInfinity), x.set(1, -kInfinity), x.set(2, std::numeric_limits<double>::quiet_NaN());
  const Tensor y = RegionRunner(region).run({{"0", x}})[0];
  EXPECT_EQ(y.at(0), kInfinity);
  EXPECT_EQ(y.at(1), 0);
  EXPECT_TRUE(std::isnan(y.at(2)));
}

TEST(Math, CastsToIntegersOverEveryMagnitude) {
  for (const char* type : {"i64", "i32", "i8", "u8", "bool"}) {
    const Graph region =
        parse_graph(std::string("graph f {\n %x = input() {name=\"0\"} : f32[200003]\n %y = cast(%x) {to=") + type +
                    "}\n output \"0\" = %y\n}\n");
    expect_as_interpreted(RegionRunner(region), {{"0", all_magnitudes(200003)}});
  }
}

TEST(Math, DoublesCallTheLibrary) {
  for (const char* op : {"exp", "log", "sin", "cos", "tanh", "erf", "gelu", "gelu_tanh", "softplus", "expm1"})
    expect_as_interpreted(
        std::string("graph f {\n %x = input() {name=\"0\"} : f64[37]\n %y = ") + op + "(%x)\n output \"0\" = %y\n}\n",
        0.1, 4);
}

}  // namespace
}  // namespace halfstep
