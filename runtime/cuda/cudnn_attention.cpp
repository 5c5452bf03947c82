#include "runtime/cuda/cudnn_attention.h"

#include <limits>
#include <map>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/engine_choice.h"

namespace halfstep {
namespace {

enum TensorId : int64_t { kQ = 1, kK, kV, kY, kStats, kDy, kDq, kDk, kDv, kQueryGradients, kRowSums, kFirstOther };

// [batch, heads, length, depth] of what lies in memory as [batch, length, `row` elements that begin with the heads].
struct View {
  Shape sizes, strides;
  View exchanged() const {  // the last two axes
    View view = *this;
    std::swap(view.sizes[2], view.sizes[3]), std::swap(view.strides[2], view.strides[3]);
    return view;
  }
};

View sequences(int64_t batch, int64_t heads, int64_t length, int64_t depth, int64_t row) {
  return {{batch, heads, length, depth}, {length * row, depth, row, 1}};
}

View dense(const Shape& sizes) { return {sizes, {sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1}}; }

}  // namespace

class AttentionGraph::Parts {
 public:
  Parts(const CudnnTarget& target, const Attention& attention)
      : target(target), a_(attention), type_(cudnn_type(attention.operand)) {
    parts_->reserve(256);  // references stay valid
    scores_ = dense({a_.batch, a_.heads, a_.queries, a_.keys});
    rows_ = dense({a_.batch, a_.heads, a_.queries, 1});
    const int64_t packed = a_.packed() ? (a_.heads + 2 * a_.key_heads) * a_.depth : 0;
    const auto view = [&](int64_t heads, int64_t length, int64_t depth) {
      return sequences(a_.batch, heads, length, depth, packed > 0 ? packed : heads * depth);
    };
    y_ = sequences(a_.batch, a_.heads, a_.queries, a_.value_depth, a_.heads * a_.value_depth);
    q_ = view(a_.heads, a_.queries, a_.depth);
    k_ = view(a_.key_heads, a_.keys, a_.depth);
    v_ = view(a_.key_heads, a_.keys, a_.value_depth);
    if (a_.kind == AttentionKind::forward)
      forward();
    else
      backward();
    CudnnDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
              std::span<const cudnnBackendDescriptor_t>(operations_));
    if (target.handle) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, target.handle);
    graph.finalize();
    parts_->push_back(std::move(graph));
  }

  const CudnnDescriptor& graph() const { return parts_->back(); }
  std::shared_ptr<const std::vector<CudnnDescriptor>> shared() const { return parts_; }

  const CudnnTarget target;
  std::map<int64_t, int64_t> kept;     // bytes of what the graph keeps in memory, by number
  std::map<int64_t, float> constants;  // passed by value

 private:
  using Tensor = const CudnnDescriptor&;

  CudnnDescriptor& add(CudnnDescriptor part) { return parts_->emplace_back(std::move(part)); }

  CudnnDescriptor tensor(int64_t id, cudnnDataType_t type, const View& view) {
    CudnnDescriptor t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    t.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id);
    t.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
    t.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, int64_t{16});
    t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, std::span<const int64_t>(view.sizes));
    t.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, std::span<const int64_t>(view.strides));
    return t;
  }
  Tensor memory(int64_t id, cudnnDataType_t type, const View& view) {
    CudnnDescriptor t = tensor(id, type, view);
    t.finalize();
    return add(std::move(t));
  }
  Tensor registers(const View& view, cudnnDataType_t type = CUDNN_DATA_FLOAT) {
    CudnnDescriptor t = tensor(next_++, type, view);
    t.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, true);
    t.finalize();
    return add(std::move(t));
  }
  Tensor constant(float value) {
    constants.emplace(next_, value);
    CudnnDescriptor t = tensor(next_++, CUDNN_DATA_FLOAT, dense({1, 1, 1, 1}));
    t.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, true);
    t.finalize();
    return add(std::move(t));
  }

  void finish(CudnnDescriptor operation) {
    operation.finalize();
    operations_.push_back(add(std::move(operation)).get());
  }
  Tensor product(Tensor x, Tensor y, Tensor result) {
    CudnnDescriptor function(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    function.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    function.finalize();
    CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, x);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, y);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, result);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, add(std::move(function)));
    finish(std::move(operation));
    return result;
  }
  struct Others {
    const CudnnDescriptor* second = nullptr;
    const CudnnDescriptor* condition = nullptr;
    int64_t axis = -1;
    cudnnDataType_t inside = CUDNN_DATA_FLOAT;
  };
  Tensor pointwise(cudnnPointwiseMode_t mode, Tensor x, const Others& others, Tensor result) {
    CudnnDescriptor function(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    function.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
    function.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, others.inside);
    if (others.axis >= 0) function.set(CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, others.axis);
    function.finalize();
    CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, add(std::move(function)));
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (others.second) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *others.second);
    if (others.condition) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, *others.condition);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result);
    finish(std::move(operation));
    return result;
  }
  Tensor unary(cudnnPointwiseMode_t mode, Tensor x, Tensor result) { return pointwise(mode, x, {}, result); }
  Tensor binary(cudnnPointwiseMode_t mode, Tensor x, Tensor y, Tensor result) {
    return pointwise(mode, x, {.second = &y}, result);
  }
  Tensor reduce(cudnnReduceTensorOp_t by, Tensor x, Tensor result) {
    CudnnDescriptor function(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    function.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    function.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, by);
    function.finalize();
    CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, add(std::move(function)));
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, result);
    finish(std::move(operation));
    return result;
  }
  Tensor reshape(Tensor x, Tensor result) {
    CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    operation.set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, result);
    finish(std::move(operation));
    return result;
  }

  // scale q k^T
  Tensor scaled_scores(Tensor q, Tensor transposed_k, Tensor scale) {
    return binary(CUDNN_POINTWISE_MUL, product(q, transposed_k, registers(scores_)), scale, registers(scores_));
  }
  // -infinity at keys behind the query.
  Tensor causal(Tensor scores) {
    if (!a_.causal) return scores;
    const auto index = [&](int64_t axis) -> Tensor {
      return pointwise(CUDNN_POINTWISE_GEN_INDEX, scores, {.axis = axis}, registers(scores_, CUDNN_DATA_INT32));
    };
    Tensor row = index(2);
    Tensor column = index(3);
    Tensor seen = pointwise(CUDNN_POINTWISE_CMP_GE, row, {.second = &column, .inside = CUDNN_DATA_BOOLEAN},
                            registers(scores_, CUDNN_DATA_BOOLEAN));
    Tensor hidden = constant(-std::numeric_limits<float>::infinity());
    return pointwise(CUDNN_POINTWISE_BINARY_SELECT, scores, {.second = &hidden, .condition = &seen},
                     registers(scores_));
  }

  void forward() {
    Tensor q = memory(kQ, type_, q_);
    Tensor k = memory(kK, type_, k_.exchanged());
    Tensor v = memory(kV, type_, v_);
    Tensor y = memory(kY, type_, y_);
    Tensor scores = causal(scaled_scores(q, k, constant(static_cast<float>(a_.scale))));
    Tensor maximum = reduce(CUDNN_REDUCE_TENSOR_MAX, scores, registers(rows_));
    Tensor exponentials = unary(CUDNN_POINTWISE_EXP, binary(CUDNN_POINTWISE_SUB, scores, maximum, registers(scores_)),
                                registers(scores_));
    Tensor sum = reduce(CUDNN_REDUCE_TENSOR_ADD, exponentials, registers(rows_));
    Tensor logarithm = unary(CUDNN_POINTWISE_LOG, sum, registers(rows_));
    binary(CUDNN_POINTWISE_ADD, maximum, logarithm, memory(kStats, CUDNN_DATA_FLOAT, rows_));
    product(binary(CUDNN_POINTWISE_DIV, exponentials, sum, registers(scores_, type_)), v, y);
  }

  // x^T y summed over the heads that share one.
  void product_over_queries(Tensor x, Tensor y, int64_t id, const View& view) {
    Tensor result = memory(id, type_, view);
    View swapped = scores_.exchanged();
    Tensor transposed = reshape(x, registers(swapped, type_));
    if (a_.heads == a_.key_heads) {
      product(transposed, y, result);
      return;
    }
    Tensor each = registers(dense({a_.batch, a_.heads, a_.keys, view.sizes[3]}), type_);
    reduce(CUDNN_REDUCE_TENSOR_ADD, product(transposed, y, each), result);
  }

  void backward() {
    Tensor q = memory(kQ, type_, q_);
    Tensor transposed_k = memory(kK, type_, k_.exchanged());
    Tensor transposed_v = memory(kV, type_, v_.exchanged());
    Tensor y = memory(kY, type_, y_);
    Tensor dy = memory(kDy, type_, y_);
    Tensor stats = memory(kStats, CUDNN_DATA_FLOAT, rows_);
    Tensor scale = constant(static_cast<float>(a_.scale));
    // sum(dy y)
    Tensor inner = reduce(CUDNN_REDUCE_TENSOR_ADD, binary(CUDNN_POINTWISE_MUL, dy, y, registers(y_)), registers(rows_));
    kept[kRowSums] = a_.batch * a_.heads * a_.queries * size_of(DType::f32);
    Tensor row_sums = binary(CUDNN_POINTWISE_MUL, inner, constant(1), memory(kRowSums, CUDNN_DATA_FLOAT, rows_));
    // The weights again, and dv.
    Tensor scores = scaled_scores(q, transposed_k, scale);
    Tensor exponents = causal(binary(CUDNN_POINTWISE_SUB, scores, stats, registers(scores_)));
    Tensor weights = unary(CUDNN_POINTWISE_EXP, exponents, registers(scores_));
    product_over_queries(weights, dy, kDv, v_);
    // scale P (dy v^T - sum(dy y)), and dk.
    Tensor dweights = product(dy, transposed_v, registers(scores_));
    Tensor centred = binary(CUDNN_POINTWISE_SUB, dweights, row_sums, registers(scores_));
    Tensor dscores = binary(CUDNN_POINTWISE_MUL, centred, weights, registers(scores_));
    Tensor scaled = binary(CUDNN_POINTWISE_MUL, dscores, scale, registers(scores_));
    product_over_queries(scaled, q, kDk, k_);
    // dq: summed in f32 by blocks of keys as they come, or at once.
    Tensor k = reshape(transposed_k, registers(k_, type_));
    Tensor dq = memory(kDq, type_, q_);
    if (a_.deterministic) {
      product(scaled, k, dq);
      return;
    }
    kept[kQueryGradients] = a_.batch * a_.heads * a_.queries * a_.depth * size_of(DType::f32);
    Tensor sums = memory(kQueryGradients, CUDNN_DATA_FLOAT, dense({a_.batch, a_.heads, a_.queries, a_.depth}));
    unary(CUDNN_POINTWISE_IDENTITY, product(scaled, k, sums), dq);
  }

  const Attention a_;
  cudnnDataType_t type_;
  View scores_, rows_, q_, k_, v_, y_;
  int64_t next_ = kFirstOther;
  std::shared_ptr<std::vector<CudnnDescriptor>> parts_ = std::make_shared<std::vector<CudnnDescriptor>>();
  std::vector<cudnnBackendDescriptor_t> operations_;
};

AttentionGraph::AttentionGraph(const CudnnTarget& target, const Attention& attention)
    : parts_(std::make_unique<Parts>(target, attention)) {}

AttentionGraph::~AttentionGraph() = default;

std::vector<CudnnDescriptor> AttentionGraph::configurations() const {
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    std::vector<CudnnDescriptor> found = list_configurations(parts_->graph(), mode, parts_->target.properties);
    if (!found.empty()) return found;
  }
  return {};
}

CudnnPlan AttentionGraph::plan(CudnnDescriptor configuration) const {
  return make_plan(parts_->target.handle, parts_->shared(), std::move(configuration));
}

CudnnPlan AttentionGraph::plan(const EngineChoice& choice) const {
  RebuiltConfiguration rebuilt = make_configuration(choice, parts_->graph(), parts_->target.properties);
  CudnnPlan plan = make_plan(parts_->target.handle, parts_->shared(), std::move(rebuilt.configuration));
  plan.parts = std::move(rebuilt.parts);
  return plan;
}

int64_t AttentionGraph::workspace_bytes(const CudnnPlan& plan) const {
  int64_t bytes = round_up(plan.workspace_bytes, 256);
  for (const auto& [id, size] : parts_->kept) bytes += round_up(size, 256);
  return bytes;
}

void AttentionGraph::run(const CudnnPlan& plan, const AttentionAddresses& at, std::byte* workspace) const {
  std::vector<int64_t> ids;
  std::vector<void*> pointers;
  const auto bind = [&](int64_t id, void* pointer) {
    if (!pointer) return;
    ids.push_back(id);
    pointers.push_back(pointer);
  };
  bind(kQ, at.q), bind(kK, at.k), bind(kV, at.v), bind(kY, at.y), bind(kStats, at.stats);
  bind(kDy, at.dy), bind(kDq, at.dq), bind(kDk, at.dk), bind(kDv, at.dv);
  int64_t offset = round_up(plan.workspace_bytes, 256);
  for (const auto& [id, size] : parts_->kept) {
    bind(id, workspace + offset);
    offset += round_up(size, 256);
  }
  for (auto& [id, value] : parts_->constants) bind(id, &value);
  execute(parts_->target.handle, plan, ids, pointers, workspace);
}

}  // namespace halfstep
