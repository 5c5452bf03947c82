#include "runtime/cuda/recurrent.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "runtime/cuda/check.h"

namespace halfstep {
namespace {

template <typename Descriptor, auto destroy>
struct Owned {
  struct Deleter {
    void operator()(std::remove_pointer_t<Descriptor>* descriptor) const { destroy(descriptor); }
  };
  using Pointer = std::unique_ptr<std::remove_pointer_t<Descriptor>, Deleter>;
};
template <typename Pointer, typename Descriptor>
Pointer made(cudnnStatus_t (*create)(Descriptor*), const char* call) {
  Descriptor descriptor = nullptr;
  check(create(&descriptor), call);
  return Pointer(descriptor);
}
using RnnDescriptor = Owned<cudnnRNNDescriptor_t, cudnnDestroyRNNDescriptor>::Pointer;
using DataDescriptor = Owned<cudnnRNNDataDescriptor_t, cudnnDestroyRNNDataDescriptor>::Pointer;
using TensorDescriptor = Owned<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor>::Pointer;
using DropoutDescriptor = Owned<cudnnDropoutDescriptor_t, cudnnDestroyDropoutDescriptor>::Pointer;

constexpr const char* kAdvice = "compile with recurrent = \"expanded\"";

std::string key_of(const Recurrent& r) {
  const RecurrentSizes& s = r.sizes;
  return fmt::format("{} {} {} {} {} {} {} {} {}", name(s.cell), s.steps, s.batch, s.inputs, s.hidden, s.layers,
                     s.directions, s.biased, name(r.operand));
}

cudnnRNNMode_t mode_of(RecurrentCell cell) {
  switch (cell) {
    case RecurrentCell::lstm:
      return CUDNN_LSTM;
    case RecurrentCell::gru:
      return CUDNN_GRU;
    case RecurrentCell::tanh:
      return CUDNN_RNN_TANH;
    case RecurrentCell::relu:
      return CUDNN_RNN_RELU;
  }
  throw InternalError("a cell of the library");
}

DataDescriptor sequences(const RecurrentSizes& s, int64_t width, cudnnDataType_t type) {
  auto data = made<DataDescriptor>(cudnnCreateRNNDataDescriptor, "cudnnCreateRNNDataDescriptor");
  const std::vector<int> lengths(static_cast<size_t>(s.batch), static_cast<int>(s.steps));
  check(cudnnSetRNNDataDescriptor(data.get(), type, CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED, static_cast<int>(s.steps),
                                  static_cast<int>(s.batch), static_cast<int>(width), lengths.data(), nullptr),
        "cudnnSetRNNDataDescriptor");
  return data;
}

}  // namespace

struct CudnnRecurrents::Network {
  DropoutDescriptor dropout;
  RnnDescriptor rnn;
  DataDescriptor x, y;
  TensorDescriptor state;
  DeviceMemory lengths;  // i32[batch]
  size_t weight_bytes = 0, reserve_bytes = 0;
  size_t training_workspace = 0, inference_workspace = 0;
};

CudnnRecurrents::CudnnRecurrents(ContractionOptions options, const CudaStream& stream, Workspace& workspace)
    : options_(options), stream_(stream), workspace_(workspace), handle_(make_cudnn_handle()) {
  check(cudnnSetStream(handle_.get(), stream.get()), "cudnnSetStream");
}

// The standard algorithm: it adds in one order, and keeps of a step what ir/ops/recurrent.cpp makes room for.
std::shared_ptr<const CudnnRecurrents::Network> CudnnRecurrents::describe(const Recurrent& call) const {
  const RecurrentSizes& s = call.sizes;
  const cudnnDataType_t type = cudnn_type(call.operand);
  const cudnnMathType_t math = is_low(call.operand)  ? CUDNN_TENSOR_OP_MATH
                               : options_.allow_tf32 ? CUDNN_DEFAULT_MATH
                                                     : CUDNN_FMA_MATH;
  auto n = std::make_shared<Network>();
  n->dropout = made<DropoutDescriptor>(cudnnCreateDropoutDescriptor, "cudnnCreateDropoutDescriptor");
  check(cudnnSetDropoutDescriptor(n->dropout.get(), handle_.get(), 0, nullptr, 0, 0), "cudnnSetDropoutDescriptor");
  n->rnn = made<RnnDescriptor>(cudnnCreateRNNDescriptor, "cudnnCreateRNNDescriptor");
  check(
      cudnnSetRNNDescriptor_v8(n->rnn.get(), CUDNN_RNN_ALGO_STANDARD, mode_of(s.cell),
                               s.biased ? CUDNN_RNN_DOUBLE_BIAS : CUDNN_RNN_NO_BIAS,
                               s.directions == 2 ? CUDNN_BIDIRECTIONAL : CUDNN_UNIDIRECTIONAL, CUDNN_LINEAR_INPUT, type,
                               CUDNN_DATA_FLOAT, math, static_cast<int32_t>(s.inputs), static_cast<int32_t>(s.hidden),
                               static_cast<int32_t>(s.hidden), static_cast<int32_t>(s.layers), n->dropout.get(), 0),
      "cudnnSetRNNDescriptor_v8");
  const std::vector<int32_t> lengths(static_cast<size_t>(s.batch), static_cast<int32_t>(s.steps));
  n->lengths = DeviceMemory(static_cast<int64_t>(lengths.size() * sizeof(int32_t)));
  check(cudaMemcpyAsync(n->lengths.data(), lengths.data(), static_cast<size_t>(n->lengths.size()),
                        cudaMemcpyHostToDevice, stream_.get()),
        "cudaMemcpyAsync");
  stream_.synchronize();
  n->x = sequences(s, s.inputs, type), n->y = sequences(s, s.directions * s.hidden, type);
  n->state = made<TensorDescriptor>(cudnnCreateTensorDescriptor, "cudnnCreateTensorDescriptor");
  const int sizes[] = {static_cast<int>(s.layers * s.directions), static_cast<int>(s.batch),
                       static_cast<int>(s.hidden)};
  const int strides[] = {sizes[1] * sizes[2], sizes[2], 1};
  check(cudnnSetTensorNdDescriptor(n->state.get(), type, 3, sizes, strides), "cudnnSetTensorNdDescriptor");
  check(cudnnGetRNNWeightSpaceSize(handle_.get(), n->rnn.get(), &n->weight_bytes), "cudnnGetRNNWeightSpaceSize");
  check(cudnnGetRNNTempSpaceSizes(handle_.get(), n->rnn.get(), CUDNN_FWD_MODE_TRAINING, n->x.get(),
                                  &n->training_workspace, &n->reserve_bytes),
        "cudnnGetRNNTempSpaceSizes");
  size_t no_reserve = 0;
  check(cudnnGetRNNTempSpaceSizes(handle_.get(), n->rnn.get(), CUDNN_FWD_MODE_INFERENCE, n->x.get(),
                                  &n->inference_workspace, &no_reserve),
        "cudnnGetRNNTempSpaceSizes");
  return n;
}

namespace {

// Where the library expects each block of weights, against where the program has it.
void check_layout(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn, const Recurrent& call, size_t weight_bytes) {
  const RecurrentSizes& s = call.sizes;
  const auto element = static_cast<int64_t>(size_of(call.operand));
  const auto refuse = [&](const std::string& what) {
    throw Error(fmt::format("this version of cuDNN lays out {} otherwise than expected; {}", what, kAdvice));
  };
  if (static_cast<int64_t>(weight_bytes) != weight_count(s) * element) refuse("weights");
  auto matrix = made<TensorDescriptor>(cudnnCreateTensorDescriptor, "cudnnCreateTensorDescriptor"),
       bias = made<TensorDescriptor>(cudnnCreateTensorDescriptor, "cudnnCreateTensorDescriptor");
  std::vector<std::byte> memory(weight_bytes);  // for addresses alone
  const int64_t gates = s.rows() / s.hidden;
  for (int64_t layer = 0; layer < s.layers; ++layer)
    for (int64_t direction = 0; direction < s.directions; ++direction)
      for (int64_t gate = 0; gate < 2 * gates; ++gate) {
        const RecurrentPart part = gate < gates ? RecurrentPart::input : RecurrentPart::recurrent;
        const int64_t columns = gate < gates ? s.inputs_of(layer) : s.hidden, row = gate % gates * s.hidden;
        void *m = nullptr, *b = nullptr;
        check(cudnnGetRNNWeightParams(handle, rnn, static_cast<int32_t>(layer * s.directions + direction), weight_bytes,
                                      memory.data(), static_cast<int32_t>(gate), matrix.get(), &m, bias.get(), &b),
              "cudnnGetRNNWeightParams");
        const auto offset = [&](void* at) { return (static_cast<std::byte*>(at) - memory.data()) / element; };
        if (!m || offset(m) != matrix_offset(s, layer, direction, part) + row * columns) refuse("matrices");
        if (s.biased && (!b || offset(b) != bias_offset(s, layer, direction, part) + row)) refuse("biases");
      }
}

}  // namespace

void CudnnRecurrents::prepare(const Recurrent& call) {
  auto& network = networks_[key_of(call)];
  if (!network) {
    const std::shared_ptr<const Network> described = describe(call);
    check_layout(handle_.get(), described->rnn.get(), call, described->weight_bytes);
    network = described;
  }
  if (call.reserve && static_cast<int64_t>(network->reserve_bytes) > call.reserve_bytes)
    throw Error(fmt::format("this version of cuDNN keeps {} bytes of a step, the program has room for {}; {}",
                            network->reserve_bytes, call.reserve_bytes, kAdvice));
}

const CudnnRecurrents::Network& CudnnRecurrents::network_of(const Recurrent& call) const {
  const auto network = networks_.find(key_of(call));
  require(network != networks_.end(), "recurrent: not prepared");
  return *network->second;
}

void CudnnRecurrents::run(const Recurrent& call, const AddressOf& address) {
  const Network& n = network_of(call);
  const auto at = [&](const std::optional<Ref>& ref) { return ref ? address(*ref) : nullptr; };
  const auto* lengths = reinterpret_cast<const int32_t*>(n.lengths.data());
  void *x = address(call.x), *y = address(call.y), *weights = address(call.weights), *reserve = at(call.reserve);
  if (call.kind == RecurrentKind::forward) {
    check(cudnnRNNForward(handle_.get(), n.rnn.get(), reserve ? CUDNN_FWD_MODE_TRAINING : CUDNN_FWD_MODE_INFERENCE,
                          lengths, n.x.get(), x, n.y.get(), y, n.state.get(), at(call.h), at(call.h_last),
                          n.state.get(), at(call.c), at(call.c_last), n.weight_bytes, weights,
                          reserve ? n.training_workspace : n.inference_workspace, workspace_.data(),
                          reserve ? n.reserve_bytes : 0, reserve),
          "cudnnRNNForward");
    return;
  }
  check(cudnnRNNBackwardData_v8(handle_.get(), n.rnn.get(), lengths, n.y.get(), y, at(call.dy), n.x.get(), at(call.dx),
                                n.state.get(), at(call.h), at(call.dh_last), at(call.dh), n.state.get(), at(call.c),
                                at(call.dc_last), at(call.dc), n.weight_bytes, weights, n.training_workspace,
                                workspace_.data(), n.reserve_bytes, reserve),
        "cudnnRNNBackwardData_v8");
  // The library adds to what is there.
  check(cudaMemsetAsync(at(call.dweights), 0, n.weight_bytes, stream_.get()), "cudaMemsetAsync");
  check(cudnnRNNBackwardWeights_v8(handle_.get(), n.rnn.get(), CUDNN_WGRAD_MODE_ADD, lengths, n.x.get(), x,
                                   n.state.get(), at(call.h), n.y.get(), y, n.weight_bytes, at(call.dweights),
                                   n.training_workspace, workspace_.data(), n.reserve_bytes, reserve),
        "cudnnRNNBackwardWeights_v8");
}

int64_t CudnnRecurrents::workspace_bytes() const {
  size_t bytes = 0;
  for (const auto& [key, network] : networks_)
    bytes = std::max({bytes, network->training_workspace, network->inference_workspace});
  return static_cast<int64_t>(bytes);
}

}  // namespace halfstep
