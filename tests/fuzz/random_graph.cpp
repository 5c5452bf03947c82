#include "tests/fuzz/random_graph.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "ir/ops/families.h"
#include "tests/fuzz/graph_maker.h"
#include "tests/fuzz/motifs.h"

namespace halfstep::fuzz {
namespace {

// Where log, sqrt and the like are defined, most of the time.
Value within_domain(GraphMaker& m, std::string_view op, Value x) {
  Builder& b = m.b;
  if (m.random.chance(0.25)) return x;
  const bool positive = op == "log" || op == "sqrt" || op == "rsqrt" || op == "pow";
  const bool bounded = op == "asin" || op == "acos" || op == "atanh" || op == "tan";
  if (positive || op == "reciprocal") {
    const Value magnitude = m.random.chance(0.5) ? b.unary("abs", x) : b.mul(x, x);
    return m.random.chance(0.5) ? b.add(magnitude, 0.125) : magnitude;
  }
  if (op == "acosh") return b.add(b.unary("abs", x), 1.25);
  if (bounded) return b.mul(b.unary("tanh", x), 0.75);
  if (op == "exp" || op == "sinh" || op == "cosh") return b.call("min", {x, m.constant(b.shape(x), 8)});
  return x;
}

void pointwise(GraphMaker& m, const Op& op) {
  Builder& b = m.b;
  const Value x = m.any();
  const Shape s = b.shape(x);
  const std::string_view name = op.name;
  if (name == "select") return m.give(b.call("select", {m.truths(s), m.shaped(s), m.joining(s)}));
  // What is true or false chooses.
  const auto choose = [&](Value t) {
    m.give_truths(t);
    m.give(b.call("select", {t, m.shaped(s), m.joining(s)}));
  };
  if (name == "not") return choose(b.call(name, {m.truths(s)}));
  if (name == "and" || name == "or") {
    const Value t = m.truths(s);
    return choose(b.call(name, {t, m.truths(s)}));
  }
  if (name == "is_finite" || name == "is_nan") return choose(b.call(name, {x}));
  if (name == "eq" || name == "less" || name == "less_equal")
    return choose(b.call(name, {x, m.random.chance(0.1) ? x : m.joining(s)}));
  if (name == "cast") {
    const std::vector<DType> types{DType::f16,     DType::bf16, DType::i32, DType::i64,
                                   DType::boolean, DType::u8,   DType::i8};
    return m.give(b.cast(b.cast(x, m.random.pick(types)), DType::f32));
  }
  if (op.operands.size() == 1) return m.give(b.call(name, {within_domain(m, name, x)}));
  Value y = m.random.chance(0.08) ? x : m.joining(s);
  Value left = within_domain(m, name, x);
  if (name == "pow" && m.random.chance(0.7)) {
    const std::vector<double> exponents{0, 1, 2, 3, 0.5, -1, -0.5, 1.5};
    y = m.constant(s, m.random.pick(exponents));
  }
  if ((name == "div" || name == "fmod") && m.random.chance(0.5)) y = b.add(b.unary("abs", y), 0.25);
  if (m.random.chance(0.3) && name != "pow") std::swap(left, y);
  m.give(b.call(name, {left, y}));
}

Ints some_axes(GraphMaker& m, size_t rank) {
  Ints axes;
  for (size_t i = 0; i < rank; ++i)
    if (m.random.chance(0.5)) axes.push_back(static_cast<int64_t>(i));
  if (axes.empty() && rank > 0 && m.random.chance(0.9)) axes.push_back(m.random.below(static_cast<int64_t>(rank)));
  return axes;
}

void movement(GraphMaker& m, const Op& op) {
  Builder& b = m.b;
  Random& r = m.random;
  const std::string_view name = op.name;
  if (name == "iota") {
    const Shape s = m.shape(1, 3);
    const Value i =
        b.cast(b.call("iota", {}, {{"shape", s}, {"axis", r.below(static_cast<int64_t>(s.size()))}}), DType::f32);
    return m.give(b.mul(i, m.joining(s)));
  }
  const Value x = m.any(1, 4);
  const Shape s = b.shape(x);
  const size_t rank = s.size();
  if (name == "broadcast") {
    Shape small = s;
    Ints to = s;
    for (size_t i = 0; i < rank; ++i)
      if (s[i] == 1) to[i] = m.size();
    if (to == s) to.insert(to.begin(), r.between(int64_t{1}, int64_t{4}));
    return m.give(b.broadcast(x, to));
  }
  if (name == "reshape") return m.give(m.with_rank(x, static_cast<size_t>(r.between(int64_t{1}, int64_t{4}))));
  if (name == "transpose") {
    Ints p;
    for (size_t i = 0; i < rank; ++i) p.push_back(static_cast<int64_t>(i));
    r.shuffle(p);
    return m.give(b.transpose(x, p));
  }
  if (name == "slice") {
    Ints starts, limits, steps;
    for (int64_t d : s) {
      starts.push_back(r.below(d + 1) / 2);
      limits.push_back(r.between(starts.back(), d));
      if (limits.back() == starts.back() && d > starts.back() && r.chance(0.95)) ++limits.back();
      steps.push_back(r.chance(0.7) ? 1 : r.between(int64_t{1}, int64_t{3}));
    }
    return m.give(b.slice(x, starts, limits, steps));
  }
  if (name == "pad") {
    Ints low, high, interior;
    for (size_t i = 0; i < rank; ++i) {
      low.push_back(r.chance(0.5) ? 0 : r.below(3));
      high.push_back(r.chance(0.5) ? 0 : r.below(3));
      interior.push_back(r.chance(0.8) ? 0 : r.below(3));
    }
    return m.give(
        b.call("pad", {x},
               {{"low", low}, {"high", high}, {"interior", interior}, {"value", r.chance(0.7) ? 0.0 : m.number()}}));
  }
  if (name == "concat") {
    const int64_t axis = m.axis_of(x);
    std::vector<Value> pieces{x};
    for (int64_t more = r.between(int64_t{1}, int64_t{3}); more > 0; --more) {
      Shape piece = s;
      piece[static_cast<size_t>(axis)] = m.size();
      pieces.push_back(r.chance(0.15) ? x : m.shaped(piece));
    }
    r.shuffle(pieces);
    return m.give(b.call("concat", pieces, {{"axis", axis}}));
  }
  if (name == "after") return m.give(b.call("after", {x, m.any()}));
  const int64_t axis = m.axis_of(x);
  const int64_t rows = s[static_cast<size_t>(axis)];
  const Value indices = m.indices(m.shape(0, r.chance(0.8) ? 1 : 2), rows);
  if (name == "gather") return m.give(b.call("gather", {x, indices}, {{"axis", axis}}));
  Shape updates(s.begin(), s.begin() + axis);
  const Shape chosen = b.shape(indices);
  updates.insert(updates.end(), chosen.begin(), chosen.end());
  updates.insert(updates.end(), s.begin() + axis + 1, s.end());
  const std::vector<std::string> reductions{"set", "add", "mul", "min", "max"};
  const std::string reduction = r.pick(reductions);
  const Value update = m.shaped(updates);
  m.give(b.call("scatter", {x, indices, update}, {{"axis", axis}, {"reduction", reduction}}));
}

// Window, stride, padding and dilation along one axis of a size.
struct Windows {
  Ints window, strides, pads_begin, pads_end, dilations;
  Attributes attributes() const {
    return {{"strides", strides}, {"pads_begin", pads_begin}, {"pads_end", pads_end}, {"dilations", dilations}};
  }
};

Windows windows_over(GraphMaker& m, const Shape& channels_last) {
  Random& r = m.random;
  Windows w;
  for (size_t i = 1; i + 1 < channels_last.size(); ++i) {
    w.window.push_back(r.between(int64_t{1}, int64_t{3}));
    w.dilations.push_back(r.chance(0.8) ? 1 : 2);
    w.strides.push_back(r.between(int64_t{1}, int64_t{3}));
    const int64_t reach = (w.window.back() - 1) * w.dilations.back();
    w.pads_begin.push_back(r.chance(0.5) ? 0 : r.between(int64_t{0}, reach));
    w.pads_end.push_back(r.chance(0.5) ? 0 : r.between(int64_t{0}, reach));
    if (channels_last[i] + w.pads_begin.back() + w.pads_end.back() < reach + 1)
      w.window.back() = 1, w.pads_begin.back() = w.pads_end.back() = 0;
  }
  return w;
}

void pool(GraphMaker& m, const Op& op) {
  const Value x = m.with_rank(m.any(1, 4), m.random.chance(0.6) ? 4 : 3);
  const Windows w = windows_over(m, m.b.shape(x));
  Attributes attributes = w.attributes();
  attributes.set("window", w.window);
  if (op.name == "avg_pool") attributes.set("count_include_pad", m.random.below(2));
  m.give(m.b.call(op.name, {x}, attributes));
}

void matmul(GraphMaker& m, std::string_view op) {
  Random& r = m.random;
  const bool batched = r.chance(0.3);
  const Value a = m.with_rank(m.any(1, 4), batched ? 3 : 2);
  const bool ta = r.chance(0.3), tb = r.chance(0.4);
  const Shape s = m.b.shape(a);
  const size_t at = batched ? 1 : 0;
  const int64_t k = s[at + (ta ? 0 : 1)], n = m.size();
  Shape other = tb ? Shape{n, k} : Shape{k, n};
  if (batched) other.insert(other.begin(), s[0]);
  const Value y = m.b.call(op, {a, m.shaped(other)}, {{"transpose_a", int64_t{ta}}, {"transpose_b", int64_t{tb}}});
  m.give(r.chance(0.5) ? m.b.add(y, m.leaf({n})) : y);
}

void convolution(GraphMaker& m, const Op& op) {
  Random& r = m.random;
  Value x = m.with_rank(m.any(1, 4), r.chance(0.6) ? 4 : 3);
  const Shape s = m.b.shape(x);
  Windows w = windows_over(m, s);
  const int64_t groups = s.back() > 1 && r.chance(0.3) ? (s.back() % 2 == 0 ? 2 : s.back()) : 1;
  Attributes attributes = w.attributes();
  attributes.set("groups", groups);
  if (op.name == "convolution") {
    const int64_t channels = groups * r.between(int64_t{1}, int64_t{5});
    Shape filter{channels};
    filter.insert(filter.end(), w.window.begin(), w.window.end());
    filter.push_back(s.back() / groups);
    const Value y = m.b.call("convolution", {x, m.leaf(filter)}, attributes);
    return m.give(r.chance(0.5) ? m.b.add(y, m.leaf({channels})) : y);
  }
  // Transposed: x takes the place of the convolution's result.
  Shape filter{s.back()};
  filter.insert(filter.end(), w.window.begin(), w.window.end());
  filter.push_back(r.between(int64_t{1}, int64_t{4}));
  Ints spatial;
  for (size_t i = 0; i < w.window.size(); ++i) {
    const int64_t size =
        (s[i + 1] - 1) * w.strides[i] + (w.window[i] - 1) * w.dilations[i] + 1 - w.pads_begin[i] - w.pads_end[i];
    if (size < 1) throw GraphMaker::Unfit();
    spatial.push_back(size);
  }
  attributes.set("groups", int64_t{1}), attributes.set("spatial", spatial);
  m.give(m.b.call("convolution_data_grad", {m.leaf(filter), x}, attributes));
}

void composite(GraphMaker& m, const Op& op) {
  Builder& b = m.b;
  Random& r = m.random;
  const std::string_view name = op.name;
  const auto maybe = [&](const Shape& s) { return r.chance(0.8) ? m.leaf(s) : Value{}; };
  if (name == "attention") return attention(m);
  if (name == "full_matmul") return matmul(m, name);
  if (name == "resample") {
    const Value x = m.any(1, 4);
    const int64_t axis = m.axis_of(x), size = b.shape(x)[static_cast<size_t>(axis)];
    if (size == 0) throw GraphMaker::Unfit();
    const TensorType type{DType::i64, {m.size(), r.chance(0.8) ? r.between(int64_t{1}, int64_t{3}) : 9}};
    const Tensor positions = draw(type, {Distribution::below, r.bits() % 1000, size});
    const Tensor weights =
        draw({DType::f32, type.shape}, {r.chance(0.4) ? Distribution::ones : Distribution::grid, r.bits() % 1000, 2});
    return m.give(b.call("resample", {x}, {{"axis", axis}, {"positions", positions}, {"weights", weights}}));
  }
  if (name == "softmax_cross_entropy") {
    const Value x = m.with_rank(m.any(1, 4), 2);
    const Shape s = b.shape(x);
    if (s[1] == 0) throw GraphMaker::Unfit();
    return m.give(b.call(
        name, {x, m.indices({s[0]}, s[1])},
        {{"ignore_index", r.chance(0.5) ? int64_t{-100} : int64_t{1}}, {"smoothing", r.chance(0.7) ? 0.0 : 0.125}}));
  }
  const Value x = m.any(name == "group_norm" ? 2 : 1, 4);
  const Shape s = b.shape(x);
  const int64_t axis = m.axis_of(x);
  const size_t at = static_cast<size_t>(axis);
  const std::vector<double> epsilons{1e-5, 1e-3, 1e-12, 0.1};
  const double epsilon = r.pick(epsilons);
  if (name == "dropout") {
    Shape mask = s;
    if (r.chance(0.3))
      for (size_t i = 1; i < mask.size(); ++i) mask[i] = 1;
    return m.give(
        b.call(name, {x, m.seed(), m.iteration()},
               {{"ratio", r.chance(0.5) ? 0.5 : 0.25}, {"site", r.below(9)}, {"shape", mask == s ? Ints{} : mask}}));
  }
  if (name == "batch_norm") {
    const Shape channel{s[at]};
    return m.give(b.call(name, {x, m.leaf(channel), m.leaf(channel)}, {{"axis", axis}, {"epsilon", epsilon}}));
  }
  if (name == "layer_norm" || name == "rms_norm") {
    const Shape row(s.begin() + axis, s.end());
    std::vector<Value> operands{x, maybe(row)};
    if (name == "layer_norm") operands.push_back(maybe(row));
    return m.give(b.call(name, operands, {{"axis", axis}, {"epsilon", epsilon}}));
  }
  if (name == "group_norm") {
    const size_t batch = at == 0 ? 1 : 0;
    if (s[at] == 0) throw GraphMaker::Unfit();
    std::vector<int64_t> divisors;
    for (int64_t g = 1; g <= s[at]; ++g)
      if (s[at] % g == 0) divisors.push_back(g);
    return m.give(b.call(
        name, {x, m.leaf({s[at]}), m.leaf({s[at]})},
        {{"axis", axis}, {"batch", static_cast<int64_t>(batch)}, {"groups", r.pick(divisors)}, {"epsilon", epsilon}}));
  }
  const Value y = b.call(name, {x}, {{"axis", axis}});
  if (name != "argmax") return m.give(y);
  if (s[at] == 0) throw GraphMaker::Unfit();
  m.give(b.mul(b.cast(y, DType::f32), b.broadcast(m.leaf({}), b.shape(y))));
}

void add_node(GraphMaker& m, const Op& op) {
  Builder& b = m.b;
  switch (op.kernel) {
    case KernelKind::pointwise:
      return pointwise(m, op);
    case KernelKind::movement:
      return movement(m, op);
    case KernelKind::reduction: {
      const Value x = m.any(1, 4);
      return m.give(b.call(op.name, {x}, {{"axes", some_axes(m, b.shape(x).size())}}));
    }
    case KernelKind::window:
      return pool(m, op);
    case KernelKind::gemm:
      return matmul(m, op.name);
    case KernelKind::convolution:
      return convolution(m, op);
    case KernelKind::random: {
      const Shape s = m.shape(1, 3);
      return m.give(b.mul(b.call("uniform", {m.seed(), m.iteration()}, {{"shape", s}, {"site", m.random.below(9)}}),
                          m.joining(s)));
    }
    default:
      return composite(m, op);
  }
}

// Ops that a model holds; the others are made by gradients and passes.
std::vector<const Op*> forward_ops() {
  std::vector<const Op*> ops;
  for (const Op* op : all_ops())
    if (op->kernel != KernelKind::leaf && op->kernel != KernelKind::fused && op->name != "max_pool_grad" &&
        op->name != "avg_pool_grad" && op->name != "convolution_filter_grad" && op->name != "attention_grad" &&
        op->kernel != KernelKind::attention && op->kernel != KernelKind::recurrent && !ops::has_filter(*op))
      ops.push_back(op);
  return ops;
}

}  // namespace

FuzzCase random_case(uint64_t seed) {
  static const std::vector<const Op*> ops = forward_ops();
  static const std::vector<const Op*> spatial = [] {
    std::vector<const Op*> heavy;
    for (const Op* op : ops)
      if (op->kernel != KernelKind::pointwise) heavy.push_back(op);
    return heavy;
  }();
  GraphMaker m(seed);
  Random& r = m.random;
  const int64_t wanted = r.between(int64_t{2}, int64_t{12});
  // Every op comes first somewhere.
  const Op& first = *ops[seed % ops.size()];
  bool placed = false;
  int64_t made = 0;
  if (r.chance(0.4)) {
    try {
      random_motif(m);
      made += 3;
    } catch (const GraphMaker::Unfit&) {
    }
  }
  for (int64_t attempts = 0; made < wanted && attempts < 60; ++attempts) {
    const bool place_first = !placed && (made > 0 || r.chance(0.3));
    try {
      if (place_first)
        add_node(m, first), placed = true;
      else if (r.chance(0.06))
        random_motif(m), made += 2;
      else
        add_node(m, r.chance(0.45) ? *r.pick(spatial) : *r.pick(ops));
      ++made;
    } catch (const GraphMaker::Unfit&) {
    } catch (const Error&) {  // shapes that do not fit
    }
  }
  if (made == 0) m.give(m.constant({2}, 1));  // never without an output
  return m.finish();
}

}  // namespace halfstep::fuzz
