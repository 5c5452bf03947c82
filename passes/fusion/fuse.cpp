#include "passes/fusion/fuse.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/reduction_split.h"
#include "ir/views.h"
#include "passes/fusion/body_cost.h"
#include "passes/fusion/kernel_order.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

// A node that reads k elements for each result element, so that an inlined operand would be computed k times.
bool windows_overlap(const Node& node) {
  if (node.op->kernel != KernelKind::window) return false;
  const Ints &window = node.attributes.ints("window"), &strides = node.attributes.ints("strides");
  for (size_t i = 0; i < window.size(); ++i)
    if (window[i] > (strides.empty() ? 1 : strides[i])) return true;
  return false;
}

int64_t count(const Node& node) { return node.results[0].element_count(); }

bool is_library(const Node& node) {
  return node.op->kernel == KernelKind::gemm || node.op->kernel == KernelKind::convolution;
}

bool is_reduction(const Node& node) { return node.op->kernel == KernelKind::reduction; }

// One future kernel: the stored nodes ("roots") it computes, all over one domain.
struct Kernel {
  std::vector<NodeId> roots;            // ascending
  std::optional<ReductionSplit> split;  // reductions: their common split
  ReductionScheme scheme = ReductionScheme::row;
  int64_t elements = 0;  // of the full domain
  bool alive = true;
  ReductionRuns runs = {};  // the reductions', which are all alike
};

class Fusion {
 public:
  explicit Fusion(const Graph& graph) : graph_(graph), users_(graph.users()), kernel_of_(graph.nodes().size(), -1) {
    choose_roots();
    make_kernels();
    find_order();
    merge_kernels();
  }

  Graph build();

 private:
  const Node& node(NodeId id) const { return graph_.node(id); }
  bool stored(NodeId id) const { return kernel_of_[static_cast<size_t>(id)] >= 0; }
  // Lives in memory whatever the fusion does: leaves, library results, arenas, larger constants.
  bool external(NodeId id) const {
    constexpr int64_t kInlineConstant = 16;
    const Node& n = node(id);
    if (n.op->name == "constant") return count(n) > kInlineConstant;
    return n.op->kernel == KernelKind::leaf || is_library(n) || is_arena(n);
  }
  // The node whose memory a chain of views looks at.
  NodeId storage(NodeId id) const {
    while (is_view(graph_, node(id))) id = node(id).operands[0].node;
    return id;
  }
  // A reader of `id` reads memory: it is stored, external, or a view of such.
  bool in_memory(NodeId id) const { return external(storage(id)) || stored(storage(id)); }

  Value read_operand(NodeId user, size_t i) const;
  bool is_zero_gap(NodeId arena, Value piece) const;
  void store(NodeId id);
  void deliver(Value v);
  void store_what_is_sliced();
  void choose_roots();
  struct InlineCost {
    double operations = 0;     // for each element
    int64_t source_bytes = 0;  // read from memory, small operands left out
  };
  InlineCost inline_cost(NodeId id) const;
  bool worth_storing(NodeId id) const;
  bool spreads(NodeId id, NodeId user) const;
  void make_kernels();
  void merge_kernels();
  bool try_merge(int a, int b);
  bool legal(const Kernel& kernel) const;
  void find_order();
  void merge_neighbours(const std::vector<int>& kernels);
  std::set<NodeId> reads(const Kernel& kernel) const;
  std::vector<NodeId> body(const Kernel& kernel) const;
  std::vector<int> consumers(int kernel) const;
  void emit_kernel(Builder& builder, ValueMap& map, const Kernel& kernel) const;
  bool needed_outside(NodeId id, int32_t result, const Kernel& kernel) const;

  const Graph& graph_;
  std::vector<std::vector<NodeId>> users_;
  std::vector<int> kernel_of_;  // by node: its kernel, or -1 if it is not stored by one
  std::vector<Kernel> kernels_;
  KernelOrder order_{0};
  std::map<std::pair<int, int>, std::pair<size_t, size_t>> refused_;  // with how many roots
  std::set<Value> delivered_;                                         // what outputs and updates read, through views
};

// What `user` reads as operand i. The event of an `after` need not be stored itself: then it is the latest of the
// values in memory that it is made of.
Value Fusion::read_operand(NodeId user, size_t i) const {
  const std::vector<Value>& operands = node(user).operands;
  if (i == 0 || node(user).op->name != "after") return operands[i];
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
  if (!is_arena(node(arena)) || node(piece.node).op->name != "broadcast") return false;
  const Node& source = node(node(piece.node).operands[0].node);
  return source.op->name == "constant" && source.attributes.tensor("value").values() == std::vector<double>{0};
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
  if (windows_overlap(reader)) return inline_cost(id).operations * body_cost(reader) > kMostWindowOperations;
  return reader.op->name == "broadcast" &&
         static_cast<double>(count(reader)) >= kManyCopies * static_cast<double>(count(node(id))) &&
         inline_cost(id).operations > kMostBroadcastOperations;
}

// A value that is read piece by piece, as by the steps of a sequence: in memory its slices are views, and the readers
// equal kernels.
void Fusion::store_what_is_sliced() {
  constexpr int kFewestSlices = 4;
  std::map<NodeId, int> slices;
  for (NodeId id = 0; id < graph_.size(); ++id)
    if (node(id).op->name == "slice" && is_view(graph_, node(id)) && ++slices[storage(id)] == kFewestSlices)
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
    if (external(id) || is_view(graph_, node(id)) || stored(id) || node(id).op->name == "constant") continue;
    bool store_it = node(id).results.size() > 1 && users_[static_cast<size_t>(id)].size() > 1;
    for (NodeId user : users_[static_cast<size_t>(id)]) store_it |= spreads(id, user);
    if (users_[static_cast<size_t>(id)].size() > 1) store_it |= worth_storing(id);
    if (store_it) store(id);
  }
}

void Fusion::make_kernels() {
  for (NodeId id = 0; id < graph_.size(); ++id) {
    if (!stored(id)) continue;
    kernel_of_[static_cast<size_t>(id)] = static_cast<int>(kernels_.size());
    Kernel kernel{{id}, std::nullopt, ReductionScheme::row, count(node(id)), true};
    if (is_reduction(node(id))) {
      const TensorType& operand = graph_.type(node(id).operands[0]);
      const auto split = split_reduction(operand.shape, node(id).attributes.ints("axes"));
      kernel.elements = operand.element_count();
      kernel.runs = reduction_runs(operand.shape, node(id).attributes.ints("axes"));
      kernel.split = split.value_or(
          ReductionSplit{count(node(id)), operand.element_count() / std::max<int64_t>(1, count(node(id))), 1});
      kernel.scheme = split ? reduction_scheme(*split) : ReductionScheme::general;
    }
    kernels_.push_back(std::move(kernel));
  }
}

// The nodes a kernel computes: its roots and what they inline, in order.
std::vector<NodeId> Fusion::body(const Kernel& kernel) const {
  std::set<NodeId> nodes(kernel.roots.begin(), kernel.roots.end());
  std::vector<NodeId> stack = kernel.roots;
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    for (Value v : node(at).operands) {
      if (!v || nodes.count(v.node)) continue;
      const NodeId source = storage(v.node);
      const bool inside = std::binary_search(kernel.roots.begin(), kernel.roots.end(), source);
      if (in_memory(v.node) && !inside) continue;
      nodes.insert(v.node);
      stack.push_back(v.node);
    }
  }
  return {nodes.begin(), nodes.end()};
}

// What a kernel reads from memory: views are kept as such.
std::set<NodeId> Fusion::reads(const Kernel& kernel) const {
  const std::vector<NodeId> nodes = body(kernel);
  std::set<NodeId> result;
  for (NodeId id : nodes)
    for (Value v : node(id).operands)
      if (v && !std::binary_search(nodes.begin(), nodes.end(), v.node)) result.insert(v.node);
  return result;
}

// Values of a kernel belong to its full domain, to the reduced one, or are free of both (computed from memory at any
// index).
bool Fusion::legal(const Kernel& kernel) const {
  enum Tag : uint8_t { free, full, reduced };
  const std::vector<NodeId> nodes = body(kernel);
  constexpr size_t kMostNodes = 400, kMostOperands = 60;
  if (nodes.size() > kMostNodes || reads(kernel).size() > kMostOperands) return false;
  const int64_t reduced_count = kernel.split ? kernel.split->outer * kernel.split->inner : -1;
  std::map<NodeId, Tag> tags;
  for (NodeId id : nodes) {
    const Node& n = node(id);
    Tag tag = free;
    for (Value v : n.operands) {
      const auto found = v ? tags.find(v.node) : tags.end();
      if (found == tags.end() || found->second == free) continue;
      if (tag != free && tag != found->second) return false;
      tag = found->second;
    }
    const bool elementwise = n.op->kernel == KernelKind::pointwise || n.op->name == "reshape";
    if (is_reduction(n)) {
      if (!kernel.split || tag == reduced || graph_.type(n.operands[0]).element_count() != kernel.elements)
        return false;
      tag = reduced;
    } else if (n.op->name == "broadcast" && tag == reduced) {
      // Back to the full domain: only rows can be read twice, and only along the reduced axes.
      if (kernel.scheme != ReductionScheme::row || count(n) != kernel.elements) return false;
      // The leading axes are the rows, in both.
      const Shape &from = graph_.type(n.operands[0]).shape, &to = n.results[0].shape;
      int64_t rows = 1;
      for (size_t i = 0; i < from.size(); ++i) {
        if (rows == kernel.split->outer ? from[i] != 1 : from[i] != to[i]) return false;
        rows *= from[i];
      }
      tag = full;
    } else if (!elementwise && tag != free) {
      return false;
    }
    if (std::binary_search(kernel.roots.begin(), kernel.roots.end(), id) && tag == free) {
      if (count(n) == kernel.elements)
        tag = full;
      else if (count(n) == reduced_count)
        tag = reduced;
      else
        return false;
    }
    if (tag == full && count(n) != kernel.elements) return false;
    if (tag == reduced && count(n) != reduced_count) return false;
    tags[id] = tag;
  }
  return true;
}

std::vector<int> Fusion::consumers(int kernel) const {
  std::set<int> result;
  // Forward from the roots through what is inlined, to the kernels that store the results.
  std::vector<NodeId> stack = kernels_[static_cast<size_t>(kernel)].roots;
  std::set<NodeId> seen(stack.begin(), stack.end());
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    for (NodeId user : users_[static_cast<size_t>(at)]) {
      if (!seen.insert(user).second) continue;
      if (stored(user)) {
        if (kernel_of_[static_cast<size_t>(user)] != kernel) result.insert(kernel_of_[static_cast<size_t>(user)]);
      } else if (!external(user)) {
        stack.push_back(user);
      }
    }
  }
  return {result.begin(), result.end()};
}

// Numbers the library calls after the kernels, and tells the order who reads whom: through what is inlined, to memory.
void Fusion::find_order() {
  std::vector<int> units = kernel_of_;
  int count = static_cast<int>(kernels_.size());
  for (NodeId id = 0; id < graph_.size(); ++id)
    if (!stored(id) && external(id)) units[static_cast<size_t>(id)] = count++;
  order_ = KernelOrder(static_cast<size_t>(count));
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const int unit = units[static_cast<size_t>(id)];
    if (unit < 0) continue;
    std::vector<std::pair<NodeId, bool>> stack{{id, false}};  // node, whether it must be complete
    std::set<std::pair<NodeId, bool>> seen;
    while (!stack.empty()) {
      const auto [at, complete] = stack.back();
      stack.pop_back();
      for (size_t i = 0; i < node(at).operands.size(); ++i) {
        const Value v = node(at).operands[i];
        // What an `after` waits for is complete, and so of another kernel.
        const bool waits = complete || (i > 0 && is_view(graph_, node(at)));
        if (!v || !seen.insert({v.node, waits}).second) continue;
        const int from = units[static_cast<size_t>(v.node)];
        if (from < 0)
          stack.push_back({v.node, waits});
        else if (waits)
          order_.add_wait(unit, from);
        else
          order_.add_read(unit, from);
      }
    }
  }
}

bool Fusion::try_merge(int a, int b) {
  Kernel &ka = kernels_[static_cast<size_t>(a)], &kb = kernels_[static_cast<size_t>(b)];
  if (a == b || !ka.alive || !kb.alive) return false;
  const auto alone = [&](const Kernel& kernel) { return writes_in_place(node(kernel.roots.front())); };
  if (alone(ka) || alone(kb)) return false;
  if (ka.split && kb.split && (ka.runs != kb.runs || ka.scheme != kb.scheme)) return false;
  Kernel merged = ka.split ? ka : kb;
  if (!merged.split && ka.elements != kb.elements) return false;
  // Kernels that did not fit do not fit later: other merges only add to what lies between them.
  const std::pair versions{ka.roots.size(), kb.roots.size()};
  const auto [tried, is_new] = refused_.try_emplace({a, b}, versions);
  if (!is_new && std::exchange(tried->second, versions) == versions) return false;
  merged.roots.clear();
  std::merge(ka.roots.begin(), ka.roots.end(), kb.roots.begin(), kb.roots.end(), std::back_inserter(merged.roots));
  if (!order_.can_merge(a, b) || !legal(merged)) return false;
  for (NodeId root : kb.roots) kernel_of_[static_cast<size_t>(root)] = a;
  order_.merge(a, b);
  kb.alive = false;
  ka = std::move(merged);
  return true;
}

// Each with those that follow it in the list, so many that the effort stays linear.
void Fusion::merge_neighbours(const std::vector<int>& kernels) {
  constexpr size_t kNeighbours = 16;
  for (size_t i = 0; i < kernels.size(); ++i)
    for (size_t j = i + 1; j < kernels.size() && j < i + kNeighbours; ++j) try_merge(kernels[i], kernels[j]);
}

void Fusion::merge_kernels() {
  // Producers into consumers first, since that removes a store and a load.
  for (bool changed = true; changed;) {
    changed = false;
    for (int k = 0; k < static_cast<int>(kernels_.size()); ++k) {
      if (!kernels_[static_cast<size_t>(k)].alive) continue;
      for (int consumer : consumers(k)) changed |= try_merge(k, consumer);
    }
  }
  // Then kernels that read the same value, if it is not small beside their domain.
  constexpr int64_t kShare = 8;
  std::map<NodeId, std::vector<int>> readers;
  for (int k = 0; k < static_cast<int>(kernels_.size()); ++k) {
    const Kernel& kernel = kernels_[static_cast<size_t>(k)];
    if (!kernel.alive) continue;
    for (NodeId id : reads(kernel)) {
      if (count(node(id)) * kShare < kernel.elements) continue;
      while (is_view(graph_, node(id)) && node(id).op->name != "slice") id = node(id).operands[0].node;
      readers[id].push_back(k);
    }
  }
  for (const auto& [source, kernels] : readers) merge_neighbours(kernels);
  // Last, kernels so small that a launch costs more than what they do.
  constexpr int64_t kTiny = 4096;
  std::vector<int> tiny;
  for (int k = 0; k < static_cast<int>(kernels_.size()); ++k)
    if (kernels_[static_cast<size_t>(k)].alive && kernels_[static_cast<size_t>(k)].elements <= kTiny) tiny.push_back(k);
  merge_neighbours(tiny);
}

bool Fusion::needed_outside(NodeId id, int32_t result, const Kernel& kernel) const {
  if (delivered_.contains({id, result})) return true;
  const int self = kernel_of_[static_cast<size_t>(kernel.roots.front())];
  // Readers, looking through views and through what each kernel inlines.
  std::vector<NodeId> stack{id};
  std::set<NodeId> seen{id};
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    for (NodeId user : users_[static_cast<size_t>(at)]) {
      bool reads_it = at != id;
      for (Value v : node(user).operands) reads_it |= at == id && v == Value{id, result};
      if (!reads_it || !seen.insert(user).second) continue;
      if (external(user)) return true;
      if (stored(user)) {
        if (kernel_of_[static_cast<size_t>(user)] != self) return true;
      } else {
        stack.push_back(user);
      }
    }
  }
  return false;
}

void Fusion::emit_kernel(Builder& builder, ValueMap& map, const Kernel& kernel) const {
  const std::vector<NodeId> nodes = body(kernel);
  Builder region("body");
  std::map<Value, Value> inside;
  std::vector<Value> operands;
  const auto resolve = [&](Value v) {
    if (!v) return v;
    const auto found = inside.find(v);
    if (found != inside.end()) return found->second;
    const Value in = region.input(std::to_string(operands.size()), graph_.type(v));
    operands.push_back(map(v));
    require(static_cast<bool>(operands.back()), "a kernel's operands are emitted before it");
    inside.emplace(v, in);
    return in;
  };
  // Inputs first, so that the leaves stand in operand order.
  for (NodeId id : nodes)
    for (Value v : node(id).operands)
      if (v && !std::binary_search(nodes.begin(), nodes.end(), v.node)) resolve(v);
  for (NodeId id : nodes) {
    std::vector<Value> arguments;
    for (Value v : node(id).operands) arguments.push_back(resolve(v));
    const std::vector<Value> results = region.call_all(*node(id).op, std::move(arguments), node(id).attributes);
    for (size_t r = 0; r < results.size(); ++r) inside.emplace(Value{id, static_cast<int32_t>(r)}, results[r]);
  }
  std::vector<Value> outputs;
  std::string origin;
  Phase phase = Phase::forward;
  for (NodeId root : kernel.roots)
    for (int32_t r = 0; r < static_cast<int32_t>(node(root).results.size()); ++r)
      if (needed_outside(root, r, kernel)) {
        region.output(std::to_string(outputs.size()), inside.at({root, r}));
        outputs.push_back({root, r});
      }
  for (NodeId id : nodes) {
    // Constants are shared: their origin is only the first node that asked for one.
    if (node(id).op->name == "constant" || node(id).op->name == "broadcast") continue;
    const Origin& o = node(id).origin;
    phase = std::max(phase, o.phase);
    if (!o.name.empty() && origin.find(*o.name) == std::string::npos && origin.size() < 60)
      origin += (origin.empty() ? "" : " + ") + *o.name;
  }
  builder.set_origin({origin, phase});
  require(!outputs.empty(), "a kernel has a result that somebody reads");
  const auto results =
      builder.call_all(op("fused"), operands, {{"body", std::make_shared<const Graph>(std::move(region).finish())}});
  for (size_t i = 0; i < outputs.size(); ++i) map.at(outputs[i]) = results[i];
}

// Kernels, library calls and views in an order in which operands come first: depth first from what the graph delivers.
Graph Fusion::build() {
  Builder builder(graph_.name());
  ValueMap map(graph_);
  std::vector<char> done(graph_.nodes().size(), 0);
  std::vector<NodeId> emitted;  // and not yet looked at for what they make ready
  const auto kernel_at = [&](NodeId id) -> const Kernel& {
    return kernels_[static_cast<size_t>(kernel_of_[static_cast<size_t>(id)])];
  };
  const auto needs = [&](NodeId id) {
    std::vector<NodeId> list;
    if (stored(id))
      for (NodeId r : reads(kernel_at(id))) list.push_back(r);
    else
      for (size_t i = 0; i < node(id).operands.size(); ++i)
        if (const Value v = read_operand(id, i); v && !is_zero_gap(id, v)) list.push_back(v.node);
    return list;
  };
  const auto emit = [&](NodeId id) {
    if (stored(id)) {
      emit_kernel(builder, map, kernel_at(id));
      for (NodeId root : kernel_at(id).roots) done[static_cast<size_t>(root)] = 1, emitted.push_back(root);
      return;
    }
    std::vector<Value> operands;
    builder.set_origin(node(id).origin);
    for (size_t i = 0; i < node(id).operands.size(); ++i) {
      const Value v = read_operand(id, i);
      operands.push_back(!v ? v : is_zero_gap(id, v) ? builder.constant(Tensor(graph_.type(v))) : map(v));
    }
    map.set(id, builder.call_all(*node(id).op, std::move(operands), node(id).attributes));
    done[static_cast<size_t>(id)] = 1;
    emitted.push_back(id);
  };
  const auto visit = [&](NodeId start) {
    std::vector<NodeId> stack{start};
    while (!stack.empty()) {
      const NodeId id = stack.back();
      if (done[static_cast<size_t>(id)]) {
        stack.pop_back();
        continue;
      }
      bool ready = true;
      for (NodeId n : needs(id))
        if (!done[static_cast<size_t>(n)]) stack.push_back(n), ready = false;
      if (ready) emit(id), stack.pop_back();
    }
  };
  const auto has_operands = [&](NodeId id) {
    std::vector<NodeId> stack{id};
    while (!stack.empty()) {
      const NodeId at = stack.back();
      stack.pop_back();
      for (Value v : node(at).operands) {
        if (done[static_cast<size_t>(v.node)]) continue;
        if (!is_view(graph_, node(v.node))) return false;
        stack.push_back(v.node);
      }
    }
    return true;
  };
  // In graph order, so that the forward pass stays in front. But a contraction runs as soon as its operands are there,
  // so that what a weight's gradient reads is free again early, and kernels can run beside it.
  for (NodeId id = 0; id < graph_.size(); ++id) {
    if (external(id) || stored(id)) visit(id);
    while (!emitted.empty()) {
      const NodeId at = emitted.back();
      emitted.pop_back();
      for (NodeId user : users_[static_cast<size_t>(at)]) {
        if (is_view(graph_, node(user)))
          emitted.push_back(user);
        else if (is_library(node(user)) && !done[static_cast<size_t>(user)] && has_operands(user))
          visit(user);
      }
    }
  }
  const auto deliver = [&](Value v) {
    visit(v.node);
    return map(v);
  };
  for (const NamedValue& o : graph_.outputs()) builder.output(o.name, deliver(o.value));
  for (const StateUpdate& u : graph_.updates()) builder.update(deliver(u.state), deliver(u.value));
  return std::move(builder).finish();
}

}  // namespace

Graph fuse(const Graph& graph) { return Fusion(graph).build(); }

}  // namespace halfstep
