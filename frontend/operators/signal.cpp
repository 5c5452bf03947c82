// Signals: Fourier transforms as products with a matrix of cosines and sines, windows, mel filters. All of it stays in
// f32 whatever autocast lowers.
#include <cmath>
#include <numbers>
#include <numeric>

#include "frontend/import/indices.h"
#include "frontend/import/operators.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;
constexpr int64_t kLargestMatrix = int64_t{1} << 25;  // elements
constexpr int64_t kLongestWindow = int64_t{1} << 24;

DType output_type(NodeContext& c) {
  const auto wanted = static_cast<int32_t>(c.integer("output_datatype", 1));
  const std::optional<DType> type = element_type(wanted);
  if (!type || *type == DType::boolean) c.fail("elements of type " + element_type_name(wanted) + " are not supported");
  return *type;
}

int64_t whole_number(NodeContext& c, size_t i, const std::string& what) {
  const Ints values = c.ints(i, what);
  if (values.size() != 1) c.fail("operand " + what + ": one integer expected, found " + to_string(c.shape(i)));
  return values[0];
}

// ---- windows ----

// sum of weights[i] * cos(i * angle) over one turn.
std::vector<Value> cosine_window(NodeContext& c, const std::vector<double>& weights) {
  const DType type = output_type(c);
  const int64_t size = whole_number(c, 0, "size"), turn = c.integer("periodic", 1) != 0 ? size : size - 1;
  if (size < 0 || size > kLongestWindow || (size > 0 && turn == 0))
    c.fail("no such window has " + std::to_string(size) + " elements");
  Tensor window = table_of({type, {size}});
  for (int64_t i = 0; i < window.type.element_count(); ++i) {
    double sum = 0;
    for (size_t k = 0; k < weights.size(); ++k)
      sum += weights[k] * std::cos(kTurn * static_cast<double>(k) * static_cast<double>(i) / static_cast<double>(turn));
    window.set(i, sum);
  }
  return {c.b.constant(window)};
}

std::vector<Value> import_hann(NodeContext& c) { return cosine_window(c, {0.5, -0.5}); }
std::vector<Value> import_hamming(NodeContext& c) { return cosine_window(c, {25.0 / 46, -21.0 / 46}); }
std::vector<Value> import_blackman(NodeContext& c) { return cosine_window(c, {0.42, -0.5, 0.08}); }

// ---- Fourier transforms ----

struct Transform {
  int64_t length;   // of the transform
  int64_t given;    // elements of the operand that count; the others are zero
  int64_t results;  // elements of the result
  int64_t parts;    // 1: the operand is real, 2: it is complex
  bool inverse = false, onesided = false;
  std::vector<double> window = {};  // of the operand; empty: ones

  bool real_result() const { return inverse && onesided; }
  int64_t result_parts() const { return real_result() ? 1 : 2; }
};

// [given * parts, results * result parts]. Products of positions are reduced before they become angles.
Tensor fourier_matrix(NodeContext& c, const Transform& t) {
  const int64_t rows = t.given * t.parts, columns = t.results * t.result_parts();
  if (columns > 0 && rows > kLargestMatrix / columns)
    c.fail("a transform of " + std::to_string(t.length) + " elements is too long");
  Tensor matrix(TensorType{DType::f32, {rows, columns}});
  for (int64_t i = 0; i < t.given; ++i) {
    double weight = t.inverse ? 1 / static_cast<double>(t.length) : 1;
    if (t.real_result() && i != 0 && 2 * i != t.length) weight *= 2;  // and its conjugate
    if (!t.window.empty()) weight *= t.window[static_cast<size_t>(i)];
    for (int64_t k = 0; k < t.results; ++k) {
      const int64_t turned = i * k % t.length;
      const double angle = kTurn * static_cast<double>(turned) / static_cast<double>(t.length);
      const double real = 2 * turned == t.length ? -weight : weight * std::cos(angle);
      const double imaginary = 2 * turned == t.length ? 0 : weight * (t.inverse ? std::sin(angle) : -std::sin(angle));
      const auto set = [&](int64_t part, int64_t result_part, double value) {
        matrix.set((i * t.parts + part) * columns + k * t.result_parts() + result_part, value);
      };
      set(0, 0, real);
      if (t.parts == 2) set(1, 0, -imaginary);
      if (t.result_parts() == 1) continue;
      set(0, 1, imaginary);
      if (t.parts == 2) set(1, 1, real);
    }
  }
  return matrix;
}

// x [..., elements on `axis`, ..., parts] transformed along `axis`.
Value transformed(NodeContext& c, Value x, size_t axis, const Transform& t) {
  Builder& b = c.b;
  const Value matrix = b.constant(fourier_matrix(c, t));
  Shape shape = b.shape(x);
  Ints starts(shape.size(), 0), limits = shape;
  limits[axis] = t.given;
  Ints order;  // `axis` before the parts
  for (size_t i = 0; i + 1 < shape.size(); ++i)
    if (i != axis) order.push_back(axis_number(i));
  order.insert(order.end(), {axis_number(axis), axis_number(shape.size() - 1)});
  const Value last = permute(b, b.slice(x, starts, limits), order);
  Shape result = b.shape(last);
  int64_t rows = 1;
  for (size_t i = 0; i + 2 < result.size(); ++i) rows *= result[i];
  const Value product = b.call("full_matmul", {b.reshape(last, {rows, t.given * t.parts}), matrix});
  result[result.size() - 2] = t.results, result.back() = t.result_parts();
  Ints back(order.size());
  for (size_t i = 0; i < order.size(); ++i) back[static_cast<size_t>(order[i])] = axis_number(i);
  return permute(b, b.reshape(product, result), back);
}

void check_signal(NodeContext& c, const Shape& shape) {
  if (shape.size() < 2 || (shape.back() != 1 && shape.back() != 2) || !is_floating(c.b.dtype(c.operand(0))))
    c.fail("floating values [..., 1] or [..., 2] expected, found " + to_string(c.b.type(c.operand(0))));
}

std::vector<Value> import_dft(NodeContext& c) {
  const Shape shape = c.shape(0);
  check_signal(c, shape);
  const int64_t from_end = c.version >= 20 ? -2 : 1;
  const int64_t asked = c.version < 20     ? c.integer("axis", from_end)
                        : c.has_operand(2) ? whole_number(c, 2, "axis")
                                           : from_end;
  const size_t axis = c.axis(asked, shape.size());
  if (axis + 1 == shape.size()) c.fail("axis " + std::to_string(asked) + " holds real and imaginary parts");
  Transform t{.length = shape[axis], .given = 0, .results = 0, .parts = shape.back()};
  t.inverse = c.integer("inverse", 0) != 0, t.onesided = c.integer("onesided", 0) != 0;
  if (t.real_result()) t.length = 2 * (shape[axis] - 1);
  if (c.has_operand(1)) t.length = whole_number(c, 1, "dft_length");
  if (t.length <= 0 || t.length > kLargestMatrix) c.fail("a transform of " + std::to_string(t.length) + " elements");
  const int64_t half = t.length / 2 + 1;
  t.given = std::min(shape[axis], t.real_result() ? half : t.length);
  t.results = t.onesided && !t.inverse ? half : t.length;
  return {transformed(c, c.operand(0), axis, t)};
}

// A window that the file holds is a table, not a weight.
std::vector<Value> import_stft(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  check_signal(c, shape);
  if (shape.size() != 3) c.fail("[batch, signal length, parts] expected, found " + to_string(shape));
  const bool windowed = c.has_operand(2);
  int64_t length = windowed ? b.type(c.operand(2)).element_count() : shape[1];
  if (c.has_operand(3)) length = whole_number(c, 3, "frame_length");
  const int64_t step = whole_number(c, 1, "frame_step");
  if (step <= 0 || length <= 0 || length > shape[1])
    c.fail("frames of " + std::to_string(length) + " elements every " + std::to_string(step) + " do not fit into " +
           to_string(shape));
  if (windowed && c.shape(2) != Shape{length})
    c.fail("window " + to_string(Shape{length}) + " expected, found " + to_string(c.shape(2)));
  const int64_t frames = (shape[1] - length) / step + 1;
  if (frames > kLargestMatrix / length)
    c.fail(std::to_string(frames) + " frames of " + std::to_string(length) + " elements are too many");
  Tensor places = table_of({DType::i64, {frames, length}});
  for (int64_t f = 0; f < frames; ++f)
    for (int64_t i = 0; i < length; ++i) places.set(f * length + i, static_cast<double>(f * step + i));
  Value framed = gather(b, c.operand(0), b.constant(places), 1);  // [batch, frames, length, parts]
  Transform t{.length = length, .given = length, .results = length, .parts = shape[2]};
  if (c.integer("onesided", 1) != 0) t.results = length / 2 + 1;
  if (windowed && (c.is_initializer(2) || c.is_constant(2)))
    t.window = c.constant(2, "window").values();
  else if (windowed)
    framed = b.mul(framed, b.reshape(c.operand(2), {length, 1}));
  return {transformed(c, framed, 2, t)};
}

// ---- mel filters ----

std::vector<Value> import_mel_weights(NodeContext& c) {
  const DType type = output_type(c);
  const int64_t filters = whole_number(c, 0, "num_mel_bins"), length = whole_number(c, 1, "dft_length"),
                rate = whole_number(c, 2, "sample_rate"), bins = length / 2 + 1;
  const double low = c.number(3, "lower_edge_hertz"), high = c.number(4, "upper_edge_hertz");
  if (filters <= 0 || length <= 0 || rate <= 0 || !(low >= 0) || !(high >= low) || filters > kLargestMatrix / bins)
    c.fail("no filters of such a number, length, rate and edges");
  const auto mel = [](double hertz) { return 2595 * std::log1p(hertz / 700) / std::numbers::ln10; };
  const double step = (mel(high) - mel(low)) / static_cast<double>(filters + 2);
  const auto edge = [&](int64_t i) {
    const double hertz = 700 * std::expm1((mel(low) + static_cast<double>(i) * step) / 2595 * std::numbers::ln10);
    const double bin = std::floor((static_cast<double>(length) + 1) * hertz / static_cast<double>(rate));
    if (!(bin >= 0 && bin < static_cast<double>(bins)))
      c.fail("filter edge " + std::to_string(hertz) + " Hz lies beyond half the sample rate " + std::to_string(rate));
    return static_cast<int64_t>(bin);
  };
  Tensor weights = table_of({type, {bins, filters}});
  for (int64_t i = 0; i < filters; ++i) {
    const int64_t left = edge(i), peak = edge(i + 1), right = edge(i + 2);
    const auto set = [&](int64_t bin, double weight) { weights.set(bin * filters + i, weight); };
    if (peak == left) set(peak, 1);
    for (int64_t j = left; peak > left && j <= peak; ++j)
      set(j, static_cast<double>(j - left) / static_cast<double>(peak - left));
    for (int64_t j = peak; j < right; ++j) set(j, static_cast<double>(right - j) / static_cast<double>(right - peak));
  }
  return {c.b.constant(weights)};
}

constexpr std::string_view kKnown = "operands must be known when the model is compiled";

const std::vector<OnnxOperator> kRows{
    {"BlackmanWindow", {17}, 1, 1, import_blackman, kKnown},
    {"DFT", {17, 20}, 1, 3, import_dft, "length and axis must be known when the model is compiled; in f32"},
    {"HammingWindow", {17}, 1, 1, import_hamming, kKnown},
    {"HannWindow", {17}, 1, 1, import_hann, kKnown},
    {"MelWeightMatrix", {17}, 5, 5, import_mel_weights, kKnown},
    {"STFT", {17}, 2, 4, import_stft, "step and length must be known when the model is compiled; in f32"},
};

}  // namespace

std::span<const OnnxOperator> signal_operators() { return kRows; }

}  // namespace halfstep
