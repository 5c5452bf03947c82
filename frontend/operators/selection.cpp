// Operators whose results are as long as their values say: these must be known when the model is compiled.
#include <algorithm>
#include <map>
#include <numeric>

#include "base/checked.h"
#include "frontend/import/operators.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

Tensor list_of(const Ints& values) { return integers(values, {std::ssize(values)}); }

// ---- Unique ----

// The tensor as rows that are compared: [slices, elements of a slice], the slices those of `axis`.
std::vector<std::vector<double>> slices_of(const Tensor& x, size_t axis, const Shape& shape) {
  const std::vector<int64_t> strides = row_major_strides(shape);
  std::vector<std::vector<double>> slices(static_cast<size_t>(shape[axis]));
  for (int64_t i = 0; i < x.type.element_count(); ++i)
    slices[static_cast<size_t>(i / strides[axis] % shape[axis])].push_back(x.at(i));
  return slices;
}

std::vector<Value> import_unique(NodeContext& c) {
  const Tensor x = c.untrained(0, "X");
  const bool has_axis = c.has_attribute("axis"), sorted = c.integer("sorted", 1) != 0;
  const Shape shape = has_axis ? x.type.shape : Shape{x.type.element_count()};
  if (shape.empty()) c.fail("a scalar has no axis");
  const size_t axis = has_axis ? c.axis(c.integer("axis", 0), shape.size()) : 0;
  const std::vector<std::vector<double>> slices = slices_of(x, axis, shape);
  std::map<std::vector<double>, int64_t> first_of;
  Ints firsts, counts, group_of;
  for (int64_t i = 0; i < std::ssize(slices); ++i) {
    const std::vector<double>& slice = slices[static_cast<size_t>(i)];
    if (std::ranges::any_of(slice, [](double v) { return v != v; }))
      c.fail("a value that is not a number has no equal");
    const auto [found, is_new] = first_of.emplace(slice, std::ssize(firsts));
    if (is_new) firsts.push_back(i), counts.push_back(0);
    group_of.push_back(found->second);
    ++counts[static_cast<size_t>(found->second)];
  }
  Ints order(firsts.size());  // of the groups
  std::iota(order.begin(), order.end(), 0);
  if (sorted) {
    order.clear();
    for (const auto& [slice, group] : first_of) order.push_back(group);
  }
  Ints place(order.size()), indices, ordered_counts, inverse;
  for (size_t i = 0; i < order.size(); ++i) {
    place[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
    indices.push_back(firsts[static_cast<size_t>(order[i])]);
    ordered_counts.push_back(counts[static_cast<size_t>(order[i])]);
  }
  for (int64_t group : group_of) inverse.push_back(place[static_cast<size_t>(group)]);
  Builder& b = c.b;
  const Value y = b.call("gather", {b.reshape(b.constant(x), shape), b.constant(list_of(indices))},
                         {{"axis", static_cast<int64_t>(axis)}});
  return {y, b.constant(list_of(indices)), b.constant(list_of(inverse)), b.constant(list_of(ordered_counts))};
}

// ---- NonMaxSuppression ----

struct Box {
  double y1, x1, y2, x2;
  double area() const { return (y2 - y1) * (x2 - x1); }
};

Box box_of(const Tensor& boxes, int64_t first, bool is_centred) {
  const auto at = [&](int64_t i) { return boxes.at(first + i); };
  if (is_centred) return {at(1) - at(3) / 2, at(0) - at(2) / 2, at(1) + at(3) / 2, at(0) + at(2) / 2};
  return {std::min(at(0), at(2)), std::min(at(1), at(3)), std::max(at(0), at(2)), std::max(at(1), at(3))};
}

bool overlap(const Box& a, const Box& b, double threshold) {
  const double height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1),
               width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (height <= 0 || width <= 0 || a.area() <= 0 || b.area() <= 0) return false;
  const double shared = height * width;
  return shared / (a.area() + b.area() - shared) > threshold;
}

std::vector<Value> import_non_max_suppression(NodeContext& c) {
  const Tensor boxes = c.untrained(0, "boxes"), scores = c.untrained(1, "scores");
  const Shape& b = boxes.type.shape;
  const Shape& s = scores.type.shape;
  if (b.size() != 3 || s.size() != 3 || b[2] != 4 || b[0] != s[0] || b[1] != s[2])
    c.fail("boxes [batches, boxes, 4] and scores [batches, classes, boxes] expected, found " + to_string(b) + " and " +
           to_string(s));
  const int64_t count = b[1];
  const double most = c.has_operand(2) ? c.number(2, "max_output_boxes_per_class") : 0;
  const double shared = c.has_operand(3) ? c.number(3, "iou_threshold") : 0;
  const bool is_centred = c.integer("center_point_box", 0) != 0;
  const std::optional<double> least = c.has_operand(4) ? std::optional(c.number(4, "score_threshold")) : std::nullopt;
  Ints selected;
  for (int64_t row = 0; row < s[0] * s[1]; ++row) {  // a batch and a class
    const auto score = [&](int64_t i) { return scores.at(row * count + i); };
    Ints candidates;
    for (int64_t i = 0; i < count; ++i)
      if (!least || score(i) > *least) candidates.push_back(i);
    std::ranges::stable_sort(candidates, [&](int64_t i, int64_t j) { return score(i) > score(j); });
    std::vector<Box> kept;
    for (int64_t i : candidates) {
      if (static_cast<double>(kept.size()) >= most) break;
      const Box box = box_of(boxes, (row / s[1] * count + i) * 4, is_centred);
      if (std::ranges::any_of(kept, [&](const Box& k) { return overlap(box, k, shared); })) continue;
      kept.push_back(box);
      selected.insert(selected.end(), {row / s[1], row % s[1], i});
    }
  }
  return {c.b.constant(integers(selected, {std::ssize(selected) / 3, 3}))};
}

constexpr std::string_view kLimits = "operands must be known when the model is compiled";

const std::vector<OnnxOperator> kRows{
    {"NonMaxSuppression", {10}, 2, 5, import_non_max_suppression, kLimits},
    {"Unique", {11}, 1, 1, import_unique, kLimits},
};

}  // namespace

std::span<const OnnxOperator> selection_operators() { return kRows; }

}  // namespace halfstep
