// Attention steps through cuDNN.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "program/kept_choices.h"
#include "program/program.h"
#include "runtime/cuda/cudnn_attention.h"
#include "runtime/cuda/device.h"

namespace halfstep {

class CudnnAttentions {
 public:
  CudnnAttentions(const CudaStream& stream, Workspace& workspace, ChoiceStore& choices);

  // Takes the kept plan for this shape, or builds the library's first engine; shapes seen before cost nothing. Throws
  // Error, naming what to do, if it has none.
  void prepare(const Attention& attention, const AttentionAddresses& addresses);
  // Enqueues a prepared attention. The workspace must hold workspace_bytes().
  void run(const Attention& attention, const AttentionAddresses& addresses);
  int64_t workspace_bytes() const;  // the most any prepared shape needs

 private:
  struct Route {
    std::unique_ptr<AttentionGraph> graph;
    CudnnPlan plan;
  };

  Route build(const Attention& attention);
  Route restore(const Attention& attention, const AttentionAddresses& addresses, const std::string& choice);

  void keep_bytes_of(const CudnnPlan& plan, const std::string& call);

  const CudaStream& stream_;
  Workspace& workspace_;
  ChoiceStore& choices_;
  CudnnHandle handle_;
  std::map<std::string, Route> routes_;  // by shape
};

}  // namespace halfstep
