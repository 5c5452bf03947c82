// What the operators that hold an attention share.
#pragma once

#include "frontend/import/node_context.h"

namespace halfstep {

// [batch, length, heads * depth] to [batch, heads, length, depth], and back.
Value split_heads(NodeContext& c, Value x, int64_t heads);
Value merge_heads(Builder& b, Value x);

// What the queries see of the keys, gathered into the one mask of `attention`.
class AttentionMask {
 public:
  AttentionMask(Builder& b, int64_t queries, int64_t keys) : b_(b), queries_(queries), keys_(keys) {}

  // A condition or a bias that broadcasts to [batch, heads, queries, keys].
  void see_where(Value visible);
  void add(Value bias);
  // Query i sees key j where low <= j - i - offset <= high; an absent bound is none. `offset` is the position of the
  // first query among the keys: i64 [] or [batch, 1, 1, 1].
  void see_window(Value offset, std::optional<int64_t> low, std::optional<int64_t> high);
  // Whether a key is among those that a sample has, of lengths i64 [batch].
  Value among_first(Value lengths) const;

  Value value() const;  // absent if every query sees every key as it is

 private:
  Value position(int64_t axis) const;  // of the query (0) or the key (1), [queries, keys]

  Builder& b_;
  const int64_t queries_, keys_;
  Value visible_, bias_;
};

// Rotary position embedding of x [batch, heads, length, depth] in its first `dimensions` elements: element i and its
// partner, the next one if `interleaved`, else the one half of `dimensions` away, turn by an angle of position and i.
// cos and sin broadcast to [batch, 1, length, dimensions / 2].
struct Rotation {
  Value cos, sin;
  int64_t dimensions;
  enum Pairs : uint8_t { halves, interleaved } pairs;
};
Value rotate(Builder& b, Value x, const Rotation& rotation);
// Rows `positions` [batch or 1, length] of a table [positions, dimensions / 2], as `rotate` wants them.
Value rotation_rows(Builder& b, Value table, Value positions);

}  // namespace halfstep
