#include "passes/recognise_attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/known_values.h"
#include "passes/rules.h"

namespace halfstep {
namespace {

constexpr int kDeepest = 16;       // nodes between the two products
constexpr double kHidden = -1e4;   // a score this low or lower means that the key is not seen
constexpr size_t kMostParts = 16;  // of a mask

bool is_hidden(std::optional<double> score) { return score && *score <= kHidden; }

int64_t count_of(const Shape& shape) { return TensorType{DType::u8, shape}.element_count(); }

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

// A mask as it is written: added to scores of the shape `at`, or of a condition under which keys are seen.
struct Mask {
  Value value;
  Shape at;
  double factor = 1;  // of a mask that is added
  enum Kind : uint8_t { added, visible, hidden } kind = added;
};

// What lies between the first product and the second.
struct Weights {
  Value product;  // the matmul of q and k
  double scale = 1, softcap = 0, ratio = 0;
  int64_t site = 0;
  Value seed, iteration;
  std::vector<Mask> masks;
  std::vector<Shape> shapes;  // that the scores are given on the way
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
    return read_scores(v, weights, 1, 0) ? std::optional(weights) : std::nullopt;
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

  // The scores are factor * v and what the masks read so far add.
  bool read_scores(Value v, Weights& weights, double factor, int depth) {
    const Node& node = graph_.node(v);
    if (depth == kDeepest) return false;
    const Shape& shape = node.results[0].shape;
    if (weights.shapes.empty() || weights.shapes.back() != shape) weights.shapes.push_back(shape);
    if (is(node, "matmul")) {
      weights.product = v, weights.scale *= factor;
      return shape.size() == 3;
    }
    if (is_view(node)) return read_scores(node.operands[0], weights, factor, depth + 1);
    if (const auto scaled = constant_factor(graph_, node))
      return read_scores(scaled->of, weights, factor * scaled->number, depth + 1);
    if (is(node, "tanh") && weights.softcap == 0 && factor > 0) {
      weights.softcap = weights.scale = factor;
      return read_scores(node.operands[0], weights, 1, depth + 1);
    }
    if (is(node, "max"))  // held above the lowest number
      for (size_t i : {0u, 1u})
        if (is_hidden(splat(graph_, node.operands[1 - i])))
          return read_scores(node.operands[i], weights, factor, depth + 1);
    if (is(node, "select")) return read_selected(node, weights, factor, depth);
    if (!is(node, "add") || weights.softcap != 0) return false;
    for (size_t i : {0u, 1u}) {
      Weights tried = weights;
      tried.masks.push_back({node.operands[1 - i], shape, factor});
      if (!read_scores(node.operands[i], tried, factor, depth + 1)) continue;
      weights = std::move(tried);
      return true;
    }
    return false;
  }

  bool read_selected(const Node& node, Weights& weights, double factor, int depth) {
    if (weights.softcap != 0 || factor <= 0) return false;
    for (size_t i : {1u, 2u}) {
      const std::optional<double> fill = splat(graph_, node.operands[3 - i]);
      if (!fill || !is_hidden(*fill * factor)) continue;
      weights.masks.push_back({node.operands[0], node.results[0].shape, 1, i == 1 ? Mask::visible : Mask::hidden});
      return read_scores(node.operands[i], weights, factor, depth + 1);
    }
    return false;
  }

  const Graph& graph_;
};

// The batch and the heads as products of the finest leading axes that the scores are given.
struct Heads {
  Shape axes;         // [a, b, ...]
  size_t batch_axes;  // so many of them make the batch
  int64_t batch() const { return count_of({axes.begin(), axes.begin() + static_cast<std::ptrdiff_t>(batch_axes)}); }
  int64_t heads() const { return count_of({axes.begin() + static_cast<std::ptrdiff_t>(batch_axes), axes.end()}); }
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
      const Mask::Kind kind = b.dtype(mask) == DType::boolean ? Mask::visible : Mask::added;
      weights.masks.push_back({b.reshape(mask, shape), {q[0], q[1], q[2], k[2]}, 1, kind});
    }
    return attention(b, {operands[0], operands[1], operands[2]}, weights, {{q[0], q[1]}, 1}, node.attributes);
  }

  // No results if the masks do not fit.
  std::vector<Value> attention(Builder& b, std::vector<Value> operands, const Weights& weights, const Heads& heads,
                               Attributes attributes) {
    const Value k = unrepeated(b, operands[1]), v = unrepeated(b, operands[2]);
    if (b.shape(k)[1] == b.shape(v)[1]) operands[1] = k, operands[2] = v;
    attributes.set("scale", unrounded(attributes.number("scale"), b.shape(operands[0])[3]));
    bool causal = false;
    const std::optional<Value> mask = joined_mask(b, weights, heads, causal);
    if (!mask) return {};
    if (causal) attributes.set("causal", int64_t{1});
    if (*mask || weights.ratio > 0) operands.push_back(*mask);
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

  // ---- masks ----

  // All masks as one, absent if there is none; nullopt if one cannot be brought to [batch, heads, S, T]. Sets `causal`
  // where one of them is that.
  std::optional<Value> joined_mask(Builder& b, const Weights& weights, const Heads& heads, bool& causal) {
    Value visible, added;
    for (const Mask& mask : weights.masks) {
      for (const Mask& part : parts(b.graph(), mask)) {
        const Effect effect = effect_of(b, part);
        causal |= effect == Effect::causal;
        if (effect != Effect::other) continue;
        Value small = in_head_axes(b, part, heads);
        if (!small) return std::nullopt;
        if (part.kind == Mask::added) {
          if (part.factor != 1) small = b.mul(small, part.factor);
          added = added ? b.add(added, small) : small;
          continue;
        }
        if (part.kind == Mask::hidden) small = b.unary("not", small);
        visible = visible ? b.binary("and", visible, small) : small;
      }
    }
    if (!added || !visible) return added ? added : visible;
    const DType type = b.dtype(added);
    const Value hidden = b.constant(type, -std::numeric_limits<double>::infinity());
    return b.add(added, b.select(visible, b.constant(type, 0), hidden));
  }

  // The mask's terms; one that selects between a score and a hidden one is a condition and that score.
  static std::vector<Mask> parts(const Graph& graph, const Mask& mask) {
    std::vector<Mask> result, open{mask};
    while (!open.empty()) {
      const Mask part = open.back();
      open.pop_back();
      const std::vector<Mask> finer =
          result.size() + open.size() < kMostParts ? taken_apart(graph, part) : std::vector<Mask>();
      if (finer.empty()) result.push_back(part);
      open.insert(open.end(), finer.rbegin(), finer.rend());
    }
    return result;
  }

  static std::vector<Mask> taken_apart(const Graph& graph, const Mask& mask) {
    const Node& node = graph.node(unspread(graph, mask.value));
    const auto as = [&](size_t operand, Mask::Kind kind) {
      Mask part = mask;
      part.value = node.operands[operand], part.kind = kind;
      return part;
    };
    if (mask.kind != Mask::added) {
      if (is(node, "not")) return {as(0, mask.kind == Mask::visible ? Mask::hidden : Mask::visible)};
      if (is(node, mask.kind == Mask::visible ? "and" : "or")) return {as(0, mask.kind), as(1, mask.kind)};
      return {};
    }
    if (is(node, "add")) return {as(0, Mask::added), as(1, Mask::added)};
    if (!is(node, "select") || mask.factor <= 0) return {};
    const auto hides = [&](size_t operand) {
      const std::optional<double> score = splat(graph, node.operands[operand]);
      return score && is_hidden(*score * mask.factor);
    };
    if (hides(2)) return {as(0, Mask::visible), as(1, Mask::added)};
    if (hides(1)) return {as(0, Mask::hidden), as(2, Mask::added)};
    return {};
  }

  static Value unspread(const Graph& graph, Value v) {
    return is(graph.node(v), "broadcast") ? graph.node(v).operands[0] : v;
  }

  enum class Effect : uint8_t { none, causal, other };

  // What a mask that is known at compile time does.
  Effect effect_of(Builder& b, const Mask& mask) {
    const Value v = unspread(b.graph(), mask.value);
    if (const auto number = splat(b.graph(), v)) {
      if (mask.kind == Mask::added) return std::isfinite(*number) ? Effect::none : Effect::other;
      return (*number != 0) == (mask.kind == Mask::visible) ? Effect::none : Effect::other;
    }
    const std::vector<double>* values = constants_.of(b.graph(), v);
    const Shape shape = b.shape(v);
    if (!values || shape.size() < 2) return Effect::other;
    const int64_t queries = shape[shape.size() - 2], keys = shape.back();
    bool all = true, causal = queries == mask.at[mask.at.size() - 2] && keys == mask.at.back();
    for (size_t i = 0; i < values->size() && (all || causal); ++i) {
      const double x = (*values)[i];
      bool seen = (x != 0) == (mask.kind == Mask::visible);
      if (mask.kind == Mask::added) {
        seen = x == 0;
        if (!seen && !is_hidden(x * mask.factor)) return Effect::other;
      }
      const auto at = static_cast<int64_t>(i);
      all &= seen;
      causal &= seen == (at % keys <= at / keys % queries);
    }
    return all ? Effect::none : causal ? Effect::causal : Effect::other;
  }

  // A mask of scores [leading axes of its place, S, T] as one that broadcasts to [batch, heads, S, T]; absent if its
  // axes do not fit.
  static Value in_head_axes(Builder& b, const Mask& mask, const Heads& heads) {
    Value v = unspread(b.graph(), mask.value);
    const Shape place = leading(mask.at), small = b.shape(v);
    if (small.size() != mask.at.size()) return {};
    const std::optional<AxisSplit> split = split_axes(place, heads.axes);
    if (!split) return {};
    Shape fine(heads.axes.size(), 1);  // the mask's sizes along heads.axes
    for (size_t i = 0; i < place.size(); ++i)
      for (size_t axis : (*split)[i]) fine[axis] = small[i] == 1 ? 1 : heads.axes[axis];
    const int64_t queries = small[small.size() - 2], keys = small.back();
    const auto with_matrices = [&](Shape shape) {
      shape.insert(shape.end(), {queries, keys});
      return shape;
    };
    v = reshaped(b, v, with_matrices(fine));
    // Axes that make the batch, or the heads, together are repeated unless the mask has none of them.
    Shape target = fine, joined;
    const std::array<std::pair<size_t, size_t>, 2> groups{{{0, heads.batch_axes}, {heads.batch_axes, fine.size()}}};
    for (const auto& [first, last] : groups) {
      const auto begin = fine.begin() + static_cast<std::ptrdiff_t>(first),
                 end = fine.begin() + static_cast<std::ptrdiff_t>(last);
      const bool has_none = std::all_of(begin, end, [](int64_t size) { return size == 1; });
      int64_t size = 1;
      for (size_t i = first; i < last && !has_none; ++i) target[i] = heads.axes[i], size *= heads.axes[i];
      joined.push_back(size);
    }
    return b.reshape(b.broadcast(v, with_matrices(target)), with_matrices(joined));
  }

  const Graph& graph_;
  KnownValues constants_;  // of the graph being built: all layers share their masks
};

}  // namespace

Graph recognise_attention(const Graph& graph) { return RecogniseAttention(graph).run(); }

}  // namespace halfstep
