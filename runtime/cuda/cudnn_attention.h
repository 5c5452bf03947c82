// Attention as a graph of cuDNN's operations: the chain that its fused engines recognise, forward and backward
// (cuDNN's Graph API guide, "Fused Attention fprop" and "bprop"). No engine of it keeps scores in memory.
#pragma once

#include <string>
#include <vector>

#include "program/calls.h"
#include "runtime/cuda/cudnn_graph.h"

namespace halfstep {

struct EngineChoice;

// What the library is asked for: a handle, or a device that is described only and need not be there.
struct CudnnTarget {
  cudnnHandle_t handle = nullptr;
  const CudnnDescriptor* properties = nullptr;
};

struct AttentionAddresses {
  void* q = nullptr;
  void* k = nullptr;
  void* v = nullptr;
  void* y = nullptr;
  void* stats = nullptr;
  void* dy = nullptr;
  void* dq = nullptr;
  void* dk = nullptr;
  void* dv = nullptr;
};

class AttentionGraph {
 public:
  // Throws Error with the library's message.
  AttentionGraph(const CudnnTarget& target, const Attention& attention);
  ~AttentionGraph();

  // In the library's order of expected speed; none if it has no engine for this.
  std::vector<CudnnDescriptor> configurations() const;
  // Throws Error if the library refuses to build it.
  CudnnPlan plan(CudnnDescriptor configuration) const;
  CudnnPlan plan(const EngineChoice& choice) const;
  // Of a plan, and of what the graph keeps between its operations.
  int64_t workspace_bytes(const CudnnPlan& plan) const;
  // Enqueues on the handle's stream. Everything is aligned to 16 bytes.
  void run(const CudnnPlan& plan, const AttentionAddresses& addresses, std::byte* workspace) const;

 private:
  class Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace halfstep
