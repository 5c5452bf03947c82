// Losses with integer labels.
#include <algorithm>
#include <numeric>

#include "frontend/import/operators.h"

namespace halfstep {
namespace {

// Scores [N, C, d...] as rows [N * d..., C], labels to match, and one weight a row: 0 where the label is ignored.
struct Rows {
  Value scores, labels, weights;
  Shape loss_shape;  // [N, d...]
};

// values[row, label of the row]; 0 for a label that is no class.
Value picked(Builder& b, Value values, Value labels) {
  const Shape shape = b.shape(values);
  const Value classes = b.call("iota", {}, {{"shape", shape}, {"axis", int64_t{1}}});
  const Value chosen = b.binary("eq", classes, b.reshape(labels, {shape[0], 1}));
  return b.reshape(b.reduce("reduce_sum", b.select(chosen, values, b.constant_like(values, 0)), {1}), {shape[0]});
}

Rows loss_rows(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  if (shape.size() < 2) c.fail("scores [N, C, ...] expected, found " + to_string(shape));
  Rows r{.scores = {}, .labels = {}, .weights = {}, .loss_shape = shape};
  r.loss_shape.erase(r.loss_shape.begin() + 1);
  if (c.shape(1) != r.loss_shape)
    c.fail("labels " + to_string(r.loss_shape) + " expected, found " + to_string(c.shape(1)));
  Ints classes_last(shape.size());
  std::iota(classes_last.begin(), classes_last.end(), 0);
  std::rotate(classes_last.begin() + 1, classes_last.begin() + 2, classes_last.end());
  const int64_t rows = TensorType{DType::u8, r.loss_shape}.element_count(), classes = shape[1];
  r.scores = b.reshape(permute(b, c.operand(0), classes_last), {rows, classes});
  r.labels = b.cast(b.reshape(c.operand(1), {rows}), DType::i64);
  r.weights = b.broadcast(b.constant(DType::f32, 1), {rows});
  if (c.has_operand(2)) {  // no parameter: a loss is not made smaller by weighing it less
    const Value table = b.broadcast(b.reshape(c.state_operand(2), {1, classes}), {rows, classes});
    r.weights = picked(b, table, r.labels);
  }
  if (c.has_attribute("ignore_index")) {
    const Value ignored = b.constant_like(r.labels, static_cast<double>(c.integer("ignore_index")));
    r.weights = b.select(b.binary("eq", r.labels, ignored), b.constant_like(r.weights, 0), r.weights);
  }
  return r;
}

std::vector<Value> reduced_loss(NodeContext& c, const Rows& r, Value row_loss) {
  Builder& b = c.b;
  const std::string reduction = c.text("reduction", "mean");
  const Value weighted = b.mul(row_loss, r.weights);
  if (reduction == "none") return {b.reshape(weighted, r.loss_shape)};
  const Value sum = b.reshape(b.reduce("reduce_sum", weighted, {0}), {});
  if (reduction == "sum") return {sum};
  if (reduction != "mean") c.fail("attribute 'reduction' is '" + reduction + "'; none, sum or mean expected");
  return {b.div(sum, b.reshape(b.reduce("reduce_sum", r.weights, {0}), {}))};
}

std::vector<Value> import_negative_log_likelihood(NodeContext& c) {
  const Rows r = loss_rows(c);
  return reduced_loss(c, r, c.b.unary("neg", picked(c.b, r.scores, r.labels)));
}

std::vector<Value> import_softmax_cross_entropy(NodeContext& c) {
  const Rows r = loss_rows(c);
  std::vector<Value> results = reduced_loss(c, r, c.b.call("softmax_cross_entropy", {r.scores, r.labels}));
  if (c.wants(1)) results.push_back(c.b.call("log_softmax", {c.operand(0)}, {{"axis", int64_t{1}}}));
  return results;
}

const std::vector<OnnxOperator> kRows{
    {"NegativeLogLikelihoodLoss", {12}, 2, 3, import_negative_log_likelihood, "class weights are not trained"},
    {"SoftmaxCrossEntropyLoss", {12}, 2, 3, import_softmax_cross_entropy, "class weights are not trained"},
};

}  // namespace

std::span<const OnnxOperator> loss_operators() { return kRows; }

}  // namespace halfstep
