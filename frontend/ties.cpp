#include "frontend/ties.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "frontend/model_proto.h"
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
    // The corners on the diagonal stay where they are when a matrix is transposed.
    std::map<std::pair<float, float>, std::vector<std::pair<std::string, Tensor>>> firsts;
    for (const onnx::TensorProto* proto : tensors) {
      Tensor value = reader.read(*proto);
      const auto elements = value.as<float>();
      auto& alike = firsts[{elements.front(), elements.back()}];
      const auto tie = [&](const auto& first) {
        if (equal(first.second, value)) return ties.emplace(proto->name(), Tie{first.first, Tie::same}).second;
        return equal(first.second.transpose(Ints{1, 0}), value) &&
               ties.emplace(proto->name(), Tie{first.first, Tie::transposed}).second;
      };
      if (!has_one_value(value) && std::none_of(alike.begin(), alike.end(), tie))
        alike.emplace_back(proto->name(), std::move(value));
    }
  }
  return ties;
}

Tensor tied_value(const Tie& tie, const Tensor& of) {
  return tie.orientation == Tie::same ? of : of.transpose(Ints{1, 0});
}

}  // namespace halfstep
