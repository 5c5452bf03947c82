// Einsum: operands are combined from left to right, each pair by one product of matrices.
#include <algorithm>
#include <cctype>
#include <map>
#include <optional>

#include "frontend/import/operators.h"

namespace halfstep {
namespace {

// A letter, or an axis of an ellipsis: -1 for its last, so that ellipses of different ranks are aligned at their ends.
using Label = int;
using Labels = std::vector<Label>;

struct Term {
  Value value;
  Labels labels;  // one an axis, each once
};

bool holds(const Labels& labels, Label label) { return std::find(labels.begin(), labels.end(), label) != labels.end(); }

struct Equation {
  std::vector<std::string> operands;
  std::optional<std::string> result;
};

constexpr char kEllipsis = '.';

Equation read_equation(NodeContext& c) {
  std::string text = c.text("equation", "");
  const auto refuse = [&] {
    c.fail("attribute 'equation' is '" + text + "'; letters, '...', ',' and one '->' expected");
  };
  Equation e{.operands = {""}, .result = {}};
  std::string* term = &e.operands.back();
  for (size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i];
    if (letter == ' ') continue;
    if (std::isalpha(static_cast<unsigned char>(letter))) {
      *term += letter;
    } else if (text.compare(i, 3, "...") == 0 && term->find(kEllipsis) == std::string::npos) {
      *term += kEllipsis, i += 2;
    } else if (text.compare(i, 2, "->") == 0 && !e.result) {
      term = &e.result.emplace(), ++i;
    } else if (letter == ',' && !e.result) {
      term = &e.operands.emplace_back();
    } else {
      refuse();
    }
  }
  return e;
}

Labels with_ellipsis(const std::string& term, size_t ellipsis_rank) {
  Labels labels;
  for (const char letter : term) {
    if (letter != kEllipsis) labels.push_back(letter);
    for (size_t i = ellipsis_rank; letter == kEllipsis && i > 0; --i) labels.push_back(-static_cast<Label>(i));
  }
  return labels;
}

Labels labels_of_operand(NodeContext& c, size_t i, const std::string& term) {
  const size_t rank = c.shape(i).size(),
               letters =
                   static_cast<size_t>(std::count_if(term.begin(), term.end(), [](char l) { return l != kEllipsis; }));
  if (rank < letters || (rank > letters && letters == term.size()))
    c.fail("operand " + std::to_string(i) + " " + to_string(c.shape(i)) + " does not have the axes of its term with " +
           std::to_string(letters) + " letters");
  return with_ellipsis(term, rank - letters);
}

// Without '->': the ellipsis, then the letters that stand once, in alphabetical order.
Labels implicit_result(const std::vector<Labels>& operands) {
  std::map<Label, int> count;
  for (const Labels& labels : operands)
    for (Label l : labels) ++count[l];
  Labels result;
  for (const auto& [label, times] : count)
    if (label < 0 || times == 1) result.push_back(label);
  return result;
}

Shape sizes_of(const std::map<Label, int64_t>& sizes, const Labels& labels) {
  Shape shape;
  for (Label l : labels) shape.push_back(sizes.at(l));
  return shape;
}

int64_t product(const Shape& shape) { return TensorType{DType::u8, shape}.element_count(); }

Term ordered(Builder& b, const Term& t, const Labels& order) {
  Ints permutation;
  for (Label l : order) permutation.push_back(std::find(t.labels.begin(), t.labels.end(), l) - t.labels.begin());
  return {permute(b, t.value, permutation), order};
}

// The axes of a label that stands twice become their diagonal: every (n + 1)th of their n * n elements.
Term with_diagonals(Builder& b, Term t) {
  const auto twice = std::find_if(t.labels.begin(), t.labels.end(),
                                  [&](Label l) { return std::count(t.labels.begin(), t.labels.end(), l) > 1; });
  if (twice == t.labels.end()) return t;
  const Label label = *twice;
  const int64_t first = twice - t.labels.begin(),
                second = std::find(twice + 1, t.labels.end(), label) - t.labels.begin();
  Ints permutation;
  Labels labels;
  for (int64_t i = 0; i < std::ssize(t.labels); ++i)
    if (i != first && i != second) permutation.push_back(i), labels.push_back(t.labels[static_cast<size_t>(i)]);
  permutation.insert(permutation.end(), {first, second});
  labels.push_back(label);
  const Value square = permute(b, t.value, permutation);
  Shape shape = b.shape(square);
  const int64_t n = shape.back();
  shape.pop_back(), shape.back() = n * n;
  Ints starts(shape.size(), 0), steps(shape.size(), 1);
  steps.back() = n + 1;
  return with_diagonals(b, {b.slice(b.reshape(square, shape), starts, shape, steps), labels});
}

// An axis of size 1 that others repeat is dropped: what is left broadcasts by itself.
Term without_repeated(Builder& b, Term t, const std::map<Label, int64_t>& sizes) {
  Labels kept;
  Shape shape;
  for (size_t i = 0; i < t.labels.size(); ++i) {
    const int64_t size = b.shape(t.value)[i];
    if (size == sizes.at(t.labels[i])) kept.push_back(t.labels[i]), shape.push_back(size);
  }
  return {b.reshape(t.value, shape), kept};
}

// Summed over the labels that `needed` refuses.
template <typename Needed>
Term summed(Builder& b, Term t, Needed needed) {
  Ints axes;
  Labels kept;
  Shape shape;
  for (size_t i = 0; i < t.labels.size(); ++i) {
    if (!needed(t.labels[i])) {
      axes.push_back(static_cast<int64_t>(i));
    } else {
      kept.push_back(t.labels[i]), shape.push_back(b.shape(t.value)[i]);
    }
  }
  if (axes.empty()) return t;
  return {b.reshape(b.reduce("reduce_sum", t.value, axes), shape), kept};
}

Labels joined(Labels labels, const Labels& more) {
  labels.insert(labels.end(), more.begin(), more.end());
  return labels;
}

// Elements of t at the axes `labels`, 1 where it has none.
Value spread(Builder& b, const Term& t, const Labels& labels) {
  Labels order;
  Shape shape;
  for (Label l : labels)
    if (holds(t.labels, l)) order.push_back(l);
  const Value v = ordered(b, t, order).value;
  const Shape sizes = b.shape(v);
  size_t next = 0;
  for (Label l : labels) shape.push_back(holds(t.labels, l) ? sizes[next++] : 1);
  return b.reshape(v, shape);
}

// The product of x and y, summed over what both have and `needed` refuses.
template <typename Needed>
Term contracted(Builder& b, Term x, Term y, const std::map<Label, int64_t>& sizes, Needed needed) {
  x = summed(b, x, [&](Label l) { return needed(l) || holds(y.labels, l); });
  y = summed(b, y, [&](Label l) { return needed(l) || holds(x.labels, l); });
  Labels batch, inner, rows, columns;
  for (Label l : x.labels) (!holds(y.labels, l) ? rows : needed(l) ? batch : inner).push_back(l);
  for (Label l : y.labels)
    if (!holds(x.labels, l)) columns.push_back(l);
  const Labels result = joined(joined(batch, rows), columns);
  if (inner.empty() || !is_floating(b.dtype(x.value))) {
    const Labels all = joined(result, inner);
    return summed(b, {b.mul(spread(b, x, all), spread(b, y, all)), all}, needed);
  }
  const int64_t m = product(sizes_of(sizes, rows)), k = product(sizes_of(sizes, inner)),
                n = product(sizes_of(sizes, columns));
  Shape left{m, k}, right{k, n};
  if (!batch.empty()) {
    const int64_t count = product(sizes_of(sizes, batch));
    left.insert(left.begin(), count), right.insert(right.begin(), count);
  }
  const Value a = b.reshape(ordered(b, x, joined(joined(batch, rows), inner)).value, left);
  const Value c = b.reshape(ordered(b, y, joined(joined(batch, inner), columns)).value, right);
  return {b.reshape(b.matmul(a, c), sizes_of(sizes, result)), result};
}

// The size of every label. Axes of an ellipsis broadcast, those of a letter are equal.
std::map<Label, int64_t> label_sizes(NodeContext& c, const std::vector<Labels>& operands) {
  std::map<Label, int64_t> sizes;
  for (size_t i = 0; i < operands.size(); ++i) {
    for (size_t axis = 0; axis < operands[i].size(); ++axis) {
      const Label label = operands[i][axis];
      const int64_t size = c.shape(i)[axis];
      int64_t& joint = sizes.emplace(label, size).first->second;
      if (joint == size) continue;
      if (label >= 0 || (joint != 1 && size != 1))
        c.fail((label >= 0 ? "label '" + std::string(1, static_cast<char>(label)) + "'"
                           : std::string("an axis of '...'")) +
               " has sizes " + std::to_string(joint) + " and " + std::to_string(size));
      if (joint == 1) joint = size;
    }
  }
  return sizes;
}

// Axes of one letter are one dimension, whatever sizes the exporter saw.
void align_letters(NodeContext& c, const std::vector<Labels>& operands) {
  std::map<Label, std::vector<std::optional<size_t>>> axes;
  for (size_t i = 0; i < operands.size(); ++i)
    for (size_t axis = 0; axis < operands[i].size(); ++axis)
      if (operands[i][axis] >= 0) axes.try_emplace(operands[i][axis], operands.size()).first->second[i] = axis;
  for (const auto& [label, axis_of_operand] : axes) c.align(axis_of_operand);
}

std::vector<Value> import_einsum(NodeContext& c) {
  Builder& b = c.b;
  const Equation equation = read_equation(c);
  if (equation.operands.size() != c.operand_count())
    c.fail("attribute 'equation' has " + std::to_string(equation.operands.size()) + " terms for " +
           std::to_string(c.operand_count()) + " operands");
  std::vector<Labels> operands;
  size_t ellipsis_rank = 0;
  for (size_t i = 0; i < c.operand_count(); ++i) {
    operands.push_back(labels_of_operand(c, i, equation.operands[i]));
    ellipsis_rank = std::max(ellipsis_rank, static_cast<size_t>(std::count_if(operands[i].begin(), operands[i].end(),
                                                                              [](Label l) { return l < 0; })));
  }
  align_letters(c, operands);
  const std::map<Label, int64_t> sizes = label_sizes(c, operands);
  const Labels result = equation.result ? with_ellipsis(*equation.result, ellipsis_rank) : implicit_result(operands);
  for (Label l : result)
    if (!sizes.contains(l) || std::count(result.begin(), result.end(), l) > 1)
      c.fail("label '" + std::string(1, static_cast<char>(l)) + "' of the result must stand in an operand, and once");

  std::vector<Term> terms;
  for (size_t i = 0; i < operands.size(); ++i)
    terms.push_back(without_repeated(b, with_diagonals(b, {c.operand(i), operands[i]}), sizes));
  Term all = terms[0];
  for (size_t i = 1; i < terms.size(); ++i)
    all = contracted(b, all, terms[i], sizes, [&](Label l) {
      return holds(result, l) || std::any_of(terms.begin() + static_cast<std::ptrdiff_t>(i) + 1, terms.end(),
                                             [&](const Term& t) { return holds(t.labels, l); });
    });
  return {ordered(b, summed(b, all, [&](Label l) { return holds(result, l); }), result).value};
}

const std::vector<OnnxOperator> kRows{
    {"Einsum", {12}, 1, kVariadic, import_einsum, "operands are combined from left to right"},
};

}  // namespace

std::span<const OnnxOperator> einsum_operators() { return kRows; }

}  // namespace halfstep
