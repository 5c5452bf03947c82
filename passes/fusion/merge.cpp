#include <algorithm>
#include <functional>
#include <numeric>

#include "passes/fusion/body_cost.h"
#include "passes/fusion/fusion.h"

namespace halfstep {

void Fusion::make_kernels() {
  for (NodeId id = 0; id < graph_.size(); ++id) {
    if (!stored(id)) continue;
    kernel_of_[static_cast<size_t>(id)] = static_cast<int>(kernels_.size());
    Kernel kernel{{id}, std::nullopt, ReductionScheme::row, count(node(id)), true};
    if (is_reduction(node(id))) {
      const TensorType& operand = graph_.type(node(id).operands[0]);
      const auto split = split_reduction(operand.shape, node(id).attributes.ints("axes"));
      kernel.elements = operand.element_count();
      kernel.runs = reduction_runs(operand.shape, node(id).attributes.ints("axes"));
      kernel.split = split.value_or(
          ReductionSplit{count(node(id)), operand.element_count() / std::max<int64_t>(1, count(node(id))), 1});
      kernel.scheme = split ? reduction_scheme(*split) : ReductionScheme::general;
    }
    kernels_.push_back(std::move(kernel));
  }
}

// The nodes a kernel computes: its roots and what they inline, in order.
std::vector<NodeId> Fusion::body(const Kernel& kernel) const {
  std::set<NodeId> nodes(kernel.roots.begin(), kernel.roots.end());
  std::vector<NodeId> stack = kernel.roots;
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    for (Value v : node(at).operands) {
      if (!v || nodes.count(v.node)) continue;
      const NodeId source = storage(v.node);
      const bool inside = std::binary_search(kernel.roots.begin(), kernel.roots.end(), source);
      if (in_memory(v.node) && !inside) continue;
      nodes.insert(v.node);
      stack.push_back(v.node);
    }
  }
  return {nodes.begin(), nodes.end()};
}

// What a kernel reads from memory: views are kept as such.
std::set<NodeId> Fusion::reads(const Kernel& kernel) const {
  const std::vector<NodeId> nodes = body(kernel);
  std::set<NodeId> result;
  for (NodeId id : nodes)
    for (Value v : node(id).operands)
      if (v && !std::binary_search(nodes.begin(), nodes.end(), v.node)) result.insert(v.node);
  return result;
}

// Values of a kernel belong to its full domain, to the reduced one, or are free of both (computed from memory at any
// index).
bool Fusion::legal(const Kernel& kernel) const {
  enum Tag : uint8_t { free, full, reduced };
  const std::vector<NodeId> nodes = body(kernel);
  constexpr size_t kMostNodes = 400;
  if (nodes.size() > kMostNodes || reads(kernel).size() > kMostKernelOperands) return false;
  // Each sum of a column has accumulators of its own in every thread; more than this, and they leave the registers.
  constexpr int kMostColumnSums = 14;
  if (kernel.scheme == ReductionScheme::column &&
      std::ranges::count_if(nodes, [&](NodeId id) { return is_reduction(node(id)); }) > kMostColumnSums)
    return false;
  if (kernel.split && std::ranges::any_of(nodes, [&](NodeId id) { return is_large_window(node(id)); })) return false;
  const int64_t reduced_count = kernel.split ? kernel.split->outer * kernel.split->inner : -1;
  std::map<NodeId, Tag> tags;
  for (NodeId id : nodes) {
    const Node& n = node(id);
    Tag tag = free;
    for (Value v : n.operands) {
      const auto found = v ? tags.find(v.node) : tags.end();
      if (found == tags.end() || found->second == free) continue;
      if (tag != free && tag != found->second) return false;
      tag = found->second;
    }
    const bool elementwise = n.op->kernel == KernelKind::pointwise || n.op->index_map == IndexMap::row_major;
    if (is_reduction(n)) {
      if (!kernel.split || tag == reduced || graph_.type(n.operands[0]).element_count() != kernel.elements)
        return false;
      tag = reduced;
    } else if (n.op->index_map == IndexMap::repeated && tag == reduced) {
      // Back to the full domain: only rows can be read twice, and only along the reduced axes.
      if (kernel.scheme != ReductionScheme::row || count(n) != kernel.elements) return false;
      // The leading axes are the rows, in both.
      const Shape &from = graph_.type(n.operands[0]).shape, &to = n.results[0].shape;
      int64_t rows = 1;
      for (size_t i = 0; i < from.size(); ++i) {
        if (rows == kernel.split->outer ? from[i] != 1 : from[i] != to[i]) return false;
        rows *= from[i];
      }
      tag = full;
    } else if (!elementwise && tag != free) {
      return false;
    }
    if (std::binary_search(kernel.roots.begin(), kernel.roots.end(), id) && tag == free) {
      if (count(n) == kernel.elements)
        tag = full;
      else if (count(n) == reduced_count)
        tag = reduced;
      else
        return false;
    }
    if (tag == full && count(n) != kernel.elements) return false;
    if (tag == reduced && count(n) != reduced_count) return false;
    tags[id] = tag;
  }
  return true;
}

std::vector<int> Fusion::consumers(int kernel) const {
  std::set<int> result;
  // Forward from the roots through what is inlined, to the kernels that store the results.
  std::vector<NodeId> stack = kernels_[static_cast<size_t>(kernel)].roots;
  std::set<NodeId> seen(stack.begin(), stack.end());
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    for (NodeId user : users_[static_cast<size_t>(at)]) {
      if (!seen.insert(user).second) continue;
      if (stored(user)) {
        if (kernel_of_[static_cast<size_t>(user)] != kernel) result.insert(kernel_of_[static_cast<size_t>(user)]);
      } else if (!external(user)) {
        stack.push_back(user);
      }
    }
  }
  return {result.begin(), result.end()};
}

// Numbers the library calls after the kernels, and tells the order who reads whom: through what is inlined, to memory.
void Fusion::find_order() {
  std::vector<int> units = kernel_of_;
  int count = static_cast<int>(kernels_.size());
  for (NodeId id = 0; id < graph_.size(); ++id)
    if (!stored(id) && external(id)) units[static_cast<size_t>(id)] = count++;
  order_ = KernelOrder(static_cast<size_t>(count));
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const int unit = units[static_cast<size_t>(id)];
    if (unit < 0) continue;
    std::vector<std::pair<NodeId, bool>> stack{{id, false}};  // node, whether it must be complete
    std::set<std::pair<NodeId, bool>> seen;
    while (!stack.empty()) {
      const auto [at, complete] = stack.back();
      stack.pop_back();
      for (size_t i = 0; i < node(at).operands.size(); ++i) {
        const Value v = node(at).operands[i];
        // What an `after` waits for is complete, and so of another kernel.
        const bool waits = complete || (i > 0 && is_view(graph_, node(at)));
        if (!v || !seen.insert({v.node, waits}).second) continue;
        const int from = units[static_cast<size_t>(v.node)];
        if (from < 0)
          stack.push_back({v.node, waits});
        else if (waits)
          order_.add_wait(unit, from);
        else
          order_.add_read(unit, from);
      }
    }
  }
}

bool Fusion::try_merge(int a, int b) {
  Kernel &ka = kernels_[static_cast<size_t>(a)], &kb = kernels_[static_cast<size_t>(b)];
  if (a == b || !ka.alive || !kb.alive) return false;
  const auto alone = [&](const Kernel& kernel) { return writes_in_place(node(kernel.roots.front())); };
  if (alone(ka) || alone(kb)) return false;
  if (ka.split && kb.split && (ka.runs != kb.runs || ka.scheme != kb.scheme)) return false;
  Kernel merged = ka.split ? ka : kb;
  if (!merged.split && ka.elements != kb.elements) return false;
  // Kernels that did not fit do not fit later: other merges only add to what lies between them.
  const std::pair versions{ka.roots.size(), kb.roots.size()};
  const auto [tried, is_new] = refused_.try_emplace({a, b}, versions);
  if (!is_new && std::exchange(tried->second, versions) == versions) return false;
  merged.roots.clear();
  std::merge(ka.roots.begin(), ka.roots.end(), kb.roots.begin(), kb.roots.end(), std::back_inserter(merged.roots));
  if (!order_.can_merge(a, b) || !legal(merged)) return false;
  for (NodeId root : kb.roots) kernel_of_[static_cast<size_t>(root)] = a;
  order_.merge(a, b);
  kb.alive = false;
  ka = std::move(merged);
  return true;
}

// Each with those that follow it in the list, so many that the effort stays linear.
void Fusion::merge_neighbours(const std::vector<int>& kernels) {
  constexpr size_t kNeighbours = 16;
  for (size_t i = 0; i < kernels.size(); ++i)
    for (size_t j = i + 1; j < kernels.size() && j < i + kNeighbours; ++j) try_merge(kernels[i], kernels[j]);
}

void Fusion::merge_kernels() {
  // Producers into consumers first, since that removes a store and a load; large ones first, since a merge can bar
  // others.
  std::vector<int> producers(kernels_.size());
  std::iota(producers.begin(), producers.end(), 0);
  std::ranges::stable_sort(producers, std::greater(), [&](int k) { return kernels_[static_cast<size_t>(k)].elements; });
  for (bool changed = true; changed;) {
    changed = false;
    for (int k : producers) {
      for (bool grown = kernels_[static_cast<size_t>(k)].alive; grown; changed |= grown)
        grown = std::ranges::count_if(consumers(k), [&](int consumer) { return try_merge(k, consumer); }) > 0;
    }
  }
  // Then kernels that read the same value, if it is not small beside their domain.
  constexpr int64_t kShare = 8;
  std::map<NodeId, std::vector<int>> readers;
  for (int k = 0; k < static_cast<int>(kernels_.size()); ++k) {
    const Kernel& kernel = kernels_[static_cast<size_t>(k)];
    if (!kernel.alive) continue;
    for (NodeId id : reads(kernel)) {
      if (count(node(id)) * kShare < kernel.elements) continue;
      while (is_view(graph_, node(id)) && node(id).op->index_map != IndexMap::part) id = node(id).operands[0].node;
      readers[id].push_back(k);
    }
  }
  for (const auto& [source, kernels] : readers) merge_neighbours(kernels);
  // Last, kernels so small that a launch costs more than what they do.
  constexpr int64_t kTiny = 4096;
  std::vector<int> tiny;
  for (int k = 0; k < static_cast<int>(kernels_.size()); ++k)
    if (kernels_[static_cast<size_t>(k)].alive && kernels_[static_cast<size_t>(k)].elements <= kTiny) tiny.push_back(k);
  merge_neighbours(tiny);
}

}  // namespace halfstep
