#include "passes/training/check_factors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <vector>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int64_t kFewestElements = int64_t{1} << 15;  // of a gradient: below it a pass over it costs nothing
constexpr int64_t kMostTerms = int64_t{1} << 40;       // f16's largest squared, so often, is far below f32's largest
constexpr int64_t kMostLeft = 8192;                    // elements that one block looks through
constexpr size_t kMostPieces = 16;                     // that one kernel reads

class Check {
 public:
  explicit Check(Builder& b) : b_(b) {}

  // What stands for `reduce_max(select(is_finite(arena), 0, 1))`, of which `bad` is the operand; absent: it stays.
  Value instead_of(Value bad) {
    const Node chosen = made(bad);
    if (!is(chosen, "select") || splat(b_.graph(), chosen.operands[1]) != 0.0 ||
        splat(b_.graph(), chosen.operands[2]) != 1.0)
      return {};
    const Node finite = made(chosen.operands[0]);
    if (!is(finite, "is_finite")) return {};
    const Node arena = made(finite.operands[0]);
    if (!is_arena(arena)) return {};
    for (const Value piece : arena.operands) find_sum(piece);
    for (const Value piece : arena.operands) sort(piece);
    if (products_ == 0) return {};
    for (const Value factor : factors_) leave(flags(factor));
    if (left_.size() > kMostPieces || elements_left_ > kMostLeft) return {};
    const Value x = joined();
    return b_.reduce("reduce_max", b_.select(b_.unary("is_finite", x), all_of(x, 0), all_of(x, 1)), {1});
  }

 private:
  Node made(Value v) const { return b_.graph().node(v); }
  int64_t count(Value v) const { return b_.type(v).element_count(); }
  Value unshaped(Value v) const {
    for (Node node = made(v); is(node, "reshape"); node = made(v)) v = node.operands[0];
    return v;
  }

  // Of a sum in f32 over f16 values, these: it is finite where they are.
  void find_sum(Value piece) {
    const Node sum = made(unshaped(piece));
    if (!is(sum, "reduce_sum") || sum.results[0].dtype != DType::f32 || count(sum.operands[0]) > kMostTerms) return;
    const Node widened = made(unshaped(sum.operands[0]));
    if (is(widened, "cast") && b_.dtype(widened.operands[0]) == DType::f16)
      summed_.insert(unshaped(widened.operands[0]));
  }

  void sort(Value piece) {
    if (const std::optional<double> same = splat(b_.graph(), piece); same && std::isfinite(*same)) return;  // a gap
    if (take_product(made(unshaped(piece)))) return;
    leave(piece);
  }
  void leave(Value piece) {
    left_.push_back(piece);
    elements_left_ += count(piece);
  }

  bool take_product(const Node& product) {
    const TensorType& type = product.results[0];
    if (!is(product, "matmul") || type.dtype != DType::f32 || type.shape.size() != 2 ||
        type.element_count() < kFewestElements || product.attributes.integer("rectified") != 0 ||
        optional_operand(product, kProductBias) || optional_operand(product, kProductAddend))
      return false;
    std::vector<Value> factors;
    int64_t bytes = 0;
    for (const Value operand : {product.operands[0], product.operands[1]}) {
      if (b_.dtype(operand) != DType::f16 || count(operand) == 0 || count(operand) > kMostTerms) return false;
      const Value factor = unshaped(operand);
      if (summed_.contains(factor)) continue;
      factors.push_back(factor);
      bytes += b_.type(factor).byte_count();
    }
    if (2 * bytes > type.byte_count()) return false;
    factors_.insert(factors.begin(), factors.end());
    ++products_;
    return true;
  }

  Value all_of(Value x, double value) { return b_.broadcast(b_.constant(DType::f32, value), b_.shape(x)); }
  // Of each row of a factor 0, or infinity: to be looked through with what is left, by the one kernel that comes last.
  Value flags(Value factor) {
    const int64_t rows = b_.shape(factor)[0];
    const Value x = b_.reshape(factor, {rows, count(factor) / rows});
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    return b_.reduce("reduce_max", b_.select(b_.unary("is_finite", x), all_of(x, 0), all_of(x, kInfinity)), {1});
  }
  // In a row: a vector would be an arena, with memory of its own.
  Value joined() {
    std::vector<Value> rows;
    for (const Value v : left_) rows.push_back(b_.reshape(v, {1, count(v)}));
    return rows.size() == 1 ? rows[0] : b_.call("concat", std::move(rows), {{"axis", int64_t{1}}});
  }

  Builder& b_;
  std::set<Value> summed_, factors_;
  std::vector<Value> left_;  // pieces that are looked through themselves
  int64_t elements_left_ = 0, products_ = 0;
};

}  // namespace

Graph check_factors(const Graph& graph) {
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    if (!is(node, "reduce_max") || node.results[0].element_count() != 1) return {};
    const Value found = Check(b).instead_of(operands[0]);
    if (!found) return {};
    return {b.reshape(found, node.results[0].shape)};
  });
}

}  // namespace halfstep
