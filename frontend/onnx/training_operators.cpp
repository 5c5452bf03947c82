#include "frontend/onnx/training_operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "frontend/onnx/loss_formulas.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {
namespace {

using onnx::AttributeProto;
using onnx::GraphProto;
using onnx::NodeProto;
using onnx::TensorProto;

// nullptr: there is none. Error if it is of another type.
const AttributeProto* find_attribute(const NodeProto& node, std::string_view name, AttributeProto::AttributeType type) {
  for (const AttributeProto& attribute : node.attribute()) {
    if (attribute.name() != name) continue;
    if (attribute.type() != type)
      throw Error(fmt::format("attribute {}: {} expected, found {}", name, AttributeProto::AttributeType_Name(type),
                              AttributeProto::AttributeType_Name(attribute.type())));
    return &attribute;
  }
  return nullptr;
}

float number(const NodeProto& node, std::string_view name, float otherwise) {
  const AttributeProto* found = find_attribute(node, name, AttributeProto::FLOAT);
  if (found && !std::isfinite(found->f())) throw Error(fmt::format("{}: a finite number expected", name));
  return found ? found->f() : otherwise;
}

std::string word(const NodeProto& node, std::string_view name, const std::string& otherwise = "") {
  const AttributeProto* found = find_attribute(node, name, AttributeProto::STRING);
  return found ? found->s() : otherwise;
}

bool is(const NodeProto& node, std::string_view op) {
  return node.op_type() == op && canonical_domain(node.domain()).empty();
}

// One optimizer's operator: how many tensors it has for each weight (gradient and states included), and what it is
// here.
struct OptimizerForm {
  std::string_view op;
  int tensors;  // weight, gradient, states
  void (*read)(const NodeProto& node, TrainingOperators& found);
};

std::string shortest(float value) { return fmt::format("{}", value); }

void read_momentum(const NodeProto& node, TrainingOperators& found) {
  const float alpha = number(node, "alpha", 0), beta = number(node, "beta", 1);
  const std::string mode = word(node, "mode");
  if (mode != "standard" && mode != "nesterov")
    throw Error(fmt::format("mode: standard or nesterov expected, found '{}'", mode));
  if (beta <= 0 || beta > 1) throw Error(fmt::format("beta: more than 0 and at most 1 expected, found {}", beta));
  if (alpha == 0 && beta != 1) throw Error(fmt::format("beta: 1 expected beside alpha 0, found {}", beta));
  found.optimizer = "sgd";
  found.parameters = {{"momentum", shortest(alpha)},
                      {"dampening", fmt::format("{}", 1 - std::stod(shortest(beta)))},
                      {"nesterov", mode == "nesterov" ? "true" : "false"}};
}

void read_adagrad(const NodeProto& node, TrainingOperators& found) {
  found.optimizer = "adagrad";
  found.parameters = {{"rate_decay", shortest(number(node, "decay_factor", 0))},
                      {"epsilon", shortest(number(node, "epsilon", 1e-6f))}};
}

void read_adam(const NodeProto& node, TrainingOperators& found) {
  if (const float after = number(node, "norm_coefficient_post", 0); after != 0)
    throw Error(fmt::format("norm_coefficient_post: 0 expected, found {}; norm_coefficient is read", after));
  found.optimizer = "onnx_adam";
  found.parameters = {{"beta1", shortest(number(node, "alpha", 0.9f))},
                      {"beta2", shortest(number(node, "beta", 0.999f))},
                      {"epsilon", shortest(number(node, "epsilon", 0))}};
}

constexpr OptimizerForm kForms[] = {
    {"Momentum", 3, read_momentum}, {"Adagrad", 3, read_adagrad}, {"Adam", 4, read_adam}};

class Reader {
 public:
  explicit Reader(const OnnxModel& model)
      : model_(model), graph_(model.proto().graph()), algorithm_(model.proto().training_info(0).algorithm()) {
    for (int i = 0; i < algorithm_.node_size(); ++i)
      for (const std::string& result : algorithm_.node(i).output()) makers_[result] = i;
    for (int i = 0; i < graph_.node_size(); ++i)
      for (const std::string& result : graph_.node(i).output()) model_makers_[result] = i;
    for (const auto& output : graph_.output()) outputs_.insert(output.name());
    for (const GraphProto* graph : {&algorithm_, &graph_})  // the algorithm's own before the model's
      for (const TensorProto& tensor : graph->initializer()) initializers_.try_emplace(tensor.name(), &tensor);
    for (const TensorProto& tensor : graph_.initializer()) weights_.insert(tensor.name());
    for (const auto& binding : model.proto().training_info(0).update_binding())
      if (!bindings_.emplace(binding.key(), binding.value()).second)
        problems_.add(fmt::format("'{}' is bound twice", binding.key()));
  }

  TrainingOperators read() {
    if (model_.proto().training_info_size() > 1)
      problems_.add(fmt::format("one algorithm expected, found {}", model_.proto().training_info_size()));
    for (int i = 0; i < algorithm_.node_size(); ++i) {
      const NodeProto& node = algorithm_.node(i);
      if (node.domain() != kTrainingDomain) continue;
      if (node.op_type() == "Gradient")
        in(i, [&] { read_gradient(node); });
      else
        in(i, [&] { read_optimizer(node); });
    }
    if (gradient_ == nullptr)
      problems_.add(fmt::format("no operator Gradient of {}: it is written out, or of another kind", kTrainingDomain));
    else if (optimizers_.empty())
      problems_.add(fmt::format("no operator Adagrad, Adam or Momentum of {}", kTrainingDomain));
    for (const auto& [state, value] : bindings_)
      if (!explained_.contains(state))
        problems_.add(fmt::format("update binding '{}': neither a trained weight nor a state of the optimizer", state));
    for (const std::string& weight : found_.trained)
      if (!decays_.contains(weight))
        problems_.add(fmt::format("the gradient of '{}' is taken, but no update binding gives it a value", weight));
    if (!problems_.empty()) {
      std::vector<std::string> all;
      for (const std::string& problem : problems_.messages()) all.push_back(place() + problem);
      throw Error(all);
    }
    settle_decay();
    return found_;
  }

 private:
  std::string place() const { return fmt::format("model '{}', its training step: ", model_.name()); }

  template <typename Body>
  void in(int node, const Body& body) try {
    body();
  } catch (const Error& error) {
    problems_.add(fmt::format("node {}: {}", describe(algorithm_.node(node), node), error.what()));
  }

  const NodeProto* maker(const std::string& value) const {
    const auto found = makers_.find(value);
    return found == makers_.end() ? nullptr : &algorithm_.node(found->second);
  }
  const TensorProto* initializer(const std::string& name) const {
    const auto found = initializers_.find(name);
    return found == initializers_.end() ? nullptr : found->second;
  }
  std::optional<double> constant(const std::string& name) const {
    const TensorProto* tensor = initializer(name);
    if (!tensor) {
      const NodeProto* node = maker(name);
      const AttributeProto* value =
          node && is(*node, "Constant") ? find_attribute(*node, "value", AttributeProto::TENSOR) : nullptr;
      tensor = value && value->has_t() ? &value->t() : nullptr;
    }
    if (!tensor || type_of(*tensor).element_count() != 1) return std::nullopt;
    return model_.reader().read(*tensor).at(0);
  }

  void read_gradient(const NodeProto& node) {
    if (gradient_) throw Error("one Gradient expected, found another");
    gradient_ = &node;
    const AttributeProto* xs = find_attribute(node, "xs", AttributeProto::STRINGS);
    const AttributeProto* zs = find_attribute(node, "zs", AttributeProto::STRINGS);
    std::vector<std::string> named;
    for (const AttributeProto* list : {xs, zs})
      if (list) named.insert(named.end(), list->strings().begin(), list->strings().end());
    if (!xs || xs->strings_size() == 0) throw Error("attribute xs names no weight");
    for (int i = 0; i < std::max(static_cast<int>(named.size()), node.input_size()); ++i)
      if (i >= static_cast<int>(named.size()) || operand_name(node, i) != named[static_cast<size_t>(i)])
        throw Error(fmt::format("operand {}: the value that xs and zs name there expected, found '{}'", i,
                                operand_name(node, i)));
    for (int i = 0; i < xs->strings_size(); ++i) {
      const std::string& weight = xs->strings(i);
      if (!weights_.contains(weight))
        problems_.add(fmt::format("gradient of '{}': it is no initializer of the model", weight));
      if (i < node.output_size()) gradients_[node.output(i)] = weight;
      found_.trained.push_back(weight);
    }
    read_loss(word(node, "y"));
  }

  void read_loss(const std::string& loss) {
    const NodeProto* node = maker(loss);
    if (!node) {
      take_output(loss, "from_graph");
    } else if (is(*node, "SoftmaxCrossEntropyLoss") || is(*node, "NegativeLogLikelihoodLoss")) {
      read_cross_entropy(*node);
    } else if (is(*node, "ReduceMean")) {
      read_mean(*node);
    } else {
      throw Error(fmt::format(
          "the loss '{}' is made by {}: SoftmaxCrossEntropyLoss, NegativeLogLikelihoodLoss of a LogSoftmax, "
          "a mean of a loss's formula, or an output of the model expected",
          loss, operator_name(*node)));
    }
  }

  void read_cross_entropy(const NodeProto& node) {
    if (const std::string weights = operand_name(node, 2); !weights.empty()) read_class_weights(weights);
    if (const std::string reduction = word(node, "reduction", "mean"); reduction != "mean")
      throw Error(fmt::format("reduction of the loss: mean expected, found '{}'", reduction));
    if (const AttributeProto* ignored = find_attribute(node, "ignore_index", AttributeProto::INT))
      found_.ignore_index = ignored->i();
    expect_input(operand_name(node, 1), "labels");
    found_.class_axis = 1;
    std::string scores = operand_name(node, 0), loss = "softmax_cross_entropy";
    if (is(node, "NegativeLogLikelihoodLoss")) {
      const NodeProto* logarithm = maker(scores);
      const AttributeProto* axis = logarithm ? find_attribute(*logarithm, "axis", AttributeProto::INT) : nullptr;
      if (logarithm && is(*logarithm, "LogSoftmax")) {
        if (!axis || axis->i() != 1)
          throw Error("NegativeLogLikelihoodLoss: of a LogSoftmax over axis 1, or of an output of the model expected");
        scores = operand_name(*logarithm, 0);
      } else {
        loss = "nll";
      }
    }
    if (const NodeProto* transpose = maker(scores); transpose && is(*transpose, "Transpose")) {
      const AttributeProto* order = find_attribute(*transpose, "perm", AttributeProto::INTS);
      if (!order || order->ints_size() < 2) throw Error("the Transpose before the loss names no order");
      found_.class_axis = order->ints(1);
      int64_t next = 0;
      for (int i = 0; i < order->ints_size(); ++i) {
        if (i == 1) continue;
        next += next == *found_.class_axis;
        if (order->ints(i) != next++) throw Error("the Transpose before the loss moves more than the classes");
      }
      scores = operand_name(*transpose, 0);
    }
    if (loss != "nll") refuse_probabilities(scores);
    take_output(scores, loss);
  }

  void read_class_weights(const std::string& name) {
    const TensorProto* tensor = initializer(name);
    if (!tensor || type_of(*tensor).shape.size() != 1)
      throw Error(fmt::format("weights of the classes in the loss, '{}': an initializer of one axis expected", name));
    const Tensor weights = model_.reader().read(*tensor);
    for (int64_t i = 0; i < weights.type.element_count(); ++i)
      found_.loss_parameters["class_weights"].push_back(shortest(static_cast<float>(weights.at(i))));
  }

  // Training takes the logits behind such an output, where the file takes a softmax of a softmax.
  void refuse_probabilities(const std::string& scores) {
    static const std::set<std::string> kSameValues{"Identity", "Cast",    "Reshape",   "Flatten",
                                                   "Squeeze",  "Dropout", "Unsqueeze", "Transpose"};
    std::string value = scores;
    std::set<std::string> seen;  // of a file whose nodes read each other
    for (auto made = model_makers_.find(value); made != model_makers_.end() && seen.insert(value).second;
         made = model_makers_.find(value)) {
      const NodeProto& node = graph_.node(made->second);
      if (node.op_type() == "Softmax" || node.op_type() == "Sigmoid")
        throw Error(fmt::format("the loss takes a softmax of '{}', which is a {} already: give it the logits", scores,
                                node.op_type()));
      if (!kSameValues.contains(node.op_type())) return;
      value = operand_name(node, 0);
    }
  }

  // Of all that `node` reduces, or of all axes but the first. How many axes.
  size_t expect_axes(const NodeProto& node, bool all) const {
    const AttributeProto* keep = find_attribute(node, "keepdims", AttributeProto::INT);
    const AttributeProto* given = find_attribute(node, "axes", AttributeProto::INTS);
    std::vector<int64_t> axes;
    if (given) axes.assign(given->ints().begin(), given->ints().end());
    if (const std::string name = operand_name(node, 1); !name.empty()) {
      const TensorProto* tensor = initializer(name);
      if (!tensor) throw Error(fmt::format("the axes of {}: an initializer expected", operator_name(node)));
      const Tensor values = model_.reader().read(*tensor);
      for (int64_t i = 0; i < values.type.element_count(); ++i) axes.push_back(static_cast<int64_t>(values.at(i)));
    }
    bool fits = keep && keep->i() == 0 && axes.empty() == all;
    for (size_t i = 0; i < axes.size(); ++i) fits &= axes[i] == static_cast<int64_t>(i) + 1;
    if (!fits)
      throw Error(fmt::format("{} of the loss: of all axes{}, with keepdims 0, expected", operator_name(node),
                              all ? "" : " but the first"));
    return axes.size();
  }
  // That a sum over this many axes behind the first is of whole samples of `output`.
  void expect_samples(const std::string& output, size_t axes) const {
    for (const onnx::ValueInfoProto& value : graph_.output())
      if (value.name() == output && value.type().tensor_type().has_shape() &&
          value.type().tensor_type().shape().dim_size() == static_cast<int>(axes) + 1)
        return;
    throw Error(
        fmt::format("ReduceSum of the loss: of all axes of '{}' but the first, as the file has its shape, expected; "
                    "found {} axes",
                    output, axes));
  }

  // The mean of an output that is the loss; or of a loss of each element, or of its sum over a sample.
  void read_mean(const NodeProto& node) {
    expect_axes(node, true);
    std::string elements = operand_name(node, 0);
    const NodeProto* made = maker(elements);
    if (!made) return take_output(elements, "from_graph");
    LossFunction::Sample sample = LossFunction::mean;
    size_t summed = 0;
    if (is(*made, "ReduceSum")) {
      summed = expect_axes(*made, false);
      sample = LossFunction::sum, elements = operand_name(*made, 0);
    }
    Elements found;
    const std::string text = formula(elements, found);
    const std::optional<OutputLoss> loss = loss_of_formula(text, found.numbers, sample);
    if (!loss || found.output.empty() || found.target.empty())
      throw Error(fmt::format("the loss is a mean of {}, which is the formula of no loss", text));
    if (find_loss(loss->kind)->scores == LossFunction::logits) refuse_probabilities(found.output);
    const bool targets = find_loss(loss->kind)->labels == LossFunction::targets;
    expect_input(found.target, targets ? "targets" : "labels");
    if (sample == LossFunction::sum) expect_samples(found.output, summed);
    take_output(found.output, loss->kind);
    for (const auto& [key, values] : loss->parameters)
      for (const double value : values) found_.loss_parameters[key].push_back(fmt::format("{}", value));
    found_.class_axis = found.class_axis;
  }

  // What a formula is of, and the numbers in it.
  struct Elements {
    std::string output, target;
    FormulaNumbers numbers;
    std::optional<int64_t> class_axis;  // from the end, where some are of classes
    size_t length = 0;
  };
  std::string formula(const std::string& value, Elements& found) const {
    struct Form {
      std::string_view op, name;
    };
    static constexpr Form kForms[] = {{"Add", "add"},   {"Sub", "sub"}, {"Mul", "mul"},           {"Abs", "abs"},
                                      {"Exp", "exp"},   {"Log", "log"}, {"Softplus", "softplus"}, {"Neg", "neg"},
                                      {"Less", "less"}, {"Min", "min"}, {"Where", "select"}};
    if ((found.length += 4) > kLongestFormula) throw Error("the loss is a longer formula than any that is known");
    if (outputs_.contains(value)) return take_leaf(found.output, value, "x");
    if (is_input(value)) return take_leaf(found.target, value, "y");
    if (const std::optional<std::vector<double>> numbers = numbers_of(value, found)) {
      if (std::ranges::find(found.numbers, *numbers) == found.numbers.end()) found.numbers.push_back(*numbers);
      return formula_list(*numbers, found.numbers);
    }
    const NodeProto* node = maker(value);
    if (!node) throw Error(fmt::format("the loss reads '{}', which is no output of the model", value));
    const auto of = [&](int operand) { return formula(operand_name(*node, operand), found); };
    if (is(*node, "Pow") && constant(operand_name(*node, 1)) == 2.0) return formula_of("mul", {of(0), of(0)});
    const auto* const form = std::ranges::find_if(kForms, [&](const Form& f) { return is(*node, f.op); });
    if (form == std::end(kForms))
      throw Error(fmt::format("the loss is a mean of {}: a formula of numbers expected", operator_name(*node)));
    std::vector<std::string> operands;
    for (int i = 0; i < node->input_size(); ++i) operands.push_back(of(i));
    return formula_of(form->name, std::move(operands));
  }
  static std::string take_leaf(std::string& known, const std::string& name, const char* text) {
    if (!known.empty() && known != name)
      throw Error(fmt::format("the loss reads '{}' beside '{}': one output and one target expected", name, known));
    known = name;
    return text;
  }
  // Of a constant: one number, or one for each class, [C, 1, ...].
  std::optional<std::vector<double>> numbers_of(const std::string& value, Elements& found) const {
    if (const std::optional<double> one = constant(value))
      return std::vector{std::stod(shortest(static_cast<float>(*one)))};
    const TensorProto* tensor = initializer(value);
    if (!tensor) return std::nullopt;
    const Shape shape = type_of(*tensor).shape;
    if (shape.empty() || type_of(*tensor).element_count() != shape.front() || shape.front() > kMostClasses)
      throw Error(fmt::format("'{}' in the loss: one number, or one for each class expected", value));
    const Tensor numbers = model_.reader().read(*tensor);
    std::vector<double> list;
    for (int64_t i = 0; i < numbers.type.element_count(); ++i)
      list.push_back(std::stod(shortest(static_cast<float>(numbers.at(i)))));
    found.class_axis = -static_cast<int64_t>(shape.size());
    return list;
  }
  static constexpr int64_t kMostClasses = 20000;

  bool is_input(const std::string& name) const {
    return std::ranges::any_of(algorithm_.input(), [&](const auto& input) { return input.name() == name; });
  }
  void expect_input(const std::string& name, std::string_view what) const {
    if (!is_input(name))
      throw Error(fmt::format("the {} of the loss, '{}', are no input of the training step", what, name));
  }
  void take_output(const std::string& name, const std::string& loss) {
    if (!outputs_.contains(name))
      throw Error(fmt::format("the loss reads '{}', which is no output of the model", name));
    found_.loss = loss, found_.output = name;
  }

  void read_optimizer(const NodeProto& node) {
    const auto form = std::ranges::find(kForms, node.op_type(), &OptimizerForm::op);
    if (form == std::end(kForms)) throw Error("Gradient, Adagrad, Adam or Momentum expected");
    if (optimizers_.empty()) {
      form->read(node, found_);
      read_rate(node);
      read_count(node, form->op);
    } else {
      TrainingOperators other;
      form->read(node, other);
      const NodeProto& first = *optimizers_.front();
      other.parameters.merge(std::map(found_.parameters));  // first_count
      if (other.optimizer != found_.optimizer || other.parameters != found_.parameters ||
          operand_name(node, 0) != operand_name(first, 0) || operand_name(node, 1) != operand_name(first, 1))
        throw Error("it differs from the optimizer before in more than norm_coefficient");
    }
    optimizers_.push_back(&node);
    read_tensors(node, form->tensors);
  }

  void read_rate(const NodeProto& node) {
    const std::string rate = operand_name(node, 0);
    if (const std::optional<double> value = constant(rate)) {
      found_.learning_rate = shortest(static_cast<float>(*value));
      explained_.insert(rate);
      if (bindings_.contains(rate)) throw Error(fmt::format("the rate '{}' changes: a schedule is the run's", rate));
    } else {
      expect_input(rate, "rate");
    }
  }

  // What counts updates: from 0, or 1 for Adam, by 1 a step.
  void read_count(const NodeProto& node, std::string_view op) {
    const std::string count = operand_name(node, 1);
    const bool matters = op == "Adam" || (op == "Momentum" && found_.parameters.at("dampening") != "0") ||
                         (op == "Adagrad" && found_.parameters.at("rate_decay") != "0");
    explained_.insert(count);
    if (!matters) return;
    const std::optional<double> first = constant(count);
    if (!first || (*first != 0 && !(op == "Adam" && *first == 1)))
      throw Error(fmt::format("the count of updates, '{}': an initializer of {} expected", count,
                              op == "Adam" ? "0 or 1" : "0"));
    const auto bound = bindings_.find(count);
    const NodeProto* add = bound == bindings_.end() ? nullptr : maker(bound->second);
    const bool counts = add && is(*add, "Add") &&
                        ((operand_name(*add, 0) == count && constant(operand_name(*add, 1)) == 1.0) ||
                         (operand_name(*add, 1) == count && constant(operand_name(*add, 0)) == 1.0));
    if (!counts) throw Error(fmt::format("the count of updates, '{}': bound to itself plus 1 expected", count));
    if (op == "Adam") found_.parameters["first_count"] = *first == 1 ? "1" : "0";
  }

  void read_tensors(const NodeProto& node, int tensors) {
    const int count = (node.input_size() - 2) / tensors;
    if (count < 1 || node.input_size() != 2 + count * tensors || node.output_size() != count * (tensors - 1))
      throw Error(fmt::format("a rate, a count and {} tensors for each weight expected, with {} results", tensors,
                              tensors - 1));
    const std::string decay = shortest(number(node, "norm_coefficient", 0));
    for (int i = 0; i < count; ++i) {
      const std::string weight = operand_name(node, 2 + i), gradient = operand_name(node, 2 + count + i);
      const auto of = gradients_.find(gradient);
      if (of == gradients_.end() || of->second != weight)
        throw Error(fmt::format("'{}' is no result of Gradient for '{}'", gradient, weight));
      if (!decays_.emplace(weight, decay).second) throw Error(fmt::format("'{}' is updated a second time", weight));
      expect_bound(weight, result_name(node, i));
      for (int state = 2; state < tensors; ++state)
        expect_state(weight, operand_name(node, 2 + state * count + i), result_name(node, (state - 1) * count + i));
    }
  }

  void expect_bound(const std::string& name, const std::string& value) {
    const auto bound = bindings_.find(name);
    if (bound == bindings_.end() || bound->second != value)
      throw Error(fmt::format("update binding of '{}': '{}' expected, found {}", name, value,
                              bound == bindings_.end() ? "none" : "'" + bound->second + "'"));
    explained_.insert(name);
  }

  void expect_state(const std::string& weight, const std::string& name, const std::string& value) {
    const TensorProto *tensor = initializer(name), *of = initializer(weight);
    if (!tensor) throw Error(fmt::format("state '{}' is no initializer", name));
    if (of && type_of(*tensor).shape != type_of(*of).shape)
      throw Error(fmt::format("state '{}' is {}, and its weight '{}' {}", name, to_string(type_of(*tensor)), weight,
                              to_string(type_of(*of))));
    const Tensor first = model_.reader().read(*tensor);
    if (std::ranges::any_of(first.data, [](std::byte b) { return b != std::byte{0}; }))
      throw Error(
          fmt::format("state '{}' is not 0: the step was under way, and a run begins at its start; go on from a "
                      "checkpoint, or clear it",
                      name));
    expect_bound(name, value);
  }

  // One decay, and those of the weights that have none.
  void settle_decay() {
    for (const std::string& weight : found_.trained) {
      const std::string& decay = decays_.at(weight);
      if (decay == "0") continue;
      if (found_.weight_decay != "0" && found_.weight_decay != decay)
        throw Error(fmt::format("{}norm_coefficient: one beside 0 expected, found {} and {}", place(),
                                found_.weight_decay, decay));
      found_.weight_decay = decay;
    }
    if (found_.weight_decay == "0") return;
    for (const std::string& weight : found_.trained)
      if (decays_.at(weight) == "0") found_.no_decay.push_back(weight);
  }

  const OnnxModel& model_;
  const GraphProto& graph_;
  const GraphProto& algorithm_;
  std::map<std::string, int> makers_, model_makers_;
  std::map<std::string, const TensorProto*> initializers_;
  std::set<std::string> outputs_, weights_;
  std::map<std::string, std::string> bindings_;  // state → its next value
  std::set<std::string> explained_;              // states whose binding is understood
  const NodeProto* gradient_ = nullptr;
  std::vector<const NodeProto*> optimizers_;
  std::map<std::string, std::string> gradients_, decays_;  // gradient → weight; by weight
  TrainingOperators found_;
  Problems problems_;
};

}  // namespace

TrainingOperators read_training_operators(const OnnxModel& model) { return Reader(model).read(); }

}  // namespace halfstep
