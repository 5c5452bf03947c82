// Contractions: Conv, ConvTranspose, Gemm, MatMul.
#include <algorithm>

#include "base/checked.h"
#include "frontend/import/operators.h"
#include "frontend/operators/matrix_product.h"
#include "frontend/operators/resampling.h"
#include "frontend/operators/window.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

Value scaled(Builder& b, Value x, double factor) { return factor == 1 ? x : b.mul(x, factor); }

// Exporters write a bias of zeros for a layer without one.
bool is_zero(NodeContext& c, size_t i) {
  if (!c.is_constant(i)) return false;
  const std::vector<double> values = c.constant(i, "bias").values();
  return std::all_of(values.begin(), values.end(), [](double v) { return v == 0; });
}

int64_t product(const Shape& shape, size_t from, size_t to) {
  int64_t result = 1;
  for (size_t i = from; i < to; ++i) result *= shape[i];
  return result;
}

Value with_channel_bias(NodeContext& c, Value y, int64_t channels, const Initializer& fresh) {
  if (!c.has_operand(2) || is_zero(c, 2)) return y;
  c.initialise(c.operand(2), fan_in_uniform(fresh.fan_in, Initializer::convolution_bias));
  if (c.shape(2) != Shape{channels})
    c.fail("bias " + to_string(Shape{channels}) + " expected, found " + to_string(c.shape(2)));
  return c.b.add(y, c.operand(2));
}

std::vector<Value> import_conv(NodeContext& c) { return {convolution(c)}; }
std::vector<Value> import_gemm(NodeContext& c) { return {general_product(c)}; }

// The whole gradient of a convolution without padding, cut or padded to `output`.
Value transposed_convolution(Builder& b, Value x, Value w, const TransposedWindow& t, int64_t groups) {
  const Window& g = t.window;
  const size_t n = t.output.size();
  const Shape shape = b.shape(x);
  Ints low(n + 2, 0), high(n + 2, 0);
  Shape whole(n);
  bool direct = true;
  for (size_t i = 0; i < n; ++i) {
    const int64_t reach = (g.size[i] - 1) * g.dilations[i] + 1;
    whole[i] = (shape[i + 1] - 1) * g.strides[i] + reach;
    const int64_t padded = t.output[i] + g.pads_begin[i] + g.pads_end[i];
    direct &= g.pads_begin[i] >= 0 && g.pads_end[i] >= 0 && padded >= whole[i] && padded < whole[i] + g.strides[i];
    low[i + 1] = -g.pads_begin[i], high[i + 1] = t.output[i] + g.pads_begin[i] - whole[i];
  }
  Attributes attributes{{"strides", g.strides}, {"dilations", g.dilations}, {"groups", groups}};
  attributes.set("spatial", direct ? t.output : whole);
  if (direct) attributes.set("pads_begin", g.pads_begin), attributes.set("pads_end", g.pads_end);
  const Value y = b.call("convolution_data_grad", {w, x}, std::move(attributes));
  return direct ? y : pad_or_crop(b, y, std::move(low), std::move(high), 0);
}

std::vector<Value> import_conv_transpose(NodeContext& c) {
  const Shape x = c.shape(0), w = c.shape(1), spatial = spatial_shape(c, x);
  const int64_t groups = c.integer("group", 1);
  if (w.size() != x.size() || groups <= 0 || w[0] != x[1] || w[0] % groups != 0)
    c.fail("x " + to_string(x) + " and w " + to_string(w) + " in " + std::to_string(groups) + " groups do not fit");
  const Shape window(w.begin() + 2, w.end());
  if (c.int_list("kernel_shape", window) != window)
    c.fail("kernel_shape " + to_string(c.int_list("kernel_shape")) + " and w " + to_string(w) + " differ");
  const TransposedWindow t = read_transposed_window(c, spatial, window);
  // Counted as for a convolution, along the second axis of the filter.
  const int64_t reach = product(window, 0, window.size());
  const Initializer fresh = fan_in_uniform(product(w, 1, w.size()), Initializer::convolution, w[0] * reach);
  c.initialise(c.operand(1), fresh);
  const Value y =
      transposed_convolution(c.b, to_channels_last(c.b, c.operand(0)), to_channels_last(c.b, c.operand(1)), t, groups);
  return {to_channels_first(c.b, with_channel_bias(c, y, w[1] * groups, fresh))};
}

// Column [N, C * block, L] is what each of L windows adds to the image: a transposed convolution, each of whose filters
// is one at one element of the block.
std::vector<Value> import_col2im(NodeContext& c) {
  Builder& b = c.b;
  const Shape x = c.shape(0);
  const Ints image = c.ints(1, "image_shape"), block = c.ints(2, "block_shape");
  if (block.empty() || block.size() > 3 || image.size() != block.size() || x.size() != 3)
    c.fail("[N, C * block, L] and as many image as block axes, 1 to 3, expected; found " + to_string(x) + ", image " +
           to_string(image) + ", block " + to_string(block));
  const Window w = read_window(c, image, block, CeilMode::absent);
  Shape columns{x[0], x[1]}, filter{x[1], 1};
  for (size_t i = 0; i < image.size(); ++i) {
    const int64_t reach = (block[i] - 1) * w.dilations[i] + 1;
    columns.push_back((image[i] + w.pads_begin[i] + w.pads_end[i] - reach) / w.strides[i] + 1);
    filter.push_back(block[i]);
  }
  const int64_t elements = checked_element_count(block, "block_shape");
  if (elements == 0 || x[1] % elements != 0 || checked_element_count(columns, "columns") != x[0] * x[1] * x[2])
    c.fail(to_string(x) + " does not hold the columns of an image " + to_string(image) + " in blocks of " +
           to_string(block));
  checked_element_count(filter, "filters");
  Tensor one_hot = table_of({DType::f32, filter});
  for (int64_t i = 0; i < x[1]; ++i) one_hot.set(i * elements + i % elements, 1);
  const Value y = transposed_convolution(b, to_channels_last(b, b.reshape(c.operand(0), columns)),
                                         to_channels_last(b, b.constant(one_hot)), {w, image}, x[1] / elements);
  return {to_channels_first(b, y)};
}

// The leading axes of two operands, broadcast together.
Shape joint_batch(NodeContext& c, const Shape& x, const Shape& y) {
  Shape joint(std::max(x.size(), y.size()) - 2, 1);
  for (size_t from_end = 3; from_end <= joint.size() + 2; ++from_end) {
    const int64_t a = from_end <= x.size() ? x[x.size() - from_end] : 1,
                  b = from_end <= y.size() ? y[y.size() - from_end] : 1;
    if (a != b && a != 1 && b != 1) c.fail("shapes " + to_string(x) + " and " + to_string(y) + " do not broadcast");
    joint[joint.size() + 2 - from_end] = a == 1 ? b : a;
  }
  return joint;
}

// [batch..., m, k] with any leading axes as one batch of matrices.
Value as_batch(Builder& b, Value v, Shape batch) {
  const Shape shape = b.shape(v);
  const int64_t count = product(batch, 0, batch.size()), rows = shape[shape.size() - 2], columns = shape.back();
  batch.insert(batch.end(), {rows, columns});
  return b.reshape(b.broadcast(v, batch), {count, rows, columns});
}

std::vector<Value> import_matmul(NodeContext& c) {
  if (c.shape(0).empty() || c.shape(1).empty()) c.fail("a scalar operand has no matrix product");
  const size_t x_rank = c.shape(0).size(), y_rank = c.shape(1).size();
  c.align_broadcast(2);
  c.align({x_rank - 1, y_rank == 1 ? 0 : y_rank - 2});
  return {matrix_product(c, c.operand(0), c.operand(1))};
}

const std::vector<OnnxOperator> kRows{
    {"Col2Im", {18}, 3, 3, import_col2im, "1 to 3 spatial axes; shapes must be known when the model is compiled"},
    {"Conv", {1}, 2, 3, import_conv, "1 to 3 spatial axes"},
    {"ConvTranspose", {1}, 2, 3, import_conv_transpose, "1 to 3 spatial axes"},
    {"Gemm", {7, 11}, 2, 3, import_gemm},
    {"MatMul", {1}, 2, 2, import_matmul, "floating types only"},
};

}  // namespace

Value convolution(NodeContext& c) {
  const Shape x_shape = c.shape(0), w_shape = c.shape(1), spatial = spatial_shape(c, x_shape);
  if (w_shape.size() != x_shape.size())
    c.fail("x " + to_string(x_shape) + " and w " + to_string(w_shape) + " differ in rank");
  const Shape window(w_shape.begin() + 2, w_shape.end());
  if (c.int_list("kernel_shape", window) != window)
    c.fail("kernel_shape " + to_string(c.int_list("kernel_shape")) + " and w " + to_string(w_shape) + " differ");
  const Window w = read_window(c, spatial, window, CeilMode::absent);
  const Value y = c.b.call("convolution", {to_channels_last(c.b, c.operand(0)), to_channels_last(c.b, c.operand(1))},
                           {{"strides", w.strides},
                            {"pads_begin", w.pads_begin},
                            {"pads_end", w.pads_end},
                            {"dilations", w.dilations},
                            {"groups", c.integer("group", 1)}});
  const Initializer fresh = fan_in_uniform(product(w_shape, 1, w_shape.size()), Initializer::convolution,
                                           w_shape[0] * product(window, 0, window.size()));
  c.initialise(c.operand(1), fresh);
  return to_channels_first(c.b, with_channel_bias(c, y, w_shape[0], fresh));
}

Value general_product(NodeContext& c) {
  const int64_t transpose_a = c.integer("transA", 0) != 0, transpose_b = c.integer("transB", 0) != 0;
  const double alpha = c.number("alpha", 1), beta = c.number("beta", 1);
  const Shape b_shape = c.shape(1);
  if (c.shape(0).size() != 2 || b_shape.size() != 2)
    c.fail("two matrices expected, found " + to_string(c.shape(0)) + " and " + to_string(b_shape));
  const Value product =
      c.b.matmul(c.operand(0), c.operand(1), {{"transpose_a", transpose_a}, {"transpose_b", transpose_b}});
  const int64_t fan_in = b_shape[transpose_b ? 1 : 0];
  c.initialise(c.operand(1), fan_in_uniform(fan_in, Initializer::layer, b_shape[transpose_b ? 0 : 1]));
  const Value y = scaled(c.b, product, alpha);
  if (!c.has_operand(2)) return y;
  c.initialise(c.operand(2), fan_in_uniform(fan_in, Initializer::layer_bias));
  return c.b.add(y, c.b.broadcast(scaled(c.b, c.operand(2), beta), c.b.shape(y)));
}

Value matrix_product(NodeContext& c, Value x, Value y) {
  Builder& b = c.b;
  const size_t x_rank = b.shape(x).size(), y_rank = b.shape(y).size();
  c.initialise(y, fan_in_uniform(b.shape(y)[y_rank == 1 ? 0 : y_rank - 2], Initializer::layer,
                                 y_rank == 1 ? 1 : b.shape(y)[y_rank - 1]));
  if (x_rank == 1) x = b.reshape(x, {1, b.shape(x)[0]});
  if (y_rank == 1) y = b.reshape(y, {b.shape(y)[0], 1});
  const Shape xs = b.shape(x), ys = b.shape(y);
  if (xs.back() != ys[ys.size() - 2])
    c.fail("inner dimensions differ: " + std::to_string(xs.back()) + " and " + std::to_string(ys[ys.size() - 2]));
  Shape result(xs.begin(), xs.end() - 1);
  Value z;
  if (ys.size() == 2) {
    z = b.matmul(b.reshape(x, {product(xs, 0, xs.size() - 1), xs.back()}), y);
  } else {
    result = joint_batch(c, xs, ys);
    z = b.matmul(as_batch(b, x, result), as_batch(b, y, result));
    result.push_back(xs[xs.size() - 2]);
  }
  if (x_rank == 1) result.pop_back();
  if (y_rank > 1) result.push_back(ys.back());
  return b.reshape(z, result);
}

std::span<const OnnxOperator> contraction_operators() { return kRows; }

}  // namespace halfstep
