// What an import function sees of one ONNX node: operands, attributes, and the graph being built.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "frontend/import/importer.h"
#include "frontend/onnx/narrow_types.h"

namespace halfstep {

class NodeContext {
 public:
  NodeContext(Importer& importer, const onnx::NodeProto& node, const Scope& scope, std::string name, int version);

  Builder& b;
  const int version;  // the newest version of the operator's meaning that the file's opset knows

  const std::string& op_type() const { return node_.op_type(); }
  [[noreturn]] void fail(const std::string& what) const;

  // ---- operands ----
  // Throws Error if their number is outside the range, or one is a result that is not supported.
  void check_operands(int least, int most) const;
  size_t operand_count() const { return static_cast<size_t>(node_.input_size()); }
  bool has_operand(size_t i) const;
  // Throws Error if it is left out.
  Value operand(size_t i);
  Value optional_operand(size_t i);  // absent if left out
  std::vector<Value> operands();
  Shape shape(size_t i) { return b.shape(operand(i)); }
  // The operand's value, which must not depend on data or parameters. `what` names it in the Error.
  Tensor constant(size_t i, const std::string& what);
  Tensor untrained(size_t i, const std::string& what);  // nor be a weight because the user says so
  Ints ints(size_t i, const std::string& what);
  int64_t whole(size_t i, const std::string& what);  // one integer
  double number(size_t i, const std::string& what);
  bool is_constant(size_t i);
  const std::vector<Binding>& sequence(size_t i);
  const Binding& binding(size_t i) const;         // of an operand that is given
  const NarrowType* narrow_type(size_t i) const;  // of operand i, if it is of one
  void refuse_narrow_operands() const;
  // A tensor that the node names in an attribute; Error if nothing before the node makes it.
  Value named_tensor(const std::string& name);

  // ---- attributes; one that is never asked for is an Error ----
  bool has_attribute(const std::string& name) const;
  int64_t integer(const std::string& name, int64_t otherwise);
  int64_t integer(const std::string& name);  // required
  double number(const std::string& name, double otherwise);
  std::string text(const std::string& name, const std::string& otherwise);
  Ints int_list(const std::string& name, const Ints& otherwise = {});
  std::vector<double> number_list(const std::string& name);
  std::vector<std::string> text_list(const std::string& name, const std::vector<std::string>& otherwise);
  Tensor tensor(const std::string& name);
  const onnx::GraphProto& subgraph(const std::string& name);
  void ignore(std::initializer_list<const char*> names);
  void check_attributes_known() const;
  // An axis attribute or operand, counted from the end if negative, in [0, rank).
  size_t axis(int64_t value, size_t rank) const;
  size_t axis_or_end(int64_t value, size_t rank) const;  // [0, rank]

  // ---- results ----
  bool wants(size_t i) const;  // result i has a name
  void set_narrow_type(size_t result, const NarrowType& type) { narrow_results_[result] = type.onnx; }
  size_t result_count() const { return static_cast<size_t>(node_.output_size()); }

  // ---- sizes other than the exported ones ----
  // Numbers where the model is read as exported.
  Dimensions dimensions(size_t i);
  // Those of a result that cannot be told from its sizes alone.
  void set_dimensions(size_t result, Dimensions dimensions) { given_dimensions_[result] = std::move(dimensions); }
  // A list of integers that depends on no data: as it is now, and as it was at the exported sizes.
  struct Sizes {
    Ints now, exported;
    // Whether entry i may have been written by the exporter for its own sizes.
    bool is_baked(size_t i) const { return now[i] == exported[i]; }
    bool is_baked() const { return now == exported; }
  };
  Sizes sizes(size_t i, const std::string& what);
  // The named axes of operands (or none) are one dimension: one that the exporter made for its own size is made again
  // for that of the others; `operand` gives it from here on. Throws Error if its content does not prove how.
  void align(const std::vector<std::optional<size_t>>& axis_of_operand);
  // The same for one axis of one operand.
  void follow(size_t i, size_t axis, const Factors& size);
  void align_broadcast(size_t except_last = 0);  // the axes of all operands, counted from the end
  std::vector<Value> broadcast_operands();       // all of them to one shape, as numpy does
  // A position on an axis of operand i that the file holds as a number must mean the same at any size, or be counted
  // from the end; throws Error if it may have been computed from the exported size.
  void check_position(int64_t position, size_t i, size_t axis);

  // ---- the model around the node ----
  bool training() const { return importer_.inputs().options.mode == ImportMode::training; }
  // A tensor that training does not differentiate but updates: a state leaf where it is an initializer.
  Value state_operand(size_t i);
  bool is_initializer(size_t i) const;
  bool is_updatable(size_t i) const;  // an initializer that is not frozen
  // Whether the state that a layer starts from is zero, for any batch: known to be, or its data is not with the model.
  bool starts_at_zero(size_t i);
  Importer& importer() { return importer_; }
  // What random numbers are drawn from, with a site of their own.
  Value step_seed() { return importer_.step_input(kStepSeed, DType::i64); }
  Value step_iteration() { return importer_.step_input(kStepIteration, DType::i32); }
  std::vector<Binding> import_branch(const onnx::GraphProto& graph) {
    return importer_.import_body(graph, scope_, {}, "");
  }
  void count_iteration() { importer_.count_iteration(name_); }
  // The body's results in iteration i, with its inputs bound to `arguments`.
  std::vector<Binding> import_iteration(const onnx::GraphProto& body, const std::vector<Binding>& arguments, size_t i) {
    return importer_.import_body(body, scope_, arguments, name_ + "/" + std::to_string(i) + "/");
  }
  // The results as what their names stand for, constants folded.
  std::vector<Binding> bind(std::vector<Value> results);
  // How the parameters behind `v` (through movement and casts) are initialised afresh; the first rule stays.
  void initialise(Value v, Initializer rule);

 private:
  const onnx::AttributeProto* attribute(const std::string& name, onnx::AttributeProto::AttributeType type);
  std::string record_key(size_t i) const { return name_ + "#" + std::to_string(i); }

  Importer& importer_;
  const onnx::NodeProto& node_;
  const Scope& scope_;
  const std::string name_;  // unique in the model
  std::set<std::string> known_attributes_;
  std::vector<const Binding*> bindings_;   // of the operands; nullptr where the name is empty
  std::vector<Value> read_;                // operands that were asked for, in the graph being built
  std::map<size_t, Value> respecialised_;  // operands made again for other sizes
  std::map<size_t, Dimensions> given_dimensions_;
  std::map<size_t, int32_t> narrow_results_;
};

// Axis i of the result is axis permutation[i] of v; a transpose of a transpose is one, or none.
Value permute(Builder& b, Value v, Ints permutation);
// Values of one shape as the elements of a new axis.
Value stacked(Builder& b, const std::vector<Value>& values, size_t axis);

}  // namespace halfstep
