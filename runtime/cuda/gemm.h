// Gemm steps through cuBLASLt.
#pragma once

#include <cublasLt.h>

#include <map>
#include <memory>
#include <string>

#include "program/kept_choices.h"
#include "program/program.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/rows.h"

namespace halfstep {

struct GemmAddresses {
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  const void* bias = nullptr;
  const void* addend = nullptr;
};

struct ContractionOptions {
  bool allow_tf32 = false;
  int autotune = 1;  // algorithms timed per shape; 0 or 1: the library's first
};

class CublasGemms {
 public:
  // Algorithms are timed on `lane`.
  CublasGemms(ContractionOptions options, DeviceLane& lane, RowsKernels& rows, ChoiceStore& choices);

  // Takes the kept algorithm for this shape, or chooses one by timing on the given memory, whose result is overwritten.
  // Shapes seen before cost nothing. Throws Error if the library cannot do it.
  void prepare(const Gemm& gemm, const GemmAddresses& addresses);
  // Enqueues a prepared gemm. The lane's workspace must hold workspace_bytes().
  void run(const Gemm& gemm, const GemmAddresses& addresses, const DeviceLane& lane);
  int64_t workspace_bytes() const;  // the most any prepared shape needs

 private:
  // The product is either written in its final form by an epilogue, or as f32 (f64) into the workspace and finished by
  // the rows kernel.
  struct Plan {
    cublasLtMatmulDescOpaque_t product{};
    cublasLtMatrixLayoutOpaque_t a{}, b{}, c{};
    cublasLtMatmulAlgo_t algorithm{};
    DType result = DType::f32;
    bool finished_by_rows = false;
    int64_t library_bytes = 0, temporary_bytes = 0;
  };

  Plan tune(const Gemm& gemm, const GemmAddresses& addresses);
  Plan restore(const Gemm& gemm, const GemmAddresses& addresses, const std::string& choice) const;
  bool describe(const Gemm& gemm, const GemmAddresses& addresses, Plan& plan) const;
  bool choose(const Gemm& gemm, const GemmAddresses& addresses, Plan& plan);
  bool keeps_nan(const Gemm& gemm, GemmAddresses addresses, Plan& plan);
  void run(const Gemm& gemm, const GemmAddresses& addresses, Plan& plan, const DeviceLane& lane);

  struct HandleDeleter {
    void operator()(cublasLtContext* handle) const { cublasLtDestroy(handle); }
  };
  ContractionOptions options_;
  DeviceLane& lane_;
  RowsKernels& rows_;
  ChoiceStore& choices_;
  std::unique_ptr<cublasLtContext, HandleDeleter> handle_;
  std::map<std::string, Plan> plans_;  // by shape
};

}  // namespace halfstep
