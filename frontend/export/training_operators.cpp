#include "frontend/export/training_operators.h"

#include <fmt/format.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "base/error.h"
#include "base/losses.h"
#include "frontend/export/onnx_builder.h"
#include "frontend/export/write_model.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {
namespace {

constexpr int64_t kCrossEntropyOpset = 12, kTrainingIrVersion = 7;

class Writer {
 public:
  Writer(onnx::ModelProto& model, const TrainingOperators& training, int64_t opset)
      : opset_(opset),
        graph_(*model.mutable_graph()),
        info_(*model.add_training_info()),
        algorithm_(*info_.mutable_algorithm()),
        training_(training) {
    algorithm_.set_name("training_step");
    for (const auto* list : {&graph_.input(), &graph_.output()})
      for (const auto& value : *list) taken_.insert(value.name());
    for (const auto& tensor : graph_.initializer()) taken_.insert(tensor.name());
    for (const auto& node : graph_.node()) taken_.insert(node.output().begin(), node.output().end());
  }

  void write(size_t rank) {
    write_loss(rank);
    write_gradient();
    write_optimizers();
  }

 private:
  std::string free_name(std::string name) {
    while (!taken_.insert(name).second) name += '_';
    return name;
  }

  onnx::NodeProto& node(const std::string& op, const std::vector<std::string>& operands) {
    onnx::NodeProto& made = *algorithm_.add_node();
    made.set_op_type(op);
    made.set_name(free_name("step." + op));
    for (const std::string& operand : operands) made.add_input(operand);
    return made;
  }
  std::string result(onnx::NodeProto& of, const std::string& name) {
    return of.add_output(free_name(name)), of.output(of.output_size() - 1);
  }
  static onnx::AttributeProto& attribute(onnx::NodeProto& of, const std::string& name,
                                         onnx::AttributeProto::AttributeType type) {
    onnx::AttributeProto& made = *of.add_attribute();
    made.set_name(name);
    made.set_type(type);
    return made;
  }
  static void set(onnx::NodeProto& of, const std::string& name, int64_t value) {
    attribute(of, name, onnx::AttributeProto::INT).set_i(value);
  }
  static void set(onnx::NodeProto& of, const std::string& name, float value) {
    attribute(of, name, onnx::AttributeProto::FLOAT).set_f(value);
  }
  static void set(onnx::NodeProto& of, const std::string& name, const std::string& value) {
    attribute(of, name, onnx::AttributeProto::STRING).set_s(value);
  }

  std::string initializer(const std::string& name, const Tensor& value) {
    std::string free = free_name(name);
    *algorithm_.add_initializer() = tensor_message(free, value);
    return free;
  }
  void bind(const std::string& state, const std::string& value) {
    onnx::StringStringEntryProto& entry = *info_.add_update_binding();
    entry.set_key(state);
    entry.set_value(value);
  }
  void give_out(const std::string& name, const TensorType& type) {
    *algorithm_.add_output() = value_message(name, type);
  }

  // Of the model's own sizes: open where they are.
  std::string input(const std::string& name, int32_t type, size_t rank) {
    onnx::ValueInfoProto& made = *algorithm_.add_input();
    made.set_name(free_name(name));
    auto& tensor = *made.mutable_type()->mutable_tensor_type();
    tensor.set_elem_type(type);
    for (size_t i = 0; i < rank; ++i) tensor.mutable_shape()->add_dim();
    return made.name();
  }

  void write_loss(size_t rank) {
    if (training_.loss == "softmax_cross_entropy" || training_.loss == "nll") {
      std::string scores = training_.output;
      if (const int64_t axis = training_.class_axis.value_or(1); axis != 1) {
        onnx::NodeProto& transpose = node("Transpose", {scores});
        onnx::AttributeProto& order = attribute(transpose, "perm", onnx::AttributeProto::INTS);
        for (int64_t i = 0; i < static_cast<int64_t>(rank); ++i) {
          if (i == 1) order.add_ints(axis);
          if (i != axis) order.add_ints(i);
        }
        scores = result(transpose, "step.scores");
      }
      labels_ = input("labels", onnx::TensorProto::INT64, rank - 1);
      std::vector<std::string> operands{scores, labels_};
      if (training_.loss_parameters.contains("class_weights")) {
        const std::vector<double> weights = numbers("class_weights");
        const TensorType type{DType::f32, {static_cast<int64_t>(weights.size())}};
        operands.push_back(initializer("step.class_weights", Tensor::from_values(type, weights)));
      }
      const bool of_logits = training_.loss == "softmax_cross_entropy";
      onnx::NodeProto& loss = node(of_logits ? "SoftmaxCrossEntropyLoss" : "NegativeLogLikelihoodLoss", operands);
      set(loss, "reduction", std::string("mean"));
      if (training_.ignore_index) set(loss, "ignore_index", *training_.ignore_index);
      loss_ = result(loss, "loss");
    } else if (const LossFunction& row = *find_loss(training_.loss); row.element != nullptr) {
      write_loss_of_elements(row, rank);
    } else if (rank == 0) {
      loss_ = training_.output;
      return;
    } else {
      mean_of(training_.output);
    }
    give_out(loss_, {DType::f32, {}});
  }
  // By the row's formula, of whose terms each is an operator.
  void write_loss_of_elements(const LossFunction& row, size_t rank) {
    for (const auto& output : graph_.output()) {
      const int type = output.type().tensor_type().elem_type();
      if (output.name() == training_.output && type != onnx::TensorProto::FLOAT && type != onnx::TensorProto::UNDEFINED)
        throw Error("loss: output '" + training_.output + "' is no f32, of which the operators take it");
    }
    OutputLoss loss{.kind = training_.loss};
    for (const auto& [key, values] : training_.loss_parameters) loss.parameters[key] = numbers(key);
    labels_ = input(row.labels == LossFunction::targets ? "targets" : "labels", onnx::TensorProto::FLOAT, rank);
    FormulaNodes nodes(*this, loss, rank);
    std::string elements = nodes.value(row.element(nodes));
    if (row.sample == LossFunction::sum && rank > 1) elements = sum_of_samples(elements, rank);
    mean_of(elements);
  }

  class FormulaNodes final : public LossContext {
   public:
    FormulaNodes(Writer& writer, const OutputLoss& loss, size_t rank) : writer_(writer), loss_(loss), rank_(rank) {}

    Term output() override { return term(writer_.training_.output); }
    Term target() override { return term(writer_.labels_); }
    double parameter(std::string_view name) const override { return value_of(loss_, name); }
    bool given(std::string_view name) const override { return loss_.parameters.contains(name); }
    Term by_class(std::string_view name) override {
      const std::vector<double>& values = loss_.parameters.find(name)->second;
      if (values.size() == 1) return constant(values.front());
      const int64_t axis = writer_.training_.class_axis.value_or(1);
      Shape shape(rank_ - static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(rank_) : axis), 1);
      shape.front() = static_cast<int64_t>(values.size());
      return term(writer_.initializer("step." + std::string(name), Tensor::from_values({DType::f32, shape}, values)));
    }
    Term constant(double value) override {
      return term(writer_.initializer("step.constant", Tensor::scalar(DType::f32, value)));
    }
    Term apply(std::string_view op, std::initializer_list<Term> operands) override {
      static const std::map<std::string_view, const char*> kOperators{
          {"add", "Add"}, {"sub", "Sub"},   {"mul", "Mul"},     {"abs", "Abs"},
          {"exp", "Exp"}, {"log", "Log"},   {"neg", "Neg"},     {"softplus", "Softplus"},
          {"min", "Min"}, {"less", "Less"}, {"select", "Where"}};
      const auto found = kOperators.find(op);
      require(found != kOperators.end(), "a formula of a loss is of operators that ONNX has");
      std::vector<std::string> names;
      for (const Term& operand : operands) names.push_back(value(operand));
      return term(result(writer_.node(found->second, names), "step." + std::string(op)));
    }
    std::string value(Term term) const { return values_[static_cast<size_t>(term.id())]; }

   private:
    std::string result(onnx::NodeProto& of, const std::string& name) { return writer_.result(of, name); }
    Term term(std::string value) {
      values_.push_back(std::move(value));
      return {*this, static_cast<int32_t>(values_.size()) - 1};
    }

    Writer& writer_;
    const OutputLoss& loss_;
    const size_t rank_;
    std::vector<std::string> values_;
  };
  friend class FormulaNodes;

  // Its axes are an operand from opset 13 on.
  std::string sum_of_samples(const std::string& elements, size_t rank) {
    constexpr int64_t kAxesOperand = 13;
    std::vector<double> axes;
    for (size_t axis = 1; axis < rank; ++axis) axes.push_back(static_cast<double>(axis));
    std::vector<std::string> operands{elements};
    if (opset_ >= kAxesOperand)
      operands.push_back(
          initializer("step.axes", Tensor::from_values({DType::i64, {static_cast<int64_t>(axes.size())}}, axes)));
    onnx::NodeProto& sum = node("ReduceSum", operands);
    if (opset_ < kAxesOperand)
      for (onnx::AttributeProto& made = attribute(sum, "axes", onnx::AttributeProto::INTS); const double axis : axes)
        made.add_ints(static_cast<int64_t>(axis));
    set(sum, "keepdims", int64_t{0});
    return result(sum, "step.samples");
  }
  void mean_of(const std::string& values) {
    onnx::NodeProto& mean = node("ReduceMean", {values});
    set(mean, "keepdims", int64_t{0});
    loss_ = result(mean, "loss");
  }

  void write_gradient() {
    onnx::NodeProto& gradient = node("Gradient", training_.trained);
    gradient.set_domain(kTrainingDomain);
    onnx::AttributeProto& xs = attribute(gradient, "xs", onnx::AttributeProto::STRINGS);
    for (const std::string& weight : training_.trained) xs.add_strings(weight);
    onnx::AttributeProto& zs = attribute(gradient, "zs", onnx::AttributeProto::STRINGS);
    std::set<std::string> held;
    for (const auto& tensor : graph_.initializer()) held.insert(tensor.name());
    for (const auto& value : graph_.input())
      if (!held.contains(value.name())) zs.add_strings(value.name());
    if (!labels_.empty()) zs.add_strings(labels_);
    for (const std::string& other : zs.strings()) gradient.add_input(other);
    set(gradient, "y", loss_);
    for (const std::string& weight : training_.trained) gradients_[weight] = result(gradient, "gradient/" + weight);
  }

  // Of f32, as the operators take it.
  static float number(const std::string& key, const std::string& text) {
    const double value = std::strtod(text.c_str(), nullptr);
    const auto held = static_cast<float>(value);
    if (!std::isfinite(held))
      throw Error(fmt::format("{}: {} is no finite f32, which ONNX's operators take", key, text));
    return held;
  }
  std::vector<double> numbers(const std::string& key) const {
    std::vector<double> values;
    for (const std::string& text : training_.loss_parameters.at(key)) {
      number(key, text);
      values.push_back(std::strtod(text.c_str(), nullptr));
    }
    return values;
  }
  float parameter(const std::string& name) const { return number(name, training_.parameters.at(name)); }

  void write_optimizers() {
    rate_ = initializer("step.learning_rate",
                        Tensor::scalar(DType::f32, number("learning_rate", training_.learning_rate.value())));
    const bool from_one = training_.optimizer == "onnx_adam" && parameter("first_count") == 1;
    count_ = initializer("step.count", Tensor::scalar(DType::i64, from_one ? 1 : 0));
    const std::string one = initializer("step.one", Tensor::scalar(DType::i64, 1));
    const std::string next = result(node("Add", {count_, one}), "step.count_out");
    give_out(next, {DType::i64, {}});
    bind(count_, next);
    std::vector<std::string> with, without;
    for (const std::string& weight : training_.trained)
      (std::ranges::find(training_.no_decay, weight) == training_.no_decay.end() ? with : without).push_back(weight);
    write_optimizer(with, number("weight_decay", training_.weight_decay));
    write_optimizer(without, 0);
  }

  TensorType type_of_weight(const std::string& name) const {
    const auto found = std::ranges::find_if(graph_.initializer(), [&](const auto& t) { return t.name() == name; });
    if (found == graph_.initializer().end())
      throw Error("weight '" + name + "' is no initializer of the model's file, which has it in another form");
    return {DType::f32, type_of(*found).shape};
  }

  void write_optimizer(const std::vector<std::string>& weights, float decay) {
    if (weights.empty()) return;
    std::vector<std::string> states;
    std::string op;
    if (training_.optimizer == "sgd") {
      op = "Momentum", states = {"momentum"};
    } else if (training_.optimizer == "adagrad") {
      op = "Adagrad", states = {"adagrad.sum"};
    } else {
      op = "Adam", states = {"adam.m", "adam.v"};
    }
    std::vector<std::string> operands = {rate_, count_};
    operands.insert(operands.end(), weights.begin(), weights.end());
    for (const std::string& weight : weights) operands.push_back(gradients_.at(weight));
    std::vector<std::pair<std::string, TensorType>> updated;
    for (const std::string& weight : weights) updated.emplace_back(weight, type_of_weight(weight));
    for (const std::string& state : states)
      for (const std::string& weight : weights) {
        const TensorType type = type_of_weight(weight);
        operands.push_back(initializer(state + "/" + weight, Tensor(type)));
        updated.emplace_back(operands.back(), type);
      }
    onnx::NodeProto& update = node(op, operands);
    update.set_domain(kTrainingDomain);
    set(update, "norm_coefficient", decay);
    if (op == "Momentum") {
      set(update, "alpha", parameter("momentum"));
      set(update, "beta", static_cast<float>(1 - std::stod(training_.parameters.at("dampening"))));
      set(update, "mode", std::string(training_.parameters.at("nesterov") == "true" ? "nesterov" : "standard"));
    } else if (op == "Adagrad") {
      set(update, "decay_factor", parameter("rate_decay"));
      set(update, "epsilon", parameter("epsilon"));
    } else {
      set(update, "alpha", parameter("beta1"));
      set(update, "beta", parameter("beta2"));
      set(update, "epsilon", parameter("epsilon"));
    }
    for (const auto& [name, type] : updated) {
      const std::string after = result(update, name + "_out");
      give_out(after, type);
      bind(name, after);
    }
  }

  const int64_t opset_;
  onnx::GraphProto& graph_;
  onnx::TrainingInfoProto& info_;
  onnx::GraphProto& algorithm_;
  const TrainingOperators& training_;
  std::set<std::string> taken_;
  std::string labels_, loss_, rate_, count_;
  std::map<std::string, std::string> gradients_;  // by weight
};

}  // namespace

void export_training_operators(OnnxModel original, const TrainingOperators& training, size_t rank,
                               const std::filesystem::path& path, const ExportOptions& options) {
  const TensorReader reader = original.reader();
  onnx::ModelProto& model = original.edit();
  int64_t opset = 0;
  for (const auto& import : model.opset_import())
    if (canonical_domain(import.domain()).empty()) opset = import.version();
  if ((training.loss == "softmax_cross_entropy" || training.loss == "nll") && opset < kCrossEntropyOpset)
    throw Error("the model's operator set is version " + std::to_string(opset) + ", and the loss of classes of " +
                std::to_string(kCrossEntropyOpset) + ": export the model at a newer one");
  if (model.training_info_size() > 0) throw Error("the model carries a training step already");
  model.set_ir_version(std::max<int64_t>(model.ir_version(), kTrainingIrVersion));
  auto& domain = *model.add_opset_import();
  domain.set_domain(kTrainingDomain);
  domain.set_version(1);
  for (onnx::TensorProto& tensor : *model.mutable_graph()->mutable_initializer()) {
    if (tensor.data_location() != onnx::TensorProto::EXTERNAL) continue;
    std::string bytes = reader.read_bytes(tensor);
    tensor.clear_external_data();
    tensor.clear_data_location();
    tensor.set_raw_data(std::move(bytes));
  }
  Writer(model, training, opset).write(rank);
  read_training_operators(original);  // what could not be read is not written
  add_metadata(model, options.metadata);
  write_model(model, path, options.largest_inline);
}

}  // namespace halfstep
