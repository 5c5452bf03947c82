#include "frontend/node_context.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>

#include "base/error.h"
#include "frontend/operators.h"

namespace halfstep {
namespace {

using Type = onnx::AttributeProto;

std::string type_name(Type::AttributeType type) { return Type::AttributeType_Name(type); }

// The shortest decimal number that is this float: what its author wrote, 1e-05 and not 9.99999974e-06.
double as_written(float value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double result = value;
  std::from_chars(text.data(), end, result);
  return result;
}

}  // namespace

NodeContext::NodeContext(Importer& importer, const onnx::NodeProto& node, const Scope& scope, std::string name,
                         int version)
    : b(importer.builder()),
      version(version),
      importer_(importer),
      node_(node),
      scope_(scope),
      name_(std::move(name)) {}

void NodeContext::fail(const std::string& what) const {
  throw Error("node " + operator_name(node_) + " '" + name_ + "': " + what);
}

void NodeContext::check_operands(int least, int most) const {
  for (const std::string& input : node_.input())
    if (!input.empty() && scope_.find(input)->kind == Binding::unsupported)
      fail("operand '" + input + "': this result of its operator is not supported");
  const int given = node_.input_size();
  if (given >= least && given <= most) return;
  std::string range = std::to_string(least);
  if (most > least) range = most == kVariadic ? "at least " + range : range + " to " + std::to_string(most);
  fail(std::to_string(given) + " operands given, " + range + " expected");
}

// ---- operands ----

bool NodeContext::has_operand(size_t i) const {
  return i < operand_count() && !node_.input(static_cast<int>(i)).empty() && binding(i).kind != Binding::left_out;
}

const Binding& NodeContext::binding(size_t i) const { return *scope_.find(node_.input(static_cast<int>(i))); }

Value NodeContext::operand(size_t i) {
  if (!has_operand(i)) fail("operand " + std::to_string(i) + " is left out");
  return importer_.read(binding(i));
}

Value NodeContext::optional_operand(size_t i) { return has_operand(i) ? operand(i) : Value{}; }

std::vector<Value> NodeContext::operands() {
  std::vector<Value> values;
  for (size_t i = 0; i < operand_count(); ++i) values.push_back(operand(i));
  return values;
}

Tensor NodeContext::constant(size_t i, const std::string& what) {
  if (!has_operand(i)) fail("operand " + what + " is left out");
  const Binding& from = binding(i);
  if (from.kind == Binding::initializer) return importer_.inputs().reader.read(*from.tensor);
  const std::optional<Tensor> value = importer_.constants().evaluate(from.as_value);
  if (!value)
    fail("operand " + what + " '" + node_.input(static_cast<int>(i)) +
         "' must be known when the model is compiled, but it depends on the data");
  return *value;
}

Ints NodeContext::ints(size_t i, const std::string& what) {
  const Tensor value = constant(i, what);
  if (is_floating(value.type.dtype) || value.type.shape.size() > 1)
    fail("operand " + what + ": a list of integers expected, found " + to_string(value.type));
  const Tensor wide = value.type.dtype == DType::i64 ? value : value.cast(DType::i64);
  return Ints(wide.as<int64_t>().begin(), wide.as<int64_t>().end());
}

double NodeContext::number(size_t i, const std::string& what) {
  const Tensor value = constant(i, what);
  if (value.type.element_count() != 1)
    fail("operand " + what + ": one number expected, found " + to_string(value.type));
  return value.at(0);
}

bool NodeContext::is_constant(size_t i) { return importer_.constants().is_constant(operand(i)); }

// ---- attributes ----

bool NodeContext::has_attribute(const std::string& name) const {
  return std::any_of(node_.attribute().begin(), node_.attribute().end(),
                     [&](const onnx::AttributeProto& a) { return a.name() == name; });
}

const onnx::AttributeProto* NodeContext::attribute(const std::string& name, Type::AttributeType type) {
  known_attributes_.insert(name);
  for (const onnx::AttributeProto& a : node_.attribute()) {
    if (a.name() != name) continue;
    // Files older than IR version 2 leave the type out.
    if (a.has_type() && a.type() != Type::UNDEFINED && a.type() != type)
      fail("attribute '" + name + "' is of kind " + type_name(a.type()) + ", " + type_name(type) + " expected");
    return &a;
  }
  return nullptr;
}

int64_t NodeContext::integer(const std::string& name, int64_t otherwise) {
  const onnx::AttributeProto* a = attribute(name, Type::INT);
  return a ? a->i() : otherwise;
}

int64_t NodeContext::integer(const std::string& name) {
  const onnx::AttributeProto* a = attribute(name, Type::INT);
  if (!a) fail("attribute '" + name + "' is missing");
  return a->i();
}

double NodeContext::number(const std::string& name, double otherwise) {
  const onnx::AttributeProto* a = attribute(name, Type::FLOAT);
  return a ? as_written(a->f()) : otherwise;
}

std::string NodeContext::text(const std::string& name, const std::string& otherwise) {
  const onnx::AttributeProto* a = attribute(name, Type::STRING);
  return a ? a->s() : otherwise;
}

Ints NodeContext::int_list(const std::string& name, const Ints& otherwise) {
  const onnx::AttributeProto* a = attribute(name, Type::INTS);
  return a ? Ints(a->ints().begin(), a->ints().end()) : otherwise;
}

std::vector<double> NodeContext::number_list(const std::string& name) {
  const onnx::AttributeProto* a = attribute(name, Type::FLOATS);
  std::vector<double> values;
  if (a) std::transform(a->floats().begin(), a->floats().end(), std::back_inserter(values), as_written);
  return values;
}

Tensor NodeContext::tensor(const std::string& name) {
  const onnx::AttributeProto* a = attribute(name, Type::TENSOR);
  if (!a) fail("attribute '" + name + "' is missing");
  return importer_.inputs().reader.read(a->t());
}

const onnx::GraphProto& NodeContext::subgraph(const std::string& name) {
  const onnx::AttributeProto* a = attribute(name, Type::GRAPH);
  if (!a) fail("attribute '" + name + "' is missing");
  return a->g();
}

void NodeContext::ignore(std::initializer_list<const char*> names) {
  known_attributes_.insert(names.begin(), names.end());
}

void NodeContext::check_attributes_known() const {
  for (const onnx::AttributeProto& a : node_.attribute())
    if (!known_attributes_.contains(a.name())) fail("attribute '" + a.name() + "' has no meaning here");
}

size_t NodeContext::axis(int64_t value, size_t rank) const {
  const auto n = static_cast<int64_t>(rank);
  if (value < -n || value >= n) fail("axis " + std::to_string(value) + " is outside rank " + std::to_string(rank));
  return static_cast<size_t>(value < 0 ? value + n : value);
}

size_t NodeContext::axis_or_end(int64_t value, size_t rank) const {
  return value == static_cast<int64_t>(rank) ? rank : axis(value, rank);
}

// ---- results ----

bool NodeContext::wants(size_t i) const {
  return i < static_cast<size_t>(node_.output_size()) && !node_.output(static_cast<int>(i)).empty();
}

// ---- the exported batch ----

Shape NodeContext::exported_shape(size_t i) {
  const Shape now = shape(i);
  importer_.recording().shapes[record_key(i)] = now;
  const Recording* recorded = importer_.inputs().recorded;
  if (!recorded) return now;
  const auto found = recorded->shapes.find(record_key(i));
  return found == recorded->shapes.end() ? now : found->second;
}

bool NodeContext::is_baked(size_t i, const Ints& value) {
  importer_.recording().constants[record_key(i)] = value;
  const Recording* recorded = importer_.inputs().recorded;
  if (!recorded) return false;
  const auto found = recorded->constants.find(record_key(i));
  return found != recorded->constants.end() && found->second == value;
}

void NodeContext::align_repetitions(std::vector<Value>& values, std::optional<size_t> except_axis) {
  if (!batch_changed()) return;
  size_t rank = 0;
  for (Value v : values) rank = std::max(rank, b.shape(v).size());
  for (size_t from_end = 1; from_end <= rank; ++from_end) {
    if (except_axis && rank - from_end == *except_axis) continue;
    int64_t size = 1;
    const auto size_of = [&](Value v) {
      const Shape s = b.shape(v);
      return s.size() < from_end ? 1 : s[s.size() - from_end];
    };
    for (Value v : values)
      if (size_of(v) != 1 && size_of(v) != batch().exported) size = size_of(v);
    for (Value& v : values) {
      if (size == 1 || size_of(v) == 1 || size_of(v) == size) continue;
      const Node repeated = b.graph().node(v);
      Shape to = b.shape(v);
      if (repeated.op->name != "broadcast" || b.shape(repeated.operands[0])[to.size() - from_end] != 1) continue;
      to[to.size() - from_end] = size;
      v = b.broadcast(repeated.operands[0], to);
    }
  }
}

// ---- the model around the node ----

Value NodeContext::state_operand(size_t i) {
  if (!has_operand(i)) fail("operand " + std::to_string(i) + " is left out");
  const Binding& from = binding(i);
  return from.kind == Binding::initializer ? importer_.state_leaf(*from.tensor) : operand(i);
}

bool NodeContext::is_initializer(size_t i) const { return binding(i).kind == Binding::initializer; }

bool NodeContext::is_updatable(size_t i) const {
  return is_initializer(i) && !importer_.is_frozen(binding(i).tensor->name());
}

void NodeContext::initialise(Value v, FreshRule rule) {
  const auto op_of = [&](Value value) -> const Op& { return *b.graph().node(value).op; };
  while (op_of(v).name == "cast" || (op_of(v).kernel == KernelKind::movement && b.graph().node(v).operands.size() == 1))
    v = b.graph().node(v).operands[0];
  if (is_leaf(op_of(v))) importer_.set_fresh_rule(v, rule);
}

Value permute(Builder& b, Value v, Ints permutation) {
  const Node node = b.graph().node(v);
  if (node.op->name != "transpose") return b.transpose(v, std::move(permutation));
  const Ints& first = node.attributes.ints("permutation");
  for (int64_t& axis : permutation) axis = first[static_cast<size_t>(axis)];
  return b.transpose(node.operands[0], std::move(permutation));
}

}  // namespace halfstep
