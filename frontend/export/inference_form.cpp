#include "frontend/export/inference_form.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <system_error>

#include "frontend/export/write_model.h"
#include "frontend/onnx/validate.h"

namespace halfstep {
namespace {

using onnx::NodeProto;
using Names = google::protobuf::RepeatedPtrField<std::string>;

void keep_first(Names& list) {
  if (list.size() > 1) list.DeleteSubrange(1, list.size() - 1);
}

template <typename Visit>  // of the nodes and those of their branches
void for_each_node(NodeList& nodes, Visit&& visit) {
  for (NodeProto& node : nodes) {
    visit(node);
    for (onnx::AttributeProto& attribute : *node.mutable_attribute())
      if (attribute.has_g()) for_each_node(*attribute.mutable_g()->mutable_node(), visit);
  }
}

// The nodes of one graph, branch or function.
class Body {
 public:
  Body(NodeList& nodes, std::set<std::string> outputs, const std::map<std::string, const onnx::TensorProto*>& tensors,
       const TensorReader& reader)
      : nodes_(nodes), outputs_(std::move(outputs)), tensors_(tensors), reader_(reader) {
    for_each_node(nodes_, [&](NodeProto& node) {
      for (const std::string& input : node.input()) ++readers_[input];
      for (const onnx::AttributeProto& attribute : node.attribute())
        for (const onnx::ValueInfoProto& output : attribute.g().output()) ++readers_[output.name()];
    });
    for (const std::string& output : outputs_) ++readers_[output];
    for (NodeProto& node : nodes_)
      for (const std::string& output : node.output())
        if (!output.empty()) makers_[output] = &node;
  }

  // The number of dropouts that are left out.
  int64_t convert(Problems& problems) {
    int64_t dropouts = 0;
    for (int i = 0; i < nodes_.size(); ++i) {
      NodeProto& node = *nodes_.Mutable(i);
      if (!canonical_domain(node.domain()).empty()) continue;
      if (node.op_type() == "Dropout") {
        leave_out_dropout(node), ++dropouts;
      } else if (node.op_type() == "Mul" && node.input_size() == 2 && !node.output().empty()) {
        if (const auto kept = undropped(node)) leave_out(node, *kept), ++dropouts;
      } else if (node.op_type() == "BatchNormalization") {
        use_statistics(node, i, problems);
      }
    }
    erase_left_out();
    return dropouts;
  }

 private:
  bool is_read(const std::string& name) const {
    const auto found = readers_.find(name);
    return !name.empty() && found != readers_.end() && found->second > 0;
  }
  bool reads_behind_first(const NodeProto& node) const {
    return std::any_of(node.output().begin() + std::min(1, node.output_size()), node.output().end(),
                       [&](const std::string& name) { return is_read(name); });
  }

  void leave_out_dropout(NodeProto& node) {
    if (node.input().empty() || node.output().empty()) return;
    if (!reads_behind_first(node)) return leave_out(node, node.input(0));
    if (node.input_size() > 2) node.mutable_input()->RemoveLast();  // training_mode: absent means false
  }

  void use_statistics(NodeProto& node, int index, Problems& problems) const {
    if (reads_behind_first(node))
      problems.add("node " + describe(node, index) +
                   ": its statistics are read by other nodes or are outputs, which an "
                   "inference model cannot have");
    keep_first(*node.mutable_output());
    for (onnx::AttributeProto& attribute : *node.mutable_attribute())
      if (attribute.name() == "training_mode") attribute.set_i(0), attribute.clear_ref_attr_name();
  }

  // ---- stochastic depth: x * (u < p) / p, or x / p * floor(u + p) ----

  // What makes a value, through nodes that keep its elements' values.
  const NodeProto* maker(std::string name) const {
    for (;;) {
      const auto found = makers_.find(name);
      if (found == makers_.end()) return nullptr;
      const std::string& op = found->second->op_type();
      if (op != "Cast" && op != "CastLike" && op != "Identity" && op != "Expand") return found->second;
      name = operand_name(*found->second, 0);
    }
  }
  bool is_uniform(const std::string& name) const {
    const NodeProto* node = maker(name);
    return node && (node->op_type() == "RandomUniform" || node->op_type() == "RandomUniformLike");
  }
  std::optional<double> scalar(const std::string& name) const {
    const NodeProto* node = maker(name);
    const onnx::TensorProto* tensor = nullptr;
    if (const auto found = tensors_.find(name); found != tensors_.end()) tensor = found->second;
    if (node && node->op_type() == "Constant" && node->attribute_size() == 1) {
      if (node->attribute(0).name() == "value_float") return node->attribute(0).f();
      if (node->attribute(0).has_t()) tensor = &node->attribute(0).t();
    }
    if (!tensor || type_of(*tensor).element_count() != 1) return std::nullopt;
    return reader_.read(*tensor).at(0);
  }
  // p, if the value is 1 with probability p and else 0.
  std::optional<double> survival(const std::string& mask) const {
    const NodeProto* node = maker(mask);
    if (!node) return std::nullopt;
    if (node->op_type() == "Less" && is_uniform(operand_name(*node, 0))) return scalar(operand_name(*node, 1));
    const NodeProto* sum = node->op_type() == "Floor" ? maker(operand_name(*node, 0)) : nullptr;
    if (!sum || sum->op_type() != "Add") return std::nullopt;
    for (int i : {0, 1})
      if (is_uniform(operand_name(*sum, i))) return scalar(operand_name(*sum, 1 - i));
    return std::nullopt;
  }
  // n, if the value is n / p.
  std::optional<std::string> numerator(const std::string& name, double p) const {
    const auto found = makers_.find(name);
    if (found == makers_.end() || found->second->op_type() != "Div") return std::nullopt;
    const std::optional<double> divisor = scalar(operand_name(*found->second, 1));
    if (!divisor || std::abs(*divisor - p) > 1e-6) return std::nullopt;
    return operand_name(*found->second, 0);
  }
  // What the product drops from, if it is a stochastic depth.
  std::optional<std::string> undropped(const NodeProto& product) const {
    for (int i : {0, 1}) {
      const std::string &x = product.input(i), &mask = product.input(1 - i);
      const auto quotient = makers_.find(mask);
      if (quotient != makers_.end() && quotient->second->op_type() == "Div")
        if (const auto p = survival(operand_name(*quotient->second, 0)); p && numerator(mask, *p)) return x;
      if (const auto p = survival(mask))
        if (const auto whole = numerator(x, *p)) return whole;
    }
    return std::nullopt;
  }

  // ---- leaving out ----

  void leave_out(NodeProto& node, const std::string& kept) {
    const std::string to = kept;  // which may be an input of the node
    if (outputs_.contains(node.output(0))) {
      ++readers_[to];
      for (const std::string& input : node.input()) release(input);
      node.set_op_type("Identity");
      node.clear_attribute();
      node.set_input(0, to);
      keep_first(*node.mutable_input());
      keep_first(*node.mutable_output());
      return;
    }
    const std::string from = node.output(0);
    for_each_node(nodes_, [&](NodeProto& reader) {
      for (std::string& input : *reader.mutable_input())
        if (input == from) input = to, ++readers_[to];
      for (onnx::AttributeProto& attribute : *reader.mutable_attribute())
        if (attribute.has_g())
          for (onnx::ValueInfoProto& output : *attribute.mutable_g()->mutable_output())
            if (output.name() == from) output.set_name(to), ++readers_[to];
    });
    readers_[from] = 0;
    drop(node);
  }

  // Nodes that only what is left out has read go with it.
  void release(const std::string& name) {
    if (--readers_[name] > 0) return;
    const auto found = makers_.find(name);
    if (found == makers_.end()) return;
    const Names& results = found->second->output();
    if (std::none_of(results.begin(), results.end(), [&](const std::string& result) { return is_read(result); }))
      drop(*found->second);
  }
  void drop(NodeProto& node) {
    if (!left_out_.insert(&node).second) return;
    for (const std::string& input : node.input()) release(input);
  }
  void erase_left_out() {
    int kept = 0;
    for (int i = 0; i < nodes_.size(); ++i)
      if (!left_out_.contains(nodes_.Mutable(i))) nodes_.SwapElements(i, kept++);
    nodes_.DeleteSubrange(kept, nodes_.size() - kept);
  }

  NodeList& nodes_;
  const std::set<std::string> outputs_;
  const std::map<std::string, const onnx::TensorProto*>& tensors_;
  const TensorReader& reader_;
  std::map<std::string, int> readers_;
  std::map<std::string, NodeProto*> makers_;
  std::set<const NodeProto*> left_out_;
};

int64_t convert_graph(onnx::GraphProto& graph, std::map<std::string, const onnx::TensorProto*> tensors,
                      const TensorReader& reader, Problems& problems) {
  int64_t dropouts = 0;
  for (const onnx::TensorProto& tensor : graph.initializer()) tensors[tensor.name()] = &tensor;
  for (NodeProto& node : *graph.mutable_node())
    for (onnx::AttributeProto& attribute : *node.mutable_attribute())
      if (attribute.has_g()) dropouts += convert_graph(*attribute.mutable_g(), tensors, reader, problems);
  std::set<std::string> outputs;
  for (const onnx::ValueInfoProto& output : graph.output()) outputs.insert(output.name());
  return dropouts + Body(*graph.mutable_node(), std::move(outputs), tensors, reader).convert(problems);
}

constexpr const char* kLeftOut = "halfstep.dropouts_left_out";

}  // namespace

void make_inference(onnx::ModelProto& model, const TensorReader& reader, Problems& problems) {
  int64_t dropouts = dropouts_left_out(model) + convert_graph(*model.mutable_graph(), {}, reader, problems);
  const std::map<std::string, const onnx::TensorProto*> none;
  for (onnx::FunctionProto& function : *model.mutable_functions())
    dropouts += Body(*function.mutable_node(), {function.output().begin(), function.output().end()}, none, reader)
                    .convert(problems);
  if (dropouts > 0) add_metadata(model, {{kLeftOut, std::to_string(dropouts)}});
}

int64_t dropouts_left_out(const onnx::ModelProto& model) {
  int64_t count = 0;
  for (const onnx::StringStringEntryProto& entry : model.metadata_props())
    if (const std::string& text = entry.value(); entry.key() == kLeftOut)
      if (std::from_chars(text.data(), text.data() + text.size(), count).ec != std::errc() || count < 0) count = 0;
  return count;
}

}  // namespace halfstep
