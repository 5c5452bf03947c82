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

bool fits(const PictureNumber& number, double found, Captures& captures) {
  if (number.slot < 0) return is_near(found, number.value, kConstantTolerance);
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
bool take_apart(const Graph& graph, const Node& node, Picture::Kind kind, Terms& terms) {
  const auto constant = [&](size_t i) { return splat(graph, node.operands[i]); };
  if (kind == Picture::sum) {
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
bool has_several_terms(const Picture& picture, double neutral) {
  const bool has_number = picture.number.slot < 0 && !is_near(neutral, picture.number.value, kConstantTolerance);
  return picture.parts.size() + (has_number ? 1 : 0) > 1;
}

bool comes_apart(const Node& node, Picture::Kind kind) {
  if (kind == Picture::sum) return is(node, "add") || is(node, "sub");
  return is(node, "mul") || is(node, "broadcast") || is(node, "neg") || is(node, "div") || is(node, "pow");
}

class Matcher {
 public:
  explicit Matcher(const Graph& graph) : graph_(graph) {}

  bool match(Value v, const Picture& picture, Captures& captures) const {
    if (!match_kind(v, picture, captures)) return false;
    if (picture.slot < 0) return true;
    Value& kept = captures.values[static_cast<size_t>(picture.slot)];
    if (!kept) kept = v;
    return kept == v;
  }

 private:
  bool match_kind(Value v, const Picture& picture, Captures& captures) const {
    switch (picture.kind) {
      case Picture::any:
        return true;
      case Picture::call:
        return match_call(graph_.node(v), picture, captures);
      case Picture::product:
      case Picture::sum: {
        const double neutral = picture.kind == Picture::sum ? 0 : 1;
        if (has_several_terms(picture, neutral) && !comes_apart(graph_.node(v), picture.kind)) return false;
        return match_terms(picture, {{v}, neutral}, pointers(picture.parts), captures);
      }
      case Picture::spread: {
        const Node& node = graph_.node(v);
        return match(is(node, "broadcast") ? node.operands[0] : v, picture.parts[0], captures);
      }
      case Picture::either:
        return std::ranges::any_of(picture.parts, [&](const Picture& part) {
          const Captures before = captures;
          if (match(v, part, captures)) return true;
          captures = before;
          return false;
        });
    }
    return false;
  }

  bool match_call(const Node& node, const Picture& picture, Captures& captures) const {
    if (!is(node, picture.op) || node.operands.size() != picture.parts.size()) return false;
    const Captures before = captures;
    if (match_operands(node.operands, picture.parts, captures)) return true;
    captures = before;
    return is_commutative(picture.op) && match_operands({node.operands[1], node.operands[0]}, picture.parts, captures);
  }

  bool match_operands(const std::vector<Value>& operands, const std::vector<Picture>& parts, Captures& captures) const {
    for (size_t i = 0; i < operands.size(); ++i)
      if (!operands[i] || !match(operands[i], parts[i], captures)) return false;
    return true;
  }

  static std::vector<const Picture*> pointers(const std::vector<Picture>& parts) {
    std::vector<const Picture*> result;
    for (const Picture& part : parts) result.push_back(&part);
    return result;
  }

  // Whether the open terms are the parts that are left, in some order.
  bool match_terms(const Picture& picture, Terms terms, const std::vector<const Picture*>& left,
                   Captures& captures) const {
    for (size_t i = terms.open.size(); i-- > 0;)
      if (const std::optional<double> constant = splat(graph_, terms.open[i])) {
        terms.folded = picture.kind == Picture::sum ? terms.folded + *constant : terms.folded * *constant;
        terms.open.erase(terms.open.begin() + static_cast<std::ptrdiff_t>(i));
      }
    if (terms.open.size() > left.size() || terms.depth > kDeepest) return false;
    if (terms.open.empty()) return left.empty() && fits(picture.number, terms.folded, captures);
    const Value v = terms.open.back();
    terms.open.pop_back();
    const Captures before = captures;
    for (size_t i = 0; i < left.size(); ++i) {
      std::vector<const Picture*> rest = left;
      rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
      if (match(v, *left[i], captures) && match_terms(picture, terms, rest, captures)) return true;
      captures = before;
    }
    ++terms.depth;
    return take_apart(graph_, graph_.node(v), picture.kind, terms) && match_terms(picture, terms, left, captures);
  }

  const Graph& graph_;
};

}  // namespace

Picture any(int slot) { return {.kind = Picture::any, .slot = slot}; }
Picture call(std::string_view op, std::vector<Picture> parts) {
  return {.kind = Picture::call, .op = op, .parts = std::move(parts)};
}
Picture product(PictureNumber number, std::vector<Picture> parts) {
  return {.kind = Picture::product, .number = number, .parts = std::move(parts)};
}
Picture sum(PictureNumber number, std::vector<Picture> parts) {
  return {.kind = Picture::sum, .number = number, .parts = std::move(parts)};
}
Picture spread(Picture part) { return {.kind = Picture::spread, .parts = {std::move(part)}}; }
Picture either(std::vector<Picture> parts) { return {.kind = Picture::either, .parts = std::move(parts)}; }
Picture kept(int slot, Picture picture) {
  picture.slot = slot;
  return picture;
}

bool matches(const Graph& graph, Value value, const Picture& picture, Captures& captures) {
  return Matcher(graph).match(value, picture, captures);
}

}  // namespace halfstep
