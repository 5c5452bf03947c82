// What the calls of a fused graph make and read in memory. Calls are the nodes that are neither leaves nor views.
#pragma once

#include <cstdint>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

// A value takes memory from the call that makes it to its last reader. Leaves and what the graph delivers have memory
// of their own. Pieces of an arena are values that the arena's readers read.
struct StoredValue {
  Value value;
  int64_t bytes = 0;
  std::vector<NodeId> readers;  // each once, ascending
  NodeId arena = -1;            // of which it is a piece
};

class CallMemory {
 public:
  explicit CallMemory(const Graph& graph);

  bool is_call(NodeId id) const;
  // The value whose memory a chain of views looks at.
  Value storage(Value v) const;
  const std::vector<StoredValue>& values() const { return values_; }
  // Numbers of values.
  const std::vector<int>& made(NodeId call) const { return made_[static_cast<size_t>(call)]; }
  const std::vector<int>& read(NodeId call) const { return read_[static_cast<size_t>(call)]; }
  // The calls that must be complete before it starts.
  const std::vector<NodeId>& needs(NodeId call) const { return needs_[static_cast<size_t>(call)]; }
  // Bytes of the values alive while each node runs, if they run in order. What a library call reads or makes stays for
  // `overlap` calls more, or until one that waits for it (an `after`). All pieces of an arena are there from the first
  // one on. A value whose last reader reads it element by element, or adds it to a product, lends its memory to a
  // result of equal size.
  std::vector<int64_t> alive(int overlap) const;

 private:
  void place_pieces(NodeId arena);
  void read_storage(NodeId call, Value v);
  void need(NodeId call, Value v);
  std::vector<int> lent(NodeId call) const;

  const Graph& graph_;
  std::vector<StoredValue> values_;
  std::vector<std::vector<int>> made_, read_;
  std::vector<std::vector<NodeId>> needs_;
  std::vector<std::vector<int>> pieces_;  // by arena
};

}  // namespace halfstep
