// cuDNN's graph API: descriptors as values, engines as executable plans; and the graphs of convolutions.
#pragma once

#include <cudnn.h>

#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "program/program.h"

namespace halfstep {

// An owned backend descriptor. Every function throws Error with the library's message.
class CudnnDescriptor {
 public:
  explicit CudnnDescriptor(cudnnBackendDescriptorType_t type);
  void finalize();
  cudnnBackendDescriptor_t get() const { return descriptor_.get(); }

  template <typename T>
  void set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, std::span<const T> values) {
    set(attribute, type, static_cast<int64_t>(values.size()), values.data());
  }
  template <typename T>
    requires std::is_scalar_v<T>
  void set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, const T& value) {
    set(attribute, type, 1, &value);
  }
  void set(cudnnBackendAttributeName_t attribute, const CudnnDescriptor& value) {
    set(attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, value.get());
  }
  // Reads up to `limit` values and returns how many there are; limit 0 counts only.
  int64_t get(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t limit,
              void* values) const;

 private:
  void set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t count, const void* values);

  struct Deleter {
    void operator()(void* descriptor) const { cudnnBackendDestroyDescriptor(descriptor); }
  };
  std::unique_ptr<void, Deleter> descriptor_;
};

struct CudnnHandleDeleter {
  void operator()(cudnnContext* handle) const { cudnnDestroy(handle); }
};
using CudnnHandle = std::unique_ptr<cudnnContext, CudnnHandleDeleter>;
CudnnHandle make_cudnn_handle();

// One engine, ready to run.
struct CudnnPlan {
  std::shared_ptr<const std::vector<CudnnDescriptor>> graph;  // what the plan was made from, and must outlive it
  CudnnDescriptor configuration;
  CudnnDescriptor plan;
  int64_t workspace_bytes = 0;
  bool deterministic = true;
  int64_t engine = -1;                      // the library's number
  std::vector<CudnnDescriptor> parts = {};  // of the configuration, where it was put together here
};

cudnnDataType_t cudnn_type(DType type);  // Error if the library has none
// What the library proposes for a finalized operation graph, in its order of expected speed; `properties`: on a device
// that is described and need not be there.
std::vector<CudnnDescriptor> list_configurations(const CudnnDescriptor& graph, cudnnBackendHeurMode_t mode,
                                                 const CudnnDescriptor* properties = nullptr);
CudnnPlan make_plan(cudnnHandle_t handle, std::shared_ptr<const std::vector<CudnnDescriptor>> graph,
                    CudnnDescriptor configuration);
// Enqueues on the handle's stream, with the tensors of these numbers at these places.
void execute(cudnnHandle_t handle, const CudnnPlan& plan, std::span<const int64_t> ids, std::span<void* const> pointers,
             void* workspace);

enum class Tf32 : uint8_t { refuse, allow };
enum class Engines : uint8_t { precompiled, compiled_at_runtime };  // the latter take half a second each

struct CudnnPlanLimits {
  Tf32 tf32 = Tf32::refuse;
  Engines engines = Engines::precompiled;
  int64_t workspace_bytes = 0;
  int plans = 1;
  std::vector<int64_t> refused = {};  // engines
};

// Up to limits.plans plans for the convolution with its bias and relu in one graph, in the library's order of expected
// speed. The references of the convolution are not used; it has two or three spatial axes. Results are accumulated in
// f32 (f64) without FFT, Winograd or operands rounded down. Empty, with the reason, if no engine does it.
std::vector<CudnnPlan> build_plans(cudnnHandle_t handle, const Convolution& convolution, const CudnnPlanLimits& limits,
                                   std::string& reason);

struct EngineChoice;
// The plan of one engine, under the same limits. Throws Error if it is beyond them, or the library refuses.
CudnnPlan build_plan(cudnnHandle_t handle, const Convolution& convolution, const CudnnPlanLimits& limits,
                     const EngineChoice& choice);

struct CudnnOperands {
  void* x = nullptr;
  void* w = nullptr;
  void* y = nullptr;
  void* bias = nullptr;
};

// Enqueues on the handle's stream. Operands are aligned to 16 bytes.
void execute(cudnnHandle_t handle, const CudnnPlan& plan, const CudnnOperands& operands, void* workspace);

}  // namespace halfstep
