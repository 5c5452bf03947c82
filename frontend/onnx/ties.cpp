#include "frontend/onnx/ties.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "frontend/onnx/model_proto.h"
#include "ir/attributes.h"

namespace halfstep {
namespace {

constexpr int64_t kFewestElements = 256;  // fewer may agree by chance

bool may_be_tied(const onnx::TensorProto& tensor, const TensorReader& reader) {
  if (tensor.dims_size() != 2 || tensor.data_type() == onnx::TensorProto::DOUBLE) return false;
  const std::optional<DType> dtype = element_type(tensor.data_type());
  if (!dtype || !is_floating(*dtype)) return false;
  const int64_t rows = tensor.dims(0), columns = tensor.dims(1);
  return rows > 1 && columns > 1 && rows < INT32_MAX && columns < INT32_MAX && rows * columns >= kFewestElements &&
         !reader.missing_file(tensor);
}

bool equal(const Tensor& a, const Tensor& b) {
  return a.type == b.type && std::memcmp(a.data.data(), b.data.data(), a.data.size()) == 0;
}

bool has_one_value(const Tensor& t) {
  const auto values = t.as<float>();
  return std::all_of(values.begin(), values.end(), [&](float v) { return v == values.front(); });
}

// The same for every order of the elements, so for the transpose too.
size_t hash_of_elements(const Tensor& t) {
  size_t sum = 0;
  for (const uint32_t bits : t.as<uint32_t>()) {
    const uint64_t mixed = (bits + uint64_t{1}) * 0xff51afd7ed558ccdu;  // a multiplier of MurmurHash3
    sum += mixed ^ (mixed >> 33);
  }
  return sum;
}

}  // namespace

std::map<std::string, Tie> find_ties(const onnx::GraphProto& graph, const TensorReader& reader) {
  // Sizes first, since most matrices have nothing of their size to be tied to and need not be read.
  std::map<std::pair<int64_t, int64_t>, std::vector<const onnx::TensorProto*>> by_size;
  for (const onnx::TensorProto& tensor : graph.initializer())
    if (may_be_tied(tensor, reader)) by_size[std::minmax({tensor.dims(0), tensor.dims(1)})].push_back(&tensor);
  std::map<std::string, Tie> ties;
  for (auto& [size, tensors] : by_size) {
    if (tensors.size() < 2) continue;
    std::stable_partition(tensors.begin(), tensors.end(), [](const auto* t) { return !is_exporters_name(t->name()); });
    // One matrix is held at a time: those that may be tied are read again.
    std::unordered_map<size_t, std::vector<const onnx::TensorProto*>> firsts;
    for (const onnx::TensorProto* proto : tensors) {
      const Tensor value = reader.read(*proto);
      if (has_one_value(value)) continue;
      auto& alike = firsts[hash_of_elements(value)];
      const auto tie = [&](const onnx::TensorProto* first) {
        const Tensor other = reader.read(*first);
        if (equal(other, value)) return ties.emplace(proto->name(), Tie{first->name(), Tie::same}).second;
        return equal(other.transpose(Ints{1, 0}), value) &&
               ties.emplace(proto->name(), Tie{first->name(), Tie::transposed}).second;
      };
      if (std::none_of(alike.begin(), alike.end(), tie)) alike.push_back(proto);
    }
  }
  return ties;
}

Tensor tied_value(const Tie& tie, const Tensor& of) {
  return tie.orientation == Tie::same ? of : of.transpose(Ints{1, 0});
}

}  // namespace halfstep
