// Normalisation.
#include <numeric>

#include "frontend/operators.h"

namespace halfstep {
namespace {

double product(const Shape& shape, const Ints& axes) {
  double count = 1;
  for (int64_t axis : axes) count *= static_cast<double>(shape[static_cast<size_t>(axis)]);
  return count;
}

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
  c.initialise(c.operand(1), {FreshRule::constant, 1});
  c.initialise(c.operand(2), {FreshRule::constant, 0});
  const Value mean = c.state_operand(3), variance = c.state_operand(4);
  c.initialise(mean, {FreshRule::constant, 0});
  c.initialise(variance, {FreshRule::constant, 1});
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

struct Moments {
  Value centred, mean, inverse_deviation;  // the statistics keep the axes with size 1
};

Value mean_over(Builder& b, Value x, const Ints& axes) {
  return b.mul(b.reduce("reduce_sum", x, axes), 1 / product(b.shape(x), axes));
}

Moments moments(Builder& b, Value x, const Ints& axes, double epsilon) {
  const Value mean = mean_over(b, x, axes);
  const Value centred = b.sub(x, mean);
  return {centred, mean, b.unary("rsqrt", b.add(mean_over(b, b.mul(centred, centred), axes), epsilon))};
}

Value normalised(Builder& b, const Moments& m) { return b.mul(m.centred, m.inverse_deviation); }

void initialise_affine(NodeContext& c) {
  c.initialise(c.operand(1), {FreshRule::constant, 1});
  if (c.has_operand(2)) c.initialise(c.operand(2), {FreshRule::constant, 0});
}

Ints axes_from(size_t first, size_t rank) {
  Ints axes(rank - first);
  std::iota(axes.begin(), axes.end(), static_cast<int64_t>(first));
  return axes;
}

std::vector<Value> import_layer_norm(NodeContext& c) {
  c.ignore({"stash_type"});  // statistics are in f32 here
  const Shape shape = c.shape(0);
  const size_t first = c.axis(c.integer("axis", -1), shape.size());
  initialise_affine(c);
  const Moments m = moments(c.b, c.operand(0), axes_from(first, shape.size()), c.number("epsilon", 1e-5));
  Value y = c.b.mul(normalised(c.b, m), c.operand(1));
  if (c.has_operand(2)) y = c.b.add(y, c.operand(2));
  return {y, m.mean, m.inverse_deviation};
}

std::vector<Value> import_rms_norm(NodeContext& c) {
  c.ignore({"stash_type"});
  const Value x = c.operand(0);
  const Shape shape = c.b.shape(x);
  const Ints axes = axes_from(c.axis(c.integer("axis", -1), shape.size()), shape.size());
  initialise_affine(c);
  const Value square = mean_over(c.b, c.b.mul(x, x), axes);
  const Value inverse = c.b.unary("rsqrt", c.b.add(square, c.number("epsilon", 1e-5)));
  return {c.b.mul(c.b.mul(x, inverse), c.operand(1))};
}

// [C] beside [N, C, spatial...].
Value per_channel(NodeContext& c, size_t operand) {
  Shape shape(c.shape(0).size() - 1, 1);
  shape[0] = c.b.type(c.operand(operand)).element_count();
  return c.b.reshape(c.operand(operand), shape);
}

std::vector<Value> import_instance_norm(NodeContext& c) {
  const Shape shape = c.shape(0);
  if (shape.size() < 3) c.fail("[N, C, spatial...] expected, found " + to_string(shape));
  initialise_affine(c);
  const Moments m = moments(c.b, c.operand(0), axes_from(2, shape.size()), c.number("epsilon", 1e-5));
  return {c.b.add(c.b.mul(normalised(c.b, m), per_channel(c, 1)), per_channel(c, 2))};
}

std::vector<Value> import_group_norm(NodeContext& c) {
  c.ignore({"stash_type"});
  const Shape shape = c.shape(0);
  const int64_t groups = c.integer("num_groups");
  if (shape.size() < 2 || groups <= 0 || shape[1] % groups != 0)
    c.fail(to_string(shape) + " does not split into " + std::to_string(groups) + " groups of channels");
  initialise_affine(c);
  Shape grouped = shape;
  grouped[1] = shape[1] / groups;
  grouped.insert(grouped.begin() + 1, groups);
  const Moments m =
      moments(c.b, c.b.reshape(c.operand(0), grouped), axes_from(2, grouped.size()), c.number("epsilon", 1e-5));
  if (c.version >= 21)  // scale and bias are per channel
    return {c.b.add(c.b.mul(c.b.reshape(normalised(c.b, m), shape), per_channel(c, 1)), per_channel(c, 2))};
  const auto per_group = [&](size_t operand) {
    Shape one(grouped.size() - 1, 1);
    one[0] = groups;
    return c.b.reshape(c.operand(operand), one);
  };
  return {c.b.reshape(c.b.add(c.b.mul(normalised(c.b, m), per_group(1)), per_group(2)), shape)};
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
    {"RMSNormalization", {23}, 2, 2, import_rms_norm},
};

}  // namespace

std::span<const OnnxOperator> normalization_operators() { return kRows; }

}  // namespace halfstep
