#include "codegen/kernel/kernel_index.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace halfstep {
namespace {

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

}  // namespace

int64_t Index::factor(AtomId wanted) const {
  for (const Term& t : terms)
    if (t.atom == wanted) return t.factor;
  return 0;
}

Index constant_index(int64_t value) { return {value, {}}; }

Index operator+(const Index& a, const Index& b) {
  Index sum{a.offset + b.offset, {}};
  auto i = a.terms.begin(), j = b.terms.begin();
  while (i != a.terms.end() || j != b.terms.end()) {
    if (j == b.terms.end() || (i != a.terms.end() && i->atom < j->atom)) {
      sum.terms.push_back(*i++);
    } else if (i == a.terms.end() || j->atom < i->atom) {
      sum.terms.push_back(*j++);
    } else {
      if (i->factor + j->factor != 0) sum.terms.push_back({i->atom, i->factor + j->factor});
      ++i, ++j;
    }
  }
  return sum;
}

Index operator+(const Index& a, int64_t b) { return {a.offset + b, a.terms}; }

Index operator*(const Index& a, int64_t b) {
  if (b == 0) return {};
  Index product = a;
  product.offset *= b;
  for (Index::Term& t : product.terms) t.factor *= b;
  return product;
}

AtomId IndexSpace::variable(int64_t extent) {
  require(variable_count_ < 64, "a kernel has more than 64 loop variables");
  Atom atom;
  atom.limit = extent;
  atom.variables = VariableSet{1} << variable_count_++;
  atoms_.push_back(std::move(atom));
  return static_cast<AtomId>(atoms_.size()) - 1;
}

Index IndexSpace::value(int32_t expression, int64_t limit, VariableSet variables) {
  for (size_t i = 0; i < atoms_.size(); ++i)
    if (atoms_[i].kind == Atom::Kind::value && atoms_[i].value == expression && atoms_[i].limit == limit)
      return of(static_cast<AtomId>(i));
  Atom atom;
  atom.kind = Atom::Kind::value;
  atom.limit = limit;
  atom.value = expression;
  atom.variables = variables;
  atoms_.push_back(std::move(atom));
  return of(static_cast<AtomId>(atoms_.size()) - 1);
}

Index IndexSpace::of(AtomId id) const {
  if (atom(id).limit <= 1) return {};
  return {0, {{id, 1}}};
}

AtomId IndexSpace::division_atom(Atom::Kind kind, const Index& dividend, int64_t divisor) {
  const auto [at, is_new] = divisions_.try_emplace({dividend, {divisor, kind}}, static_cast<AtomId>(atoms_.size()));
  if (is_new) {
    Atom a;
    a.kind = kind;
    a.dividend = dividend;
    a.divisor = divisor;
    a.limit = kind == Atom::Kind::remainder ? divisor : range(dividend).high / divisor + 1;
    a.variables = variables(dividend);
    atoms_.push_back(std::move(a));
  }
  return at->second;
}

// Takes out of the dividend what the divisor divides; what is left is a constant quotient where its range allows.
IndexSpace::Division IndexSpace::divide(const Index& dividend, int64_t divisor) {
  require(divisor > 0, "index division by a size that is not positive");
  Index whole, rest;
  for (const Index::Term& t : dividend.terms) {
    const int64_t q = floor_div(t.factor, divisor);
    if (q * divisor == t.factor)
      whole.terms.push_back({t.atom, q});
    else
      rest.terms.push_back(t);
  }
  whole.offset = floor_div(dividend.offset, divisor);
  rest.offset = dividend.offset - whole.offset * divisor;
  const Range r = range(rest);
  const int64_t low = floor_div(r.low, divisor), high = floor_div(r.high, divisor);
  if (low == high) return {whole + low, rest + -low * divisor};
  const Index positive = rest + (low < 0 ? -low * divisor : 0);
  const Index quotient = of(division_atom(Atom::Kind::quotient, positive, divisor));
  return {whole + quotient + std::min<int64_t>(low, 0), of(division_atom(Atom::Kind::remainder, positive, divisor))};
}

Index IndexSpace::quotient(const Index& dividend, int64_t divisor) { return divide(dividend, divisor).quotient; }
Index IndexSpace::remainder(const Index& dividend, int64_t divisor) { return divide(dividend, divisor).remainder; }

Index IndexSpace::linear(std::span<const Index> index, const Shape& shape) {
  require(index.size() == shape.size(), "an index of another rank than its shape");
  const std::vector<int64_t> strides = row_major_strides(shape);
  Index sum;
  for (size_t i = 0; i < shape.size(); ++i) sum = sum + index[i] * strides[i];
  // (x / c) * (c f) + (x % c) * f = x f.
  for (bool changed = true; changed;) {
    changed = false;
    for (const Index::Term& t : sum.terms) {
      const Atom& a = atom(t.atom);
      if (a.kind != Atom::Kind::remainder) continue;
      const auto partner = divisions_.find({a.dividend, {a.divisor, Atom::Kind::quotient}});
      if (partner == divisions_.end() || sum.factor(partner->second) != t.factor * a.divisor) continue;
      const Index both = of(t.atom) * t.factor + of(partner->second) * (t.factor * a.divisor);
      sum = sum + both * -1 + a.dividend * t.factor;
      changed = true;
      break;
    }
  }
  return sum;
}

std::vector<Index> IndexSpace::split(const Index& linear, const Shape& shape) {
  std::vector<Index> index(shape.size());
  Index left = linear;
  for (size_t i = shape.size(); i-- > 1;) {
    if (shape[i] == 1) continue;
    Division d = divide(left, std::max<int64_t>(shape[i], 1));
    index[i] = std::move(d.remainder);
    left = std::move(d.quotient);
  }
  if (!shape.empty()) index[0] = std::move(left);
  return index;
}

IndexSpace::Range IndexSpace::range(const Index& index) const {
  Range r{index.offset, index.offset};
  for (const Index::Term& t : index.terms) {
    const int64_t end = t.factor * (atom(t.atom).limit - 1);
    (end < 0 ? r.low : r.high) += end;
  }
  return r;
}

VariableSet IndexSpace::variables(const Index& index) const {
  VariableSet set = 0;
  for (const Index::Term& t : index.terms) set |= atom(t.atom).variables;
  return set;
}

int64_t IndexSpace::multiple(const Index& index, AtomId scaled, int64_t scale) const {
  int64_t divisor = std::abs(index.offset);
  for (const Index::Term& t : index.terms) {
    const Atom& a = atom(t.atom);
    int64_t factor = t.factor;
    if (t.atom == scaled) factor *= scale;
    if (a.kind == Atom::Kind::remainder) factor *= std::gcd(multiple(a.dividend, scaled, scale), a.divisor);
    if (a.kind == Atom::Kind::quotient) {
      const int64_t m = multiple(a.dividend, scaled, scale);
      if (m % a.divisor == 0) factor *= std::max<int64_t>(m / a.divisor, 1);
    }
    divisor = std::gcd(divisor, factor);
  }
  return divisor;  // 0: the index is always 0
}

bool IndexSpace::merges(const Index& index, AtomId outer, AtomId inner) const {
  return index.factor(outer) == index.factor(inner) * atom(inner).limit;
}

bool IndexSpace::atoms_merge(AtomId outer, AtomId inner) const {
  return std::all_of(atoms_.begin(), atoms_.end(), [&](const Atom& a) { return merges(a.dividend, outer, inner); });
}

void IndexSpace::merge(Index& index, AtomId outer, AtomId inner, AtomId merged) const {
  const int64_t factor = index.factor(inner);
  if (factor == 0) return;
  std::erase_if(index.terms, [&](const Index::Term& t) { return t.atom == outer || t.atom == inner; });
  index = index + of(merged) * factor;
}

void IndexSpace::merge_atoms(AtomId outer, AtomId inner, AtomId merged) {
  const VariableSet old = atom(outer).variables | atom(inner).variables, now = atom(merged).variables;
  for (Atom& a : atoms_) {
    merge(a.dividend, outer, inner, merged);
    if (a.kind != Atom::Kind::variable && (a.variables & old)) a.variables = (a.variables & ~old) | now;
  }
}

}  // namespace halfstep
