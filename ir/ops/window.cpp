// Pooling: windows over the spatial axes of channels-last tensors, [N, spatial..., C].
#include <limits>

#include "base/checked.h"
#include "ir/ops/families.h"

namespace halfstep {
namespace ops {

int64_t WindowGeometry::output_size(size_t axis, int64_t input_size) const {
  const int64_t reach = (window[axis] - 1) * dilations[axis] + 1;
  const int64_t padded = input_size + pads_begin[axis] + pads_end[axis];
  expect(padded >= reach,
         "window of " + std::to_string(reach) + " is larger than the padded input of " + std::to_string(padded));
  return (padded - reach) / strides[axis] + 1;
}

WindowGeometry window_geometry(const Attributes& attributes, Ints window) {
  const size_t n = window.size();
  WindowGeometry g{std::move(window), per_axis(attributes, "strides", n, 1), per_axis(attributes, "pads_begin", n, 0),
                   per_axis(attributes, "pads_end", n, 0), per_axis(attributes, "dilations", n, 1)};
  constexpr int64_t kLargest = 1 << 20;
  for (size_t i = 0; i < n; ++i)
    expect(g.window[i] > 0 && g.strides[i] > 0 && g.dilations[i] > 0 && g.pads_begin[i] >= 0 && g.pads_end[i] >= 0 &&
               g.window[i] < kLargest && g.dilations[i] < kLargest && g.pads_begin[i] < kLargest &&
               g.pads_end[i] < kLargest,
           "window " + to_string(g.window) + ", strides " + to_string(g.strides) + ", dilations " +
               to_string(g.dilations) + ", pads " + to_string(g.pads_begin) + " and " + to_string(g.pads_end) +
               " are out of range");
  return g;
}

Shape spatial_of(const Shape& channels_last) {
  expect(channels_last.size() >= 3, "[N, spatial..., C] expected, found " + to_string(channels_last));
  return Shape(channels_last.begin() + 1, channels_last.end() - 1);
}

std::vector<AttributeSpec> window_attributes(std::vector<AttributeSpec> more) {
  std::vector<AttributeSpec> attributes{{"window", Ints()},
                                        {"strides", Ints(), AttributeSpec::defaulted},
                                        {"pads_begin", Ints(), AttributeSpec::defaulted},
                                        {"pads_end", Ints(), AttributeSpec::defaulted},
                                        {"dilations", Ints(), AttributeSpec::defaulted}};
  attributes.insert(attributes.end(), more.begin(), more.end());
  return attributes;
}

TensorType windowed_type(const TensorType& x, const WindowGeometry& g) {
  TensorType result = x;
  const Shape spatial = spatial_of(x.shape);
  expect(spatial.size() == g.window.size(),
         "a window of rank " + std::to_string(g.window.size()) + " over " + to_string(x));
  for (size_t i = 0; i < spatial.size(); ++i) result.shape[i + 1] = g.output_size(i, spatial[i]);
  return result;
}

TensorType unwindowed_type(const TypeContext& c) {
  TensorType x = c.operand(0);
  const Shape out = spatial_of(x.shape), spatial = per_axis(c.attributes, "spatial", out.size(), 0);
  for (size_t i = 0; i < spatial.size(); ++i) x.shape[i + 1] = spatial[i];
  expect(windowed_type(x, window_geometry(c.attributes, c.attributes.ints("window"))) == c.operand(0),
         "dy " + to_string(c.operand(0)) + " does not come from " + to_string(x));
  return x;
}

}  // namespace ops

namespace {

using ops::WindowGeometry;

WindowGeometry geometry_of(const Attributes& attributes) {
  return ops::window_geometry(attributes, attributes.ints("window"));
}

std::vector<TensorType> max_pool_type(const TypeContext& c) {
  const WindowGeometry g = geometry_of(c.attributes);
  const TensorType y = ops::windowed_type(c.operand(0), g);
  ops::expect(TensorType{DType::u8, g.window}.element_count() <= 256,
              "a window of more than 256 elements is not supported");
  for (size_t i = 0; i < g.window.size(); ++i)
    ops::expect(g.pads_begin[i] < (g.window[i] - 1) * g.dilations[i] + 1, "the padding is as large as the window");
  return {y, {DType::u8, y.shape}};
}

std::vector<TensorType> avg_pool_type(const TypeContext& c) {
  return {ops::windowed_type(c.operand(0), geometry_of(c.attributes))};
}

std::vector<TensorType> pool_grad_type(const TypeContext& c) { return {ops::unwindowed_type(c)}; }

// visit(output linear index, window element, input linear index or -1 in the padding), for every channel.
template <typename Visit>
void for_each_window(const Shape& x, const Shape& y, const WindowGeometry& g, Visit&& visit) {
  const std::vector<int64_t> strides = row_major_strides(x);
  int64_t out = 0;
  ops::for_each_index(y, [&](const Ints& index) {
    int64_t element = 0;
    ops::for_each_index(g.window, [&](const Ints& w) {
      int64_t at = index.front() * strides.front() + index.back();
      for (size_t i = 0; i < w.size() && at >= 0; ++i) {
        const int64_t position = g.input_position(i, index[i + 1], w[i]);
        at = position < 0 || position >= x[i + 1] ? -1 : at + position * strides[i + 1];
      }
      visit(static_cast<size_t>(out), element++, at);
    });
    ++out;
  });
}

void evaluate_max_pool(const EvaluateContext& c) {
  const double lowest = -std::numeric_limits<double>::infinity();
  std::vector<char> seen(c.results[0].size(), 0);
  std::fill(c.results[0].begin(), c.results[0].end(), lowest);  // of a window that lies in the padding
  for_each_window(c.types[0].shape, c.node.results[0].shape, geometry_of(c.node.attributes),
                  [&](size_t out, int64_t element, int64_t at) {
                    const double v = at < 0 ? lowest : (*c.operands[0])[static_cast<size_t>(at)];
                    double& best = c.results[0][out];
                    if (at < 0 || (seen[out] && !(v > best) && v == v)) return;
                    if (seen[out] && best != best) return;  // the first NaN wins
                    seen[out] = 1, best = v, c.results[1][out] = static_cast<double>(element);
                  });
}

void evaluate_max_pool_grad(const EvaluateContext& c) {
  std::fill(c.results[0].begin(), c.results[0].end(), 0.0);
  for_each_window(c.node.results[0].shape, c.types[0].shape, geometry_of(c.node.attributes),
                  [&](size_t out, int64_t element, int64_t at) {
                    if (at >= 0 && (*c.operands[1])[out] == static_cast<double>(element))
                      c.results[0][static_cast<size_t>(at)] += (*c.operands[0])[out];
                  });
}

// Elements that the mean of each output divides by.
std::vector<double> window_counts(const Shape& x, const Shape& y, const Attributes& attributes) {
  const WindowGeometry g = geometry_of(attributes);
  std::vector<double> counts(static_cast<size_t>(TensorType{DType::u8, y}.element_count()), 0);
  for_each_window(x, y, g, [&](size_t out, int64_t, int64_t at) {
    counts[out] += at >= 0 || attributes.integer("count_include_pad") != 0;
  });
  return counts;
}

void evaluate_avg_pool(const EvaluateContext& c) {
  const Shape &x = c.types[0].shape, &y = c.node.results[0].shape;
  const std::vector<double> counts = window_counts(x, y, c.node.attributes);
  std::fill(c.results[0].begin(), c.results[0].end(), 0.0);
  for_each_window(x, y, geometry_of(c.node.attributes), [&](size_t out, int64_t, int64_t at) {
    if (at >= 0) c.results[0][out] += (*c.operands[0])[static_cast<size_t>(at)] / counts[out];
  });
}

void evaluate_avg_pool_grad(const EvaluateContext& c) {
  const Shape &x = c.node.results[0].shape, &y = c.types[0].shape;
  const std::vector<double> counts = window_counts(x, y, c.node.attributes);
  std::fill(c.results[0].begin(), c.results[0].end(), 0.0);
  for_each_window(x, y, geometry_of(c.node.attributes), [&](size_t out, int64_t, int64_t at) {
    if (at >= 0) c.results[0][static_cast<size_t>(at)] += (*c.operands[0])[out] / counts[out];
  });
}

Attributes with_spatial(const VjpContext& c) {
  Attributes attributes = c.node.attributes;
  attributes.set("spatial", ops::spatial_of(c.builder.shape(c.operands[0])));
  return attributes;
}

std::vector<Value> max_pool_vjp(const VjpContext& c) {
  return {c.builder.call("max_pool_grad", {c.cotangents[0], c.results[1]}, with_spatial(c))};
}

std::vector<Value> avg_pool_vjp(const VjpContext& c) {
  return {c.builder.call("avg_pool_grad", {c.cotangents[0]}, with_spatial(c))};
}

double window_cost(const Node& node, std::span<const TensorType>) {
  return static_cast<double>(node.results[0].element_count() *
                             TensorType{DType::u8, node.attributes.ints("window")}.element_count());
}

constexpr std::string_view kSecondOrder = "second derivatives are not built";

const AttributeSpec kSpatial{"spatial", Ints()};
const AttributeSpec kCountIncludePad{"count_include_pad", int64_t{0}, AttributeSpec::defaulted};

const std::vector<Op> kOps{
    {.name = "max_pool",
     .onnx = "MaxPool",
     .operands = {{"x"}},
     .attributes = ops::window_attributes({}),
     .type = max_pool_type,
     .vjp = max_pool_vjp,
     .kernel = KernelKind::window,
     .combine = ScalarOp::maximum,
     .resize = ops::resize_batch,
     .evaluate = evaluate_max_pool,
     .cost = window_cost},
    {.name = "max_pool_grad",
     .operands = {{"dy"}, {"index"}},
     .attributes = ops::window_attributes({kSpatial}),
     .type = pool_grad_type,
     .not_differentiable = kSecondOrder,
     .kernel = KernelKind::window,
     .gradient = Gradient::data,
     .combine = ScalarOp::maximum,
     .evaluate = evaluate_max_pool_grad,
     .cost = window_cost},
    {.name = "avg_pool",
     .onnx = "AveragePool",
     .operands = {{"x"}},
     .attributes = ops::window_attributes({kCountIncludePad}),
     .type = avg_pool_type,
     .vjp = avg_pool_vjp,
     .kernel = KernelKind::window,
     .resize = ops::resize_batch,
     .evaluate = evaluate_avg_pool,
     .cost = window_cost},
    {.name = "avg_pool_grad",
     .operands = {{"dy"}},
     .attributes = ops::window_attributes({kCountIncludePad, kSpatial}),
     .type = pool_grad_type,
     .not_differentiable = kSecondOrder,
     .kernel = KernelKind::window,
     .gradient = Gradient::data,
     .evaluate = evaluate_avg_pool_grad,
     .cost = window_cost},
};

}  // namespace

std::span<const Op> window_ops() { return kOps; }

}  // namespace halfstep
