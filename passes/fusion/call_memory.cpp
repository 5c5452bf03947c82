#include "passes/fusion/call_memory.h"

#include <algorithm>
#include <set>

#include "ir/op.h"
#include "ir/views.h"

namespace halfstep {

CallMemory::CallMemory(const Graph& graph)
    : graph_(graph),
      made_(graph.nodes().size()),
      read_(graph.nodes().size()),
      needs_(graph.nodes().size()),
      pieces_(graph.nodes().size()) {
  std::set<Value> lasting;
  for (const NamedValue& output : graph.outputs()) lasting.insert(storage(output.value));
  for (const StateUpdate& update : graph.updates()) lasting.insert(storage(update.value));
  for (NodeId id = 0; id < graph.size(); ++id) {
    if (!is_call(id)) continue;
    for (const Value v : graph.node(id).operands)
      if (v) need(id, v);
    std::vector<NodeId>& needs = needs_[static_cast<size_t>(id)];
    std::ranges::sort(needs);
    needs.erase(std::unique(needs.begin(), needs.end()), needs.end());
    if (is_arena(graph.node(id))) {
      place_pieces(id);
    } else {
      for (const Value v : graph.node(id).operands)
        if (v) read_storage(id, storage(v));
      for (int32_t r = 0; r < static_cast<int32_t>(graph.node(id).results.size()); ++r) {
        const Value v{id, r};
        if (lasting.contains(v)) continue;
        made_[static_cast<size_t>(id)].push_back(static_cast<int>(values_.size()));
        values_.push_back({v, graph.type(v).byte_count(), {}});
      }
    }
  }
}

bool CallMemory::is_call(NodeId id) const {
  const Node& node = graph_.node(id);
  return node.op->kernel != KernelKind::leaf && !is_view(graph_, node);
}

Value CallMemory::storage(Value v) const {
  while (is_view(graph_, graph_.node(v))) v = graph_.node(v).operands[0];
  return v;
}

// All of an arena is the sum of its pieces here: what is no value of a call is copied in, and small.
void CallMemory::place_pieces(NodeId arena) {
  std::vector<int>& pieces = pieces_[static_cast<size_t>(arena)];
  for (const Value operand : graph_.node(arena).operands) {
    const Value v = storage(operand);
    if (is_arena(graph_.node(v))) {
      const std::vector<int>& inner = pieces_[static_cast<size_t>(v.node)];
      pieces.insert(pieces.end(), inner.begin(), inner.end());
    } else {
      for (const int number : made_[static_cast<size_t>(v.node)])
        if (values_[static_cast<size_t>(number)].value == v) pieces.push_back(number);
    }
  }
}

void CallMemory::read_storage(NodeId call, Value v) {
  const auto read = [&](int number) {
    std::vector<NodeId>& readers = values_[static_cast<size_t>(number)].readers;
    if (!readers.empty() && readers.back() == call) return;
    readers.push_back(call);
    read_[static_cast<size_t>(call)].push_back(number);
  };
  for (const int number : pieces_[static_cast<size_t>(v.node)]) read(number);
  for (const int number : made_[static_cast<size_t>(v.node)])
    if (values_[static_cast<size_t>(number)].value == v) read(number);
}

// Through views, and to what an `after` waits for.
void CallMemory::need(NodeId call, Value v) {
  std::vector<Value> stack{v};
  while (!stack.empty()) {
    const NodeId at = stack.back().node;
    stack.pop_back();
    const Node& node = graph_.node(at);
    if (is_call(at))
      needs_[static_cast<size_t>(call)].push_back(at);
    else if (node.op->kernel != KernelKind::leaf)
      for (const Value operand : node.operands) stack.push_back(operand);
  }
}

std::vector<int64_t> CallMemory::alive() const {
  std::vector<int64_t> bytes(graph_.nodes().size() + 1, 0);
  for (const StoredValue& v : values_) {
    const NodeId last = v.readers.empty() ? v.value.node : v.readers.back();
    bytes[static_cast<size_t>(v.value.node)] += v.bytes;
    bytes[static_cast<size_t>(last) + 1] -= v.bytes;
  }
  for (size_t i = 1; i < bytes.size(); ++i) bytes[i] += bytes[i - 1];
  bytes.pop_back();
  return bytes;
}

}  // namespace halfstep
