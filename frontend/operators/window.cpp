#include "frontend/operators/window.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"

namespace halfstep {
namespace {

Ints per_axis(NodeContext& c, const std::string& name, size_t count, int64_t otherwise) {
  const Ints values = c.int_list(name, Ints(count, otherwise));
  if (values.size() != count)
    c.fail("attribute '" + name + "' has " + std::to_string(values.size()) + " entries, " + std::to_string(count) +
           " expected");
  return values;
}

constexpr int64_t kLargest = 1 << 20;  // of a window, stride, dilation or padding

void check_range(NodeContext& c, const Window& w) {
  const auto within = [](const Ints& values, int64_t least) {
    return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v >= least && v < kLargest; });
  };
  if (!within(w.size, 1) || !within(w.strides, 1) || !within(w.dilations, 1) || !within(w.pads_begin, 0) ||
      !within(w.pads_end, 0))
    c.fail("kernel_shape " + to_string(w.size) + ", strides " + to_string(w.strides) + ", dilations " +
           to_string(w.dilations) + ", pads " + to_string(w.pads_begin) + " and " + to_string(w.pads_end) +
           ": a value is out of range");
}

constexpr int64_t kLargestOutput = int64_t{1} << 40;

std::string read_auto_pad(NodeContext& c) {
  const std::string auto_pad = c.text("auto_pad", "NOTSET");
  if (auto_pad != "NOTSET" && auto_pad != "VALID" && auto_pad != "SAME_UPPER" && auto_pad != "SAME_LOWER")
    c.fail("attribute 'auto_pad' is '" + auto_pad + "'; NOTSET, VALID, SAME_UPPER or SAME_LOWER expected");
  return auto_pad;
}

// All but the paddings that auto_pad makes.
Window read_geometry(NodeContext& c, const Shape& spatial, Ints size, const std::string& auto_pad) {
  const size_t n = spatial.size();
  if (size.size() != n) c.fail("kernel_shape " + to_string(size) + " for " + std::to_string(n) + " spatial axes");
  Window w{std::move(size), per_axis(c, "strides", n, 1),   Ints(n, 0),
           Ints(n, 0),      per_axis(c, "dilations", n, 1), Ints(n, 0)};
  const Ints pads = per_axis(c, "pads", 2 * n, 0);
  if (auto_pad == "NOTSET") {
    w.pads_begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(n));
    w.pads_end.assign(pads.begin() + static_cast<std::ptrdiff_t>(n), pads.end());
  }
  check_range(c, w);
  return w;
}

}  // namespace

Shape spatial_shape(NodeContext& c, const Shape& channels_first) {
  if (channels_first.size() < 3 || channels_first.size() > 5)
    c.fail("[N, C, 1 to 3 spatial axes] expected, found " + to_string(channels_first));
  return Shape(channels_first.begin() + 2, channels_first.end());
}

Window read_window(NodeContext& c, const Shape& spatial, Ints size, CeilMode ceil_mode) {
  const size_t n = spatial.size();
  const std::string auto_pad = read_auto_pad(c);
  Window w = read_geometry(c, spatial, std::move(size), auto_pad);
  const bool ceil = ceil_mode == CeilMode::attribute && c.integer("ceil_mode", 0) != 0;
  for (size_t i = 0; i < n; ++i) {
    const int64_t reach = (w.size[i] - 1) * w.dilations[i] + 1;
    if (auto_pad.starts_with("SAME")) {
      const int64_t total =
          std::max<int64_t>((ceil_div(spatial[i], w.strides[i]) - 1) * w.strides[i] + reach - spatial[i], 0);
      w.pads_begin[i] = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.pads_end[i] = total - w.pads_begin[i];
    }
    const int64_t free = spatial[i] + w.pads_begin[i] + w.pads_end[i] - reach;
    if (!ceil || free < 0) continue;
    // A last window must still begin inside the input or the padding before it.
    const int64_t last = ceil_div(free, w.strides[i]) * w.strides[i];
    if (last < spatial[i] + w.pads_begin[i]) w.overhang[i] = last - free;
  }
  return w;
}

TransposedWindow read_transposed_window(NodeContext& c, const Shape& spatial, Ints size) {
  const size_t n = spatial.size();
  const std::string auto_pad = read_auto_pad(c);
  TransposedWindow t{read_geometry(c, spatial, std::move(size), auto_pad), Shape(n)};
  Window& w = t.window;
  const Ints more = per_axis(c, "output_padding", n, 0), wanted = c.int_list("output_shape");
  if (!wanted.empty() && wanted.size() != n)
    c.fail("output_shape " + to_string(wanted) + " for " + std::to_string(n) + " spatial axes");
  for (size_t i = 0; i < n; ++i) {
    const int64_t reach = (w.size[i] - 1) * w.dilations[i] + 1;
    const int64_t whole = (spatial[i] - 1) * w.strides[i] + reach + more[i];
    if (more[i] < 0 || more[i] >= std::max(w.strides[i], w.dilations[i]))
      c.fail("output_padding " + to_string(more) + " is not below strides " + to_string(w.strides));
    if (!wanted.empty() || auto_pad.starts_with("SAME")) {
      const int64_t total = whole - (wanted.empty() ? spatial[i] * w.strides[i] : wanted[i]);
      // What the output has beyond all windows stands at its end.
      w.pads_begin[i] = auto_pad == "SAME_UPPER" || total < 0 ? std::max<int64_t>(total, 0) / 2 : total - total / 2;
      w.pads_end[i] = total - w.pads_begin[i];
    }
    t.output[i] = whole - w.pads_begin[i] - w.pads_end[i];
    if (t.output[i] <= 0 || t.output[i] > kLargestOutput)
      c.fail("an output of " + std::to_string(t.output[i]) + " elements along spatial axis " + std::to_string(i));
  }
  return t;
}

Value to_channels_last(Builder& b, Value v) {
  Ints permutation(b.shape(v).size());
  std::iota(permutation.begin(), permutation.end(), 0);
  std::rotate(permutation.begin() + 1, permutation.begin() + 2, permutation.end());
  return permute(b, v, std::move(permutation));
}

Value to_channels_first(Builder& b, Value v) {
  Ints permutation(b.shape(v).size());
  std::iota(permutation.begin(), permutation.end(), 0);
  std::rotate(permutation.begin() + 1, permutation.end() - 1, permutation.end());
  return permute(b, v, std::move(permutation));
}

}  // namespace halfstep
