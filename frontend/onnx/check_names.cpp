#include "frontend/onnx/check_names.h"

#include <algorithm>
#include <set>
#include <string>

#include "base/printable.h"

namespace halfstep {
namespace {

class NameCheck {
 public:
  explicit NameCheck(Problems& problems) : problems_(problems) {}

  void graph(const onnx::GraphProto& graph) {
    nodes(graph.node());
    for (const auto* values : {&graph.input(), &graph.output(), &graph.value_info()})
      for (const onnx::ValueInfoProto& value : *values) {
        see("value", value.name());
        for (const auto& d : value.type().tensor_type().shape().dim()) see("dimension", d.dim_param());
      }
    for (const onnx::TensorProto& t : graph.initializer()) tensor(t);
    for (const onnx::SparseTensorProto& tensor : graph.sparse_initializer()) see("initializer", tensor.values().name());
  }

  void function(const onnx::FunctionProto& function) {
    see("function", function.name());
    see("domain", function.domain());
    for (const auto* names : {&function.input(), &function.output(), &function.attribute()})
      for (const std::string& name : *names) see("value", name);
    nodes(function.node());
  }

 private:
  template <typename Nodes>
  void nodes(const Nodes& nodes) {
    for (const onnx::NodeProto& node : nodes) {
      see("node", node.name());
      see("operator", node.op_type());
      see("domain", node.domain());
      for (const auto* names : {&node.input(), &node.output()})
        for (const std::string& name : *names) see("value", name);
      for (const onnx::AttributeProto& attribute : node.attribute()) {
        see("attribute", attribute.name());
        if (attribute.has_t()) tensor(attribute.t());
        if (attribute.has_g()) graph(attribute.g());
        for (const onnx::GraphProto& g : attribute.graphs()) graph(g);
      }
    }
  }

  void tensor(const onnx::TensorProto& tensor) {
    see("initializer", tensor.name());
    for (const auto& entry : tensor.external_data()) see("external data", entry.value());
  }

  void see(const char* what, const std::string& name) {
    if (!holds_control_character(name) || !seen_.insert(name).second) return;
    problems_.add(std::string("the name of ") + what + " '" + printable(name) +
                  "' holds a control character: rename it in the model");
  }

  Problems& problems_;
  std::set<std::string> seen_;
};

}  // namespace

void check_names(const onnx::ModelProto& model, Problems& problems) {
  NameCheck check(problems);
  check.graph(model.graph());
  for (const onnx::FunctionProto& function : model.functions()) check.function(function);
}

}  // namespace halfstep
