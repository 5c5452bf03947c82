// Inputs and outputs in the GPU's memory: the bits of host tensors. Needs the driver alone, which is asked for at run
// time.
#include <dlfcn.h>

#include <thread>

#include "runtime/cuda_probe.h"
#include "tests/api/api_fixture.h"
#include "tests/api/dlpack.h"

namespace halfstep::test {
namespace {

// The functions of the driver that move memory, in the context that a step made current.
class Driver {
 public:
  uint64_t copy_in(const void* data, size_t bytes) const {
    uint64_t address = 0;
    EXPECT_EQ(call<int(uint64_t*, size_t)>("cuMemAlloc_v2")(&address, bytes), 0);
    EXPECT_EQ(call<int(uint64_t, const void*, size_t)>("cuMemcpyHtoD_v2")(address, data, bytes), 0);
    return address;
  }
  void copy_out(void* data, uint64_t address, size_t bytes) const {
    EXPECT_EQ(call<int(void*, uint64_t, size_t)>("cuMemcpyDtoH_v2")(data, address, bytes), 0);
  }
  void* current() const {
    void* context = nullptr;
    EXPECT_EQ(call<int(void**)>("cuCtxGetCurrent")(&context), 0);
    return context;
  }

 private:
  template <typename Function>
  Function* call(const char* name) const {
    void* const found = ::dlsym(library_, name);
    if (found == nullptr) throw std::runtime_error(name);
    return reinterpret_cast<Function*>(found);
  }
  void* library_ = ::dlopen("libcuda.so.1", RTLD_NOW);
};

class GpuTensors : public Api {
 protected:
  void SetUp() override {
    if (const CudaProbe cuda = probe_cuda(0); !cuda.available) GTEST_SKIP() << cuda.reason;
    write("m.onnx", tiny_mlp());
    compile("m.onnx", {{"batch", "8"}, {"device", "cuda"}, {"keep_outputs", "true"}, {"momentum", "0.9"}}, "step");
  }
  // The batch in the GPU's memory, never freed: the process ends with the test.
  std::vector<halfstep_tensor> on_device(int64_t number) const {
    std::vector<halfstep_tensor> tensors = tensors_of(points_.batch(number));
    const size_t bytes[] = {8 * 4 * sizeof(float), 8 * sizeof(int64_t)};
    for (size_t i = 0; i < tensors.size(); ++i) {
      tensors[i].data = reinterpret_cast<void*>(driver_.copy_in(tensors[i].data, bytes[i]));
      tensors[i].device = HALFSTEP_CUDA;
    }
    return tensors;
  }

  Driver driver_;
  Points points_{{4}, 8};
};

TEST_F(GpuTensors, TrainAsThoseOfTheHostOnTheGpu) {
  const StepHandle host = load("step", {}), device = load("step", {}), mixed = load("step", {});
  for (int64_t i = 0; i < 20; ++i) {
    const std::vector<halfstep_tensor> batch = on_device(i), of_host = tensors_of(points_.batch(i));
    const std::vector<halfstep_tensor> both{of_host[1], batch[0]};
    train(host.get(), points_.batch(i));
    ok(api->train_tensors(device.get(), batch.data(), 2, nullptr));
    ok(api->train_tensors(mixed.get(), both.data(), 2, nullptr));
  }
  EXPECT_EQ(weights_of(host.get()), weights_of(device.get()));
  EXPECT_EQ(weights_of(host.get()), weights_of(mixed.get()));
  int64_t number = 0;
  double loss = 0, scale = 0;
  int32_t skipped = 0;
  for (int64_t i = 0; i < 20; ++i) {
    ok(api->next_finished(device.get(), &number, &loss, &scale, &skipped));
    EXPECT_EQ(number, i + 1);
  }
}

TEST_F(GpuTensors, PredictIntoTheGpusMemoryOnTheGpu) {
  const StepHandle step = load("step", {});
  std::vector<float> of_host(24), of_device(24);
  const int64_t shape[] = {8, 3};
  const std::vector<halfstep_tensor> batch = on_device(0);
  const std::vector<halfstep_input> inputs = points_.batch(0);
  const halfstep_output wanted{"logits", HALFSTEP_F32, of_host.data(), 96};
  ok(api->predict(step.get(), inputs.data(), 1, &wanted, 1));
  void* const memory = reinterpret_cast<void*>(driver_.copy_in(of_device.data(), 96));
  const halfstep_tensor output{"logits", HALFSTEP_F32, 2, shape, nullptr, memory, HALFSTEP_CUDA, 0};
  ok(api->predict_tensors(step.get(), batch.data(), 1, &output, 1, nullptr));
  driver_.copy_out(of_device.data(), reinterpret_cast<uint64_t>(memory), 96);
  EXPECT_EQ(of_host, of_device);
}

TEST_F(GpuTensors, AreCheckedAndRefusedByNameOnTheGpu) {
  const StepHandle step = load("step", {});
  std::vector<halfstep_tensor> batch = on_device(0);
  const std::vector<int64_t> labels{0, 1, 2, 0, 1, 2, 3, 0};
  batch[1].data = reinterpret_cast<void*>(driver_.copy_in(labels.data(), 64));
  refused(api->train_tensors(step.get(), batch.data(), 2, nullptr), HALFSTEP_ERROR,
          {"'labels': sample 6 has label 3, expected 0 to 2"});
  batch = on_device(0);
  batch[0].device_index = 1;
  refused(api->train_tensors(step.get(), batch.data(), 2, nullptr), HALFSTEP_INVALID_ARGUMENT,
          {"input 'x' lies on cuda:1, the step runs on cuda:0"});
  batch = tensors_of(points_.batch(0));
  batch[0].device = HALFSTEP_CUDA;
  refused(api->train_tensors(step.get(), batch.data(), 2, nullptr), HALFSTEP_INVALID_ARGUMENT,
          {"input 'x' is said to lie on cuda:0, its data is no memory of that device"});
}

// A thread that never used the GPU, and one whose context is its own.
TEST_F(GpuTensors, AnyThreadMayCallAndKeepsItsContextOnTheGpu) {
  const StepHandle step = load("step", {}), other = load("step", {});
  std::vector<float> weights;
  std::thread([&] {
    for (int64_t i = 0; i < 5; ++i) train(step.get(), points_.batch(i));
    weights = weights_of(step.get());
    EXPECT_EQ(driver_.current(), nullptr);
  }).join();
  void* const before = driver_.current();
  for (int64_t i = 0; i < 5; ++i) train(other.get(), points_.batch(i));
  EXPECT_EQ(driver_.current(), before);
  EXPECT_EQ(weights, weights_of(other.get()));
}

}  // namespace
}  // namespace halfstep::test
