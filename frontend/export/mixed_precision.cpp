#include "frontend/export/mixed_precision.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>

#include "base/error.h"
#include "frontend/export/type_rows.h"
#include "frontend/onnx/exporter_metadata.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/onnx/validate.h"

namespace halfstep {
namespace {

using onnx::NodeProto;
using onnx::TensorProto;

constexpr int64_t kSmallConstant = 64;  // elements of one whose values a node computes with, as a bound or an epsilon

int32_t type_in_file(DType type) {
  return type == DType::f16 ? TensorProto::FLOAT16 : type == DType::bf16 ? TensorProto::BFLOAT16 : TensorProto::FLOAT;
}

// The tensors that branches and bodies of `node` name, those of the graph around it among them.
void add_names_inside(const NodeProto& node, std::set<std::string>& names) {
  const auto add = [&](const onnx::GraphProto& graph) {
    for (const NodeProto& inner : graph.node()) {
      names.insert(inner.input().begin(), inner.input().end());
      add_names_inside(inner, names);
    }
    for (const onnx::ValueInfoProto& output : graph.output()) names.insert(output.name());
  };
  for (const onnx::AttributeProto& attribute : node.attribute()) {
    if (attribute.has_g()) add(attribute.g());
    for (const onnx::GraphProto& graph : attribute.graphs()) add(graph);
  }
}

bool has_subgraph(const NodeProto& node) {
  return std::ranges::any_of(node.attribute(),
                             [](const onnx::AttributeProto& a) { return a.has_g() || !a.graphs().empty(); });
}

class Mixer {
 public:
  Mixer(OnnxModel model, const MixedPrecision& assignment)
      : assignment_(assignment), low_(assignment.low), reader_(model.reader()), result_{.model = std::move(model)} {}

  MixedModel run() {
    onnx::ModelProto& model = result_.model.edit();
    graph_ = model.mutable_graph();
    const Opsets opsets = opsets_of(model.opset_import());
    opset_ = opsets.contains("") ? opsets.at("") : 0;
    constexpr int64_t kWithNodeMetadata = 10;
    model.set_ir_version(std::max(model.ir_version(), kWithNodeMetadata));
    look_at_names();
    const std::vector<int> order = order_nodes(graph_->node()).order;
    NodeList before;
    before.Swap(graph_->mutable_node());
    for (int i : order) convert(*before.Mutable(i));
    drop_unread_movements();
    write_squares_as_products();
    store_weights();
    mend_value_types();
    return std::move(result_);
  }

 private:
  enum class Type : uint8_t { f32, low, other, unknown };

  void look_at_names() {
    for (const TensorProto& tensor : graph_->initializer()) {
      weights_.emplace(tensor.name(), &tensor);
      names_.insert(tensor.name());
      types_[tensor.name()] = tensor.data_type() == TensorProto::FLOAT ? Type::f32 : Type::other;
      if (tensor.data_type() == TensorProto::FLOAT) result_.weight_bytes_before += 4 * type_of(tensor).element_count();
    }
    for (const onnx::ValueInfoProto& input : graph_->input()) {
      inputs_.insert(input.name());
      names_.insert(input.name());
      types_[input.name()] = input.type().tensor_type().elem_type() == TensorProto::FLOAT ? Type::f32 : Type::other;
    }
    for (const onnx::ValueInfoProto& output : graph_->output()) kept_.insert(output.name());
    for (const NodeProto& node : graph_->node()) {
      add_names_inside(node, kept_);
      names_.insert(node.output().begin(), node.output().end());
      names_.insert(node.input().begin(), node.input().end());
      node_names_.insert(node.name());
    }
    names_.insert(kept_.begin(), kept_.end());
  }

  Type type_of_value(const std::string& name) const {
    const auto found = types_.find(name);
    return found == types_.end() ? Type::unknown : found->second;
  }

  static std::string unique(const std::string& wanted, std::set<std::string>& taken) {
    std::string name = wanted;
    for (int i = 1; !taken.insert(name).second; ++i) name = wanted + "_" + std::to_string(i);
    return name;
  }

  // The value in another type: a low copy of a weight, or a node Cast before its first reader.
  std::string in_type(const std::string& name, Type wanted) {
    if (type_of_value(name) == wanted) return name;
    const auto [known, added] = copies_.emplace(std::pair(name, wanted), "");
    if (!added) return known->second;
    const DType type = wanted == Type::low ? low_ : DType::f32;
    const std::string copy = unique(name + "_" + std::string(halfstep::name(type)), names_);
    known->second = copy;
    types_[copy] = wanted;
    if (weights_.contains(name) && !inputs_.contains(name)) {
      low_weights_.emplace_back(name, copy);
      return copy;
    }
    if (const auto moved = moved_weights_.find(name); moved != moved_weights_.end() && wanted == Type::low) {
      NodeProto twin = moved->second;
      *twin.mutable_input(0) = in_type(twin.input(0), Type::low);
      *twin.mutable_output(0) = copy;
      twin.set_name(unique(twin.name() + "_" + std::string(halfstep::name(low_)), node_names_));
      graph_->add_node()->Swap(&twin);
      return copy;
    }
    add_cast(name, copy, type, name);
    return copy;
  }

  void add_cast(const std::string& from, const std::string& to, DType type, const std::string& of,
                const std::string& reason = "") {
    NodeProto& cast = *graph_->add_node();
    cast.set_op_type("Cast");
    cast.set_name(unique(of + "_to_" + std::string(name(type)), node_names_));
    cast.add_input(from);
    cast.add_output(to);
    onnx::AttributeProto& attribute = *cast.add_attribute();
    attribute.set_name("to"), attribute.set_type(onnx::AttributeProto::INT), attribute.set_i(type_in_file(type));
    if (!reason.empty()) set_metadata(cast, "halfstep.reason", reason);
    ++result_.casts;
  }

  // The elements of an initializer or a Constant of f32.
  std::optional<Tensor> constant(const std::string& name) const {
    const TensorProto* tensor = nullptr;
    if (const auto weight = weights_.find(name); weight != weights_.end() && !inputs_.contains(name))
      tensor = weight->second;
    else if (const auto found = constants_.find(name); found != constants_.end())
      tensor = &found->second;
    if (!tensor || type_of(*tensor).element_count() > kSmallConstant) return std::nullopt;
    return reader_.read(*tensor);
  }

  bool rounds(const std::string& name) const {
    const std::optional<Tensor> value = constant(name);
    if (!value) return false;
    return std::ranges::any_of(value->values(), [&](double v) { return round_to(low_, v) != v && !std::isnan(v); });
  }

  static bool is_contraction(const std::string& op) {
    static const std::set<std::string> contractions{"Conv",      "ConvTranspose", "MatMul", "Gemm", "Einsum",
                                                    "Attention", "LSTM",          "GRU",    "RNN"};
    return contractions.contains(op);
  }
  bool is_constant(const std::string& name) const { return weights_.contains(name) || constants_.contains(name); }

  // `why`: where it stays f32 whatever is assigned.
  Type choose(const NodeProto& node, const TypeRow& row, const NodeAssignment* assigned, std::string& why) const {
    bool all_low = true, any_low = false;
    const auto stays = [&](const std::string& reason) {
      if (assigned && is_low(assigned->type)) why = "stays f32: " + reason;
      return Type::f32;
    };
    for (int i = 0; i < node.input_size(); ++i) {
      const std::string& operand = node.input(i);
      if (operand.empty() || row.operand(static_cast<size_t>(i)) != 'T') continue;
      const Type type = type_of_value(operand);
      if (type == Type::unknown) return stays(fmt::format("the type of '{}' is not known", operand));
      if (!is_constant(operand)) all_low &= type == Type::low, any_low |= type == Type::low;
      if (!is_contraction(node.op_type()) && type == Type::f32 && rounds(operand))
        return stays(fmt::format("{} does not hold the constant '{}'", halfstep::name(low_), operand));
    }
    if (!(low_ == DType::f16 ? row.f16 : row.bf16))
      return stays(fmt::format("{} of opset {} has no {}", node.op_type(), opset_, halfstep::name(low_)));
    // Before version 15 the statistics of a batch norm have the type of its data.
    if (node.op_type() == "BatchNormalization" && opset_ < 15)
      return stays(fmt::format("the statistics of a batch norm of opset {} have the type of its data", opset_));
    if (assigned) return is_low(assigned->type) ? Type::low : Type::f32;
    return all_low && any_low ? Type::low : Type::f32;
  }

  // f32 where it computes with floating numbers, low or not.
  Type kind_of(const NodeProto& node, const TypeRow& row) const {
    Type kind = Type::other;
    for (int i = 0; i < node.input_size(); ++i) {
      if (node.input(i).empty() || row.operand(static_cast<size_t>(i)) != 'T') continue;
      const Type type = type_of_value(node.input(i));
      if (type == Type::f32 || type == Type::low) return Type::f32;
      if (type == Type::unknown) kind = Type::unknown;
    }
    return kind;
  }

  void convert(NodeProto& node) {
    const TypeRow* row = canonical_domain(node.domain()).empty() && !has_subgraph(node)
                             ? find_type_row(node.op_type(), opset_)
                             : nullptr;
    if (!row) return keep(node);
    if (const Type kind = kind_of(node, *row); kind != Type::f32) return append(node, kind, row, nullptr, "");
    const auto found = node.output().empty() ? assignment_.nodes.end() : assignment_.nodes.find(node.output(0));
    const NodeAssignment* assigned = found == assignment_.nodes.end() ? nullptr : &found->second;
    std::string why = assigned ? assigned->reason : "";
    const Type type = choose(node, *row, assigned, why);
    for (int i = 0; i < node.input_size(); ++i) {
      const std::string operand = node.input(i);
      const Type has = type_of_value(operand);
      if (operand.empty() || (has != Type::f32 && has != Type::low)) continue;
      const char letter = row->operand(static_cast<size_t>(i));
      const bool follows = letter == 'T' || (letter == 'U' && !is_constant(operand));
      const bool rounded =
          type == Type::f32 && assigned && std::ranges::count(assigned->rounded_operands, static_cast<size_t>(i)) > 0;
      if (follows && rounded && can_round()) *node.mutable_input(i) = in_type(operand, Type::low);
      *node.mutable_input(i) = in_type(node.input(i), follows ? type : Type::f32);
    }
    static const std::set<std::string> movements{"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"};
    if (type == Type::f32 && movements.contains(node.op_type()) && node.output_size() == 1 &&
        (is_constant(node.input(0)) || moved_weights_.contains(node.input(0))) && !kept_.contains(node.output(0)))
      moved_weights_[node.output(0)] = node;
    append(node, type, row, assigned, why);
  }

  // Whether there is a Cast to the low type.
  bool can_round() const { return low_ == DType::f16 || opset_ >= 13; }

  // What computes as it did: it reads f32.
  void keep(NodeProto& node) {
    for (int i = 0; i < node.input_size(); ++i)
      if (type_of_value(node.input(i)) == Type::low) *node.mutable_input(i) = in_type(node.input(i), Type::f32);
    const auto attribute = [&](std::string_view wanted) -> const onnx::AttributeProto* {
      const auto found = std::ranges::find(node.attribute(), wanted, &onnx::AttributeProto::name);
      return found == node.attribute().end() ? nullptr : &*found;
    };
    Type type = Type::unknown;
    if (node.op_type() == "Cast") {
      const onnx::AttributeProto* to = attribute("to");
      type = to && to->i() == TensorProto::FLOAT ? Type::f32 : Type::other;
    } else if (node.op_type() == "Constant") {
      const onnx::AttributeProto *value = attribute("value"), *single = attribute("value_float"),
                                 *several = attribute("value_floats");
      type = (value && value->t().data_type() == TensorProto::FLOAT) || single || several ? Type::f32 : Type::other;
      if (type == Type::f32 && !node.output().empty()) remember_constant(node.output(0), value, single, several);
    } else if (node.op_type() == "ConstantOfShape") {
      const onnx::AttributeProto* value = attribute("value");
      type = !value || value->t().data_type() == TensorProto::FLOAT ? Type::f32 : Type::other;
    } else if (node.op_type() == "CastLike" && node.input_size() == 2) {
      type = type_of_value(node.input(1));
    } else if (node.op_type().starts_with("Random")) {
      const onnx::AttributeProto* dtype = attribute("dtype");
      type = !dtype || dtype->i() == TensorProto::FLOAT ? Type::f32 : Type::other;
    }
    for (const std::string& output : node.output())
      if (!output.empty()) types_[output] = type;
    graph_->add_node()->Swap(&node);
  }

  void remember_constant(const std::string& name, const onnx::AttributeProto* value, const onnx::AttributeProto* single,
                         const onnx::AttributeProto* several) {
    TensorProto& tensor = constants_[name];
    if (value) {
      tensor = value->t();
    } else {
      tensor.set_data_type(TensorProto::FLOAT);
      if (single) tensor.add_float_data(single->f());
      if (several) {
        tensor.add_dims(several->floats_size());
        for (float v : several->floats()) tensor.add_float_data(v);
      }
    }
    tensor.set_name(name);
  }

  void append(NodeProto& node, Type type, const TypeRow* row, const NodeAssignment* assigned, const std::string& why) {
    std::vector<std::pair<std::string, std::string>> restored;  // results under names that must stay f32
    std::vector<std::pair<std::string, std::string>> rounded;   // f32 results, and the name of the low ones
    bool computes = false;
    for (int i = 0; i < node.output_size(); ++i) {
      const std::string output = node.output(i);
      if (output.empty()) continue;
      const char letter = row->result(static_cast<size_t>(i));
      const bool is_typed = letter == 'T' || letter == 'U';
      computes |= is_typed;
      if (is_typed && type == Type::low && kept_.contains(output)) {
        const std::string inner = unique(output + "_" + std::string(name(low_)), names_);
        *node.mutable_output(i) = inner;
        types_[inner] = Type::low, types_[output] = Type::f32;
        copies_[{output, Type::low}] = inner;
        restored.emplace_back(inner, output);
        continue;
      }
      if (i == 0 && letter == 'T' && type == Type::f32 && assigned && assigned->rounds_result && can_round()) {
        const std::string wide = unique(output + "_f32", names_);
        *node.mutable_output(i) = wide;
        std::string low = output;
        if (kept_.contains(output)) {
          low = unique(output + "_" + std::string(name(low_)), names_);
          types_[output] = Type::f32, copies_[{output, Type::low}] = low;
          restored.emplace_back(low, output);
        }
        types_[wide] = Type::f32, types_[low] = Type::low;
        rounded.emplace_back(wide, low);
        continue;
      }
      const bool is_norm = node.op_type().ends_with("Normalization");  // beside whose result statistics stand
      types_[output] = is_typed ? type : is_norm ? Type::f32 : Type::other;
    }
    if (computes && (type == Type::low || type == Type::f32)) {
      set_metadata(node, "halfstep.precision", std::string(name(type == Type::low ? low_ : DType::f32)));
      if (!why.empty()) set_metadata(node, "halfstep.reason", why);
      result_.low_nodes += type == Type::low;
    }
    graph_->add_node()->Swap(&node);
    for (const auto& [from, to] : rounded) add_cast(from, to, low_, to, why);
    for (const auto& [from, to] : restored) add_cast(from, to, DType::f32, to);
  }

  // Movements of weights whose low twins took all their readers.
  void drop_unread_movements() {
    std::map<std::string, int> readers;
    for (const std::string& name : kept_) ++readers[name];
    for (const NodeProto& node : graph_->node())
      for (const std::string& operand : node.input()) ++readers[operand];
    auto& nodes = *graph_->mutable_node();
    for (int i = nodes.size(); i-- > 0;) {
      if (nodes[i].output_size() != 1 || !moved_weights_.contains(nodes[i].output(0)) ||
          readers[nodes[i].output(0)] > 0)
        continue;
      for (const std::string& operand : nodes[i].input()) --readers[operand];
      nodes.DeleteSubrange(i, 1);
    }
  }

  // (cast(x) - mean)^2 in a norm that is written out: ONNX Runtime 1.32 makes one LayerNormalization of the norm and
  // the cast, whose weights then have another type than x, and refuses the model. It knows no norm by a product.
  void write_squares_as_products() {
    std::map<std::string, const NodeProto*> makers;
    for (const NodeProto& node : graph_->node())
      for (const std::string& output : node.output()) makers[output] = &node;
    const auto made_by = [&](const std::string& value, std::string_view op) -> const NodeProto* {
      const auto maker = makers.find(value);
      return maker != makers.end() && maker->second->op_type() == op ? maker->second : nullptr;
    };
    for (NodeProto& node : *graph_->mutable_node()) {
      if (node.op_type() != "Pow" || node.input_size() != 2) continue;
      const std::optional<Tensor> exponent = constant(node.input(1));
      const NodeProto* centred = made_by(node.input(0), "Sub");
      const NodeProto* cast = centred ? made_by(centred->input(0), "Cast") : nullptr;
      if (!exponent || exponent->type.element_count() != 1 || exponent->at(0) != 2 || !cast ||
          type_of_value(cast->input(0)) != Type::low || exponent->type.shape.size() > 1)
        continue;
      node.set_op_type("Mul");
      *node.mutable_input(1) = node.input(0);
    }
  }

  static bool reads_shape(const NodeProto& node) {
    return (node.op_type() == "Shape" || node.op_type() == "Size") && node.input_size() == 1;
  }

  // Low copies beside the weights that are still read in f32, or in their place.
  void store_weights() {
    std::set<std::string> read = kept_;
    for (const NodeProto& node : graph_->node())
      if (!reads_shape(node)) read.insert(node.input().begin(), node.input().end());
    std::vector<TensorProto> copies;
    for (const auto& [name, copy] : low_weights_) copies.push_back(low_copy(*weights_.at(name), copy));
    std::map<std::string, std::string> replaced;  // by what
    for (const auto& [name, copy] : low_weights_)
      if (!read.contains(name)) replaced[name] = copy;
    for (NodeProto& node : *graph_->mutable_node())
      if (reads_shape(node))
        if (const auto found = replaced.find(node.input(0)); found != replaced.end())
          *node.mutable_input(0) = found->second;
    auto& stored = *graph_->mutable_initializer();
    for (int i = stored.size(); i-- > 0;)
      if (replaced.contains(stored[i].name())) stored.DeleteSubrange(i, 1);
    for (TensorProto& copy : copies) stored.Add()->Swap(&copy);
    result_.low_weights = static_cast<int64_t>(copies.size());
    for (const TensorProto& tensor : stored) {
      const bool is_ours = tensor.data_type() == type_in_file(low_);
      if (tensor.data_type() == TensorProto::FLOAT || is_ours)
        result_.weight_bytes += (is_ours ? 2 : 4) * type_of(tensor).element_count();
    }
  }

  TensorProto low_copy(const TensorProto& weight, const std::string& name) {
    const Tensor value = reader_.read(weight);
    std::string bytes(static_cast<size_t>(value.type.element_count()) * 2, '\0');
    const std::span<const float> floats = value.as<float>();
    int64_t lost = 0;
    for (size_t i = 0; i < floats.size(); ++i) {
      const uint16_t bits = low_ == DType::f16 ? half_from_float(floats[i]) : bfloat16_from_float(floats[i]);
      std::memcpy(bytes.data() + 2 * i, &bits, 2);
      const double kept = round_to(low_, floats[i]);
      lost += std::isfinite(floats[i]) && (!std::isfinite(kept) || (kept == 0 && floats[i] != 0));
    }
    if (lost > 0) result_.lost_weights.emplace_back(weight.name(), lost);
    TensorProto copy;
    copy.set_name(name);
    copy.mutable_dims()->CopyFrom(weight.dims());
    copy.set_data_type(type_in_file(low_));
    copy.set_raw_data(std::move(bytes));
    return copy;
  }

  void mend_value_types() {
    auto& values = *graph_->mutable_value_info();
    for (int i = values.size(); i-- > 0;) {
      const auto type = types_.find(values[i].name());
      if (type == types_.end())
        values.DeleteSubrange(i, 1);
      else if (type->second == Type::low)
        values.Mutable(i)->mutable_type()->mutable_tensor_type()->set_elem_type(type_in_file(low_));
    }
  }

  const MixedPrecision& assignment_;
  const DType low_;
  const TensorReader reader_;
  MixedModel result_;
  onnx::GraphProto* graph_ = nullptr;
  int64_t opset_ = 0;
  std::map<std::string, const TensorProto*> weights_;
  std::map<std::string, TensorProto> constants_;
  std::set<std::string> inputs_, kept_;  // kept_: outputs, and what branches and bodies read
  std::set<std::string> names_, node_names_;
  std::map<std::string, Type> types_;
  std::map<std::pair<std::string, Type>, std::string> copies_;
  std::map<std::string, NodeProto>
      moved_weights_;  // by result: the node, in f32, that a weight is reshaped or transposed by
  std::vector<std::pair<std::string, std::string>> low_weights_;  // and the name of the copy
};

}  // namespace

MixedModel mixed_precision(OnnxModel model, const MixedPrecision& assignment) {
  return Mixer(std::move(model), assignment).run();
}

}  // namespace halfstep
