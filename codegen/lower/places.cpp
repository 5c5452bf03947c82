#include "codegen/lower/places.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/error.h"
#include "codegen/kernel/schedule.h"
#include "ir/op.h"
#include "ir/views.h"

namespace halfstep {
namespace {

// Whether element i of `output` depends on `input` only through its element i, so that both may share memory.
bool elementwise_only(const Graph& body, NodeId input, const std::vector<std::vector<NodeId>>& users) {
  std::vector<NodeId> stack{input};
  std::vector<char> seen(body.nodes().size(), 0);
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    for (NodeId user : users[static_cast<size_t>(at)]) {
      const Node& n = body.node(user);
      if (n.op->kernel != KernelKind::pointwise && n.op->index_map != IndexMap::row_major) return false;
      if (!std::exchange(seen[static_cast<size_t>(user)], 1)) stack.push_back(user);
    }
  }
  return true;
}

}  // namespace

Places::Places(const Graph& graph, LoweredProgram& result)
    : graph_(graph),
      result_(result),
      users_(graph.users()),
      places_(graph.nodes().size()),
      last_use_(graph.nodes().size(), -1) {
  for (NodeId id = 0; id < graph_.size(); ++id) places_[static_cast<size_t>(id)].resize(node(id).results.size());
  find_last_uses();
  place_leaves();
  place_arenas();
  place_outputs();
  place_updates();
  place_overwritten();
}

Place Places::resolve(Value v) const {
  int64_t offset = 0;
  while (is_view(graph_, node(v.node))) {
    offset += view_offset(graph_, node(v.node)) * size_of(graph_.type(v).dtype);
    v = node(v.node).operands[0];
  }
  const std::optional<Place>& found = place(v);
  require(found.has_value(), "a value is lowered before it is read");
  return {found->storage, found->offset + offset};
}

Place Places::of_result(Value v) {
  if (const Value source = taken_over(v.node, overwritten(v.node)); source && !has(v)) place(v) = place(source);
  if (!has(v)) {
    const TensorType& type = graph_.type(v);
    place(v) = scratch(type.byte_count());
    result_.values.emplace_back(type.byte_count(), to_string(type) + " of '" + to_string(node(v.node).origin) + "'");
  }
  return *place(v);
}

Place Places::scratch(int64_t bytes) {
  lifetimes_.push_back({bytes, std::numeric_limits<int>::max(), 0});
  storages_.push_back({-1, lifetimes_.size() - 1, bytes});
  return {storages_.size() - 1, 0};
}

bool Places::ends_here(NodeId id, size_t operand, std::span<const Place> places) const {
  const Place p = places[operand];
  const Storage& storage = storages_[p.storage];
  const Value v = node(id).operands[operand];
  const NodeId maker = storage_node(v.node);
  return storage.buffer < 0 && !arenas_.contains(p.storage) && p.offset == 0 &&
         storage.bytes == graph_.type(v).byte_count() && node(maker).op->kernel != KernelKind::leaf &&
         last_use_[static_cast<size_t>(maker)] == id && std::ranges::count(places, p.storage, &Place::storage) == 1;
}

bool Places::fills_gaps(Value v) const {
  if (node(v.node).op->leaf != Leaf::constant) return false;
  if (last_use_[static_cast<size_t>(v.node)] == graph_.size()) return false;
  for (NodeId user : users_[static_cast<size_t>(v.node)])
    if (!is_arena(node(user))) return false;
  const std::vector<std::byte>& data = node(v.node).attributes.tensor("value").data;
  return std::all_of(data.begin(), data.end(), [](std::byte b) { return b == std::byte{0}; });
}

bool Places::is_computed(NodeId id) const {
  return node(id).op->kernel != KernelKind::leaf && !is_view(graph_, node(id)) && !is_arena(node(id));
}

NodeId Places::storage_node(NodeId id) const {
  while (is_view(graph_, node(id))) id = node(id).operands[0].node;
  return id;
}

Value Places::unshaped(Value v) const {
  while (node(v.node).op->index_map == IndexMap::row_major) v = node(v.node).operands[0];
  return v;
}

StorageId Places::add_buffer(Name name, BufferKind kind, TensorType type) {
  result_.program.buffers.push_back({std::move(name), kind, type});
  storages_.push_back({static_cast<int>(result_.program.buffers.size()) - 1, 0, type.byte_count()});
  return storages_.size() - 1;
}

void Places::find_last_uses() {
  for (NodeId id = 0; id < graph_.size(); ++id)
    for (Value v : node(id).operands)
      if (v && !is_view(graph_, node(id))) last_use_[static_cast<size_t>(storage_node(v.node))] = id;
  const auto keep = [&](Value v) { last_use_[static_cast<size_t>(storage_node(v.node))] = graph_.size(); };
  for (const NamedValue& o : graph_.outputs()) keep(o.value);
  for (const StateUpdate& u : graph_.updates()) keep(u.value);
}

void Places::place_leaves() {
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& n = node(id);
    if (n.op->kernel != KernelKind::leaf) continue;
    if (n.op->leaf == Leaf::constant) {
      if (fills_gaps({id, 0})) continue;
      const Tensor& value = n.attributes.tensor("value");
      const Name name(Role::transient, "constant." + result_.program.name + "." + std::to_string(id));
      result_.constants.emplace(name, value);
      place({id, 0}) = {add_buffer(name, BufferKind::state, value.type), 0};
      continue;
    }
    const BufferKind kind = n.op->leaf == Leaf::input ? BufferKind::input : BufferKind::state;
    place({id, 0}) = {add_buffer(leaf_name(n), kind, n.results[0]), 0};
  }
}

// An arena with gaps is a buffer of its own, zero at first: the gaps between its pieces are never written. A piece that
// nobody else has placed is computed right into the arena.
void Places::place_arenas() {
  int number = 0;
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& n = node(id);
    if (!is_arena(n)) continue;
    const bool gaps = std::ranges::any_of(n.operands, [&](Value v) { return fills_gaps(v); });
    const Place arena =
        gaps ? Place{add_buffer({Role::transient, "arena." + result_.program.name + "." + std::to_string(number++)},
                                BufferKind::state, n.results[0])}
             : scratch(n.results[0].byte_count());
    place({id, 0}) = arena;
    arenas_.insert(arena.storage);
    int64_t offset = 0;
    for (Value v : n.operands) {
      Value source = v;
      bool whole = true;
      while (is_view(graph_, node(source.node))) {
        whole &= node(source.node).op->index_map == IndexMap::row_major;
        source = node(source.node).operands[0];
      }
      if (whole && offset % kArgumentAlignment == 0 && is_computed(source.node) && !has(source))
        place(source) = {arena.storage, offset};
      offset += graph_.type(v).byte_count();
    }
  }
}

// An output is computed right into its buffer, also if it is a reshape of what a kernel makes.
void Places::place_outputs() {
  for (const NamedValue& o : graph_.outputs()) {
    outputs_.push_back(add_buffer(o.name, BufferKind::output, graph_.type(o.value)));
    const Value source = unshaped(o.value);
    if (is_computed(source.node) && !has(source)) place(source) = {outputs_.back(), 0};
  }
}

// The new value may be written over the old one if nothing reads the old one afterwards, and the kernel that makes it
// reads the old one element by element.
bool Places::safe_in_place(const StateUpdate& update) const {
  const NodeId maker = update.value.node;
  if (node(maker).op->kernel != KernelKind::fused || has(update.value)) return false;
  if (last_use_[static_cast<size_t>(update.state.node)] > maker) return false;
  const Graph& body = node(maker).attributes.region("body");
  const auto users = body.users();
  NodeId input = -1;
  size_t operand = 0;
  for (NodeId id = 0; id < body.size(); ++id) {
    if (body.node(id).op->leaf != Leaf::input) continue;
    const Value v = node(maker).operands[operand++];
    if (storage_node(v.node) != update.state.node) continue;
    if (v != update.state || input >= 0 || !elementwise_only(body, id, users)) return false;
    input = id;
  }
  return true;
}

void Places::place_updates() {
  for (const StateUpdate& u : graph_.updates())
    if (safe_in_place(u)) place(u.value) = place(u.state);
}

// The operand whose value a region finds in its result's memory; absent: the region writes all of that itself.
Value Places::overwritten(NodeId id) const {
  if (node(id).op->kernel != KernelKind::fused) return {};
  const auto number = operand_written_over(node(id).attributes.region("body"));
  return number ? node(id).operands[*number] : Value{};
}

// The value whose memory a result may take: that of an operand that it is written over, if nothing else reads it by
// then.
Value Places::taken_over(NodeId id, Value operand) const {
  if (!operand) return {};
  const Value source = unshaped(operand);
  const auto readers =
      std::ranges::count_if(node(id).operands, [&](Value v) { return v && storage_node(v.node) == source.node; });
  const bool is_last = last_use_[static_cast<size_t>(source.node)] == id;
  return is_computed(source.node) && readers == 1 && is_last ? source : Value{};
}

// What a region writes over, or a product in an arena is added to, is computed where the result is to be. Last ones
// first, so that chains of them work.
void Places::place_overwritten() {
  for (NodeId id = graph_.size(); id-- > 0;) {
    if (!has({id, 0})) continue;
    const bool adds = node(id).op->kernel == KernelKind::gemm && arenas_.contains(place({id, 0})->storage);
    const Value operand = adds ? optional_operand(node(id), kProductAddend) : overwritten(id);
    if (const Value source = taken_over(id, operand); source && !has(source)) place(source) = place({id, 0});
  }
}

}  // namespace halfstep
