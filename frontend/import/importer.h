// The importer: walks the nodes of an ONNX graph and has each operator's row build it in the IR.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "frontend/import/constants.h"
#include "frontend/import/import.h"
#include "frontend/import/initializer.h"
#include "frontend/import/leaves.h"
#include "frontend/import/respecialise.h"
#include "frontend/import/scope.h"
#include "frontend/import/sizes.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/onnx/ties.h"
#include "frontend/onnx/validate.h"
#include "ir/builder.h"

namespace halfstep {

// Nodes refused for the same reason are one problem.
using Refusals = std::map<std::string, std::vector<std::string>>;

class Importer {
 public:
  struct Inputs {
    const onnx::ModelProto& model;
    const TensorReader& reader;
    const ImportOptions& options;
    const std::map<std::string, Dimensions>& shapes;  // of every data input
    const std::map<std::string, Tie>& ties;
    const std::set<std::string>& scalars;   // initializers [] that are weights
    const std::vector<int>& order;          // of the main graph's nodes: those that are needed
    const std::set<std::string>& unfilled;  // initializers without values, which tell nothing
    const Recording* recorded = nullptr;    // of the import at the exported sizes, if these are others
    RepeatedLeaves repeated = {};           // known from the start
    bool recording_only = false;            // only `recording()` is asked for
  };

  explicit Importer(const Inputs& inputs);

  // Throws Error with every problem.
  Graph run();

  const std::vector<std::string>& remarks() const { return remarks_; }
  const std::vector<std::string>& input_names() const { return input_names_; }
  const std::vector<OnnxNode>& nodes() const { return nodes_; }
  // The initializer behind each leaf of the graph, and how it is initialised afresh.
  const onnx::TensorProto* initializer(const std::string& leaf) const;
  Initializer initializer_of(const std::string& leaf, const Shape& shape) const;
  const RepeatedLeaves& repeated_leaves() const { return repeated_leaves_; }
  // Constants that the file names but has no data for, and the file that should hold it.
  const std::map<std::string, std::string>& missing_constants() const { return missing_constants_; }

  // ---- for the import functions, through NodeContext ----
  Builder& builder() { return builder_; }
  const Inputs& inputs() const { return inputs_; }
  ConstantEvaluator& constants() { return constants_; }
  Recording& recording() { return recording_; }
  // A parameter, a frozen state or a constant for an initializer.
  Value read(const Binding& binding);
  // The data of an initializer that is read as a constant; zeros (true for booleans) where the file has none.
  Tensor read_constant(const onnx::TensorProto& tensor);
  Value state_leaf(const onnx::TensorProto& tensor);
  // What the exporter folded is no weight, if the operand that reads it never is one.
  void keep_if_folded(const onnx::TensorProto& tensor);
  bool is_frozen(const std::string& name) const;
  bool is_trained(const std::string& name) const;  // because the user says so
  Value folded(Value v);                           // a constant, if v is a small constant expression
  std::vector<Binding> import_body(const onnx::GraphProto& graph, const Scope& outer,
                                   const std::vector<Binding>& arguments, const std::string& suffix);
  Respecialisation& respecialisation() { return respecialisation_; }
  // The current value of a state within the step, and its next one.
  Value state_value(Value state) const;
  void update_state(Value state, Value value) { updates_[state] = value; }
  void set_initializer(Value parameter, Initializer rule);
  void set_initializer(const std::string& leaf, Initializer rule) { fresh_initializers_.try_emplace(leaf, rule); }
  Value step_input(const Name& name, DType dtype);
  int64_t next_random_site() { return random_sites_++; }
  // Of a loop named so; Error beyond the budget of all loops together.
  void count_iteration(const std::string& node);
  void count_dropped_cast() { ++dropped_casts_; }
  void add_remark(const std::string& remark);  // once

 private:
  void bind_initializers(const onnx::GraphProto& graph, Scope& scope);
  void bind_inputs(const onnx::GraphProto& graph, Scope& scope);
  void import_nodes(const NodeList& nodes, Scope& scope);
  void import_node(const onnx::NodeProto& node, int index, Scope& scope);
  // Nothing if the node or one of its operands failed.
  std::optional<std::vector<Binding>> import_results(const onnx::NodeProto& node, const std::string& name,
                                                     const Scope& scope);
  std::vector<Binding> read_results(const Scope& scope, const std::vector<std::string>& names);
  std::vector<Binding> call_function(const onnx::FunctionProto& function, const onnx::NodeProto& node,
                                     const Scope& scope, const std::string& name);
  void record_reads(const onnx::NodeProto& node, size_t reader, const Scope& scope);
  void record_results(const std::vector<Binding>& results, size_t maker);
  void refuse(const onnx::NodeProto& node, const std::string& name, const Scope& scope);
  std::string unique_name(const std::string& name);
  Value repeated_leaf(const Node& leaf, size_t axis);
  void refuse_missing_gradients();
  void throw_problems();
  void add_remarks();

  Inputs inputs_;
  Builder builder_;
  ConstantEvaluator constants_;
  Respecialisation respecialisation_;
  Opsets opsets_;
  std::map<std::pair<std::string, std::string>, const onnx::FunctionProto*> functions_;  // by domain and name
  std::deque<NodeList> function_bodies_;           // of each call, with its attributes filled in
  std::vector<const onnx::FunctionProto*> calls_;  // that are being inlined, the outermost first
  std::unordered_map<std::string, const onnx::TensorProto*> initializers_;
  std::map<std::string, Initializer> fresh_initializers_;
  RepeatedLeaves repeated_leaves_;
  std::map<std::string, std::string> missing_constants_;
  std::map<Value, Value> updates_;
  std::unordered_set<std::string> node_names_;
  std::vector<OnnxNode> nodes_;
  std::unordered_map<int64_t, size_t> makers_;      // the first of nodes_ that gave the value
  std::unordered_map<std::string, int> name_uses_;  // how often a name was made unique
  std::vector<std::string> input_names_;
  std::vector<std::string> remarks_;
  Problems problems_;
  Refusals refusals_;
  Recording recording_;
  int64_t random_sites_ = 0;
  int64_t imported_nodes_ = 0, iterations_ = 0;
  int64_t inlined_bytes_ = 0;
  int64_t dropped_casts_ = 0;
  std::set<std::string> converted_parameters_, tables_;
  int64_t folded_batch_norms_ = 0;
  int64_t reordered_graphs_ = 0;
  int depth_ = 0;
};

}  // namespace halfstep
