// Regions of images read between their elements (RoiAlign, DeformConv), and determinants.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "frontend/import/indices.h"
#include "frontend/import/operators.h"
#include "frontend/operators/window.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

// ---- elements around a position ----

// One of the two elements around a position on an axis: its index, and its weight, 0 where it does not count.
struct Neighbour {
  Value index, weight;
};

Value constant(Builder& b, Value like, double value) { return b.constant_like(like, value); }

Value bounded(Builder& b, Value x, double low, double high) {
  return b.binary("min", b.binary("max", x, constant(b, x, low)), constant(b, x, high));
}

// A whole number as a constant of the gradient, which it is almost everywhere.
Value floor_of(Builder& b, Value x) { return b.cast(b.cast(b.unary("floor", x), DType::i64), b.dtype(x)); }

Value where(Builder& b, Value condition, Value weight) { return b.select(condition, weight, constant(b, weight, 0)); }

Value between(Builder& b, Value low, Value x, Value high) {
  return b.binary("and", b.binary("less_equal", low, x), b.binary("less_equal", x, high));
}

// Elements outside are zeros.
std::vector<Neighbour> zero_padded(Builder& b, Value at, int64_t size) {
  const double last = static_cast<double>(size - 1);
  at = bounded(b, at, -2, last + 2);
  const Value below = floor_of(b, at), fraction = b.sub(at, below);
  const auto element = [&](Value whole, Value weight) {
    const Value inside = between(b, constant(b, whole, 0), whole, constant(b, whole, last));
    return Neighbour{b.cast(where(b, inside, whole), DType::i64), where(b, inside, weight)};
  };
  return {element(below, b.sub(constant(b, at, 1), fraction)), element(b.add(below, 1), fraction)};
}

// The border reaches one element further; beyond that everything is zero.
std::vector<Neighbour> border_padded(Builder& b, Value at, int64_t size) {
  const double last = static_cast<double>(size - 1);
  const Value counts = between(b, constant(b, at, -1), at, constant(b, at, static_cast<double>(size)));
  at = bounded(b, at, 0, last);
  const Value below = floor_of(b, at), fraction = b.sub(at, below);
  const Value above = b.binary("min", b.add(below, 1), constant(b, below, last));
  return {{b.cast(below, DType::i64), where(b, counts, b.sub(constant(b, at, 1), fraction))},
          {b.cast(above, DType::i64), where(b, counts, fraction)}};
}

// x [rows, columns], one row an element of an image; every combination of a neighbour in y and one in x, with
// `before`, the number of the first row of the image. The terms are [..., columns].
std::vector<Value> corner_terms(Builder& b, Value rows, Value before, int64_t width, const std::vector<Neighbour>& ys,
                                const std::vector<Neighbour>& xs) {
  std::vector<Value> terms;
  for (const Neighbour& y : ys)
    for (const Neighbour& x : xs) {
      const Value number = b.add(b.add(before, b.mul(y.index, static_cast<double>(width))), x.index);
      const Value weight = b.mul(y.weight, x.weight);
      Shape beside = b.shape(weight);
      beside.push_back(1);
      terms.push_back(b.mul(gather(b, rows, number), b.reshape(weight, beside)));
    }
  return terms;
}

Value reduced(Builder& b, std::string_view op, const std::vector<Value>& terms) {
  Value result = terms.at(0);
  for (size_t i = 1; i < terms.size(); ++i) result = b.binary(op, result, terms[i]);
  return result;
}

// ---- RoiAlign ----

// Samples of one axis of every region.
struct Samples {
  Value position;  // [regions, bins, most samples of a bin]
  Value share;     // 1 / samples of a bin, 0 behind the last one; [regions, 1, most]
};

struct RoiAxis {
  int64_t from, to;  // columns of the regions
  int64_t bins;
};

// Regions that the file holds are no weights.
Samples roi_samples(NodeContext& c, const RoiAxis& axis) {
  Builder& b = c.b;
  const Value regions = c.is_initializer(1) ? b.constant(c.constant(1, "rois")) : c.operand(1);
  const Shape rois = c.shape(1);
  const bool half_pixel = c.version >= 16 && c.text("coordinate_transformation_mode", "half_pixel") == "half_pixel";
  const double scale = c.number("spatial_scale", 1);
  const auto edge = [&](int64_t column) {
    const Value all = b.slice(regions, {0, column}, {rois[0], column + 1});
    return b.add(b.mul(b.reshape(all, {rois[0], 1, 1}), scale), half_pixel ? -0.5 : 0);
  };
  const Value start = edge(axis.from);
  Value size = b.sub(edge(axis.to), start);
  if (!half_pixel) size = b.binary("max", size, constant(b, size, 1));
  const Value bin = b.mul(size, 1 / static_cast<double>(axis.bins));
  table_of({DType::f32, {rois[0]}});
  std::vector<double> counts(static_cast<size_t>(rois[0]), static_cast<double>(c.integer("sampling_ratio", 0)));
  if (c.integer("sampling_ratio", 0) <= 0) {
    const std::optional<Tensor> bins = c.importer().constants().evaluate(bin);
    if (!bins) c.fail("sampling_ratio=0 needs regions that are known when the model is compiled; give a ratio");
    counts = bins->values();
    for (double& count : counts) count = std::max(1.0, std::ceil(count));
  }
  const double most = *std::ranges::max_element(counts);
  if (!(most <= 4096)) c.fail("a region of " + std::to_string(most) + " samples in a bin is too large");
  const auto n = static_cast<int64_t>(most);
  Tensor places = table_of({DType::f32, {rois[0], 1, n}}), share = places;
  for (int64_t r = 0; r < rois[0]; ++r)
    for (int64_t k = 0; k < n; ++k) {
      const double count = counts[static_cast<size_t>(r)], at = static_cast<double>(k);
      places.set(r * n + k, ((at < count ? at : 0) + 0.5) / count);  // one sample more often changes no maximum
      share.set(r * n + k, at < count ? 1 / count : 0);
    }
  Tensor first = table_of({DType::f32, {1, axis.bins, 1}});
  for (int64_t i = 0; i < axis.bins; ++i) first.set(i, static_cast<double>(i));
  const Value places_in_bins = b.add(b.constant(first), b.constant(places));
  return {b.add(start, b.mul(places_in_bins, bin)), b.constant(share)};
}

std::vector<Value> import_roi_align(NodeContext& c) {
  Builder& b = c.b;
  const Shape x = c.shape(0), rois = c.shape(1);
  if (x.size() != 4 || rois.size() != 2 || rois[1] != 4 || c.shape(2) != Shape{rois[0]} || rois[0] == 0 ||
      b.type(c.operand(0)).element_count() == 0)
    c.fail("x [N, C, H, W], rois [R, 4] and batch_indices [R] expected, found " + to_string(x) + ", " +
           to_string(rois) + " and " + to_string(c.shape(2)));
  const std::string mode = c.text("mode", "avg"), coordinates = c.text("coordinate_transformation_mode", "half_pixel");
  if (mode != "avg" && mode != "max") c.fail("mode '" + mode + "' is unknown; 'avg' or 'max' expected");
  if (coordinates != "half_pixel" && coordinates != "output_half_pixel")
    c.fail("coordinate_transformation_mode '" + coordinates + "' is unknown");
  const int64_t height = c.integer("output_height", 1), width = c.integer("output_width", 1), regions = rois[0];
  constexpr int64_t kMostBins = 4096;
  if (height <= 0 || width <= 0 || height > kMostBins || width > kMostBins)
    c.fail("an output of " + std::to_string(height) + " by " + std::to_string(width) + " bins");
  const Samples y = roi_samples(c, {1, 3, height}), z = roi_samples(c, {0, 2, width});
  const int64_t ny = b.shape(y.position)[2], nx = b.shape(z.position)[2];
  const auto rows_of = [&](Value v) { return b.reshape(v, {regions, b.shape(v)[1], 1, b.shape(v)[2], 1}); };
  const auto columns_of = [&](Value v) { return b.reshape(v, {regions, 1, b.shape(v)[1], 1, b.shape(v)[2]}); };
  const Value rows = b.reshape(to_channels_last(b, c.operand(0)), {x[0] * x[2] * x[3], x[1]});
  const Value image =
      b.mul(b.reshape(b.cast(c.operand(2), DType::i64), {regions, 1, 1, 1, 1}), static_cast<double>(x[2] * x[3]));
  const std::vector<Value> terms =
      corner_terms(b, rows, image, x[3], border_padded(b, rows_of(y.position), x[2]),
                   border_padded(b, columns_of(z.position), x[3]));  // [R, height, width, ny, nx, C]
  Value result;
  if (mode == "max") {
    result = b.reduce("reduce_max", reduced(b, "max", terms), {3, 4});
  } else {
    const Value share = b.reshape(b.mul(rows_of(y.share), columns_of(z.share)), {regions, 1, 1, ny, nx, 1});
    result = b.reduce("reduce_sum", b.mul(reduced(b, "add", terms), share), {3, 4});
  }
  return {to_channels_first(b, b.reshape(result, {regions, height, width, x[1]}))};
}

// ---- DeformConv ----

std::vector<Value> import_deform_conv(NodeContext& c) {
  Builder& b = c.b;
  const Shape x = c.shape(0), w = c.shape(1), offset = c.shape(2);
  if (x.size() != 4 || w.size() != 4)
    c.fail("two spatial axes expected, found " + to_string(x) + " and " + to_string(w));
  const Shape window(w.begin() + 2, w.end());
  if (c.int_list("kernel_shape", window) != window)
    c.fail("kernel_shape " + to_string(c.int_list("kernel_shape")) + " and w " + to_string(w) + " differ");
  const Window g = read_window(c, {x[2], x[3]}, window, CeilMode::absent);
  const int64_t groups = c.integer("group", 1), offsets = c.integer("offset_group", 1), taps = w[2] * w[3];
  Shape out(2);
  for (size_t i = 0; i < 2; ++i) {
    const int64_t reach = (window[i] - 1) * g.dilations[i] + 1;
    out[i] = (x[i + 2] + g.pads_begin[i] + g.pads_end[i] - reach) / g.strides[i] + 1;
  }
  const bool fits = groups > 0 && offsets > 0 && taps > 0 && w[1] * groups == x[1] && w[0] % groups == 0 &&
                    x[1] % offsets == 0 && b.type(c.operand(0)).element_count() > 0 && out[0] > 0 && out[1] > 0 &&
                    offset == Shape{x[0], offsets * taps * 2, out[0], out[1]};
  if (!fits)
    c.fail("x " + to_string(x) + ", w " + to_string(w) + " and offset " + to_string(offset) + " do not fit in " +
           std::to_string(groups) + " groups and " + std::to_string(offsets) + " of offsets");
  const Shape sampled{x[0], offsets, taps, out[0], out[1]};
  const int64_t depth = x[1] / offsets;
  // Where an undisturbed window reads, and how far the operand moves it.
  const auto positions_on = [&](size_t axis) {
    Tensor base = table_of({DType::f32, {taps, out[0], out[1]}});
    int64_t at = 0;
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t i = 0; i < out[0]; ++i)
        for (int64_t j = 0; j < out[1]; ++j) {
          const int64_t element = axis == 0 ? tap / w[3] : tap % w[3], output = axis == 0 ? i : j;
          base.set(at++,
                   static_cast<double>(output * g.strides[axis] - g.pads_begin[axis] + element * g.dilations[axis]));
        }
    const auto k = static_cast<int64_t>(axis);
    const Value pairs = b.reshape(c.operand(2), {x[0], offsets, taps, 2, out[0], out[1]});
    const Value moved = b.slice(pairs, {0, 0, 0, k, 0, 0}, {x[0], offsets, taps, k + 1, out[0], out[1]});
    return b.add(b.reshape(moved, sampled), b.constant(base));
  };
  const Value images = permute(b, b.reshape(c.operand(0), {x[0], offsets, depth, x[2], x[3]}), {0, 1, 3, 4, 2});
  const Value rows = b.reshape(images, {x[0] * offsets * x[2] * x[3], depth});
  const Value number = b.call("iota", {}, {{"shape", Shape{x[0] * offsets}}, {"axis", int64_t{0}}});
  const Value before = b.reshape(b.mul(number, static_cast<double>(x[2] * x[3])), {x[0], offsets, 1, 1, 1});
  Value columns = reduced(b, "add",
                          corner_terms(b, rows, before, x[3], zero_padded(b, positions_on(0), x[2]),
                                       zero_padded(b, positions_on(1), x[3])));
  if (c.has_operand(4)) {
    if (c.shape(4) != Shape{x[0], offsets * taps, out[0], out[1]})
      c.fail("mask " + to_string(Shape{x[0], offsets * taps, out[0], out[1]}) + " expected, found " +
             to_string(c.shape(4)));
    columns = b.mul(columns, b.reshape(c.operand(4), {x[0], offsets, taps, out[0], out[1], 1}));
  }
  // [groups, N * out, C / groups * taps] times the filters.
  const int64_t places = x[0] * out[0] * out[1], inner = w[1] * taps, per_group = w[0] / groups;
  const Value by_channel = permute(b, columns, {1, 5, 0, 3, 4, 2});  // [offsets, depth, N, out.., taps]
  const Value split = permute(b, b.reshape(by_channel, {groups, w[1], places, taps}), {0, 2, 1, 3});
  const Value product = b.matmul(b.reshape(split, {groups, places, inner}),
                                 b.reshape(c.operand(1), {groups, per_group, inner}), {{"transpose_b", int64_t{1}}});
  const Initializer fresh = fan_in_uniform(inner);
  c.initialise(c.operand(1), fresh);
  Value y = b.reshape(permute(b, product, {1, 0, 2}), {x[0], out[0], out[1], w[0]});
  if (c.has_operand(3)) {
    if (c.shape(3) != Shape{w[0]})
      c.fail("bias " + to_string(Shape{w[0]}) + " expected, found " + to_string(c.shape(3)));
    c.initialise(c.operand(3), fresh);
    y = b.add(y, c.operand(3));
  }
  return {to_channels_first(b, y)};
}

// ---- Det ----

// Bird 2011: n - 1 products, no division, so that singular matrices have a determinant and a gradient like any other.
std::vector<Value> import_det(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  constexpr int64_t kLargest = 16;  // products of more entries cancel too much in f32
  if (shape.size() < 2 || shape.back() != shape[shape.size() - 2] || !is_floating(b.dtype(c.operand(0))))
    c.fail("square matrices of floating values expected, found " + to_string(b.type(c.operand(0))));
  const int64_t n = shape.back();
  if (n == 0 || n > kLargest) c.fail("matrices of 1 to " + std::to_string(kLargest) + " rows expected");
  const Shape batch(shape.begin(), shape.end() - 2);
  const int64_t count = checked_element_count(batch, "x");
  const Shape whole{count, n, n};
  const Value x = b.reshape(c.operand(0), whole), row = positions(b, whole, 1), column = positions(b, whole, 2);
  const Value above = b.binary("less", row, column), diagonal = b.binary("eq", row, column);
  Value f = x;
  for (int64_t i = 1; i < n; ++i) {
    // The diagonal becomes minus the sum of what follows on it; what lies below goes.
    const Value entries = b.broadcast(b.reduce("reduce_sum", where(b, diagonal, f), {1}), whole);
    const Value later = b.broadcast(b.reduce("reduce_sum", where(b, above, entries), {2}), whole);
    f = b.call("full_matmul", {b.select(diagonal, b.mul(later, -1), where(b, above, f)), x});
  }
  const Value first = b.reshape(b.slice(f, {0, 0, 0}, {count, 1, 1}), batch);
  return {n % 2 == 0 ? b.mul(first, -1) : first};
}

const std::vector<OnnxOperator> kRows{
    {"DeformConv", {19}, 3, 5, import_deform_conv, "two spatial axes"},
    {"Det", {11}, 1, 1, import_det, "at most 16 rows"},
    {"RoiAlign",
     {10, 16},
     3,
     3,
     import_roi_align,
     "without sampling_ratio the regions must be known when the model is compiled"},
};

}  // namespace

std::span<const OnnxOperator> region_operators() { return kRows; }

}  // namespace halfstep
