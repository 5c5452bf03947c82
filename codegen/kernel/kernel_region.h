// Reads a region as expressions: the value of a graph node at a symbolic index.
#pragma once

#include <functional>
#include <map>
#include <tuple>
#include <vector>

#include "codegen/kernel/kernel.h"
#include "ir/index_map.h"

namespace halfstep {

// The value a reduction starts from, as the interpreter does.
double identity_of(ScalarOp combine, DType dtype);

class RegionReader {
 public:
  // `read_reduction` gives the result of a reduction node at the row-major position of its result.
  using ReadReduction = std::function<ExpressionId(NodeId, const Index& position)>;
  RegionReader(const Graph& region, Kernel& kernel, ReadReduction read_reduction)
      : region_(region), kernel_(kernel), read_reduction_(std::move(read_reduction)) {}

  // Where `guard` is false the index may be outside the value and the result is unspecified.
  ExpressionId evaluate(Value v, const std::vector<Index>& index, ExpressionId guard = kNoExpression);

  // carried = step(point, carried) for every point of `extents`, row-major; the last one.
  using FoldStep = std::function<std::vector<ExpressionId>(const std::vector<Index>& point,
                                                           const std::vector<ExpressionId>& carried)>;
  std::vector<ExpressionId> fold(const Shape& extents, std::vector<ExpressionId> initial, const FoldStep& step);

 private:
  struct Point {
    const Node& node;
    const std::vector<Index>& index;
    ExpressionId guard;
  };

  ExpressionId read(Value v, const Point& p);
  ExpressionId read_leaf(const Point& p);
  ExpressionId read_constant(const Point& p);
  ExpressionId read_pointwise(const Point& p, DType type);
  bool is_of(DType type, ExpressionId id, int depth = 0) const;
  void compare_unrounded(std::vector<ExpressionId>& operands);
  ExpressionId read_movement(const Point& p);
  ExpressionId read_operands(const Point& p, const IndexReads& reads);
  ExpressionId read_rows(const Point& p);
  ExpressionId read_random(const Point& p);
  ExpressionId read_window(Value v, const Point& p);
  ExpressionId read_max_pool(const Point& p);
  ExpressionId read_max_pool_grad(const Point& p);
  ExpressionId read_avg_pool(const Point& p);
  ExpressionId read_avg_pool_grad(const Point& p);
  int64_t outputs_together(const Point& p) const;
  ExpressionId read_depthwise(const Point& p);

  ExpressionId load_argument(int32_t argument, const Point& p);
  const Shape& operand_shape(const Point& p, size_t i) const { return region_.type(p.node.operands[i]).shape; }

  // One element of a window: its input position, where that exists, its place in the window, where that is certain to
  // be one, and the place's row-major number.
  struct WindowElement {
    std::vector<Index> index;
    ExpressionId inside;
    std::vector<Index> place;
    bool has_place = true;
    Index number;
  };
  // Elements of a window outside the input: absent, or the nearest one of the window instead, which leaves the largest
  // value and the first place that has it as they are.
  enum class Outside : uint8_t { absent, nearest };
  WindowElement input_element(const Point& p, const std::vector<Index>& element, Outside outside);
  WindowElement output_element(const Point& p, const std::vector<Index>& candidate);
  Shape candidate_counts(const Point& p) const;
  ExpressionId add_where(ExpressionId carried, ExpressionId condition, ExpressionId v);
  ExpressionId window_count(const Point& p, const std::vector<Index>& output);

  const Graph& region_;
  Kernel& kernel_;
  ReadReduction read_reduction_;
  std::map<std::tuple<Value, std::vector<Index>, ExpressionId>, ExpressionId> known_;
};

}  // namespace halfstep
