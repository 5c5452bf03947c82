#include "passes/fusion/compute_in_readers.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/fusion/body_cost.h"

namespace halfstep {
namespace {

// For each element of a value that is not stored then, and of one that a reader only does not read.
constexpr double kMostOperations = 24, kMostOperationsToSkip = 12;
constexpr int64_t kFewestBytes = int64_t{1} << 16;  // below it nothing is saved
constexpr int64_t kSmall = 8;                       // times smaller than the value: no matter who reads it

// What computes an element of its result from the same element, or from one of a smaller operand.
bool is_elementwise(const Node& node) {
  return node.op->kernel == KernelKind::pointwise || node.op->leaf == Leaf::constant ||
         node.op->index_map == IndexMap::repeated;
}

class InReaders {
 public:
  explicit InReaders(const Graph& graph) : graph_(graph), users_(graph.users()), map_(graph), builder_(graph.name()) {
    for (const NamedValue& o : graph.outputs()) delivered_.insert(o.value);
    for (const StateUpdate& u : graph.updates()) delivered_.insert(u.value);
    for (NodeId id = 0; id < graph.size(); ++id)
      for (int32_t r = 0; is_fused(id) && r < std::ssize(graph.node(id).results); ++r) choose_readers({id, r});
  }

  Graph run() && {
    if (computed_.empty()) return graph_;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      builder_.set_origin(node.origin);
      if (is_fused(id) && changes(node, id)) {
        emit(node, id);
        continue;
      }
      std::vector<Value> operands;
      for (const Value v : node.operands) operands.push_back(map_(v));
      const NodeId made = builder_.copy(graph_, node, operands);
      for (int32_t r = 0; r < std::ssize(node.results); ++r) map_.at({id, r}) = {made, r};
    }
    for (const NamedValue& o : graph_.outputs()) builder_.output(o.name, map_(o.value));
    for (const StateUpdate& u : graph_.updates()) builder_.update(map_(u.state), map_(u.value));
    return std::move(builder_).finish();
  }

 private:
  bool is_fused(NodeId id) const { return graph_.node(id).op->kernel == KernelKind::fused; }
  static const Graph& body_of(const Node& fused) { return fused.attributes.region("body"); }
  Value storage(Value v) const {
    while (is_view(graph_, graph_.node(v))) v = graph_.node(v).operands[0];
    return v;
  }

  // By node of the body, whether `results` need it; the operands' leaves too.
  static std::vector<char> needed(const Graph& body, const std::vector<int32_t>& results) {
    std::vector<char> inside(body.nodes().size(), 0);
    std::vector<Value> stack;
    for (int32_t r : results) stack.push_back(body.outputs()[static_cast<size_t>(r)].value);
    while (!stack.empty()) {
      const Value v = stack.back();
      stack.pop_back();
      if (!v || std::exchange(inside[static_cast<size_t>(v.node)], 1)) continue;
      for (const Value operand : body.node(v).operands) stack.push_back(operand);
    }
    return inside;
  }

  struct Sources {
    std::vector<Value> values;
    double operations = 0;  // for each element
  };
  // What result `v` of a fused node is computed from, if that is elementwise and cheap.
  std::optional<Sources> sources(Value v) const {
    const Node& node = graph_.node(v);
    const Graph& body = body_of(node);
    const std::vector<char> inside = needed(body, {v.result});
    Sources result;
    size_t operand = 0;
    for (NodeId id = 0; id < body.size(); ++id) {
      const Node& n = body.node(id);
      if (is_leaf(*n.op)) {
        if (inside[static_cast<size_t>(id)]) result.values.push_back(node.operands[operand]);
        ++operand;
      } else if (inside[static_cast<size_t>(id)]) {
        if (!is_elementwise(n)) return std::nullopt;
        result.operations += n.op->leaf == Leaf::constant ? 0 : body_cost(n);
      }
    }
    if (result.operations > kMostOperations) return std::nullopt;
    return result;
  }

  // Whether the reader, a fused node, hands `v` to elementwise nodes and sums alone, and reads all large `from` for
  // itself.
  bool can_compute(const Node& reader, Value v, const std::vector<Value>& from) const {
    const Graph& body = body_of(reader);
    size_t operand = 0;
    std::set<NodeId> leaves;
    for (NodeId id = 0; id < body.size(); ++id) {
      const Node& n = body.node(id);
      if (is_leaf(*n.op) && reader.operands[operand++] == v) leaves.insert(id);
      if (writes_in_place(n)) return false;
      const bool simple = is_elementwise(n) || n.op->kernel == KernelKind::reduction;
      for (const Value x : n.operands)
        if (x && leaves.contains(x.node) && !simple) return false;
    }
    const int64_t bytes = graph_.type(v).byte_count();
    return std::ranges::all_of(from, [&](Value x) {
      const int64_t size = graph_.type(x).byte_count();
      return size * kSmall <= bytes || std::ranges::any_of(reader.operands, [&](Value y) {
               return y && y != v && graph_.type(y).byte_count() == size && storage(y) == storage(x);
             });
    });
  }

  // Operands of a reader, with those of what it computes for itself already.
  size_t taken(NodeId reader) const {
    const auto more = more_operands_.find(reader);
    return graph_.node(reader).operands.size() + (more == more_operands_.end() ? 0 : more->second);
  }

  // The readers that compute `v` for themselves; if all do, it is gone.
  void choose_readers(Value v) {
    if (graph_.type(v).byte_count() < kFewestBytes) return;
    const std::optional<Sources> from = sources(v);
    if (!from) return;
    std::vector<NodeId> able;
    bool all = !delivered_.contains(v);
    for (NodeId user : users_[static_cast<size_t>(v.node)]) {
      const Node& reader = graph_.node(user);
      if (std::ranges::find(reader.operands, v) == reader.operands.end()) continue;
      const bool can = is_fused(user) && taken(user) + from->values.size() <= kMostKernelOperands &&
                       can_compute(reader, v, from->values);
      if (can) able.push_back(user);
      all &= can;
    }
    if (able.empty() || (!all && from->operations > kMostOperationsToSkip)) return;
    for (NodeId reader : able) {
      computed_.insert({reader, v});
      more_operands_[reader] += from->values.size();
    }
    if (all) gone_.insert(v);
  }

  bool changes(const Node& node, NodeId id) const {
    bool result = std::ranges::any_of(node.operands, [&](Value v) { return computed_.contains({id, v}); });
    for (int32_t r = 0; r < std::ssize(node.results); ++r) result |= gone_.contains({id, r});
    return result;
  }

  // The region that is being built: what stands in it for values of the graph, and its operands.
  struct Region {
    NodeId reader;
    Builder builder{"body"};
    std::map<Value, Value> known{};
    std::vector<Value> operands{};
  };

  Value inside(Region& region, Value v) {
    if (const auto found = region.known.find(v); found != region.known.end()) return found->second;
    Value result;
    if (computed_.contains({region.reader, v}) || gone_.contains(v)) {
      result = part(region, graph_.node(v), {v.result}).front();
    } else {
      result = region.builder.input(std::to_string(region.operands.size()), graph_.type(v));
      region.operands.push_back(map_(v));
    }
    region.known.emplace(v, result);
    return result;
  }

  // What `results` of a fused node need, in the region.
  std::vector<Value> part(Region& region, const Node& node, const std::vector<int32_t>& results) {
    const Graph& body = body_of(node);
    const std::vector<char> wanted = needed(body, results);
    ValueMap made(body);
    size_t operand = 0;
    for (NodeId id = 0; id < body.size(); ++id) {
      const Node& n = body.node(id);
      const bool leaf = is_leaf(*n.op);
      const Value from = leaf ? node.operands[operand++] : Value{};
      if (!wanted[static_cast<size_t>(id)]) continue;
      if (leaf) {
        made.at({id, 0}) = inside(region, from);
        continue;
      }
      std::vector<Value> operands;
      for (const Value v : n.operands) operands.push_back(made(v));
      const NodeId copied = region.builder.copy(body, n, operands);
      for (int32_t r = 0; r < std::ssize(n.results); ++r) made.at({id, r}) = {copied, r};
    }
    std::vector<Value> values;
    for (int32_t r : results) values.push_back(made(body.outputs()[static_cast<size_t>(r)].value));
    return values;
  }

  void emit(const Node& node, NodeId id) {
    std::vector<int32_t> kept;
    for (int32_t r = 0; r < std::ssize(node.results); ++r)
      if (!gone_.contains({id, r})) kept.push_back(r);
    if (kept.empty()) return;
    Region region{.reader = id};
    const std::vector<Value> values = part(region, node, kept);
    for (size_t i = 0; i < values.size(); ++i) region.builder.output(std::to_string(i), values[i]);
    builder_.set_origin(node.origin);
    const std::vector<Value> made = builder_.fused(std::move(region.operands), std::move(region.builder).finish());
    for (size_t i = 0; i < kept.size(); ++i) map_.at({id, kept[i]}) = made[i];
  }

  const Graph& graph_;
  std::vector<std::vector<NodeId>> users_;
  std::set<Value> delivered_, gone_;
  std::set<std::pair<NodeId, Value>> computed_;  // by the reader
  std::map<NodeId, size_t> more_operands_;
  ValueMap map_;
  Builder builder_;
};

}  // namespace

Graph compute_in_readers(const Graph& graph) { return InReaders(graph).run(); }

}  // namespace halfstep
