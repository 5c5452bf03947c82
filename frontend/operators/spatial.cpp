// Operators that lay elements out anew over space: resizing, padding, cropping.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/checked.h"
#include "frontend/import/operators.h"
#include "frontend/operators/resampling.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

constexpr int64_t kLongest = 1 << 20;  // elements along an axis whose positions are listed

// ---- Resize, Upsample ----

enum class Filter : uint8_t { nearest, linear, cubic };

struct Interpolation {
  Filter filter = Filter::nearest;
  std::string coordinates, rounding;
  double cubic_a = -0.75;
  bool antialias = false, exclude_outside = false;
};

// One axis: `length` is the size of the result before it is rounded down, [start, end] the region of interest.
struct AxisResize {
  int64_t from, to;
  double length, start = 0, end = 1;
};

// The coordinate in the operand that element `o` of the result stands at.
double original_coordinate(const Interpolation& f, const AxisResize& a, int64_t o) {
  const double x = static_cast<double>(o), from = static_cast<double>(a.from), last = from - 1,
               steps = static_cast<double>(a.to - 1);
  const double half_pixel = (x + 0.5) * from / a.length - 0.5;
  if (f.coordinates == "align_corners") return a.to == 1 || a.length == 1 ? 0 : x * last / (a.length - 1);
  if (f.coordinates == "asymmetric") return x * from / a.length;
  if (f.coordinates == "pytorch_half_pixel") return a.to == 1 ? 0 : half_pixel;
  if (f.coordinates == "half_pixel_symmetric")
    return from / 2 * (1 - static_cast<double>(a.to) / a.length) + half_pixel;
  if (f.coordinates == "tf_half_pixel_for_nn") return half_pixel + 0.5;
  if (f.coordinates == "tf_crop_and_resize")
    return a.to == 1 ? (a.start + a.end) / 2 * last : a.start * last + x * (a.end - a.start) * last / steps;
  return half_pixel;
}

double round_to_position(const std::string& rounding, double x) {
  if (rounding == "floor") return std::floor(x);
  if (rounding == "ceil") return std::ceil(x);
  return rounding == "round_prefer_ceil" ? std::floor(x + 0.5) : std::ceil(x - 0.5);
}

// Keys 1981, equation 4, for cubic.
double kernel(const Interpolation& f, double distance) {
  const double d = std::abs(distance), a = f.cubic_a;
  if (f.filter == Filter::linear) return std::max(0.0, 1 - d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? a * (((d - 5) * d + 8) * d - 4) : 0;
}

Taps taps_at(const Interpolation& f, const AxisResize& a, double x) {
  const auto inside = [&](double position) {
    return static_cast<int64_t>(std::clamp(position, 0.0, static_cast<double>(a.from - 1)));
  };
  if (f.filter == Filter::nearest) return {{inside(round_to_position(f.rounding, x)), 1.0}};
  // A kernel that is stretched sees as many more elements as the result has fewer.
  const double stretch = f.antialias ? std::min(1.0, a.length / static_cast<double>(a.from)) : 1;
  const double support = (f.filter == Filter::linear ? 1 : 2) / stretch;
  Taps taps;
  double sum = 0;
  for (double p = std::floor(x - support) + 1; p < x + support; ++p) {
    const double weight = kernel(f, (p - x) * stretch);
    if (weight == 0 || (f.exclude_outside && (p < 0 || p >= static_cast<double>(a.from)))) continue;
    taps[inside(p)] += weight, sum += weight;
  }
  for (auto& [position, weight] : taps) weight /= sum;
  return taps;
}

Value resize_axis(NodeContext& c, Value x, size_t axis, const Interpolation& f, const AxisResize& a) {
  if (a.from <= 0 || a.to <= 0 || std::max(a.from, a.to) > kLongest)
    c.fail("axis " + std::to_string(axis) + " of " + to_string(c.shape(0)) + " cannot be resized to " +
           std::to_string(a.to));
  std::vector<Taps> taps;
  int64_t all = 0;
  for (int64_t o = 0; o < a.to; ++o) {
    const double x = original_coordinate(f, a, o);
    if (!(std::abs(x) < 0x1p40))
      c.fail("position " + std::to_string(x) + " on axis " + std::to_string(axis) + " is out of range");
    taps.push_back(taps_at(f, a, x));
    all += static_cast<int64_t>(taps.back().size());
    if (all > 4 * kLongest) c.fail("resizing axis " + std::to_string(axis) + " reads too many elements");
  }
  return resample(c.b, x, axis, taps);
}

// Where the region of interest leaves the operand stands extrapolation_value instead.
Value extrapolated(NodeContext& c, Value y, size_t axis, const Interpolation& f, const AxisResize& a, double value) {
  Builder& b = c.b;
  Tensor inside = table_of({DType::boolean, {a.to}});
  bool all = true;
  for (int64_t o = 0; o < a.to; ++o) {
    const double x = original_coordinate(f, a, o);
    const bool in = x >= 0 && x <= static_cast<double>(a.from - 1);
    inside.set(o, in), all &= in;
  }
  if (all) return y;
  Shape beside(b.shape(y).size() - axis, 1);
  beside[0] = a.to;
  return b.select(b.broadcast(b.reshape(b.constant(inside), beside), b.shape(y)), y, b.constant_like(y, value));
}

Interpolation read_interpolation(NodeContext& c) {
  Interpolation f;
  const std::string mode = c.text("mode", "nearest");
  if (mode != "nearest" && mode != "linear" && mode != "cubic") c.fail("mode '" + mode + "' is not supported");
  f.filter = mode == "nearest" ? Filter::nearest : mode == "linear" ? Filter::linear : Filter::cubic;
  // Before opset 11 there is one transformation: x / scale, rounded down.
  f.coordinates = c.version < 11 ? "asymmetric" : c.text("coordinate_transformation_mode", "half_pixel");
  f.rounding = c.version < 11 ? "floor" : c.text("nearest_mode", "round_prefer_floor");
  const auto known = [](const std::string& text, std::initializer_list<const char*> names) {
    return std::find(names.begin(), names.end(), text) != names.end();
  };
  if (!known(f.coordinates, {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
                             "tf_half_pixel_for_nn", "tf_crop_and_resize"}))
    c.fail("coordinate_transformation_mode '" + f.coordinates + "' is not supported");
  if (!known(f.rounding, {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}))
    c.fail("nearest_mode '" + f.rounding + "' is not supported");
  f.cubic_a = c.number("cubic_coeff_a", -0.75);
  f.exclude_outside = c.integer("exclude_outside", 0) != 0;
  f.antialias = c.integer("antialias", 0) != 0;
  return f;
}

std::vector<size_t> read_axes(NodeContext& c, const Ints& given) {
  const size_t rank = c.shape(0).size();
  std::vector<size_t> axes(rank);
  std::iota(axes.begin(), axes.end(), 0);
  if (given.empty()) return axes;
  axes.clear();
  for (int64_t a : given) {
    axes.push_back(c.axis(a, rank));
    if (std::count(axes.begin(), axes.end(), axes.back()) > 1) c.fail("axis " + std::to_string(a) + " is named twice");
  }
  return axes;
}

// from * scale, or the integer it would be but for the rounding of the scale.
double scaled_length(int64_t from, double scale) {
  const double length = static_cast<double>(from) * scale;
  return std::abs(length - std::round(length)) <= 1e-6 * length ? std::round(length) : length;
}

// Also of a cropped axis, whatever its region: ONNX Runtime, onnx's shape inference and its reference leave that out of
// the length that the operator's text gives.
void take_scales(NodeContext& c, const std::vector<size_t>& axes, const std::vector<double>& scales,
                 std::vector<AxisResize>& resizes) {
  if (scales.size() != axes.size())
    c.fail(std::to_string(scales.size()) + " scales for " + std::to_string(axes.size()) + " axes");
  for (size_t i = 0; i < axes.size(); ++i) {
    AxisResize& a = resizes[axes[i]];
    a.length = scaled_length(a.from, scales[i]);
    if (!(scales[i] > 0) || !(a.length < static_cast<double>(kLongest)))
      c.fail("scale " + std::to_string(scales[i]) + " is out of range");
    a.to = static_cast<int64_t>(a.length);
  }
}

void take_sizes(NodeContext& c, size_t operand, const std::vector<size_t>& axes, std::vector<AxisResize>& resizes) {
  const NodeContext::Sizes given = c.sizes(operand, "sizes");
  Ints sizes = given.now;
  if (sizes.size() != axes.size())
    c.fail(std::to_string(sizes.size()) + " sizes for " + std::to_string(axes.size()) + " axes");
  const Shape exported = exported_sizes(c.dimensions(0));
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t before = exported[axes[i]], now = resizes[axes[i]].from;
    if (!given.is_baked(i) || before == now) continue;
    if (sizes[i] != before)
      c.fail("its size " + std::to_string(sizes[i]) + " was exported for " + std::to_string(before) + " of axis " +
             std::to_string(axes[i]) + ", and how it follows to " + std::to_string(now) + " cannot be proven");
    sizes[i] = now;
  }
  const std::string policy = c.text("keep_aspect_ratio_policy", "stretch");
  if (policy != "stretch" && policy != "not_larger" && policy != "not_smaller")
    c.fail("keep_aspect_ratio_policy '" + policy + "' is not supported");
  double common = policy == "not_larger" ? HUGE_VAL : 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const double scale =
        static_cast<double>(sizes[i]) / static_cast<double>(std::max<int64_t>(resizes[axes[i]].from, 1));
    common = policy == "not_larger" ? std::min(common, scale) : std::max(common, scale);
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    AxisResize& a = resizes[axes[i]];
    const double from = static_cast<double>(a.from);
    a.to = policy == "stretch" ? sizes[i] : checked_integer(std::floor(common * from + 0.5), "sizes");
    a.length = policy == "stretch" ? static_cast<double>(a.to) : common * from;
  }
}

std::vector<Value> resize(NodeContext& c, const Interpolation& f, const std::vector<AxisResize>& resizes) {
  const bool cropped = f.coordinates == "tf_crop_and_resize";
  const double outside = c.number("extrapolation_value", 0);
  Value y = c.operand(0);
  const auto changes = [&](const AxisResize& a) {
    return a.from != a.to || a.length != static_cast<double>(a.from) || (cropped && (a.start != 0 || a.end != 1));
  };
  // What shrinks first, so that the rest has less to do.
  for (const bool shrinking : {true, false})
    for (size_t i = 0; i < resizes.size(); ++i)
      if (changes(resizes[i]) && (resizes[i].to < resizes[i].from) == shrinking)
        y = resize_axis(c, y, i, f, resizes[i]);
  for (size_t i = 0; cropped && i < resizes.size(); ++i)
    if (changes(resizes[i])) y = extrapolated(c, y, i, f, resizes[i], outside);
  return {y};
}

std::vector<AxisResize> unchanged(const Shape& shape) {
  std::vector<AxisResize> resizes;
  for (int64_t size : shape) resizes.push_back({size, size, static_cast<double>(size)});
  return resizes;
}

bool gives(NodeContext& c, size_t operand, const char* what) {
  return c.has_operand(operand) && c.constant(operand, what).type.element_count() > 0;
}

std::vector<Value> import_resize(NodeContext& c) {
  const Interpolation f = read_interpolation(c);
  const std::vector<size_t> axes = read_axes(c, c.version >= 18 ? c.int_list("axes") : Ints());
  std::vector<AxisResize> resizes = unchanged(c.shape(0));
  const size_t scales = c.version < 11 ? 1 : 2;
  const bool cropped = f.coordinates == "tf_crop_and_resize";
  if (cropped) {
    const std::vector<double> roi = c.constant(1, "roi").values();
    if (roi.size() != 2 * axes.size())
      c.fail("roi of " + std::to_string(roi.size()) + " numbers: two an axis expected");
    constexpr double kFarthest = 1 << 20;
    if (!std::all_of(roi.begin(), roi.end(), [](double v) { return std::abs(v) < kFarthest; }))
      c.fail("roi is out of range");
    for (size_t i = 0; i < axes.size(); ++i)
      resizes[axes[i]].start = roi[i], resizes[axes[i]].end = roi[axes.size() + i];
  }
  if (gives(c, scales, "scales")) {
    c.ignore({"keep_aspect_ratio_policy"});
    take_scales(c, axes, c.constant(scales, "scales").values(), resizes);
  } else if (c.version >= 11 && gives(c, 3, "sizes")) {
    take_sizes(c, 3, axes, resizes);
  } else {
    c.fail("neither scales nor sizes are given");
  }
  return resize(c, f, resizes);
}

std::vector<Value> import_upsample(NodeContext& c) {
  Interpolation f = read_interpolation(c);
  f.coordinates = "asymmetric", f.rounding = "floor";
  std::vector<AxisResize> resizes = unchanged(c.shape(0));
  take_scales(c, read_axes(c, {}), c.version >= 9 ? c.constant(1, "scales").values() : c.number_list("scales"),
              resizes);
  return resize(c, f, resizes);
}

// ---- Pad, CenterCropPad ----

// The element of an axis of `size` that stands at `at`, which may be outside.
int64_t padded_position(const std::string& mode, int64_t at, int64_t size) {
  if (mode == "edge") return std::clamp<int64_t>(at, 0, size - 1);
  const int64_t period = mode == "wrap" ? size : std::max<int64_t>(2 * (size - 1), 1);
  const int64_t within = (at % period + period) % period;
  return within < size ? within : period - within;
}

Value pad_with_elements(NodeContext& c, Value x, Ints low, Ints high, const std::string& mode) {
  // What is cut off is not there to be repeated.
  Ints cut_low = low, cut_high = high;
  for (size_t i = 0; i < low.size(); ++i) {
    cut_low[i] = std::min<int64_t>(low[i], 0), cut_high[i] = std::min<int64_t>(high[i], 0);
    low[i] = std::max<int64_t>(low[i], 0), high[i] = std::max<int64_t>(high[i], 0);
  }
  x = pad_or_crop(c.b, x, cut_low, cut_high, 0);
  for (size_t axis = 0; axis < low.size(); ++axis) {
    const int64_t size = c.b.shape(x)[axis];
    if (low[axis] == 0 && high[axis] == 0) continue;
    if (size == 0 || size + low[axis] + high[axis] > kLongest)
      c.fail("axis " + std::to_string(axis) + " of " + to_string(c.shape(0)) + " cannot be padded by " +
             std::to_string(low[axis]) + " and " + std::to_string(high[axis]) + " with mode " + mode);
    std::vector<Taps> taps;
    for (int64_t o = 0; o < size + low[axis] + high[axis]; ++o)
      taps.push_back({{padded_position(mode, o - low[axis], size), 1.0}});
    x = resample(c.b, x, axis, taps);
  }
  return x;
}

std::vector<Value> import_pad(NodeContext& c) {
  const size_t rank = c.shape(0).size();
  const bool operands = c.version >= 11;
  const std::string mode = c.text("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge" && (mode != "wrap" || c.version < 19))
    c.fail("padding mode '" + mode + "' is not supported");
  const Ints pads = operands ? c.ints(1, "pads") : c.int_list("pads");
  const double value = !operands ? c.number("value", 0.0) : c.has_operand(2) ? c.number(2, "constant_value") : 0;
  const bool some = c.version >= 18 && c.has_operand(3);
  const std::vector<size_t> axes = some ? read_axes(c, c.ints(3, "axes")) : read_axes(c, {});
  if (pads.size() != 2 * axes.size()) c.fail("pads " + to_string(pads) + ": two for each axis expected");
  Ints low(rank, 0), high(rank, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    low[axes[i]] = pads[i], high[axes[i]] = pads[axes.size() + i];
    constexpr int64_t kLargest = int64_t{1} << 40;
    const int64_t size = c.shape(0)[axes[i]];
    if (std::max(std::abs(pads[i] / 2), std::abs(pads[axes.size() + i] / 2)) > kLargest ||
        -std::min<int64_t>(pads[i], 0) - std::min<int64_t>(pads[axes.size() + i], 0) > size)
      c.fail("pads " + to_string(pads) + " are out of range");
  }
  if (mode == "constant") return {pad_or_crop(c.b, c.operand(0), low, high, value)};
  return {pad_with_elements(c, c.operand(0), low, high, mode)};
}

std::vector<Value> import_center_crop_pad(NodeContext& c) {
  const Shape shape = c.shape(0);
  const std::vector<size_t> axes = read_axes(c, c.int_list("axes"));
  const Ints target = c.ints(1, "shape");
  if (target.size() != axes.size()) c.fail("shape " + to_string(target) + ": a size for each axis expected");
  Ints low(shape.size(), 0), high(shape.size(), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    if (target[i] < 0) c.fail("shape " + to_string(target) + " has a negative entry");
    if (target[i] > (int64_t{1} << 40)) c.fail("shape " + to_string(target) + " is out of range");
    const int64_t more = target[i] - shape[axes[i]];
    low[axes[i]] = more / 2, high[axes[i]] = more - more / 2;
  }
  return {pad_or_crop(c.b, c.operand(0), low, high, 0)};
}

const std::vector<OnnxOperator> kRows{
    {"CenterCropPad", {18}, 2, 2, import_center_crop_pad, "the shape must be known when the model is compiled"},
    {"Pad", {2, 11, 18, 19}, 1, 4, import_pad, "pads must be known when the model is compiled"},
    {"Resize", {10, 11, 18}, 1, 4, import_resize, "scales, sizes and roi must be known when the model is compiled"},
    {"Upsample", {7, 9}, 1, 2, import_upsample, "scales must be known when the model is compiled"},
};

}  // namespace

std::span<const OnnxOperator> spatial_operators() { return kRows; }

}  // namespace halfstep
