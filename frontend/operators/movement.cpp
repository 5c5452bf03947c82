// Operators that move elements: shapes, permutations, pieces and copies.
#include <algorithm>
#include <limits>
#include <numeric>

#include "base/checked.h"
#include "frontend/import/operators.h"

namespace halfstep {
namespace {

// A target shape in which 0 copies a dimension of `from` and -1 stands for what is left.
Shape resolve_target(NodeContext& c, const Ints& target, const Shape& from, bool zero_copies) {
  Shape to = target;
  std::optional<size_t> open;
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 0 && zero_copies) {
      if (i >= from.size())
        c.fail("target " + to_string(target) + " copies axis " + std::to_string(i) + " of " + to_string(from));
      to[i] = from[i];
    } else if (to[i] == -1) {
      if (open) c.fail("target " + to_string(target) + " has two open dimensions");
      open = i;
      to[i] = 1;
    }
  }
  const int64_t have = checked_element_count(from, "operand"),
                want = checked_element_count(to, "target " + to_string(target));
  const bool divides = want != 0 && have % want == 0;
  if (open && divides) to[*open] = have / want;
  if (open ? !divides : have != want) c.fail(to_string(from) + " cannot be reshaped to " + to_string(target));
  return to;
}

Value reshape_to(NodeContext& c, const Dimensions& to) {
  c.set_dimensions(0, to);
  return c.b.reshape(c.operand(0), wanted_sizes(to));
}

std::vector<Value> import_reshape(NodeContext& c) {
  const bool zero_copies = c.integer("allowzero", 0) == 0;
  const NodeContext::Sizes target = c.sizes(1, "shape");
  const Dimensions from = c.dimensions(0);
  const Shape exported = exported_sizes(from), now = wanted_sizes(from);
  const std::optional<Dimensions> to = read_target(from, resolve_target(c, target.exported, exported, zero_copies));
  // What the model computes itself is right.
  bool agrees = to.has_value();
  for (size_t i = 0; agrees && i < target.now.size(); ++i)
    agrees = target.is_baked(i) || target.now[i] <= 0 || wanted_sizes(*to)[i] == target.now[i];
  if (agrees) return {reshape_to(c, *to)};
  if (target.is_baked())
    c.fail("its target " + to_string(target.now) + " was exported for " + to_string(exported) +
           ", and how it follows to " + to_string(now) + " cannot be proven");
  return {c.b.reshape(c.operand(0), resolve_target(c, target.now, now, zero_copies))};
}

std::vector<Value> import_flatten(NodeContext& c) {
  const Dimensions from = c.dimensions(0);
  const size_t axis = c.axis_or_end(c.integer("axis", 1), from.size());
  Dimensions to(2);
  for (size_t i = 0; i < from.size(); ++i)
    to[i < axis ? 0 : 1].insert(to[i < axis ? 0 : 1].end(), from[i].begin(), from[i].end());
  return {reshape_to(c, to)};
}

std::vector<Value> import_transpose(NodeContext& c) {
  Ints reversed(c.shape(0).size());
  std::iota(reversed.rbegin(), reversed.rend(), 0);
  const Ints permutation = c.int_list("perm", reversed);
  Ints sorted = permutation;
  std::sort(sorted.begin(), sorted.end());
  std::reverse(reversed.begin(), reversed.end());
  if (sorted != reversed)
    c.fail("perm " + to_string(permutation) + " is no permutation of the axes of " + to_string(c.shape(0)));
  return {permute(c.b, c.operand(0), permutation)};
}

// Axes from the attribute or, from version `as_operand` on, from operand 1; counted within `rank`.
std::vector<char> marked_axes(NodeContext& c, const Ints& axes, size_t rank) {
  std::vector<char> marked(rank, 0);
  for (int64_t a : axes) {
    char& mark = marked[c.axis(a, rank)];
    if (mark) c.fail("axis " + std::to_string(a) + " is named twice");
    mark = 1;
  }
  return marked;
}

std::vector<Value> import_squeeze(NodeContext& c) {
  const Dimensions from = c.dimensions(0);
  const Shape exported = exported_sizes(from), now = wanted_sizes(from);
  const bool as_operand = c.version >= 13;
  const bool given = as_operand ? c.has_operand(1) : c.has_attribute("axes");
  const Ints axes = as_operand && given ? c.ints(1, "axes") : as_operand ? Ints() : c.int_list("axes");
  const std::vector<char> named = marked_axes(c, axes, from.size());
  Dimensions to;
  for (size_t i = 0; i < from.size(); ++i) {
    const bool squeezed = given ? named[i] : exported[i] == 1;
    if (squeezed && now[i] != 1) c.fail("axis " + std::to_string(i) + " of " + to_string(now) + " is not of size 1");
    if (!squeezed) to.push_back(from[i]);
  }
  return {reshape_to(c, to)};
}

std::vector<Value> import_unsqueeze(NodeContext& c) {
  const Dimensions from = c.dimensions(0);
  const Ints axes = c.version >= 13 ? c.ints(1, "axes") : c.int_list("axes");
  Dimensions to;
  auto next = from.begin();
  for (char added : marked_axes(c, axes, from.size() + axes.size())) to.push_back(added ? Factors() : *next++);
  return {reshape_to(c, to)};
}

std::vector<Value> import_concat(NodeContext& c) {
  const size_t rank = c.shape(0).size(), axis = c.axis(c.integer("axis"), rank);
  for (size_t i = 0; i < rank; ++i)
    if (i != axis) c.align(std::vector<std::optional<size_t>>(c.operand_count(), i));
  const std::vector<Value> values = c.operands();
  if (values.size() == 1) return values;
  return {c.b.call("concat", values, {{"axis", static_cast<int64_t>(axis)}})};
}

std::vector<Value> import_split(NodeContext& c) {
  const Shape shape = c.shape(0);
  const size_t axis = c.axis(c.integer("axis", 0), shape.size());
  const auto parts = static_cast<int64_t>(c.result_count());
  NodeContext::Sizes given;
  if (c.version >= 13 && c.has_operand(1)) given = c.sizes(1, "split");
  if (c.version < 13) given.now = given.exported = c.int_list("split");
  Ints sizes = given.now;
  const int64_t exported = exported_sizes(c.dimensions(0))[axis];
  if (!sizes.empty() && given.is_baked() && exported != shape[axis])
    c.fail("split " + to_string(sizes) + " was exported for size " + std::to_string(exported) + " of axis " +
           std::to_string(axis) + ", and how it follows to " + std::to_string(shape[axis]) + " cannot be proven");
  if (c.version >= 18 && c.integer("num_outputs", parts) != parts)
    c.fail("num_outputs differs from the number of results");
  if (sizes.empty()) {
    const int64_t piece = ceil_div(shape[axis], parts);
    if (c.version < 18 && shape[axis] % parts != 0)
      c.fail("axis " + std::to_string(axis) + " of " + to_string(shape) + " does not split into " +
             std::to_string(parts) + " equal parts");
    for (int64_t left = shape[axis]; static_cast<int64_t>(sizes.size()) < parts; left -= sizes.back())
      sizes.push_back(std::min(piece, left));
  }
  const bool negative = std::any_of(sizes.begin(), sizes.end(), [](int64_t s) { return s < 0; });
  int64_t covered = 0;
  for (int64_t size : sizes) covered = checked_add(covered, size, "split");
  if (negative || static_cast<int64_t>(sizes.size()) != parts || covered != shape[axis])
    c.fail("split " + to_string(sizes) + " into " + std::to_string(parts) + " results does not cover axis " +
           std::to_string(axis) + " of " + to_string(shape));
  std::vector<Value> pieces;
  Ints starts(shape.size(), 0), limits = shape;
  for (int64_t size : sizes) {
    limits[axis] = starts[axis] + size;
    pieces.push_back(c.b.slice(c.operand(0), starts, limits));
    starts[axis] = limits[axis];
  }
  return pieces;
}

// Every step-th element of `axis`, backwards from start to behind limit.
Value reversed(Builder& b, Value x, size_t axis, int64_t start, int64_t limit, int64_t step) {
  Ints positions;
  for (int64_t at = start; at > limit; at += step) positions.push_back(at);
  Tensor indices(TensorType{DType::i64, {static_cast<int64_t>(positions.size())}});
  std::copy(positions.begin(), positions.end(), indices.as<int64_t>().begin());
  return b.call("gather", {x, b.constant(indices)}, {{"axis", static_cast<int64_t>(axis)}});
}

// Bounds of a slice. One that the file holds as a number is checked to mean the same at other sizes than exported.
Ints import_bounds(NodeContext& c, size_t i, const std::string& name, const Ints& axes) {
  if (c.version < 10) return c.int_list(name);
  const NodeContext::Sizes bounds = c.sizes(i, name);
  Ints result = bounds.now;
  const Shape exported = exported_sizes(c.dimensions(0));
  for (size_t k = 0; k < std::min(result.size(), axes.size()); ++k) {
    const size_t axis = c.axis(axes[k], exported.size());
    if (!bounds.is_baked(k)) continue;
    c.check_position(result[k], 0, axis);
    if (result[k] == exported[axis]) result[k] = c.shape(0)[axis];  // the end, wherever it is
  }
  return result;
}

std::vector<Value> import_slice(NodeContext& c) {
  const Shape shape = c.shape(0);
  const bool operands = c.version >= 10;
  Ints axes = operands ? c.ints(1, "starts") : c.int_list("starts");
  std::iota(axes.begin(), axes.end(), 0);
  if (operands && c.has_operand(3)) axes = c.ints(3, "axes");
  if (!operands && c.has_attribute("axes")) axes = c.int_list("axes");
  const Ints starts = import_bounds(c, 1, "starts", axes), ends = import_bounds(c, 2, "ends", axes);
  const Ints steps = operands && c.has_operand(4) ? c.ints(4, "steps") : Ints(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    c.fail("starts, ends, axes and steps differ in length");
  marked_axes(c, axes, shape.size());
  Value x = c.operand(0);
  Ints from(shape.size(), 0), to = shape, by(shape.size(), 1);
  for (size_t i = 0; i < starts.size(); ++i) {
    const size_t axis = c.axis(axes[i], shape.size());
    const int64_t size = shape[axis];
    const auto from_front = [&](int64_t at) { return at < 0 ? at + size : at; };
    if (steps[i] == 0) c.fail("a step is zero");
    if (steps[i] < 0) {
      constexpr int64_t kLongest = 1 << 24;
      if (size > kLongest) c.fail("a negative step over " + std::to_string(size) + " elements is not supported");
      const int64_t start = std::clamp<int64_t>(from_front(starts[i]), -1, size - 1);
      x = reversed(c.b, x, axis, start, std::clamp<int64_t>(from_front(ends[i]), -1, size - 1),
                   std::max<int64_t>(steps[i], -kLongest));
      to[axis] = c.b.shape(x)[axis];
      continue;
    }
    from[axis] = std::clamp<int64_t>(from_front(starts[i]), 0, size);
    to[axis] = std::max(from[axis], std::clamp<int64_t>(from_front(ends[i]), 0, size));
    by[axis] = std::min(steps[i], std::max<int64_t>(size, 1));
  }
  return {c.b.slice(x, from, to, by)};
}

std::vector<Value> import_expand(NodeContext& c) {
  const NodeContext::Sizes target = c.sizes(1, "shape");
  // What was made for a size that the model itself computes now.
  for (size_t from_end = 1; from_end <= std::min(target.now.size(), c.shape(0).size()); ++from_end) {
    const size_t t = target.now.size() - from_end, i = c.shape(0).size() - from_end;
    const Shape exported = exported_sizes(c.dimensions(0)), now = c.shape(0);
    if (!target.is_baked(t) && exported[i] > 1 && exported[i] == target.exported[t] && now[i] == exported[i])
      c.follow(0, i, {{target.exported[t], target.now[t]}});
  }
  const Dimensions from = c.dimensions(0);
  const Shape exported = exported_sizes(from), now = wanted_sizes(from);
  const size_t rank = std::max(target.now.size(), from.size());
  Dimensions to(rank);
  for (size_t from_end = 1; from_end <= rank; ++from_end) {
    const bool wanted_too = from_end <= target.now.size(), has = from_end <= from.size();
    const size_t t = target.now.size() - from_end, i = from.size() - from_end;
    Factor size;
    if (wanted_too) size = {target.exported[t], target.now[t]};
    // A size that the operand has already follows the operand; copies are for the exported size until they meet a
    // value that is read at another.
    if (has && (size.exported == 1 || (size.exported == exported[i] && (size.is_number() || size.wanted == now[i]))))
      to[rank - from_end] = from[i];
    else if (has && now[i] != 1 && now[i] != size.wanted)
      c.fail(to_string(now) + " cannot be expanded to " + to_string(target.now));
    else
      to[rank - from_end] = {size};
  }
  c.set_dimensions(0, to);
  return {c.b.broadcast(c.operand(0), wanted_sizes(to))};
}

// [.., d, ..] repeated r times is [.., 1, d, ..] broadcast to [.., r, d, ..] and flattened.
std::vector<Value> import_tile(NodeContext& c) {
  const Dimensions from = c.dimensions(0);
  const Shape shape = wanted_sizes(from);
  const NodeContext::Sizes repeats = c.sizes(1, "repeats");
  if (repeats.now.size() != shape.size()) c.fail("repeats " + to_string(repeats.now) + " for " + to_string(shape));
  Shape apart, copied;
  Dimensions together;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (repeats.now[i] < 0) c.fail("repeats " + to_string(repeats.now) + " has a negative entry");
    if (shape[i] != 1) apart.push_back(1), copied.push_back(repeats.now[i]);
    apart.push_back(shape[i]), copied.push_back(shape[i] == 1 ? repeats.now[i] : shape[i]);
    together.push_back({{repeats.exported[i], repeats.now[i]}});
    together.back().insert(together.back().end(), from[i].begin(), from[i].end());
  }
  c.set_dimensions(0, together);
  return {c.b.reshape(c.b.broadcast(c.b.reshape(c.operand(0), apart), copied), wanted_sizes(together))};
}

// Blocks of space are [h, r, w, r] apart; depth holds them as [r, r, channels], or as [channels, r, r] in mode CRD.
std::vector<Value> import_depth_to_space(NodeContext& c) {
  const Shape s = c.shape(0);
  const int64_t r = c.integer("blocksize");
  const std::string mode = c.text("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") c.fail("mode '" + mode + "' is not DCR or CRD");
  if (s.size() != 4 || r < 1 || s[1] % checked_mul(r, r, "blocksize") != 0)
    c.fail("[N, channels * " + std::to_string(r) + "^2, H, W] expected, found " + to_string(s));
  const int64_t channels = s[1] / (r * r);
  const bool depth_first = mode == "DCR";
  const Value apart = c.b.reshape(
      c.operand(0), depth_first ? Shape{s[0], r, r, channels, s[2], s[3]} : Shape{s[0], channels, r, r, s[2], s[3]});
  const Value blocks = c.b.transpose(apart, depth_first ? Ints{0, 3, 4, 1, 5, 2} : Ints{0, 1, 4, 2, 5, 3});
  return {c.b.reshape(blocks, {s[0], channels, s[2] * r, s[3] * r})};
}

std::vector<Value> import_space_to_depth(NodeContext& c) {
  const Shape s = c.shape(0);
  const int64_t r = c.integer("blocksize");
  if (s.size() != 4 || r < 1 || s[2] % r != 0 || s[3] % r != 0)
    c.fail("[N, C, H, W] with H and W divisible by " + std::to_string(r) + " expected, found " + to_string(s));
  const Value apart = c.b.reshape(c.operand(0), {s[0], s[1], s[2] / r, r, s[3] / r, r});
  const std::string mode = c.text("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") c.fail("mode '" + mode + "' is unknown; 'DCR' or 'CRD' expected");
  const Value blocks = c.b.transpose(apart, mode == "DCR" ? Ints{0, 3, 5, 1, 2, 4} : Ints{0, 1, 3, 5, 2, 4});
  return {c.b.reshape(blocks, {s[0], checked_mul(s[1], checked_mul(r, r, "blocksize"), "depth"), s[2] / r, s[3] / r})};
}

const std::vector<OnnxOperator> kRows{
    {"Concat", {4}, 1, kVariadic, import_concat},
    {"DepthToSpace", {1, 11}, 1, 1, import_depth_to_space, "two spatial axes"},
    {"Expand", {8}, 2, 2, import_expand, "the shape must be known when the model is compiled"},
    {"Flatten", {1}, 1, 1, import_flatten},
    {"Reshape", {5, 14}, 2, 2, import_reshape, "the shape must be known when the model is compiled"},
    {"Slice", {1, 10}, 1, 5, import_slice, "bounds must be known when the model is compiled"},
    {"SpaceToDepth", {1}, 1, 1, import_space_to_depth, "two spatial axes"},
    {"Split", {2, 13, 18}, 1, 2, import_split, "sizes must be known when the model is compiled"},
    {"Squeeze", {1, 13}, 1, 2, import_squeeze},
    {"Tile", {6}, 2, 2, import_tile, "repeats must be known when the model is compiled"},
    {"Transpose", {1}, 1, 1, import_transpose},
    {"Unsqueeze", {1, 13}, 1, 2, import_unsqueeze},
};

}  // namespace

std::span<const OnnxOperator> movement_operators() { return kRows; }

}  // namespace halfstep
