#include "passes/precision/autocast.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/saturated.h"
#include "ir/builder.h"
#include "passes/precision/colours.h"
#include "passes/precision/free_types.h"
#include "passes/precision/precision_needs.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

// The types autocast chooses between.
const OperandSpec& spec_of(const Op& op, size_t operand) {
  return op.operands[std::min(operand, op.operands.size() - 1)];
}

// Whether two names are those of one operator, ours and ONNX's.
bool means_same(const std::string& one, const std::string& other) {
  return one == other || (!one.empty() && std::ranges::any_of(all_ops(), [&](const Op* op) {
           const auto is = [&](const std::string& text) { return op->name == text || op->onnx == text; };
           return is(one) && is(other);
         }));
}

// What the readers of a value want it to be.
enum class Demand : uint8_t { none, low, full };

class Autocast {
 public:
  Autocast(const Graph& graph, const AutocastOptions& options, AutocastReport* report, AutocastNotes* notes)
      : graph_(graph),
        low_(options.low),
        preset_(find_preset(options.preset)),
        report_(report),
        notes_(notes),
        decided_(precision_classes(graph, rules_of(options), options.sources, preset_.operator_rows, options.removed)),
        classes_(decided_.of),
        needs_(graph, classes_, low_.value_or(DType::f16), scope()),
        sources_(options.sources),
        users_(graph.users()) {
    if (notes_ && low_) notes_->remarks = decided_.remarks;
    if (preset_.propagation == Propagation::colours) colours_ = paint(graph, classes_);
    find_demands();
    if (low_) find_cheapest();
    if (report_) find_constants();
    for (const auto& [id, slots] : decided_.slots) slotted_.insert(graph.node(id).origin.name);
  }

  Graph run() {
    size_t at = 0;
    std::vector<char> is_low_node(static_cast<size_t>(graph_.size()));
    said_.resize(report_ ? graph_.nodes().size() : 0);
    Graph result = rewrite(graph_, [&](Builder& b, const Node& node, std::span<const Value> operands) {
      const NodeId id = static_cast<NodeId>(at++);
      if (is_leaf(*node.op) || node.op->operands.empty()) return std::vector<Value>();
      Plan plan;
      plan.reason = "autocast is off";
      const std::vector<size_t> indices = low_ ? castable(b, node, operands) : std::vector<size_t>();
      if (low_) plan = plan_of(b, id, operands, indices);
      std::vector<Value> read(operands.begin(), operands.end());
      for (size_t i = 0; low_ && i < read.size(); ++i)  // statistics and weights of norms, computed low
        if (read[i] && !is(node, "cast") && spec_of(*node.op, i).cast == OperandSpec::keep && is_low(b.dtype(read[i])))
          read[i] = b.cast(read[i], graph_.type(node.operands[i]).dtype);
      if (plan.inside && !for_states_[static_cast<size_t>(id)]) plan_slots(id, indices, plan);
      for (size_t i : plan.rounded) read[i] = b.cast(operands[i], *low_);
      if (plan.inside)
        for (size_t i : indices) read[i] = b.cast(read[i], *plan.inside);
      std::vector<Value> results = copy(b, node, read, plan);
      if (plan.written)
        for (Value& v : results)
          if (is_castable(b.dtype(v))) v = b.cast(v, *plan.written);
      if (report_ && !is_constant(id)) report_->push_back(row(b, id, read, results, plan));
      if (!results.empty()) is_low_node[static_cast<size_t>(id)] = is_low(b.dtype(results.front()));
      return results;
    });
    if (notes_ && low_) notes_->cast_bytes = cast_bytes(is_low_node);
    return result;
  }

 private:
  static std::vector<PrecisionRule> rules_of(const AutocastOptions& options) {
    std::vector<PrecisionRule> rules = preset_rules(find_preset(options.preset));
    std::erase_if(rules, [&](const PrecisionRule& rule) {
      return std::ranges::any_of(options.removed, [&](const std::string& name) { return means_same(rule.op, name); });
    });
    rules.insert(rules.end(), options.rules.begin(), options.rules.end());
    return rules;
  }

  PrecisionNeeds::Scope scope() const {
    switch (preset_.propagation) {
      case Propagation::readers:
        return PrecisionNeeds::all;
      case Propagation::operands:
        return PrecisionNeeds::constants_and_positions;
      default:
        return PrecisionNeeds::nothing;
    }
  }

  // The types of free nodes that are not what following gives, where the preset lets them choose.
  void find_cheapest() {
    const bool chooses = preset_.propagation == Propagation::readers;
    if (!chooses && !notes_) return;
    problem_ = cast_problem({graph_, classes_, needs_, users_,
                             [&](NodeId id) { return demands_on(id).front() == Demand::low; },
                             [&](NodeId id) { return decided_.slots.contains(id); }});
    if (!chooses) return;
    const std::vector<char> cheapest = cheapest_casts(problem_);
    for (size_t i = 0; i < cheapest.size(); ++i)
      if (problem_.sides[i] == Side::either && cheapest[i] != problem_.prefers_low[i])
        cheaper_.emplace(static_cast<NodeId>(i), cheapest[i] ? *low_ : DType::f32);
    if (!notes_) return;
    notes_->free_nodes = std::ranges::count(problem_.sides, Side::either);
    notes_->least_cast_bytes = cast_bytes(cheapest);
  }

  int64_t cast_bytes(const std::vector<char>& is_low) const {
    int64_t bytes = 0;
    for (const CastProblem::Value& value : problem_.values)
      if (value.cost != CastProblem::kTied && std::ranges::any_of(value.readers, [&](int32_t reader) {
            return is_low[static_cast<size_t>(reader)] != is_low[static_cast<size_t>(value.maker)];
          }))
        bytes = saturated_add(bytes, value.cost);
    return bytes;
  }

  // Computed of constants alone.
  bool is_constant(NodeId id) const { return constant_[static_cast<size_t>(id)]; }

  void find_constants() {
    for (const Node& node : graph_.nodes())
      constant_.push_back(is(node, "constant") ||
                          (!is_leaf(*node.op) &&
                           std::ranges::all_of(node.operands, [&](Value v) { return !v || is_constant(v.node); })));
  }

  void find_demands() {
    size_t results = 0;
    for (const Node& node : graph_.nodes()) {
      first_.push_back(results);
      results += node.results.size();
    }
    first_.push_back(results);
    demands_.assign(results, Demand::none);
    for (const StateUpdate& u : graph_.updates()) demand_of(u.value) = Demand::full;
    find_parts();
    for (NodeId id = graph_.size(); id-- > 0;) {
      const Node& node = graph_.node(id);
      for (size_t i = 0; i < node.operands.size(); ++i)
        if (node.operands[i]) {
          Demand& demand = demand_of(node.operands[i]);
          demand = std::max(demand, demand_on_operand(id, i));
        }
    }
  }

  // What leads to states alone, and which nodes of the file are several of the graph's, a sum among them.
  void find_parts() {
    leaves_.assign(graph_.nodes().size(), 0);
    std::vector<char> updates(graph_.nodes().size(), 0);
    for (const NamedValue& output : graph_.outputs()) leaves_[static_cast<size_t>(output.value.node)] = 1;
    for (const StateUpdate& u : graph_.updates()) updates[static_cast<size_t>(u.value.node)] = 1;
    for_states_ = updates;
    for (NodeId id = graph_.size(); id-- > 0;) {
      const Node& node = graph_.node(id);
      const auto at = static_cast<size_t>(id);
      const std::vector<NodeId>& users = users_[at];
      const auto for_state = [&](NodeId user) { return for_states_[static_cast<size_t>(user)] != 0; };
      for_states_[at] = !leaves_[at] && (updates[at] || !users.empty()) && std::ranges::all_of(users, for_state);
      leaves_[at] |= std::ranges::any_of(users, [&](NodeId user) { return graph_.node(user).origin != node.origin; });
      if (node.origin.name.empty() || node.op->kernel != KernelKind::reduction) continue;
      if (node.op->precision == Precision::full_inside) has_sum_.insert(node.origin.name);
    }
  }

  Demand demand_on_operand(NodeId id, size_t operand) const {
    const Node& node = graph_.node(id);
    if (is(node, "cast") && is_low(graph_.type(node.operands[operand]).dtype)) return Demand::none;
    if (spec_of(*node.op, operand).cast == OperandSpec::keep || !needs_.reason(id).empty()) return Demand::full;
    switch (classes_[static_cast<size_t>(id)].precision) {
      case Precision::low:
        return Demand::low;
      case Precision::full:
        return Demand::full;
      case Precision::full_inside:  // the others of its results are statistics
        return demands_on(id).front();
      default:  // what takes a truth value asks nothing of what was compared for it
        return is_castable(node.results[0].dtype) ? std::ranges::max(demands_on(id)) : Demand::none;
    }
  }

  Demand& demand_of(Value v) { return demands_[first_[static_cast<size_t>(v.node)] + static_cast<size_t>(v.result)]; }
  std::span<const Demand> demands_on(NodeId id) const {
    const auto at = static_cast<size_t>(id);
    return std::span(demands_).subspan(first_[at], first_[at + 1] - first_[at]);
  }
  // The operands that the node's class may cast, by index.
  std::vector<size_t> castable(const Builder& b, const Node& node, std::span<const Value> operands) const {
    std::vector<size_t> result;
    for (size_t i = 0; i < operands.size(); ++i)
      if (operands[i] && spec_of(*node.op, i).cast == OperandSpec::castable && is_castable(b.dtype(operands[i])))
        result.push_back(i);
    return result;
  }

  // The type that castable operands are cast to, if any are; the type that castable results are cast to, if they are
  // not written as they are computed; and why.
  struct Plan {
    std::optional<DType> inside, written;
    std::string reason;
    std::vector<size_t> rounded = {};  // operands that are rounded to the low type first
    bool writes_f32 = false;           // a contraction of low operands
  };

  std::vector<Value> copy(Builder& b, const Node& node, const std::vector<Value>& read, const Plan& plan) const {
    if (plan.writes_f32) {
      OriginScope scope(b, node.origin);
      Attributes attributes = node.attributes;
      attributes.set("result", std::string(name(DType::f32)));
      return b.call_all(*node.op, read, std::move(attributes));
    }
    const NodeId copy = b.copy(graph_, node, read);
    std::vector<Value> results(node.results.size());
    for (size_t i = 0; i < results.size(); ++i) results[i] = {copy, static_cast<int32_t>(i)};
    return results;
  }

  // What rules say of single operands and of the result: a node one of whose operands is f32 computes in f32.
  void plan_slots(NodeId id, const std::vector<size_t>& indices, Plan& plan) const {
    const auto found = decided_.slots.find(id);
    if (found == decided_.slots.end()) return;
    const Node& node = graph_.node(id);
    std::map<std::optional<size_t>, const SlotRule*> last;
    for (const SlotRule& slot : found->second)
      if (!slot.operand || std::ranges::find(indices, *slot.operand) != indices.end()) last[slot.operand] = &slot;
    const DType wrote = plan.written.value_or(*plan.inside);
    for (const auto& [operand, slot] : last) {
      if (slot->precision != Precision::low && slot->precision != Precision::full) continue;
      const bool low = slot->precision == Precision::low;
      plan.reason = fmt::format("{}: {} {}; {}", slot->source, operand ? fmt::format("operand {}", *operand) : "result",
                                low ? name(*low_) : "f32", plan.reason);
      if (!operand) continue;
      if (low)
        plan.rounded.push_back(*operand);
      else
        plan.inside = DType::f32, plan.written = is_low(wrote) ? std::optional(wrote) : std::nullopt;
    }
    const auto result = last.find(std::nullopt);
    if (result == last.end()) return;
    if (result->second->precision == Precision::low) plan.written = *low_;
    if (result->second->precision != Precision::full) return;
    plan.written.reset();
    plan.writes_f32 = is_low(*plan.inside) && node.attributes.find("result");
    if (!plan.writes_f32) plan.inside = DType::f32;
  }

  Plan plan_of(const Builder& b, NodeId id, std::span<const Value> operands, const std::vector<size_t>& indices) {
    const Node& node = graph_.node(id);
    const PrecisionClass& c = classes_[static_cast<size_t>(id)];
    if (indices.empty()) {
      Plan kept;
      kept.reason = "keeps its types";
      return kept;
    }
    Plan plan;
    if (for_states_[static_cast<size_t>(id)]) {
      plan.inside = DType::f32;
      plan.reason = "states are f32";
      return plan;
    }
    if (!colours_.empty()) {
      const Colour& colour = colours_[static_cast<size_t>(id)];
      plan.inside = colour.is_low ? *low_ : DType::f32;
      plan.reason = c.source.empty() ? colour.reason : c.source + ": " + colour.reason;
      return plan;
    }
    plan.inside = operand_type(b, id, operands, indices, plan.reason);
    if (report_) said_[static_cast<size_t>(id)] = plan.reason;
    if (!c.reason.empty()) plan.reason = c.reason;
    if (!c.source.empty()) plan.reason = c.source + ": " + plan.reason;
    if (!c.source.empty() && c.precision == Precision::follow) plan_mean(id, plan);
    if (!c.source.empty() && c.precision == Precision::low) plan_part(id, plan);
    const bool follows = c.precision == Precision::follow || c.precision == Precision::widest;
    if (follows && node.op->kernel == KernelKind::pointwise && is_low(*plan.inside) &&
        std::ranges::any_of(indices, [&](size_t i) {
          return needs_.is_weak(node.operands[i]) && needs_.stays_wide(node.operands[i]);
        })) {
      plan.written = plan.inside;
      plan.inside = DType::f32;
    }
    return plan;
  }

  // A mean is a sum and a product of one ONNX node: where that follows its operands the sum stays f32, and the product
  // writes what the sum read.
  void plan_mean(NodeId id, Plan& plan) {
    const Node& node = graph_.node(id);
    const auto same_node = [&](NodeId other) { return graph_.node(other).origin == node.origin; };
    if (node.origin.name.empty()) return;
    if (node.op->precision == Precision::full_inside && node.op->kernel == KernelKind::reduction) {
      if (!is_low(*plan.inside) || !std::ranges::any_of(users_[static_cast<size_t>(id)], same_node)) return;
      summed_[node.origin.name] = *plan.inside;
      plan.inside = DType::f32;
      return;
    }
    const auto sum = summed_.find(node.origin.name);
    if (sum == summed_.end() || node.op->kernel != KernelKind::pointwise || *plan.inside != DType::f32) return;
    for (Value v : node.operands)
      if (!needs_.is_weak(v) && !same_node(v.node)) return;
    plan.written = sum->second;
  }

  // Parts of a node that sums are in f32, which its sum may need (the squares of a norm, the sum of a mean): the low
  // type is that of what leaves it.
  void plan_part(NodeId id, Plan& plan) const {
    const Node& node = graph_.node(id);
    if (!is_low(*plan.inside) || node.op->precision == Precision::low || !has_sum_.contains(node.origin.name)) return;
    const auto same_node = [&](NodeId other) { return graph_.node(other).origin == node.origin; };
    const bool reads_part = std::ranges::any_of(
        node.operands, [&](Value v) { return v && !is_leaf(*graph_.node(v).op) && same_node(v.node); });
    const bool is_read_by_part = std::ranges::any_of(users_[static_cast<size_t>(id)], same_node);
    if (!reads_part && !is_read_by_part) return;
    if (leaves_[static_cast<size_t>(id)]) plan.written = plan.inside;
    plan.inside = DType::f32;
  }

  // The one type for the castable operands, and why.
  DType operand_type(const Builder& b, NodeId id, std::span<const Value> operands, const std::vector<size_t>& indices,
                     std::string& reason) const {
    const Node& node = graph_.node(id);
    const std::string low_name(name(*low_));
    if (const std::string& why = needs_.reason(id); !why.empty()) {
      reason = why;
      return DType::f32;
    }
    switch (classes_[static_cast<size_t>(id)].precision) {
      case Precision::low:
        reason = node.op->precision != Precision::low       ? low_name
                 : node.op->kernel == KernelKind::composite ? "contractions, f32 between them"
                                                            : "contraction";
        return *low_;
      case Precision::full:
        reason = "needs f32";
        return DType::f32;
      case Precision::full_inside: {
        // A sum can leave the range of what it sums; narrowing waits for the reader.
        const bool wants_low = demands_on(id).front() == Demand::low;
        const bool keeps_range = node.op->kernel != KernelKind::reduction;
        const DType met = met_type(b, node, operands, indices).type;
        if (is_low(met) && wants_low && keeps_range) {
          reason = "computes in f32 inside, its readers take " + low_name;
          return met;
        }
        reason = "computes in f32 inside";
        return DType::f32;
      }
      case Precision::widest:
      case Precision::follow: {
        if (const auto cheaper = cheaper_.find(id); cheaper != cheaper_.end()) {
          reason = "fewer bytes of casts than if it followed";
          return cheaper->second;
        }
        const auto [type, from] = met_type(b, node, operands, indices);
        if (!report_) return type;
        // What another part of the same node of the file was given, it was given by a reason of its own.
        const std::string& maker = graph_.node(from).origin.name;
        const bool is_own =
            !maker.empty() && graph_.node(from).origin == node.origin && !is_leaf(*graph_.node(from).op);
        if (is_own && !said_[static_cast<size_t>(from)].empty())
          reason = said_[static_cast<size_t>(from)];
        else
          reason = maker.empty() || is_own ? "follows its operands" : fmt::format("follows '{}'", maker);
        return type;
      }
    }
    throw InternalError("unknown precision class");
  }

  struct Met {
    DType type;
    NodeId from;  // that decided
  };

  // The type the operands promote to: the strong ones decide, the widest of them; weak ones join.
  Met met_type(const Builder& b, const Node& node, std::span<const Value> operands,
               const std::vector<size_t>& indices) const {
    std::optional<Met> met;
    const auto join = [&](size_t i) {
      const DType type = b.dtype(operands[i]);
      if (!met || (type != met->type && !(met->type == DType::f32)))
        met = Met{met ? DType::f32 : type, node.operands[i].node};
    };
    for (size_t i : indices)
      if (!needs_.is_weak(node.operands[i]) || promotes(node, i)) join(i);
    if (!met)
      for (size_t i : indices) join(i);
    return *met;
  }

  // torch's operators take the type of f32 tensors that are no scalars, unless they are the bias of a contraction.
  bool promotes(const Node& node, size_t weak) const {
    if (preset_.propagation != Propagation::operands || node.op->kernel != KernelKind::pointwise ||
        needs_.is_scalar(node.operands[weak]))
      return false;
    for (size_t i = 0; i < node.operands.size(); ++i) {
      const Node* maker = &graph_.node(node.operands[i]);
      while ((maker->op->kernel == KernelKind::movement || maker->op->kernel == KernelKind::window) &&
             !maker->operands.empty())
        maker = &graph_.node(maker->operands[0]);
      if (i != weak && maker->op->precision == Precision::low && needs_.is_like_bias(node, weak)) return false;
    }
    return true;
  }

  // Of the operands that may be cast the first floating one, else the first; where none may, the first of all.
  static DType first_read(const Builder& b, const Node& node, std::span<const Value> operands) {
    std::optional<DType> first;
    for (size_t i = 0; i < operands.size(); ++i) {
      if (!operands[i] || spec_of(*node.op, i).cast != OperandSpec::castable) continue;
      if (is_floating(b.dtype(operands[i]))) return b.dtype(operands[i]);
      if (!first) first = b.dtype(operands[i]);
    }
    if (first || operands.empty() || !operands[0]) return first.value_or(DType::f32);
    return b.dtype(operands[0]);
  }

  PrecisionRow row(const Builder& b, NodeId id, std::span<const Value> operands, std::span<const Value> results,
                   const Plan& plan) const {
    const Node& node = graph_.node(id);
    const PrecisionClass& c = classes_[static_cast<size_t>(id)];
    std::string rule = !c.source.empty() ? c.source
                       : c.has_row       ? fmt::format("{}, row of {}", to_string(preset_), node.op->name)
                                         : fmt::format("{}, no row", to_string(preset_));
    const bool has_slots = low_ && !node.origin.name.empty() && slotted_.contains(node.origin.name);
    const DType read = has_slots ? first_read(b, node, operands) : plan.written.value_or(first_read(b, node, operands));
    const DType written = b.dtype(results.front());
    const bool computes = node.op->kernel != KernelKind::movement && is_floating(read);
    const DType inside = read == DType::f64 ? DType::f64 : DType::f32;
    return {node.origin,
            std::string(node.op->name),
            read,
            computes ? std::optional(inside) : std::nullopt,
            written,
            plan.reason,
            std::move(rule),
            has_slots ? slots(b, id, operands, written, plan) : std::map<FileSlot, DType>()};
  }

  // What comes into the node of the file and leaves it there.
  std::map<FileSlot, DType> slots(const Builder& b, NodeId id, std::span<const Value> read, DType written,
                                  const Plan& plan) const {
    std::map<FileSlot, DType> types;
    const Node& node = graph_.node(id);
    const auto outside = [&](NodeId other) {
      return graph_.node(other).op->leaf != Leaf::none || graph_.node(other).origin != node.origin;
    };
    const std::vector<NodeId>& users = users_[static_cast<size_t>(id)];
    if (is_castable(written) && (users.empty() || std::ranges::any_of(users, outside)))
      types.emplace(FileSlot(), written);
    if (moves_for_its_own(graph_, id, users)) return types;
    for (size_t i = 0; i < read.size(); ++i) {
      if (!read[i] || spec_of(*node.op, i).cast != OperandSpec::castable || !is_castable(b.dtype(read[i])) ||
          !outside(moved_from(graph_, id, node.operands[i]).node))
        continue;
      const bool rounded = std::ranges::find(plan.rounded, i) != plan.rounded.end();
      types.emplace(FileSlot{place_in_file(graph_, id, i, sources_)}, rounded ? *low_ : b.dtype(read[i]));
    }
    return types;
  }

  const Graph& graph_;
  const std::optional<DType> low_;
  const Preset& preset_;
  AutocastReport* report_;
  AutocastNotes* notes_;
  const PrecisionClasses decided_;
  const std::vector<PrecisionClass>& classes_;
  PrecisionNeeds needs_;
  const SourceNodes& sources_;
  std::set<std::string> slotted_;  // nodes of the file with rules of single slots
  std::vector<std::string> said_;  // each node's reason so far
  const std::vector<std::vector<NodeId>> users_;
  std::vector<Colour> colours_;  // empty unless the preset propagates so
  CastProblem problem_;
  std::map<NodeId, DType> cheaper_;
  std::vector<char> constant_;
  std::vector<char> for_states_, leaves_;  // the first: nothing but states is computed of it
  std::set<std::string> has_sum_;          // names of nodes one of whose parts sums
  std::map<std::string, DType> summed_;    // what a mean's sum read, by its node's name
  std::vector<Demand> demands_;            // of every result
  std::vector<size_t> first_;              // of each node's results in `demands_`, then the end
};

// A loss that is computed of low values alone is f32 again, and so is what else a step says of itself.
Graph with_wide_measures(const Graph& graph) {
  const auto is_low_measure = [&](const NamedValue& o) {
    return o.name.is(Role::measure) && is_low(graph.type(o.value).dtype);
  };
  if (std::ranges::none_of(graph.outputs(), is_low_measure)) return graph;
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b);
  for (const NamedValue& o : graph.outputs()) {
    OriginScope scope(b, graph.node(o.value).origin);
    b.output(o.name, is_low_measure(o) ? b.cast(map(o.value), DType::f32) : map(o.value));
  }
  for (const StateUpdate& u : graph.updates()) b.update(map(u.state), map(u.value));
  return std::move(b).finish();
}

}  // namespace

std::string to_string(const FileSlot& slot) { return slot.operand ? std::to_string(*slot.operand) : "result"; }

Graph autocast(const Graph& graph, const AutocastOptions& options, AutocastReport* report, AutocastNotes* notes) {
  return with_wide_measures(Autocast(graph, options, report, notes).run());
}

}  // namespace halfstep
