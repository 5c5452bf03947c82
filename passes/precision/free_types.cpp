#include "passes/precision/free_types.h"

#include <algorithm>

#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int64_t kCast = 6, kWide = 4;  // bytes an element

class Forward {
 public:
  explicit Forward(const ForwardTypes& f) : f_(f), graph_(f.graph) {}

  CastProblem run() {
    for (NodeId id = 0; id < graph_.size(); ++id) add_node(id);
    for (NodeId id = 0; id < graph_.size(); ++id) add_value(id);
    return std::move(problem_);
  }

 private:
  const PrecisionClass& class_of(NodeId id) const { return f_.classes[static_cast<size_t>(id)]; }
  bool is_low(NodeId id) const { return problem_.prefers_low[static_cast<size_t>(id)]; }

  static bool may_cast(const Node& node, size_t operand) {
    const std::vector<OperandSpec>& specs = node.op->operands;
    return specs[std::min(operand, specs.size() - 1)].cast == OperandSpec::castable;
  }

  std::vector<NodeId> makers_of(const Node& node, bool weak) const {
    std::vector<NodeId> makers;
    for (size_t i = 0; i < node.operands.size(); ++i)
      if (const Value v = node.operands[i];
          v && may_cast(node, i) && is_castable(graph_.type(v).dtype) && f_.needs.is_weak(v) == weak)
        makers.push_back(v.node);
    return makers;
  }

  bool is_wide_reader(NodeId id) const {
    const Precision p = class_of(id).precision;
    return p == Precision::full || p == Precision::full_inside;
  }

  void add_node(NodeId id) {
    const Node& node = graph_.node(id);
    const auto put = [&](Side side, bool low, int64_t wide_cost = 0) {
      problem_.sides.push_back(side);
      problem_.prefers_low.push_back(low);
      problem_.wide_costs.push_back(wide_cost);
    };
    const auto pin = [&](bool low) { put(low ? Side::low : Side::full, low); };
    if (is_leaf(*node.op) || node.op->operands.empty() || node.results.empty()) return pin(false);
    if (is(node, "cast") || !is_castable(node.results[0].dtype)) return pin(halfstep::is_low(node.results[0].dtype));
    const std::vector<NodeId> makers = makers_of(node, false);
    const std::vector<NodeId> deciding = makers.empty() ? makers_of(node, true) : makers;
    const bool met_low = !deciding.empty() && std::ranges::all_of(deciding, [&](NodeId m) { return is_low(m); });
    if (!f_.needs.reason(id).empty()) return pin(false);
    switch (class_of(id).precision) {
      case Precision::low:
        return pin(true);
      case Precision::full:
        return pin(false);
      case Precision::full_inside: {
        if (node.op->kernel == KernelKind::reduction || !f_.takes_low(id)) return pin(false);
        if (makers.size() != 1) return pin(met_low);
        put(Side::either, met_low);
        problem_.values.push_back({.maker = makers.front(), .readers = {id}, .cost = CastProblem::kTied});
        return;
      }
      default:
        break;
    }
    const bool lowers =
        !met_low && node.op->kernel == KernelKind::movement &&
        std::ranges::none_of(f_.users[static_cast<size_t>(id)], [&](NodeId u) { return is_wide_reader(u); });
    if (makers.empty() || f_.is_pinned(id) || class_of(id).is_user || !(met_low || lowers)) return pin(met_low);
    // What following leaves in f32 is lowered for fewer casts alone: its gradient becomes low with it.
    put(Side::either, met_low, met_low ? kWide * node.results[0].element_count() : 0);
  }

  void add_value(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.results.empty() || !is_castable(node.results[0].dtype) || f_.needs.is_weak({id, 0})) return;
    CastProblem::Value value{.maker = id, .readers = {}, .cost = kCast * node.results[0].element_count()};
    for (NodeId u : f_.users[static_cast<size_t>(id)]) {
      const Node& user = graph_.node(u);
      if (is(user, "cast") || is_leaf(*user.op)) continue;
      for (size_t i = 0; i < user.operands.size(); ++i)
        if (user.operands[i] == Value{id, 0} && may_cast(user, i)) {
          value.readers.push_back(u);
          break;
        }
    }
    if (!value.readers.empty()) problem_.values.push_back(std::move(value));
  }

  const ForwardTypes& f_;
  const Graph& graph_;
  CastProblem problem_;
};

}  // namespace

CastProblem cast_problem(const ForwardTypes& forward) { return Forward(forward).run(); }

}  // namespace halfstep
