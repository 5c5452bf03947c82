// Symbolic indices of a kernel: affine in loop variables, in quotients and remainders of such, and in loaded values.
// Built with simplification, so that reshapes and window arithmetic over constant shapes leave plain affine accesses.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/tensor.h"

namespace halfstep {

using AtomId = int32_t;
// A set of loop variables: bit i is the i-th variable that the space made.
using VariableSet = uint64_t;

// offset + sum of factor * atom.
struct Index {
  struct Term {
    AtomId atom;
    int64_t factor;
    friend auto operator<=>(const Term&, const Term&) = default;
  };
  int64_t offset = 0;
  std::vector<Term> terms;  // sorted by atom; no factor is zero

  bool is_constant() const { return terms.empty(); }
  int64_t factor(AtomId atom) const;
  friend auto operator<=>(const Index&, const Index&) = default;
};

Index constant_index(int64_t value);
Index operator+(const Index& a, const Index& b);
Index operator+(const Index& a, int64_t b);
Index operator*(const Index& a, int64_t b);

// What an index is made of. Every atom lies in [0, limit).
struct Atom {
  enum class Kind : uint8_t { variable, quotient, remainder, value };
  Kind kind = Kind::variable;
  int64_t limit = 1;
  Index dividend;  // quotient, remainder: of this by `divisor`; never negative
  int64_t divisor = 1;
  int32_t value = -1;  // value: the expression that gives it
  VariableSet variables = 0;
};

class IndexSpace {
 public:
  struct Range {
    int64_t low, high;  // inclusive
  };

  // A new loop variable in [0, extent).
  AtomId variable(int64_t extent);
  // The atom of a value computed by expression `expression`, which clamps it to [0, limit).
  Index value(int32_t expression, int64_t limit, VariableSet variables);
  Index of(AtomId atom) const;

  Index quotient(const Index& dividend, int64_t divisor);   // rounded down
  Index remainder(const Index& dividend, int64_t divisor);  // in [0, divisor)

  // Row-major position of `index` in `shape`, and back.
  Index linear(std::span<const Index> index, const Shape& shape);
  std::vector<Index> split(const Index& linear, const Shape& shape);

  const Atom& atom(AtomId id) const { return atoms_[static_cast<size_t>(id)]; }
  Range range(const Index& index) const;
  VariableSet variables(const Index& index) const;
  // A number that divides the index for all values of its atoms, where each of `scaled` is a multiple of `scale`.
  int64_t multiple(const Index& index, AtomId scaled, int64_t scale) const;

  // Whether `index` depends on variables `outer` and `inner` only as on outer * extent(inner) + inner.
  bool merges(const Index& index, AtomId outer, AtomId inner) const;
  bool atoms_merge(AtomId outer, AtomId inner) const;
  // Replaces that combination by the variable `merged`; for the atoms' own dividends, `merge_atoms` does.
  void merge(Index& index, AtomId outer, AtomId inner, AtomId merged) const;
  void merge_atoms(AtomId outer, AtomId inner, AtomId merged);

 private:
  struct Division {
    Index quotient, remainder;
  };
  Division divide(const Index& dividend, int64_t divisor);
  AtomId division_atom(Atom::Kind kind, const Index& dividend, int64_t divisor);

  std::vector<Atom> atoms_;
  std::map<std::pair<Index, std::pair<int64_t, Atom::Kind>>, AtomId> divisions_;
  int variable_count_ = 0;
};

}  // namespace halfstep
