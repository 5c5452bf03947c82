#include "tests/fuzz/graph_maker.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "ir/op.h"

namespace halfstep::fuzz {
namespace {

constexpr int64_t kMostElements = 400;

int64_t elements(const Shape& shape) { return TensorType{DType::u8, shape}.element_count(); }

}  // namespace

GraphMaker::GraphMaker(uint64_t seed) : random(mix(seed, 1)) {
  using D = Distribution;
  const std::vector<std::vector<D>> themes{{D::normal},
                                           {D::normal, D::grid},
                                           {D::grid},
                                           {D::grid, D::zeros, D::ones, D::rows},
                                           {D::normal, D::sparse, D::rows},
                                           {D::positive, D::unit, D::normal},
                                           {D::normal, D::saturated},
                                           {D::normal, D::large},
                                           {D::normal, D::tiny},
                                           {D::mixed, D::normal, D::grid},
                                           {D::normal, D::tiny, D::large, D::zeros}};
  theme_ = random.pick(themes);
  wild_ = random.chance(0.05);
  if (wild_) theme_.push_back(D::huge);
}

int64_t GraphMaker::size() {
  if (random.chance(0.015)) return 0;
  const std::vector<int64_t> sizes{1, 1, 2, 3, 3, 4, 5, 7, 8, 9, 16, 17, 33};
  return random.pick(sizes);
}

Shape GraphMaker::shape(size_t least_rank, size_t most_rank) {
  const size_t rank = static_cast<size_t>(
      random.between(static_cast<int64_t>(least_rank), static_cast<int64_t>(std::max(least_rank, most_rank))));
  Shape s;
  for (size_t i = 0; i < rank; ++i) s.push_back(size());
  while (elements(s) > kMostElements) {
    int64_t& largest = *std::ranges::max_element(s);
    largest = (largest + 1) / 2;
  }
  return s;
}

LeafValues GraphMaker::random_values() { return {random.pick(theme_), static_cast<uint64_t>(random.below(1000)), 2}; }

Value GraphMaker::input(const TensorType& type, LeafValues values, const char* prefix) {
  const std::string name = prefix + std::to_string(leaves_++);
  values_[name] = values;
  return *prefix == 'w' ? b.parameter(name, type) : b.input(name, type);
}

Value GraphMaker::parameter(const Shape& s) { return input({DType::f32, s}, random_values(), "w"); }
Value GraphMaker::parameter(const Shape& s, Distribution distribution) {
  return input({DType::f32, s}, {distribution, static_cast<uint64_t>(random.below(1000)), 2}, "w");
}

Value GraphMaker::leaf(const Shape& s) {
  const double kind = random.unit();
  if (kind < 0.6) return parameter(s);
  if (kind < 0.85) return input({DType::f32, s}, random_values(), "x");
  if (kind < 0.95) return b.constant(draw({DType::f32, s}, random_values()));
  return constant(s, number());
}

Value GraphMaker::seed() {
  values_["seed"] = {Distribution::below, 3, 1000};
  return b.input("seed", {DType::i64, {}});
}

Value GraphMaker::iteration() {
  values_["iteration"] = {Distribution::below, 4, 1000};
  return b.input("iteration", {DType::i32, {}});
}

double GraphMaker::number() {
  const std::vector<double> plain{0, 1, -1, 0.5, 2, -2, 3, 0.1, 0.25, -0.7, 10, 100};
  const std::vector<double> extreme{1e-8, 1e-12, 1e-5, 1e-7, 1e-3, 6e-8,  1e-6,  65504,
                                    7e4,  1e5,   1e6,  1e9,  -1e9, 1e-20, -65504};
  return random.pick(random.chance(0.7) ? plain : extreme);
}

Value GraphMaker::any(size_t least_rank, size_t most_rank) {
  std::vector<Value> fit;
  for (Value v : pool_)
    if (const size_t rank = b.shape(v).size(); rank >= least_rank && rank <= most_rank) fit.push_back(v);
  if (fit.empty() || random.chance(0.2))
    return leaf(shape(std::max<size_t>(least_rank, random.chance(0.9) ? 1 : 0), most_rank));
  return random.chance(0.6) ? fit.back() : random.pick(fit);
}

Value GraphMaker::shaped(const Shape& s) {
  std::vector<Value> fit;
  for (Value v : pool_)
    if (b.shape(v) == s) fit.push_back(v);
  return fit.empty() || random.chance(0.5) ? leaf(s) : random.pick(fit);
}

Value GraphMaker::joining(const Shape& s) {
  const double kind = random.unit();
  if (kind < 0.4) return shaped(s);
  if (kind < 0.6) return constant(s, number());
  Shape small = s;
  if (kind < 0.75 && !small.empty())  // a row
    small.erase(small.begin(), small.begin() + random.below(static_cast<int64_t>(small.size())));
  else if (kind < 0.9)
    for (int64_t& d : small) d = random.chance(0.5) ? 1 : d;
  else
    small.clear();
  return b.broadcast(leaf(small), s);
}

Value GraphMaker::truths(const Shape& s) {
  for (Value v : truths_)
    if (b.shape(v) == s && random.chance(0.5)) return v;
  if (random.chance(0.3))
    return input({DType::boolean, s}, {Distribution::below, static_cast<uint64_t>(random.below(1000)), 2}, "b");
  if (random.chance(0.2)) {
    const Tensor drawn = draw({DType::boolean, s}, {Distribution::below, static_cast<uint64_t>(random.below(1000)), 2});
    return b.constant(drawn);
  }
  const std::vector<std::string_view> comparisons{"less", "less_equal", "eq"};
  return b.call(random.pick(comparisons), {shaped(s), joining(s)});
}

Value GraphMaker::indices(const Shape& s, int64_t bound) {
  const LeafValues values{Distribution::below, static_cast<uint64_t>(random.below(1000)), std::max<int64_t>(bound, 1)};
  if (random.chance(0.3)) return b.constant(draw({DType::i64, s}, values));
  return input({DType::i64, s}, values, "i");
}

Value GraphMaker::with_rank(Value v, size_t rank) {
  Shape s = b.shape(v);
  while (s.size() > rank) {
    const int64_t last = s.back();
    s.pop_back();
    s.back() *= last;
  }
  while (s.size() < rank) {
    const auto at = std::ranges::find_if(s, [](int64_t d) { return d > 2 && d % 2 == 0; });
    if (at != s.end() && random.chance(0.5)) {
      const int64_t half = *at / 2;
      *at = 2;
      s.insert(at + 1, half);
    } else {
      s.insert(s.begin() + random.between(int64_t{0}, static_cast<int64_t>(s.size())), 1);
    }
  }
  return b.reshape(v, s);
}

const InterpretedTensor& GraphMaker::value_of(Value v) {
  for (NodeId id = static_cast<NodeId>(evaluated_.size()); id <= v.node; ++id) {
    const Node& node = b.graph().node(id);
    if (is_leaf(*node.op)) {
      const Tensor t = draw(node.results[0], values_.at(node.attributes.text("name")));
      evaluated_.push_back({{t.type, t.values()}});
      continue;
    }
    std::vector<const InterpretedTensor*> operands;
    for (Value o : node.operands)
      operands.push_back(o ? &evaluated_[static_cast<size_t>(o.node)][static_cast<size_t>(o.result)] : nullptr);
    evaluated_.push_back(interpret_node(node, operands, Rounding::none));
  }
  return evaluated_[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)];
}

void GraphMaker::give(Value v) {
  const InterpretedTensor& result = value_of(v);
  if (result.values.size() > static_cast<size_t>(4 * kMostElements)) throw Unfit();
  const double most = wild_ ? 1e18 : 1e7;
  const bool fits = std::ranges::all_of(result.values, [&](double x) { return std::abs(x) <= most; });
  if (!fits && !(wild_ && random.chance(0.2))) throw Unfit();
  if (is_floating(result.type.dtype)) pool_.push_back(b.cast(v, DType::f32));
}

FuzzCase GraphMaker::finish() {
  // What an unfit node reads is not read.
  std::vector<char> live(b.graph().nodes().size()), read(live);
  for (Value v : pool_) live[static_cast<size_t>(v.node)] = 1;
  for (NodeId id = b.graph().size(); id-- > 0;)
    for (Value v : b.graph().node(id).operands)
      if (v && live[static_cast<size_t>(id)]) live[static_cast<size_t>(v.node)] = read[static_cast<size_t>(v.node)] = 1;
  std::vector<Value> ends;
  for (Value v : pool_)
    if (!read[static_cast<size_t>(v.node)] && std::ranges::find(ends, v) == ends.end()) ends.push_back(v);
  if (ends.empty() && !pool_.empty()) ends.push_back(pool_.back());
  // Sometimes what others read is an output too, and so stored.
  for (Value v : pool_)
    if (random.chance(0.1) && std::ranges::find(ends, v) == ends.end()) ends.push_back(v);
  const bool has_batch = std::ranges::any_of(b.graph().nodes(), [](const Node& n) {
    return n.op->name == "input" && !n.results[0].shape.empty() && n.results[0].shape[0] > 0;
  });
  if (!has_batch) input({DType::f32, {2}}, {Distribution::ones, 0, 2}, "x");
  Value loss;
  for (size_t i = 0; i < ends.size(); ++i) {
    b.output("y" + std::to_string(i), ends[i]);
    Value weighed = ends[i];
    if (random.chance(0.7)) {
      const LeafValues coefficients{random.chance(0.5) ? Distribution::grid : Distribution::normal, i, 2};
      weighed = b.mul(weighed, b.constant(draw({DType::f32, b.shape(weighed)}, coefficients)));
    } else if (random.chance(0.3)) {
      weighed = b.mul(weighed, weighed);
    }
    Ints axes;
    for (size_t axis = 0; axis < b.shape(weighed).size(); ++axis) axes.push_back(static_cast<int64_t>(axis));
    const Value sum = b.reshape(axes.empty() ? weighed : b.call("reduce_sum", {weighed}, {{"axes", axes}}), {});
    loss = loss ? b.add(loss, sum) : sum;
  }
  // Whatever becomes of the others, one parameter is trained.
  const Value trained = b.reshape(b.unary("tanh", parameter({1})), {});
  loss = loss ? b.add(loss, trained) : trained;
  b.output("loss", loss);
  FuzzCase made{std::move(b).finish(), {}};
  for (const Node& node : made.graph.nodes())
    if (is_leaf(*node.op)) {
      const std::string& name = node.attributes.text("name");
      made.values[name] = values_.at(name);
    }
  return made;
}

}  // namespace halfstep::fuzz
