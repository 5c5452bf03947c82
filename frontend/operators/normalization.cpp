// Normalisation.
#include <algorithm>

#include "frontend/import/operators.h"

namespace halfstep {
namespace {

// ---- batch norm ----

bool uses_batch_statistics(NodeContext& c) {
  if (c.training()) return c.is_updatable(3) || c.is_updatable(4) || !(c.is_initializer(3) && c.is_initializer(4));
  return c.version >= 14 ? c.integer("training_mode", 0) != 0 : c.wants(1);
}

// running = momentum * running + (1 - momentum) * statistic of this batch.
Value next_statistic(NodeContext& c, size_t operand, Value statistic, double momentum) {
  Importer& importer = c.importer();
  const Value state = c.state_operand(operand);
  const Value next = c.b.add(c.b.mul(importer.state_value(state), momentum), c.b.mul(statistic, 1 - momentum));
  if (c.is_updatable(operand)) importer.update_state(state, next);
  return next;
}

// What the running variance averages. ONNX takes the variance of the batch; models come from frameworks that train with
// n / (n - 1) of it, the estimate of the variance of all data, and expect that in their checkpoints.
Value running_variance(NodeContext& c, Value batch_variance) {
  const double count = static_cast<double>(c.b.type(c.operand(0)).element_count()) /
                       static_cast<double>(c.b.type(batch_variance).element_count());
  return c.training() && count > 1 ? c.b.mul(batch_variance, count / (count - 1)) : batch_variance;
}

std::vector<Value> import_batch_norm(NodeContext& c) {
  c.ignore({"training_mode", "spatial"});
  const double epsilon = c.number("epsilon", 1e-5), momentum = c.number("momentum", 0.9);
  if (c.version < 9 && c.integer("spatial", 1) != 1) c.fail("spatial=0 is not supported");
  c.initialise(c.operand(1), {Initializer::constant, 1});
  c.initialise(c.operand(2), {Initializer::constant, 0});
  const Value mean = c.state_operand(3), variance = c.state_operand(4);
  c.initialise(mean, {Initializer::constant, 0});
  c.initialise(variance, {Initializer::constant, 1});
  const std::vector<Value> trained =
      c.b.call_all(op("batch_norm"), {c.operand(0), c.operand(1), c.operand(2), mean, variance},
                   {{"axis", int64_t{1}}, {"epsilon", epsilon}});
  if (!uses_batch_statistics(c)) {
    const Node node = c.b.graph().node(trained[0]);
    return {node.op->inference({c.b, node, node.operands})[0]};
  }
  return {trained[0], next_statistic(c, 3, trained[1], momentum),
          next_statistic(c, 4, running_variance(c, trained[2]), momentum)};
}

// ---- norms over axes of one sample ----

void initialise_affine(NodeContext& c) {
  c.initialise(c.operand(1), {Initializer::constant, 1});
  if (c.has_operand(2)) c.initialise(c.operand(2), {Initializer::constant, 0});
}

// The operand broadcast to the normalised axes `row`; absent if it has others too, or is left out.
Value row_operand(NodeContext& c, size_t i, const Shape& row) {
  if (!c.has_operand(i)) return {};
  const Shape shape = c.shape(i);
  bool fits = shape.size() <= row.size();
  for (size_t k = 0; fits && k < shape.size(); ++k)
    fits = shape[k] == 1 || shape[k] == row[row.size() - shape.size() + k];
  return fits ? c.b.broadcast(c.operand(i), row) : Value{};
}

// layer_norm or rms_norm with scale and, where the operator has one, bias.
std::vector<Value> import_row_norm(NodeContext& c, std::string_view norm) {
  c.ignore({"stash_type"});  // statistics are in f32 here
  const Shape shape = c.shape(0);
  const size_t first = c.axis(c.integer("axis", -1), shape.size());
  initialise_affine(c);
  const Shape row(shape.begin() + static_cast<std::ptrdiff_t>(first), shape.end());
  std::vector<Value> operands{c.operand(0)}, later;
  for (size_t i = 1; i < c.operand_count(); ++i) {
    const Value v = later.empty() ? row_operand(c, i, row) : Value{};
    (v ? operands : later).push_back(v ? v : c.optional_operand(i));
  }
  std::vector<Value> results =
      c.b.call_all(op(norm), operands, {{"axis", static_cast<int64_t>(first)}, {"epsilon", c.number("epsilon", 1e-5)}});
  for (Value v : later)
    if (v) results[0] = c.b.binary(v == c.optional_operand(1) ? "mul" : "add", results[0], v);
  return results;
}

std::vector<Value> import_layer_norm(NodeContext& c) { return import_row_norm(c, "layer_norm"); }
std::vector<Value> import_rms_norm(NodeContext& c) { return import_row_norm(c, "rms_norm"); }

Value group_norm(NodeContext& c, Value scale, Value bias, int64_t groups) {
  return c.b.call(
      "group_norm", {c.operand(0), scale, bias},
      {{"axis", int64_t{1}}, {"batch", int64_t{0}}, {"groups", groups}, {"epsilon", c.number("epsilon", 1e-5)}});
}

std::vector<Value> import_instance_norm(NodeContext& c) {
  const Shape shape = c.shape(0);
  if (shape.size() < 3) c.fail("[N, C, spatial...] expected, found " + to_string(shape));
  initialise_affine(c);
  return {group_norm(c, c.operand(1), c.operand(2), shape[1])};
}

std::vector<Value> import_group_norm(NodeContext& c) {
  c.ignore({"stash_type"});
  const Shape shape = c.shape(0);
  const int64_t groups = c.integer("num_groups");
  if (shape.size() < 2 || groups <= 0 || shape[1] % groups != 0)
    c.fail(to_string(shape) + " does not split into " + std::to_string(groups) + " groups of channels");
  initialise_affine(c);
  if (c.version >= 21) return {group_norm(c, c.operand(1), c.operand(2), groups)};
  const auto per_channel = [&](size_t operand) {  // was per group
    const Value v = c.b.reshape(c.operand(operand), {groups, 1});
    return c.b.reshape(c.b.broadcast(v, {groups, shape[1] / groups}), {shape[1]});
  };
  return {group_norm(c, per_channel(1), per_channel(2), groups)};
}

// A layer norm over axes that need not be the last ones.
std::vector<Value> import_mean_variance_norm(NodeContext& c) {
  constexpr double kEpsilon = 1e-18;  // the specification adds 1e-9 to the deviation
  const Shape shape = c.shape(0);
  std::vector<char> normalised(shape.size(), 0);
  for (int64_t a : c.int_list("axes", {0, 2, 3})) normalised[c.axis(a, shape.size())] = 1;
  Ints order;
  for (const char wanted : {0, 1})
    for (size_t i = 0; i < shape.size(); ++i)
      if (normalised[i] == wanted) order.push_back(static_cast<int64_t>(i));
  const int64_t kept = std::count(normalised.begin(), normalised.end(), 0);
  if (kept == static_cast<int64_t>(shape.size())) c.fail("no axes to normalise over");
  const Value y = c.b.call("layer_norm", {permute(c.b, c.operand(0), order)}, {{"axis", kept}, {"epsilon", kEpsilon}});
  Ints back(order.size());
  for (size_t i = 0; i < order.size(); ++i) back[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  return {permute(c.b, y, back)};
}

const std::vector<OnnxOperator> kRows{
    {"BatchNormalization",
     {7, 9, 14},
     5,
     5,
     import_batch_norm,
     "in training always with batch statistics, unless they are frozen"},
    {"GroupNormalization", {18, 21}, 3, 3, import_group_norm},
    {"InstanceNormalization", {6}, 3, 3, import_instance_norm},
    {"LayerNormalization", {17}, 2, 3, import_layer_norm},
    {"MeanVarianceNormalization", {9}, 1, 1, import_mean_variance_norm},
    {"RMSNormalization", {23}, 2, 2, import_rms_norm},
    {"SimplifiedLayerNormalization", {1}, 2, 2, import_rms_norm},
};

}  // namespace

std::span<const OnnxOperator> normalization_operators() { return kRows; }

}  // namespace halfstep
