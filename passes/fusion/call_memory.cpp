#include "passes/fusion/call_memory.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "ir/op.h"
#include "ir/views.h"

namespace halfstep {
namespace {

// Whether a region reads its input number `number` only at the point that it computes.
bool reads_point_by_point(const Graph& body, size_t number) {
  const auto users = body.users();
  std::vector<NodeId> stack;
  for (NodeId id = 0; id < body.size() && stack.empty(); ++id)
    if (is_leaf(*body.node(id).op) && number-- == 0) stack.push_back(id);
  std::vector<char> seen(body.nodes().size(), 0);
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    for (const NodeId user : users[static_cast<size_t>(at)]) {
      const KernelKind kind = body.node(user).op->kernel;
      if (kind != KernelKind::pointwise && kind != KernelKind::reduction && !is_view(body, body.node(user)))
        return false;
      if (kind != KernelKind::reduction && !std::exchange(seen[static_cast<size_t>(user)], 1)) stack.push_back(user);
    }
  }
  return true;
}

}  // namespace

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
        if (StoredValue& piece = values_[static_cast<size_t>(number)]; piece.value == v) {
          pieces.push_back(number);
          if (piece.arena < 0) piece.arena = arena;
        }
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

// Values that end at a call and whose memory results of it can take: a kernel's, where it reads them point by point,
// and what is added to a product.
std::vector<int> CallMemory::lent(NodeId call) const {
  std::vector<int> found;
  const Node& node = graph_.node(call);
  const auto can_take = [&](size_t operand) {
    return node.op->kernel == KernelKind::fused ? reads_point_by_point(node.attributes.region("body"), operand)
                                                : operand == kProductAddend;
  };
  const bool adds = node.op->kernel == KernelKind::gemm && optional_operand(node, kProductAddend);
  if (node.op->kernel != KernelKind::fused && !adds) return found;
  std::vector<int64_t> results;
  for (const int made : made_[static_cast<size_t>(call)]) results.push_back(values_[static_cast<size_t>(made)].bytes);
  for (const int read : read_[static_cast<size_t>(call)]) {
    const StoredValue& v = values_[static_cast<size_t>(read)];
    const auto result = std::ranges::find(results, v.bytes);
    if (v.readers.back() != call || v.arena >= 0 || result == results.end()) continue;
    const auto is_it = [&](Value operand) { return operand && storage(operand) == v.value; };
    const auto operand = std::ranges::find_if(node.operands, is_it);
    if (std::ranges::count_if(node.operands, is_it) != 1 ||
        !can_take(static_cast<size_t>(operand - node.operands.begin())))
      continue;
    *result = -1;
    found.push_back(read);
  }
  return found;
}

std::vector<int64_t> CallMemory::alive(int overlap) const {
  std::vector<NodeId> calls, place(graph_.nodes().size(), 0);
  for (NodeId id = 0; id < graph_.size(); ++id)
    if (is_call(id)) place[static_cast<size_t>(id)] = static_cast<NodeId>(calls.size()), calls.push_back(id);
  // What waits for a library call, and is one, does not run beside it.
  std::vector<NodeId> next(graph_.nodes().size(), std::numeric_limits<NodeId>::max());
  for (const NodeId call : calls)
    if (is_library(graph_.node(call)))
      for (const Value event : awaited(graph_, graph_.node(call))) {
        NodeId& first = next[static_cast<size_t>(storage(event).node)];
        first = std::min(first, place[static_cast<size_t>(call)]);
      }
  const auto until = [&](NodeId call) {
    if (!is_library(graph_.node(call))) return call;
    const NodeId last = std::min(place[static_cast<size_t>(call)] + overlap, next[static_cast<size_t>(call)] - 1);
    return calls[std::min(static_cast<size_t>(last), calls.size() - 1)];
  };
  std::vector<NodeId> begin(graph_.nodes().size(), std::numeric_limits<NodeId>::max());  // by arena
  for (const StoredValue& v : values_)
    if (v.arena >= 0) begin[static_cast<size_t>(v.arena)] = std::min(begin[static_cast<size_t>(v.arena)], v.value.node);
  std::vector<int64_t> bytes(graph_.nodes().size() + 1, 0);
  for (const StoredValue& v : values_) {
    NodeId last = until(v.value.node);
    for (const NodeId reader : v.readers) last = std::max(last, until(reader));
    bytes[static_cast<size_t>(v.arena >= 0 ? begin[static_cast<size_t>(v.arena)] : v.value.node)] += v.bytes;
    bytes[static_cast<size_t>(last) + 1] -= v.bytes;
  }
  for (NodeId call = 0; call < graph_.size(); ++call)
    for (const int value : lent(call)) {
      const StoredValue& v = values_[static_cast<size_t>(value)];
      if (std::ranges::any_of(v.readers, [&](NodeId r) { return r != call && until(r) >= call; })) continue;
      bytes[static_cast<size_t>(call)] -= v.bytes;
      bytes[static_cast<size_t>(std::max(call, until(v.value.node))) + 1] += v.bytes;
    }
  for (size_t i = 1; i < bytes.size(); ++i) bytes[i] += bytes[i - 1];
  bytes.pop_back();
  return bytes;
}

}  // namespace halfstep
