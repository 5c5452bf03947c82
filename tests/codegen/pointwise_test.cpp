#include <limits>

#include "tests/codegen/compare.h"

namespace halfstep {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

// One operand of `type`, one node.
std::string unary_text(const std::string& type, const std::string& node) {
  return "graph unary {\n  %x = input() {name=\"0\"} : " + type + "\n  %y = " + node + "\n  output \"0\" = %y\n}\n";
}

std::string binary_text(const std::string& type, const std::string& op) {
  return "graph binary {\n  %x = input() {name=\"0\"} : " + type + "\n  %y = input() {name=\"1\"} : " + type +
         "\n  %z = " + op + "(%x, %y)\n  output \"0\" = %z\n}\n";
}

TEST(Pointwise, AnySize) {
  for (const char* size : {"[]", "[0]", "[1]", "[7]", "[31]", "[33]", "[1000]", "[40000]", "[3,0,2]", "[2,3,5]"})
    for (const char* type : {"f32", "f16", "bf16", "f64", "u8", "i8", "i32", "i64"})
      expect_as_interpreted(binary_text(std::string(type) + size, "mul"), -2, 2, 9);
}

TEST(Pointwise, BiasAlongTheInnermostAxis) {
  for (const char* type : {"f32", "f16", "bf16"})
    for (const char* channels : {"1", "7", "32", "33", "100"}) {
      const std::string t(type), c(channels);
      expect_as_interpreted("graph bias {\n  %x = input() {name=\"0\"} : " + t + "[2,5," + c +
                            "]\n  %b = input() {name=\"1\"} : " + t + "[" + c + "]\n  %r = reshape(%b) {shape=[1,1," +
                            c + "]}\n  %w = broadcast(%r) {shape=[2,5," + c +
                            "]}\n  %s = add(%x, %w)\n  %y = relu(%s)\n  output \"0\" = %y\n}\n");
    }
}

TEST(Pointwise, ReadsOperandsOfEveryTypeAndWritesSeveralOutputs) {
  expect_as_interpreted(R"(graph several {
    %x = input() {name="0"} : f16[3,50]
    %k = input() {name="1"} : i64[3,50]
    %m = input() {name="2"} : bool[150]
    %n = reshape(%m) {shape=[3,50]}
    %f = cast(%k) {to=f16}
    %s = add(%x, %f)
    %y = select(%n, %s, %x)
    %c = less(%x, %y)
    %i = cast(%s) {to=i8}
    %r = reshape(%y) {shape=[150]}
    output "0" = %y
    output "1" = %c
    output "2" = %i
    output "3" = %r
  })",
                        -2, 2, 2);
}

// A mask compares what the low type would hold, without making it: half of its least number rounds to 0.
TEST(Pointwise, MasksAreThoseOfTheRoundedValues) {
  for (const char* low : {"f16", "bf16"})
    for (const char* steps : {"%h = cast(%x) {to=LOW}\n %r = relu(%h)\n %w = cast(%r) {to=f32}",
                              "%r = relu(%x)\n %h = cast(%r) {to=LOW}\n %w = cast(%h) {to=f32}",
                              "%h = cast(%x) {to=LOW}\n %s = add(%h, %h)\n %r = relu(%s)\n %w = cast(%r) {to=f32}",
                              "%h = cast(%x) {to=LOW}\n %n = neg(%h)\n %w = cast(%n) {to=f32}"}) {
      std::string text = std::string("graph mask {\n %x = input() {name=\"0\"} : f32[24]\n ") + steps + R"(
        %z = constant() {value=f32[1](0)}
        %zero = broadcast(%z) {shape=[24]}
        %m = less(%zero, %w)
        %y = select(%m, %x, %zero)
        %g = cast(%y) {to=LOW}
        output "0" = %m
        output "1" = %g
      })";
      for (size_t at; (at = text.find("LOW")) != std::string::npos;) text.replace(at, 3, low);
      SCOPED_TRACE(text);
      const RegionRunner runner(parse_graph(text));
      NamedTensors leaves{{"0", Tensor({DType::f32, {24}})}};
      const double half = *low == 'f' ? 0x1p-25 : 0x1p-120, next = *low == 'f' ? 0x1p-48 : 0x1p-143;
      const double values[] = {half,     half + next, half - next, -half, 2 * half, 3 * half, half / 2, 0,
                               -0.0,     kNan,        kInf,        -kInf, 1,        -1,       65520,    1e-30,
                               0x1p-126, 0x1p-24,     0x1p-26,     2049,  -2049,    0.1,      -1e-30,   0x1.8p-25};
      for (int64_t i = 0; i < 24; ++i) leaves.at("0").set(i, values[i]);
      const InterpretResult expected = interpret(runner.region(), leaves);
      const std::vector<Tensor> actual = runner.run(leaves);
      for (size_t o = 0; o < 2; ++o)
        for (int64_t i = 0; i < 24; ++i) {
          const double e = expected.outputs.at(runner.region().outputs()[o].name).values[static_cast<size_t>(i)];
          if (std::isnan(e)) continue;
          EXPECT_EQ(actual[o].at(i), e) << "output " << o << ", of " << values[i];
        }
    }
}

TEST(Pointwise, ALowValueIsRoundedWhereverItIsRead) {
  // 2048 + 1 is not an f16: whether the sum is stored or not, its reader sees 2048.
  const RegionRunner runner(parse_graph(R"(graph wide {
    %x = input() {name="0"} : f16[40]
    %y = input() {name="1"} : f16[40]
    %s = add(%x, %y)
    %t = add(%s, %y)
    output "0" = %t
  })"));
  NamedTensors leaves{{"0", Tensor({DType::f16, {40}})}, {"1", Tensor({DType::f16, {40}})}};
  for (int64_t i = 0; i < 40; ++i) leaves.at("0").set(i, 2048), leaves.at("1").set(i, 1);
  EXPECT_EQ(runner.run(leaves)[0].at(17), 2048);
}

TEST(Pointwise, ACastInsideRounds) {
  const RegionRunner runner(parse_graph(R"(graph narrow {
    %x = input() {name="0"} : f32[40]
    %h = cast(%x) {to=f16}
    %b = cast(%x) {to=bf16}
    %f = cast(%h) {to=f32}
    %g = cast(%b) {to=f32}
    output "0" = %f
    output "1" = %g
  })"));
  Tensor x({DType::f32, {40}});
  const std::vector<double> values{1.0 / 3,           65519, 65520, -1e9, 0x1p-24, 0x1p-25,      0x1.8p-25,
                                   0x1p-14 - 0x1p-26, kInf,  -kInf, kNan, -0.0,    3.3895314e38, 1e-40};
  for (size_t i = 0; i < values.size(); ++i) x.set(static_cast<int64_t>(i), values[i]);
  const std::vector<Tensor> actual = runner.run({{"0", x}});
  for (int64_t i = 0; i < 40; ++i)
    for (size_t k = 0; k < 2; ++k) {
      const double expected = round_to(k == 0 ? DType::f16 : DType::bf16, x.at(i)), a = actual[k].at(i);
      EXPECT_TRUE(a == expected || (std::isnan(a) && std::isnan(expected))) << x.at(i) << " gives " << a;
    }
}

TEST(Pointwise, EveryCast) {
  const std::vector<DType> types{DType::f16, DType::bf16, DType::f32, DType::f64,    DType::u8,
                                 DType::i8,  DType::i32,  DType::i64, DType::boolean};
  for (DType from : types)
    for (DType to : types) {
      const std::string f(name(from)), t(name(to));
      SCOPED_TRACE(f + " to " + t);
      const RegionRunner runner(parse_graph(unary_text(f + "[20]", "cast(%x) {to=" + t + "}")));
      Tensor x({from, {20}});
      const std::vector<double> values{0,    1,   -1,  2.5,   -2.5, 127,  128, -128,
                                       -129, 255, 256, 65504, 1e6,  -1e6, 3e9, -3e9};
      for (size_t i = 0; i < values.size(); ++i) x.set(static_cast<int64_t>(i), values[i]);
      if (is_floating(from)) x.set(16, kNan), x.set(17, kInf), x.set(18, -kInf), x.set(19, 1e30);
      const Tensor actual = runner.run({{"0", x}})[0];
      const auto expected = interpret(runner.region(), {{"0", x}}).outputs.at("0");
      // Above 2^53 a double tells no i64 from its neighbour.
      EXPECT_LE(distance(actual, expected), to == DType::i64 || to == DType::f32 ? 1e-6 : 0);
    }
}

TEST(Pointwise, NanAndInfinity) {
  const std::vector<double> values{0, -0.0, 1, -1, kInf, -kInf, kNan, 65504};
  for (const char* type : {"f32", "f16", "bf16", "f64"})
    for (const char* op : {"max", "min", "eq", "less", "less_equal", "add", "mul", "div", "sub"}) {
      SCOPED_TRACE(std::string(type) + " " + op);
      const RegionRunner runner(parse_graph(binary_text(std::string(type) + "[64]", op)));
      const DType dtype = *parse_dtype(type);
      NamedTensors leaves{{"0", Tensor({dtype, {64}})}, {"1", Tensor({dtype, {64}})}};
      for (int64_t i = 0; i < 64; ++i) {
        leaves.at("0").set(i, values[static_cast<size_t>(i / 8)]);
        leaves.at("1").set(i, values[static_cast<size_t>(i % 8)]);
      }
      expect_as_interpreted(runner, leaves);
    }
  for (const char* op : {"relu", "abs", "neg", "exp", "log", "sqrt", "tanh", "sigmoid", "erf", "floor", "ceil", "round",
                         "sign", "is_finite", "is_nan", "softplus", "reciprocal"}) {
    SCOPED_TRACE(op);
    const RegionRunner runner(parse_graph(unary_text("f32[8]", std::string(op) + "(%x)")));
    expect_as_interpreted(runner, {{"0", Tensor::from_values({DType::f32, {8}}, values)}});
  }
}

TEST(Pointwise, IntegerDivisionNeverTraps) {
  const std::vector<double> x{7, -7, 0, 5, -5, -2147483648.0, 9, 1}, y{2, 2, 0, 0, 0, -1, -3, 1};
  const RegionRunner runner(parse_graph(binary_text("i32[8]", "div")));
  expect_as_interpreted(
      runner, {{"0", Tensor::from_values({DType::i32, {8}}, x)}, {"1", Tensor::from_values({DType::i32, {8}}, y)}});
}

TEST(Pointwise, LargerConstantsAreKeptInTheModule) {
  expect_as_interpreted(R"(graph table {
    %x = input() {name="0"} : f16[4,3]
    %t = constant() {value=f16[3](1, -2, 0.5)}
    %r = reshape(%t) {shape=[1,3]}
    %b = broadcast(%r) {shape=[4,3]}
    %y = mul(%x, %b)
    output "0" = %y
  })");
}

TEST(Pointwise, AnOutputMayLieOverAnOperand) {
  const Graph region = parse_graph(R"(graph update {
    %p = input() {name="0"} : f32[5000]
    %m = input() {name="1"} : f32[5000]
    %g = input() {name="2"} : f16[5000]
    %f = cast(%g) {to=f32}
    %n = add(%m, %f)
    %q = sub(%p, %n)
    %h = cast(%q) {to=f16}
    output "0" = %q
    output "1" = %n
    output "2" = %h
  })");
  KernelModule module({DeviceKind::cpu, host_cpu()});
  const EmittedRegion emitted = module.emit(region);
  const LoadedKernels kernels(module.finish());
  NamedTensors leaves = random_leaves(region, 3);
  const InterpretResult expected = interpret(region, leaves);
  Tensor h({DType::f16, {5000}});
  std::vector<void*> arguments;
  for (const EmittedArgument& a : emitted.launches.at(0).arguments) {
    const bool last = a.kind == EmittedArgument::Kind::output && a.number == 2;
    arguments.push_back(last ? static_cast<void*>(h.data.data()) : leaves.at(std::to_string(a.number)).data.data());
  }
  kernels.find(emitted.launches[0].kernel)(arguments.data(), 0, emitted.launches[0].units);
  EXPECT_LE(distance(leaves.at("0"), expected.outputs.at("0")), 1e-6);
  EXPECT_LE(distance(leaves.at("1"), expected.outputs.at("1")), 1e-6);
  EXPECT_LE(distance(h, expected.outputs.at("2")), 0x1p-9);
}

}  // namespace
}  // namespace halfstep
