#include "passes/precision/cheapest_casts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/saturated.h"

namespace halfstep {
namespace {

// Dinic's algorithm: phases of blocking flows along shortest paths.
class Network {
 public:
  explicit Network(size_t nodes) : arcs_of_(nodes) {}

  void add(int32_t from, int32_t to, int64_t capacity) {
    arcs_of_[static_cast<size_t>(from)].push_back(static_cast<int32_t>(arcs_.size()));
    arcs_.push_back({to, capacity});
    arcs_of_[static_cast<size_t>(to)].push_back(static_cast<int32_t>(arcs_.size()));
    arcs_.push_back({from, 0});
  }

  // Whether each node is on the source's side of a minimum cut: reached where no capacity is left on the way to the
  // sink.
  std::vector<char> cut(int32_t source, int32_t sink) {
    while (find_levels(source, sink)) {
      next_.assign(arcs_of_.size(), 0);
      while (push(source, sink)) {
      }
    }
    std::vector<char> reached(arcs_of_.size());
    for (size_t i = 0; i < reached.size(); ++i) reached[i] = levels_[i] >= 0;
    return reached;
  }

 private:
  struct Arc {
    int32_t to;
    int64_t left;
  };

  bool find_levels(int32_t source, int32_t sink) {
    levels_.assign(arcs_of_.size(), -1);
    levels_[static_cast<size_t>(source)] = 0;
    std::vector<int32_t> queue{source};
    for (size_t at = 0; at < queue.size(); ++at)
      for (int32_t a : arcs_of_[static_cast<size_t>(queue[at])])
        if (const Arc& arc = arcs_[static_cast<size_t>(a)]; arc.left > 0 && levels_[static_cast<size_t>(arc.to)] < 0) {
          levels_[static_cast<size_t>(arc.to)] = levels_[static_cast<size_t>(queue[at])] + 1;
          queue.push_back(arc.to);
        }
    return levels_[static_cast<size_t>(sink)] >= 0;
  }

  // One path from the source, without recursion: graphs are as deep as models.
  bool push(int32_t source, int32_t sink) {
    std::vector<int32_t> path;  // arcs
    int32_t at = source;
    while (at != sink) {
      size_t& next = next_[static_cast<size_t>(at)];
      const std::vector<int32_t>& arcs = arcs_of_[static_cast<size_t>(at)];
      while (next < arcs.size()) {
        const Arc& arc = arcs_[static_cast<size_t>(arcs[next])];
        if (arc.left > 0 && levels_[static_cast<size_t>(arc.to)] == levels_[static_cast<size_t>(at)] + 1) break;
        ++next;
      }
      if (next < arcs.size()) {
        path.push_back(arcs[next]);
        at = arcs_[static_cast<size_t>(arcs[next])].to;
        continue;
      }
      if (path.empty()) return false;
      at = arcs_[static_cast<size_t>(path.back() ^ 1)].to;
      ++next_[static_cast<size_t>(at)];
      path.pop_back();
    }
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int32_t a : path) least = std::min(least, arcs_[static_cast<size_t>(a)].left);
    for (int32_t a : path) {
      arcs_[static_cast<size_t>(a)].left -= least;
      arcs_[static_cast<size_t>(a ^ 1)].left += least;
    }
    return true;
  }

  std::vector<Arc> arcs_;  // each beside its reverse
  std::vector<std::vector<int32_t>> arcs_of_;
  std::vector<int32_t> levels_;
  std::vector<size_t> next_;
};

}  // namespace

int64_t cast_cost(const CastProblem& problem, const std::vector<char>& is_low) {
  int64_t cost = 0;
  for (size_t i = 0; i < is_low.size(); ++i)
    if (!is_low[i]) cost = saturated_add(cost, problem.wide_costs[i]);
  for (const CastProblem::Value& value : problem.values) {
    const bool meets_other = std::ranges::any_of(value.readers, [&](int32_t reader) {
      return is_low[static_cast<size_t>(reader)] != is_low[static_cast<size_t>(value.maker)];
    });
    require(!meets_other || value.cost != CastProblem::kTied, "tied nodes are on one side");
    if (meets_other) cost = saturated_add(cost, value.cost);
  }
  return cost;
}

std::vector<char> cheapest_casts(const CastProblem& problem) {
  // A byte weighs more than all preferences together.
  const auto nodes = static_cast<int64_t>(problem.sides.size());
  const int64_t weight = nodes + 1;
  double bytes = 0;
  for (const CastProblem::Value& value : problem.values) bytes += 2 * std::max(static_cast<double>(value.cost), 0.0);
  for (int64_t cost : problem.wide_costs) bytes += static_cast<double>(cost);
  // Of more bytes than can be counted so the last ones do not matter.
  constexpr double kCountable = 0x1p59;
  int coarser = 0;
  while (std::ldexp(bytes, -coarser) * static_cast<double>(weight) > kCountable) ++coarser;
  const auto weighed = [&](int64_t cost) { return cost > 0 ? std::max<int64_t>(cost >> coarser, 1) * weight : 0; };
  int64_t all = nodes;
  for (const CastProblem::Value& value : problem.values) all += 2 * weighed(value.cost);
  for (int64_t cost : problem.wide_costs) all += weighed(cost);
  const int64_t never = all + 1;  // more than every cut that separates nothing it must not
  require(never < std::numeric_limits<int64_t>::max() / 4, "the bytes of casts are countable");

  const auto source = static_cast<int32_t>(nodes), sink = source + 1;  // low, f32
  Network network(problem.sides.size() + 2 + 2 * problem.values.size());
  for (int32_t i = 0; i < source; ++i) {
    const Side side = problem.sides[static_cast<size_t>(i)];
    if (side == Side::low) network.add(source, i, never);
    if (side == Side::full) network.add(i, sink, never);
    if (const int64_t cost = problem.wide_costs[static_cast<size_t>(i)]; cost > 0 && side == Side::either)
      network.add(source, i, weighed(cost));
    if (side == Side::either)
      problem.prefers_low[static_cast<size_t>(i)] ? network.add(source, i, 1) : network.add(i, sink, 1);
  }
  int32_t extra = sink + 1;
  for (const CastProblem::Value& value : problem.values) {
    const int64_t cost = value.cost == CastProblem::kTied ? never : weighed(value.cost);
    // A low maker with an f32 reader pays on the way to `up`, an f32 maker with a low reader on the way from `down`.
    const int32_t up = extra++, down = extra++;
    network.add(value.maker, up, cost);
    network.add(down, value.maker, cost);
    for (int32_t reader : value.readers) {
      network.add(up, reader, never);
      network.add(reader, down, never);
    }
  }
  std::vector<char> is_low = network.cut(source, sink);
  is_low.resize(problem.sides.size());
  return is_low;
}

}  // namespace halfstep
