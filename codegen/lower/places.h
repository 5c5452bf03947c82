// Where the values of a graph live: in a buffer of their own, in an arena, over another value, or in scratch, whose
// offsets are planned when all steps are known.
#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "codegen/lower/lower.h"
#include "codegen/lower/plan_memory.h"

namespace halfstep {

// A piece of memory that values live in.
struct Storage {
  int buffer = -1;  // index in the program; -1: scratch, at `life`'s planned offset
  size_t life = 0;  // index of the lifetime; scratch only
  int64_t bytes = 0;
};

using StorageId = size_t;

constexpr int64_t kArgumentAlignment = 16;  // of what kernels and libraries take

struct Place {
  StorageId storage = 0;
  int64_t offset = 0;  // bytes
  friend bool operator==(const Place&, const Place&) = default;
};

class Places {
 public:
  // Adds the buffers, the constants and the sizes of what is in scratch to `result`.
  Places(const Graph& graph, LoweredProgram& result);

  // The place of a value, looking through views.
  Place resolve(Value v) const;
  // The place of a value about to be computed: in scratch, if nothing has placed it.
  Place of_result(Value v);
  Place scratch(int64_t bytes);
  bool has(Value v) const { return place(v).has_value(); }
  void put(Value v, Place p) { place(v) = p; }
  // Whether nothing but an operand of a node, whose operands are at `places`, needs the memory there any more.
  bool ends_here(NodeId id, size_t operand, std::span<const Place> places) const;
  Place of_output(size_t number) const { return {outputs_[number], 0}; }
  // A constant of zeros that only arenas read: their memory is zero from the start.
  bool fills_gaps(Value v) const;

  const std::vector<Storage>& storages() const { return storages_; }
  std::vector<Lifetime>& lifetimes() { return lifetimes_; }

 private:
  const Node& node(NodeId id) const { return graph_.node(id); }
  bool is_computed(NodeId id) const;
  // The node whose memory a chain of views looks at.
  NodeId storage_node(NodeId id) const;
  // What a value is in another shape.
  Value unshaped(Value v) const;

  std::optional<Place>& place(Value v) { return places_[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)]; }
  const std::optional<Place>& place(Value v) const {
    return places_[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)];
  }
  StorageId add_buffer(Name name, BufferKind kind, TensorType type);

  void find_last_uses();
  void place_leaves();
  void place_arenas();
  void place_outputs();
  void place_updates();
  void place_overwritten();
  bool safe_in_place(const StateUpdate& update) const;
  Value overwritten(NodeId id) const;
  Value taken_over(NodeId id, Value operand) const;

  const Graph& graph_;
  LoweredProgram& result_;
  const std::vector<std::vector<NodeId>> users_;
  std::vector<std::vector<std::optional<Place>>> places_;  // by node and result
  std::vector<NodeId> last_use_;                           // by storage node: the last node that reads it
  std::vector<Storage> storages_;
  std::set<StorageId> arenas_;
  std::vector<Lifetime> lifetimes_;
  std::vector<StorageId> outputs_;
};

}  // namespace halfstep
