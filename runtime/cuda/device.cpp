#include "runtime/cuda/device.h"

#include <fmt/format.h>

#include "base/error.h"
#include "program/gpu_code.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/driver.h"

namespace halfstep {

CudaDevice CudaDevice::open(int index) {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0) {
    cudaGetLastError();
    throw Error(fmt::format("device 'cuda': no usable GPU: {}; run on the CPU instead (--device cpu)",
                            status == cudaSuccess ? "the driver reports 0 devices" : cudaGetErrorString(status)));
  }
  if (index < 0 || index >= count) {
    throw Error(fmt::format("device 'cuda': there is no GPU {}; GPUs 0 to {} exist", index, count - 1));
  }
  check(cudaSetDevice(index), "cudaSetDevice");
  CudaDevice device;
  device.index = index;
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  device.name = properties.name;
  device.capability = properties.major * 10 + properties.minor;
  device.multiprocessors = properties.multiProcessorCount;
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  device.memory_bytes = static_cast<int64_t>(total);
  device.free_bytes = static_cast<int64_t>(free);
  return device;
}

namespace {

struct ContextFunctions {
  decltype(cuCtxPushCurrent)* push = driver_function<decltype(cuCtxPushCurrent)>("cuCtxPushCurrent");
  decltype(cuCtxPopCurrent)* pop = driver_function<decltype(cuCtxPopCurrent)>("cuCtxPopCurrent");
  decltype(cuCtxGetCurrent)* get = driver_function<decltype(cuCtxGetCurrent)>("cuCtxGetCurrent");
  decltype(cuCtxSetCurrent)* set = driver_function<decltype(cuCtxSetCurrent)>("cuCtxSetCurrent");
};

const ContextFunctions& context_functions() {
  static const ContextFunctions functions;
  return functions;
}

}  // namespace

CurrentContext::CurrentContext(CUctx_st* context) {
  if (const CUresult status = context_functions().push(context); status != CUDA_SUCCESS)
    throw Error(fmt::format("cuCtxPushCurrent failed with code {}: is the process still attached to its GPU?",
                            static_cast<int>(status)));
}

CurrentContext::~CurrentContext() {
  CUctx_st* ours = nullptr;
  context_functions().pop(&ours);
}

CUctx_st* CurrentContext::get() {
  CUctx_st* current = nullptr;
  return context_functions().get(&current) == CUDA_SUCCESS ? current : nullptr;
}

void CurrentContext::set(CUctx_st* context) { context_functions().set(context); }

void check_architecture(const CudaDevice& device, const std::string& architecture) {
  const GpuArchitecture wanted = parse_gpu_architecture(architecture);
  const bool runs = wanted.specific ? wanted.capability == device.capability : wanted.capability <= device.capability;
  if (!runs) {
    throw Error(fmt::format("the kernels are for {}, but {} is sm_{}; compile for that architecture", architecture,
                            device.name, device.capability));
  }
}

CudaStream::CudaStream() {
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  stream_.reset(stream);
}

void CudaStream::synchronize() const { check(cudaStreamSynchronize(get()), "cudaStreamSynchronize"); }

CudaEvent::CudaEvent(EventKind kind) {
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, kind == EventKind::timing ? cudaEventDefault : cudaEventDisableTiming),
        "cudaEventCreateWithFlags");
  event_.reset(event);
}

void CudaEvent::record(const CudaStream& stream) const {
  check(cudaEventRecord(get(), stream.get()), "cudaEventRecord");
}

void CudaEvent::synchronize() const { check(cudaEventSynchronize(get()), "cudaEventSynchronize"); }

bool CudaEvent::done() const {
  const cudaError_t status = cudaEventQuery(get());
  if (status == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(status, "cudaEventQuery");
  return true;
}

double CudaEvent::microseconds_since(const CudaEvent& start) const {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, start.get(), get()), "cudaEventElapsedTime");
  return milliseconds * 1e3;
}

DeviceMemory::DeviceMemory(int64_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* memory;
  check(cudaMalloc(&memory, static_cast<size_t>(bytes)), "cudaMalloc");
  memory_.reset(static_cast<std::byte*>(memory));
  check(cudaMemset(memory, 0, static_cast<size_t>(bytes)), "cudaMemset");
  // cudaMemset may return before the device is done, and our streams do not wait for the default stream.
  check(cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize");
}

PinnedMemory::PinnedMemory(int64_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* memory;
  check(cudaMallocHost(&memory, static_cast<size_t>(bytes)), "cudaMallocHost");
  memory_.reset(static_cast<std::byte*>(memory));
  std::fill_n(memory_.get(), bytes, std::byte{0});
}

CudaGraph::CudaGraph(const CudaStream& stream, const std::function<void()>& enqueue) {
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t captured = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream.get(), &captured);
    if (captured) cudaGraphDestroy(captured);
    cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(stream.get(), &captured), "cudaStreamEndCapture");
  const std::unique_ptr<CUgraph_st, CudaDeleter<cudaGraphDestroy>> graph(captured);
  cudaGraphExec_t instance;
  check(cudaGraphInstantiate(&instance, graph.get(), 0), "cudaGraphInstantiate");
  graph_.reset(instance);
  check(cudaGraphUpload(instance, stream.get()), "cudaGraphUpload");
}

void CudaGraph::launch(const CudaStream& stream) const {
  check(cudaGraphLaunch(graph_.get(), stream.get()), "cudaGraphLaunch");
}

void Workspace::resize(int64_t bytes) {
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // calls in flight may still use it
  memory_ = DeviceMemory();                                 // the old memory may be needed for the new
  memory_ = DeviceMemory(bytes);
}

double time_call(const CudaStream& stream, const std::function<void()>& enqueue, int repeats) {
  constexpr double kShort = 20;  // microseconds
  constexpr int kRepeatsOfShort = 30;
  enqueue();
  const CudaEvent start(EventKind::timing), stop(EventKind::timing);
  const auto time = [&](int count) {
    const CudaGraph graph(stream, [&] {
      for (int i = 0; i < count; ++i) enqueue();
    });
    graph.launch(stream);  // the first launch of a graph is slower
    start.record(stream);
    graph.launch(stream);
    stop.record(stream);
    stop.synchronize();
    return stop.microseconds_since(start) / count;
  };
  const double microseconds = time(repeats);
  return microseconds < kShort && repeats < kRepeatsOfShort ? time(kRepeatsOfShort) : microseconds;
}

int64_t free_device_bytes() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<int64_t>(free);
}

}  // namespace halfstep
