#include "compiler/inspect/step_cost.h"

#include <algorithm>

#include "base/processors.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/fusion/call_memory.h"

namespace halfstep {
namespace {

double operations(const Graph& graph, const Node& node) {
  if (node.op->kernel == KernelKind::leaf || node.op->kernel == KernelKind::movement) return 0;
  if (!node.op->cost) return static_cast<double>(node.results[0].element_count());
  std::vector<TensorType> types;
  for (Value v : node.operands) types.push_back(v ? graph.type(v) : TensorType());
  return node.op->cost(node, types);
}

bool computes_low(const Graph& graph, const Node& node) {
  for (Value v : node.operands)
    if (v && is_floating(graph.type(v).dtype)) return is_low(graph.type(v).dtype);
  return false;
}

// Of a table only the rows that are chosen are read.
int64_t bytes_read(const Graph& graph, const FusedCall& call, Value v) {
  const int64_t whole = graph.type(v).byte_count();
  int64_t chosen = 0;
  for (NodeId id : call.nodes) {
    const Node& node = graph.node(id);
    for (size_t i = 0; i < node.operands.size(); ++i) {
      if (node.operands[i] != v) continue;
      if (node.op->index_map != IndexMap::indirect || i != 0) return whole;
      chosen += node.results[0].byte_count();
    }
  }
  return std::min(whole, chosen);
}

// A scatter writes what it changes.
int64_t bytes_written(const Graph& graph, Value v) {
  const Node& node = graph.node(v);
  if (writes_in_place(node) && node.operands.size() > 2 && node.operands[2])
    return std::min(graph.type(v).byte_count(), graph.type(node.operands[2]).byte_count());
  return graph.type(v).byte_count();
}

// Of the node that computes it, in a kernel too.
const Origin& origin_of(const Graph& fused, Value v) {
  const Node& node = fused.node(v);
  if (node.op->kernel != KernelKind::fused) return node.origin;
  const Graph& body = node.attributes.region("body");
  Value made = body.outputs()[static_cast<size_t>(v.result)].value;
  while (body.node(made).origin.name.empty() && !body.node(made).operands.empty()) made = body.node(made).operands[0];
  return body.node(made).origin.name.empty() ? node.origin : body.node(made).origin;
}

class Costs {
 public:
  Costs(const FusedCalls& calls, const Machine& machine) : calls_(calls), graph_(calls.graph), machine_(machine) {}

  StepCost run() {
    for (const FusedCall& call : calls_.calls) add(call);
    return std::move(cost_);
  }

 private:
  void add(const FusedCall& call) {
    std::map<StepCost::Key, double> shares;
    double flops = 0, low_flops = 0, all = 0, bytes = 0;
    for (NodeId id : call.nodes) {
      const Node& node = graph_.node(id);
      const double work = operations(graph_, node);
      const bool low = computes_low(graph_, node);
      flops += work, low_flops += low ? work : 0;
      const double share = node.op->kernel == KernelKind::movement || node.op->kernel == KernelKind::leaf
                               ? 0
                               : static_cast<double>(node.results[0].element_count());
      if (node.origin.name.empty()) continue;
      const StepCost::Key key(*node.origin.name, node.origin.phase);
      NodeCost& of_node = cost_.nodes[key];
      of_node.flops += work, of_node.low_flops += low ? work : 0;
      shares[key] += share, all += share;
    }
    for (Value v : call.reads) bytes += static_cast<double>(bytes_read(graph_, call, v));
    for (Value v : call.writes) bytes += static_cast<double>(bytes_written(graph_, v));
    const double microseconds = call_microseconds({bytes, flops, low_flops}, machine_);
    for (auto& [key, share] : shares) {
      const double part = all > 0 ? share / all : 1.0 / static_cast<double>(shares.size());
      NodeCost& of_node = cost_.nodes[key];
      of_node.bytes += part * bytes, of_node.microseconds += part * microseconds;
    }
    NodeCost& total = cost_.total;
    total.flops += flops, total.low_flops += low_flops, total.bytes += bytes, total.microseconds += microseconds;
  }

  const FusedCalls& calls_;
  const Graph& graph_;
  const Machine& machine_;
  StepCost cost_;
};

}  // namespace

Machine machine_of(DeviceKind device) {
  if (device == DeviceKind::cuda)  // about three quarters of its memory and three fifths of its matrix units
    return {
        .name = "an H200", .bytes_per_second = 3.6e12, .low_rate = 6e14, .full_rate = 5e13, .launch_seconds = 1.5e-6};
  const double cores = usable_processors();
  return {.name = std::to_string(usable_processors()) + " cores with AVX2",
          .bytes_per_second = 1e10,
          .low_rate = 3e10 * cores,
          .full_rate = 3e10 * cores,
          .launch_seconds = 5e-6};
}

double computing_seconds(const CallWork& work, const Machine& machine) {
  return work.low_flops / machine.low_rate + (work.flops - work.low_flops) / machine.full_rate;
}

double call_microseconds(const CallWork& work, const Machine& machine) {
  const double moving = work.bytes / machine.bytes_per_second;
  return 1e6 * (machine.launch_seconds + std::max(moving, computing_seconds(work, machine)));
}

StepCost step_cost(const FusedCalls& calls, const Machine& machine) { return Costs(calls, machine).run(); }

std::map<StepCost::Key, int64_t> kept_bytes(const Graph& fused) {
  const CallMemory memory(fused);
  std::map<StepCost::Key, int64_t> kept;
  for (const StoredValue& value : memory.values()) {
    const bool late = std::ranges::any_of(
        value.readers, [&](NodeId reader) { return fused.node(reader).origin.phase >= Phase::backward; });
    if (!late || fused.node(value.value).origin.phase >= Phase::backward) continue;
    const Origin& origin = origin_of(fused, value.value);
    kept[{*origin.name, origin.phase}] += value.bytes;
  }
  return kept;
}

}  // namespace halfstep
