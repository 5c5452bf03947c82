// Recurrent networks through cuDNN.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "program/program.h"
#include "runtime/cuda/cudnn_graph.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/gemm.h"

namespace halfstep {

class CudnnRecurrents {
 public:
  using AddressOf = std::function<void*(const Ref&)>;

  CudnnRecurrents(ContractionOptions options, const CudaStream& stream, Workspace& workspace);

  // Describes the network to the library; one of these sizes that was seen before costs nothing. Throws Error if the
  // library does not have it, keeps more of a step than the call has room for, or lays out weights in another way.
  void prepare(const Recurrent& call);
  // Enqueues a prepared network. The workspace must hold workspace_bytes().
  void run(const Recurrent& call, const AddressOf& address);
  int64_t workspace_bytes() const;  // the most any prepared network needs

 private:
  struct Network;
  const Network& network_of(const Recurrent& call) const;
  std::shared_ptr<const Network> describe(const Recurrent& call) const;

  ContractionOptions options_;
  const CudaStream& stream_;
  Workspace& workspace_;
  CudnnHandle handle_;
  std::map<std::string, std::shared_ptr<const Network>> networks_;  // by sizes and type
};

}  // namespace halfstep
