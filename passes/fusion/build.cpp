#include <algorithm>

#include "base/error.h"
#include "passes/fusion/fusion.h"

namespace halfstep {

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
    if (node(id).op->leaf == Leaf::constant || node(id).op->index_map == IndexMap::repeated) continue;
    const Origin& o = node(id).origin;
    phase = std::max(phase, o.phase);
    if (!o.name.empty() && origin.find(*o.name) == std::string::npos && origin.size() < 60)
      origin += (origin.empty() ? "" : " + ") + *o.name;
  }
  builder.set_origin({origin, phase});
  require(!outputs.empty(), "a kernel has a result that somebody reads");
  const auto results = builder.fused(operands, std::move(region).finish());
  for (size_t i = 0; i < outputs.size(); ++i) map.at(outputs[i]) = results[i];
}

std::vector<FusedCall> Fusion::calls() const {
  std::vector<FusedCall> calls;
  const auto read = [](FusedCall& call, Value v) {
    if (v && std::ranges::find(call.reads, v) == call.reads.end()) call.reads.push_back(v);
  };
  for (NodeId id = 0; id < graph_.size(); ++id) {
    if (!is_library(node(id))) continue;
    FusedCall& call = calls.emplace_back();
    call.nodes = {id};
    for (size_t i = 0; i < node(id).operands.size(); ++i) read(call, read_operand(id, i));
    for (int32_t r = 0; r < static_cast<int32_t>(node(id).results.size()); ++r) call.writes.push_back({id, r});
  }
  for (const Kernel& kernel : kernels_) {
    if (!kernel.alive) continue;
    FusedCall& call = calls.emplace_back();
    call.nodes = body(kernel);
    for (NodeId id : call.nodes)
      for (Value v : node(id).operands)
        if (v && !std::ranges::binary_search(call.nodes, v.node)) read(call, v);
    for (NodeId root : kernel.roots)
      for (int32_t r = 0; r < static_cast<int32_t>(node(root).results.size()); ++r)
        if (needed_outside(root, r, kernel)) call.writes.push_back({root, r});
  }
  std::ranges::sort(calls, {}, [](const FusedCall& call) { return call.nodes.back(); });
  return calls;
}

// Kernels, library calls and views in an order in which operands come first: depth first from what the graph delivers.
Graph Fusion::build() {
  Builder builder(graph_.name());
  ValueMap map(graph_);
  std::vector<char> done(graph_.nodes().size(), 0);
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
      for (NodeId root : kernel_at(id).roots) done[static_cast<size_t>(root)] = 1;
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
  // In graph order, so that the forward pass stays in front.
  for (NodeId id = 0; id < graph_.size(); ++id)
    if (external(id) || stored(id)) visit(id);
  const auto deliver = [&](Value v) {
    visit(v.node);
    return map(v);
  };
  for (const NamedValue& o : graph_.outputs()) builder.output(o.name, deliver(o.value));
  for (const StateUpdate& u : graph_.updates()) builder.update(deliver(u.state), deliver(u.value));
  return std::move(builder).finish();
}

}  // namespace halfstep
