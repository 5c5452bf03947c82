#include "frontend/onnx/loss_formulas.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/error.h"

namespace halfstep {
namespace {

class FormulaText final : public LossContext {
 public:
  FormulaText(const OutputLoss& loss, const FormulaNumbers& numbers) : loss_(loss), numbers_(numbers) {}

  Term output() override { return term("x"); }
  Term target() override { return term("y"); }
  double parameter(std::string_view name) const override { return value_of(loss_, name); }
  bool given(std::string_view name) const override { return loss_.parameters.contains(name); }
  Term by_class(std::string_view name) override {
    return term(formula_list(loss_.parameters.find(name)->second, numbers_));
  }
  Term constant(double value) override { return term(formula_number(value)); }
  Term apply(std::string_view op, std::initializer_list<Term> operands) override {
    std::vector<std::string> texts;
    for (const Term& operand : operands) texts.push_back(text(operand));
    return term(formula_of(op, std::move(texts)));
  }
  const std::string& text(Term term) const { return texts_[static_cast<size_t>(term.id())]; }

 private:
  Term term(std::string text) {
    texts_.push_back(std::move(text));
    return {*this, static_cast<int32_t>(texts_.size()) - 1};
  }

  const OutputLoss& loss_;
  const FormulaNumbers& numbers_;
  std::vector<std::string> texts_;
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

// Of a loss that is a function of the distance alone, the text with the other difference; else empty.
std::string with_other_difference(std::string text) {
  std::string rest = text;
  replace_all(rest, "abs(sub(x,y))", "");
  replace_all(rest, "mul(sub(x,y),sub(x,y))", "");
  if (rest.find("(x,y)") != std::string::npos) return "";
  replace_all(text, "sub(x,y)", "sub(y,x)");
  return text;
}

// Numbers that a parameter may be: those of the file, and what formulas take the negative of.
FormulaNumbers candidates_for(const LossKey& key, const FormulaNumbers& lists) {
  std::set<std::vector<double>> found;
  for (const std::vector<double>& list : lists) {
    if (key.kind != LossKey::list && list.size() != 1) continue;
    const auto in_range = [&](double v) { return v >= key.least && v <= key.most; };
    if (std::ranges::all_of(list, in_range)) found.insert(list);
    if (key.kind != LossKey::list && in_range(-list.front())) found.insert({-list.front()});
  }
  if (key.kind == LossKey::yes_or_no) found = {{1}};
  return {found.begin(), found.end()};
}

// Tries the values of `keys` from the one at `at` on.
bool seek(OutputLoss& loss, const LossFunction& row, size_t at, const std::string& text, const FormulaNumbers& lists) {
  if (at == row.keys.size()) {
    const std::string formula = formula_of(loss, lists);
    return formula == text || with_other_difference(formula) == text;
  }
  if (seek(loss, row, at + 1, text, lists)) return true;
  const LossKey& key = *find_loss_key(row.keys[at]);
  if (key.kind == LossKey::whole) return false;  // axes and ignored labels are in no formula
  for (const std::vector<double>& values : candidates_for(key, lists)) {
    loss.parameters[std::string(key.name)] = values;
    if (seek(loss, row, at + 1, text, lists)) return true;
  }
  loss.parameters.erase(std::string(key.name));
  return false;
}

}  // namespace

std::string formula_number(double value) { return fmt::format("{}", static_cast<float>(value)); }

std::string formula_list(const std::vector<double>& values, const FormulaNumbers& numbers) {
  if (values.size() == 1) return formula_number(values.front());
  return fmt::format("[{}]", std::ranges::find(numbers, values) - numbers.begin());
}

std::string formula_of(std::string_view op, std::vector<std::string> operands) {
  if (op == "add" || op == "mul" || op == "min" || op == "max") std::ranges::sort(operands);
  std::string text = std::string(op) + "(";
  for (size_t i = 0; i < operands.size(); ++i) text += (i ? "," : "") + operands[i];
  return text + ")";
}

std::string formula_of(const OutputLoss& loss, const FormulaNumbers& numbers) {
  FormulaText text(loss, numbers);
  return text.text(function_of(loss).element(text));
}

std::optional<OutputLoss> loss_of_formula(const std::string& text, const FormulaNumbers& numbers,
                                          LossFunction::Sample sample) {
  constexpr size_t kMostNumbers = 6;
  if (numbers.size() > kMostNumbers) return std::nullopt;
  for (const LossFunction& row : loss_functions()) {
    if (row.element == nullptr || row.sample != sample) continue;
    OutputLoss loss{.kind = std::string(row.name)};
    if (seek(loss, row, 0, text, numbers)) return loss;
  }
  return std::nullopt;
}

}  // namespace halfstep
