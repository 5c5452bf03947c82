#include "passes/model/recognise_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/model/attention_masks.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int kDeepest = 16;  // nodes between the two products

// value = factor * unscaled
struct Scaled {
  Value unscaled;
  double factor = 1;
};

// The factor of a product with a constant, and which operand it multiplies.
struct Factor {
  double number;
  Value of;
};
std::optional<Factor> constant_factor(const Graph& graph, const Node& node) {
  if (is(node, "mul"))
    for (size_t i : {1u, 0u})
      if (const auto number = splat(graph, node.operands[i])) return Factor{*number, node.operands[1 - i]};
  if (is(node, "div"))
    if (const auto number = splat(graph, node.operands[1]); number && *number != 0)
      return Factor{1 / *number, node.operands[0]};
  return std::nullopt;
}

// Takes constant factors out, also from behind movements.
Scaled without_scale(Builder& b, Value v, int depth = 0) {
  const Node node = b.graph().node(v);
  if (depth == kDeepest) return {v};
  if (const auto factor = constant_factor(b.graph(), node)) {
    const Scaled inner = without_scale(b, factor->of, depth + 1);
    return {inner.unscaled, inner.factor * factor->number};
  }
  if (node.op->kernel != KernelKind::movement || node.operands.size() != 1 || is(node, "pad")) return {v};
  const Scaled inner = without_scale(b, node.operands[0], depth + 1);
  if (inner.factor == 1) return {v};
  const Value moved = is(node, "reshape")     ? reshaped(b, inner.unscaled, node.results[0].shape)
                      : is(node, "transpose") ? permuted_axes(b, inner.unscaled, node.attributes.ints("permutation"))
                                              : b.call_all(*node.op, {inner.unscaled}, node.attributes).front();
  return {moved, inner.factor};
}

// The nodes between the first product and the second.
struct Weights {
  Value product;  // the matmul of q and k
  double scale = 1, softcap = 0, ratio = 0;
  int64_t site = 0;
  Value seed, iteration;
  std::vector<ScoreMask> masks;  // from the softmax on
  std::vector<Shape> shapes;     // that the scores are given on the way
};

// Whether `to` is `from` with other leading axes: [.., S, T].
bool keeps_matrices(const Shape& from, const Shape& to) {
  return from.size() >= 2 && to.size() >= 2 && std::equal(from.end() - 2, from.end(), to.end() - 2);
}

// From the second product's operand up to the first product.
class WeightsReader {
 public:
  explicit WeightsReader(const Graph& graph) : graph_(graph) {}

  std::optional<Weights> read(Value v) {
    Weights weights;
    if (!read_softmax(v, weights)) return std::nullopt;
    return read_scores(v, weights, {}) ? std::optional(weights) : std::nullopt;
  }

 private:
  // Leaves `v` at the operand of the softmax.
  bool read_softmax(Value& v, Weights& weights) {
    for (int depth = 0; depth < kDeepest; ++depth) {
      const Node& node = graph_.node(v);
      if (is(node, "softmax")) {
        v = node.operands[0];
        return node.attributes.integer("axis") + 1 == static_cast<int64_t>(node.results[0].shape.size());
      }
      if (is(node, "dropout") && weights.ratio == 0) {
        weights.ratio = node.attributes.number("ratio"), weights.site = node.attributes.integer("site");
        weights.seed = node.operands[1], weights.iteration = node.operands[2];
      } else if (is_guard(node)) {
        v = node.operands[2];
        continue;
      } else if (!is_view(node)) {
        return false;
      }
      v = node.operands[0];
    }
    return false;
  }

  // select(is_nan(x), 0, x)
  bool is_guard(const Node& node) const {
    if (!is(node, "select") || splat(graph_, node.operands[1]) != std::optional(0.0)) return false;
    const Node& condition = graph_.node(node.operands[0]);
    return is(condition, "is_nan") && condition.operands[0] == node.operands[2];
  }

  bool is_view(const Node& node) const {
    if (is(node, "cast")) return is_floating(node.results[0].dtype) && is_floating(graph_.type(node.operands[0]).dtype);
    return is(node, "reshape") && keeps_matrices(graph_.type(node.operands[0]).shape, node.results[0].shape);
  }

  // Where the reader is: the scores are factor * v and what the masks read so far make of it, held above `floor`.
  struct Place {
    double factor = 1;
    double floor = -std::numeric_limits<double>::infinity();
    int depth = 0;
    Place inside(double by = 1) const { return {factor * by, floor, depth + 1}; }
  };

  bool read_scores(Value v, Weights& weights, const Place& place) {
    const Node& node = graph_.node(v);
    if (place.depth == kDeepest) return false;
    const Shape& shape = node.results[0].shape;
    if (weights.shapes.empty() || weights.shapes.back() != shape) weights.shapes.push_back(shape);
    if (is(node, "matmul")) {
      weights.product = v, weights.scale *= place.factor;
      return shape.size() == 3;
    }
    if (is_view(node)) return read_scores(node.operands[0], weights, place.inside());
    if (const auto scaled = constant_factor(graph_, node))
      return read_scores(scaled->of, weights, place.inside(scaled->number));
    if (is(node, "tanh") && weights.softcap == 0 && place.factor > 0) {
      weights.softcap = weights.scale = place.factor;
      return read_scores(node.operands[0], weights, {1, place.floor, place.depth + 1});
    }
    if (is(node, "max") && place.factor > 0)  // held above the lowest number
      for (size_t i : {0u, 1u}) {
        const std::optional<double> floor = splat(graph_, node.operands[1 - i]);
        if (!is_hidden_score(floor)) continue;
        return read_scores(node.operands[i], weights,
                           {place.factor, std::max(place.floor, *floor * place.factor), place.depth + 1});
      }
    if (is(node, "select")) return read_selected(node, weights, place);
    if (!is(node, "add") || weights.softcap != 0) return false;
    for (size_t i : {0u, 1u}) {
      Weights tried = weights;
      tried.masks.push_back({.value = node.operands[1 - i], .at = shape, .factor = place.factor, .floor = place.floor});
      if (!read_scores(node.operands[i], tried, place.inside())) continue;
      weights = std::move(tried);
      return true;
    }
    return false;
  }

  bool read_selected(const Node& node, Weights& weights, const Place& place) {
    if (weights.softcap != 0 || place.factor <= 0) return false;
    for (size_t i : {1u, 2u}) {
      const std::optional<double> fill = splat(graph_, node.operands[3 - i]);
      if (!fill || !is_hidden_score(*fill * place.factor)) continue;
      weights.masks.push_back({.value = node.operands[0],
                               .at = node.results[0].shape,
                               .score = *fill * place.factor,
                               .floor = place.floor,
                               .kind = i == 1 ? ScoreMask::visible : ScoreMask::hidden});
      return read_scores(node.operands[i], weights, place.inside());
    }
    return false;
  }

  const Graph& graph_;
};

Shape leading(const Shape& shape) { return {shape.begin(), shape.end() - 2}; }

// Windows [batch, windows, heads, S, T] whose masks are the same for all of the batch belong to the heads.
Heads find_heads(const Weights& weights) {
  const Shape* finest = &weights.shapes.front();
  for (const Shape& shape : weights.shapes)
    if (shape.size() > finest->size()) finest = &shape;
  const Shape axes = leading(*finest);
  if (axes.size() <= 1) return {axes, axes.size()};
  return {axes, axes.size() == 2 ? size_t{1} : axes.size() - 2};
}

class RecogniseAttention {
 public:
  explicit RecogniseAttention(const Graph& graph) : graph_(graph) {}

  Graph run() {
    return rewrite(graph_, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
      if (is(node, "attention")) return simpler(b, node, operands);
      if (!is(node, "matmul") || node.results[0].shape.size() != 3 || node.attributes.integer("transpose_a") != 0)
        return {};
      const std::optional<Weights> weights = WeightsReader(b.graph()).read(operands[0]);
      if (!weights) return {};
      const std::vector<Value> results = recognised(b, *weights, operands[1], node);
      if (results.empty()) return {};
      return {b.reshape(results[0], node.results[0].shape)};
    });
  }

 private:
  std::vector<Value> recognised(Builder& b, const Weights& weights, Value value, const Node& second) {
    const Node first = b.graph().node(weights.product);
    const Heads heads = find_heads(weights);
    const auto flag = [](const Node& node, const char* name) { return node.attributes.integer(name) != 0; };
    const Scaled query = without_scale(b, first.operands[0]), key = without_scale(b, first.operands[1]);
    const Value q = in_heads(b, query.unscaled, heads, flag(first, "transpose_a")),
                k = in_heads(b, key.unscaled, heads, !flag(first, "transpose_b")),
                v = in_heads(b, value, heads, flag(second, "transpose_b"));
    const double scale = weights.scale * query.factor * key.factor;
    return attention(b, {q, k, v}, weights, heads, {{"scale", scale}, {"softcap", weights.softcap}});
  }

  // An attention that the model has as one operator.
  std::vector<Value> simpler(Builder& b, const Node& node, std::span<const Value> operands) {
    const Shape q = b.shape(operands[0]), k = b.shape(operands[1]);
    const auto given = [&](size_t i) { return i < operands.size() ? operands[i] : Value{}; };
    Weights weights;
    weights.ratio = node.attributes.number("ratio"), weights.site = node.attributes.integer("site");
    weights.seed = given(4), weights.iteration = given(5);
    if (const Value mask = given(3)) {
      Shape shape = b.shape(mask);
      shape.insert(shape.begin(), 4 - shape.size(), 1);
      weights.masks.push_back({.value = b.reshape(mask, shape),
                               .at = {q[0], q[1], q[2], k[2]},
                               .score = node.attributes.number("fill"),
                               .kind = b.dtype(mask) == DType::boolean ? ScoreMask::visible : ScoreMask::added});
    }
    return attention(b, {operands[0], operands[1], operands[2]}, weights, {{q[0], q[1]}, 1}, node.attributes);
  }

  // No results if the masks do not fit.
  std::vector<Value> attention(Builder& b, std::vector<Value> operands, const Weights& weights, const Heads& heads,
                               Attributes attributes) {
    const Value k = unrepeated(b, operands[1]), v = unrepeated(b, operands[2]);
    if (b.shape(k)[1] == b.shape(v)[1]) operands[1] = k, operands[2] = v;
    attributes.set("scale", unrounded(attributes.number("scale"), b.shape(operands[0])[3]));
    const std::optional<JoinedMask> joined = masks_.join(b, weights.masks, heads);
    if (!joined) return {};
    if (joined->causal) attributes.set("causal", int64_t{1});
    if (std::isfinite(joined->fill)) attributes.set("fill", joined->fill);
    if (joined->mask || weights.ratio > 0) operands.push_back(joined->mask);
    if (weights.ratio > 0) {
      attributes.set("ratio", weights.ratio), attributes.set("site", weights.site);
      operands.insert(operands.end(), {weights.seed, weights.iteration});
    }
    return b.call_all(op("attention"), std::move(operands), std::move(attributes));
  }

  // The usual scale comes rounded to f32, or as a product of two rounded roots.
  static double unrounded(double scale, int64_t depth) {
    const double usual = 1 / std::sqrt(static_cast<double>(depth));
    return std::abs(scale - usual) <= 1e-6 * usual ? usual : scale;
  }

  // [batch * heads, m, n] as [batch, heads, m, n], with the last two axes exchanged if they are `swapped`.
  static Value in_heads(Builder& b, Value v, const Heads& heads, bool swapped) {
    const Shape shape = b.shape(v);
    const Value apart = reshaped(b, v, {heads.batch(), heads.heads(), shape[1], shape[2]});
    return swapped ? permuted_axes(b, apart, {0, 1, 3, 2}) : apart;
  }

  // Heads that repeat each of fewer heads some times in a row, as these.
  static Value unrepeated(Builder& b, Value v) {
    const Shape shape = b.shape(v);
    Value repeated = v;
    if (is(b.graph().node(v), "reshape")) repeated = b.graph().node(v).operands[0];
    if (!is(b.graph().node(repeated), "broadcast")) return v;
    const Value once = b.graph().node(repeated).operands[0];
    const Shape from = b.shape(once), to = b.shape(repeated);
    const size_t axis = to.size() == 5 ? 2 : 1;  // [batch, kept heads, repetitions, T, D] or [batch, heads, T, D]
    Shape expected = to;
    if (axis >= to.size() || to.size() < 4 || to.size() > 5) return v;
    expected[axis] = 1;
    if (from != expected || to[0] != shape[0] || !std::equal(to.end() - 2, to.end(), shape.end() - 2)) return v;
    return reshaped(b, once, {shape[0], axis == 2 ? to[1] : 1, shape[2], shape[3]});
  }

  const Graph& graph_;
  AttentionMasks masks_;  // of the graph being built
};

}  // namespace

Graph recognise_attention(const Graph& graph) { return RecogniseAttention(graph).run(); }

}  // namespace halfstep
