#include "passes/precision/presets.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace halfstep {
namespace {

constexpr Precision kLow = Precision::low, kFull = Precision::full, kFollow = Precision::follow,
                    kWidest = Precision::widest;

// Powers that are summed, and products of many: what they are made of is beyond f16 where their results need not be.
constexpr std::string_view kAccumulates = "accumulates";

constexpr PresetRow kHalfstep[] = {
    {"LpPool", kFull, kAccumulates},
    {"CumProd", kFull, kAccumulates},
};

// ATen/autocast_mode.h, CUDA. Kernels of fp32_set_opt_dtype read the low type and write f32, which is the same as
// reading its values in f32. What a list does not name follows its operands.
constexpr PresetRow kTorch[] = {
    {"LpPool", kFull, kAccumulates},
    {"CumProd", kFull, "fp32_set_opt_dtype"},

    {"convolution", kLow, "lower_precision_fp"},
    {"convolution_data_grad", kLow, "lower_precision_fp (conv_transpose)"},
    {"matmul", kLow, "lower_precision_fp"},
    {"attention", kLow, "lower_precision_fp"},
    {"PRelu", kLow, "lower_precision_fp"},
    // The lists have the cells of recurrent layers, not the layers; their weights are f32 tensors.
    {"LSTM", kFull, "not listed"},
    {"GRU", kFull, "not listed"},
    {"RNN", kFull, "not listed"},

    {"acos", kFull, "fp32"},
    {"asin", kFull, "fp32"},
    {"cosh", kFull, "fp32"},
    {"exp", kFull, "fp32"},
    {"expm1", kFull, "fp32"},
    {"log", kFull, "fp32"},
    {"reciprocal", kFull, "fp32"},
    {"rsqrt", kFull, "fp32"},
    {"sinh", kFull, "fp32"},
    {"tan", kFull, "fp32"},
    {"pow", kFull, "fp32"},
    {"Pow", kFull, "fp32"},
    {"softplus", kFull, "fp32"},
    {"layer_norm", kFull, "fp32"},
    {"group_norm", kFull, "fp32"},
    {"rms_norm", kFull, "fp32 (of its pow, rsqrt)"},
    {"resample", kFull, "fp32 (upsample)"},
    {"Resize", kFull, "fp32 (upsample)"},
    {"Upsample", kFull, "fp32 (upsample)"},
    {"softmax_cross_entropy", kFull, "fp32 (cross_entropy_loss)"},

    {"softmax", kFull, "fp32_set_opt_dtype"},
    {"log_softmax", kFull, "fp32_set_opt_dtype"},

    {"batch_norm", kFollow, "not listed"},
    {"InstanceNormalization", kFollow, "not listed"},
    {"ReduceMean", kFollow, "not listed"},
    {"GlobalAveragePool", kFollow, "not listed"},
    {"sin", kFollow, "not listed"},
    {"cos", kFollow, "not listed"},
};

// tensorflow/core/grappler/optimizers/auto_mixed_precision_lists.h, for CUDA with cuDNN 8; operators by what stands for
// them here. What is in no list there has no row and stays f32.
constexpr PresetRow kTensorFlow[] = {
    {"matmul", kLow, "allow (MatMul, BatchMatMul, Einsum)"},
    {"convolution", kLow, "allow (Conv)"},
    {"convolution_data_grad", kLow, "allow (ConvBackpropInput)"},
    {"attention", kLow, "allow (Mha)"},
    {"LSTM", kLow, "allow (CudnnRNN)"},
    {"GRU", kLow, "allow (CudnnRNN)"},
    {"RNN", kLow, "allow (CudnnRNN)"},

    {"add", kWidest, "infer (Add, BiasAdd)"},
    {"sub", kWidest, "infer (Sub)"},
    {"mul", kWidest, "infer (Mul)"},
    {"div", kWidest, "infer (RealDiv)"},
    {"avg_pool", kWidest, "infer (AvgPool)"},
    {"batch_norm", kWidest, "infer (FusedBatchNorm)"},
    {"erf", kWidest, "infer (Erf)"},
    {"gelu", kWidest, "infer (of its Erf)"},
    {"gelu_tanh", kWidest, "infer (of its Tanh)"},
    {"silu", kWidest, "infer (of its Sigmoid)"},
    {"mish", kWidest, "infer (of its Softplus, Tanh)"},
    {"log", kWidest, "infer (Log)"},
    {"softmax", kWidest, "infer (Softmax)"},
    {"log_softmax", kWidest, "infer (LogSoftmax)"},
    {"product", kWidest, "infer (Prod)"},
    {"reciprocal", kWidest, "infer (Reciprocal)"},
    {"sigmoid", kWidest, "infer (Sigmoid)"},
    {"softplus", kWidest, "infer (Softplus)"},
    {"sqrt", kWidest, "infer (Sqrt)"},
    {"tanh", kWidest, "infer (Tanh)"},
    {"dropout", kWidest, "infer (of its Mul)"},

    {"exp", kFull, "deny (Exp)"},
    {"expm1", kFull, "deny (Expm1)"},
    {"pow", kFull, "deny (Pow)"},
    {"reduce_sum", kFull, "deny (Sum)"},
    {"softmax_cross_entropy", kFull, "deny (SparseSoftmaxCrossEntropyWithLogits)"},

    {"abs", kFollow, "clear (Abs)"},
    {"argmax", kFollow, "clear (ArgMax)"},
    {"broadcast", kFollow, "clear (BroadcastTo)"},
    {"ceil", kFollow, "clear (Ceil)"},
    {"concat", kFollow, "clear (Concat)"},
    {"eq", kFollow, "clear (Equal)"},
    {"floor", kFollow, "clear (Floor)"},
    {"gather", kFollow, "clear (Gather)"},
    {"is_finite", kFollow, "clear (IsFinite)"},
    {"is_nan", kFollow, "clear (IsNan)"},
    {"less", kFollow, "clear (Less)"},
    {"less_equal", kFollow, "clear (LessEqual)"},
    {"max", kFollow, "clear (Maximum)"},
    {"max_pool", kFollow, "clear (MaxPool)"},
    {"min", kFollow, "clear (Minimum)"},
    {"neg", kFollow, "clear (Neg)"},
    {"pad", kFollow, "clear (Pad)"},
    {"reduce_max", kFollow, "clear (Max)"},
    {"reduce_min", kFollow, "clear (Min)"},
    {"relu", kFollow, "clear (Relu)"},
    {"reshape", kFollow, "clear (Reshape)"},
    {"round", kFollow, "clear (Round)"},
    {"select", kFollow, "clear (Select)"},
    {"sign", kFollow, "clear (Sign)"},
    {"slice", kFollow, "clear (Slice)"},
    {"transpose", kFollow, "clear (Transpose)"},

    // Operators of several nodes.
    {"ReduceProd", kWidest, "infer (Prod)"},
    {"Elu", kWidest, "infer (Elu)"},
    {"Selu", kWidest, "infer (Selu)"},
    {"LeakyRelu", kWidest, "infer (LeakyRelu)"},
    {"Softsign", kWidest, "infer (Softsign)"},
    {"Pow", kFull, "deny (Pow)"},
    {"ReduceSum", kFull, "deny (Sum)"},
    {"ReduceMean", kFull, "deny (Mean)"},
    {"GlobalAveragePool", kFull, "deny (Mean)"},
};

constexpr PresetRow kFp32[] = {{"*", kFull, "all"}};

// apex/amp/lists: torch_overrides.py, functional_overrides.py, tensor_overrides.py.
constexpr PresetRow kApexO1[] = {
    {"convolution", kLow, "FP16_FUNCS (conv)"},
    {"convolution_data_grad", kLow, "FP16_FUNCS (conv_transpose)"},
    {"matmul", kLow, "FP16_FUNCS"},
    {"PRelu", kLow, "FP16_FUNCS"},

    {"acos", kFull, "FP32_FUNCS"},
    {"asin", kFull, "FP32_FUNCS"},
    {"cosh", kFull, "FP32_FUNCS"},
    {"exp", kFull, "FP32_FUNCS"},
    {"expm1", kFull, "FP32_FUNCS"},
    {"log", kFull, "FP32_FUNCS"},
    {"reciprocal", kFull, "FP32_FUNCS"},
    {"rsqrt", kFull, "FP32_FUNCS"},
    {"sinh", kFull, "FP32_FUNCS"},
    {"tan", kFull, "FP32_FUNCS"},
    {"pow", kFull, "FP32_FUNCS"},
    {"Pow", kFull, "FP32_FUNCS"},
    {"softplus", kFull, "FP32_FUNCS"},
    {"CumProd", kFull, "FP32_FUNCS"},
    {"CumSum", kFull, "FP32_FUNCS"},
    {"product", kFull, "FP32_FUNCS (prod)"},
    {"ReduceProd", kFull, "FP32_FUNCS (prod)"},
    {"ReduceL1", kFull, "FP32_FUNCS (norm)"},
    {"ReduceL2", kFull, "FP32_FUNCS (norm)"},
    {"GridSample", kFull, "FP32_FUNCS (grid_sample)"},
    {"LpPool", kFull, kAccumulates},
    {"reduce_sum", kFull, "FP32_FUNCS (sum)"},
    {"resample", kFull, "FP32_FUNCS (interpolate)"},
    {"Resize", kFull, "FP32_FUNCS (interpolate)"},
    {"Upsample", kFull, "FP32_FUNCS (interpolate)"},
    {"softmax", kFull, "FP32_FUNCS"},
    {"log_softmax", kFull, "FP32_FUNCS"},
    {"gelu", kFull, "FP32_FUNCS"},
    {"gelu_tanh", kFull, "FP32_FUNCS (gelu)"},
    {"layer_norm", kFull, "FP32_FUNCS"},
    {"group_norm", kFull, "FP32_FUNCS"},
    {"rms_norm", kFull, "FP32_FUNCS (of its pow, rsqrt)"},
    {"LRN", kFull, "FP32_FUNCS (local_response_norm)"},
    {"softmax_cross_entropy", kFull, "FP32_FUNCS (cross_entropy)"},

    {"batch_norm", kFollow, "not listed"},
    {"InstanceNormalization", kFollow, "not listed"},
    {"ReduceMean", kFollow, "not listed"},
    {"GlobalAveragePool", kFollow, "not listed"},
    {"attention", kLow, "FP16_FUNCS (of its matmul)"},
    {"sin", kFollow, "not listed"},
    {"cos", kFollow, "not listed"},
};

// apex/amp/frontend.py. Norms over a batch read and write fp16 and compute with f32 weights.
constexpr PresetRow kApexO2[] = {
    {"*", kLow, "cast_model_type"},
    {"batch_norm", kFollow, "keep_batchnorm_fp32"},
};
constexpr PresetRow kApexO3[] = {{"*", kLow, "cast_model_type"}};

constexpr Preset kPresets[] = {
    {.name = "halfstep",
     .version = "1",
     .source = "the precision column of the operators' rows (ir/ops)",
     .propagation = Propagation::readers,
     .rows = kHalfstep},
    {.name = "torch",
     .version = "2.11",
     .source = "PyTorch, ATen/autocast_mode.h: the lists for CUDA",
     .propagation = Propagation::operands,
     .rows = kTorch},
    {.name = "tensorflow",
     .version = "2",
     .source = "TensorFlow, grappler's auto_mixed_precision_lists.h for CUDA",
     .propagation = Propagation::colours,
     .operator_rows = Preset::none,
     .rows = kTensorFlow},
    {.name = "apex-o0",
     .version = "0.1",
     .source = "Apex, amp/frontend.py: fp32",
     .propagation = Propagation::rows,
     .loss_scale = Preset::one,
     .rows = kFp32},
    {.name = "apex-o1",
     .version = "0.1",
     .source = "Apex, amp/lists",
     .propagation = Propagation::operands,
     .rows = kApexO1},
    {.name = "apex-o2",
     .version = "0.1",
     .source = "Apex, amp/frontend.py: fp16 with batch norms and master weights in fp32",
     .propagation = Propagation::rows,
     .rows = kApexO2},
    {.name = "apex-o3",
     .version = "0.1",
     .source = "Apex, amp/frontend.py: fp16, weights too",
     .propagation = Propagation::rows,
     .loss_scale = Preset::one,
     .masters = Preset::rounded,
     .rows = kApexO3},
    {.name = "fp32",
     .version = "1",
     .source = "everything in fp32",
     .propagation = Propagation::rows,
     .loss_scale = Preset::one,
     .rows = kFp32},
};

}  // namespace

std::span<const Preset> presets() { return kPresets; }

const Preset* preset_or_null(std::string_view name) {
  if (name == "default") name = kPresets[0].name;
  const auto found = std::ranges::find(kPresets, name, &Preset::name);
  return found == std::end(kPresets) ? nullptr : found;
}

const Preset& find_preset(std::string_view name) {
  if (const Preset* preset = preset_or_null(name)) return *preset;
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  const std::string near = nearest(std::string(name), names);
  throw Error(fmt::format("autocast: no preset '{}'{}; there are: {}", name,
                          near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(names, ", ")));
}

std::string to_string(const Preset& preset) { return fmt::format("{} {}", preset.name, preset.version); }

}  // namespace halfstep
