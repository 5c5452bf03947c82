// Depthwise convolutions as windows over channels-last tensors: y[n, o, c] = sum over t of x[n, o stride + t - pad, c]
// * w[t, c], and the gradient of x. Made of convolutions after differentiation (passes/training/depthwise_windows.h).
#include <algorithm>

#include "base/checked.h"
#include "ir/ops/families.h"

namespace halfstep {
namespace {

using ops::WindowGeometry;

WindowGeometry geometry_of(const Attributes& attributes) {
  return ops::window_geometry(attributes, attributes.ints("window"));
}

void expect_filter(const TypeContext& c) {
  const TensorType &x = c.operand(0), &w = c.operand(1);
  Shape expected = c.attributes.ints("window");
  ops::expect(!x.shape.empty(), "[N, spatial..., C] expected, found " + to_string(x));
  expected.push_back(x.shape.back());
  ops::expect(is_floating(x.dtype) && w == TensorType{x.dtype, expected},
              "w " + to_string(w) + " expected as " + to_string(TensorType{x.dtype, expected}));
}

std::vector<TensorType> forward_type(const TypeContext& c) {
  expect_filter(c);
  return {ops::windowed_type(c.operand(0), geometry_of(c.attributes))};
}

std::vector<TensorType> data_grad_type(const TypeContext& c) {
  expect_filter(c);
  return {ops::unwindowed_type(c)};
}

// visit(output element, input element, filter element) for every product.
template <typename Visit>
void for_each_product(const Shape& x, const Shape& y, const Attributes& attributes, Visit&& visit) {
  const WindowGeometry g = geometry_of(attributes);
  const std::vector<int64_t> xs = row_major_strides(x), ws = row_major_strides(g.window);
  size_t y_at = 0;
  ops::for_each_index(y, [&](const Ints& index) {
    ops::for_each_index(g.window, [&](const Ints& t) {
      int64_t x_at = index.front() * xs.front() + index.back(), w_at = 0;
      for (size_t i = 0; i < t.size(); ++i) {
        const int64_t position = g.input_position(i, index[i + 1], t[i]);
        if (position < 0 || position >= x[i + 1]) return;
        x_at += position * xs[i + 1], w_at += t[i] * ws[i];
      }
      visit(y_at, static_cast<size_t>(x_at), static_cast<size_t>(w_at * x.back() + index.back()));
    });
    ++y_at;
  });
}

void evaluate_forward(const EvaluateContext& c) {
  const std::vector<double>&x = *c.operands[0], &w = *c.operands[1];
  std::vector<double>& y = c.results[0];
  std::fill(y.begin(), y.end(), 0.0);
  for_each_product(c.types[0].shape, c.node.results[0].shape, c.node.attributes,
                   [&](size_t i, size_t j, size_t k) { y[i] += x[j] * w[k]; });
}

void evaluate_data_grad(const EvaluateContext& c) {
  const std::vector<double>&dy = *c.operands[0], &w = *c.operands[1];
  std::vector<double>& dx = c.results[0];
  std::fill(dx.begin(), dx.end(), 0.0);
  for_each_product(c.node.results[0].shape, c.types[0].shape, c.node.attributes,
                   [&](size_t i, size_t j, size_t k) { dx[j] += dy[i] * w[k]; });
}

// `outputs`: elements of y.
double product_cost(const Node& node, int64_t outputs) {
  return 2.0 * static_cast<double>(outputs) *
         static_cast<double>(TensorType{DType::u8, node.attributes.ints("window")}.element_count());
}

constexpr std::string_view kMadeLater = "made of convolutions that have been differentiated";

const std::vector<Op> kOps{
    {.name = "depthwise",
     .operands = {{"x"}, {"w"}},
     .attributes = ops::window_attributes({}),
     .type = forward_type,
     .precision = Precision::low,
     .not_differentiable = kMadeLater,
     .kernel = KernelKind::window,
     .resize = ops::resize_batch,
     .evaluate = evaluate_forward,
     .cost = [](const Node& node,
                std::span<const TensorType>) { return product_cost(node, node.results[0].element_count()); }},
    {.name = "depthwise_data_grad",
     .operands = {{"dy"}, {"w"}},
     .attributes = ops::window_attributes({{"spatial", Ints()}}),
     .type = data_grad_type,
     .precision = Precision::low,
     .not_differentiable = kMadeLater,
     .kernel = KernelKind::window,
     .gradient = Gradient::data,
     .evaluate = evaluate_data_grad,
     .cost = [](const Node& node, std::span<const TensorType> t) { return product_cost(node, t[0].element_count()); }},
};

}  // namespace

std::span<const Op> depthwise_ops() { return kOps; }

}  // namespace halfstep
