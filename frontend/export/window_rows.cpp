// Pooling and its gradients. The IR's tensors are channels-last, those of ONNX channels-first.
#include <algorithm>
#include <limits>

#include "base/error.h"
#include "frontend/export/channels.h"
#include "frontend/export/operator_rows.h"
#include "ir/ops/families.h"

namespace halfstep {
namespace {

// The windows of a pool over [N, spatial..., C]: element e of all windows at once is a slice of the padded tensor.
class Windows {
 public:
  Windows(const Attributes& attributes, const Shape& input, const Shape& output)
      : geometry_(ops::window_geometry(attributes, attributes.ints("window"))), input_(input), output_(output) {}

  int64_t count() const { return TensorType{DType::u8, geometry_.window}.element_count(); }

  OnnxValue padded(OnnxBuilder& onnx, const OnnxValue& v, double value) const {
    return onnx.pad(v, around(geometry_.pads_begin), around(geometry_.pads_end), value);
  }
  // [N, out..., C]
  OnnxValue elements(OnnxBuilder& onnx, const OnnxValue& padded, int64_t e) const {
    const Ints offset = offset_of(e);
    Ints starts(rank(), 0), limits = padded.type.shape, steps(rank(), 1);
    for (size_t i = 0; i < spatial(); ++i) {
      starts[i + 1] = offset[i], steps[i + 1] = geometry_.strides[i];
      limits[i + 1] = offset[i] + (output_[i + 1] - 1) * geometry_.strides[i] + 1;
    }
    return onnx.slice(padded, starts, limits, steps);
  }
  // The transposed map: v at the places that element e of each window has in the padded tensor, zeros elsewhere.
  OnnxValue placed(OnnxBuilder& onnx, OnnxValue v, int64_t e) const {
    const Ints offset = offset_of(e);
    Ints low(rank(), 0), high(rank(), 0), limits = input_;
    limits.front() = v.type.shape.front(), limits.back() = v.type.shape.back();
    for (size_t i = spatial(); i-- > 0;) {
      const size_t axis = i + 1;
      const int64_t stride = geometry_.strides[i], outputs = output_[axis];
      if (stride > 1) {
        Shape split = v.type.shape;
        split.insert(split.begin() + static_cast<std::ptrdiff_t>(axis) + 1, 1);
        Ints before(split.size(), 0), behind = before;
        behind[axis + 1] = stride - 1;
        Shape merged = v.type.shape;
        merged[axis] *= stride;
        v = onnx.reshape(onnx.pad(onnx.reshape(v, split), before, behind), merged);
      }
      const int64_t size = input_[axis] + geometry_.pads_begin[i] + geometry_.pads_end[i];
      limits[axis] = size;
      low[axis] = offset[i], high[axis] = std::max<int64_t>(0, size - offset[i] - outputs * stride);
    }
    return onnx.slice(onnx.pad(v, low, high), Ints(rank(), 0), limits);
  }
  OnnxValue cropped(OnnxBuilder& onnx, const OnnxValue& padded) const {
    Ints starts = around(geometry_.pads_begin), limits = padded.type.shape;
    for (size_t i = 0; i < spatial(); ++i) limits[i + 1] = starts[i + 1] + input_[i + 1];
    return onnx.slice(padded, starts, limits);
  }

 private:
  size_t rank() const { return input_.size(); }
  size_t spatial() const { return geometry_.window.size(); }
  Ints around(const Ints& pads) const {
    Ints all(rank(), 0);
    std::ranges::copy(pads, all.begin() + 1);
    return all;
  }
  Ints offset_of(int64_t e) const {
    Ints offset(spatial());
    for (size_t i = spatial(); i-- > 0; e /= geometry_.window[i])
      offset[i] = e % geometry_.window[i] * geometry_.dilations[i];
    return offset;
  }

  ops::WindowGeometry geometry_;
  const Shape& input_;
  const Shape& output_;
};

// The first of the largest elements, and of NaNs the first; then which element of the window that is.
std::vector<OnnxValue> max_pool(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const Windows windows(c.node.attributes, c.operands[0].type.shape, c.results[0].shape);
  const OnnxValue padded = windows.padded(o, c.operands[0], -std::numeric_limits<double>::infinity());
  OnnxValue best = windows.elements(o, padded, 0), index = o.scalar(DType::i32, 0);
  const auto is_nan = [&](const OnnxValue& v) { return o.node("IsNaN", {v}, {DType::boolean, v.type.shape}); };
  for (int64_t e = 1; e < windows.count(); ++e) {
    const OnnxValue v = windows.elements(o, padded, e);
    const OnnxValue better =
        o.binary("And", o.unary("Not", o.compare("LessOrEqual", v, best)), o.unary("Not", is_nan(best)));
    best = o.select(better, v, best);
    index = o.select(better, o.scalar(DType::i32, static_cast<double>(e)), index);
  }
  return {best, o.cast(o.expand(index, c.results[1].shape), DType::u8)};
}

std::vector<OnnxValue> max_pool_grad(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const Windows windows(c.node.attributes, c.results[0].shape, c.operands[0].type.shape);
  const OnnxValue index = o.cast(c.operands[1], DType::i32), zero = o.scalar(c.operands[0].type.dtype, 0);
  OnnxValue sum;
  for (int64_t e = 0; e < windows.count(); ++e) {
    const OnnxValue chosen = o.compare("Equal", index, o.scalar(DType::i32, static_cast<double>(e)));
    const OnnxValue part = windows.placed(o, o.select(chosen, c.operands[0], zero), e);
    sum = sum ? o.binary("Add", sum, part) : part;
  }
  return {windows.cropped(o, sum)};
}

OnnxAttributes window_attributes(const Attributes& attributes) {
  const ops::WindowGeometry g = ops::window_geometry(attributes, attributes.ints("window"));
  return {{"kernel_shape", g.window}, {"strides", g.strides}, {"dilations", g.dilations}, {"pads", onnx_pads(g)}};
}

// AveragePool has no dilations before opset 19 and engines no padding as large as a window: a sum of the elements.
OnnxValue window_sum(OnnxBuilder& o, const Windows& windows, const OnnxValue& v) {
  const OnnxValue padded = windows.padded(o, v, 0);
  OnnxValue sum;
  for (int64_t e = 0; e < windows.count(); ++e) {
    const OnnxValue part = windows.elements(o, padded, e);
    sum = sum ? o.binary("Add", sum, part) : part;
  }
  return sum;
}

// 1 / how many elements each window has: [1, out..., 1].
OnnxValue shares(const ExportContext& c, const Shape& input, const Shape& output) {
  const Attributes& attributes = c.node.attributes;
  const ops::WindowGeometry g = ops::window_geometry(attributes, attributes.ints("window"));
  Tensor result(TensorType{DType::f32, output});
  result.type.shape.front() = result.type.shape.back() = 1;
  result = Tensor(result.type);
  size_t at = 0;
  ops::for_each_index(result.type.shape, [&](const Ints& index) {
    int64_t count = 1;
    for (size_t i = 0; i < g.window.size(); ++i) {
      int64_t inside = 0;
      for (int64_t e = 0; e < g.window[i]; ++e) {
        const int64_t position = g.input_position(i, index[i + 1], e);
        inside += (position >= 0 && position < input[i + 1]) || attributes.integer("count_include_pad") != 0;
      }
      count *= inside;
    }
    result.as<float>()[at++] = count == 0 ? 0 : 1 / static_cast<float>(count);
  });
  return c.onnx.constant(result);
}

constexpr int64_t kUnrolled = 64;  // elements of a window that are summed one by one

// A depthwise convolution with ones, over each channel as a sample of its own.
OnnxValue as_samples(OnnxBuilder& o, const OnnxValue& v) {
  const OnnxValue first = channels_first(o, v);
  Shape shape = first.type.shape;
  shape[0] *= std::exchange(shape[1], 1);
  return o.reshape(first, shape);
}

OnnxValue as_channels(OnnxBuilder& o, const OnnxValue& v, int64_t channels) {
  Shape shape = v.type.shape;
  shape[0] /= channels, shape[1] = channels;
  return channels_last(o, o.reshape(v, shape));
}

OnnxValue ones(OnnxBuilder& o, const Attributes& attributes) {
  Shape shape{1, 1};
  const Ints& window = attributes.ints("window");
  shape.insert(shape.end(), window.begin(), window.end());
  Tensor tensor(TensorType{DType::f32, shape});
  std::ranges::fill(tensor.as<float>(), 1);
  return o.constant(tensor);
}

std::vector<OnnxValue> avg_pool(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const Shape &input = c.operands[0].type.shape, &output = c.results[0].shape;
  const Windows windows(c.node.attributes, input, output);
  const OnnxValue share = shares(c, input, output);
  if (windows.count() <= kUnrolled) return {o.binary("Mul", window_sum(o, windows, c.operands[0]), share)};
  const OnnxValue samples = as_samples(o, c.operands[0]);
  TensorType type{DType::f32, {samples.type.shape[0], 1}};
  type.shape.insert(type.shape.end(), output.begin() + 1, output.end() - 1);
  const OnnxValue sums =
      o.node("Conv", {samples, ones(o, c.node.attributes)}, std::move(type), window_attributes(c.node.attributes));
  return {o.binary("Mul", as_channels(o, sums, output.back()), share)};
}

std::vector<OnnxValue> avg_pool_grad(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const Shape &input = c.results[0].shape, &output = c.operands[0].type.shape;
  const OnnxValue dy = o.binary("Mul", c.operands[0], shares(c, input, output));
  OnnxAttributes attributes = window_attributes(c.node.attributes);
  const ops::WindowGeometry g = ops::window_geometry(c.node.attributes, c.node.attributes.ints("window"));
  attributes.emplace_back("output_padding", output_padding(g, input, output));
  const OnnxValue samples = as_samples(o, dy);
  TensorType type{DType::f32, {samples.type.shape[0], 1}};
  type.shape.insert(type.shape.end(), input.begin() + 1, input.end() - 1);
  const OnnxValue dx = o.node("ConvTranspose", {samples, ones(o, c.node.attributes)}, std::move(type), attributes);
  return {as_channels(o, dx, input.back())};
}

// [window..., C] as a filter of C groups: [C, 1, window...].
OnnxValue grouped_filter(OnnxBuilder& o, const OnnxValue& w) {
  Shape shape = w.type.shape;
  shape.insert(shape.begin(), 1);
  const OnnxValue first = channels_first(o, o.reshape(w, shape));  // [1, C, window...]
  shape = first.type.shape;
  std::swap(shape[0], shape[1]);
  return o.reshape(first, shape);
}

// Operator `name` over operand 0 and the filter.
std::vector<OnnxValue> depthwise_as(const ExportContext& c, const char* name, OnnxAttributes attributes) {
  OnnxBuilder& o = c.onnx;
  const Shape& shape = c.results[0].shape;
  attributes.emplace_back("group", shape.back());
  TensorType type{c.results[0].dtype, {shape.front(), shape.back()}};
  type.shape.insert(type.shape.end(), shape.begin() + 1, shape.end() - 1);
  const OnnxValue x = channels_first(o, c.operands[0]), w = grouped_filter(o, c.operands[1]);
  return {channels_last(o, o.node(name, {x, w}, std::move(type), std::move(attributes)))};
}

std::vector<OnnxValue> depthwise(const ExportContext& c) {
  return depthwise_as(c, "Conv", window_attributes(c.node.attributes));
}

std::vector<OnnxValue> depthwise_data_grad(const ExportContext& c) {
  OnnxAttributes attributes = window_attributes(c.node.attributes);
  const ops::WindowGeometry g = ops::window_geometry(c.node.attributes, c.node.attributes.ints("window"));
  attributes.emplace_back("output_padding", output_padding(g, c.results[0].shape, c.operands[0].type.shape));
  return depthwise_as(c, "ConvTranspose", std::move(attributes));
}

constexpr ExportRow kRows[] = {
    {"max_pool", max_pool},           {"max_pool_grad", max_pool_grad}, {"avg_pool", avg_pool},
    {"avg_pool_grad", avg_pool_grad}, {"depthwise", depthwise},         {"depthwise_data_grad", depthwise_data_grad},
};

}  // namespace

std::span<const ExportRow> window_rows() { return kRows; }

}  // namespace halfstep
