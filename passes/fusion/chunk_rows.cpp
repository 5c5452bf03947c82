#include "passes/fusion/chunk_rows.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/slicewise.h"
#include "ir/views.h"

namespace halfstep {
namespace {

constexpr int kDeepest = 64;  // of an expression that is made again for each chunk

// A product and what becomes of it. All is cut along axis 0.
class Chunks {
 public:
  Chunks(const Graph& graph, NodeId product)
      : graph_(graph),
        users_(graph.users()),
        product_(product),
        elements_(graph.node(product).results[0].element_count()),
        parts_(graph.nodes().size(), outside) {}

  // Whether the product can be cut into `count`; then the rest may be asked for.
  bool plan(int64_t count) {
    count_ = count;
    std::ranges::fill(parts_, outside);
    if (!grow()) return false;
    prune();
    return is_closed() && delivers_little();
  }

  // What is added to the traffic by sums over rows.
  int64_t more_traffic() const {
    int64_t bytes = 0;
    for (NodeId id = product_; id < graph_.size(); ++id)
      if (part(id) == sum) bytes += 2 * (count_ - 1) * sum_type(id).byte_count();
    return bytes;
  }

  // The first node behind the chunks is left in `end`.
  Graph build(NodeId& end) {
    Builder b(graph_.name());
    ValueMap map(graph_);
    const std::vector<char> needed = needed_before();
    std::vector<char> copied(graph_.nodes().size(), 0);
    const auto copy = [&](NodeId id) {
      std::vector<Value> operands;
      for (const Value v : node(id).operands) operands.push_back(map(v));
      b.set_origin(node(id).origin);
      const NodeId made = b.copy(graph_, node(id), operands);
      for (int32_t r = 0; r < static_cast<int32_t>(node(id).results.size()); ++r) map.at({id, r}) = {made, r};
      copied[static_cast<size_t>(id)] = 1;
    };
    for (NodeId id = 0; id < graph_.size(); ++id)
      if (part(id) == outside && (id < product_ || needed[static_cast<size_t>(id)])) copy(id);
    emit_chunks(b, map);
    end = b.graph().size();
    for (NodeId id = product_; id < graph_.size(); ++id)
      if (part(id) == outside && !copied[static_cast<size_t>(id)]) copy(id);
    for (const NamedValue& o : graph_.outputs()) b.output(o.name, map(o.value));
    for (const StateUpdate& u : graph_.updates()) b.update(map(u.state), map(u.value));
    end = kept_before(b.graph(), end);
    return std::move(b).finish();
  }

 private:
  enum Part : uint8_t {
    outside,
    rows,  // has the rows on axis 0
    sum,   // over the rows
  };

  // How many of the nodes before `end` the builder does not drop.
  static NodeId kept_before(const Graph& graph, NodeId end) {
    std::vector<char> kept(graph.nodes().size(), 0);
    for (const NamedValue& o : graph.outputs()) kept[static_cast<size_t>(o.value.node)] = 1;
    for (const StateUpdate& u : graph.updates())
      kept[static_cast<size_t>(u.state.node)] = kept[static_cast<size_t>(u.value.node)] = 1;
    NodeId count = 0;
    for (NodeId id = graph.size(); id-- > 0;) {
      if (!kept[static_cast<size_t>(id)] && graph.node(id).op->leaf != Leaf::input) continue;
      count += id < end ? 1 : 0;
      for (const Value v : graph.node(id).operands)
        if (v) kept[static_cast<size_t>(v.node)] = 1;
    }
    return count;
  }

  const Node& node(NodeId id) const { return graph_.node(id); }
  Part part(NodeId id) const { return parts_[static_cast<size_t>(id)]; }
  const TensorType& type(Value v) const { return graph_.type(v); }

  // As large as the product, but for what padding adds.
  bool is_large(const TensorType& t) const { return 2 * t.element_count() > elements_; }
  bool is_cut(Value v) const { return v && part(v.node) == rows; }
  // A library's result ends what is cut: the rest of the step would follow it.
  bool goes_on(NodeId id) const { return id == product_ || !is_library(node(id)); }
  bool reads_large(const Node& n) const {
    return std::ranges::any_of(n.operands, [&](Value v) { return is_cut(v) && is_large(type(v)); });
  }

  // The operands that must be cut where the node is, as axis 0; absent: it cannot be.
  std::optional<std::vector<char>> cut_operands(const Node& n) const {
    if (n.results.size() != 1) return std::nullopt;
    const Shape& shape = n.results[0].shape;
    if (shape.empty() || shape[0] == 0 || shape[0] % count_ != 0) return std::nullopt;
    const auto can_be_cut = [&](Value v, int64_t size) { return !type(v).shape.empty() && type(v).shape[0] == size; };
    if (n.op->index_map == IndexMap::row_major) {
      const Shape& from = type(n.operands[0]).shape;
      const bool even = !from.empty() && from[0] % count_ == 0;
      return even ? std::optional(std::vector<char>{1}) : std::nullopt;
    }
    if (n.op->index_map == IndexMap::coordinate)
      return n.attributes.integer("axis") != 0 ? std::optional(std::vector<char>()) : std::nullopt;
    const std::optional<OperandAxes> axes = slicewise(graph_, n, 0);
    if (!axes) return std::nullopt;
    std::vector<char> cut(n.operands.size(), 0);
    for (size_t i = 0; i < n.operands.size(); ++i) {
      if (i >= axes->size() || !(*axes)[i] || !n.operands[i]) continue;
      if (*(*axes)[i] != 0 || !can_be_cut(n.operands[i], shape[0])) return std::nullopt;
      cut[i] = 1;
    }
    return cut;
  }
  // The same, and nothing else that it reads is cut.
  bool follows(const Node& n) const {
    const auto cut = cut_operands(n);
    if (!cut) return false;
    for (size_t i = 0; i < n.operands.size(); ++i)
      if (is_cut(n.operands[i]) && (i >= cut->size() || !(*cut)[i])) return false;
    return true;
  }

  // Whether the node is a sum over the rows, to which chunks can be added one after the other.
  bool sums_rows(const Node& n) const {
    if (n.results.size() != 1 || !is_floating(n.results[0].dtype)) return false;
    if (n.op->kernel == KernelKind::reduction)
      return n.op->combine == ScalarOp::add && std::ranges::count(n.attributes.ints("axes"), 0) > 0;
    if (n.op->kernel != KernelKind::gemm || n.results[0].shape.size() != 2) return false;
    return n.attributes.integer("transpose_a") != 0 && n.attributes.integer("transpose_b") == 0 &&
           n.attributes.integer("rectified") == 0 && !optional_operand(n, kProductBias) &&
           !optional_operand(n, kProductAddend) && type(n.operands[0]).shape[0] % count_ == 0;
  }
  TensorType sum_type(NodeId id) const {
    TensorType t = node(id).results[0];
    if (is_low(t.dtype)) t.dtype = DType::f32;
    return t;
  }

  // What follows the product; false where something needs more of a large value than its rows or such a sum.
  bool grow() {
    for (NodeId id = product_; id < graph_.size(); ++id) {
      const Node& n = node(id);
      Part& is = parts_[static_cast<size_t>(id)];
      if (id == product_) {
        if (!follows(n)) return false;
        is = rows;
        continue;
      }
      if (std::ranges::none_of(n.operands, [&](Value v) { return is_cut(v) && goes_on(v.node); })) continue;
      if (follows(n))
        is = rows;
      else if (!reads_large(n))
        continue;
      else if (sums_rows(n))
        is = sum;
      else
        return false;
    }
    return true;
  }

  // Small values that nothing here needs are computed of all rows, as before.
  void prune() {
    std::vector<char> keeps(graph_.nodes().size(), 0);
    for (NodeId id = graph_.size(); id-- > product_;) {
      if (part(id) == outside) continue;
      const Node& n = node(id);
      bool keep = part(id) == sum || is_large(n.results[0]) || reads_large(n);
      if (goes_on(id))
        for (const NodeId user : users_[static_cast<size_t>(id)]) keep |= keeps[static_cast<size_t>(user)] != 0;
      keeps[static_cast<size_t>(id)] = keep;
    }
    for (NodeId id = product_; id < graph_.size(); ++id)
      if (!keeps[static_cast<size_t>(id)]) parts_[static_cast<size_t>(id)] = outside;
  }

  // Whether no chunk waits for what all chunks make, and all that it reads can be cut without being as large itself.
  bool is_closed() const {
    std::vector<char> later(graph_.nodes().size(), 0);
    for (NodeId id = product_; id < graph_.size(); ++id) {
      const Node& n = node(id);
      for (const Value v : n.operands) {
        if (!v) continue;
        if (part(id) != outside) {
          if (later[static_cast<size_t>(v.node)]) return false;
          if (part(v.node) == outside && !is_library(n) && !is_at_hand(v)) return false;
          // Of a sum, or of a library call that ends what is cut, nothing is cut.
          if (part(v.node) == sum || (part(v.node) == rows && !goes_on(v.node))) return false;
        } else if (part(v.node) != outside || later[static_cast<size_t>(v.node)]) {
          later[static_cast<size_t>(id)] = 1;
        }
      }
    }
    return true;
  }

  // What remains of all chunks is much smaller than the product.
  bool delivers_little() const {
    for (const NamedValue& o : graph_.outputs())
      if (part(o.value.node) == rows && is_large(type(o.value))) return false;
    for (const StateUpdate& u : graph_.updates())
      if (part(u.value.node) == rows && is_large(type(u.value))) return false;
    int64_t bytes = 0;
    for (NodeId id = product_; id < graph_.size(); ++id)
      if (part(id) == rows && is_read_outside(id)) bytes += node(id).results[0].byte_count();
    return 2 * bytes <= node(product_).results[0].byte_count();
  }
  bool is_read_outside(NodeId id) const {
    const auto delivers = [&](Value v) { return v.node == id; };
    return std::ranges::any_of(users_[static_cast<size_t>(id)], [&](NodeId u) { return part(u) == outside; }) ||
           std::ranges::any_of(graph_.outputs(), delivers, &NamedValue::value) ||
           std::ranges::any_of(graph_.updates(), delivers, &StateUpdate::value);
  }

  // What a kernel computes beside what is cut costs nothing when it is computed for a chunk alone; a slice of it would
  // be one of a stored value.
  bool is_made_again(Value v, int depth) const {
    const Node& n = node(v.node);
    const bool is_small = type(v).element_count() <= node(product_).results[0].shape[0];
    if (depth == kDeepest || !(is_small || is_large(type(v))) || part(v.node) != outside) return false;
    if (n.op->kernel != KernelKind::pointwise && n.op->kernel != KernelKind::movement) return false;
    return cut_operands(n).has_value();
  }

  // Whether slices of it cost no memory: none of it as large as the product is stored for them alone.
  bool is_at_hand(Value v) const {
    std::vector<std::pair<Value, int>> open{{v, 0}};
    std::set<Value> seen;
    while (!open.empty()) {
      const auto [at, depth] = open.back();
      open.pop_back();
      if (!seen.insert(at).second || !is_large(type(at))) continue;
      const Node& n = node(at.node);
      if (is_leaf(*n.op) || is_library(n)) continue;
      if (!is_made_again(at, depth)) return false;
      const std::vector<char> cut = cut_operands(n).value();
      for (size_t i = 0; i < cut.size(); ++i)
        if (cut[i]) open.emplace_back(n.operands[i], depth + 1);
    }
    return true;
  }

  // Values outside that a chunk is computed of.
  std::vector<char> needed_before() const {
    std::vector<char> needed(graph_.nodes().size(), 0);
    for (NodeId id = graph_.size(); id-- > 0;)
      if (part(id) != outside || needed[static_cast<size_t>(id)])
        for (const Value v : node(id).operands)
          if (v) needed[static_cast<size_t>(v.node)] = 1;
    return needed;
  }

  // ---- one chunk ----

  struct Chunk {
    int64_t number = 0;
    std::map<Value, Value> made = {};  // by value of the graph: its piece
  };

  Value slice(Builder& b, Value v, int64_t number) const {
    Shape limits = b.shape(v);
    Ints starts(limits.size(), 0);
    const int64_t size = limits[0] / count_;
    starts[0] = number * size, limits[0] = starts[0] + size;
    return b.slice(v, starts, limits);
  }

  // A node of a chunk's rows, on operands of these.
  Value made_for_chunk(Builder& b, const Node& n, std::vector<Value> operands) const {
    Attributes attributes = n.attributes;
    const Shape& shape = n.results[0].shape;
    if (n.op->index_map == IndexMap::repeated || n.op->index_map == IndexMap::row_major ||
        n.op->index_map == IndexMap::coordinate) {
      Shape cut = shape;
      cut[0] /= count_;
      attributes.set("shape", std::move(cut));
    } else if (n.op->index_map == IndexMap::part) {
      Ints limits = attributes.ints("limits");
      limits[0] /= count_;
      attributes.set("limits", std::move(limits));
    }
    const OriginScope scope(b, n.origin);
    return b.call_all(*n.op, std::move(operands), std::move(attributes)).front();
  }

  Value piece(Builder& b, const ValueMap& map, Chunk& chunk, Value v, int depth) const {
    if (const auto found = chunk.made.find(v); found != chunk.made.end()) return found->second;
    const Value made = is_made_again(v, depth)
                           ? made_for_chunk(b, node(v.node), operands_of(b, map, chunk, node(v.node), depth + 1))
                           : slice(b, map(v), chunk.number);
    chunk.made.emplace(v, made);
    return made;
  }

  std::vector<Value> operands_of(Builder& b, const ValueMap& map, Chunk& chunk, const Node& n, int depth) const {
    const std::vector<char> cut = cut_operands(n).value();
    std::vector<Value> operands;
    for (size_t i = 0; i < n.operands.size(); ++i) {
      const Value v = n.operands[i];
      // What a library reads is in memory.
      const int from = is_library(n) ? kDeepest : depth;
      operands.push_back(v && i < cut.size() && cut[i] ? piece(b, map, chunk, v, from) : map(v));
    }
    return operands;
  }

  Value added(Builder& b, const ValueMap& map, Chunk& chunk, NodeId id, Value before) const {
    const Node& n = node(id);
    const OriginScope scope(b, n.origin);
    const DType type = sum_type(id).dtype;
    Attributes attributes = n.attributes;
    std::vector<Value> operands;
    const bool is_product = is_library(n);
    for (const Value v : n.operands) operands.push_back(piece(b, map, chunk, v, is_product ? kDeepest : 0));
    if (!is_product) {
      const Value more = b.call_all(*n.op, {b.cast(operands[0], type)}, attributes).front();
      return before ? b.add(before, more) : more;
    }
    if (before) {
      operands.resize(kProductAddend + 1);
      operands[kProductAddend] = before;
    }
    if (type != n.results[0].dtype) attributes.set("result", std::string(name(type)));
    return b.call_all(*n.op, std::move(operands), std::move(attributes)).front();
  }

  void emit_chunks(Builder& b, ValueMap& map) const {
    std::map<NodeId, std::vector<Value>> pieces;  // of what is read outside
    std::map<NodeId, Value> sums;
    std::vector<Value> ends;  // of the chunk before: what its large values are read for
    for (int64_t number = 0; number < count_; ++number) {
      Chunk chunk{.number = number};
      std::vector<Value> before = std::exchange(ends, {});
      for (NodeId id = product_; id < graph_.size(); ++id) {
        const Node& n = node(id);
        if (part(id) == outside) continue;
        if (part(id) == sum) {
          Value& s = sums[id];
          s = added(b, map, chunk, id, s);
          ends.push_back(s);
          continue;
        }
        std::vector<Value> operands = operands_of(b, map, chunk, n, 0);
        if (id == product_)
          for (const Value event : before) operands[0] = after(b, operands[0], event);
        const Value made = made_for_chunk(b, n, std::move(operands));
        chunk.made.emplace(Value{id, 0}, made);
        if (reads_large(n) && !is_large(n.results[0])) ends.push_back(made);
        if (is_read_outside(id)) pieces[id].push_back(made);
      }
    }
    for (const auto& [id, list] : pieces) {
      const OriginScope scope(b, node(id).origin);
      map.at({id, 0}) = joined_flat(b, list, node(id).results[0].shape);
    }
    for (const auto& [id, value] : sums) {
      const OriginScope scope(b, node(id).origin);
      map.at({id, 0}) = b.cast(value, node(id).results[0].dtype);
    }
  }

  const Graph& graph_;
  const std::vector<std::vector<NodeId>> users_;
  const NodeId product_;
  const int64_t elements_;  // of the product
  int64_t count_ = 1;
  std::vector<Part> parts_;
};

bool is_candidate(const Node& n, const ChunkOptions& options) {
  return n.op->kernel == KernelKind::gemm && n.results[0].shape.size() == 2 &&
         n.results[0].byte_count() >= options.fewest_bytes && n.results[0].shape[0] >= 2 * options.fewest_rows;
}

// Twice as many as long as that saves more than it costs; 0: the product stays whole.
int64_t chunk_count(const Graph& graph, NodeId id, const ChunkOptions& options, Chunks& chunks) {
  const int64_t bytes = graph.node(id).results[0].byte_count(), rows = graph.node(id).results[0].shape[0];
  int64_t count = 0, traffic = 0;
  for (int64_t more = 2; rows % more == 0 && rows / more >= options.fewest_rows; more *= 2) {
    if (count > 0 && bytes / count <= options.enough_bytes) break;
    if (!chunks.plan(more)) break;
    const int64_t saved = bytes / (count == 0 ? 1 : count) - bytes / more, costs = chunks.more_traffic() - traffic;
    if (static_cast<double>(costs) > options.most_traffic * static_cast<double>(saved)) break;
    count = more, traffic = chunks.more_traffic();
  }
  return count;
}

}  // namespace

Graph chunk_rows(const Graph& original, const ChunkOptions& options, Chunking& done) {
  Graph graph = original;
  for (NodeId id = 0; id < graph.size(); ++id) {
    if (!is_candidate(graph.node(id), options)) continue;
    Chunks chunks(graph, id);
    const int64_t count = chunk_count(graph, id, options, chunks);
    if (count == 0 || !chunks.plan(count)) continue;
    const int64_t bytes = graph.node(id).results[0].byte_count();
    ++done.products, done.chunks += count;
    done.bytes_before += bytes, done.bytes += bytes / count, done.more_traffic += chunks.more_traffic();
    NodeId end = 0;
    graph = chunks.build(end);
    id = end - 1;
  }
  return graph;
}

}  // namespace halfstep
