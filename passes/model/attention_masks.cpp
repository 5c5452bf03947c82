#include "passes/model/attention_masks.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr size_t kMostTerms = 16;

int64_t count_of(std::span<const int64_t> shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

Shape leading(const Shape& shape) { return {shape.begin(), shape.end() - 2}; }

Value unspread(const Graph& graph, Value v) { return is(graph.node(v), "broadcast") ? graph.node(v).operands[0] : v; }

// A mask of scores [leading axes of its place, S, T] as one that broadcasts to [batch, heads, S, T]; absent if its axes
// do not fit.
Value in_head_axes(Builder& b, const ScoreMask& mask, const Heads& heads) {
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

}  // namespace

int64_t Heads::batch() const { return count_of(std::span(axes).first(batch_axes)); }
int64_t Heads::heads() const { return count_of(std::span(axes).subspan(batch_axes)); }

bool AttentionMasks::depends_on_input(const Graph& graph, Value v) {
  for (NodeId id = static_cast<NodeId>(on_input_.size()); id <= v.node; ++id) {
    const Node& node = graph.node(id);
    on_input_.push_back(is(node, "input") || std::ranges::any_of(node.operands, [&](Value operand) {
                          return operand && on_input_[static_cast<size_t>(operand.node)];
                        }));
  }
  return on_input_[static_cast<size_t>(v.node)];
}

namespace {

// The numbers along `axis` of a value [.., S, T] that has the size 1 along the other of its last two, if they are the
// same for all leading axes; else none.
std::vector<double> numbers_along(const Shape& shape, size_t axis, const std::vector<double>& values) {
  const size_t rank = shape.size(), other = axis == rank - 1 ? rank - 2 : rank - 1;
  if (shape[other] != 1 || values.empty()) return {};
  const auto length = static_cast<size_t>(shape[axis]);
  for (size_t i = length; i < values.size(); ++i)
    if (values[i] != values[i - length]) return {};
  return {values.begin(), values.begin() + static_cast<std::ptrdiff_t>(length)};
}

}  // namespace

// A comparison of numbers of the queries, [.., S, 1], with numbers of the keys, [.., 1, T], as of positions: known from
// these, without its S T elements.
std::optional<AttentionMasks::Effect> AttentionMasks::effect_of_positions(const Graph& graph, const ScoreMask& mask,
                                                                          const Node& comparison) {
  const bool reflexive = is(comparison, "less_equal");
  const size_t rank = comparison.results[0].shape.size();
  if (mask.kind == ScoreMask::added || rank < 2 || !(reflexive || is(comparison, "less"))) return {};
  std::array<std::vector<double>, 2> sides;  // of the comparison
  std::optional<size_t> keys;                // the side that the keys have
  for (size_t side : {0u, 1u}) {
    const Value v = unspread(graph, comparison.operands[side]);
    const Shape& shape = graph.type(v).shape;
    const std::vector<double>* values = shape.size() == rank ? constants_.of(graph, v) : nullptr;
    if (!values) return {};
    const bool of_keys = shape[rank - 2] == 1 && shape[rank - 1] != 1;
    sides[side] = numbers_along(shape, of_keys ? rank - 1 : rank - 2, *values);
    if (sides[side].empty()) return {};
    if (of_keys && keys) return {};
    if (of_keys) keys = side;
  }
  const auto holds = [&](double x, double y) { return reflexive ? x <= y : x < y; };
  const auto [x_least, x_most] = std::ranges::minmax(sides[0]);
  const auto [y_least, y_most] = std::ranges::minmax(sides[1]);
  const bool visible = mask.kind == ScoreMask::visible;
  if (visible ? holds(x_most, y_least) : !holds(x_least, y_most)) return Effect{Effect::none};
  // The keys up to a query's own are seen: of rising keys its own is, and the next is not.
  if (!keys || (*keys == 0) != visible || !std::ranges::is_sorted(sides[*keys])) return {};
  const std::vector<double>&of_keys = sides[*keys], &of_queries = sides[1 - *keys];
  const size_t count = of_queries.size();
  if (of_keys.size() != count || mask.at.end()[-2] != mask.at.back() || static_cast<int64_t>(count) != mask.at.back())
    return {};
  const auto sees = [&](size_t query, size_t key) {
    return (*keys == 0 ? holds(of_keys[key], of_queries[query]) : holds(of_queries[query], of_keys[key])) == visible;
  };
  for (size_t i = 0; i < count; ++i)
    if (!sees(i, i) || (i + 1 < count && sees(i, i + 1))) return {};
  return Effect{Effect::causal, mask.score};
}

// What a mask does that is known at compile time; of others, a bias made of weights hides nothing.
AttentionMasks::Effect AttentionMasks::effect_of(Builder& b, const ScoreMask& mask) {
  const Value v = unspread(b.graph(), mask.value);
  const bool added = mask.kind == ScoreMask::added;
  if (const auto number = splat(b.graph(), v)) {
    const bool idle = added ? std::isfinite(*number) : (*number != 0) == (mask.kind == ScoreMask::visible);
    return {idle ? Effect::none : Effect::hides};
  }
  if (const auto effect = effect_of_positions(b.graph(), mask, b.graph().node(v))) return *effect;
  const Shape shape = b.shape(v);
  // Of large masks only those are looked at whole that are not taken apart.
  constexpr int64_t kLarge = int64_t{1} << 20;
  const Node& node = b.graph().node(v);
  const bool has_parts = is(node, "not") || is(node, "and") || is(node, "or") || is(node, "add") || is(node, "select");
  if (has_parts && node.results[0].element_count() > kLarge) return {Effect::hides};
  const std::vector<double>* values = constants_.of(b.graph(), v);
  if (!values || shape.size() < 2)
    return {added && !values && !depends_on_input(b.graph(), v) ? Effect::biases : Effect::hides};
  const int64_t queries = shape[shape.size() - 2], keys = shape.back();
  bool all = true, causal = queries == mask.at[mask.at.size() - 2] && keys == mask.at.back(), hides = !added;
  double score = mask.score;  // of the keys not seen; of an added mask the one that all of them have
  bool some = !added;
  for (size_t i = 0; i < values->size(); ++i) {
    const double x = (*values)[i];
    bool seen = (x != 0) == (mask.kind == ScoreMask::visible);
    if (added) {
      seen = x == 0;
      const double here = x * mask.factor;
      const bool is_hidden = !seen && !(here > -1e4);
      hides |= is_hidden;
      if (!seen) causal &= is_hidden && (!some || score == here), score = here, some = true;
    }
    const auto at = static_cast<int64_t>(i);
    all &= seen;
    causal &= seen == (at % keys <= at / keys % queries);
  }
  if (all) return {Effect::none};
  if (causal) return {Effect::causal, score};
  return {hides ? Effect::hides : Effect::biases};
}

// From the softmax inwards: conditions and what is added. Adding -infinity is selecting it; adding a finite number lets
// the score's gradient through where a query sees no key, so that it counts as a selection only where `all_see` one.
void AttentionMasks::take_apart(Builder& b, const ScoreMask& mask, bool all_see, std::vector<Term>& terms) {
  const Effect effect = effect_of(b, mask);
  if (effect.kind == Effect::none) return;
  const bool added = mask.kind == ScoreMask::added;
  if (effect.kind == Effect::causal) {
    Term term{mask, true, true};
    term.mask.score = effect.score;
    terms.push_back(std::move(term));
    return;
  }
  const Node node = b.graph().node(unspread(b.graph(), mask.value));
  const auto part = [&](size_t operand, ScoreMask::Kind kind) {
    ScoreMask p = mask;
    p.value = node.operands[operand], p.kind = kind;
    return p;
  };
  const auto parts = [&](ScoreMask::Kind kind) {
    for (size_t i : {0u, 1u}) take_apart(b, part(i, kind), all_see, terms);
  };
  const bool room = terms.size() < kMostTerms;
  if (room && !added && is(node, "not"))
    return take_apart(b, part(0, mask.kind == ScoreMask::visible ? ScoreMask::hidden : ScoreMask::visible), all_see,
                      terms);
  if (room && !added && is(node, mask.kind == ScoreMask::visible ? "and" : "or")) return parts(mask.kind);
  if (room && added && is(node, "add")) return parts(ScoreMask::added);
  if (room && added && is(node, "select") && mask.factor > 0)
    for (size_t i : {2u, 1u}) {
      const std::optional<double> score = splat(b.graph(), node.operands[i]);
      if (!is_hidden_score(score) || (!all_see && std::isfinite(*score))) continue;
      take_apart(b, part(0, i == 2 ? ScoreMask::visible : ScoreMask::hidden), all_see, terms);
      return take_apart(b, part(3 - i, ScoreMask::added), all_see, terms);
    }
  terms.push_back({mask, false, !added || effect.kind == Effect::hides});
}

std::optional<JoinedMask> AttentionMasks::join(Builder& b, std::span<const ScoreMask> masks, const Heads& heads) {
  std::vector<Term> terms;
  for (const ScoreMask& mask : masks) take_apart(b, mask, true, terms);
  // A causal mask alone leaves every query its first key.
  const bool all_see = std::ranges::all_of(terms, [](const Term& t) { return t.causal || !t.hides; });
  if (!all_see) {
    terms.clear();
    for (const ScoreMask& mask : masks) take_apart(b, mask, false, terms);
  }
  const auto is_condition = [&](const Term& t) {
    return t.mask.kind != ScoreMask::added || (t.causal && (all_see || std::isinf(t.score())));
  };
  std::vector<Term> conditions, additions;
  bool selected_last = true;  // no condition stands inside of what is added
  for (const Term& t : terms) {
    selected_last &= !is_condition(t) || additions.empty();
    (is_condition(t) ? conditions : additions).push_back(t);
  }
  JoinedMask result;
  if (!all_see && !conditions.empty()) result.fill = conditions.front().score();
  if (std::isfinite(result.fill)) {
    const bool fits = std::ranges::all_of(conditions, [&](const Term& t) {
      return t.score() == result.fill && (additions.empty() || (selected_last && t.causal));
    });
    if (!fits) return std::nullopt;
  } else if (!all_see && std::ranges::any_of(conditions, [](const Term& t) { return std::isfinite(t.score()); })) {
    return std::nullopt;
  }

  const auto placed = [&](const Term& t) {
    Value v = in_head_axes(b, t.mask, heads);
    if (v && t.mask.kind == ScoreMask::added && t.mask.factor != 1) v = b.mul(v, t.mask.factor);
    return v && t.mask.kind == ScoreMask::hidden ? b.unary("not", v) : v;
  };
  Value visible, added;
  for (const Term& t : conditions) {
    result.causal |= t.causal;
    if (t.causal) continue;
    const Value v = placed(t);
    if (!v) return std::nullopt;
    visible = visible ? b.binary("and", visible, v) : v;
  }
  for (const Term& t : additions) {
    const Value v = placed(t);
    if (!v || (t.hides && std::isfinite(t.mask.floor))) return std::nullopt;
    added = added ? b.add(added, v) : v;
  }
  result.mask = added ? added : visible;
  if (added && visible) {
    const DType type = b.dtype(added);
    result.mask = b.add(added, b.select(visible, b.constant(type, 0), b.constant(type, -kInfinity)));
  }
  return result;
}

}  // namespace halfstep
