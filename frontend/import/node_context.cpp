#include "frontend/import/node_context.h"

#include <algorithm>
#include <iterator>

#include "base/as_written.h"
#include "base/error.h"
#include "frontend/import/operators.h"

namespace halfstep {
namespace {

using Type = onnx::AttributeProto;

std::string type_name(Type::AttributeType type) { return Type::AttributeType_Name(type); }

}  // namespace

NodeContext::NodeContext(Importer& importer, const onnx::NodeProto& node, const Scope& scope, std::string name,
                         int version)
    : b(importer.builder()), version(version), importer_(importer), node_(node), scope_(scope), name_(std::move(name)) {
  bindings_.reserve(operand_count());
  for (const std::string& input : node.input()) bindings_.push_back(input.empty() ? nullptr : &scope.at(input));
}

void NodeContext::fail(const std::string& what) const {
  throw Error("node " + operator_name(node_) + " '" + name_ + "': " + what);
}

void NodeContext::check_operands(int least, int most) const {
  for (size_t i = 0; i < operand_count(); ++i)
    if (bindings_[i] && bindings_[i]->kind == Binding::unsupported)
      fail("operand '" + node_.input(static_cast<int>(i)) + "': this result of its operator is not supported");
  const int given = node_.input_size();
  if (given >= least && given <= most) return;
  std::string range = std::to_string(least);
  if (most > least) range = most == kVariadic ? "at least " + range : range + " to " + std::to_string(most);
  fail(std::to_string(given) + " operands given, " + range + " expected");
}

// ---- operands ----

bool NodeContext::has_operand(size_t i) const {
  return i < operand_count() && bindings_[i] && bindings_[i]->kind != Binding::left_out;
}

const Binding& NodeContext::binding(size_t i) const {
  if (i >= operand_count() || !bindings_[i]) fail("operand " + std::to_string(i) + " is left out");
  return *bindings_[i];
}

const NarrowType* NodeContext::narrow_type(size_t i) const {
  if (!has_operand(i)) return nullptr;
  const Binding& from = binding(i);
  return find_narrow_type(from.kind == Binding::initializer ? from.tensor->data_type() : from.narrow);
}

void NodeContext::refuse_narrow_operands() const {
  for (size_t i = 0; i < operand_count(); ++i)
    if (const NarrowType* type = narrow_type(i))
      fail("operand '" + node_.input(static_cast<int>(i)) + "': elements of type " + type->name +
           " are not supported here; cast them first");
}

Value NodeContext::operand(size_t i) {
  if (const auto respecialised = respecialised_.find(i); respecialised != respecialised_.end())
    return respecialised->second;
  if (i < read_.size() && read_[i]) return read_[i];
  if (!has_operand(i)) fail("operand " + std::to_string(i) + " is left out");
  if (binding(i).kind == Binding::sequence)
    fail("operand '" + node_.input(static_cast<int>(i)) + "': a tensor expected, found a sequence");
  read_.resize(operand_count());
  return read_[i] = importer_.read(binding(i));
}

Value NodeContext::optional_operand(size_t i) { return has_operand(i) ? operand(i) : Value{}; }

Value NodeContext::named_tensor(const std::string& name) {
  const Binding* found = scope_.find(name);
  if (!found || (found->kind != Binding::value && found->kind != Binding::initializer))
    fail("'" + name + "' is no tensor that is known before this node");
  return importer_.read(*found);
}

std::vector<Value> NodeContext::operands() {
  std::vector<Value> values;
  for (size_t i = 0; i < operand_count(); ++i) values.push_back(operand(i));
  return values;
}

Tensor NodeContext::constant(size_t i, const std::string& what) {
  if (!has_operand(i)) fail("operand " + what + " is left out");
  const Binding& from = binding(i);
  const bool as_stored = from.kind == Binding::initializer && !respecialised_.contains(i);
  if (as_stored) return importer_.read_constant(*from.tensor);
  const std::optional<Tensor> value = importer_.constants().evaluate(operand(i));
  if (!value)
    fail("operand " + what + " '" + node_.input(static_cast<int>(i)) +
         "' must be known when the model is compiled, but " + importer_.constants().reason(operand(i)));
  return *value;
}

Tensor NodeContext::untrained(size_t i, const std::string& what) {
  if (has_operand(i) && is_initializer(i) && importer_.is_trained(binding(i).tensor->name()))
    fail("operand " + what + " '" + binding(i).tensor->name() +
         "' must be known when the model is compiled, but it is to be trained: leave it out of --train");
  return constant(i, what);
}

Ints NodeContext::ints(size_t i, const std::string& what) {
  const Tensor value = constant(i, what);
  if (is_floating(value.type.dtype) || value.type.shape.size() > 1)
    fail("operand " + what + ": a list of integers expected, found " + to_string(value.type));
  const Tensor wide = value.type.dtype == DType::i64 ? value : value.cast(DType::i64);
  return Ints(wide.as<int64_t>().begin(), wide.as<int64_t>().end());
}

int64_t NodeContext::whole(size_t i, const std::string& what) {
  const Ints values = ints(i, what);
  if (values.size() != 1) fail("operand " + what + ": one integer expected, found " + std::to_string(values.size()));
  return values[0];
}

double NodeContext::number(size_t i, const std::string& what) {
  const Tensor value = constant(i, what);
  if (value.type.element_count() != 1)
    fail("operand " + what + ": one number expected, found " + to_string(value.type));
  return value.at(0);
}

bool NodeContext::is_constant(size_t i) { return importer_.constants().is_constant(operand(i)); }

const std::vector<Binding>& NodeContext::sequence(size_t i) {
  if (!has_operand(i)) fail("operand " + std::to_string(i) + " is left out");
  if (binding(i).kind != Binding::sequence)
    fail("operand '" + node_.input(static_cast<int>(i)) + "': a sequence expected, found a tensor");
  return binding(i).elements;
}

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
  if (const NarrowType* type = find_narrow_type(a->t().data_type())) set_narrow_type(0, *type);
  return importer_.inputs().reader.read(a->t());
}

std::vector<std::string> NodeContext::text_list(const std::string& name, const std::vector<std::string>& otherwise) {
  const onnx::AttributeProto* a = attribute(name, Type::STRINGS);
  return a ? std::vector<std::string>(a->strings().begin(), a->strings().end()) : otherwise;
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

// ---- sizes other than the exported ones ----

Dimensions NodeContext::dimensions(size_t i) {
  if (respecialised_.contains(i)) return numbers(shape(i));
  const Binding& from = binding(i);
  if (from.kind == Binding::initializer) {
    Shape stored = type_of(*from.tensor).shape;
    if (from.orientation == Tie::transposed) std::reverse(stored.begin(), stored.end());
    return numbers(stored);
  }
  return from.dimensions.empty() ? numbers(shape(i)) : from.dimensions;
}

// Counted from the start or from the end; one beyond the middle, or a divisor, may follow from the size itself.
void NodeContext::check_position(int64_t position, size_t i, size_t axis) {
  const Factors factors = dimensions(i)[axis];
  const int64_t exported = exported_sizes({factors})[0], wanted = wanted_sizes({factors})[0];
  if (exported == wanted || position == 0 || position >= exported || position <= -exported) return;
  const int64_t distance = std::abs(position);
  if (distance == 1 || (distance < exported - distance && exported % distance != 0)) return;
  fail("its position " + std::to_string(position) + " was exported for size " + std::to_string(exported) + " of axis " +
       std::to_string(axis) + ", and whether it stays so for " + std::to_string(wanted) + " cannot be proven");
}

NodeContext::Sizes NodeContext::sizes(size_t i, const std::string& what) {
  Sizes result{.now = ints(i, what), .exported = {}};
  result.exported = result.now;
  const Recording* recorded = importer_.inputs().recorded;
  if (!recorded)
    importer_.recording().constants[record_key(i)] = result.now;
  else if (const auto found = recorded->constants.find(record_key(i));
           found != recorded->constants.end() && found->second.size() == result.now.size())
    result.exported = found->second;
  return result;
}

void NodeContext::align(const std::vector<std::optional<size_t>>& axis_of_operand) {
  if (!importer_.inputs().recorded) return;
  std::vector<Factor> sizes(axis_of_operand.size());
  Factor joint;
  Factors factors;  // of the joint size
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (!axis_of_operand[i]) continue;
    const Dimensions all = dimensions(i);
    const size_t axis = *axis_of_operand[i];
    sizes[i] = {exported_sizes(all)[axis], wanted_sizes(all)[axis]};
    if (sizes[i].exported > joint.exported || (sizes[i].exported == joint.exported && !sizes[i].is_number()))
      joint = sizes[i], factors = all[axis];
  }
  if (joint.is_number()) return;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (!axis_of_operand[i] || sizes[i].exported != joint.exported || !sizes[i].is_number()) continue;
    follow(i, *axis_of_operand[i], factors);
  }
}

void NodeContext::follow(size_t i, size_t axis, const Factors& size) {
  const Value v = operand(i);
  Factor whole;
  for (const Factor& f : size) whole.exported *= f.exported, whole.wanted *= f.wanted;
  Value grown = v;
  try {
    int64_t inner = 1, outer = whole.exported;
    for (auto f = size.rbegin(); f != size.rend(); ++f) {
      outer /= f->exported;
      if (!f->is_number())
        grown = importer_.respecialisation().resize(
            grown, {.axis = axis, .from = f->exported, .to = f->wanted, .outer = outer, .inner = inner});
      inner *= f->wanted;
    }
  } catch (const Error& error) {
    fail("operand '" + node_.input(static_cast<int>(i)) + "' " + to_string(b.shape(v)) + " was made for size " +
         std::to_string(whole.exported) + " of axis " + std::to_string(axis) + ", and how it follows to " +
         std::to_string(whole.wanted) + " cannot be proven: " + error.what());
  }
  respecialised_[i] = grown;
}

void NodeContext::align_broadcast(size_t except_last) {
  if (!importer_.inputs().recorded) return;
  size_t rank = 0;
  for (size_t i = 0; i < operand_count(); ++i) rank = std::max(rank, shape(i).size());
  for (size_t from_end = except_last + 1; from_end <= rank; ++from_end) {
    std::vector<std::optional<size_t>> axes(operand_count());
    for (size_t i = 0; i < axes.size(); ++i)
      if (const size_t own = shape(i).size(); own >= from_end) axes[i] = own - from_end;
    align(axes);
  }
}

std::vector<Value> NodeContext::broadcast_operands() {
  align_broadcast();
  std::vector<Value> values = operands();
  Shape joint;
  for (Value v : values) {
    const Shape s = b.shape(v);
    if (s.size() > joint.size()) joint.insert(joint.begin(), s.size() - joint.size(), 1);
    for (size_t i = 1; i <= s.size(); ++i) {
      int64_t& size = joint[joint.size() - i];
      const int64_t other = s[s.size() - i];
      if (size != other && size != 1 && other != 1) {
        std::string shapes;
        for (Value w : values) shapes += (shapes.empty() ? "" : " and ") + to_string(b.shape(w));
        fail("shapes " + shapes + " do not broadcast");
      }
      if (size == 1) size = other;
    }
  }
  for (Value& v : values) v = b.broadcast(v, joint);
  return values;
}

std::vector<Binding> NodeContext::bind(std::vector<Value> results) {
  for (Value& v : results)
    if (v) v = importer_.folded(v);
  std::vector<Shape> shapes;
  for (Value v : results) shapes.push_back(v ? b.shape(v) : Shape());
  const Recording* recorded = importer_.inputs().recorded;
  const std::vector<Shape>* exported = nullptr;
  if (recorded)
    if (const auto found = recorded->results.find(name_); found != recorded->results.end()) exported = &found->second;
  std::vector<Dimensions> operands;
  for (size_t i = 0; exported && i < operand_count(); ++i)
    if (has_operand(i) && binding(i).kind != Binding::sequence) operands.push_back(dimensions(i));
  std::vector<Binding> bindings;
  for (size_t i = 0; i < results.size(); ++i) {
    bindings.push_back({.kind = results[i] ? Binding::value : Binding::failed, .as_value = results[i]});
    if (const auto narrow = narrow_results_.find(i); narrow != narrow_results_.end())
      bindings.back().narrow = narrow->second;
    const auto given = given_dimensions_.find(i);
    if (given != given_dimensions_.end())
      bindings.back().dimensions = given->second;
    else if (exported && i < exported->size() && (*exported)[i].size() == shapes[i].size())
      bindings.back().dimensions = inherit_dimensions(operands, (*exported)[i], shapes[i]);
  }
  if (!recorded) importer_.recording().results[name_] = std::move(shapes);
  return bindings;
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

bool NodeContext::starts_at_zero(size_t i) {
  const bool stored = is_initializer(i);
  if (stored && importer_.inputs().reader.missing_file(*binding(i).tensor)) return true;
  if (!stored && !is_constant(i)) return false;
  return std::ranges::all_of(constant(i, "initial state").values(), [](double v) { return v == 0; });
}

void NodeContext::initialise(Value v, Initializer rule) {
  const Node node = b.graph().node(v);
  if (is_leaf(*node.op)) return importer_.set_initializer(v, rule);
  if (node.op->name == "cast" || node.op->name == "concat" ||
      (node.op->kernel == KernelKind::movement && node.operands.size() == 1))
    for (Value operand : node.operands) initialise(operand, rule);
}

Value permute(Builder& b, Value v, Ints permutation) {
  const Node node = b.graph().node(v);
  if (node.op->name != "transpose") return b.transpose(v, std::move(permutation));
  const Ints& first = node.attributes.ints("permutation");
  for (int64_t& axis : permutation) axis = first[static_cast<size_t>(axis)];
  return b.transpose(node.operands[0], std::move(permutation));
}

Value stacked(Builder& b, const std::vector<Value>& values, size_t axis) {
  std::vector<Value> parts;
  for (Value v : values) {
    Shape shape = b.shape(v);
    shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(axis), 1);
    parts.push_back(b.reshape(v, shape));
  }
  return parts.size() == 1 ? parts[0] : b.call("concat", parts, {{"axis", static_cast<int64_t>(axis)}});
}

}  // namespace halfstep
