#include "frontend/import/sizes.h"

#include <algorithm>

#include "base/checked.h"

namespace halfstep {
namespace {

int64_t product(const Factors& factors, int64_t Factor::* size) {
  int64_t result = 1;
  for (const Factor& f : factors) result = checked_mul(result, f.*size, "dimension");
  return result;
}

Shape sizes(const Dimensions& dimensions, int64_t Factor::* size) {
  Shape shape;
  for (const Factors& factors : dimensions) shape.push_back(product(factors, size));
  return shape;
}

// The factors of a whole value in row-major order, adjacent numbers merged, ones dropped.
struct Item {
  Factor factor;
  size_t axis;
  bool is_unit_symbol() const { return factor.exported == 1 && !factor.is_number(); }
};

std::vector<Item> flatten(const Dimensions& dimensions) {
  std::vector<Item> items;
  for (size_t axis = 0; axis < dimensions.size(); ++axis)
    for (const Factor& f : dimensions[axis]) {
      if (f.exported == 1 && f.is_number()) continue;
      if (f.is_number() && !items.empty() && items.back().factor.is_number()) {
        const int64_t merged = checked_mul(items.back().factor.exported, f.exported, "dimension");
        items.back().factor = {merged, merged};
      } else {
        items.push_back({f, axis});
      }
    }
  return items;
}

class TargetReader {
 public:
  TargetReader(const Dimensions& operand, const Shape& target) : target_(target), items_(flatten(operand)) {}

  std::optional<Dimensions> read() {
    while (result_.size() < target_.size())
      if (!(target_[result_.size()] == 1 ? read_ones() : read_dimension())) return std::nullopt;
    // Symbols of size 1 at the end belong to the last dimension; anything else is left over.
    for (; at_ < items_.size(); ++at_) {
      if (!items_[at_].is_unit_symbol() || result_.empty()) return std::nullopt;
      result_.back().push_back(items_[at_].factor);
    }
    return result_;
  }

 private:
  bool at_unit_symbol() const { return at_ < items_.size() && items_[at_].is_unit_symbol(); }

  // One dimension larger than 1.
  bool read_dimension() {
    // A symbol of size 1 between this dimension and one before it could belong to either.
    const bool after_another = std::any_of(result_.begin(), result_.end(), [](const Factors& f) { return !f.empty(); });
    if (at_unit_symbol() && after_another) return false;
    Factors factors;
    for (int64_t open = target_[result_.size()]; open != 1;) {
      if (at_ == items_.size()) return false;
      Factor& next = items_[at_].factor;
      if (open % next.exported == 0) {
        factors.push_back(next);
        open /= next.exported;
        ++at_;
      } else if (next.is_number() && next.exported % open == 0) {
        factors.push_back({open, open});
        next = {next.exported / open, next.wanted / open};
        open = 1;
      } else {
        return false;
      }
    }
    result_.push_back(factors);
    return true;
  }

  // A run of ones takes the symbols of size 1 that stand here: one each where they are as many; else each takes its
  // old place.
  bool read_ones() {
    const size_t first = result_.size();
    size_t ones = 0, symbols = 0;
    while (first + ones < target_.size() && target_[first + ones] == 1) ++ones;
    while (at_ + symbols < items_.size() && items_[at_ + symbols].is_unit_symbol()) ++symbols;
    result_.resize(first + ones);
    for (size_t i = 0; i < symbols; ++i, ++at_) {
      const size_t place = ones == symbols ? first + i : items_[at_].axis;
      if (place < first || place >= first + ones) return false;
      result_[place].push_back(items_[at_].factor);
    }
    return true;
  }

  const Shape& target_;
  std::vector<Item> items_;
  size_t at_ = 0;
  Dimensions result_;
};

bool is_number(const Factors& factors) {
  return std::all_of(factors.begin(), factors.end(), [](const Factor& f) { return f.is_number(); });
}

// The symbols among the candidates if they agree, else a number if there is one.
class Candidates {
 public:
  explicit Candidates(Factor sizes) : sizes_(sizes) {}

  void add(const Factors& factors) {
    if (product(factors, &Factor::exported) != sizes_.exported || product(factors, &Factor::wanted) != sizes_.wanted)
      return;
    if (is_number(factors)) {
      number_ = true;
    } else if (factors.size() == 1) {  // of which nothing is known, or nothing more than is here
      whole_ = true;
    } else {
      agree_ &= !symbols_ || *symbols_ == factors;
      symbols_ = factors;
    }
  }

  std::optional<Factors> choice() const {
    if (symbols_) return agree_ ? *symbols_ : Factors{sizes_};
    return number_ || whole_ ? std::optional(Factors{sizes_}) : std::nullopt;
  }

 private:
  Factor sizes_;
  std::optional<Factors> symbols_;
  bool agree_ = true, number_ = false, whole_ = false;
};

}  // namespace

Dimensions numbers(const Shape& shape) {
  Dimensions dimensions;
  for (int64_t size : shape) dimensions.push_back({{size, size}});
  return dimensions;
}

Shape exported_sizes(const Dimensions& dimensions) { return sizes(dimensions, &Factor::exported); }
Shape wanted_sizes(const Dimensions& dimensions) { return sizes(dimensions, &Factor::wanted); }

std::optional<Dimensions> read_target(const Dimensions& operand, const Shape& exported_result) {
  const auto empty = [](int64_t size) { return size <= 0; };
  const Shape from = exported_sizes(operand), to = wanted_sizes(operand);
  if (std::any_of(from.begin(), from.end(), empty) || std::any_of(to.begin(), to.end(), empty) ||
      std::any_of(exported_result.begin(), exported_result.end(), empty))
    return from == to ? std::optional(numbers(exported_result)) : std::nullopt;
  return TargetReader(operand, exported_result).read();
}

Dimensions inherit_dimensions(std::span<const Dimensions> operands, const Shape& exported, const Shape& wanted) {
  Dimensions result;
  for (size_t axis = 0; axis < wanted.size(); ++axis) {
    const Factor sizes{exported[axis], wanted[axis]};
    const size_t from_end = wanted.size() - axis;
    Candidates here(sizes), anywhere(sizes);
    for (const Dimensions& operand : operands) {
      if (from_end <= operand.size()) here.add(operand[operand.size() - from_end]);
      for (const Factors& factors : operand) anywhere.add(factors);
    }
    result.push_back(here.choice().value_or(anywhere.choice().value_or(Factors{sizes})));
  }
  return result;
}

}  // namespace halfstep
