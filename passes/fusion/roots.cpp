#include "passes/fusion/body_cost.h"
#include "passes/fusion/fusion.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

// Whether a value is another with more digits than it needs.
bool is_widening(const Graph& graph, const Node& node) {
  return node.op->kernel == KernelKind::pointwise && node.operands.size() == 1 && body_cost(node) == 0 &&
         is_low(graph.type(node.operands[0]).dtype) && node.results[0].dtype == DType::f32;
}

bool is_repetition(const Graph& graph, const Node& node) {
  return node.op->index_map == IndexMap::repeated &&
         graph.type(node.operands[0]).element_count() < node.results[0].element_count();
}

}  // namespace

// What `user` reads as operand i. A control dependency need not be stored itself: then it is the latest of the values
// in memory that it is made of.
Value Fusion::read_operand(NodeId user, size_t i) const {
  const std::vector<Value>& operands = node(user).operands;
  const std::vector<OperandSpec>& specs = node(user).op->operands;
  if (i >= specs.size() || specs[i].dependency != OperandSpec::control) return operands[i];
  Value latest = operands[0];
  std::vector<Value> stack{operands[i]};
  std::set<Value> seen;
  while (!stack.empty()) {
    const Value v = stack.back();
    stack.pop_back();
    if (!v || !seen.insert(v).second) continue;
    if (in_memory(v.node))
      latest = std::max(latest, v);
    else
      stack.insert(stack.end(), node(v.node).operands.begin(), node(v.node).operands.end());
  }
  return latest;
}

// A piece of an arena that fills the gap between two slices: its memory is zero from the start and nobody writes it.
bool Fusion::is_zero_gap(NodeId arena, Value piece) const {
  if (!is_arena(node(arena)) || node(piece.node).op->index_map != IndexMap::repeated) return false;
  const Node& source = node(node(piece.node).operands[0].node);
  return source.op->leaf == Leaf::constant && source.attributes.tensor("value").values() == std::vector<double>{0};
}

void Fusion::store(NodeId id) {
  id = storage(id);
  if (!external(id)) kernel_of_[static_cast<size_t>(id)] = 0;
}

// What a reader pays that computes the value itself.
Fusion::InlineCost Fusion::inline_cost(NodeId id) const {
  InlineCost cost;
  const int64_t bytes = node(id).results[0].byte_count();
  const double elements = static_cast<double>(std::max<int64_t>(1, count(node(id))));
  std::vector<NodeId> stack{id};
  std::set<NodeId> seen{id};
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    cost.operations += body_cost(node(at)) * static_cast<double>(count(node(at))) / elements;
    for (Value v : node(at).operands) {
      if (!v || !seen.insert(v.node).second) continue;
      if (!in_memory(v.node))
        stack.push_back(v.node);
      else if (graph_.type(v).byte_count() * 4 > bytes)
        cost.source_bytes += graph_.type(v).byte_count();
    }
  }
  return cost;
}

// Storing writes the value once and reads it in every reader; inlining reads its sources in every reader instead.
bool Fusion::worth_storing(NodeId id) const {
  constexpr double kCheap = 16;
  const InlineCost cost = inline_cost(id);
  return cost.operations > kCheap || cost.source_bytes > node(id).results[0].byte_count();
}

// Whether `user` would compute the value so many times that storing it costs less.
bool Fusion::spreads(NodeId id, NodeId user) const {
  constexpr double kMostWindowOperations = 200, kMostBroadcastOperations = 4, kManyCopies = 8;
  const Node& reader = node(user);
  // What a window reads in another order than memory's, it would fetch an element at a time, many times over.
  if (windows_overlap(reader) && node(id).op->index_map == IndexMap::permuted) return true;
  const auto is_joined = [](const Node& n) { return n.op->index_map == IndexMap::joined; };
  if (is_joined(reader) && is_joined(node(id)) && node(id).operands.size() == kMostJoined) return true;
  if (is_large_window(reader)) return inline_cost(id).operations > 0;
  if (windows_overlap(reader)) return inline_cost(id).operations * body_cost(reader) > kMostWindowOperations;
  return reader.op->index_map == IndexMap::repeated &&
         static_cast<double>(count(reader)) >= kManyCopies * static_cast<double>(count(node(id))) &&
         inline_cost(id).operations > kMostBroadcastOperations;
}

// The nodes that read the value, or a view of it.
std::vector<NodeId> Fusion::readers(NodeId id) const {
  std::vector<NodeId> found, views{id};
  while (!views.empty()) {
    const NodeId at = views.back();
    views.pop_back();
    for (NodeId user : users_[static_cast<size_t>(at)]) (is_view(graph_, node(user)) ? views : found).push_back(user);
  }
  return found;
}

// A value that is read piece by piece, as by the steps of a sequence: in memory its slices are views, and the readers
// equal kernels.
void Fusion::store_what_is_sliced() {
  constexpr int kFewestSlices = 4;
  std::map<NodeId, int> slices;
  for (NodeId id = 0; id < graph_.size(); ++id)
    if (node(id).op->index_map == IndexMap::part && is_view(graph_, node(id)) && ++slices[storage(id)] == kFewestSlices)
      if (!splat(graph_, {storage(id), 0})) store(id);
}

void Fusion::deliver(Value v) {
  store(v.node);
  if (storage(v.node) == v.node)
    delivered_.insert(v);
  else
    delivered_.insert({storage(v.node), 0});
}

void Fusion::choose_roots() {
  for (const NamedValue& o : graph_.outputs()) deliver(o.value);
  for (const StateUpdate& u : graph_.updates()) deliver(u.value);
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& n = node(id);
    if (is_library(n) || is_arena(n))
      for (Value v : n.operands)
        if (v && !is_zero_gap(id, v)) store(v.node);
    if (is_reduction(n)) store(id);
    // A scatter is a kernel of its own, which walks the indices many times and everything else once.
    if (writes_in_place(n)) store(id), store(n.operands[1].node);
  }
  store_what_is_sliced();
  for (NodeId id = 0; id < graph_.size(); ++id) {
    if (external(id) || is_view(graph_, node(id)) || stored(id) || node(id).op->leaf == Leaf::constant) continue;
    bool store_it = node(id).results.size() > 1 && users_[static_cast<size_t>(id)].size() > 1;
    store_it |= is_large_window(node(id));
    for (NodeId user : readers(id)) store_it |= spreads(id, user);
    if (users_[static_cast<size_t>(id)].size() > 1) store_it |= worth_storing(id);
    if (!store_it) continue;
    // What is only made wider or repeated is stored as it was, and made so where it is read.
    NodeId source = id;
    while (is_widening(graph_, node(source)) || is_repetition(graph_, node(source)))
      source = node(source).operands[0].node;
    store(source);
  }
}

}  // namespace halfstep
