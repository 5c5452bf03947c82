#include "frontend/import/importer.h"

#include <fnmatch.h>

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "frontend/import/function_body.h"
#include "frontend/import/node_context.h"
#include "frontend/import/operators.h"
#include "frontend/onnx/tables.h"
#include "frontend/onnx/tensor_data.h"
#include "ir/gradients.h"

namespace halfstep {
namespace {

constexpr int kDeepestNesting = 64;
constexpr int64_t kMostInlined = int64_t{1} << 30;     // bytes of function bodies, one for each call
constexpr int64_t kLargestFolded = 4096;               // elements; larger constant expressions stay expressions
constexpr int64_t kLargestMissing = int64_t{1} << 26;  // elements of a constant whose data is missing

// The first that has a name.
std::string first_result(const onnx::NodeProto& node) {
  const auto named = std::ranges::find_if(node.output(), [](const std::string& name) { return !name.empty(); });
  return named == node.output().end() ? std::string() : *named;
}

// f32 where it names none: exporters cast what it is drawn like before.
std::optional<DType> drawn_type(const onnx::NodeProto& node) {
  if (!node.op_type().starts_with("Random")) return std::nullopt;
  const auto named = std::ranges::find(node.attribute(), "dtype", &onnx::AttributeProto::name);
  return named == node.attribute().end() ? DType::f32 : element_type(static_cast<int32_t>(named->i()));
}

std::string graph_name(const onnx::GraphProto& graph) {
  std::string name = graph.name().empty() ? "model" : graph.name();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '.' && c != '-') c = '_';
  return name;
}

int64_t key_of(Value v) { return (static_cast<int64_t>(v.node) << 32) + v.result; }

// The newest of `versions` that `opset` knows, or 0.
int known_version(const std::vector<int>& versions, int64_t opset) {
  int known = 0;
  for (int version : versions)
    if (version <= opset) known = version;
  return known;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
}

// Extension domains are at version 1 where a file does not say.
int64_t opset_of(const Opsets& opsets, const std::string& domain) {
  const auto found = opsets.find(domain);
  return found == opsets.end() ? 1 : found->second;
}

// "'a', 'b'".
template <typename Range, typename Name>
std::string list(const Range& range, Name&& name) {
  std::string text;
  for (const auto& element : range) text += (text.empty() ? "'" : ", '") + name(element) + "'";
  return text;
}

}  // namespace

Importer::Importer(const Inputs& inputs)
    : inputs_(inputs),
      builder_(graph_name(inputs.model.graph())),
      constants_(builder_, inputs.options.budget),
      respecialisation_(builder_, constants_,
                        [this](const Node& leaf, size_t axis) { return repeated_leaf(leaf, axis); }),
      opsets_(opsets_of(inputs.model.opset_import())),
      repeated_leaves_(inputs.repeated) {
  for (const onnx::FunctionProto& function : inputs.model.functions())
    functions_[{canonical_domain(function.domain()), function.name()}] = &function;
}

const onnx::TensorProto* Importer::initializer(const std::string& leaf) const {
  const auto found = initializers_.find(leaf);
  return found == initializers_.end() ? nullptr : found->second;
}

Initializer Importer::initializer_of(const std::string& leaf, const Shape& shape) const {
  const auto found = fresh_initializers_.find(leaf);
  return found == fresh_initializers_.end() ? default_rule(shape) : found->second;
}

bool Importer::is_frozen(const std::string& name) const {
  return matches_any(inputs_.options.freeze, name) && !is_trained(name);
}
bool Importer::is_trained(const std::string& name) const { return matches_any(inputs_.options.train, name); }

void Importer::bind_initializers(const onnx::GraphProto& graph, Scope& scope) {
  for (const onnx::TensorProto& tensor : graph.initializer())
    scope.bindings[tensor.name()] = {.kind = Binding::initializer, .tensor = &tensor};
  for (const auto& [name, tie] : inputs_.ties)
    if (const auto found = scope.bindings.find(tie.to); found != scope.bindings.end() && scope.bindings.contains(name))
      scope.bindings[name] = {
          .kind = Binding::initializer, .tensor = found->second.tensor, .orientation = tie.orientation};
}

void Importer::bind_inputs(const onnx::GraphProto& graph, Scope& scope) {
  for (const onnx::ValueInfoProto& input : graph.input()) {
    if (scope.bindings.contains(input.name())) continue;  // an initializer, declared
    const std::optional<DType> dtype = element_type(input.type().tensor_type().elem_type());
    const Dimensions& dimensions = inputs_.shapes.at(input.name());
    if (const auto fixed = inputs_.options.values.find(input.name()); fixed != inputs_.options.values.end()) {
      const Value number = builder_.constant(dtype.value(), fixed->second);
      const Value all = builder_.broadcast(number, wanted_sizes(dimensions));
      scope.bindings[input.name()] = {.kind = Binding::value, .as_value = all, .dimensions = dimensions};
      continue;
    }
    const Value value = builder_.input(input.name(), {dtype.value(), wanted_sizes(dimensions)});
    scope.bindings[input.name()] = {.kind = Binding::value, .as_value = value, .dimensions = dimensions};
    input_names_.push_back(input.name());
  }
}

Value Importer::state_leaf(const onnx::TensorProto& tensor) {
  OriginScope no_origin(builder_, {});
  initializers_[tensor.name()] = &tensor;
  return builder_.state(tensor.name(), type_of(tensor));
}

Value Importer::read(const Binding& binding) {
  if (binding.orientation == Tie::transposed)
    return builder_.transpose(read({.kind = binding.kind, .tensor = binding.tensor}), {1, 0});
  if (binding.kind == Binding::value) return binding.as_value;
  require(binding.kind == Binding::initializer, "a binding that is read has a value");
  const onnx::TensorProto& tensor = *binding.tensor;
  const TensorType type = type_of(tensor);
  OriginScope no_origin(builder_, {});
  const bool trained = is_trained(tensor.name()), narrow = find_narrow_type(tensor.data_type()) != nullptr;
  const bool is_number = type.shape.empty() && !trained && !inputs_.scalars.contains(tensor.name());
  if (!is_floating(type.dtype) || narrow || is_number || type.element_count() == 0)
    return builder_.constant(read_constant(tensor));
  // A frozen table is a constant too: its values decide how precisely it is read.
  if (trained || inputs_.unfilled.contains(tensor.name())) {
    tables_.erase(tensor.name());
  } else if (tables_.contains(tensor.name()) ||
             (!initializers_.contains(tensor.name()) && is_table(tensor, inputs_.reader))) {
    tables_.insert(tensor.name());
    return builder_.constant(inputs_.reader.read(tensor));
  }
  if (is_frozen(tensor.name())) return state_leaf(tensor);
  initializers_[tensor.name()] = &tensor;
  if (tensor.data_type() != onnx::TensorProto::FLOAT) converted_parameters_.insert(tensor.name());
  const Value leaf = builder_.parameter(tensor.name(), leaf_type(tensor, inputs_.repeated));
  return builder_.broadcast(leaf, type.shape);
}

void Importer::keep_if_folded(const onnx::TensorProto& tensor) {
  const TensorType type = type_of(tensor);
  if (is_floating(type.dtype) && !type.shape.empty() && is_exporters_name(tensor.name()) &&
      !is_trained(tensor.name()) && !inputs_.unfilled.contains(tensor.name()) &&
      !initializers_.contains(tensor.name()) && !inputs_.reader.missing_file(tensor))
    tables_.insert(tensor.name());
}

Tensor Importer::read_constant(const onnx::TensorProto& tensor) {
  const std::optional<std::string> missing = inputs_.reader.missing_file(tensor);
  if (!missing) return inputs_.reader.read(tensor);
  const TensorType type = type_of(tensor);
  const bool is_new = missing_constants_.emplace(tensor.name(), *missing).second;
  if (is_new && type.element_count() > kLargestMissing)
    throw Error("tensor '" + tensor.name() + "': its data in '" + *missing + "' is missing, and " + to_string(type) +
                " is too large to go on without");
  Tensor value(type);
  if (type.dtype == DType::boolean)
    for (int64_t i = 0; i < type.element_count(); ++i) value.set(i, 1);
  return value;
}

// The exporter may write a weight that it expanded as that many copies. Trained are not the copies but what they
// repeat.
Value Importer::repeated_leaf(const Node& leaf, size_t axis) {
  const std::string& name = leaf.attributes.text("name");
  const onnx::TensorProto& tensor = *initializers_.at(name);
  // Where there is no data, only a batch is taken for one.
  const bool is_batch = std::any_of(inputs_.shapes.begin(), inputs_.shapes.end(), [&](const auto& input) {
    return !input.second.empty() && exported_sizes(input.second)[0] == leaf.results[0].shape[axis];
  });
  const bool proven = inputs_.reader.missing_file(tensor) ? is_batch : repeats(inputs_.reader.read(tensor), axis);
  if (!proven)
    throw Error("initializer '" + name + "' of " + to_string(type_of(tensor).shape) + " has a value of its own for " +
                "every place of axis " + std::to_string(axis));
  repeated_leaves_[name].insert(axis);
  OriginScope no_origin(builder_, {});
  TensorType type = leaf.results[0];
  type.shape[axis] = 1;
  return leaf.op->name == "state" ? builder_.state(name, type) : builder_.parameter(name, type);
}

Value Importer::state_value(Value state) const {
  const auto found = updates_.find(state);
  return found == updates_.end() ? state : found->second;
}

void Importer::set_initializer(Value parameter, Initializer rule) {
  fresh_initializers_.try_emplace(builder_.graph().node(parameter).attributes.text("name"), rule);
}

Value Importer::step_input(const Name& name, DType dtype) {
  OriginScope no_origin(builder_, {});
  return builder_.input(name, {dtype, {}});
}

void Importer::add_remark(const std::string& remark) {
  if (std::find(remarks_.begin(), remarks_.end(), remark) == remarks_.end()) remarks_.push_back(remark);
}

std::string Importer::unique_name(const std::string& name) {
  std::string unique = name;
  while (!node_names_.insert(unique).second) unique = name + "_" + std::to_string(++name_uses_[name] + 1);
  return unique;
}

// Small constant expressions become constants where they arise; a repeated value stays a broadcast of one.
Value Importer::folded(Value v) {
  const Node& node = builder_.graph().node(v);
  if (node.op->name == "constant" || node.op->name == "broadcast") return v;
  if (!constants_.is_constant(v) || builder_.type(v).element_count() > kLargestFolded) return v;
  OriginScope scope(builder_, node.origin);
  const std::optional<Tensor> value = constants_.evaluate(v);
  return value ? builder_.constant(*value) : v;
}

void Importer::refuse(const onnx::NodeProto& node, const std::string& name, const Scope& scope) {
  const std::string op = operator_name(node), domain = canonical_domain(node.domain());
  const OnnxOperator* row = find_onnx_operator(op);
  const bool optimised = domain.starts_with("com.microsoft.") || domain.starts_with("com.ms.internal");
  std::string reason =
      "operator " + op + " is not supported; " +
      (optimised ? "ONNX Runtime's optimizer wrote it for one processor: take the file from before that"
                 : "rewrite the model without it");
  if (row)
    reason = "operator " + op + " is not in opset " + std::to_string(opset_of(*scope.opsets, domain)) +
             " but from opset " + std::to_string(row->versions.front()) +
             " on; export the model again with a newer one";
  refusals_[reason].push_back(name);
}

std::vector<Binding> Importer::call_function(const onnx::FunctionProto& function, const onnx::NodeProto& node,
                                             const Scope& scope, const std::string& name) {
  const Opsets opsets = function.opset_import().empty() ? opsets_ : opsets_of(function.opset_import());
  Scope body{.prefix = name + "/", .opsets = &opsets};
  const auto refuse_call = [&](const std::string& what) {
    return Error("node " + operator_name(node) + " '" + name + "': " + what);
  };
  if (std::find(calls_.begin(), calls_.end(), &function) != calls_.end())
    throw refuse_call("function '" + function.name() + "' calls itself, through node '" + name + "'");
  if (node.output_size() > function.output_size())
    throw refuse_call(std::to_string(node.output_size()) + " results asked for, the function has " +
                      std::to_string(function.output_size()));
  if (node.input_size() > function.input_size())
    throw refuse_call(std::to_string(node.input_size()) + " operands given, the function has " +
                      std::to_string(function.input_size()));
  for (int i = 0; i < function.input_size(); ++i) {
    const bool given = i < node.input_size() && !node.input(i).empty();
    body.bindings[function.input(i)] = given ? scope.at(node.input(i)) : Binding{.kind = Binding::left_out};
  }
  inlined_bytes_ = checked_add(inlined_bytes_, static_cast<int64_t>(function.ByteSizeLong()), "functions");
  if (inlined_bytes_ > kMostInlined) throw refuse_call("the model's functions, inlined, take more than 1 GiB");
  function_bodies_.push_back(body_of_call(function, node));
  Problems problems;
  validate_body(function, function_bodies_.back(), problems);
  if (!problems.empty())
    throw refuse_call("function '" + function.name() +
                      "', with the attributes of this call: " + problems.messages().front());
  calls_.push_back(&function);
  import_nodes(function_bodies_.back(), body);
  calls_.pop_back();
  return read_results(body, {function.output().begin(), function.output().end()});
}

std::vector<Binding> Importer::read_results(const Scope& scope, const std::vector<std::string>& names) {
  std::vector<Binding> results;
  for (const std::string& name : names) {
    const Binding& binding = scope.at(name);
    if (binding.kind == Binding::unsupported)
      throw Error("result '" + scope.prefix + name + "' of its operator is not supported");
    results.push_back(binding);
    if (binding.kind != Binding::initializer) continue;
    results.back() = {.kind = Binding::value, .as_value = read(binding)};
    if (const NarrowType* type = find_narrow_type(binding.tensor->data_type())) results.back().narrow = type->onnx;
  }
  return results;
}

void Importer::count_iteration(const std::string& node) {
  if (const int64_t most = inputs_.options.budget.iterations; ++iterations_ > most)
    throw Error("node '" + node + "': more than " + std::to_string(most) +
                " iterations of all loops together (max_iterations)");
}

std::vector<Binding> Importer::import_body(const onnx::GraphProto& graph, const Scope& outer,
                                           const std::vector<Binding>& arguments, const std::string& suffix) {
  if (static_cast<size_t>(graph.input_size()) != arguments.size())
    throw Error("body '" + graph.name() + "' has " + std::to_string(graph.input_size()) + " inputs, " +
                std::to_string(arguments.size()) + " expected");
  // An empty body counts too: loops in loops would else take no end.
  const int64_t most = inputs_.options.budget.nodes;
  if (++imported_nodes_ > most)
    throw Error("body '" + graph.name() + "': the model has more than " + std::to_string(most) +
                " nodes with its loops unrolled (max_nodes)");
  Scope scope{.outer = &outer, .prefix = outer.prefix + suffix, .opsets = outer.opsets};
  bind_initializers(graph, scope);
  for (int i = 0; i < graph.input_size(); ++i)
    scope.bindings[graph.input(i).name()] = arguments[static_cast<size_t>(i)];
  import_nodes(graph.node(), scope);
  std::vector<std::string> names;
  for (const onnx::ValueInfoProto& output : graph.output()) names.push_back(output.name());
  return read_results(scope, names);
}

std::optional<std::vector<Binding>> Importer::import_results(const onnx::NodeProto& node, const std::string& name,
                                                             const Scope& scope) try {
  const std::string domain = canonical_domain(node.domain());
  const auto function = functions_.empty() ? functions_.end() : functions_.find({domain, node.op_type()});
  const OnnxOperator* row = find_onnx_operator(operator_name(node));
  const int version = row ? known_version(row->versions, opset_of(*scope.opsets, domain)) : 0;
  if (function == functions_.end() && version == 0) {
    refuse(node, name, scope);
    return std::nullopt;
  }
  for (const std::string& input : node.input())
    if (!input.empty() && scope.at(input).kind == Binding::failed) return std::nullopt;
  OriginScope origin(builder_, {name, Phase::forward});
  if (function != functions_.end()) return call_function(*function->second, node, scope, name);
  const bool unread = std::ranges::all_of(node.output(), [](const std::string& output) { return output.empty(); });
  if (unread && row->import) return std::vector<Binding>();
  NodeContext context(*this, node, scope, name, version);
  context.check_operands(row->least_operands, row->most_operands);
  if (row->narrow_operands == OnnxOperator::refused) context.refuse_narrow_operands();
  if (row->bind) {
    std::vector<Binding> results = row->bind(context);
    context.check_attributes_known();
    return results;
  }
  std::vector<Value> values = row->import(context);
  context.check_attributes_known();
  return context.bind(values);
} catch (const AbsentValue&) {
  throw Error("node " + operator_name(node) + " '" + name + "': an operand that it needs is left out");
}

void Importer::record_reads(const onnx::NodeProto& node, size_t reader, const Scope& scope) {
  for (const std::string& input : node.input()) {
    const Binding* operand = input.empty() ? nullptr : scope.find(input);
    if (!operand || operand->kind != Binding::value) continue;
    if (const auto maker = makers_.find(key_of(operand->as_value)); maker != makers_.end())
      nodes_[maker->second].readers.push_back(reader);
  }
}

// Results that are the operands' own values, or were computed by a node before.
void Importer::record_results(const std::vector<Binding>& results, size_t maker) {
  std::optional<DType> type;
  if (!results.empty() && results[0].kind == Binding::value && results[0].as_value)
    nodes_[maker].shape = builder_.type(results[0].as_value).shape;
  for (const Binding& result : results) {
    if (result.kind != Binding::value || !result.as_value) continue;
    const auto [first, added] = makers_.emplace(key_of(result.as_value), maker);
    if (!added && first->second != maker) nodes_[maker].same_as = first->second;
    if (!constants_.is_constant(result.as_value)) return;
    if (!type) type = builder_.dtype(result.as_value);
  }
  nodes_[maker].folded = type;
}

void Importer::import_node(const onnx::NodeProto& node, int index, Scope& scope) {
  const std::string name = unique_name(scope.prefix + node_name(node, index));
  const size_t place = nodes_.size();
  if (!inputs_.recording_only) {
    nodes_.push_back({name, operator_name(node)});
    if (scope.prefix.empty() && depth_ == 0) nodes_.back().result = first_result(node);
    nodes_.back().drawn = drawn_type(node);
  }
  std::optional<std::vector<Binding>> results;
  const int64_t most = inputs_.options.budget.nodes;
  if (imported_nodes_++ == most)
    problems_.add("the model has more than " + std::to_string(most) + " nodes with its functions inlined (max_nodes)");
  ++depth_;
  try {
    if (depth_ > kDeepestNesting) throw Error("node '" + name + "': functions or branches are nested too deeply");
    if (imported_nodes_ <= most) results = import_results(node, name, scope);
  } catch (const Error& error) {
    const std::string what = error.what();
    const bool named = what.find("'" + name + "'") != std::string::npos;
    problems_.add(named ? what : "node " + operator_name(node) + " '" + name + "': " + what);
  }
  --depth_;
  if (results && !inputs_.recording_only) record_results(*results, place);
  if (!inputs_.recording_only && !nodes_[place].same_as) record_reads(node, place, scope);
  for (size_t i = 0; i < static_cast<size_t>(node.output_size()); ++i) {
    Binding binding;
    if (results) binding = i < results->size() ? (*results)[i] : Binding{Binding::unsupported};
    if (!node.output(static_cast<int>(i)).empty()) scope.bindings[node.output(static_cast<int>(i))] = binding;
  }
  folded_batch_norms_ += took_in_batch_norm(node);
}

void Importer::import_nodes(const NodeList& nodes, Scope& scope) {
  const std::vector<int> order = order_nodes(nodes).order;
  reordered_graphs_ += !std::is_sorted(order.begin(), order.end());
  for (int i : order) import_node(nodes[i], i, scope);
}

// Where the model is refused anyway, what could not be differentiated is said in the same run.
void Importer::refuse_missing_gradients() {
  if (inputs_.options.mode != ImportMode::training || (problems_.empty() && refusals_.empty())) return;
  const Graph& graph = builder_.graph();
  std::vector<char> depends(graph.nodes().size(), 0);  // on a parameter
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    bool on_parameter = node.op->name == "parameter";
    for (Value v : node.operands) on_parameter |= v && depends[static_cast<size_t>(v.node)];
    depends[static_cast<size_t>(id)] = on_parameter && is_floating(node.results[0].dtype);
    if (depends[static_cast<size_t>(id)] && !node.operands.empty() && !node.op->not_differentiable.empty())
      refusals_["'" + std::string(node.op->name) + "' has no gradient: " + std::string(node.op->not_differentiable)]
          .push_back(node.origin.name);
  }
}

void Importer::throw_problems() {
  refuse_missing_gradients();
  for (const auto& [reason, names] : refusals_) {
    constexpr size_t kMostNamed = 8;
    std::string list;
    for (size_t i = 0; i < std::min(names.size(), kMostNamed); ++i) list += (i ? ", '" : " '") + names[i] + "'";
    if (names.size() > kMostNamed) list += " and " + std::to_string(names.size() - kMostNamed) + " more";
    problems_.add(reason + " (" + (names.size() == 1 ? "node" : "nodes") + list + ")");
  }
  if (!inputs_.recorded) return problems_.throw_if_any();
  // The import at the exported sizes went well, so that only the sizes can be the reason.
  Problems explained;
  for (const std::string& problem : problems_.messages())
    explained.add(problem + "; " + describe_sizes(inputs_.shapes) +
                  ": use the exported sizes, or export with dynamic ones");
  explained.throw_if_any();
}

void Importer::add_remarks() {
  const auto count = [](int64_t n, const std::string& what) {
    return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
  };
  if (inputs_.recorded) remarks_.push_back(describe_sizes(inputs_.shapes));
  if (!repeated_leaves_.empty())
    remarks_.push_back("copies of one value, made for the exported batch, are trained as that value: " +
                       list(repeated_leaves_, [](const auto& leaf) { return leaf.first; }));
  if (!tables_.empty())
    remarks_.push_back("masks, tables of positions and coefficients stay as they are: " +
                       list(tables_, [](const auto& name) { return name; }));
  if (dropped_casts_ > 0)
    remarks_.push_back(count(dropped_casts_, "cast") + " to half precision dropped: precision is assigned by Halfstep");
  if (!converted_parameters_.empty())
    remarks_.push_back(count(static_cast<int64_t>(converted_parameters_.size()), "parameter") +
                       " of another floating type trained in float32");
  if (reordered_graphs_ > 0) remarks_.push_back("the nodes of the file are not in order of use; they were sorted");
  const auto& nodes = inputs_.model.graph().node();
  const bool keeps_batch_norm = std::any_of(
      nodes.begin(), nodes.end(), [](const onnx::NodeProto& node) { return node.op_type() == "BatchNormalization"; });
  if (folded_batch_norms_ > 0 && !keeps_batch_norm)
    remarks_.push_back(count(folded_batch_norms_, "layer") +
                       " took in a batch norm at export and train without it; to keep them, export with optimize=False "
                       "or TrainingMode.TRAINING, or put them back with --bn-insert");
}

Graph Importer::run() {
  const onnx::GraphProto& graph = inputs_.model.graph();
  Scope scope{.opsets = &opsets_};
  scope.bindings.reserve(static_cast<size_t>(graph.initializer_size()) + inputs_.order.size());
  bind_initializers(graph, scope);
  bind_inputs(graph, scope);
  reordered_graphs_ += !std::is_sorted(inputs_.order.begin(), inputs_.order.end());
  for (int i : inputs_.order) import_node(graph.node(i), i, scope);
  for (const onnx::ValueInfoProto& output : graph.output()) {
    const Binding& binding = scope.at(output.name());
    if (binding.kind == Binding::unsupported)
      problems_.add("output '" + output.name() + "': this result of its operator is not supported");
    else if (binding.kind == Binding::sequence || binding.kind == Binding::left_out)
      problems_.add("output '" + output.name() + "': a tensor expected, found a sequence or an empty optional");
    else if (binding.kind != Binding::failed)
      builder_.output(output.name(), read(binding));
  }
  throw_problems();
  if (inputs_.recording_only) return std::move(builder_).finish();
  for (const auto& [state, value] : updates_) builder_.update(state, value);
  add_remarks();
  Graph result = without_unread_step_inputs(std::move(builder_).finish());
  check_leaves(result, repeated_leaves_, inputs_.shapes);
  const std::vector<NodeId> still = parameters_without_gradient(result);
  if (inputs_.options.mode == ImportMode::training && !still.empty())
    remarks_.push_back(
        "parameters that no gradient reaches, since only integers, booleans or functions of derivative "
        "zero lie between them and the outputs: " +
        list(still, [&](NodeId id) { return result.node(id).attributes.text("name"); }));
  return result;
}

}  // namespace halfstep
