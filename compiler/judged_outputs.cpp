#include "compiler/judged_outputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/losses.h"
#include "ir/op.h"

namespace halfstep {
namespace {

const NamedValue& output_of(const Graph& model, const OutputLoss& loss) {
  if (loss.output.empty() && model.outputs().size() > 1) throw Error("loss: name the output");
  std::vector<std::string> names;
  for (const NamedValue& output : model.outputs()) {
    if (loss.output.empty() || output.name == Name(loss.output)) return output;
    names.push_back(output.name.text);
  }
  const std::string near = nearest(loss.output, names);
  throw Error(fmt::format("output: the model has none named '{}'{}; its outputs are: {}", loss.output,
                          near.empty() ? "" : ", did you mean '" + near + "'?", fmt::join(names, ", ")));
}

// The node that computes the numbers: what only moves or converts them is passed.
const Node& behind_movement(const Graph& model, Value value) {
  for (;;) {
    const Node& node = model.node(value);
    const std::string_view op = node.op->name;
    if (op != "cast" && op != "reshape" && op != "transpose" && op != "slice") return node;
    value = node.operands[0];
  }
}

// 1 - p and p, where p is a sigmoid.
bool is_pair_of_sigmoid(const Graph& model, const Node& node) {
  return node.op->name == "concat" && std::ranges::any_of(node.operands, [&](Value part) {
           return behind_movement(model, part).op->name == "sigmoid";
         });
}

OutputMeaning meaning_of(const LossFunction& loss) {
  switch (loss.labels) {
    case LossFunction::classes:
      return loss.scores == LossFunction::class_log_likelihood ? OutputMeaning::log_probabilities
                                                               : OutputMeaning::logits;
    case LossFunction::yes_or_no:
      return OutputMeaning::label_logits;
    default:
      return OutputMeaning::values;
  }
}

JudgedOutput judged(const Graph& model, const OutputLoss& loss, const std::string& name) {
  const NamedValue& output = output_of(model, loss);
  JudgedOutput judged{.loss = name, .output = output.name.text, .labels = label_input(loss), .ignored = {}};
  LossOptions alone;
  static_cast<OutputLoss&>(alone) = loss;
  const std::optional<int64_t> axis = axis_of_classes(model, alone);
  const LossFunction& function = function_of(loss);
  judged.meaning = meaning_of_output(model, output.value, meaning_of(function));
  // Of [N, H, W] without an axis each number is a label of its own.
  const int64_t rank = std::ssize(model.type(output.value).shape);
  const int64_t chosen = loss.class_axis.value_or(rank == 3 ? rank : 1),
                from_front = chosen < 0 ? chosen + rank : chosen;
  if (loss.class_axis && function.labels == LossFunction::yes_or_no && (from_front < 1 || from_front >= rank))
    throw Error(
        fmt::format("loss: class_axis {} of output '{}', which is {}: an axis from 1 to {}, or from -1 to {} expected",
                    chosen, output.name.text, to_string(model.type(output.value)), rank - 1, 1 - rank));
  judged.class_axis = axis.value_or(std::max<int64_t>(1, from_front));
  judged.ignored = loss.ignore_index;
  judged.squared = function.name == "mean_squared_error";
  judged.smoothed = std::ranges::any_of(function.keys, [&](std::string_view key) {
    return loss.parameters.contains(key) &&
           (!find_loss_key(key)->value || value_of(loss, key) != *find_loss_key(key)->value);
  });
  return judged;
}

}  // namespace

OutputMeaning meaning_of_output(const Graph& model, Value output, OutputMeaning by_loss) {
  const Node& node = behind_movement(model, output);
  const std::string_view op = node.op->name;
  if (by_loss == OutputMeaning::label_logits && op == "sigmoid") return OutputMeaning::label_probabilities;
  if (by_loss != OutputMeaning::logits) return by_loss;
  if (op == "softmax" || op == "sigmoid" || is_pair_of_sigmoid(model, node)) return OutputMeaning::probabilities;
  return op == "log_softmax" ? OutputMeaning::log_probabilities : by_loss;
}

std::vector<JudgedOutput> judged_outputs(const Graph& model, const LossOptions& loss) {
  std::vector<JudgedOutput> all;
  if (loss.terms.empty()) {
    if (!label_input(loss).empty()) all.push_back(judged(model, loss, ""));
    return all;
  }
  for (const LossTerm& term : named_terms(model, loss))
    if (!label_input(term.loss).empty()) all.push_back(judged(model, term.loss, term.name));
  return all;
}

std::vector<JudgedOutput> judged_where_known(const Graph& model, const LossOptions& loss) {
  if (!loss.output.empty()) output_of(model, loss);  // a name that is none is no matter of the loss
  try {
    return judged_outputs(model, loss);
  } catch (const Error&) {
    return {};
  }
}

}  // namespace halfstep
