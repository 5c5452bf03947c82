#include "frontend/repairs/resized_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "frontend/onnx/exporter_metadata.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/onnx/ties.h"

namespace halfstep {
namespace {

using onnx::NodeProto;
using onnx::TensorProto;

constexpr int64_t kLargestHead = int64_t{1} << 30;  // elements of its weight
constexpr int kLongestWay = 64;                     // nodes between the layer and the output

[[noreturn]] void fail(const std::string& what) { throw Error("resize_head: " + what); }

bool is_one_of(std::string_view op, std::initializer_list<std::string_view> ops) {
  return std::ranges::find(ops, op) != ops.end();
}
// Class by class, or over the classes, of which there may be any number.
bool passes(const NodeProto& node) {
  const bool by_scales =
      node.input_size() < 4 || node.input(3).empty();  // rather than to sizes, which name the classes
  if (is_one_of(node.op_type(), {"Resize", "Upsample"})) return by_scales;
  return is_one_of(node.op_type(), {"Softmax", "LogSoftmax", "Sigmoid", "Identity", "Cast", "Dropout", "Relu", "Clip",
                                    "Flatten", "Squeeze", "GlobalAveragePool", "AveragePool", "ReduceMean"});
}
// Whose results have no axis of classes.
bool chooses(const NodeProto& node) { return node.op_type() == "ArgMax" || node.op_type() == "Shape"; }

int64_t attribute_or(const NodeProto& node, std::string_view name, int64_t otherwise) {
  for (const onnx::AttributeProto& attribute : node.attribute())
    if (attribute.name() == name) return attribute.i();
  return otherwise;
}

void count_reads(const onnx::GraphProto& graph, std::map<std::string, std::vector<std::string>>& readers) {
  for (int i = 0; i < graph.node_size(); ++i) {
    const NodeProto& node = graph.node(i);
    for (const std::string& operand : node.input())
      if (!operand.empty()) readers[operand].push_back(node_name(node, i));
    for (const onnx::AttributeProto& attribute : node.attribute())
      if (attribute.has_g()) count_reads(attribute.g(), readers);
  }
}

class Head {
 public:
  Head(OnnxModel& model, int64_t classes) : model_(model), graph_(*model.edit().mutable_graph()), classes_(classes) {
    for (int i = 0; i < graph_.node_size(); ++i)
      for (const std::string& result : graph_.node(i).output())
        if (!result.empty()) makers_[result] = i;
    for (TensorProto& tensor : *graph_.mutable_initializer()) initializers_[tensor.name()] = &tensor;
    count_reads(graph_, readers_);
  }

  ResizedHead resize(const std::string& output) {
    output_ = output.empty() ? only_output() : output;
    if (std::ranges::none_of(graph_.output(), [&](const auto& o) { return o.name() == output_; })) {
      std::vector<std::string> names;
      for (const auto& o : graph_.output()) names.push_back(o.name());
      const std::string near = nearest(output_, names);
      fail(fmt::format("the model has no output '{}'{}", output_,
                       near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
    }
    find();
    check_alone();
    found_.classes_before = weight_->dims(class_axis_);
    found_.features = type_of(*weight_).element_count() / std::max<int64_t>(1, found_.classes_before);
    if (checked_mul(found_.features, classes_, "weights of '" + found_.node + "'") > kLargestHead)
      fail(fmt::format("{} classes of {} features are more weights than {}", classes_, found_.features, kLargestHead));
    check_readers();
    mend_reshapes();
    give(*weight_, class_axis_);
    give_bias();
    mend_shapes();
    return found_;
  }

 private:
  std::string name_of(int node) const { return node_name(graph_.node(node), node); }

  std::string only_output() const {
    if (graph_.output_size() == 1) return graph_.output(0).name();
    std::string names;
    for (const auto& o : graph_.output()) names += (names.empty() ? "'" : ", '") + o.name() + "'";
    fail(fmt::format("the model has {} outputs, {}: name the one to resize with output", graph_.output_size(), names));
  }

  // The initializer that a node reads there, itself or transposed.
  TensorProto* stored(const NodeProto& node, int operand, bool& transposed) {
    if (operand >= node.input_size()) return nullptr;
    std::string name = node.input(operand);
    transposed = false;
    for (int i = 0; i < 2; ++i)
      if (const auto maker = makers_.find(name); maker != makers_.end()) {
        const NodeProto& moved = graph_.node(maker->second);
        if (!is_one_of(moved.op_type(), {"Transpose", "Identity"}) || moved.input_size() != 1) return nullptr;
        transposed ^= moved.op_type() == "Transpose";
        weight_way_.insert(moved.output(0));
        name = moved.input(0);
      }
    const auto found = initializers_.find(name);
    return found == initializers_.end() ? nullptr : found->second;
  }

  void find() {
    std::string at = output_;
    for (int i = 0; i < kLongestWay; ++i) {
      way_.push_back(at);
      const auto maker = makers_.find(at);
      if (maker == makers_.end())
        fail(fmt::format("output '{}' is not computed by a layer: the way back ends at '{}'", output_, at));
      const NodeProto& node = graph_.node(maker->second);
      nodes_.push_back(maker->second);
      if (takes(node, maker->second)) return;
      if (node.op_type() == "Add" && node.input_size() == 2 && bias_.empty()) {
        const bool second = initializers_.contains(node.input(1)), first = initializers_.contains(node.input(0));
        if (first != second) {
          bias_ = node.input(second ? 1 : 0), bias_reader_ = maker->second, bias_operand_ = second ? 1 : 0;
          at = node.input(second ? 0 : 1);
          continue;
        }
      }
      if (node.op_type() == "Reshape" && node.input_size() == 2)
        reshapes_.push_back(maker->second);
      else if (!passes(node) || node.input_size() < 1)
        fail(
            fmt::format("the way back from output '{}' ends at {}, which is no layer of a weight (Gemm, MatMul, Conv "
                        "1x1): export the model with a last layer, or cut it there",
                        output_, describe(node, maker->second)));
      at = node.input(0);
    }
    fail(fmt::format("output '{}' is more than {} nodes behind a layer", output_, kLongestWay));
  }

  // Whether the node is the layer.
  bool takes(const NodeProto& node, int number) {
    const bool gemm = node.op_type() == "Gemm", conv = node.op_type() == "Conv";
    if (!gemm && !conv && node.op_type() != "MatMul") return false;
    bool transposed = false;
    weight_ = stored(node, 1, transposed);
    if (!weight_)
      fail(fmt::format("{} before output '{}' multiplies two activations: it has no weight", describe(node, number),
                       output_));
    const bool fits = conv ? weight_->dims_size() >= 3 && attribute_or(node, "group", 1) == 1 &&
                                 std::all_of(weight_->dims().begin() + 2, weight_->dims().end(),
                                             [](int64_t size) { return size == 1; })
                           : weight_->dims_size() == 2;
    if (!fits)
      fail(fmt::format("the weight '{}' of {}, {}, is that of no last layer: {} expected", weight_->name(),
                       describe(node, number), to_string(type_of(*weight_).shape),
                       conv ? "a convolution 1x1 of one group" : "a matrix"));
    if (type_of(*weight_).dtype != DType::f32)
      fail(fmt::format("the weight '{}' of {} is not floating", weight_->name(), describe(node, number)));
    const bool turned = (gemm && attribute_or(node, "transB", 0) != 0) != transposed;
    class_axis_ = conv || turned ? 0 : 1;
    found_.node = node_name(node, number), found_.weight = weight_->name();
    if ((gemm || conv) && node.input_size() > 2 && !node.input(2).empty()) {
      if (!bias_.empty())
        fail(fmt::format("{} has a bias, and '{}' is added to it: there may be one", describe(node, number), bias_));
      bias_ = node.input(2), bias_reader_ = number, bias_operand_ = 2;
    }
    return true;
  }

  void check_alone() const {
    const std::vector<std::string>& readers = readers_.at(weight_->name());
    if (readers.size() > 1) {
      const auto other = std::ranges::find_if(readers, [&](const std::string& r) { return r != found_.node; });
      fail(fmt::format("the weight '{}' of '{}' is shared with '{}': a head of other classes needs a weight of its own",
                       weight_->name(), found_.node, other == readers.end() ? found_.node : *other));
    }
    for (const std::string& moved : weight_way_)
      if (readers_.contains(moved) && readers_.at(moved).size() > 1)
        fail(fmt::format(
            "the weight '{}' of '{}' is read more than once by way of '{}': a head of other classes needs a "
            "weight of its own",
            weight_->name(), found_.node, moved));
    for (const auto& [name, tie] : find_ties(graph_, model_.reader()))
      if (name == weight_->name() || tie.to == weight_->name())
        fail(fmt::format("the weight '{}' of '{}' is tied to '{}': a head of other classes needs a weight of its own",
                         weight_->name(), found_.node, name == weight_->name() ? tie.to : name));
  }

  // Of what is of another size now.
  void check_readers() const {
    std::set<std::string> own;
    for (int node : nodes_) own.insert(name_of(node));
    for (const std::string& value : way_) {
      const auto readers = readers_.find(value);
      if (readers == readers_.end()) continue;
      for (const std::string& reader : readers->second) {
        if (own.contains(reader)) continue;
        const auto node = std::ranges::find_if(graph_.node(), [&](const NodeProto& n) {
          return node_name(n, static_cast<int>(&n - &graph_.node(0))) == reader;
        });
        if (node == graph_.node().end() || !chooses(*node))
          fail(fmt::format("what '{}' gives is also read by '{}', which is not on the way to output '{}'", found_.node,
                           reader, output_));
      }
    }
  }

  // The classes of a constant shape.
  void mend_reshapes() {
    const bool conv = std::ranges::any_of(graph_.node(), [&](const NodeProto& n) {
      return n.op_type() == "Conv" && n.input_size() > 1 && n.input(1) == weight_->name();
    });
    for (int number : reshapes_) {
      NodeProto& node = *graph_.mutable_node(number);
      std::optional<Tensor> shape;
      if (const auto stored = initializers_.find(node.input(1)); stored != initializers_.end())
        shape = model_.reader().read(*stored->second);
      else if (const auto maker = makers_.find(node.input(1)); maker != makers_.end())
        for (const onnx::AttributeProto& a : graph_.node(maker->second).attribute())
          if (graph_.node(maker->second).op_type() == "Constant" && a.name() == "value")
            shape = model_.reader().read(a.t());
      if (!shape || shape->type.shape.size() != 1) {
        fail(fmt::format("the shape of {} behind '{}' is computed: it may hold the number of classes",
                         describe(node, number), found_.node));
      }
      const int64_t axes = shape->type.element_count();
      int64_t place = conv && axes > 1 ? 1 : axes - 1;
      if (axes == 0) continue;
      const auto size = static_cast<int64_t>(shape->at(place));
      if (size == -1 || size == 0) continue;
      if (size != found_.classes_before)
        fail(fmt::format("{} behind '{}' gives {} where its {} classes are expected", describe(node, number),
                         found_.node, size, found_.classes_before));
      TensorProto& mended = *graph_.add_initializer();
      mended.set_name(unique(node.input(1) + ".resized"));
      mended.set_data_type(TensorProto::INT64);
      mended.add_dims(axes);
      for (int64_t i = 0; i < axes; ++i)
        mended.add_int64_data(i == place ? classes_ : static_cast<int64_t>(shape->at(i)));
      *node.mutable_input(1) = mended.name();
    }
  }

  std::string unique(const std::string& wanted) const {
    const auto taken = [&](const std::string& name) {
      return makers_.contains(name) || initializers_.contains(name) ||
             std::ranges::any_of(graph_.initializer(), [&](const TensorProto& t) { return t.name() == name; });
    };
    std::string name = wanted;
    for (int i = 1; taken(name); ++i) name = wanted + "_" + std::to_string(i);
    return name;
  }

  void give(TensorProto& tensor, int axis) {
    tensor.set_dims(axis, classes_);
    tensor.clear_float_data(), tensor.clear_double_data(), tensor.clear_int32_data();
    tensor.clear_external_data(), tensor.clear_data_location();
    const int64_t size = tensor.data_type() == TensorProto::DOUBLE  ? 8
                         : tensor.data_type() == TensorProto::FLOAT ? 4
                                                                    : 2;
    tensor.set_raw_data(std::string(static_cast<size_t>(size * type_of(tensor).element_count()), '\0'));
    model_.set_fresh(tensor.name());
  }

  void give_bias() {
    if (bias_.empty()) return;
    const auto stored = initializers_.find(bias_);
    if (stored == initializers_.end())
      fail(fmt::format("the bias '{}' of '{}' is computed, and has no values of its own", bias_, found_.node));
    TensorProto* bias = stored->second;
    int axis = -1;
    for (int i = 0; i < bias->dims_size(); ++i)
      if (bias->dims(i) == found_.classes_before && (axis < 0 || found_.classes_before == 1)) axis = i;
    if (axis < 0 || type_of(*bias).element_count() != found_.classes_before)
      fail(fmt::format("the bias '{}' of '{}' is {}, one for each of its {} classes expected", bias_, found_.node,
                       to_string(type_of(*bias).shape), found_.classes_before));
    // Exporters let biases of equal values be one initializer.
    if (readers_.at(bias_).size() > 1) {
      const TensorProto shared = *bias;
      bias = graph_.add_initializer();
      *bias = shared;
      bias->set_name(unique(found_.weight.ends_with("weight")
                                ? found_.weight.substr(0, found_.weight.size() - 6) + "bias"
                                : found_.weight + ".bias"));
      *graph_.mutable_node(bias_reader_)->mutable_input(bias_operand_) = bias->name();
    }
    give(*bias, axis);
    found_.bias = bias->name();
  }

  void mend_shapes() {
    const std::set<std::string> way(way_.begin(), way_.end());
    auto& values = *graph_.mutable_value_info();
    for (int i = values.size(); i-- > 0;)
      if (way.contains(values[i].name()) || weight_way_.contains(values[i].name())) values.DeleteSubrange(i, 1);
    for (onnx::ValueInfoProto& declared : *graph_.mutable_input())  // initializers of old files
      if (declared.name() == found_.weight || declared.name() == found_.bias)
        set_shape(declared, *std::ranges::find(graph_.initializer(), declared.name(), &TensorProto::name));
    for (onnx::ValueInfoProto& output : *graph_.mutable_output()) {
      if (!way.contains(output.name())) continue;
      auto& dims = *output.mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim();
      std::vector<int> fitting;
      for (int i = 0; i < dims.size(); ++i)
        if (dims[i].has_dim_value() && dims[i].dim_value() == found_.classes_before) fitting.push_back(i);
      if (fitting.empty()) continue;  // open, and still so
      // The batch, or a length, may be of the same size.
      const bool channels = weight_->dims_size() > 2;
      const int wanted = channels ? std::min(1, dims.size() - 1) : dims.size() - 1;
      const bool sure = std::ranges::find(fitting, wanted) != fitting.end();
      dims[sure ? wanted : fitting.back()].set_dim_value(classes_);
    }
  }

  static void set_shape(onnx::ValueInfoProto& value, const TensorProto& tensor) {
    auto& shape = *value.mutable_type()->mutable_tensor_type()->mutable_shape();
    shape.clear_dim();
    for (const int64_t size : tensor.dims()) shape.add_dim()->set_dim_value(size);
  }

  OnnxModel& model_;
  onnx::GraphProto& graph_;
  const int64_t classes_;
  std::string output_;
  std::map<std::string, int> makers_;
  std::map<std::string, TensorProto*> initializers_;
  std::map<std::string, std::vector<std::string>> readers_;  // names of nodes
  std::vector<std::string> way_;                             // values from the output back to what the layer gives
  std::set<std::string> weight_way_;                         // what moves the weight
  std::vector<int> nodes_, reshapes_;
  TensorProto* weight_ = nullptr;
  int class_axis_ = 0;
  std::string bias_;
  int bias_reader_ = -1, bias_operand_ = 0;
  ResizedHead found_;
};

}  // namespace

OnnxModel resize_head(OnnxModel model, const std::string& output, int64_t classes, ResizedHead* found) {
  const ResizedHead head = Head(model, classes).resize(output);
  model.add_remark(fmt::format("the last layer '{}' gives {} classes instead of {}: {} fresh", head.node, classes,
                               head.classes_before,
                               head.bias.empty() ? fmt::format("'{}' starts", head.weight)
                                                 : fmt::format("'{}' and '{}' start", head.weight, head.bias)));
  if (found) *found = head;
  return model;
}

}  // namespace halfstep
