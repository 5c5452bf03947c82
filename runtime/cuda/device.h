// One CUDA device and what is held on it: streams, events, memory, instantiated graphs. All movable, none copyable.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace halfstep {

struct CudaDevice {
  int index = 0;
  std::string name;
  int capability = 0;  // 90 for 9.0
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;  // when it was opened

  // Makes the device current in this thread. Throws Error without a driver, a device, or that device.
  static CudaDevice open(int index);
};

// Makes the context of an executor current in this thread while it lives: any thread may call, with any device current.
class CurrentContext {
 public:
  explicit CurrentContext(CUctx_st* context);
  ~CurrentContext();
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

  // Of this thread; null: none.
  static CUctx_st* get();
  static void set(CUctx_st* context);
};

// Throws Error unless kernels for `architecture` ("sm_80", "sm_90a") run on the device.
void check_architecture(const CudaDevice& device, const std::string& architecture);

template <auto destroy>
struct CudaDeleter {
  template <typename T>
  void operator()(T* handle) const {
    destroy(handle);
  }
};

class CudaStream {
 public:
  CudaStream();  // does not synchronise with the default stream
  cudaStream_t get() const { return stream_.get(); }
  void synchronize() const;

 private:
  std::unique_ptr<CUstream_st, CudaDeleter<cudaStreamDestroy>> stream_;
};

enum class EventKind : uint8_t { ordering, timing };

class CudaEvent {
 public:
  explicit CudaEvent(EventKind kind);
  cudaEvent_t get() const { return event_.get(); }
  void record(const CudaStream& stream) const;
  void synchronize() const;
  bool done() const;
  double microseconds_since(const CudaEvent& start) const;

 private:
  std::unique_ptr<CUevent_st, CudaDeleter<cudaEventDestroy>> event_;
};

// Zero-filled device memory. Size 0 allocates nothing.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(int64_t bytes);
  std::byte* data() const { return memory_.get(); }
  int64_t size() const { return size_; }

 private:
  std::unique_ptr<std::byte, CudaDeleter<cudaFree>> memory_;
  int64_t size_ = 0;
};

// Page-locked host memory.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  explicit PinnedMemory(int64_t bytes);
  std::byte* data() const { return memory_.get(); }
  int64_t size() const { return size_; }

 private:
  std::unique_ptr<std::byte, CudaDeleter<cudaFreeHost>> memory_;
  int64_t size_ = 0;
};

class CudaGraph {
 public:
  // Captures what `enqueue` puts on `stream` and instantiates it; nothing runs.
  CudaGraph(const CudaStream& stream, const std::function<void()>& enqueue);
  void launch(const CudaStream& stream) const;

 private:
  std::unique_ptr<CUgraphExec_st, CudaDeleter<cudaGraphExecDestroy>> graph_;
};

// Device memory that the library calls of one stream share. It may move when it is resized, so calls ask for data()
// each time, and it keeps its size once graphs have captured its address.
class Workspace {
 public:
  std::byte* data() const { return memory_.data(); }
  int64_t size() const { return memory_.size(); }
  void grow(int64_t bytes) {
    if (bytes > size()) resize(bytes);
  }
  void resize(int64_t bytes);

 private:
  DeviceMemory memory_;
};

// Calls on one lane run in order; those of a library share its workspace.
struct DeviceLane {
  CudaStream stream;
  Workspace workspace;
};

// Device microseconds of one call. It runs once by itself, because kernels are loaded at their first launch, then
// `repeats` times as one graph, so that the host's launch cost is not measured; one of microseconds oftener, so that
// they can be told apart.
double time_call(const CudaStream& stream, const std::function<void()>& enqueue, int repeats);

int64_t free_device_bytes();

}  // namespace halfstep
