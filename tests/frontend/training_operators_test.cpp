// Loss and optimizer as operators in a model's file: what is written reads back, and what is of another form is told.
#include "frontend/onnx/training_operators.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/file.h"
#include "frontend/export/training_operators.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TestModel linear() {
  TestModel model = TestModel()
                        .input("x", {4, 3})
                        .weight("w", ramp({3, 2}))
                        .weight("b", floats({2}, {0, 1}))
                        .node("MatMul", {"x", "w"}, {"product"})
                        .node("Add", {"product", "b"}, {"y"})
                        .output("y");
  onnx::TypeProto::Tensor& type =
      *model.proto.mutable_graph()->mutable_output(0)->mutable_type()->mutable_tensor_type();
  type.set_elem_type(onnx::TensorProto::FLOAT);
  for (const int64_t size : {4, 2}) type.mutable_shape()->add_dim()->set_dim_value(size);
  return model;
}

TrainingOperators momentum() {
  TrainingOperators t;
  t.loss = "softmax_cross_entropy", t.output = "y", t.class_axis = 1;
  t.optimizer = "sgd";
  t.parameters = {{"momentum", "0.9"}, {"dampening", "0"}, {"nesterov", "false"}};
  t.learning_rate = "0.03";
  t.trained = {"w", "b"};
  return t;
}

onnx::ModelProto written(const TrainingOperators& training, size_t rank = 2) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "model.onnx";
  export_training_operators(OnnxModel(linear().file()), training, rank, path);
  onnx::ModelProto model;
  EXPECT_TRUE(model.ParseFromString(read_file(path)));
  return model;
}

OnnxModel model_of(const onnx::ModelProto& proto) {
  return OnnxModel(OnnxFile{"model.onnx", proto.SerializeAsString(), "."});
}

std::string error_after(const std::function<void(onnx::ModelProto&)>& change,
                        const TrainingOperators& training = momentum()) {
  onnx::ModelProto proto = written(training);
  change(proto);
  try {
    read_training_operators(model_of(proto));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

onnx::NodeProto& node(onnx::ModelProto& model, const std::string& op) {
  for (onnx::NodeProto& found : *model.mutable_training_info(0)->mutable_algorithm()->mutable_node())
    if (found.op_type() == op) return found;
  throw Error("no node " + op);
}

onnx::AttributeProto& attribute(onnx::NodeProto& node, const std::string& name) {
  for (onnx::AttributeProto& found : *node.mutable_attribute())
    if (found.name() == name) return found;
  throw Error("no attribute " + name);
}

TEST(TrainingOperatorsFile, ReadBackAsWritten) {
  std::vector<TrainingOperators> all{momentum()};
  const auto add = [&](auto change) {
    all.push_back(momentum());
    change(all.back());
  };
  add([](auto& t) { t.ignore_index = -100; });
  add([](auto& t) { t.loss_parameters = {{"class_weights", {"1", "0.3"}}}; });
  add([](auto& t) { t.loss = "nll", t.loss_parameters = {{"class_weights", {"1", "0.3"}}}; });
  add([](auto& t) { t.weight_decay = "0.0005"; });
  add([](auto& t) { t.weight_decay = "0.0005", t.no_decay = {"b"}; });
  add([](auto& t) { t.parameters = {{"momentum", "0.8"}, {"dampening", "0.5"}, {"nesterov", "true"}}; });
  add([](auto& t) { t.trained = {"w"}; });
  add([](auto& t) { t.loss = "mean_squared_error", t.class_axis.reset(); });
  using Parameters = std::map<std::string, std::vector<std::string>>;
  for (const auto& [loss, parameters] : std::vector<std::pair<std::string, Parameters>>{
           {"l1", {}},
           {"huber", {}},
           {"huber", {{"delta", {"0.3"}}}},
           {"smooth_l1", {{"beta", {"0.4"}}}},
           {"kl_div", {}},
           {"kl_div", {{"log_target", {"1"}}}},
           {"bce_with_logits", {}},
           {"bce_with_logits", {{"pos_weight", {"3"}}}},
           {"bce_with_logits", {{"focal_gamma", {"2"}}, {"focal_alpha", {"0.25"}}}}})
    add([&](auto& t) { t.loss = loss, t.loss_parameters = parameters, t.class_axis.reset(); });
  add([](auto& t) {
    t.loss = "bce_with_logits", t.class_axis = -1;
    t.loss_parameters = {{"pos_weight", {"1", "3"}}, {"class_weights", {"0.5", "0.1"}}};
  });
  add([](auto& t) { t.optimizer = "adagrad", t.parameters = {{"rate_decay", "0.1"}, {"epsilon", "1e-06"}}; });
  for (const char* first : {"0", "1"})
    add([=](auto& t) {
      t.optimizer = "onnx_adam";
      t.parameters = {{"beta1", "0.9"}, {"beta2", "0.999"}, {"epsilon", "1e-08"}, {"first_count", first}};
    });
  for (const TrainingOperators& training : all)
    EXPECT_EQ(read_training_operators(model_of(written(training))), training) << training.optimizer;
}

TEST(TrainingOperatorsFile, ClassesOnAnotherAxisAndLossesOfTheModel) {
  TrainingOperators last = momentum();
  last.class_axis = 2;
  EXPECT_EQ(read_training_operators(model_of(written(last, 3))).class_axis, 2);
  TrainingOperators own = momentum();
  own.loss = "from_graph", own.class_axis.reset();
  for (const size_t rank : {0, 1}) EXPECT_EQ(read_training_operators(model_of(written(own, rank))), own);
}

TEST(TrainingOperatorsFile, SumsAreOfWholeSamples) {
  TrainingOperators divergence = momentum();
  divergence.loss = "kl_div", divergence.class_axis.reset();
  EXPECT_EQ(read_training_operators(model_of(written(divergence, 2))), divergence);
  try {
    read_training_operators(model_of(written(divergence, 3)));
    FAIL() << "of an output with two axes the sum over two is another loss";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("of all axes of 'y' but the first, as the file has its shape, expected; found 2"));
  }
}

TEST(TrainingOperatorsFile, OtherFormsAreToldByName) {
  const auto in = [](const char* op, const char* name) {
    return [=](auto change) { return error_after([&](onnx::ModelProto& m) { change(attribute(node(m, op), name)); }); };
  };
  EXPECT_THAT(error_after([](auto& m) { node(m, "Gradient").set_domain(""); }),
              AllOf(HasSubstr("model 'model.onnx', its training step: no operator Gradient"), HasSubstr("Momentum")));
  EXPECT_THAT(error_after([](auto& m) { node(m, "Momentum").set_op_type("Lion"); }),
              HasSubstr("Gradient, Adagrad, Adam or Momentum expected"));
  EXPECT_THAT(in("Momentum", "mode")([](auto& a) { a.set_s("heavy"); }),
              HasSubstr("mode: standard or nesterov expected, found 'heavy'"));
  EXPECT_THAT(in("Momentum", "beta")([](auto& a) { a.set_f(2); }), HasSubstr("beta: more than 0 and at most 1"));
  EXPECT_THAT(in("Momentum", "beta")([](auto& a) { a.set_f(NAN); }), HasSubstr("beta: a finite number expected"));
  EXPECT_THAT(in("Momentum", "alpha")([](auto& a) { a.set_type(onnx::AttributeProto::INT); }),
              HasSubstr("attribute alpha: FLOAT expected, found INT"));
  EXPECT_THAT(in("SoftmaxCrossEntropyLoss", "reduction")([](auto& a) { a.set_s("sum"); }),
              HasSubstr("reduction of the loss: mean expected, found 'sum'"));
  EXPECT_THAT(in("Gradient", "y")([](auto& a) { a.set_s("product"); }),
              HasSubstr("the loss reads 'product', which is no output of the model"));
  EXPECT_THAT(in("Gradient", "xs")([](auto& a) { a.set_strings(0, "v"); }),
              HasSubstr("operand 0: the value that xs and zs name there expected, found 'w'"));
  EXPECT_THAT(error_after([](auto& m) { node(m, "SoftmaxCrossEntropyLoss").set_op_type("Einsum"); }),
              HasSubstr("the loss 'loss' is made by Einsum"));
  EXPECT_THAT(error_after([](auto& m) {
                m.mutable_training_info(0)->mutable_update_binding()->Mutable(1)->set_value("step.count_out");
              }),
              HasSubstr("update binding of 'w': 'w_out' expected, found 'step.count_out'"));
  EXPECT_THAT(error_after([](auto& m) {
                auto& binding = *m.mutable_training_info(0)->add_update_binding();
                binding.set_key("average"), binding.set_value("w_out");
              }),
              HasSubstr("update binding 'average': neither a trained weight nor a state of the optimizer"));
  EXPECT_THAT(error_after([](auto& m) {
                for (auto& tensor : *m.mutable_training_info(0)->mutable_algorithm()->mutable_initializer())
                  if (tensor.name() == "momentum/b") tensor = tensor_proto("momentum/b", floats({2}, {0, 1}));
              }),
              HasSubstr("state 'momentum/b' is not 0: the step was under way"));
  EXPECT_THAT(error_after([](auto& m) {
                for (auto& tensor : *m.mutable_training_info(0)->mutable_algorithm()->mutable_initializer())
                  if (tensor.name() == "momentum/b") tensor = tensor_proto("momentum/b", floats({3}, {0, 0, 0}));
              }),
              HasSubstr("state 'momentum/b' is f32[3], and its weight 'b' f32[2]"));
  EXPECT_THAT(error_after([](auto& m) {
                auto& algorithm = *m.mutable_training_info(0)->mutable_algorithm();
                *algorithm.add_node() = onnx::NodeProto(node(m, "Momentum"));
              }),
              HasSubstr("is updated a second time"));
  EXPECT_THAT(error_after([](auto& m) { *m.add_training_info() = m.training_info(0); }),
              HasSubstr("one algorithm expected, found 2"));
}

TEST(TrainingOperatorsFile, AFormulaThatIsNoLossIsTold) {
  TrainingOperators training = momentum();
  training.loss = "huber", training.class_axis.reset();
  const auto after = [&](const char* op, const char* other) {
    return error_after([=](auto& m) { node(m, op).set_op_type(other); }, training);
  };
  EXPECT_THAT(after("Abs", "Exp"), HasSubstr("the loss is a mean of mul("));
  EXPECT_THAT(after("Abs", "Exp"), HasSubstr("which is the formula of no loss"));
  EXPECT_THAT(after("Abs", "Gelu"), HasSubstr("the loss is a mean of Gelu: a formula of numbers expected"));
  // The distance the other way round is the same loss.
  onnx::ModelProto turned = written(training);
  node(turned, "Sub").mutable_input()->SwapElements(0, 1);
  EXPECT_EQ(read_training_operators(model_of(turned)).loss, "huber");
}

TEST(TrainingOperatorsFile, AdamsOtherDecayAndCountsAreTold) {
  TrainingOperators adam = momentum();
  adam.optimizer = "onnx_adam";
  adam.parameters = {{"beta1", "0.9"}, {"beta2", "0.999"}, {"epsilon", "1e-08"}, {"first_count", "1"}};
  EXPECT_THAT(error_after(
                  [](auto& m) {
                    auto& after = *node(m, "Adam").add_attribute();
                    after.set_name("norm_coefficient_post"), after.set_f(0.1F);
                    after.set_type(onnx::AttributeProto::FLOAT);
                  },
                  adam),
              HasSubstr("norm_coefficient_post: 0 expected, found 0.1"));
  EXPECT_THAT(error_after([](auto& m) { node(m, "Add").set_op_type("Mul"); }, adam),
              HasSubstr("the count of updates, 'step.count': bound to itself plus 1 expected"));
}

TEST(TrainingOperatorsFile, ASoftmaxOfASoftmaxIsRefused) {
  TestModel model = linear().node("Softmax", {"y"}, {"p"}).output("p");
  TrainingOperators training = momentum();
  training.output = "p";
  const TemporaryDirectory directory;
  try {
    export_training_operators(OnnxModel(model.file()), training, 2, directory.path() / "model.onnx");
    ADD_FAILURE() << "it was written";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("the loss takes a softmax of 'p', which is a Softmax already"));
  }
}

}  // namespace
}  // namespace halfstep::test
