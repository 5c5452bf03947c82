// Types of nodes that may compute in either one, so that the casts between them move the fewest bytes. A value is cast
// once for all readers of the other type; which side each free node takes is a minimum cut between what must be low and
// what must be f32 (Greig, Porteous, Seheult 1989: binary labels whose cost is submodular), and so provably the least.
#pragma once

#include <cstdint>
#include <vector>

namespace halfstep {

enum class Side : uint8_t { either, low, full };

struct CastProblem {
  struct Value {
    int32_t maker = 0;
    std::vector<int32_t> readers = {};
    int64_t cost = 0;  // of a cast, where the maker and some reader are on other sides; kTied: they must not be
  };
  static constexpr int64_t kTied = -1;
  std::vector<Side> sides;          // of each node
  std::vector<char> prefers_low;    // of each node: which side it takes where both cost the same
  std::vector<int64_t> wide_costs;  // of each node: of its f32 side, beside the casts
  std::vector<Value> values;
};

// Whether each node is low. Ends with the fewest nodes against their preference among the assignments of least cost.
std::vector<char> cheapest_casts(const CastProblem& problem);
// Of an assignment that ties nothing apart.
int64_t cast_cost(const CastProblem& problem, const std::vector<char>& is_low);

}  // namespace halfstep
