#include "passes/fusion/recompute_plan.h"

#include <algorithm>
#include <utility>

#include "ir/op.h"
#include "ir/reduction_split.h"
#include "ir/views.h"
#include "passes/fusion/body_cost.h"

namespace halfstep {
namespace {

// What a call computed again costs, about, on a large GPU; only ratios matter.
constexpr double kLaunch = 3, kBytesEachMicrosecond = 2.5e6, kFlopsEachMicrosecond = 4e8;

// What has the same elements wherever it is computed over as many: random numbers and reshapes too.
bool may_stand_elsewhere(const Node& node) {
  return node.op->kernel == KernelKind::pointwise || node.op->kernel == KernelKind::random || is_leaf(*node.op) ||
         node.op->leaf == Leaf::constant || node.op->index_map == IndexMap::repeated ||
         node.op->index_map == IndexMap::row_major;
}

// Elements that a kernel walks over, if it may store one more value of as many; otherwise -1.
int64_t elements_of_domain(const Graph& body) {
  int64_t elements = -1;
  bool one = true, reduces = false;
  const auto walk = [&](int64_t count) { one &= std::exchange(elements, count) < 0 || elements == count; };
  for (const Node& node : body.nodes()) {
    if (node.op->kernel == KernelKind::reduction) {
      const TensorType& operand = body.type(node.operands[0]);
      one &= split_reduction(operand.shape, node.attributes.ints("axes")).has_value();
      walk(operand.element_count());
      reduces = true;
    } else if (!may_stand_elsewhere(node) || writes_in_place(node)) {
      return -1;
    }
  }
  for (const NamedValue& output : body.outputs())
    if (!reduces) walk(body.type(output.value).element_count());
  return one ? elements : -1;
}

// Whether a kernel with one more result adds up in the order it has: lanes follow the narrowest elements that it
// touches, columns the values that each holds, and how rows are cut the shapes.
bool keeps_sums(const Graph& host, const Graph& body, const Again& a, const TensorType& result, bool reads_no_more) {
  const int64_t elements = result.element_count();
  std::set<Shape> shapes;
  size_t narrowest = sizeof(double);
  const auto touch = [&](const TensorType& type) {
    if (type.element_count() == elements) narrowest = std::min(narrowest, static_cast<size_t>(size_of(type.dtype)));
  };
  std::optional<ReductionScheme> scheme;
  for (const Node& node : host.nodes()) {
    for (const TensorType& type : node.results)
      if (type.element_count() == elements) shapes.insert(type.shape);
    if (is_leaf(*node.op)) touch(node.results[0]);
    if (node.op->kernel == KernelKind::reduction)
      scheme = reduction_scheme(
          split_reduction(host.type(node.operands[0]).shape, node.attributes.ints("axes")).value_or(ReductionSplit{}));
  }
  if (!scheme) return true;
  for (const NamedValue& output : host.outputs()) touch(host.type(output.value));
  if (static_cast<size_t>(size_of(result.dtype)) < narrowest) return false;
  if (*scheme != ReductionScheme::row && !reads_no_more) return false;
  for (NodeId id = 0; id < body.size(); ++id)
    if (a.inside[static_cast<size_t>(id)])
      for (const TensorType& type : body.node(id).results)
        if (type.element_count() == elements && !shapes.contains(type.shape)) return false;
  return true;
}

}  // namespace

double Again::microseconds() const {
  return (host == kNone ? kLaunch : 0) +
         std::max(static_cast<double>(traffic) / kBytesEachMicrosecond, flops / kFlopsEachMicrosecond);
}

RecomputePlan::RecomputePlan(const Graph& graph, const CallMemory& memory, int overlap)
    : graph_(graph), memory_(memory), alive_(memory.alive(overlap)) {
  for (const StoredValue& v : memory.values()) {
    numbers_[v.value] = static_cast<int>(lives_.size());
    lives_.push_back({static_cast<int>(lives_.size()), {v.readers.begin(), v.readers.end()}, {}});
  }
}

void RecomputePlan::run(int64_t budget, Recomputation& done) {
  const auto fullest = [&] { return std::ranges::max_element(alive_); };
  done.bytes_before = alive_.empty() ? 0 : *fullest();
  while (!alive_.empty() && *fullest() > budget && drop_one(static_cast<NodeId>(fullest() - alive_.begin()), done)) {
  }
  done.bytes = alive_.empty() ? 0 : *fullest();
}

std::vector<NodeId> RecomputePlan::behind(NodeId host) const {
  const auto found = behind_.find(host);
  return found == behind_.end() ? std::vector<NodeId>() : found->second;
}

const std::vector<int>& RecomputePlan::hosted_by(NodeId call) const {
  static const std::vector<int> none;
  const auto found = hosted_.find(call);
  return found == hosted_.end() ? none : found->second;
}

const Lives* RecomputePlan::lives(Value v) const {
  const auto found = numbers_.find(v);
  return found == numbers_.end() ? nullptr : &lives_[static_cast<size_t>(found->second)];
}

NodeId RecomputePlan::used_before(const Lives& l, NodeId at) const {
  const auto later = l.readers.upper_bound(at);
  return later == l.readers.begin() ? value(l.number).value.node : *std::prev(later);
}

bool RecomputePlan::alive(int number, NodeId at) const {
  const Lives& l = lives_[static_cast<size_t>(number)];
  if (value(number).value.node > at || l.readers.empty() || *l.readers.rbegin() < at) return false;
  // Between two uses it is gone if the later one makes it again.
  const auto next = l.readers.lower_bound(at);
  return *next == at || !l.again.contains(*next);
}

bool RecomputePlan::is_there(int number, NodeId at) const {
  const auto& again = lives_[static_cast<size_t>(number)].again;
  const auto made = again.find(at);
  return alive(number, at) && (made == again.end() || made->second.host == kNone);
}

std::optional<Again> RecomputePlan::again(int number, NodeId at, int depth) const {
  const Value v = value(number).value;
  const Node& node = graph_.node(v);
  Again a;
  a.traffic = value(number).bytes;
  if (node.op->kernel == KernelKind::fused) {
    if (!slice(v, at, depth, a)) return std::nullopt;
  } else if (node.op->kernel == KernelKind::gemm || node.op->kernel == KernelKind::convolution) {
    std::vector<TensorType> types;
    for (const Value operand : node.operands) {
      if (operand && !take(operand, at, depth, a)) return std::nullopt;
      types.push_back(operand ? graph_.type(operand) : TensorType{});
    }
    a.flops += node.op->cost ? node.op->cost(node, types) : 0;
  } else {
    return std::nullopt;
  }
  return a;
}

bool RecomputePlan::take(Value v, NodeId at, int depth, Again& a) const {
  const Value from = memory_.storage(v);
  if (a.host == kNone || !reads(graph_.node(a.host), from)) a.traffic += graph_.type(v).byte_count();
  if (graph_.node(from).op->kernel == KernelKind::leaf) return true;
  if (is_arena(graph_.node(from))) return false;
  const auto found = numbers_.find(from);
  if (found == numbers_.end()) return from.node < at;  // the graph delivers it
  return take_value(found->second, at, depth, a);
}

bool RecomputePlan::take_value(int number, NodeId at, int depth, Again& a) const {
  constexpr int kDeepest = 3;
  a.reads.push_back(number);
  const auto known = std::ranges::find(a.before, number, &Earlier::number);
  if (is_there(number, at) || known != a.before.end()) return true;
  if (depth == kDeepest || value(number).arena >= 0) return false;
  std::optional<Again> first = again(number, at, depth + 1);
  if (!first) return false;
  if (!made_later(number, at)) a.traffic += first->traffic, a.flops += first->flops;
  a.before.emplace_back(number, *std::move(first));
  return true;
}

std::optional<NodeId> RecomputePlan::made_later(int number, NodeId at) const {
  const Lives& l = lives_[static_cast<size_t>(number)];
  const auto next = l.readers.lower_bound(at);
  return next != l.readers.end() && l.again.contains(*next) ? std::optional(*next) : std::nullopt;
}

bool RecomputePlan::slice(Value v, NodeId at, int depth, Again& a) const {
  const Graph& body = graph_.node(v).attributes.region("body");
  std::map<Value, int32_t> outputs;
  for (size_t r = 0; r < body.outputs().size(); ++r) outputs.emplace(body.outputs()[r].value, static_cast<int32_t>(r));
  a.inside.assign(body.nodes().size(), 0);
  std::vector<Value> stack{body.outputs()[static_cast<size_t>(v.result)].value};
  std::set<int32_t> given;
  std::set<NodeId> operands;
  const Value wanted = stack.front();
  while (!stack.empty()) {
    const Value at_hand = stack.back();
    stack.pop_back();
    if (const auto output = outputs.find(at_hand); output != outputs.end() && at_hand != wanted) {
      const auto number = numbers_.find(Value{v.node, output->second});
      if (number != numbers_.end() && is_there(number->second, at)) {
        if (given.insert(output->second).second && !take({v.node, output->second}, at, depth, a)) return false;
        continue;
      }
    }
    if (std::exchange(a.inside[static_cast<size_t>(at_hand.node)], 1)) continue;
    const Node& node = body.node(at_hand);
    // A sum in another kernel may add in another order.
    if (writes_in_place(node) || node.op->kernel == KernelKind::reduction) return false;
    if (is_leaf(*node.op))
      operands.insert(at_hand.node);
    else
      for (const Value operand : node.operands)
        if (operand) stack.push_back(operand);
  }
  a.given.assign(given.begin(), given.end());
  size_t operand = 0;
  for (NodeId id = 0; id < body.size(); ++id) {
    if (!is_leaf(*body.node(id).op)) continue;
    if (operands.contains(id) && !take(graph_.node(v).operands[operand], at, depth, a)) return false;
    ++operand;
  }
  return true;
}

bool RecomputePlan::reads(const Node& call, Value stored) const {
  return std::ranges::any_of(call.operands, [&](Value v) { return v && memory_.storage(v) == stored; });
}

std::optional<Again> RecomputePlan::beside(int number, NodeId host, NodeId to) const {
  const Lives& l = lives_[static_cast<size_t>(number)];
  const Node& node = graph_.node(host);
  if (node.op->kernel != KernelKind::fused || l.readers.contains(host) ||
      elements_of_domain(node.attributes.region("body")) != graph_.type(value(number).value).element_count())
    return std::nullopt;
  if (to < host && !can_wait(number, to, host)) return std::nullopt;
  constexpr int kAsItIs = 3;  // nothing is computed again for it
  Again a;
  a.host = host, a.waits = to < host ? to : kNone, a.traffic = value(number).bytes;
  if (!slice(value(number).value, host, kAsItIs, a)) return std::nullopt;
  const Graph& body = graph_.node(value(number).value).attributes.region("body");
  for (NodeId id = 0; id < body.size(); ++id)
    if (a.inside[static_cast<size_t>(id)] && !may_stand_elsewhere(body.node(id))) return std::nullopt;
  std::vector<Value> more;  // operands
  size_t operand = 0;
  for (NodeId id = 0; id < body.size(); ++id)
    if (is_leaf(*body.node(id).op))
      if (const Value v = graph_.node(value(number).value).operands[operand++]; a.inside[static_cast<size_t>(id)])
        if (std::ranges::find(node.operands, v) == node.operands.end()) more.push_back(v);
  for (const int32_t result : a.given)
    if (const Value v{value(number).value.node, result}; std::ranges::find(node.operands, v) == node.operands.end())
      more.push_back(v);
  size_t operands = node.operands.size() + more.size();
  for (const int other : hosted_by(host)) operands += lives(other).again.at(host).reads.size();
  if (operands > kMostKernelOperands) return std::nullopt;
  if (!keeps_sums(node.attributes.region("body"), body, a, graph_.type(value(number).value), more.empty()))
    return std::nullopt;
  return a;
}

bool RecomputePlan::can_wait(int number, NodeId to, NodeId host) const {
  const Lives& l = lives_[static_cast<size_t>(number)];
  if (!is_library(graph_.node(to)) || waits(to)) return false;
  if (const auto next = l.readers.upper_bound(to); next != l.readers.end() && *next < host) return false;
  for (const int read : memory_.read(to))
    if (value(read).arena >= 0 || lives_[static_cast<size_t>(read)].again.contains(to)) return false;
  for (NodeId id = to + 1; id <= host; ++id)
    if (std::ranges::any_of(graph_.node(id).operands, [&](Value v) { return v && v.node == to; })) return false;
  return true;
}

std::optional<Again> RecomputePlan::beside_any(int number, NodeId fullest, NodeId to) const {
  constexpr NodeId kFarthest = 24;
  std::optional<Again> best;
  const Node& node = graph_.node(value(number).value);
  if (node.op->kernel != KernelKind::fused) return best;
  std::set<NodeId> tried;
  std::vector<Value> sources;  // what the kernel reads, and its other results
  for (const Value operand : node.operands) sources.push_back(memory_.storage(operand));
  for (int32_t r = 0; r < std::ssize(node.results); ++r) sources.push_back({value(number).value.node, r});
  for (const Value v : sources) {
    const auto source = numbers_.find(v);
    if (source == numbers_.end()) continue;
    const std::set<NodeId>& readers = lives_[static_cast<size_t>(source->second)].readers;
    for (auto host = readers.upper_bound(std::max(fullest, to - kFarthest));
         host != readers.end() && *host <= to + kFarthest; ++host) {
      if (!tried.insert(*host).second) continue;
      std::optional<Again> a = beside(number, *host, to);
      if (a && (!best || a->microseconds() < best->microseconds())) best = std::move(a);
    }
  }
  return best;
}

bool RecomputePlan::drop_one(NodeId fullest, Recomputation& done) {
  Choice best;
  double least = 0;
  for (const Lives& l : lives_) {
    const Value v = value(l.number).value;
    if (v.node >= fullest || value(l.number).bytes == 0 || value(l.number).arena >= 0 || l.readers.contains(fullest) ||
        !alive(l.number, fullest))
      continue;
    const NodeId from = used_before(l, fullest), to = *l.readers.upper_bound(fullest);
    const auto weigh = [&](std::optional<Again> a) {
      if (!a) return;
      const double price = a->microseconds() / static_cast<double>(value(l.number).bytes);
      if (best.number >= 0 && price >= least) return;
      const int64_t most = a->host == kNone ? most_beside(*a, to) : most_waiting(l.number, *a, to);
      if (most < alive_[static_cast<size_t>(fullest)]) best = {l.number, from, to, *std::move(a)}, least = price;
    };
    weigh(beside_any(l.number, fullest, to));
    weigh(again(l.number, to));
  }
  if (best.number < 0) return false;
  ++done.values, done.more_traffic += best.again.traffic, done.more_flops += best.again.flops;
  if (best.again.host != kNone) {
    host(best);
    return true;
  }
  for (NodeId id = best.from + 1; id < best.to; ++id) alive_[static_cast<size_t>(id)] -= value(best.number).bytes;
  make(best.number, std::move(best.again), best.to);
  return true;
}

int64_t RecomputePlan::most_waiting(int number, const Again& a, NodeId to) const {
  int64_t most = 0;
  for (NodeId id = to + 1; id <= a.host; ++id) {
    int64_t bytes = alive_[static_cast<size_t>(id)];
    for (const int read : memory_.read(to))
      if ((read != number || id == a.host) && !alive(read, id)) bytes += value(read).bytes;
    most = std::max(most, bytes);
  }
  return most;
}

void RecomputePlan::host(Choice& choice) {
  Again& a = choice.again;
  std::vector<int> changed{choice.number};
  if (a.waits != kNone) changed = memory_.read(a.waits);
  const NodeId last = std::max(choice.to, a.host);
  const auto count = [&](int64_t sign) {
    for (const int number : changed)
      for (NodeId id = choice.from + 1; id <= last; ++id)
        if (alive(number, id)) alive_[static_cast<size_t>(id)] += sign * value(number).bytes;
  };
  count(-1);
  const NodeId host = a.host;
  if (a.waits != kNone) {
    for (const int number : changed) {
      std::set<NodeId>& readers = lives_[static_cast<size_t>(number)].readers;
      readers.erase(a.waits), readers.insert(host);
    }
    waiting_.insert(a.waits);
    behind_[host].push_back(a.waits);
  }
  hosted_[host].push_back(choice.number);
  for (const int read : a.reads) lives_[static_cast<size_t>(read)].readers.insert(host);
  Lives& l = lives_[static_cast<size_t>(choice.number)];
  l.readers.insert(host);
  l.again.insert_or_assign(host, std::move(a));
  count(1);
}

int64_t RecomputePlan::most_beside(const Again& a, NodeId at) const {
  int64_t most = alive_[static_cast<size_t>(at)];
  for (const auto& [number, first] : a.before) {
    for (NodeId id = at; id <= made_later(number, at).value_or(at); ++id)
      most = std::max(most, alive_[static_cast<size_t>(id)] + value(number).bytes);
    most += most_beside(first, at) - alive_[static_cast<size_t>(at)] + value(number).bytes;
  }
  return most;
}

void RecomputePlan::make(int number, Again a, NodeId at) {
  for (auto& [earlier, first] : a.before) {
    const NodeId until = made_later(earlier, at).value_or(at + 1);
    for (NodeId id = at; id < until; ++id) alive_[static_cast<size_t>(id)] += value(earlier).bytes;
    Lives& l = lives_[static_cast<size_t>(earlier)];
    if (l.again.erase(until) > 0) std::erase(hosted_[until], earlier);
    l.readers.insert(at);
    make(earlier, std::move(first), at);
  }
  a.before.clear();
  for (const int read : a.reads) lives_[static_cast<size_t>(read)].readers.insert(at);
  lives_[static_cast<size_t>(number)].again.insert_or_assign(at, std::move(a));
}

}  // namespace halfstep
