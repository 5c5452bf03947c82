#include "codegen/emit/device_shape.h"

#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "codegen/emit/emit_kernel.h"
#include "codegen/kernel/columns_tile.h"

namespace halfstep {
namespace {

constexpr int64_t kCachedElements = 32;  // of a row, kept in a thread's registers between phases
constexpr int64_t kMostThreads = 512;    // of a row: while some blocks wait at a barrier, others work
constexpr int64_t kLastingValues = 72;   // sums of columns, and what all rows share, in a thread
constexpr int64_t kFewSums = 4;          // of a kernel of columns
constexpr int64_t kLoadedTogether = 80;  // values that a thread's loads in flight bring

}  // namespace

// Lanes so that the narrowest operands move 16 bytes at a time; 1 where accesses are strided, but for loads along a few
// positions that are stored together, as the channels of an image in planes: then threads stand along the next axis.
unsigned choose_lanes(const Kernel& kernel) {
  const AtomId lane = kernel.lane_variable();
  if (lane < 0) return 1;
  int64_t narrowest = 16, bytes = 16;
  const VariableSet set = kernel.space.atom(lane).variables;
  int64_t shared = 0;  // loads that depend on the lane variable alone
  bool strided = false;
  const bool is_few = kernel.form == Kernel::Form::pointwise && kernel.together == 1 &&
                      (kernel.extent(lane) == 4 || kernel.extent(lane) == 8);
  const auto access = [&](int32_t argument, const Index& index) {
    if ((kernel.space.variables(index) & set) == 0) return;
    const DType dtype = kernel.arguments[static_cast<size_t>(argument)].type.dtype;
    narrowest = std::min(narrowest, size_of(dtype));
    if (is_floating(dtype)) bytes = std::min(bytes, size_of(dtype));
    const int64_t factor = index.factor(lane);
    strided = strided || (factor != 1 && factor != 0);
  };
  for (ExpressionId id = 0; id < kernel.expressions.size(); ++id) {
    const Expression& e = kernel.expressions[id];
    if (e.kind != Expression::Kind::load) continue;
    access(e.id, e.index);
    shared += kernel.expressions.variables(id) == set;
  }
  strided = strided && !is_few;
  for (const Store& s : kernel.stores) access(s.argument, s.index);
  if (strided) return 1;
  int64_t lanes = std::min<int64_t>(8, 16 / (bytes < 16 ? bytes : narrowest));
  // Points that stand together need registers of their own, and so do sums and what all rows share. Many sums, as a
  // filter's gradient, wait for arithmetic, which wide lanes do in fewer instructions.
  if (kernel.together > 2) lanes = std::min<int64_t>(lanes, 4);
  const int64_t sums = std::ssize(kernel.reductions), lasting = sums + (sums > kFewSums ? 0 : shared);
  while (lanes > 1 && kernel.form == Kernel::Form::columns && lasting * lanes > kLastingValues) lanes /= 2;
  while (lanes > 1 && kernel.extent(lane) % lanes != 0) lanes /= 2;
  // Small tensors: rather more threads than wider ones. Columns get them by narrower tiles.
  const int64_t points = kernel.points(kernel.kept) * kernel.points(kernel.reduced);
  const bool spread = kernel.form == Kernel::Form::pointwise || kernel.form == Kernel::Form::rows;
  while (spread && lanes > 1 && points / lanes < kEnoughThreads / 8) lanes /= 2;
  return static_cast<unsigned>(std::max<int64_t>(lanes, 1));
}

RowShape row_shape(const Kernel& kernel, int64_t lanes) {
  RowShape row;
  const int64_t each = kernel.reduced.size() > 1 ? kernel.extent(kernel.reduced.back()) : 1;
  const int64_t elements = kernel.chunk >= 0 ? kernel.chunk_length * each : kernel.points(kernel.reduced);
  row.vectors = std::max<int64_t>(elements / lanes, 1);
  const auto power_of_two = [](int64_t n) { return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n))); };
  row.threads =
      elements <= kWarp * kCachedElements
          ? std::min(kWarp, power_of_two(row.vectors))
          : std::clamp<int64_t>(power_of_two(ceil_div(elements, kCachedElements / 2)), 2 * kWarp, kMostThreads);
  row.cached = ceil_div(row.vectors, row.threads) * lanes <= kCachedElements;
  return row;
}

int64_t steps_together(const Kernel& kernel, int64_t lanes, VariableSet walked, int64_t most) {
  return std::clamp<int64_t>(kLoadedTogether / (lanes * (1 + loads_along(kernel, walked))), 1, most);
}

bool has_large_functions(const Kernel& kernel) {
  class Finder final : public ScalarArithmetic {
   public:
    bool found = false;
    void meet(ScalarOp op) {
      found |= op == ScalarOp::power || op == ScalarOp::logarithm || op == ScalarOp::sine || op == ScalarOp::cosine ||
               op == ScalarOp::remainder;
    }
    Scalar constant(double) override { return {this, 0, nullptr}; }
    Scalar unary(ScalarOp op, Scalar x) override { return meet(op), x; }
    Scalar binary(ScalarOp op, Scalar x, Scalar) override { return meet(op), x; }
    Scalar select(Scalar, Scalar x, Scalar) override { return x; }
    Scalar convert(DType, Scalar x) override { return x; }
  } finder;
  for (ExpressionId id = 0; id < kernel.expressions.size(); ++id) {
    const Expression& e = kernel.expressions[id];
    if (e.kind == Expression::Kind::primitive) finder.meet(e.op);
    if (e.kind == Expression::Kind::node && e.node->op->body)
      e.node->op->body(e.node->attributes, std::vector<Scalar>(e.operands.size(), finder.constant(0)));
  }
  return finder.found;
}

}  // namespace halfstep
