#include "passes/precision/precision_needs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int64_t kSmall = 4096;  // elements of a constant that costs nothing to read in f32

double least_normal(DType low) { return low == DType::f16 ? 0x1p-14 : 0x1p-126; }

bool is_castable_operand(const Node& node, size_t i) {
  return node.op->operands[std::min(i, node.op->operands.size() - 1)].cast == OperandSpec::castable;
}

// Constants are repeated and moved before they meet what they are for.
Value unmoved(const Graph& graph, Value v) {
  while (graph.node(v).op->kernel == KernelKind::movement && graph.node(v).operands.size() == 1)
    v = graph.node(v).operands[0];
  return v;
}

// What the node fills in where its operand has nothing; nullptr if it does not.
const double* filler(const Node& node) {
  const Attribute* fill = node.op->kernel == KernelKind::movement ? node.attributes.find("value") : nullptr;
  return fill ? std::get_if<double>(fill) : nullptr;
}

// Whether values of several sources become one tensor, as they are.
bool joins(const Node& node) {
  return node.op->kernel == KernelKind::movement && (node.op->precision == Precision::widest || filler(node));
}

std::string quoted(const Node& node) {
  return node.origin.name.empty() ? std::string(node.op->name) : "'" + *node.origin.name + "'";
}

}  // namespace

PrecisionNeeds::PrecisionNeeds(const Graph& graph, const std::vector<PrecisionClass>& classes, DType low, Scope scope)
    : graph_(graph), classes_(classes), low_(low), reasons_(graph.nodes().size()), walked_(graph.nodes().size(), 0) {
  find_weak();
  if (scope == nothing) return;
  look_at_constants(scope);
  look_at_contractions(scope);
  if (scope == constants_and_positions) return;
  look_at_angles();
  look_at_roundings();
}

void PrecisionNeeds::find_weak() {
  for (const Node& node : graph_.nodes()) {
    bool weak = !is(node, "input");
    for (Value v : node.operands) weak &= !v || is_weak(v);
    weak_.push_back(weak);
  }
}

bool PrecisionNeeds::is_scalar(Value v) const {
  const Value source = unmoved(graph_, v);
  const bool is_weight = is_leaf(*graph_.node(source).op);
  return graph_.type(source).element_count() == 1 && !(is_weight && !graph_.type(source).shape.empty());
}

bool PrecisionNeeds::is_like_bias(const Node& node, size_t operand) const {
  Value v = node.operands[operand];
  while (is(graph_.node(v), "broadcast") || is(graph_.node(v), "reshape")) v = graph_.node(v).operands[0];
  return is(node, "add") && std::ranges::count_if(graph_.type(v).shape, [](int64_t size) { return size > 1; }) <= 1;
}

bool PrecisionNeeds::stays_wide(Value v) {
  const Value source = unmoved(graph_, v);
  const int64_t count = graph_.type(source).element_count();
  if (count > kSmall) return false;
  const std::vector<double>* values = known_.of(graph_, source);
  if (!values) return count == 1;
  return std::ranges::any_of(*values, [&](double x) { return !std::isnan(x) && round_to(low_, x) != x; });
}

// The number among `values` that the low type does not hold; "" if it holds them. A table may have elements that are
// small beside its others.
std::string PrecisionNeeds::beyond(std::span<const double> values) const {
  double largest = 0;
  for (double x : values)
    if (std::isfinite(x) && std::abs(x) > std::abs(largest)) largest = x;
  const double rounded = round_to(low_, largest);
  const bool becomes_one = values.size() == 1 && rounded != largest && std::abs(rounded) == 1;
  if (largest == 0 || (std::isfinite(rounded) && std::abs(largest) >= least_normal(low_) && !becomes_one)) return "";
  return fmt::format("{}", static_cast<float>(largest));
}

// The same of the constant that operand `i` is, or of what the node fills in beside it.
std::string PrecisionNeeds::beyond(const Node& node, size_t i) {
  const Value v = node.operands[i];
  if (!v || !is_castable_operand(node, i) || !is_castable(graph_.type(v).dtype)) return "";
  if (const double* value = filler(node)) return beyond({value, 1});
  const std::vector<double>* values = is_weak(v) ? known_.of(graph_, unmoved(graph_, v)) : nullptr;
  return values ? beyond(*values) : "";
}

std::vector<Value> PrecisionNeeds::strong_operands(const Node& node) const {
  std::vector<Value> result;
  for (size_t i = 0; i < node.operands.size(); ++i)
    if (const Value v = node.operands[i]; v && is_castable_operand(node, i) && is_castable(graph_.type(v).dtype) &&
                                          !is_weak(v) && std::ranges::find(result, v) == result.end())
      result.push_back(v);
  return result;
}

// Whether the row leaves the node's precision to what it meets, and no rule says otherwise.
bool PrecisionNeeds::may_change(NodeId id) const {
  const PrecisionClass& c = classes_[static_cast<size_t>(id)];
  return !c.is_fixed && c.precision != Precision::full && !is_leaf(*graph_.node(id).op) &&
         is_castable(graph_.node(id).results[0].dtype);
}

void PrecisionNeeds::look_at_constants(Scope scope) {
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& node = graph_.node(id);
    const bool contracts = node.op->kernel == KernelKind::gemm || node.op->kernel == KernelKind::convolution;
    // Pointwise ops of weak values alone are f32: there the constant promotes.
    if (!contracts && !joins(node) && (node.op->kernel != KernelKind::pointwise || weak_[static_cast<size_t>(id)]))
      continue;
    const PrecisionClass& c = classes_[static_cast<size_t>(id)];
    if (c.precision == Precision::full || (c.precision == Precision::low && !(contracts && may_change(id)))) continue;
    for (size_t i = 0; i < node.operands.size(); ++i) {
      const std::string number = beyond(node, i);
      if (number.empty()) continue;
      const bool overflows = !std::isfinite(round_to(low_, std::stod(number)));
      if (scope == constants_and_positions && !overflows) continue;
      reasons_[static_cast<size_t>(id)] = fmt::format("{} does not hold {}", name(low_), number);
      const bool factor = is(node, "mul") || (is(node, "div") && i == 1);
      if (contracts || joins(node) || scope == constants_and_positions || (overflows && !factor)) continue;
      const std::string why =
          fmt::format("{} does not hold {}, which {} has beside it", name(low_), number, quoted(node));
      for (Value made : strong_operands(node)) keep_makers(made, why, factor, false);
    }
  }
}

// The functions that made `v` up to a contraction, or with it; past a function of several values only if asked for.
void PrecisionNeeds::keep_makers(Value v, const std::string& why, bool contractions, bool all_operands) {
  const uint8_t wanted = static_cast<uint8_t>(1 | (contractions ? 2 : 0) | (all_operands ? 4 : 0));
  std::vector<NodeId> open{v.node};
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    const Node& node = graph_.node(id);
    std::string& reason = reasons_[static_cast<size_t>(id)];
    uint8_t& walked = walked_[static_cast<size_t>(id)];
    if (weak_[static_cast<size_t>(id)] || !may_change(id) || (walked & wanted) == wanted) continue;
    walked |= wanted;
    const Precision precision = classes_[static_cast<size_t>(id)].precision;
    if (precision == Precision::low && !contractions) continue;
    const bool moves = node.op->kernel == KernelKind::movement || node.op->kernel == KernelKind::window;
    if (!moves && reason.empty() && !is(node, "cast")) reason = why;
    if (precision == Precision::low || precision == Precision::full_inside) continue;
    const std::vector<Value> operands = strong_operands(node);
    if (moves || all_operands || operands.size() == 1)
      for (Value operand : operands) open.push_back(operand.node);
  }
}

// Whether the node's value is computed of integers alone, coefficients aside.
bool PrecisionNeeds::is_counted(const Node& node) const {
  if (!is_castable(node.results[0].dtype)) return false;
  if (is(node, "cast")) {
    const DType from = graph_.type(node.operands[0]).dtype;
    if (!is_floating(from)) return from != DType::boolean && size_of(from) > 1;
  }
  if (node.op->kernel != KernelKind::pointwise && node.op->kernel != KernelKind::movement &&
      node.op->kernel != KernelKind::reduction)
    return false;
  bool counted = false;
  for (Value v : node.operands) {
    if (!v || !is_floating(graph_.type(v).dtype)) continue;
    const bool one = counted_[static_cast<size_t>(v.node)];
    if (!one && !is_weak(v)) return false;
    counted |= one;
  }
  return counted;
}

void PrecisionNeeds::look_at_contractions(Scope scope) {
  std::vector<char> given;  // computed of constants alone
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& node = graph_.node(id);
    counted_.push_back(is_counted(node));
    given.push_back(!is_leaf(*node.op) && std::ranges::all_of(node.operands, [&](Value v) {
      return !v || given[static_cast<size_t>(v.node)];
    }));
    if (classes_[static_cast<size_t>(id)].precision != Precision::low || !may_change(id)) continue;
    bool some = false, all = true, positions = true;
    std::vector<TensorType> types;
    for (Value v : node.operands) {
      types.push_back(v ? graph_.type(v) : TensorType{});
      if (!v || !is_castable(graph_.type(v).dtype)) continue;
      const bool counted = counted_[static_cast<size_t>(v.node)];
      some |= counted;
      all &= counted || is_weak(v);
      positions &= counted || given[static_cast<size_t>(v.node)];
    }
    std::string& reason = reasons_[static_cast<size_t>(id)];
    if (scope == constants_and_positions) {
      if (positions) reason = some ? "computes on integers" : "computes on constants";
    } else if (some && all) {
      reason = "computes on integers";
    } else if (node.op->kernel == KernelKind::gemm && node.results[0].element_count() > 0 &&
               node.op->cost(node, types) <= 2 * static_cast<double>(node.results[0].element_count())) {
      reason = "a product over one element";
    }
  }
}

void PrecisionNeeds::look_at_angles() {
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& node = graph_.node(id);
    if ((is(node, "sin") || is(node, "cos")) && !classes_[static_cast<size_t>(id)].is_fixed)
      for (Value v : node.operands) keep_makers(v, "an angle of " + quoted(node), true, true);
  }
}

// Which nodes give a low value as things stand.
std::vector<char> PrecisionNeeds::find_low() const {
  std::vector<char> is_low_node;
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& node = graph_.node(id);
    const Precision precision = classes_[static_cast<size_t>(id)].precision;
    bool low = reasons_[static_cast<size_t>(id)].empty() && !is_leaf(*node.op) && !is(node, "cast");
    if (precision == Precision::full ||
        (precision == Precision::full_inside && node.op->kernel == KernelKind::reduction))
      low = false;
    if (low && precision != Precision::low) {
      const std::vector<Value> operands = strong_operands(node);
      low = !operands.empty() &&
            std::ranges::all_of(operands, [&](Value v) { return is_low_node[static_cast<size_t>(v.node)]; });
    }
    if (is(node, "cast")) low = is_low(node.results[0].dtype);
    is_low_node.push_back(low);
  }
  return is_low_node;
}

PrecisionNeeds::Reading PrecisionNeeds::reading(NodeId id, NodeId user, const std::vector<char>& is_low_node,
                                                const std::vector<char>& widened) const {
  const Node &node = graph_.node(id), &reader = graph_.node(user);
  for (size_t i = 0; i < reader.operands.size(); ++i)
    if (reader.operands[i].node == id && !is_castable_operand(reader, i)) return Reading::low;
  const KernelKind kernel = reader.op->kernel;
  switch (classes_[static_cast<size_t>(user)].precision) {
    case Precision::low:
      return reasons_[static_cast<size_t>(user)].empty() ? Reading::low : Reading::wide;
    case Precision::full:
      return kernel == KernelKind::pointwise ? Reading::needs_wide : Reading::wide;
    case Precision::full_inside:
      return kernel == KernelKind::reduction && node.operands.size() > 1 ? Reading::needs_wide : Reading::low;
    default:
      if (widened[static_cast<size_t>(user)]) return Reading::needs_wide;
      if (kernel == KernelKind::pointwise && !is_castable(reader.results[0].dtype)) return Reading::wide;
      return kernel == KernelKind::pointwise && !is_low_node[static_cast<size_t>(user)] ? Reading::wide : Reading::low;
  }
}

void PrecisionNeeds::look_at_roundings() {
  const std::vector<char> is_low_node = find_low();
  std::vector<char> widened(graph_.nodes().size(), 0), is_output(graph_.nodes().size(), 0);
  for (const NamedValue& o : graph_.outputs()) is_output[static_cast<size_t>(o.value.node)] = 1;
  const std::vector<std::vector<NodeId>> users = graph_.users();
  for (NodeId id = graph_.size(); id-- > 0;) {
    const Node& node = graph_.node(id);
    const auto at = static_cast<size_t>(id);
    const bool pointwise = node.op->kernel == KernelKind::pointwise && !is(node, "cast");
    if ((!pointwise && node.op->kernel != KernelKind::movement) || !is_low_node[at] || is_output[at] ||
        !may_change(id) || classes_[at].precision == Precision::low)
      continue;
    std::string why;
    bool all = true;
    for (NodeId user : users[at]) {
      const Reading r = reading(id, user, is_low_node, widened);
      all &= r != Reading::low;
      if (r == Reading::needs_wide && why.empty()) why = "f32 for " + quoted(graph_.node(user));
    }
    widened[at] = all && !why.empty();
    if (widened[at] && pointwise) reasons_[at] = why;
  }
}

}  // namespace halfstep
