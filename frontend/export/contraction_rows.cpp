// Matrix products and convolutions. A product of low operands whose result is f32 is one of f32 operands: the IR's
// sums are f32 in any case.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "frontend/export/channels.h"
#include "frontend/export/operator_rows.h"
#include "ir/views.h"

namespace halfstep {
namespace {

OnnxValue operand(const ExportContext& c, size_t i) { return c.onnx.cast(c.operands[i], c.results[0].dtype); }

OnnxValue product(const ExportContext& c) {
  const OnnxValue a = operand(c, 0), b = operand(c, 1);
  const int64_t ta = c.node.attributes.integer("transpose_a"), tb = c.node.attributes.integer("transpose_b");
  std::vector<OnnxValue> operands{a, b};
  if (optional_operand(c.node, kProductBias)) operands.push_back(operand(c, kProductBias));
  if (a.type.shape.size() == 2 && (ta || tb || operands.size() > 2)) {
    OnnxAttributes attributes;
    if (ta) attributes.emplace_back("transA", int64_t{1});
    if (tb) attributes.emplace_back("transB", int64_t{1});
    return c.onnx.node("Gemm", operands, c.results[0], attributes);
  }
  return c.onnx.node("MatMul", {ta ? c.onnx.transpose(a, {0, 2, 1}) : a, tb ? c.onnx.transpose(b, {0, 2, 1}) : b},
                     c.results[0]);
}

std::vector<OnnxValue> matmul(const ExportContext& c) {
  OnnxValue y = product(c);
  if (optional_operand(c.node, kProductAddend)) y = c.onnx.binary("Add", y, operand(c, kProductAddend));
  return {c.node.attributes.integer("rectified") != 0 ? c.onnx.node("Relu", {y}, c.results[0]) : y};
}

Ints window_of(const Shape& filters) { return {filters.begin() + 1, filters.end() - 1}; }

Shape first_shape(const Shape& channels_last) {
  Shape shape{channels_last.front(), channels_last.back()};
  shape.insert(shape.end(), channels_last.begin() + 1, channels_last.end() - 1);
  return shape;
}

OnnxAttributes convolution_attributes(const ops::WindowGeometry& g, int64_t groups) {
  OnnxAttributes attributes{
      {"kernel_shape", g.window}, {"strides", g.strides}, {"pads", onnx_pads(g)}, {"dilations", g.dilations}};
  if (groups != 1) attributes.emplace_back("group", groups);
  return attributes;
}

// [O, window..., I / groups] is [O, I / groups, window...] in ONNX, as an input is.
std::vector<OnnxValue> convolution(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const OnnxValue x = channels_first(o, operand(c, 0)), w = channels_first(o, operand(c, 1));
  const ops::WindowGeometry g = ops::window_geometry(c.node.attributes, window_of(c.operands[1].type.shape));
  const TensorType type{c.results[0].dtype, first_shape(c.results[0].shape)};
  return {
      channels_last(o, o.node("Conv", {x, w}, type, convolution_attributes(g, c.node.attributes.integer("groups"))))};
}

std::vector<OnnxValue> data_grad(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const OnnxValue w = channels_first(o, operand(c, 0)), dy = channels_first(o, operand(c, 1));
  const ops::WindowGeometry g = ops::window_geometry(c.node.attributes, window_of(c.operands[0].type.shape));
  OnnxAttributes attributes = convolution_attributes(g, c.node.attributes.integer("groups"));
  attributes.emplace_back("output_padding", output_padding(g, c.results[0].shape, c.operands[1].type.shape));
  const TensorType type{c.results[0].dtype, first_shape(c.results[0].shape)};
  return {channels_last(o, o.node("ConvTranspose", {dy, w}, type, attributes))};
}

// dw[o, k, i] = sum over n and p of x[n, p stride + k dilation - pad, i] dy[n, p, o]: a convolution whose samples are
// the input's channels, whose channels are the samples, and in which stride and dilation have changed places. What a
// stride leaves over at the end makes the window longer than it is; that is cut off.
std::vector<OnnxValue> filter_grad(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const Attributes& attributes = c.node.attributes;
  const OnnxValue x = operand(c, 0), dy = operand(c, 1);
  const int64_t groups = attributes.integer("groups"), samples = x.type.shape.front();
  const int64_t channels = x.type.shape.back() / groups;
  const ops::WindowGeometry g = ops::window_geometry(attributes, attributes.ints("window"));
  const auto spatial = static_cast<int64_t>(g.window.size());

  // [N, spatial..., groups, channels] -> [channels, groups, N, spatial...] -> [channels, groups N, spatial...]
  Shape grouped = x.type.shape;
  grouped.back() = groups;
  grouped.push_back(channels);
  Ints order{spatial + 2, spatial + 1, 0};
  Shape images{channels, groups * samples};
  for (int64_t i = 1; i <= spatial; ++i) order.push_back(i), images.push_back(x.type.shape[static_cast<size_t>(i)]);
  const OnnxValue input = o.reshape(o.transpose(o.reshape(x, grouped), order), images);

  Ints filters_order{spatial + 1, 0};
  for (int64_t i = 1; i <= spatial; ++i) filters_order.push_back(i);
  const OnnxValue filters = o.transpose(dy, filters_order);  // [O, N, out...]

  ops::WindowGeometry exchanged = g;
  std::swap(exchanged.strides, exchanged.dilations);
  exchanged.window = Ints(filters.type.shape.begin() + 2, filters.type.shape.end());
  TensorType type{c.results[0].dtype, {channels, dy.type.shape.back()}};
  for (size_t i = 0; i < g.window.size(); ++i) type.shape.push_back(exchanged.output_size(i, images[i + 2]));
  const OnnxValue longer = o.node("Conv", {input, filters}, type, convolution_attributes(exchanged, groups));
  Ints limits{channels, dy.type.shape.back()};
  limits.insert(limits.end(), g.window.begin(), g.window.end());
  const OnnxValue dw = o.slice(longer, Ints(limits.size(), 0), limits);  // [channels, O, window...]
  Ints back{1};
  for (int64_t i = 2; i < spatial + 2; ++i) back.push_back(i);
  back.push_back(0);
  return {o.transpose(dw, back)};
}

constexpr ExportRow kRows[] = {
    {"matmul", matmul},
    {"convolution", convolution},
    {"convolution_data_grad", data_grad},
    {"convolution_filter_grad", filter_grad},
};

}  // namespace

std::span<const ExportRow> contraction_rows() { return kRows; }

}  // namespace halfstep
