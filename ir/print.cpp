#include <fmt/format.h>

#include "base/error.h"
#include "ir/op.h"
#include "ir/text.h"

namespace halfstep {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (c == '\n')
      result += "\\n";
    else
      result += c;
  }
  return result + "\"";
}

// Shortest text that reads back as the same double; always with a point, an exponent, inf or nan.
std::string number_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".einf") == std::string::npos) text += ".0";
  return text;
}

std::string element_text(const Tensor& tensor, int64_t index) {
  if (tensor.type.dtype == DType::i64) return std::to_string(tensor.as<int64_t>()[static_cast<size_t>(index)]);
  if (tensor.type.dtype == DType::f32) return fmt::format("{}", tensor.as<float>()[static_cast<size_t>(index)]);
  return fmt::format("{}", tensor.at(index));
}

void print_graph(std::string& out, const Graph& graph, const std::string& indent);

struct AttributePrinter {
  const std::string& indent;
  std::string operator()(int64_t v) const { return std::to_string(v); }
  std::string operator()(double v) const { return number_text(v); }
  std::string operator()(const std::string& v) const { return quoted(v); }
  std::string operator()(DType v) const { return std::string(name(v)); }
  std::string operator()(const Ints& v) const { return to_string(Shape(v)); }
  std::string operator()(const Tensor& v) const {
    std::string text = to_string(v.type) + "(";
    for (int64_t i = 0; i < v.type.element_count(); ++i) text += (i ? ", " : "") + element_text(v, i);
    return text + ")";
  }
  std::string operator()(const Region& v) const {
    std::string text;
    print_graph(text, *v, indent + "  ");
    return text.substr(0, text.size() - 1);
  }
};

// Values print as %number in order; names that people know stand in the leaves and origins.
std::vector<std::vector<std::string>> value_names(const Graph& graph) {
  std::vector<std::vector<std::string>> names(graph.nodes().size());
  int next = 0;
  for (NodeId id = 0; id < graph.size(); ++id)
    for (size_t r = 0; r < graph.node(id).results.size(); ++r)
      names[static_cast<size_t>(id)].push_back("%" + std::to_string(next++));
  return names;
}

std::string attributes_text(const Node& node, const std::string& indent) {
  std::string text;
  for (const auto& [key, value] : node.attributes) {
    if (is_leaf(*node.op) && (key == "dtype" || key == "shape")) continue;
    bool defaulted = false;
    for (const AttributeSpec& spec : node.op->attributes)
      defaulted |= spec.name == key && spec.need == AttributeSpec::defaulted && spec.default_value == value;
    if (!defaulted) text += (text.empty() ? "" : ", ") + key + "=" + std::visit(AttributePrinter{indent}, value);
  }
  return text.empty() ? "" : " {" + text + "}";
}

void print_graph(std::string& out, const Graph& graph, const std::string& indent) {
  const auto names = value_names(graph);
  const auto name_of = [&](Value v) {
    return v ? names[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)] : std::string("_");
  };
  out += "graph " + graph.name() + " {\n";
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    out += indent + "  ";
    for (size_t r = 0; r < node.results.size(); ++r) out += (r ? ", " : "") + names[static_cast<size_t>(id)][r];
    out += " = " + std::string(node.op->name) + "(";
    for (size_t i = 0; i < node.operands.size(); ++i) out += (i ? ", " : "") + name_of(node.operands[i]);
    out += ")" + attributes_text(node, indent) + " : ";
    for (size_t r = 0; r < node.results.size(); ++r) out += (r ? ", " : "") + to_string(node.results[r]);
    if (!node.origin.name.empty() || node.origin.phase != Phase::forward) out += " @" + quoted(node.origin.name);
    if (node.origin.phase != Phase::forward) out += " " + std::string(name(node.origin.phase));
    out += "\n";
  }
  for (const NamedValue& o : graph.outputs())
    out += indent + "  output " + (o.name.is(Role::model) ? "" : std::string(name(o.name.role)) + " ") +
           quoted(o.name.text) + " = " + name_of(o.value) + "\n";
  for (const StateUpdate& u : graph.updates())
    out += indent + "  update " + name_of(u.state) + " = " + name_of(u.value) + "\n";
  out += indent + "}\n";
}

}  // namespace

std::string print(const Graph& graph) {
  std::string text;
  print_graph(text, graph, "");
  return text;
}

}  // namespace halfstep
