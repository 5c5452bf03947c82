// Contractions: matrix product and convolution with its two gradients. They accumulate in f32 and round once.
#include "base/checked.h"
#include "ir/ops/families.h"
#include "ir/views.h"

namespace halfstep {
namespace {

using ops::expect;

// The element type of the result: the attribute `result`, "" standing for the operands' own.
DType result_type(const Attributes& attributes, DType operand) {
  const std::string& wanted = attributes.text("result");
  if (wanted.empty()) return operand;
  const std::optional<DType> type = parse_dtype(wanted);
  expect(type && (*type == operand || *type == DType::f32),
         "result '" + wanted + "' is neither the operand type nor f32");
  return *type;
}

void expect_same_floating(const TypeContext& c) {
  expect(
      is_floating(c.operand(0).dtype) && c.operand(0).dtype == c.operand(1).dtype,
      "floating operands of one type expected, found " + to_string(c.operand(0)) + " and " + to_string(c.operand(1)));
}

struct MatmulShape {
  int64_t batch, m, n, k;
};

MatmulShape matmul_shape(const TensorType& a, const TensorType& b, const Attributes& attributes) {
  const size_t rank = a.shape.size();
  expect((rank == 2 || rank == 3) && b.shape.size() == rank && (rank == 2 || a.shape[0] == b.shape[0]),
         "two matrices, or two equal batches of them expected, found " + to_string(a) + " and " + to_string(b));
  const bool ta = attributes.integer("transpose_a"), tb = attributes.integer("transpose_b");
  const int64_t k = a.shape[rank - (ta ? 2 : 1)], kb = b.shape[rank - (tb ? 1 : 2)];
  expect(k == kb, "inner dimensions differ: " + std::to_string(k) + " and " + std::to_string(kb));
  return {rank == 3 ? a.shape[0] : 1, a.shape[rank - (ta ? 1 : 2)], b.shape[rank - (tb ? 2 : 1)], k};
}

// Whether a product has its optional operand number `i`.
template <typename Operands>
bool has_operand(const Operands& operands, size_t i) {
  return operands.size() > i && operands[i];
}

std::vector<TensorType> matmul_type(const TypeContext& c) {
  expect_same_floating(c);
  const MatmulShape s = matmul_shape(c.operand(0), c.operand(1), c.attributes);
  const DType type = result_type(c.attributes, c.operand(0).dtype);
  for (const size_t i : {kProductBias, kProductAddend}) {
    if (!has_operand(c.operands, i)) continue;
    const TensorType expected{type, i == kProductBias ? Shape{s.n} : Shape{s.m, s.n}};
    expect(c.operand(0).shape.size() == 2, "something is added to a product of two matrices, this is a batch of them");
    expect(c.operand(i) == expected, to_string(expected) + " expected to be added, found " + to_string(c.operand(i)));
  }
  if (c.operand(0).shape.size() == 3) return {{type, {s.batch, s.m, s.n}}};
  return {{type, {s.m, s.n}}};
}

std::vector<TensorType> full_matmul_type(const TypeContext& c) {
  expect_same_floating(c);
  const MatmulShape s = matmul_shape(c.operand(0), c.operand(1), c.attributes);
  return {{c.operand(0).dtype, c.operand(0).shape.size() == 3 ? Shape{s.batch, s.m, s.n} : Shape{s.m, s.n}}};
}

void evaluate_matmul(const EvaluateContext& c) {
  const MatmulShape s = matmul_shape(c.types[0], c.types[1], c.node.attributes);
  const bool ta = c.node.attributes.integer("transpose_a"), tb = c.node.attributes.integer("transpose_b"),
             relu = c.node.attributes.integer("rectified");
  const std::vector<double>&a = *c.operands[0], &b = *c.operands[1];
  const auto added = [&](size_t operand, int64_t at) {
    return has_operand(c.operands, operand) ? (*c.operands[operand])[static_cast<size_t>(at)] : 0;
  };
  size_t at = 0;
  for (int64_t i = 0; i < s.batch; ++i)
    for (int64_t row = 0; row < s.m; ++row)
      for (int64_t column = 0; column < s.n; ++column) {
        double sum = added(kProductBias, column) + added(kProductAddend, row * s.n + column);
        for (int64_t k = 0; k < s.k; ++k) {
          const int64_t in_a = ta ? k * s.m + row : row * s.k + k, in_b = tb ? column * s.k + k : k * s.n + column;
          sum += a[static_cast<size_t>(i * s.m * s.k + in_a)] * b[static_cast<size_t>(i * s.k * s.n + in_b)];
        }
        c.results[0][at++] = relu && sum < 0 ? 0 : sum;
      }
}

Attributes transposed(bool a, bool b) { return {{"transpose_a", int64_t{a}}, {"transpose_b", int64_t{b}}}; }

std::vector<Value> matmul_vjp(const VjpContext& c) {
  Builder& builder = c.builder;
  const bool ta = c.node.attributes.integer("transpose_a"), tb = c.node.attributes.integer("transpose_b");
  Value sum = c.cotangents[0];
  if (c.node.attributes.integer("rectified") != 0) {
    const Value y = c.results[0];
    sum = builder.select(builder.call("less", {builder.constant_like(y, 0), y}), sum, builder.constant_like(sum, 0));
  }
  const Value a = c.operands[0], b = c.operands[1], dy = builder.cast(sum, builder.dtype(a));
  std::vector<Value> cotangents{
      ta ? builder.matmul(b, dy, transposed(tb, true)) : builder.matmul(dy, b, transposed(false, !tb)),
      tb ? builder.matmul(dy, a, transposed(true, ta)) : builder.matmul(a, dy, transposed(!ta, false))};
  for (size_t i = kProductBias; i < c.operands.size(); ++i)
    cotangents.push_back(c.operands[i] ? builder.sum_to(sum, builder.shape(c.operands[i])) : Value{});
  return cotangents;
}

// The product with the operands that it has, and its gradients, whatever the operands' class would be.
std::vector<Value> full_matmul_vjp(const VjpContext& c) {
  const auto product = [&](Value a, Value b, Attributes attributes) {
    return c.builder.call("full_matmul", {a, b}, std::move(attributes));
  };
  const bool ta = c.node.attributes.integer("transpose_a"), tb = c.node.attributes.integer("transpose_b");
  const Value a = c.operands[0], b = c.operands[1], dy = c.cotangents[0];
  return {ta ? product(b, dy, transposed(tb, true)) : product(dy, b, transposed(false, !tb)),
          tb ? product(dy, a, transposed(true, ta)) : product(a, dy, transposed(!ta, false))};
}

std::vector<Value> expand_full_matmul(const ExpandContext& c) {
  return {c.builder.matmul(c.operands[0], c.operands[1], c.node.attributes)};
}

std::optional<OperandAxes> resize_matmul(const Node& node, size_t axis) {
  const size_t rank = node.results[0].shape.size();
  if (axis + 2 < rank) return OperandAxes{axis, axis};
  const bool rows = axis + 2 == rank, transposed = node.attributes.integer(rows ? "transpose_a" : "transpose_b") != 0;
  const size_t own = transposed == rows ? rank - 1 : rank - 2;
  OperandAxes axes = rows ? OperandAxes{own, std::nullopt} : OperandAxes{std::nullopt, own};
  if (node.operands.size() > kProductBias) axes.push_back(rows ? std::nullopt : std::optional<size_t>(0));
  if (node.operands.size() > kProductAddend) axes.emplace_back(axis);
  return axes;
}

double matmul_cost(const Node& node, std::span<const TensorType> types) {
  const MatmulShape s = matmul_shape(types[0], types[1], node.attributes);
  return 2.0 * static_cast<double>(s.batch) * static_cast<double>(s.m) * static_cast<double>(s.n) *
         static_cast<double>(s.k);
}

// The three tensors of a convolution: x [N, spatial..., C], w [O, window..., C / groups], y [N, out..., O].
struct ConvolutionShapes {
  Shape x, w, y;
};

Shape window_of(const Shape& w) {
  expect(w.size() >= 3, "[O, window..., I / groups] expected, found " + to_string(w));
  return Shape(w.begin() + 1, w.end() - 1);
}

Shape output_shape(const Shape& x, const Shape& w, const Attributes& attributes) {
  const Shape spatial = ops::spatial_of(x), window = window_of(w);
  const int64_t groups = attributes.integer("groups");
  expect(spatial.size() == window.size() && spatial.size() <= 3,
         "x " + to_string(x) + " and w " + to_string(w) + " differ in rank");
  expect(groups > 0, "groups must be positive");
  const int64_t taken = checked_mul(w.back(), groups, "channels");
  expect(x.back() == taken && w.front() % groups == 0,
         "x " + to_string(x) + " has " + std::to_string(x.back()) + " channels; w " + to_string(w) + " in " +
             std::to_string(groups) + " groups takes " + std::to_string(taken));
  const ops::WindowGeometry g = ops::window_geometry(attributes, window);
  Shape y{x.front()};
  for (size_t i = 0; i < spatial.size(); ++i) y.push_back(g.output_size(i, spatial[i]));
  y.push_back(w.front());
  return y;
}

void expect_gradient_shape(const ConvolutionShapes& s, const Attributes& attributes) {
  const Shape y = output_shape(s.x, s.w, attributes);
  expect(y == s.y, "dy " + to_string(s.y) + " expected as " + to_string(y));
}

ConvolutionShapes data_grad_shapes(const Shape& w, const Shape& dy, const Attributes& attributes) {
  Shape x{dy.front()};
  const Ints& spatial = attributes.ints("spatial");
  x.insert(x.end(), spatial.begin(), spatial.end());
  x.push_back(checked_mul(w.back(), attributes.integer("groups"), "channels"));
  return {x, w, dy};
}

ConvolutionShapes filter_grad_shapes(const Shape& x, const Shape& dy, const Attributes& attributes) {
  Shape w{dy.back()};
  const Ints& window = attributes.ints("window");
  w.insert(w.end(), window.begin(), window.end());
  expect(attributes.integer("groups") > 0, "groups must be positive");
  w.push_back(x.back() / attributes.integer("groups"));
  return {x, w, dy};
}

std::vector<TensorType> convolution_type(const TypeContext& c) {
  expect_same_floating(c);
  return {{result_type(c.attributes, c.operand(0).dtype),
           output_shape(c.operand(0).shape, c.operand(1).shape, c.attributes)}};
}

std::vector<TensorType> data_grad_type(const TypeContext& c) {
  expect_same_floating(c);
  const ConvolutionShapes s = data_grad_shapes(c.operand(0).shape, c.operand(1).shape, c.attributes);
  expect_gradient_shape(s, c.attributes);
  return {{result_type(c.attributes, c.operand(0).dtype), s.x}};
}

std::vector<TensorType> filter_grad_type(const TypeContext& c) {
  expect_same_floating(c);
  const ConvolutionShapes s = filter_grad_shapes(c.operand(0).shape, c.operand(1).shape, c.attributes);
  expect_gradient_shape(s, c.attributes);
  return {{result_type(c.attributes, c.operand(0).dtype), s.w}};
}

// visit(x index, w index, y index) for every product a convolution sums.
template <typename Visit>
void for_each_product(const ConvolutionShapes& s, const Attributes& attributes, Visit&& visit) {
  const ops::WindowGeometry g = ops::window_geometry(attributes, window_of(s.w));
  const std::vector<int64_t> xs = row_major_strides(s.x), ws = row_major_strides(s.w);
  const int64_t channels = s.w.back(), per_group = s.w.front() / attributes.integer("groups");
  size_t y_at = 0;
  ops::for_each_index(s.y, [&](const Ints& index) {
    const int64_t out_channel = index.back();
    ops::for_each_index(g.window, [&](const Ints& w) {
      int64_t x_at = index.front() * xs.front() + out_channel / per_group * channels, w_at = out_channel * ws.front();
      for (size_t i = 0; i < w.size(); ++i) {
        const int64_t position = g.input_position(i, index[i + 1], w[i]);
        if (position < 0 || position >= s.x[i + 1]) return;
        x_at += position * xs[i + 1], w_at += w[i] * ws[i + 1];
      }
      for (int64_t channel = 0; channel < channels; ++channel)
        visit(static_cast<size_t>(x_at + channel), static_cast<size_t>(w_at + channel), y_at);
    });
    ++y_at;
  });
}

void evaluate_convolution(const EvaluateContext& c) {
  const std::vector<double>&x = *c.operands[0], &w = *c.operands[1];
  std::vector<double>& y = c.results[0];
  std::fill(y.begin(), y.end(), 0.0);
  for_each_product({c.types[0].shape, c.types[1].shape, c.node.results[0].shape}, c.node.attributes,
                   [&](size_t i, size_t j, size_t k) { y[k] += x[i] * w[j]; });
}

void evaluate_data_grad(const EvaluateContext& c) {
  const std::vector<double>&w = *c.operands[0], &dy = *c.operands[1];
  std::vector<double>& dx = c.results[0];
  std::fill(dx.begin(), dx.end(), 0.0);
  for_each_product({c.node.results[0].shape, c.types[0].shape, c.types[1].shape}, c.node.attributes,
                   [&](size_t i, size_t j, size_t k) { dx[i] += dy[k] * w[j]; });
}

void evaluate_filter_grad(const EvaluateContext& c) {
  const std::vector<double>&x = *c.operands[0], &dy = *c.operands[1];
  std::vector<double>& dw = c.results[0];
  std::fill(dw.begin(), dw.end(), 0.0);
  for_each_product({c.types[0].shape, c.node.results[0].shape, c.types[1].shape}, c.node.attributes,
                   [&](size_t i, size_t j, size_t k) { dw[j] += dy[k] * x[i]; });
}

std::vector<Value> convolution_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value x = c.operands[0], w = c.operands[1], dy = b.cast(c.cotangents[0], b.dtype(x));
  Attributes data = c.node.attributes, filter = c.node.attributes;
  data.set("result", std::string()), filter.set("result", std::string());
  data.set("spatial", ops::spatial_of(b.shape(x)));
  filter.set("window", window_of(b.shape(w)));
  return {b.call("convolution_data_grad", {w, dy}, std::move(data)),
          b.call("convolution_filter_grad", {x, dy}, std::move(filter))};
}

// The attributes of a convolution of the same geometry as the gradient `node`.
Attributes forward_attributes(const Node& node) {
  Attributes forward;
  for (const auto& [name, value] : node.attributes)
    if (name != "spatial") forward.set(name, value);
  forward.set("result", std::string());
  return forward;
}

// A transposed convolution: linear in w and in dy.
std::vector<Value> data_grad_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value w = c.operands[0], dy = c.operands[1], cotangent = b.cast(c.cotangents[0], b.dtype(w));
  const Attributes forward = forward_attributes(c.node);
  Attributes filter = forward;
  filter.set("window", window_of(b.shape(w)));
  return {b.call("convolution_filter_grad", {cotangent, dy}, std::move(filter)),
          b.call("convolution", {cotangent, w}, forward)};
}

// 2 * |y| * window * C / groups, for all three kinds.
double product_cost(const Shape& w, const Shape& y) {
  return 2.0 * static_cast<double>(TensorType{DType::u8, y}.element_count()) *
         static_cast<double>(TensorType{DType::u8, w}.element_count()) / static_cast<double>(w.front());
}

constexpr std::string_view kSecondOrder = "second derivatives are not built";
const AttributeSpec kResult{"result", std::string(), AttributeSpec::defaulted};

std::vector<AttributeSpec> convolution_attributes(std::vector<AttributeSpec> more) {
  std::vector<AttributeSpec> attributes{
      {"strides", Ints(), AttributeSpec::defaulted},    {"pads_begin", Ints(), AttributeSpec::defaulted},
      {"pads_end", Ints(), AttributeSpec::defaulted},   {"dilations", Ints(), AttributeSpec::defaulted},
      {"groups", int64_t{1}, AttributeSpec::defaulted}, kResult};
  attributes.insert(attributes.end(), more.begin(), more.end());
  return attributes;
}

const std::vector<Op> kOps{
    {.name = "matmul",
     .onnx = "MatMul",
     .operands = {{"a"}, {"b"}, {"bias", OperandSpec::optional}, {"addend", OperandSpec::optional}},
     .attributes = {{"transpose_a", int64_t{0}, AttributeSpec::defaulted},
                    {"transpose_b", int64_t{0}, AttributeSpec::defaulted},
                    {"rectified", int64_t{0}, AttributeSpec::defaulted},
                    kResult},
     .type = matmul_type,
     .precision = Precision::low,
     .vjp = matmul_vjp,
     .kernel = KernelKind::gemm,
     .resize = resize_matmul,
     .evaluate = evaluate_matmul,
     .cost = matmul_cost},
    {.name = "full_matmul",
     .operands = {{"a"}, {"b"}},
     .attributes = {{"transpose_a", int64_t{0}, AttributeSpec::defaulted},
                    {"transpose_b", int64_t{0}, AttributeSpec::defaulted}},
     .type = full_matmul_type,
     .precision = Precision::full,
     .vjp = full_matmul_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_full_matmul},
    {.name = "convolution",
     .onnx = "Conv",
     .operands = {{"x"}, {"w"}},
     .attributes = convolution_attributes({}),
     .type = convolution_type,
     .precision = Precision::low,
     .vjp = convolution_vjp,
     .kernel = KernelKind::convolution,
     .resize = ops::resize_batch,
     .evaluate = evaluate_convolution,
     .cost = [](const Node& node,
                std::span<const TensorType> t) { return product_cost(t[1].shape, node.results[0].shape); }},
    {.name = "convolution_data_grad",
     .onnx = "ConvTranspose",
     .operands = {{"w"}, {"dy"}},
     .attributes = convolution_attributes({{"spatial", Ints()}}),
     .type = data_grad_type,
     .precision = Precision::low,
     .vjp = data_grad_vjp,
     .kernel = KernelKind::convolution,
     .gradient = Gradient::data,
     .evaluate = evaluate_data_grad,
     .cost = [](const Node&, std::span<const TensorType> t) { return product_cost(t[0].shape, t[1].shape); }},
    {.name = "convolution_filter_grad",
     .operands = {{"x"}, {"dy"}},
     .attributes = convolution_attributes({{"window", Ints()}}),
     .type = filter_grad_type,
     .precision = Precision::low,
     .not_differentiable = kSecondOrder,
     .kernel = KernelKind::convolution,
     .gradient = Gradient::filter,
     .evaluate = evaluate_filter_grad,
     .cost = [](const Node& node,
                std::span<const TensorType> t) { return product_cost(node.results[0].shape, t[1].shape); }},
};

}  // namespace

std::span<const Op> contraction_ops() { return kOps; }

}  // namespace halfstep
