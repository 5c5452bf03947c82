// Branches and loops, all decided while importing: the taken branch stands for an If, a loop is unrolled.
#include <algorithm>
#include <limits>

#include "frontend/import/operators.h"

namespace halfstep {
namespace {

Binding as_binding(Value v) { return {Binding::value, v}; }

bool any_failed(const std::vector<Binding>& bindings) {
  return std::any_of(bindings.begin(), bindings.end(), [](const Binding& b) { return b.kind == Binding::failed; });
}

// Element i of an axis, without it.
Value element_of(Builder& b, Value x, size_t axis, int64_t i) {
  Shape shape = b.shape(x), starts(shape.size(), 0), limits = shape;
  starts[axis] = i, limits[axis] = i + 1;
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
  return b.reshape(b.slice(x, starts, limits), shape);
}

std::vector<Binding> import_if(NodeContext& c) {
  const bool condition = c.number(0, "condition") != 0;
  const onnx::GraphProto &then_branch = c.subgraph("then_branch"), &else_branch = c.subgraph("else_branch");
  return c.import_branch(condition ? then_branch : else_branch);
}

// What the values of a body's results after the carried ones became in each iteration.
class ScanOutputs {
 public:
  explicit ScanOutputs(size_t count) : values_(count) {}

  void add(NodeContext& c, const std::vector<Binding>& results, size_t first) {
    for (size_t i = 0; i < values_.size(); ++i) {
      if (results[first + i].kind == Binding::sequence) c.fail("a sequence cannot be a scan output");
      values_[i].push_back(c.importer().read(results[first + i]));
    }
  }
  size_t count() const { return values_.size(); }
  std::vector<Value>& of(NodeContext& c, size_t i) {
    if (values_[i].empty()) c.fail("without an iteration scan output " + std::to_string(i) + " has no shape");
    return values_[i];
  }

 private:
  std::vector<std::vector<Value>> values_;
};

// The carried values, then the scan outputs, output i stacked along axis_of(i).
template <typename AxisOf>
std::vector<Binding> with_scan_outputs(NodeContext& c, std::vector<Binding> carried, ScanOutputs& scans,
                                       AxisOf axis_of) {
  std::vector<Value> results;
  for (const Binding& binding : carried)
    results.push_back(
        binding.kind == Binding::sequence || binding.kind == Binding::left_out ? Value{} : c.importer().read(binding));
  for (size_t i = 0; i < scans.count(); ++i) {
    const std::vector<Value>& values = scans.of(c, i);
    results.push_back(stacked(c.b, values, c.axis(axis_of(i), c.b.shape(values[0]).size() + 1)));
  }
  std::vector<Binding> bindings = c.bind(results);
  std::copy(carried.begin(), carried.end(), bindings.begin());
  return bindings;
}

std::vector<Binding> import_loop(NodeContext& c) {
  const onnx::GraphProto& body = c.subgraph("body");
  const double trips = c.has_operand(0) ? c.number(0, "trip count") : std::numeric_limits<double>::infinity();
  bool more = !c.has_operand(1) || c.number(1, "condition") != 0;
  std::vector<Binding> carried;
  for (size_t i = 2; i < c.operand_count(); ++i) carried.push_back(c.binding(i));
  const auto results_count = static_cast<size_t>(body.output_size());
  if (results_count < 1 + carried.size()) c.fail("the body has too few outputs");
  ScanOutputs scans(results_count - 1 - carried.size());
  for (int64_t i = 0; static_cast<double>(i) < trips && more; ++i) {
    c.count_iteration();
    std::vector<Binding> arguments{as_binding(c.b.constant(DType::i64, static_cast<double>(i))),
                                   as_binding(c.b.constant(DType::boolean, 1))};
    arguments.insert(arguments.end(), carried.begin(), carried.end());
    std::vector<Binding> results = c.import_iteration(body, arguments, static_cast<size_t>(i));
    if (any_failed(results)) return std::vector<Binding>(c.result_count());
    const std::optional<Tensor> condition = c.importer().constants().evaluate(c.importer().read(results[0]));
    if (!condition)
      c.fail("whether iteration " + std::to_string(i + 1) + " runs must be known when the model is compiled, but " +
             c.importer().constants().reason(c.importer().read(results[0])));
    more = condition->at(0) != 0;
    scans.add(c, results, 1 + carried.size());
    std::copy_n(results.begin() + 1, carried.size(), carried.begin());
  }
  return with_scan_outputs(c, carried, scans, [](size_t) { return int64_t{0}; });
}

std::vector<Binding> import_scan(NodeContext& c) {
  const onnx::GraphProto& body = c.subgraph("body");
  const auto scanned = static_cast<size_t>(std::max<int64_t>(c.integer("num_scan_inputs"), 0));
  const auto results_count = static_cast<size_t>(body.output_size());
  if (scanned == 0 || scanned > c.operand_count() || results_count + scanned < c.operand_count())
    c.fail("attribute 'num_scan_inputs' does not fit the operands and the body");
  const size_t states = c.operand_count() - scanned, outputs = results_count - states;
  const auto per = [&](const char* name, size_t count) {
    const Ints values = c.int_list(name, Ints(count, 0));
    if (values.size() != count) c.fail(std::string("attribute '") + name + "' has a wrong number of entries");
    return values;
  };
  const Ints axes = per("scan_input_axes", scanned), directions = per("scan_input_directions", scanned),
             output_axes = per("scan_output_axes", outputs), output_directions = per("scan_output_directions", outputs);
  std::vector<Binding> carried;
  for (size_t i = 0; i < states; ++i) carried.push_back(c.binding(i));
  const Shape first = c.shape(states);
  const int64_t length = first.at(c.axis(axes[0], first.size()));
  ScanOutputs scans(outputs);
  for (int64_t i = 0; i < length; ++i) {
    c.count_iteration();
    std::vector<Binding> arguments = carried;
    for (size_t k = 0; k < scanned; ++k) {
      const Value x = c.operand(states + k);
      const size_t axis = c.axis(axes[k], c.b.shape(x).size());
      if (c.b.shape(x)[axis] != length) c.fail("scan inputs differ in length");
      arguments.push_back(as_binding(element_of(c.b, x, axis, directions[k] != 0 ? length - 1 - i : i)));
    }
    std::vector<Binding> results = c.import_iteration(body, arguments, static_cast<size_t>(i));
    if (any_failed(results)) return std::vector<Binding>(c.result_count());
    scans.add(c, results, states);
    std::copy_n(results.begin(), states, carried.begin());
  }
  for (size_t i = 0; i < outputs; ++i)
    if (output_directions[i] != 0) std::reverse(scans.of(c, i).begin(), scans.of(c, i).end());
  return with_scan_outputs(c, carried, scans, [&](size_t i) { return output_axes[i]; });
}

// The body for each element of the first sequence, with the same element of the others.
std::vector<Binding> import_sequence_map(NodeContext& c) {
  const onnx::GraphProto& body = c.subgraph("body");
  const size_t length = c.sequence(0).size();
  std::vector<Binding> results(static_cast<size_t>(body.output_size()), Binding{Binding::sequence});
  for (size_t i = 0; i < length; ++i) {
    c.count_iteration();
    std::vector<Binding> arguments;
    for (size_t k = 0; k < c.operand_count(); ++k) {
      if (c.binding(k).kind != Binding::sequence) {
        arguments.push_back(c.binding(k));
        continue;
      }
      const std::vector<Binding>& elements = c.sequence(k);
      if (elements.size() != length) c.fail("the sequences differ in length");
      arguments.push_back(elements[i]);
    }
    const std::vector<Binding> made = c.import_iteration(body, arguments, i);
    if (any_failed(made)) return std::vector<Binding>(c.result_count());
    for (size_t k = 0; k < results.size(); ++k) results[k].elements.push_back(made[k]);
  }
  return results;
}

const std::vector<OnnxOperator> kRows{
    {"If", {1}, 1, 1, nullptr, "the condition must be known when the model is compiled", import_if},
    {"Loop",
     {1},
     2,
     kVariadic,
     nullptr,
     "unrolled: trip count and condition must be known when the model is compiled",
     import_loop},
    {"Scan", {9}, 1, kVariadic, nullptr, "unrolled", import_scan},
    {"SequenceMap", {17}, 1, kVariadic, nullptr, "unrolled", import_sequence_map},
};

}  // namespace

std::span<const OnnxOperator> control_operators() { return kRows; }

}  // namespace halfstep
