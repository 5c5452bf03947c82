// The growing graph of a random case. Nodes are evaluated as they are made, so that what is random stays finite.
#pragma once

#include <string>
#include <vector>

#include "ir/builder.h"
#include "ir/interpret.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/random.h"

namespace halfstep::fuzz {

class GraphMaker {
 public:
  explicit GraphMaker(uint64_t seed);

  Random random;
  Builder b{"fuzz"};

  // A value of the graph so far, the latest most often, or a fresh leaf; f32.
  Value any(size_t least_rank = 0, size_t most_rank = 4);
  // One of this shape.
  Value shaped(const Shape& shape);
  // One that broadcasts to the shape: all of it, a row, a column, a scalar, a constant.
  Value joining(const Shape& shape);
  Value truths(const Shape& shape);                  // bool
  Value indices(const Shape& shape, int64_t bound);  // i64
  Value parameter(const Shape& shape);
  Value parameter(const Shape& shape, Distribution distribution);
  Value leaf(const Shape& shape);  // a parameter, an input or a constant
  Value seed();
  Value iteration();
  // A constant worth a test: 0, 1, powers of ten, the limits of the types.
  double number();
  Value constant(const Shape& shape, double value) { return b.broadcast(b.constant(DType::f32, value), shape); }
  Shape shape(size_t least_rank, size_t most_rank);
  int64_t size();  // of an axis
  int64_t axis_of(Value v) { return random.below(static_cast<int64_t>(b.shape(v).size())); }
  // Reshaped to rank `rank` by joining or adding axes.
  Value with_rank(Value v, size_t rank);

  // Takes a result into the pool if it is what may be: finite in double, not too large. Throws Unfit otherwise.
  struct Unfit {};
  void give(Value v);
  void give_truths(Value v) { truths_.push_back(v); }
  // Evaluates what was made since.
  const InterpretedTensor& value_of(Value v);

  // The graph with an output for every value that nothing reads, and the loss over those that are floating.
  FuzzCase finish();

 private:
  Value input(const TensorType& type, LeafValues values, const char* prefix);
  LeafValues random_values();

  CaseValues values_;
  std::vector<Value> pool_, truths_;
  std::vector<std::vector<InterpretedTensor>> evaluated_;
  std::vector<Distribution> theme_;  // this graph's leaves are drawn from these
  bool wild_ = false;                // huge values and NaN may stay
  int leaves_ = 0;
};

}  // namespace halfstep::fuzz
