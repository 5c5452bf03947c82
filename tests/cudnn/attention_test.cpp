// What cuDNN's attention gives, beside its definition in double, in the forms that a program may ask for.
#include "runtime/cuda/attention.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstring>
#include <random>

#include "base/error.h"
#include "runtime/cuda/check.h"
#include "tests/cudnn/attention_reference.h"
#include "tests/gpu/gpu_test.h"

namespace halfstep {
namespace {

struct Form {
  std::string name;
  int64_t batch, heads, key_heads, queries, keys, depth, value_depth;
  bool causal = false;
  DType type = DType::f16;
};

Attention attention_of(const Form& f, AttentionKind kind) {
  Attention a;
  a.kind = kind;
  a.batch = f.batch, a.heads = f.heads, a.key_heads = f.key_heads, a.queries = f.queries, a.keys = f.keys;
  a.depth = f.depth, a.value_depth = f.value_depth, a.causal = f.causal, a.operand = f.type;
  a.scale = 1 / std::sqrt(static_cast<double>(f.depth));
  if (kind == AttentionKind::backward) a.dy.emplace(), a.dq.emplace(), a.dk.emplace(), a.dv.emplace();
  return a;
}

std::vector<Form> forms() {
  return {
      {"plain", 2, 4, 4, 128, 128, 64, 64},
      {"causal", 2, 4, 4, 128, 128, 64, 64, true},
      {"bf16", 2, 4, 4, 128, 128, 64, 64, true, DType::bf16},
      {"odd length", 2, 3, 3, 197, 197, 64, 64},
      {"short", 3, 2, 2, 7, 7, 32, 32, true},
      {"two", 3, 2, 2, 2, 2, 8, 8},
      {"across", 2, 2, 2, 65, 100, 64, 64},
      {"causal across", 2, 2, 2, 65, 100, 64, 64, true},
      {"causal along", 2, 2, 2, 100, 65, 64, 64, true},
      {"grouped", 2, 8, 2, 96, 96, 64, 64, true},
      {"one key head", 2, 4, 1, 64, 64, 128, 128},
      {"depth 8", 2, 2, 2, 64, 64, 8, 8, true},
      {"depth 24", 2, 2, 2, 64, 64, 24, 24, true},
      {"depth 80", 2, 2, 2, 64, 64, 80, 80},
      {"depth 104", 2, 2, 2, 70, 70, 104, 104, true},
      {"value depth 32", 2, 2, 2, 64, 64, 64, 32},
      {"value depth 128", 2, 2, 2, 64, 64, 64, 128, true},
      {"grouped across", 2, 4, 2, 60, 77, 64, 64},
  };
}

// An H100 as the library describes it, so that it can be asked for engines without one.
constexpr std::string_view kH100 =
    R"({"cudnnVersion":91900,"schemaVersion":4,"cudaDeviceId":0,"deviceVer":900,"driverVer":13000,)"
    R"("maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
    R"("multiProcessorCount":132,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
    R"("maxSharedMemoryPerBlockOptin":232448,"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
    R"("maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,)"
    R"("supportCoopLaunch":1,"smClockRateKHz":1980000,"memClockRateKHz":2619000,"l2CacheSize":52428800,)"
    R"("totalGlobalMem":85000000000,"deviceName":"NVIDIA H100 80GB HBM3"})";

size_t engines(const CudnnDescriptor& device, const Attention& a) {
  return AttentionGraph(CudnnTarget{nullptr, &device}, a).configurations().size();
}

TEST(CudnnAttention, HasEnginesOnAnH100ForEveryForm) {
  // Engines are compiled, and cuDNN loads the driver for that; nothing of it runs.
  if (!dlopen("libcuda.so.1", RTLD_NOW)) GTEST_SKIP() << "no driver";
  if (cudnnGetVersion() < 91900) GTEST_SKIP() << "the description is that of cuDNN 9.19";
  CudnnDescriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  const std::string text =
      fmt::format(R"({{"cudnnVersion":{}{})", cudnnGetVersion(), kH100.substr(kH100.find(",\"schema")));
  device.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, std::span<const char>(text));
  device.finalize();
  for (const Form& form : forms())
    for (const AttentionKind kind : {AttentionKind::forward, AttentionKind::backward}) {
      Attention a = attention_of(form, kind);
      EXPECT_GT(engines(device, a), 0u) << form.name << " " << name(kind);
      a.deterministic = kind == AttentionKind::backward;
      EXPECT_GT(engines(device, a), 0u) << form.name << " " << name(kind) << ", in one order";
    }
  Form odd = forms().front();
  odd.depth = odd.value_depth = 12;
  EXPECT_EQ(engines(device, attention_of(odd, AttentionKind::forward)), 0u) << "the test would not see a missing one";
}

// Everything of one attention, on the host and on the device.
class Trial {
 public:
  explicit Trial(const Form& form, uint64_t seed = 1)
      : forward_(attention_of(form, AttentionKind::forward)), backward_(attention_of(form, AttentionKind::backward)) {
    const Attention& a = forward_;
    std::mt19937_64 random(seed);
    const auto fill = [&](std::vector<double>& values, int64_t count) {
      std::normal_distribution<double> normal;
      values.resize(static_cast<size_t>(count));
      for (double& x : values) x = normal(random);
      const Tensor rounded = Tensor::from_values({a.operand, {count}}, values);
      for (size_t i = 0; i < values.size(); ++i) values[i] = rounded.at(static_cast<int64_t>(i));
    };
    fill(host.q, a.batch * a.queries * a.heads * a.depth), fill(host.k, a.batch * a.keys * a.key_heads * a.depth);
    fill(host.v, a.batch * a.keys * a.key_heads * a.value_depth);
    fill(host.dy, a.batch * a.queries * a.heads * a.value_depth);
  }

  AttentionReference host;

  void upload() {
    const DType type = forward_.operand;
    place(host.q, type, &AttentionAddresses::q), place(host.k, type, &AttentionAddresses::k);
    place(host.v, type, &AttentionAddresses::v), place(host.dy, type, &AttentionAddresses::dy);
    const Attention& a = forward_;
    const auto zeros = [&](int64_t n) { return std::vector<double>(static_cast<size_t>(n), 0); };
    place(zeros(std::ssize(host.dy)), type, &AttentionAddresses::y);
    place(zeros(a.batch * a.heads * a.queries), DType::f32, &AttentionAddresses::stats);
    place(zeros(std::ssize(host.q)), type, &AttentionAddresses::dq);
    place(zeros(std::ssize(host.k)), type, &AttentionAddresses::dk);
    place(zeros(std::ssize(host.v)), type, &AttentionAddresses::dv);
  }
  // Forward and backward; what the library lacks is thrown.
  void run(bool deterministic = false) {
    backward_.deterministic = deterministic;
    attentions_.prepare(forward_, at(forward_)), attentions_.prepare(backward_, at(backward_));
    attentions_.run(forward_, at(forward_)), attentions_.run(backward_, at(backward_));
    stream_.synchronize();
  }
  std::vector<double> read(void* AttentionAddresses::* which, DType type) {
    Tensor t({type, {counts_.at(index(which))}});
    check(cudaMemcpy(t.data.data(), addresses_.*which, t.data.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    std::vector<double> values;
    for (int64_t i = 0; i < t.type.element_count(); ++i) values.push_back(t.at(i));
    return values;
  }
  std::vector<double> read(void* AttentionAddresses::* which) { return read(which, forward_.operand); }
  double microseconds(AttentionKind kind) {
    const Attention& a = kind == AttentionKind::forward ? forward_ : backward_;
    return time_call(stream_, [&] { attentions_.run(a, at(a)); }, 10);
  }
  double gigaflops(AttentionKind kind) const {
    return cost({kind == AttentionKind::forward ? forward_ : backward_, ""}).flops / 1e9;
  }
  int64_t workspace() const { return attentions_.workspace_bytes(); }

 private:
  static size_t index(void* AttentionAddresses::* which) {
    AttentionAddresses probe;
    return static_cast<size_t>(&(probe.*which) - &probe.q);
  }
  void place(const std::vector<double>& values, DType type, void* AttentionAddresses::* which) {
    const Tensor t = Tensor::from_values({type, {std::ssize(values)}}, values);
    memory_.emplace_back(std::max<int64_t>(16, t.type.byte_count()));
    check(cudaMemcpy(memory_.back().data(), t.data.data(), t.data.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
    addresses_.*which = memory_.back().data();
    counts_[index(which)] = std::ssize(values);
  }
  AttentionAddresses at(const Attention& a) const {
    AttentionAddresses found = addresses_;
    if (a.kind == AttentionKind::forward) found.dy = found.dq = found.dk = found.dv = nullptr;
    return found;
  }

  Attention forward_, backward_;
  CudaStream stream_;
  Workspace workspace_;
  ChoiceStore choices_{{}, {}};
  CudnnAttentions attentions_{stream_, workspace_, choices_};
  std::vector<DeviceMemory> memory_;
  std::map<size_t, int64_t> counts_;
  AttentionAddresses addresses_;
};

double largest(const std::vector<double>& values) {
  double most = 0;
  for (double x : values) most = std::max(most, std::abs(x));
  return most;
}

double difference(const std::vector<double>& expected, const std::vector<double>& found) {
  double most = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    most = std::isfinite(found[i]) ? std::max(most, std::abs(found[i] - expected[i])) : INFINITY;
  return most / std::max(1.0, largest(expected));
}

class CudnnAttentionForms : public GpuTest {};

TEST_F(CudnnAttentionForms, AreAsDefinedOnTheGpu) {
  CudaDevice::open(0);
  for (const Form& form : forms()) {
    SCOPED_TRACE(form.name);
    try {
      Trial trial(form);
      trial.host.compute(attention_of(form, AttentionKind::backward));
      trial.upload();
      const auto start = std::chrono::steady_clock::now();
      trial.run();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const double y = difference(trial.host.y, trial.read(&AttentionAddresses::y)),
                   stats = difference(trial.host.stats, trial.read(&AttentionAddresses::stats, DType::f32)),
                   dq = difference(trial.host.dq, trial.read(&AttentionAddresses::dq)),
                   dk = difference(trial.host.dk, trial.read(&AttentionAddresses::dk)),
                   dv = difference(trial.host.dv, trial.read(&AttentionAddresses::dv));
      fmt::print("{:16} y {:.1e} stats {:.1e} dq {:.1e} dk {:.1e} dv {:.1e}, {:.2f} s to build\n", form.name, y, stats,
                 dq, dk, dv, seconds);
      const double tolerance = form.type == DType::f16 ? 3e-3 : 2e-2;
      EXPECT_LT(stats, 1e-3);
      for (const double d : {y, dq, dk, dv}) EXPECT_LT(d, tolerance);
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

TEST_F(CudnnAttentionForms, GiveTheSameBitsTwiceIfAskedToOnTheGpu) {
  CudaDevice::open(0);
  for (const bool deterministic : {true, false}) {
    Trial trial({"", 4, 8, 8, 512, 512, 64, 64, true});
    trial.upload();
    size_t differ = 0;
    trial.run(deterministic);
    const std::vector<double> once = trial.read(&AttentionAddresses::dq);
    for (int i = 0; i < 5; ++i) {
      trial.run(deterministic);
      const std::vector<double> again = trial.read(&AttentionAddresses::dq);
      for (size_t j = 0; j < once.size(); ++j) differ += once[j] != again[j];
    }
    fmt::print("deterministic {}: {} elements of dq differ\n", deterministic, differ);
    EXPECT_TRUE(!deterministic || differ == 0);
  }
}

// Loss scaling must see what overflows.
TEST_F(CudnnAttentionForms, ShowOverflowsOnTheGpu) {
  CudaDevice::open(0);
  for (const bool deterministic : {true, false})
    for (const double value : {60000.0, double{INFINITY}, double{NAN}}) {
      Trial trial({"", 1, 2, 2, 64, 64, 64, 64, true});
      for (double& x : trial.host.dy) x = value;
      trial.upload();
      trial.run(deterministic);
      const auto finite = [&](void* AttentionAddresses::* which) {
        const std::vector<double> values = trial.read(which);
        return std::ranges::count_if(values, [](double x) { return std::isfinite(x); });
      };
      const auto dv = finite(&AttentionAddresses::dv), dq = finite(&AttentionAddresses::dq),
                 dk = finite(&AttentionAddresses::dk);
      const std::vector<double> values = trial.read(&AttentionAddresses::dv);
      fmt::print("dy of {}: finite {} of dv (first {}, largest {}), {} of dq, {} of dk\n", value, dv, values[0],
                 largest(values), dq, dk);
      EXPECT_LT(dv, std::ssize(values));
    }
}

TEST_F(CudnnAttentionForms, TakeSoLongOnTheGpu) {
  CudaDevice::open(0);
  for (const Form& form : std::vector<Form>{{"gpt2", 16, 12, 12, 1024, 1024, 64, 64, true},
                                            {"vit", 128, 12, 12, 197, 197, 64, 64},
                                            {"bert", 64, 12, 12, 128, 128, 64, 64},
                                            {"llama 1b", 4, 32, 8, 2048, 2048, 64, 64, true},
                                            {"llama, 128", 2, 32, 8, 2048, 2048, 128, 128, true}}) {
    for (const bool deterministic : {false, true}) try {
        Trial trial(form);
        trial.upload();
        trial.run(deterministic);
        const double forward = trial.microseconds(AttentionKind::forward),
                     backward = trial.microseconds(AttentionKind::backward);
        fmt::print(
            "{:12} {:13} forward {:7.1f} us ({:3.0f} TFLOP/s), backward {:7.1f} us ({:3.0f}), workspace {} MiB\n",
            form.name, deterministic ? "deterministic" : "", forward,
            trial.gigaflops(AttentionKind::forward) / forward * 1e3, backward,
            trial.gigaflops(AttentionKind::backward) / backward * 1e3, trial.workspace() >> 20);
      } catch (const Error& error) {
        ADD_FAILURE() << form.name << ": " << error.what();
      }
  }
}

}  // namespace
}  // namespace halfstep
