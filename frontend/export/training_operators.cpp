#include "frontend/export/training_operators.h"

#include <fmt/format.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "base/error.h"
#include "frontend/export/onnx_builder.h"
#include "frontend/export/write_model.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {
namespace {

constexpr int64_t kCrossEntropyOpset = 12, kTrainingIrVersion = 7;

class Writer {
 public:
  Writer(onnx::ModelProto& model, const TrainingOperators& training)
      : graph_(*model.mutable_graph()),
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
      if (!training_.class_weights.empty()) {
        std::vector<double> weights;
        for (const std::string& weight : training_.class_weights) weights.push_back(number("class_weights", weight));
        const TensorType type{DType::f32, {static_cast<int64_t>(weights.size())}};
        operands.push_back(initializer("step.class_weights", Tensor::from_values(type, weights)));
      }
      const bool of_logits = training_.loss == "softmax_cross_entropy";
      onnx::NodeProto& loss = node(of_logits ? "SoftmaxCrossEntropyLoss" : "NegativeLogLikelihoodLoss", operands);
      set(loss, "reduction", std::string("mean"));
      if (training_.ignore_index) set(loss, "ignore_index", *training_.ignore_index);
      loss_ = result(loss, "loss");
    } else if (training_.loss == "mean_squared_error") {
      for (const auto& output : graph_.output()) {
        const int type = output.type().tensor_type().elem_type();
        const bool is_single = type == onnx::TensorProto::FLOAT || type == onnx::TensorProto::UNDEFINED;
        if (output.name() == training_.output && !is_single)
          throw Error("loss: output '" + training_.output + "' is no f32, whose squared errors the operators take");
      }
      labels_ = input("targets", onnx::TensorProto::FLOAT, rank);
      const std::string difference = result(node("Sub", {training_.output, labels_}), "step.difference");
      mean_of(result(node("Mul", {difference, difference}), "step.squares"));
    } else if (rank == 0) {
      loss_ = training_.output;
      return;
    } else {
      mean_of(training_.output);
    }
    give_out(loss_, {DType::f32, {}});
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
  Writer(model, training).write(rank);
  add_metadata(model, options.metadata);
  write_model(model, path, options.largest_inline);
}

}  // namespace halfstep
