// The masks on the way from the scores of an attention to its softmax, as the one that `attention` takes.
//
// Which keys a query sees does not depend on how its other keys are hidden: added or selected, by -infinity or a large
// number. What a query gets that sees no key does: the mean of the values where all its scores became one finite
// number, nothing where they became -infinity, its own weights again where a number was added to all, whose gradients
// also reach the scores. So masks are joined only as far as every such query keeps what the model gives it.
#pragma once

#include <limits>
#include <optional>
#include <span>

#include "passes/rewrite/known_values.h"
#include "passes/rewrite/rules.h"

namespace halfstep {

// A score this low or lower means that the key is not seen.
inline bool is_hidden_score(std::optional<double> score) { return score && *score <= -1e4; }

// A mask as it is written: added to scores of the shape `at`, or a condition under which they are kept.
struct ScoreMask {
  Value value;
  Shape at;
  double factor = 1;                                        // of a mask that is added
  double score = -std::numeric_limits<double>::infinity();  // of a key that a condition hides
  double floor = -std::numeric_limits<double>::infinity();  // at which scores are held behind it
  enum Kind : uint8_t { added, visible, hidden } kind = added;
};

// The batch and the heads as products of the finest leading axes that the scores are given.
struct Heads {
  Shape axes;         // [a, b, ...]
  size_t batch_axes;  // so many of them make the batch
  int64_t batch() const;
  int64_t heads() const;
};

struct JoinedMask {
  Value mask;  // broadcasts to [batch, heads, S, T]; bool: which keys are seen; floating: added; may be absent
  bool causal = false;
  double fill = -std::numeric_limits<double>::infinity();  // the score of a key that is hidden by either
};

class AttentionMasks {
 public:
  // `masks` from the softmax towards the scores; nullopt where no one mask gives the same. All layers of the graph that
  // `b` builds may share what is known of their masks.
  std::optional<JoinedMask> join(Builder& b, std::span<const ScoreMask> masks, const Heads& heads);

 private:
  struct Term {
    ScoreMask mask;
    bool causal = false, hides = false;
    double score() const { return std::max(mask.score, mask.floor); }
  };
  struct Effect {
    enum Kind : uint8_t { none, causal, biases, hides } kind;
    double score = 0;  // causal: of the keys that are not seen
  };

  void take_apart(Builder& b, const ScoreMask& mask, bool all_see, std::vector<Term>& terms);
  Effect effect_of(Builder& b, const ScoreMask& mask);
  std::optional<Effect> effect_of_positions(const Graph& graph, const ScoreMask& mask, const Node& comparison);
  bool depends_on_input(const Graph& graph, Value v);

  KnownValues constants_;
  std::vector<char> on_input_;  // by node
};

}  // namespace halfstep
