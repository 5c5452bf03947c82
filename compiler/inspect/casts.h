// The casts of a training step: where autocast wants them, and what becomes of them in the kernels.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compiler/inspect/inspection.h"

namespace halfstep {

// How the values of a graph are called.
class SourceNames {
 public:
  // `main`: of each node, whether it is what a node of the file became; others of its name only prepare or move its
  // operands. `arenas`: where the graph has its weights in arenas, else nullptr.
  SourceNames(const Graph& graph, std::vector<char> main, const ArenaLayout* arenas)
      : graph_(graph), main_(std::move(main)), arenas_(arenas) {}

  // The weight, input or node that gives `v`, past what only moves or casts it.
  std::string operator()(Value v) const;
  // The type that `v` has before a cast on that way; nullopt: there is none.
  std::optional<DType> cast_from(Value v) const;

 private:
  bool passes(const Node& node, NodeId id) const;

  const Graph& graph_;
  std::vector<char> main_;
  const ArenaLayout* arenas_;
};

struct CastSources {
  const Graph& forward;  // with autocast's casts, placed
  const SourceNames& forward_names;
  const FusedCalls& calls;  // of the training step
  const SourceNames& step_names;
  // Why a node of the file has the type it has.
  std::function<std::string(const std::string&)> reason;
};

// The forward graph's casts between f32 and the low type, those of their gradients, and beside them every cast that
// costs traffic. `in_kernels`: how many others there are, between what a kernel reads and computes with.
std::vector<InspectedCast> inspect_casts(const CastSources& sources, int64_t& in_kernels);

// Whether a value of this type may be cast by autocast.
bool is_cast_type(DType type);
}  // namespace halfstep
