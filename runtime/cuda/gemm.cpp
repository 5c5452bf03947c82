#include "runtime/cuda/gemm.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "runtime/cuda/check.h"

namespace halfstep {
namespace {

// A matrix product is timed in microseconds, an engine of cuDNN is built in milliseconds: more of them are tried.
constexpr int kCandidatesPerTrial = 4;

constexpr int64_t kWorkspaceLimit = int64_t{32} << 20;  // what cuBLAS asks for on Hopper
constexpr uint32_t kAlignment = 16;                     // what a Program promises
constexpr int kRepeats = 3;

cudaDataType_t cuda_type(DType type) {
  switch (type) {
    case DType::f16:
      return CUDA_R_16F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f32:
      return CUDA_R_32F;
    case DType::f64:
      return CUDA_R_64F;
    default:
      throw Error(fmt::format("gemm of {} is not supported on CUDA", name(type)));
  }
}

std::string key_of(const Gemm& g) {
  return fmt::format("{} {} {} {} {}{}{}{} {} {} {} {} {} {}", g.m, g.n, g.k, g.batch, g.transpose_a, g.transpose_b,
                     g.addend.has_value(), g.relu, g.stride_a, g.stride_b, g.stride_c, name(g.operand), name(g.result),
                     g.bias ? name(g.bias_type) : "-");
}

// "direct 4096 0123456789abcdef ...": the form, the workspace, the library's algorithm.
struct GemmChoice {
  using Algorithm = std::array<uint64_t, sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t)>;
  bool finished_by_rows = false;
  int64_t workspace_bytes = 0;
  Algorithm algorithm{};
};

std::string print(const GemmChoice& choice) {
  std::string text = fmt::format("{} {}", choice.finished_by_rows ? "rows" : "direct", choice.workspace_bytes);
  for (const uint64_t word : choice.algorithm) text += fmt::format(" {:016x}", word);
  return text;
}

// Throws Error unless it prints to the same text.
GemmChoice parse_gemm_choice(std::string_view text) {
  GemmChoice choice;
  choice.finished_by_rows = text.starts_with("rows ");
  const char* at = text.data() + std::min(text.size(), text.find(' ') + 1);
  const char* const end = text.data() + text.size();
  at = std::from_chars(at, end, choice.workspace_bytes).ptr;
  for (uint64_t& word : choice.algorithm) at = std::from_chars(at + (at < end), end, word, 16).ptr;
  if (print(choice) != text) throw Error("no form, workspace and algorithm");
  return choice;
}

template <typename Value>
void set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, Value value) {
  check(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
}

// A dense row-major matrix [rows, columns] is, to cuBLAS, the column-major matrix [columns, rows].
void describe_matrix(cublasLtMatrixLayout_t layout, DType type, int64_t rows, int64_t columns, int64_t batch,
                     int64_t stride) {
  check(cublasLtMatrixLayoutInit(layout, cuda_type(type), static_cast<uint64_t>(columns), static_cast<uint64_t>(rows),
                                 columns),
        "cublasLtMatrixLayoutInit");
  if (batch == 1) return;
  const auto count = static_cast<int32_t>(batch);
  check(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
        "cublasLtMatrixLayoutSetAttribute");
  check(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
        "cublasLtMatrixLayoutSetAttribute");
}

class Preference {
 public:
  Preference() { check(cublasLtMatmulPreferenceInit(&preference_), "cublasLtMatmulPreferenceInit"); }
  template <typename Value>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
    check(cublasLtMatmulPreferenceSetAttribute(&preference_, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  }
  cublasLtMatmulPreference_t get() { return &preference_; }

 private:
  cublasLtMatmulPreferenceOpaque_t preference_;
};

}  // namespace

CublasGemms::CublasGemms(ContractionOptions options, DeviceLane& lane, RowsKernels& rows, ChoiceStore& choices)
    : options_(options), lane_(lane), rows_(rows), choices_(choices) {
  cublasLtHandle_t handle;
  check(cublasLtCreate(&handle), "cublasLtCreate");
  handle_.reset(handle);
}

// Row-major c = op(a) op(b) is issued as column-major cᵀ = op(b)ᵀ op(a)ᵀ: cuBLAS's first operand is our b, and its
// bias, one value per row of its result, is one per column of ours. False: the library does not know such a product.
bool CublasGemms::describe(const Gemm& g, const GemmAddresses& addresses, Plan& plan) const {
  const bool wide = g.operand == DType::f64;
  const bool tf32 = options_.allow_tf32 && g.operand == DType::f32;
  check(cublasLtMatmulDescInit(&plan.product,
                               wide   ? CUBLAS_COMPUTE_64F
                               : tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                      : CUBLAS_COMPUTE_32F,
                               wide ? CUDA_R_64F : CUDA_R_32F),
        "cublasLtMatmulDescInit");
  set(&plan.product, CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(&plan.product, CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (!plan.finished_by_rows && (g.bias || g.relu)) {
    const cublasLtEpilogue_t epilogue = !g.bias  ? CUBLASLT_EPILOGUE_RELU
                                        : g.relu ? CUBLASLT_EPILOGUE_RELU_BIAS
                                                 : CUBLASLT_EPILOGUE_BIAS;
    set(&plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(epilogue));
    if (g.bias) {
      if (g.bias_type != plan.result) return false;  // the library reads a bias of the result's type
      set(&plan.product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(cuda_type(g.bias_type)));
      set(&plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, addresses.bias);
    }
  }
  describe_matrix(&plan.a, g.operand, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, g.batch, g.stride_a);
  describe_matrix(&plan.b, g.operand, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, g.batch, g.stride_b);
  describe_matrix(&plan.c, plan.result, g.m, g.n, g.batch, plan.finished_by_rows ? g.m * g.n : g.stride_c);
  return true;
}

bool CublasGemms::choose(const Gemm& g, const GemmAddresses& addresses, Plan& plan) {
  if (!describe(g, addresses, plan)) return false;
  Preference preference;
  preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceLimit));
  // Partial sums of a split k stay in the compute type.
  preference.set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                 static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto operand : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                             CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    preference.set(operand, kAlignment);
  }

  std::vector<cublasLtMatmulHeuristicResult_t> results(
      static_cast<size_t>(std::max(1, kCandidatesPerTrial * options_.autotune)));
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_.get(), &plan.product, &plan.b, &plan.a, &plan.c, &plan.c, preference.get(),
                                     static_cast<int>(results.size()), results.data(), &found);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return false;
  check(status, "cublasLtMatmulAlgoGetHeuristic");
  results.resize(static_cast<size_t>(found));
  std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });

  double best = 0;
  bool chosen = false;
  for (const auto& result : results) {
    Plan candidate = plan;
    candidate.algorithm = result.algo;
    candidate.library_bytes = round_up(static_cast<int64_t>(result.workspaceSize), 256);
    candidate.temporary_bytes = plan.finished_by_rows ? g.batch * g.m * g.n * size_of(plan.result) : 0;
    lane_.workspace.grow(candidate.library_bytes + candidate.temporary_bytes);
    if (results.size() == 1) {
      plan = candidate;
      return true;
    }
    double time = 0;
    try {
      time = time_call(lane_.stream, [&] { run(g, addresses, candidate, lane_); }, kRepeats);
    } catch (const Error&) {
      continue;  // the heuristic does not promise that an algorithm runs
    }
    if (chosen && time >= best) continue;
    best = time;
    plan = candidate;
    chosen = true;
  }
  return chosen;
}

// Whether NaN passes through the epilogue's relu: of a maximum with 0 it need not, and an overflow would be hidden. One
// in each sum is to be found in each element, of which the first ones stand for all.
bool CublasGemms::keeps_nan(const Gemm& g, GemmAddresses addresses, Plan& plan) {
  constexpr int64_t kLooksAt = 4096;
  const int64_t bytes =
      g.bias ? g.n * size_of(g.bias_type) : ((g.batch - 1) * g.stride_a + g.m * g.k) * size_of(g.operand);
  const DeviceMemory nan(bytes);
  check(cudaMemsetAsync(nan.data(), 0xff, static_cast<size_t>(bytes), lane_.stream.get()), "cudaMemsetAsync");
  (g.bias ? addresses.bias : addresses.a) = nan.data();
  try {
    run(g, addresses, plan, lane_);
  } catch (const Error&) {  // an algorithm may still refuse to run
    return false;
  }
  Tensor result({g.result, {std::min(g.m * g.n, kLooksAt)}});
  check(
      cudaMemcpyAsync(result.data.data(), addresses.c, result.data.size(), cudaMemcpyDeviceToHost, lane_.stream.get()),
      "cudaMemcpyAsync");
  lane_.stream.synchronize();
  return std::ranges::all_of(result.values(), [](double x) { return std::isnan(x); });
}

CublasGemms::Plan CublasGemms::tune(const Gemm& gemm, const GemmAddresses& addresses) {
  Plan direct;
  direct.result = gemm.result;
  if (choose(gemm, addresses, direct) && (!gemm.relu || keeps_nan(gemm, addresses, direct))) return direct;
  Plan finished;
  finished.result = gemm.operand == DType::f64 ? DType::f64 : DType::f32;
  finished.finished_by_rows = true;
  if (choose(gemm, addresses, finished)) return finished;
  throw Error(fmt::format("cuBLASLt has no algorithm for {} operands and a {} result of this shape", name(gemm.operand),
                          name(gemm.result)));
}

// The library restores an algorithm from its bytes in the version that made them, and says whether it fits the shape.
CublasGemms::Plan CublasGemms::restore(const Gemm& gemm, const GemmAddresses& addresses,
                                       const std::string& choice) const {
  Plan plan;
  const GemmChoice kept = parse_gemm_choice(choice);
  plan.algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(kept.algorithm);
  plan.library_bytes = kept.workspace_bytes;
  plan.finished_by_rows = kept.finished_by_rows;
  plan.result = !plan.finished_by_rows ? gemm.result : gemm.operand == DType::f64 ? DType::f64 : DType::f32;
  plan.temporary_bytes = plan.finished_by_rows ? gemm.batch * gemm.m * gemm.n * size_of(plan.result) : 0;
  if (!describe(gemm, addresses, plan)) throw Error("cuBLASLt does not write this form");
  cublasLtMatmulHeuristicResult_t result{};
  check(cublasLtMatmulAlgoCheck(handle_.get(), &plan.product, &plan.b, &plan.a, &plan.c, &plan.c, &plan.algorithm,
                                &result),
        "cublasLtMatmulAlgoCheck");
  check(result.state, "cublasLtMatmulAlgoCheck");
  if (static_cast<int64_t>(result.workspaceSize) > plan.library_bytes || plan.library_bytes > kWorkspaceLimit)
    throw Error(fmt::format("a workspace of {} bytes; it needs {}, the limit is {}", plan.library_bytes,
                            result.workspaceSize, kWorkspaceLimit));
  return plan;
}

void CublasGemms::prepare(const Gemm& gemm, const GemmAddresses& addresses) {
  const std::string key = key_of(gemm);
  if (plans_.contains(key)) return;
  const std::string call = "gemm " + key;
  if (const std::string* const choice = choices_.find(call)) try {
      const Plan& plan = plans_.emplace(key, restore(gemm, addresses, *choice)).first->second;
      lane_.workspace.grow(plan.library_bytes + plan.temporary_bytes);
      return;
    } catch (const Error& error) {
      choices_.refuse(call, error.what());
    }
  const Plan& plan = plans_.emplace(key, tune(gemm, addresses)).first->second;
  choices_.keep(call, print(GemmChoice{plan.finished_by_rows, plan.library_bytes,
                                       std::bit_cast<GemmChoice::Algorithm>(plan.algorithm)}));
}

void CublasGemms::run(const Gemm& gemm, const GemmAddresses& addresses, const DeviceLane& lane) {
  const auto plan = plans_.find(key_of(gemm));
  require(plan != plans_.end(), "gemm: not prepared");
  run(gemm, addresses, plan->second, lane);
}

void CublasGemms::run(const Gemm& g, const GemmAddresses& addresses, Plan& plan, const DeviceLane& lane) {
  std::byte* const temporary = lane.workspace.data() + plan.library_bytes;
  void* const c = plan.finished_by_rows ? temporary : addresses.c;
  const bool wide = g.operand == DType::f64;
  const float one = 1, zero = 0;
  const double one_wide = 1, zero_wide = 0;
  const bool add = g.addend && !plan.finished_by_rows;
  const void* const alpha = wide ? static_cast<const void*>(&one_wide) : &one;
  const void* const beta = wide ? static_cast<const void*>(add ? &one_wide : &zero_wide) : (add ? &one : &zero);
  if (!plan.finished_by_rows && g.bias) set(&plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, addresses.bias);
  check(cublasLtMatmul(handle_.get(), &plan.product, alpha, addresses.b, &plan.b, addresses.a, &plan.a, beta,
                       add ? addresses.addend : c, &plan.c, c, &plan.c, &plan.algorithm, lane.workspace.data(),
                       static_cast<size_t>(plan.library_bytes), lane.stream.get()),
        "cublasLtMatmul");
  if (!plan.finished_by_rows) return;

  RowsFormat format;
  format.from = plan.result;
  format.to = g.result;
  if (g.bias) format.bias = g.bias_type;
  if (g.relu) format.activation = Activation::relu;
  if (g.addend) {
    format.destination = Destination::accumulate;
    const int64_t gap = g.batch == 1 ? 0 : g.stride_c, bytes = g.m * g.n * size_of(g.result);
    for (int64_t i = 0; i < g.batch && addresses.addend != addresses.c; ++i) {
      const int64_t offset = i * gap * size_of(g.result);
      check(cudaMemcpyAsync(static_cast<std::byte*>(addresses.c) + offset,
                            static_cast<const std::byte*>(addresses.addend) + offset, static_cast<size_t>(bytes),
                            cudaMemcpyDeviceToDevice, lane.stream.get()),
            "cudaMemcpyAsync");
    }
  }
  // Without a gap between the results of a batch they are one tall matrix.
  const bool dense = g.batch == 1 || g.stride_c == g.m * g.n;
  const int64_t rows = dense ? g.batch * g.m : g.m;
  for (int64_t i = 0; i < (dense ? 1 : g.batch); ++i) {
    rows_.run(format,
              {.from = temporary + i * g.m * g.n * size_of(plan.result),
               .to = static_cast<std::byte*>(addresses.c) + i * g.stride_c * size_of(g.result),
               .bias = addresses.bias,
               .from_rows = rows,
               .from_columns = g.n,
               .to_rows = rows,
               .to_columns = g.n},
              lane.stream);
  }
}

int64_t CublasGemms::workspace_bytes() const {
  int64_t bytes = 0;
  for (const auto& [key, plan] : plans_) bytes = std::max(bytes, plan.library_bytes + plan.temporary_bytes);
  return bytes;
}

}  // namespace halfstep
