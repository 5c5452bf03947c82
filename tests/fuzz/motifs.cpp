#include "tests/fuzz/motifs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace halfstep::fuzz {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLowest = -3.4028234663852886e38;

Ints last_axis(const Shape& s) { return {static_cast<int64_t>(s.size()) - 1}; }

// x w + bias: a product that low precision rounds, and a sum that fusion computes again.
Value linear(GraphMaker& m) {
  Random& r = m.random;
  const Value x = m.with_rank(m.any(1, 3), 2);
  const int64_t in = m.b.shape(x)[1], out = m.size();
  const Value w = r.chance(0.3) ? m.parameter({out, in}, r.chance(0.5) ? Distribution::grid : Distribution::normal)
                                : m.leaf({out, in});
  const Value y = m.b.matmul(x, w, {{"transpose_b", int64_t{1}}});
  return r.chance(0.85) ? m.b.add(y, r.chance(0.2) ? m.parameter({out}, Distribution::zeros) : m.leaf({out})) : y;
}

void extremes(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const Value x = linear(m);
  const Shape s = b.shape(x);
  if (b.type(x).element_count() == 0) throw GraphMaker::Unfit();
  const auto clip = [&](Value v, double low, double high) {
    return b.call("min", {b.call("max", {v, m.constant(b.shape(v), low)}), m.constant(b.shape(v), high)});
  };
  switch (r.below(7)) {
    case 0:
      return m.give(b.call(r.chance(0.5) ? "max" : "min", {x, m.joining(s)}));
    case 1:
      return m.give(b.reduce(r.chance(0.5) ? "reduce_max" : "reduce_min", x, {r.below(2)}));
    case 2:  // hard sigmoid
      return m.give(clip(b.add(b.mul(x, r.chance(0.5) ? 0.2 : 1.0 / 6), 0.5), 0, 1));
    case 3:
      return m.give(clip(x, -1, 1));
    case 4: {  // log-sum-exp
      const Value most = b.call("reduce_max", {x}, {{"axes", last_axis(s)}});
      const Value sum = b.call("reduce_sum", {b.unary("exp", b.sub(x, most))}, {{"axes", last_axis(s)}});
      return m.give(b.add(b.unary("log", sum), most));
    }
    case 5: {  // squeeze and excite
      const Value gate = clip(b.add(b.mul(x, 1.0 / 6), 0.5), 0, 1);
      return m.give(b.mul(gate, b.reduce("reduce_max", x, {r.below(2)})));
    }
    default: {
      const Value other = linear(m);
      return m.give(b.shape(other) == s ? b.call("max", {x, other}) : b.unary("relu", x));
    }
  }
}

// One parameter, cut along two axes; each piece goes its own way.
void cut_parameter(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const int64_t rows = r.between(int64_t{1}, int64_t{4}), columns = r.between(int64_t{2}, int64_t{40});
  const Value w = m.parameter({rows, columns});
  const int64_t pieces = r.between(int64_t{2}, int64_t{4});
  for (int64_t row = 0; row < rows && row < 2; ++row)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t from = piece * columns / pieces, to = (piece + 1) * columns / pieces;
      if (from == to) continue;
      const Value cut = b.slice(w, {row, from}, {row + 1, to});
      const Value vector = r.chance(0.8) ? b.reshape(cut, {to - from}) : cut;
      const std::vector<std::string_view> ops{"tanh", "sigmoid", "exp", "relu", "neg"};
      const Value used = r.chance(0.5) ? b.mul(vector, m.leaf(b.shape(vector)))
                                       : b.add(m.leaf({r.between(int64_t{1}, int64_t{5}), to - from}), vector);
      m.give(r.chance(0.5) ? b.unary(r.pick(ops), used) : used);
    }
}

void norm(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const Value x = r.chance(0.4) ? m.parameter(m.shape(1, 3), r.chance(0.5) ? Distribution::rows : Distribution::zeros)
                                : m.any(1, 3);
  const Shape s = b.shape(x);
  const Value powers = r.chance(0.5)   ? b.mul(x, x)
                       : r.chance(0.5) ? b.call("pow", {x, m.constant(s, 2)})
                                       : b.unary("abs", x);
  const Value sum = b.call("reduce_sum", {powers}, {{"axes", r.chance(0.8) ? last_axis(s) : Ints{0}}});
  const Value root = r.chance(0.7) ? b.unary("sqrt", sum)
                                   : b.call("pow", {sum, m.constant(b.shape(sum), r.chance(0.5) ? 0.5 : 1.0 / 3)});
  if (r.chance(0.4)) return m.give(root);
  const double epsilon = r.chance(0.5) ? 1e-12 : 1e-5;
  const Value bounded =
      r.chance(0.7) ? b.call("max", {root, m.constant(b.shape(root), epsilon)}) : b.add(root, epsilon);
  m.give(b.div(x, b.broadcast(bounded, s)));
}

void power(GraphMaker& m) {
  const Value x = m.random.chance(0.5) ? m.parameter(m.shape(1, 2), Distribution::rows) : m.any(1, 3);
  const std::vector<double> exponents{0, 1, 2, 3, 0.5, 1.5};
  const Shape s = m.b.shape(x);
  const Value base = m.random.chance(0.5) ? m.b.unary("abs", x) : m.b.unary("relu", x);
  m.give(m.b.call(
      "pow", {base, m.random.chance(0.7) ? m.constant(s, m.random.pick(exponents)) : m.b.unary("abs", m.shaped(s))}));
}

// Angles of rotary embeddings: positions times frequencies, by broadcasting or as a product over one element.
void rotary(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const int64_t length = r.between(int64_t{2}, int64_t{9}), half = r.between(int64_t{1}, int64_t{4});
  const double stride = r.chance(0.5) ? 1 : r.chance(0.5) ? 117 : 801;
  const Value position =
      b.mul(b.cast(b.call("iota", {}, {{"shape", Shape{length, 1}}, {"axis", int64_t{0}}}), DType::f32), stride);
  Tensor frequencies({DType::f32, {1, half}});
  for (int64_t i = 0; i < half; ++i)
    frequencies.set(i, std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half)));
  const Value frequency = b.constant(frequencies);
  const Value angle = r.chance(0.5) ? b.matmul(position, frequency) : b.mul(position, frequency);
  const Value x = m.shaped({length, half}), y = m.shaped({length, half});
  const Value cosine = b.unary("cos", angle), sine = b.unary("sin", angle);
  m.give(b.sub(b.mul(x, cosine), b.mul(y, sine)));
  if (r.chance(0.5)) m.give(b.add(b.mul(x, sine), b.mul(y, cosine)));
}

// Scalars that half precision does not hold, where models have them.
void scalars(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const Value x = r.chance(0.5) ? linear(m) : m.any();
  const auto with = [&](std::string_view op, Value v, double number) {
    return b.call(op, {v, m.constant(b.shape(v), number)});
  };
  switch (r.below(6)) {
    case 0:
      return m.give(with("mul", with("mul", x, 1e6), 1e-6));
    case 1:
      return m.give(with("div", with("mul", x, 1e-8), 1e-8));
    case 2:
      return m.give(b.unary("log", with("add", b.unary("abs", x), 1e-12)));
    case 3:
      return m.give(b.unary("log", with("max", b.unary("sigmoid", x), 1e-8)));
    case 4:
      return m.give(with("div", x, 1e5));
    default:
      return m.give(b.div(x, with("add", b.mul(x, x), 1e-6)));
  }
}

void probabilities(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const Value x = r.chance(0.6) ? linear(m) : m.any(1, 3);
  const Shape s = b.shape(x);
  const Value scaled = r.chance(0.3) ? b.mul(x, 12) : x;
  if (b.type(x).element_count() == 0) throw GraphMaker::Unfit();
  const Value p = r.chance(0.6) ? b.unary("sigmoid", scaled) : b.call("softmax", {scaled}, {{"axis", last_axis(s)[0]}});
  const double epsilon = r.chance(0.5) ? 1e-7 : 1e-4;
  const Value clipped = b.call("min", {b.call("max", {p, m.constant(s, epsilon)}), m.constant(s, 1 - epsilon)});
  switch (r.below(4)) {
    case 0:
      return m.give(b.unary("log", clipped));
    case 1:
      return m.give(b.unary("log", b.sub(m.constant(s, 1), clipped)));
    case 2: {  // binary cross-entropy
      const Value target = b.cast(m.truths(s), DType::f32), one = m.constant(s, 1);
      const Value yes = b.mul(target, b.unary("log", clipped));
      const Value no = b.mul(b.sub(one, target), b.unary("log", b.sub(one, clipped)));
      return m.give(b.unary("neg", b.add(yes, no)));
    }
    default:
      return m.give(b.mul(p, b.sub(m.constant(s, 1), p)));
  }
}

// A weight that is read more than once, as it is and transposed.
void tied(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const int64_t n = m.size(), k = m.size();
  const Value x = m.shaped({m.size(), k}), w = m.parameter({k, n});
  const Value hidden = b.unary(r.chance(0.5) ? "tanh" : "relu", b.matmul(x, w));
  m.give(b.matmul(hidden, w, {{"transpose_b", int64_t{1}}}));
  if (r.chance(0.5)) m.give(b.call("reduce_sum", {b.mul(w, w)}, {{"axes", Ints{r.below(2)}}}));
  if (r.chance(0.3)) m.give(b.matmul(m.shaped({m.size(), k}), w));
}

// Norms and activations as exporters write them out.
void written(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const Value x = r.chance(0.5) ? linear(m) : m.any(1, 3);
  const Shape s = b.shape(x);
  if (b.type(x).element_count() == 0) throw GraphMaker::Unfit();
  switch (r.below(5)) {
    case 0: {
      const double share = 1 / static_cast<double>(s.back());
      const auto mean = [&](Value v) { return b.mul(b.call("reduce_sum", {v}, {{"axes", last_axis(s)}}), share); };
      const Value centred = b.sub(x, mean(x));
      const Value deviation = b.unary("sqrt", b.add(mean(b.mul(centred, centred)), 1e-5));
      const Value normal = b.div(centred, deviation);
      return m.give(r.chance(0.5) ? b.add(b.mul(normal, m.leaf({s.back()})), m.leaf({s.back()})) : normal);
    }
    case 1:  // gelu
      return m.give(b.mul(b.mul(x, b.add(b.unary("erf", b.mul(x, 0.7071067811865476)), 1)), 0.5));
    case 2:
      return m.give(b.mul(x, b.unary("sigmoid", x)));
    case 3:  // mish
      return m.give(b.mul(x, b.unary("tanh", b.unary("softplus", x))));
    default: {
      const Value e = b.unary("exp", b.sub(x, b.call("reduce_max", {x}, {{"axes", last_axis(s)}})));
      return m.give(b.div(e, b.call("reduce_sum", {e}, {{"axes", last_axis(s)}})));
    }
  }
}

// A value with a second reader behind a product, and a branch chosen element by element.
void branches(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const Value x = linear(m);
  const Shape s = b.shape(x);
  const Value condition = r.chance(0.5) ? b.call("less", {m.constant(s, r.chance(0.5) ? 0 : 0.5), x}) : m.truths(s);
  const Value other = r.chance(0.5)   ? b.mul(x, 0.1)
                      : r.chance(0.5) ? b.sub(b.unary("exp", b.call("min", {x, m.constant(s, 0)})), m.constant(s, 1))
                                      : m.joining(s);
  m.give(b.call("select", {condition, x, other}));
  if (r.chance(0.5)) m.give(b.reduce("reduce_sum", x, {r.below(2)}));
}

// [1 or batch, 1 or heads, 1 or queries, keys] of a bool mask; some rows hide everything.
Tensor hidden_rows(GraphMaker& m, const Shape& shape) {
  Random& r = m.random;
  Tensor mask({DType::boolean, shape});
  const int64_t keys = shape.back();
  const int64_t kind = r.below(3);  // padding, left padding, anything
  for (int64_t row = 0; row < mask.type.element_count() / std::max<int64_t>(keys, 1); ++row) {
    const int64_t seen = r.chance(0.25) ? 0 : r.between(int64_t{0}, keys);
    for (int64_t k = 0; k < keys; ++k)
      mask.set(row * keys + k, kind == 0 ? k < seen : kind == 1 ? k >= keys - seen : seen > 0 && r.chance(0.6));
  }
  return mask;
}

}  // namespace

void attention(GraphMaker& m) {
  Builder& b = m.b;
  Random& r = m.random;
  const int64_t batch = r.between(int64_t{1}, int64_t{2}), key_heads = r.between(int64_t{1}, int64_t{2}),
                heads = key_heads * r.between(int64_t{1}, int64_t{2}), queries = r.between(int64_t{1}, int64_t{5}),
                keys = r.between(int64_t{1}, int64_t{9}), depth = r.between(int64_t{1}, int64_t{5});
  const bool written_out = r.chance(0.4);
  const Shape q{batch, heads, queries, depth}, k{batch, written_out ? heads : key_heads, keys, depth};
  const Value query = m.shaped(q), key = m.shaped(k), value = m.shaped(k);
  const double scale = r.chance(0.5) ? 1 / std::sqrt(static_cast<double>(depth)) : 0.5;
  Shape hidden{r.chance(0.5) ? 1 : batch, r.chance(0.7) ? 1 : heads, r.chance(0.5) ? 1 : queries, keys};
  const Tensor seen = hidden_rows(m, hidden);
  const std::vector<double> fills{-kInfinity, kLowest, -1e9, -1e4, -65504, -100};
  const double fill = r.pick(fills);
  Tensor added({DType::f32, hidden});
  for (int64_t i = 0; i < added.type.element_count(); ++i) added.set(i, seen.at(i) != 0 ? 0 : fill);
  const int64_t masking = r.below(4);  // none, bool, added, selected
  if (!written_out) {
    std::vector<Value> operands{query, key, value};
    if (masking == 1 || masking == 3) operands.push_back(b.constant(seen));
    if (masking == 2) operands.push_back(r.chance(0.3) ? m.leaf(hidden) : b.constant(added));
    Attributes attributes{{"scale", scale}, {"causal", int64_t{r.chance(0.3)}}, {"softcap", r.chance(0.2) ? 2.0 : 0.0}};
    if (masking == 3) attributes.set("fill", std::isfinite(fill) ? fill : kLowest);
    if (r.chance(0.1)) {
      operands.resize(4);
      operands.push_back(m.seed()), operands.push_back(m.iteration());
      attributes.set("ratio", 0.25), attributes.set("site", int64_t{3});
    }
    return m.give(b.call("attention", operands, attributes));
  }
  const auto flat = [&](Value v, int64_t length) { return b.reshape(v, {batch * heads, length, depth}); };
  Value scores = b.matmul(flat(query, queries), flat(key, keys), {{"transpose_b", int64_t{1}}});
  scores = b.reshape(scores, {batch, heads, queries, keys});
  const bool scaled_first = r.chance(0.5);
  if (scaled_first) scores = b.mul(scores, scale);
  if (masking == 2) scores = b.add(scores, b.constant(added));
  if (masking == 3 || masking == 1) {
    const Shape all = b.shape(scores);
    scores = b.call(
        "select", {b.broadcast(b.constant(seen), all), scores, m.constant(all, std::isfinite(fill) ? fill : kLowest)});
  }
  const Value weights = b.call("softmax", {scores}, {{"axis", int64_t{3}}});
  m.give(b.reshape(b.matmul(b.reshape(weights, {batch * heads, queries, keys}), flat(value, keys)), q));
}

void random_motif(GraphMaker& m) {
  constexpr std::array kMotifs{extremes, extremes, cut_parameter, attention,     norm,    power,    rotary,
                               scalars,  tied,     probabilities, probabilities, written, branches, attention};
  kMotifs[static_cast<size_t>(m.random.below(static_cast<int64_t>(kMotifs.size())))](m);
}

}  // namespace halfstep::fuzz
