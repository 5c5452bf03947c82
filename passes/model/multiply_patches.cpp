#include "passes/model/multiply_patches.h"

#include <algorithm>

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

Shape window_of(const Shape& filter) { return {filter.begin() + 1, filter.end() - 1}; }

bool are(const Ints& numbers, int64_t value) {
  return std::ranges::all_of(numbers, [&](int64_t n) { return n == value; });
}

// Whether each element of `x` stands in exactly one window.
bool tiles(const Node& node, const TensorType& x, const Shape& window) {
  const Attributes& a = node.attributes;
  if (a.ints("strides") != window || !are(a.ints("pads_begin"), 0) || !are(a.ints("pads_end"), 0) ||
      !are(a.ints("dilations"), 1) || a.integer("groups") != 1)
    return false;
  for (size_t i = 0; i < window.size(); ++i)
    if (x.shape[i + 1] % window[i] != 0) return false;
  return true;
}

// [N, spatial..., C] as rows of windows: [N * windows, window * C].
Value patches(Builder& b, Value x, const Shape& window) {
  const Shape shape = b.shape(x);
  const int64_t axes = std::ssize(window);
  Shape split{shape.front()};
  Ints counts{0}, places;
  int64_t rows = shape.front(), columns = shape.back();
  for (int64_t i = 0; i < axes; ++i) {
    const int64_t size = window[static_cast<size_t>(i)], windows = shape[static_cast<size_t>(i) + 1] / size;
    split.insert(split.end(), {windows, size});
    counts.push_back(1 + 2 * i), places.push_back(2 + 2 * i);
    rows *= windows, columns *= size;
  }
  split.push_back(shape.back());
  counts.insert(counts.end(), places.begin(), places.end());
  counts.push_back(1 + 2 * axes);
  return b.reshape(b.transpose(b.reshape(x, split), counts), {rows, columns});
}

}  // namespace

Graph multiply_patches(const Graph& graph, int64_t alignment) {
  if (alignment <= 1) return graph;
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) {
    if (!is(node, "convolution")) return std::vector<Value>();
    const TensorType x = b.type(operands[0]), w = b.type(operands[1]);
    const Shape window = window_of(w.shape);
    const int64_t columns = w.element_count() / std::max<int64_t>(1, w.shape.front());
    if (are(window, 1) || !tiles(node, x, window) || x.element_count() == 0 ||
        columns * size_of(w.dtype) % alignment != 0)
      return std::vector<Value>();
    Attributes attributes{{"transpose_b", int64_t{1}}};
    if (const std::string& result = node.attributes.text("result"); !result.empty()) attributes.set("result", result);
    const Value filter = b.reshape(operands[1], {w.shape.front(), columns});
    return std::vector<Value>{
        b.reshape(b.matmul(patches(b, operands[0], window), filter, attributes), node.results[0].shape)};
  });
}

}  // namespace halfstep
