#include "passes/rewrite/pattern.h"

#include <algorithm>
#include <cmath>

#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int kDeepest = 10;  // nodes of one sum or product that are taken apart

bool is_commutative(std::string_view op) { return op == "add" || op == "mul" || op == "max" || op == "min"; }

bool is_near(double found, double wanted, double tolerance) {
  return std::abs(found - wanted) <= tolerance * std::abs(wanted);
}

// Whole numbers and halves are written as they are, others with the digits that people know.
double tolerance_of(double wanted) {
  return std::round(2 * wanted) == 2 * wanted ? kSameTolerance : kConstantTolerance;
}

bool fits(const PatternNumber& number, double found, Captures& captures) {
  if (number.slot < 0) return is_near(found, number.value, tolerance_of(number.value));
  const auto slot = static_cast<size_t>(number.slot);
  if (captures.has_number[slot]) return is_near(found, captures.numbers[slot], kSameTolerance);
  captures.numbers[slot] = found, captures.has_number[slot] = true;
  return true;
}

// The terms of a sum or the factors of a product: values that no part has matched yet, and their constants folded.
struct Terms {
  std::vector<Value> open;
  double folded;
  int depth = 0;
};

// Replaces a node by what it adds or multiplies; false if it does neither.
bool take_apart(const Graph& graph, const Node& node, Pattern::Kind kind, Terms& terms) {
  const auto constant = [&](size_t i) { return splat(graph, node.operands[i]); };
  if (kind == Pattern::sum) {
    if (is(node, "add")) {
      terms.open.insert(terms.open.end(), node.operands.begin(), node.operands.end());
    } else if (is(node, "sub") && constant(1)) {
      terms.folded -= *constant(1);
      terms.open.push_back(node.operands[0]);
    } else {
      return false;
    }
    return true;
  }
  if (is(node, "mul")) {
    terms.open.insert(terms.open.end(), node.operands.begin(), node.operands.end());
  } else if (is(node, "broadcast")) {
    terms.open.push_back(node.operands[0]);
  } else if (is(node, "neg")) {
    terms.folded = -terms.folded;
    terms.open.push_back(node.operands[0]);
  } else if (is(node, "div") && constant(1) && *constant(1) != 0) {
    terms.folded /= *constant(1);
    terms.open.push_back(node.operands[0]);
  } else if (is(node, "pow") && (constant(1) == std::optional(2.0) || constant(1) == std::optional(3.0))) {
    terms.open.insert(terms.open.end(), static_cast<size_t>(*constant(1)), node.operands[0]);
  } else {
    return false;
  }
  return true;
}

// Whether a node that take_apart leaves as it is cannot be the sum or product: most nodes end here.
bool has_several_terms(const Pattern& pattern, double neutral) {
  const bool has_number = pattern.number.slot < 0 && !is_near(neutral, pattern.number.value, kConstantTolerance);
  return pattern.parts.size() + (has_number ? 1 : 0) > 1;
}

bool comes_apart(const Node& node, Pattern::Kind kind) {
  if (kind == Pattern::sum) return is(node, "add") || is(node, "sub");
  return is(node, "mul") || is(node, "broadcast") || is(node, "neg") || is(node, "div") || is(node, "pow");
}

class Matcher {
 public:
  explicit Matcher(const Graph& graph) : graph_(graph) {}

  bool match(Value v, const Pattern& pattern, Captures& captures) const {
    if (!match_kind(v, pattern, captures)) return false;
    if (pattern.slot < 0) return true;
    Value& kept = captures.values[static_cast<size_t>(pattern.slot)];
    if (!kept) kept = v;
    return kept == v;
  }

 private:
  bool match_kind(Value v, const Pattern& pattern, Captures& captures) const {
    switch (pattern.kind) {
      case Pattern::any:
        return true;
      case Pattern::call:
        return match_call(graph_.node(v), pattern, captures);
      case Pattern::product:
      case Pattern::sum: {
        const double neutral = pattern.kind == Pattern::sum ? 0 : 1;
        if (has_several_terms(pattern, neutral) && !comes_apart(graph_.node(v), pattern.kind)) return false;
        return match_terms(pattern, {{v}, neutral}, pointers(pattern.parts), captures);
      }
      case Pattern::spread: {
        const Node& node = graph_.node(v);
        return match(is(node, "broadcast") ? node.operands[0] : v, pattern.parts[0], captures);
      }
      case Pattern::either:
        return std::ranges::any_of(pattern.parts, [&](const Pattern& part) {
          const Captures before = captures;
          if (match(v, part, captures)) return true;
          captures = before;
          return false;
        });
    }
    return false;
  }

  bool match_call(const Node& node, const Pattern& pattern, Captures& captures) const {
    if (!is(node, pattern.op) || node.operands.size() != pattern.parts.size()) return false;
    const Captures before = captures;
    if (match_operands(node.operands, pattern.parts, captures)) return true;
    captures = before;
    return is_commutative(pattern.op) && match_operands({node.operands[1], node.operands[0]}, pattern.parts, captures);
  }

  bool match_operands(const std::vector<Value>& operands, const std::vector<Pattern>& parts, Captures& captures) const {
    for (size_t i = 0; i < operands.size(); ++i)
      if (!operands[i] || !match(operands[i], parts[i], captures)) return false;
    return true;
  }

  static std::vector<const Pattern*> pointers(const std::vector<Pattern>& parts) {
    std::vector<const Pattern*> result;
    for (const Pattern& part : parts) result.push_back(&part);
    return result;
  }

  // Whether the open terms are the parts that are left, in some order.
  bool match_terms(const Pattern& pattern, Terms terms, const std::vector<const Pattern*>& left,
                   Captures& captures) const {
    for (size_t i = terms.open.size(); i-- > 0;)
      if (const std::optional<double> constant = splat(graph_, terms.open[i])) {
        terms.folded = pattern.kind == Pattern::sum ? terms.folded + *constant : terms.folded * *constant;
        terms.open.erase(terms.open.begin() + static_cast<std::ptrdiff_t>(i));
      }
    if (terms.open.size() > left.size() || terms.depth > kDeepest) return false;
    if (terms.open.empty()) return left.empty() && fits(pattern.number, terms.folded, captures);
    const Value v = terms.open.back();
    terms.open.pop_back();
    const Captures before = captures;
    for (size_t i = 0; i < left.size(); ++i) {
      std::vector<const Pattern*> rest = left;
      rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
      if (match(v, *left[i], captures) && match_terms(pattern, terms, rest, captures)) return true;
      captures = before;
    }
    ++terms.depth;
    return take_apart(graph_, graph_.node(v), pattern.kind, terms) && match_terms(pattern, terms, left, captures);
  }

  const Graph& graph_;
};

}  // namespace

Pattern any(int slot) { return {.kind = Pattern::any, .slot = slot}; }
Pattern call(std::string_view op, std::vector<Pattern> parts) {
  return {.kind = Pattern::call, .op = op, .parts = std::move(parts)};
}
Pattern product(PatternNumber number, std::vector<Pattern> parts) {
  return {.kind = Pattern::product, .number = number, .parts = std::move(parts)};
}
Pattern sum(PatternNumber number, std::vector<Pattern> parts) {
  return {.kind = Pattern::sum, .number = number, .parts = std::move(parts)};
}
Pattern spread(Pattern part) { return {.kind = Pattern::spread, .parts = {std::move(part)}}; }
Pattern either(std::vector<Pattern> parts) { return {.kind = Pattern::either, .parts = std::move(parts)}; }
Pattern kept(int slot, Pattern pattern) {
  pattern.slot = slot;
  return pattern;
}

bool matches(const Graph& graph, Value value, const Pattern& pattern, Captures& captures) {
  return Matcher(graph).match(value, pattern, captures);
}

}  // namespace halfstep
