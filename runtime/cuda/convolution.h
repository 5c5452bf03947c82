// Convolution steps through cuDNN.
#pragma once

#include <chrono>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "program/kept_choices.h"
#include "program/program.h"
#include "runtime/cuda/cudnn_graph.h"
#include "runtime/cuda/cudnn_overflow.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/gemm.h"
#include "runtime/cuda/rows.h"

namespace halfstep {

struct ConvolutionCall {
  const Convolution* convolution = nullptr;
  CudnnOperands operands;
  std::string_view origin;  // for errors
};

class CudnnConvolutions {
 public:
  // Engines are timed on `lane`; `workspace_limit` bounds what one may use.
  CudnnConvolutions(ContractionOptions options, DeviceLane& lane, RowsKernels& rows, ChoiceStore& choices,
                    int64_t workspace_limit);

  // Takes the kept engine for every shape among the calls, or chooses one by timing on the given memory, whose results
  // are overwritten.
  // Throws Error, naming the convolution, if the library cannot do it.
  void prepare(std::span<const ConvolutionCall> calls);
  // Enqueues a prepared convolution. The lane's workspace must hold workspace_bytes().
  void run(const Convolution& convolution, const CudnnOperands& operands, const DeviceLane& lane);
  int64_t workspace_bytes() const;  // the most any prepared shape needs

 private:
  // cuDNN computes `problem`: the convolution itself, or one with channels padded with zeros, with another result type,
  // or without bias and relu. Operands that differ go through the workspace, and the rows kernel does the rest.
  struct Route {
    Convolution problem;
    CudnnPlan plan;
    int64_t workspace_bytes = 0;  // of the plan, and the operands that are not in place
  };
  struct Candidates {
    ConvolutionCall call;
    std::vector<Route> routes;
    std::string reason;  // why there are none
  };
  CudnnPlanLimits limits_of(Engines engines) const;
  Route restore(const Convolution& convolution, const std::string& choice) const;
  bool built_again(const ConvolutionCall& call, const std::string& choice, Route& route);
  void find_routes(Candidates& candidates) const;
  Route fastest(Candidates candidates, std::chrono::steady_clock::time_point deadline);
  Route sound_route(const ConvolutionCall& call, std::chrono::steady_clock::time_point deadline);
  void run(const Convolution& convolution, const CudnnOperands& operands, const Route& route, const DeviceLane& lane);

  ContractionOptions options_;
  DeviceLane& lane_;
  RowsKernels& rows_;
  ChoiceStore& choices_;
  int64_t workspace_limit_;
  CudnnHandle handle_;
  OverflowProbe overflows_;
  std::map<std::pair<ConvolutionKind, DType>, std::vector<int64_t>> refused_;  // engines that lose overflows
  std::map<std::string, Route> routes_;                                        // by shape
};

}  // namespace halfstep
