#include "runtime/cuda/cudnn_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/engine_choice.h"

namespace halfstep {
namespace {

constexpr int64_t kMostImageChannels = 4;

enum TensorId : int64_t { kX = 1, kW, kY, kBias, kProduct, kBiased };
enum class Residence : uint8_t { memory, registers };  // registers: "virtual", between the operations of a graph

// dims are [N, C, spatial...] as cuDNN wants them; memory is [N, spatial..., C].
CudnnDescriptor make_tensor(TensorId id, DType type, const Shape& dims, Residence residence) {
  Shape strides(dims.size());
  int64_t step = dims[1];
  strides[1] = 1;
  for (size_t axis = dims.size(); axis-- > 2;) {
    strides[axis] = step;
    step *= dims[axis];
  }
  strides[0] = step;
  CudnnDescriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, static_cast<int64_t>(id));
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, cudnn_type(type));
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, int64_t{16});
  tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, std::span<const int64_t>(dims));
  tensor.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, std::span<const int64_t>(strides));
  tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, residence == Residence::registers);
  tensor.finalize();
  return tensor;
}

// Owns the descriptors of one operation graph while it is put together; the last one is the graph.
class GraphParts {
 public:
  const CudnnDescriptor& add(CudnnDescriptor part) { return parts_->emplace_back(std::move(part)); }
  std::shared_ptr<const std::vector<CudnnDescriptor>> parts() const { return parts_; }

  GraphParts() { parts_->reserve(16); }  // references stay valid

 private:
  std::shared_ptr<std::vector<CudnnDescriptor>> parts_ = std::make_shared<std::vector<CudnnDescriptor>>();
};

CudnnDescriptor make_pointwise(cudnnPointwiseMode_t mode, DType type, const CudnnDescriptor& from,
                               const CudnnDescriptor* with, const CudnnDescriptor& to, GraphParts& parts) {
  CudnnDescriptor function(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  function.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  function.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, cudnn_type(type));
  function.finalize();
  CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, parts.add(std::move(function)));
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, from);
  if (with) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *with);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, to);
  operation.finalize();
  return operation;
}

struct ConvolutionAttributes {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t x, w, y, window, alpha, beta;
};

ConvolutionAttributes attributes_of(ConvolutionKind kind) {
  switch (kind) {
    case ConvolutionKind::forward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case ConvolutionKind::data_grad:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case ConvolutionKind::filter_grad:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
  }
  throw InternalError("unknown convolution kind");
}

CudnnDescriptor make_convolution(const Convolution& c, const CudnnDescriptor& x, const CudnnDescriptor& w,
                                 const CudnnDescriptor& y, GraphParts& parts) {
  const bool wide = c.operand == DType::f64;
  CudnnDescriptor window(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  window.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, static_cast<int64_t>(c.spatial.size()));
  window.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, wide ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT);
  window.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
  window.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, std::span<const int64_t>(c.dilations));
  window.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, std::span<const int64_t>(c.strides));
  window.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, std::span<const int64_t>(c.pads_begin));
  window.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, std::span<const int64_t>(c.pads_end));
  window.finalize();

  const ConvolutionAttributes attributes = attributes_of(c.kind);
  CudnnDescriptor operation(attributes.operation);
  operation.set(attributes.window, parts.add(std::move(window)));
  operation.set(attributes.x, x);
  operation.set(attributes.w, w);
  operation.set(attributes.y, y);
  if (wide) {
    operation.set(attributes.alpha, CUDNN_TYPE_DOUBLE, 1.0);
    operation.set(attributes.beta, CUDNN_TYPE_DOUBLE, 0.0);
  } else {
    operation.set(attributes.alpha, CUDNN_TYPE_FLOAT, 1.0f);
    operation.set(attributes.beta, CUDNN_TYPE_FLOAT, 0.0f);
  }
  operation.finalize();
  return operation;
}

Shape prepend(std::initializer_list<int64_t> first, const Shape& rest) {
  Shape dims(first);
  dims.insert(dims.end(), rest.begin(), rest.end());
  return dims;
}

// convolution, then bias and relu if asked for, as one graph: the last of `parts`.
void make_graph(cudnnHandle_t handle, const Convolution& c, GraphParts& parts) {
  const DType inner = c.operand == DType::f64 ? DType::f64 : DType::f32;
  const auto type_of = [&](ConvolutionKind written_by) { return c.kind == written_by ? c.result : c.operand; };
  const Shape y_dims = prepend({c.batch, c.out_channels}, c.out_spatial);
  const CudnnDescriptor& x = parts.add(make_tensor(kX, type_of(ConvolutionKind::data_grad),
                                                   prepend({c.batch, c.in_channels}, c.spatial), Residence::memory));
  const CudnnDescriptor& w =
      parts.add(make_tensor(kW, type_of(ConvolutionKind::filter_grad),
                            prepend({c.out_channels, c.in_channels / c.groups}, c.window), Residence::memory));
  const CudnnDescriptor& y = parts.add(make_tensor(kY, type_of(ConvolutionKind::forward), y_dims, Residence::memory));

  std::vector<cudnnBackendDescriptor_t> operations;
  const bool epilogue = c.bias || c.relu;
  const CudnnDescriptor* value = epilogue ? &parts.add(make_tensor(kProduct, inner, y_dims, Residence::registers)) : &y;
  operations.push_back(parts.add(make_convolution(c, x, w, *value, parts)).get());
  if (c.bias) {
    const CudnnDescriptor& bias = parts.add(make_tensor(
        kBias, c.bias_type, prepend({1, c.out_channels}, Shape(c.out_spatial.size(), 1)), Residence::memory));
    const CudnnDescriptor* to = c.relu ? &parts.add(make_tensor(kBiased, inner, y_dims, Residence::registers)) : &y;
    operations.push_back(parts.add(make_pointwise(CUDNN_POINTWISE_ADD, inner, *value, &bias, *to, parts)).get());
    value = to;
  }
  if (c.relu) {
    operations.push_back(parts.add(make_pointwise(CUDNN_POINTWISE_RELU_FWD, inner, *value, nullptr, y, parts)).get());
  }
  CudnnDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
            std::span<const cudnnBackendDescriptor_t>(operations));
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
  graph.finalize();
  parts.add(std::move(graph));
}

struct EngineConfiguration {
  CudnnDescriptor configuration;
  bool deterministic = true;
  int64_t engine = -1;
};

// The notes decide; an engine that cannot tell its notes is not taken.
bool admit(EngineConfiguration& candidate, const Convolution& c, const CudnnPlanLimits& limits) {
  CudnnDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  if (candidate.configuration.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw) != 1) {
    return false;
  }
  engine.get(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &candidate.engine);
  if (std::ranges::find(limits.refused, candidate.engine) != limits.refused.end()) return false;
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  const auto note_count = static_cast<size_t>(engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                                         CUDNN_NUMERICAL_NOTE_TYPE_COUNT, notes.data()));
  std::array<cudnnBackendBehaviorNote_t, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT> behaviors{};
  const auto behavior_count = static_cast<ptrdiff_t>(engine.get(
      CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, behaviors.data()));
  const auto end = behaviors.begin() + std::min<ptrdiff_t>(behavior_count, std::ssize(behaviors));
  const bool compiled_at_runtime = std::find(behaviors.begin(), end, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != end;
  if (compiled_at_runtime != (limits.engines == Engines::compiled_at_runtime)) return false;
  for (size_t i = 0; i < std::min(note_count, notes.size()); ++i) {
    switch (notes[i]) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        candidate.deterministic = false;
        break;
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:  // on f32 operands that is TF32
        if (c.operand == DType::f32 && limits.tf32 == Tf32::refuse) return false;
        break;
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
        // The engine for images of up to four channels carries the note, yet accumulates in f32 (tests/gpu checks it).
        if (!is_low(c.operand) || c.in_channels > kMostImageChannels) return false;
        break;
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
        return false;
      default:
        break;
    }
  }
  return true;
}

std::vector<EngineConfiguration> list_engines(const CudnnDescriptor& graph, cudnnBackendHeurMode_t mode,
                                              const Convolution& c, const CudnnPlanLimits& limits) {
  std::vector<EngineConfiguration> engines;
  for (CudnnDescriptor& configuration : list_configurations(graph, mode)) engines.push_back({std::move(configuration)});
  std::erase_if(engines, [&](EngineConfiguration& engine) { return !admit(engine, c, limits); });
  return engines;
}

}  // namespace

CudnnDescriptor::CudnnDescriptor(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t descriptor = nullptr;
  check(cudnnBackendCreateDescriptor(type, &descriptor), "cudnnBackendCreateDescriptor");
  descriptor_.reset(descriptor);
}

void CudnnDescriptor::finalize() { check(cudnnBackendFinalize(get()), "cudnnBackendFinalize"); }

void CudnnDescriptor::set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t count,
                          const void* values) {
  check(cudnnBackendSetAttribute(get(), attribute, type, count, values), "cudnnBackendSetAttribute");
}

int64_t CudnnDescriptor::get(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t limit,
                             void* values) const {
  int64_t count = 0;
  check(cudnnBackendGetAttribute(get(), attribute, type, limit, &count, values), "cudnnBackendGetAttribute");
  return count;
}

cudnnDataType_t cudnn_type(DType type) {
  switch (type) {
    case DType::f16:
      return CUDNN_DATA_HALF;
    case DType::bf16:
      return CUDNN_DATA_BFLOAT16;
    case DType::f32:
      return CUDNN_DATA_FLOAT;
    case DType::f64:
      return CUDNN_DATA_DOUBLE;
    default:
      throw Error(fmt::format("cuDNN has no type for {}", name(type)));
  }
}

std::vector<CudnnDescriptor> list_configurations(const CudnnDescriptor& graph, cudnnBackendHeurMode_t mode,
                                                 const CudnnDescriptor* properties) {
  CudnnDescriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
  if (properties) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *properties);
  heuristic.finalize();
  const int64_t count = heuristic.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
  std::vector<CudnnDescriptor> configurations;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; ++i) {
    configurations.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    raw.push_back(configurations.back().get());
  }
  const int64_t filled = heuristic.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, raw.data());
  configurations.erase(configurations.begin() + std::min(filled, count), configurations.end());
  return configurations;
}

CudnnPlan make_plan(cudnnHandle_t handle, std::shared_ptr<const std::vector<CudnnDescriptor>> graph,
                    CudnnDescriptor configuration) {
  CudnnDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
  plan.finalize();
  int64_t workspace = 0;
  plan.get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &workspace);
  return {std::move(graph), std::move(configuration), std::move(plan), workspace};
}

CudnnHandle make_cudnn_handle() {
  cudnnHandle_t handle = nullptr;
  check(cudnnCreate(&handle), "cudnnCreate");
  return CudnnHandle(handle);
}

std::vector<CudnnPlan> build_plans(cudnnHandle_t handle, const Convolution& convolution, const CudnnPlanLimits& limits,
                                   std::string& reason) {
  std::vector<CudnnPlan> plans;
  GraphParts parts;
  try {
    make_graph(handle, convolution, parts);
  } catch (const Error& error) {
    reason = error.what();
    return plans;
  }
  const CudnnDescriptor& graph = parts.parts()->back();
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    std::vector<EngineConfiguration> engines;
    try {
      engines = list_engines(graph, mode, convolution, limits);
    } catch (const Error& error) {
      reason = error.what();
      continue;
    }
    if (engines.empty() && reason.empty()) reason = "it knows none for these shapes, types and precision";
    for (EngineConfiguration& engine : engines) {
      if (static_cast<int>(plans.size()) == limits.plans) break;
      try {
        CudnnPlan plan = make_plan(handle, parts.parts(), std::move(engine.configuration));
        if (plan.workspace_bytes > limits.workspace_bytes) {
          reason = fmt::format("an engine needs {} bytes of workspace, the limit is {}", plan.workspace_bytes,
                               limits.workspace_bytes);
          continue;
        }
        plan.deterministic = engine.deterministic, plan.engine = engine.engine;
        plans.push_back(std::move(plan));
      } catch (const Error& error) {
        reason = error.what();
      }
    }
    if (!plans.empty()) break;
  }
  return plans;
}

CudnnPlan build_plan(cudnnHandle_t handle, const Convolution& convolution, const CudnnPlanLimits& limits,
                     const EngineChoice& choice) {
  GraphParts parts;
  make_graph(handle, convolution, parts);
  RebuiltConfiguration rebuilt = make_configuration(choice, parts.parts()->back());
  EngineConfiguration engine{std::move(rebuilt.configuration)};
  if (!admit(engine, convolution, limits)) throw Error("this engine's results are not those that are wanted");
  CudnnPlan plan = make_plan(handle, parts.parts(), std::move(engine.configuration));
  if (plan.workspace_bytes > limits.workspace_bytes)
    throw Error(
        fmt::format("it needs {} bytes of workspace, the limit is {}", plan.workspace_bytes, limits.workspace_bytes));
  plan.deterministic = engine.deterministic, plan.engine = engine.engine, plan.parts = std::move(rebuilt.parts);
  return plan;
}

void execute(cudnnHandle_t handle, const CudnnPlan& plan, std::span<const int64_t> ids, std::span<void* const> pointers,
             void* workspace) {
  CudnnDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, ids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers);
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  pack.finalize();
  check(cudnnBackendExecute(handle, plan.plan.get(), pack.get()), "cudnnBackendExecute");
}

void execute(cudnnHandle_t handle, const CudnnPlan& plan, const CudnnOperands& operands, void* workspace) {
  std::vector<int64_t> ids = {kX, kW, kY};
  std::vector<void*> pointers = {operands.x, operands.w, operands.y};
  if (operands.bias) {
    ids.push_back(kBias);
    pointers.push_back(operands.bias);
  }
  execute(handle, plan, ids, pointers, workspace);
}

}  // namespace halfstep
