// Leaves: values that come from outside the graph; and `fused`, a region that becomes one kernel.
#include "ir/ops/families.h"

namespace halfstep {
namespace {

constexpr std::string_view kLeafReason = "a leaf has no operands";

std::vector<TensorType> declared_type(const TypeContext& c) {
  if (const Attribute* role = c.attributes.find("role"))
    ops::expect(parse_role(std::get<std::string>(*role)).has_value(), "a name has no such role");
  return {{c.attributes.dtype("dtype"), c.attributes.ints("shape")}};
}

std::vector<TensorType> parameter_type(const TypeContext& c) {
  const Ints& permutation = c.attributes.ints("permutation");
  ops::expect(permutation.empty() || permutation.size() == c.attributes.ints("shape").size(),
              "the permutation and the shape differ in rank");
  return declared_type(c);
}

std::vector<TensorType> constant_type(const TypeContext& c) { return {c.attributes.tensor("value").type}; }

void evaluate_constant(const EvaluateContext& c) { c.results[0] = c.node.attributes.tensor("value").values(); }

std::vector<TensorType> fused_type(const TypeContext& c) {
  const Graph& body = c.attributes.region("body");
  size_t inputs = 0;
  for (const Node& node : body.nodes())
    if (node.op->leaf == Leaf::input) {
      ops::expect(inputs < c.operands.size() && node.results[0] == c.operand(inputs),
                  "an operand differs from the body's input");
      ++inputs;
    }
  ops::expect(inputs == c.operands.size(), "the body has another number of inputs");
  std::vector<TensorType> results;
  for (const NamedValue& o : body.outputs()) results.push_back(body.type(o.value));
  return results;
}

std::vector<Value> expand_fused(const ExpandContext& c) {
  return inline_graph(c.node.attributes.region("body"), c.builder, c.operands);
}

const std::vector<AttributeSpec> kDeclared{{"name", std::string()},
                                           {"role", std::string(name(Role::model)), AttributeSpec::defaulted},
                                           {"dtype", DType::f32},
                                           {"shape", Ints()}};

const std::vector<Op> kOps{
    {.name = "input",
     .attributes = kDeclared,
     .type = declared_type,
     .not_differentiable = kLeafReason,
     .kernel = KernelKind::leaf,
     .leaf = Leaf::input},
    {.name = "parameter",
     .attributes = {{"name", std::string()},
                    {"dtype", DType::f32},
                    {"shape", Ints()},
                    {"permutation", Ints(), AttributeSpec::defaulted}},
     .type = parameter_type,
     .not_differentiable = kLeafReason,
     .kernel = KernelKind::leaf,
     .leaf = Leaf::parameter},
    {.name = "state",
     .attributes = kDeclared,
     .type = declared_type,
     .not_differentiable = kLeafReason,
     .kernel = KernelKind::leaf,
     .leaf = Leaf::state},
    {.name = "constant",
     .attributes = {{"value", Tensor()}},
     .type = constant_type,
     .not_differentiable = kLeafReason,
     .kernel = KernelKind::leaf,
     .leaf = Leaf::constant,
     .evaluate = evaluate_constant},
    {.name = "fused",
     .operands = {{"operands", OperandSpec::variadic}},
     .attributes = {{"body", Region()}},
     .type = fused_type,
     .not_differentiable = "fusion comes after differentiation",
     .kernel = KernelKind::fused,
     .expand = expand_fused},
};

}  // namespace

std::span<const Op> leaf_ops() { return kOps; }

}  // namespace halfstep
