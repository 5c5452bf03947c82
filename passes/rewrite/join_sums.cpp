#include "passes/rewrite/join_sums.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr size_t kFewestProducts = 4;

// A term that is zero but for a piece, which stands at `low` and has its own size.
struct PaddedPiece {
  Value term;
  Ints low;
  Value piece;
};

// A term a^T b: [k, m]^T [k, n].
struct Product {
  Value term;
  Value a, b;
};

struct Sum {
  std::vector<std::vector<PaddedPiece>> tilings;
  std::vector<std::vector<Product>> products;  // of one operand type
  std::vector<Value> rest;
};

class JoinSums {
 public:
  explicit JoinSums(const Graph& graph) : graph_(graph), b_(graph.name()), uses_(graph.nodes().size(), 0), map_(graph) {
    for (const Node& node : graph.nodes())
      for (Value v : node.operands)
        if (v) ++uses_[static_cast<size_t>(v.node)];
    for (const NamedValue& o : graph.outputs()) ++uses_[static_cast<size_t>(o.value.node)];
    for (const StateUpdate& u : graph.updates()) ++uses_[static_cast<size_t>(u.value.node)];
    find_sums();
    find_waiting();
  }

  // Nodes that wait for a joined product come last: by then its terms' neighbours stand side by side.
  Graph run() {
    for (const bool waiting : {false, true})
      for (NodeId id = 0; id < graph_.size(); ++id) {
        if (inner_[static_cast<size_t>(id)] || waits_[static_cast<size_t>(id)] != waiting) continue;
        sums_.contains(id) ? emit(id) : copy(id);
      }
    for (const NamedValue& o : graph_.outputs()) b_.output(o.name, mapped(o.value));
    for (const StateUpdate& u : graph_.updates()) b_.update(mapped(u.state), mapped(u.value));
    return std::move(b_).finish();
  }

 private:
  const Node& node(Value v) const { return graph_.node(v); }
  bool used_once(Value v) const { return uses_[static_cast<size_t>(v.node)] == 1; }

  // Sums that join, and the adds inside of them.
  void find_sums() {
    inner_.assign(graph_.nodes().size(), 0);
    std::vector<char> inside(graph_.nodes().size(), 0);  // an add that one other add reads
    for (const Node& sum : graph_.nodes())
      if (is(sum, "add"))
        for (Value v : sum.operands) inside[static_cast<size_t>(v.node)] = is(node(v), "add") && used_once(v);
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!is(graph_.node(id), "add") || inside[static_cast<size_t>(id)]) continue;
      std::vector<Value> terms;
      std::vector<NodeId> adds;
      std::vector<Value> open{{id, 0}};
      while (!open.empty()) {
        const Value v = open.back();
        open.pop_back();
        if (v.node != id && !inside[static_cast<size_t>(v.node)]) {
          terms.push_back(v);
          continue;
        }
        adds.push_back(v.node);
        open.push_back(node(v).operands[1]), open.push_back(node(v).operands[0]);
      }
      std::optional<Sum> sum = sum_of(terms);
      if (!sum) continue;
      for (NodeId add : adds)
        if (add != id) inner_[static_cast<size_t>(add)] = 1;
      sums_.emplace(id, std::move(*sum));
    }
  }

  void find_waiting() {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const auto sum = sums_.find(id);
      const bool joined = sum != sums_.end() && !sum->second.products.empty();
      waits_.push_back(joined || std::ranges::any_of(graph_.node(id).operands, [&](Value v) {
                         return v && waits_[static_cast<size_t>(v.node)];
                       }));
    }
  }

  // Nothing if none of the terms join.
  std::optional<Sum> sum_of(const std::vector<Value>& terms) const {
    Sum sum;
    std::map<size_t, std::vector<PaddedPiece>> pads;
    std::map<DType, std::vector<Product>> products;
    for (Value v : terms) {
      if (const auto piece = padded_piece(v))
        pads[outermost(graph_.type(v).shape, {*piece})].push_back(*piece);
      else if (const auto p = product(v))
        products[graph_.type(p->a).dtype].push_back(*p);
      else
        sum.rest.push_back(v);
    }
    for (auto& [axis, pieces] : pads) {
      if (pieces.size() > 1 && tile(graph_.type(pieces[0].term).shape, pieces))
        sum.tilings.push_back(std::move(pieces));
      else
        for (const PaddedPiece& p : pieces) sum.rest.push_back(p.term);
    }
    for (auto& [dtype, list] : products)
      if (list.size() >= kFewestProducts)
        sum.products.push_back(std::move(list));
      else
        for (const Product& p : list) sum.rest.push_back(p.term);
    return sum.tilings.empty() && sum.products.empty() ? std::nullopt : std::optional(std::move(sum));
  }

  std::optional<PaddedPiece> padded_piece(Value v) const {
    const Node& pad = node(v);
    if (!is(pad, "pad") || !used_once(v) || pad.attributes.number("value") != 0) return std::nullopt;
    const Ints &low = pad.attributes.ints("low"), &high = pad.attributes.ints("high");
    if (std::ranges::any_of(pad.attributes.ints("interior"), [](int64_t i) { return i != 0; })) return std::nullopt;
    if (pad.results[0] == graph_.type(pad.operands[0]) || std::ranges::any_of(low, [](int64_t n) { return n < 0; }) ||
        std::ranges::any_of(high, [](int64_t n) { return n < 0; }))
      return std::nullopt;
    return PaddedPiece{v, low.empty() ? Ints(pad.results[0].shape.size(), 0) : low, pad.operands[0]};
  }

  int64_t size(const PaddedPiece& p, size_t axis) const { return graph_.type(p.piece).shape[axis]; }

  // The first axis along which a piece is smaller than `shape`; its rank if there is none.
  size_t outermost(const Shape& shape, const std::vector<PaddedPiece>& pieces) const {
    size_t axis = 0;
    while (axis < shape.size() &&
           std::ranges::all_of(pieces, [&](const PaddedPiece& p) { return size(p, axis) == shape[axis]; }))
      ++axis;
    return axis;
  }

  // The pieces in strips along `axis`, by position; none where strips overlap.
  std::vector<std::vector<PaddedPiece>> strips(size_t axis, std::vector<PaddedPiece> pieces) const {
    const auto begin = [&](const PaddedPiece& p) { return p.low[axis]; };
    std::ranges::stable_sort(pieces, {}, begin);
    std::vector<std::vector<PaddedPiece>> result;
    for (PaddedPiece& p : pieces) {
      const PaddedPiece* before = result.empty() ? nullptr : &result.back().front();
      if (before && begin(*before) == begin(p) && size(*before, axis) == size(p, axis))
        result.back().push_back(std::move(p));
      else if (before && begin(*before) + size(*before, axis) > begin(p))
        return {};
      else
        result.push_back({std::move(p)});
    }
    return result;
  }

  // Whether no two pieces share an element, cut into strips axis by axis.
  bool tile(Shape shape, const std::vector<PaddedPiece>& pieces) const {
    if (pieces.size() == 1) return true;
    const size_t axis = outermost(shape, pieces);
    if (axis == shape.size()) return false;
    const auto cut = strips(axis, pieces);
    return !cut.empty() && std::ranges::all_of(cut, [&](const std::vector<PaddedPiece>& strip) {
      shape[axis] = size(strip.front(), axis);
      return tile(shape, strip);
    });
  }

  // The product behind a term, through the cast that widens it.
  std::optional<Product> product(Value v) const {
    const Value term = v;
    if (!used_once(v)) return std::nullopt;
    if (is(node(v), "cast")) v = node(v).operands[0];
    const Node& product = node(v);
    if (!used_once(v) || !is(product, "matmul") || product.results[0].shape.size() != 2) return std::nullopt;
    if (!product.attributes.integer("transpose_a") || product.attributes.integer("transpose_b")) return std::nullopt;
    return Product{term, product.operands[0], product.operands[1]};
  }

  Value mapped(Value v) const { return map_(v); }

  void copy(NodeId id) {
    const Node& original = graph_.node(id);
    std::vector<Value> operands;
    for (Value v : original.operands) operands.push_back(mapped(v));
    const OriginScope scope(b_, original.origin);
    map_.set(id, b_.call_all(*original.op, std::move(operands), original.attributes));
    if (is(original, "concat") && original.results[0].shape.size() == 1) remember(map_({id, 0}));
  }

  void emit(NodeId id) {
    const OriginScope scope(b_, graph_.node(id).origin);
    const TensorType& type = graph_.node(id).results[0];
    const Sum& parts = sums_.at(id);
    Value sum;
    const auto add = [&](Value v) { sum = sum ? b_.add(sum, v) : v; };
    for (const auto& pieces : parts.tilings) add(join_pads(type, pieces));
    for (const auto& products : parts.products) join_products(type.dtype, products, add);
    for (Value v : parts.rest) add(mapped(v));
    map_.at({id, 0}) = sum;
  }

  // ---- side by side ----

  // Where a value stands in a flat concat.
  struct Place {
    Value concat;
    size_t index = 0;
    int64_t offset = 0;
  };

  Value unshaped(Value v) const {
    while (is(b_.graph().node(v), "reshape")) v = b_.graph().node(v).operands[0];
    return v;
  }

  void remember(Value concat) {
    int64_t offset = 0;
    const std::vector<Value> pieces = b_.graph().node(concat).operands;
    for (size_t i = 0; i < pieces.size(); ++i) {
      places_.try_emplace(unshaped(pieces[i]), Place{concat, i, offset});
      offset += b_.type(pieces[i]).element_count();
    }
  }

  std::optional<Place> place_of(Value v) const {
    const auto found = places_.find(unshaped(v));
    return found == places_.end() ? std::nullopt : std::optional(found->second);
  }

  // The pieces as one flat tensor.
  Value flat(const std::vector<Value>& pieces) {
    if (pieces.size() == 1) return b_.reshape(unshaped(pieces[0]), {b_.type(pieces[0]).element_count()});
    int64_t count = 0;
    for (Value v : pieces) count += b_.type(v).element_count();
    const std::optional<Place> first = place_of(pieces[0]);
    bool stand_together = first.has_value();
    for (size_t i = 1; i < pieces.size() && stand_together; ++i) {
      const std::optional<Place> place = place_of(pieces[i]);
      stand_together = place && place->concat == first->concat && place->index == first->index + i;
    }
    if (stand_together) return b_.slice(first->concat, {first->offset}, {first->offset + count});
    std::vector<Value> flat_pieces;
    for (Value v : pieces) flat_pieces.push_back(b_.reshape(unshaped(v), {b_.type(v).element_count()}));
    const Value concat = b_.call("concat", std::move(flat_pieces), {{"axis", int64_t{0}}});
    remember(concat);
    return concat;
  }

  Value join_pads(const TensorType& type, const std::vector<PaddedPiece>& pieces) {
    const size_t axis = outermost(type.shape, pieces);
    if (axis == type.shape.size()) return mapped(pieces.front().piece);
    std::vector<Value> parts;
    int64_t end = 0;
    const auto fill = [&](int64_t to) {
      Shape gap = type.shape;
      gap[axis] = to - end;
      if (to > end) parts.push_back(b_.broadcast(b_.constant(type.dtype, 0), gap));
    };
    for (const std::vector<PaddedPiece>& strip : strips(axis, pieces)) {
      fill(strip.front().low[axis]);
      TensorType part = type;
      part.shape[axis] = size(strip.front(), axis);
      parts.push_back(join_pads(part, strip));
      end = strip.front().low[axis] + part.shape[axis];
    }
    fill(type.shape[axis]);
    const bool outermost = std::all_of(type.shape.begin(), type.shape.begin() + static_cast<std::ptrdiff_t>(axis),
                                       [](int64_t size) { return size == 1; });
    if (outermost) return b_.reshape(flat(parts), type.shape);
    return b_.call("concat", std::move(parts), {{"axis", static_cast<int64_t>(axis)}});
  }

  // Products whose operands stand in the same concats are one; so are those whose operands stand in none.
  void join_products(DType type, const std::vector<Product>& products, const std::function<void(Value)>& add) {
    struct Placed {
      size_t index;
      Value a, b;
    };
    std::map<std::pair<Value, Value>, std::vector<Placed>> groups;
    for (const Product& p : products) {
      const Value a = mapped(p.a), b = mapped(p.b);
      const auto of_a = place_of(a), of_b = place_of(b);
      auto& group = groups[{of_a ? of_a->concat : Value{}, of_b ? of_b->concat : Value{}}];
      group.push_back({of_a ? of_a->index : of_b ? of_b->index : group.size(), a, b});
    }
    for (auto& [concats, group] : groups) {
      std::ranges::stable_sort(group, {}, &Placed::index);
      std::vector<Value> as, bs;
      for (const Placed& p : group) as.push_back(p.a), bs.push_back(p.b);
      const int64_t m = b_.shape(as[0])[1], n = b_.shape(bs[0])[1];
      const Value a = flat(as), b = flat(bs);
      const bool widened = b_.dtype(a) != type;
      add(b_.matmul(b_.reshape(a, {b_.type(a).element_count() / m, m}),
                    b_.reshape(b, {b_.type(b).element_count() / n, n}),
                    {{"transpose_a", int64_t{1}}, {"result", widened ? std::string(name(type)) : std::string()}}));
    }
  }

  const Graph& graph_;
  Builder b_;
  std::vector<int> uses_;       // reads of each node's results, by operands, outputs and updates
  std::vector<char> inner_;     // adds inside of a sum that joins
  std::vector<char> waits_;     // depends on a joined product
  std::map<NodeId, Sum> sums_;  // by their last add
  ValueMap map_;
  std::map<Value, Place> places_;  // by piece, its reshapes taken off
};

}  // namespace

Graph join_sums(const Graph& graph) { return JoinSums(graph).run(); }

}  // namespace halfstep
