#include "frontend/repairs/scalar_weights.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numbers>
#include <ranges>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace halfstep {
namespace {

constexpr double kTolerance = 1e-6;  // relative, of a number in float32
constexpr double kLargestWhole = 1e6;
constexpr double kEpsilon = 1e-3;  // and what is smaller

bool close(double a, double b) { return std::abs(a - b) <= kTolerance * std::abs(b); }

bool is_whole(double v) { return v > 1.5 && v < kLargestWhole && close(v, std::round(v)); }

// Numbers that people write into formulas.
bool is_formulas(double v) {
  const double size = std::abs(v);
  if (!std::isfinite(v) || v == -1) return true;
  if (size == 0 || size == 1) return false;
  if (size <= kEpsilon || is_whole(size * size) || is_whole(1 / (size * size))) return true;
  for (const double known :
       {0.044715, 1.702, std::sqrt(2 / std::numbers::pi), std::sqrt(8 / std::numbers::pi),
        1 / std::sqrt(2 * std::numbers::pi), std::numbers::pi, 2 * std::numbers::pi, std::numbers::pi / 2,
        std::numbers::ln2, std::numbers::log2e, std::numbers::ln10, std::numbers::log10e, std::numbers::e})
    if (close(size, known) || close(1 / size, known)) return true;
  return false;
}

// Names of one part only: those with dots are paths of modules.
bool is_operators_name(const std::string& name) {
  static const std::set<std::string> kOperators{"abs",
                                                "add",
                                                "arange",
                                                "ceil",
                                                "clamp",
                                                "clone",
                                                "cos",
                                                "cast",
                                                "constant",
                                                "const",
                                                "convert",
                                                "copy",
                                                "div",
                                                "eps",
                                                "epsilon",
                                                "erf",
                                                "exp",
                                                "expand",
                                                "float",
                                                "floor",
                                                "full",
                                                "half",
                                                "inf",
                                                "item",
                                                "lift_fresh_copy",
                                                "log",
                                                "max",
                                                "mean",
                                                "min",
                                                "mul",
                                                "neg",
                                                "number",
                                                "one",
                                                "ones",
                                                "pi",
                                                "pow",
                                                "reciprocal",
                                                "relu",
                                                "rsqrt",
                                                "rsub",
                                                "scalar",
                                                "scalar_tensor",
                                                "sigmoid",
                                                "sin",
                                                "slice",
                                                "sqrt",
                                                "squeeze",
                                                "sub",
                                                "sum",
                                                "tanh",
                                                "three",
                                                "to",
                                                "truediv",
                                                "two",
                                                "unsqueeze",
                                                "view",
                                                "where",
                                                "zero",
                                                "zeros",
                                                "_to_copy",
                                                "x",
                                                "y"};
  std::string stem = name;
  while (!stem.empty() && std::isdigit(static_cast<unsigned char>(stem.back()))) stem.pop_back();
  while (!stem.empty() && stem.back() == '_') stem.pop_back();
  std::transform(stem.begin(), stem.end(), stem.begin(), [](unsigned char c) { return std::tolower(c); });
  return stem.empty() || kOperators.contains(stem);
}

bool is_given_name(std::string name) {
  for (const std::string_view mark :
       {"onstant", "const", "Const", "lifted_tensor", "scalar_tensor", "iteral", "::", "eps", "Eps"})
    if (name.find(mark) != std::string::npos) return false;
  if (is_exporters_name(name) || name.starts_with("/")) return false;
  if (name.ends_with(":0")) name.resize(name.size() - 2);
  // TensorFlow's operands of a node are called after it: "model/scale/mul/y".
  if (name.ends_with("/x") || name.ends_with("/y")) return false;
  const size_t part = name.find_last_of('/');
  if (part != std::string::npos) name = name.substr(part + 1);
  return name.find('.') != std::string::npos || !is_operators_name(name);
}

class Roles {
 public:
  // `candidates`: what `is_weight` may be asked of.
  Roles(const onnx::GraphProto& graph, const std::vector<const onnx::TensorProto*>& candidates) {
    for (const onnx::TensorProto* tensor : candidates) follow(tensor->name());
    for (const onnx::ValueInfoProto& input : graph.input()) activations_.insert(input.name());
    for (const onnx::TensorProto& tensor : graph.initializer()) activations_.erase(tensor.name());
    for (const onnx::NodeProto& node : graph.node()) {
      const bool draws = node.op_type().starts_with("Random") || node.op_type() == "Bernoulli";
      bool depends = false, random = draws, of_candidate = false;
      // Of CastLike's second operand the type alone is read.
      const int operands = node.op_type() == "CastLike" ? std::min(node.input_size(), 1) : node.input_size();
      for (int i = 0; i < operands; ++i) {
        const std::string& input = node.input(i);
        depends |= !draws && activations_.contains(input);
        random |= random_.contains(input);
        const auto found = readers_.find(input);
        if (found == readers_.end()) continue;
        if (found->second.empty() || found->second.back() != &node) found->second.push_back(&node);
        of_candidate = true;
      }
      // Values computed in the nodes' own graphs may depend on anything.
      for (const onnx::AttributeProto& attribute : node.attribute()) depends |= attribute.has_g();
      if (depends && node.op_type() != "Shape" && node.op_type() != "Size")
        activations_.insert(node.output().begin(), node.output().end());
      else if (random)
        random_.insert(node.output().begin(), node.output().end());
      else if (of_candidate && kElementwise.contains(node.op_type()) && node.output_size() > 0)
        follow(node.output(0));
    }
    // What is computed of a value stands behind it.
    for (const std::string& value : followed_ | std::views::reverse) weights_[value] = goes_to_activations(value);
  }

  // Whether everything that reads the value multiplies or adds it to an activation.
  bool is_weight(const std::string& value) const {
    const auto known = weights_.find(value);
    return known != weights_.end() && known->second;
  }

  // Whether a number is computed with it, where an operator's setting would be no weight: the bound of a Clip.
  bool is_operand(const std::string& value) const {
    const auto readers = readers_.find(value);
    return readers != readers_.end() && std::ranges::any_of(readers->second, [&](const onnx::NodeProto* node) {
             const std::string& op = node->op_type();
             return node->input(0) == value ? kElementwise.contains(op) || op == "Concat"
                                            : kCombines.contains(op) || kTakesAny.contains(op);
           });
  }

  // A one is no summand that was trained, and a zero is nothing to subtract.
  bool is_neutral(const std::string& value, double number) const {
    const auto readers = readers_.find(value);
    if (readers == readers_.end()) return false;
    return std::any_of(readers->second.begin(), readers->second.end(), [&](const onnx::NodeProto* node) {
      const std::string& op = node->op_type();
      return number == 1 ? op == "Add" || op == "Sub" || op == "Div" : number == 0 && op == "Sub";
    });
  }

 private:
  bool varies(const std::string& value) const { return activations_.contains(value) || random_.contains(value); }

  void follow(const std::string& value) {
    if (readers_.try_emplace(value).second) followed_.push_back(value);
  }

  bool goes_to_activations(const std::string& value) const {
    bool any = false;
    for (const onnx::NodeProto* node : readers_.at(value)) {
      if (node->input_size() == 0 || node->output_size() == 0) return false;
      // Which branch is taken trains nothing; compared with what varies it is a rate or a bound.
      if (kCompares.contains(node->op_type()) && !varies(node->output(0))) continue;
      if (!takes_weight(*node, value)) return false;
      any = true;
    }
    return any;
  }

  bool takes_weight(const onnx::NodeProto& node, const std::string& value) const {
    const std::string& op = node.op_type();
    // No settings: an exponent, a bound.
    if (readers_.contains(node.output(0)))
      return (node.input(0) == value || kCombines.contains(op) || op == "Where") && is_weight(node.output(0));
    const bool second = node.input_size() >= 2 && node.input(1) == value;
    const bool combines =
        second ? kCombines.contains(op) || kReadWeights.contains(op) : op != "Div" && kCombines.contains(op);
    return combines && node.input_size() >= 2 && activations_.contains(node.input(second ? 0 : 1));
  }

  inline static const std::set<std::string> kCombines{"Mul", "Add", "Sub", "Div"};
  inline static const std::set<std::string> kReadWeights{"PRelu", "MatMul", "Gemm", "Conv", "ConvTranspose"};
  inline static const std::set<std::string> kCompares{"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"};
  inline static const std::set<std::string> kTakesAny{"Pow", "Max", "Min", "Where", "Concat"};
  inline static const std::set<std::string> kElementwise{
      "Identity",   "Cast", "CastLike", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Exp",
      "Log",        "Neg",  "Abs",      "Sigmoid", "Softplus",  "Tanh",    "Clip",   "Relu",
      "Reciprocal", "Sqrt", "Where",    "Pow",     "Mul",       "Add",     "Sub",    "Div"};

  std::unordered_set<std::string_view> activations_;
  std::unordered_set<std::string_view> random_;  // computed of random numbers and constants alone
  // Of the candidates and what is computed of them and constants alone.
  std::unordered_map<std::string_view, std::vector<const onnx::NodeProto*>> readers_;
  std::vector<std::string> followed_;  // its keys, in the file's order
  std::unordered_map<std::string_view, bool> weights_;
};

}  // namespace

ScalarWeights find_scalar_weights(const onnx::GraphProto& graph, const TensorReader& reader) {
  ScalarWeights found;
  std::vector<const onnx::TensorProto*> candidates;
  for (const onnx::TensorProto& tensor : graph.initializer())
    if (tensor.dims().empty() && tensor.data_type() == onnx::TensorProto::FLOAT) candidates.push_back(&tensor);
  if (candidates.empty()) return found;
  const Roles roles(graph, candidates);
  for (const onnx::TensorProto* tensor : candidates) {
    if (!roles.is_weight(tensor->name())) {
      if (is_given_name(tensor->name()) && roles.is_operand(tensor->name())) found.others.push_back(tensor->name());
      continue;
    }
    bool is_number = !is_given_name(tensor->name());
    if (!is_number && !reader.missing_file(*tensor)) {
      const double value = reader.read(*tensor).at(0);
      is_number = is_formulas(value) || roles.is_neutral(tensor->name(), value);
    }
    if (is_exporters_name(tensor->name())) continue;
    if (is_number)
      found.numbers.push_back(tensor->name());
    else
      found.weights.insert(tensor->name());
  }
  return found;
}

}  // namespace halfstep
