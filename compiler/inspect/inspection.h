// What `inspect` says of a training step: the precision of every node and why, every cast, and what they cost.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compiler/inspect/step_cost.h"
#include "compiler/precision_rows.h"

namespace halfstep {

// What a node reads or gives.
struct InspectedValue {
  std::string slot;  // "x", "w"; of a result empty
  std::string name;  // of the input, the weight or the node that gives it
  TensorType type;
  std::optional<DType> cast_from;  // where a cast stands before it
};

struct InspectedNode : NodeRow {
  std::string scope;  // "encoder/layer.0/attention"
  std::string module;
  std::vector<std::string> tensors_read, tensors_given;  // as the file names them
  std::vector<InspectedValue> operands;                  // of its main operation
  std::vector<InspectedValue> results;
  std::vector<std::string> path;  // the nodes that its type comes from, the nearest first
  NodeCost cost;                  // of what bears its name and phase
};

struct InspectedCast {
  std::string from;  // the node, weight or input that gives the value
  std::string at;    // the node that it stands before
  std::vector<std::string> to;
  Phase phase = Phase::forward;
  DType was = DType::f32, is = DType::f32;
  int64_t elements = 0;
  int64_t bytes = 0;  // that it would read and write as a kernel of its own
  int64_t moved = 0;  // that the step moves for its sake
  enum Place : uint8_t {
    alone,      // a kernel of its own
    beside,     // a kernel writes the value in both types
    in_kernel,  // of those that make or read the value, and costs no traffic
    optimizer,  // a weight's low copy, written once a step with the weight
    none        // simplified away, or moved into another
  } place = none;
  bool is_weight = false;
  std::string reason;
};
std::string_view name(InspectedCast::Place place);

// A weight beside the low type's range.
struct WeightRange {
  std::string name;
  int64_t elements = 0;
  int64_t overflow = 0;   // finite values that the type turns into infinity
  int64_t underflow = 0;  // values other than 0 that it turns into 0
  int64_t subnormal = 0;  // that it keeps with fewer digits
  double largest = 0;     // of the magnitudes
};

struct InspectionTotals {
  double flops = 0, low_flops = 0;  // a step
  int64_t calls = 0, bytes = 0;     // kernels and library calls; what they read and write
  int64_t cast_bytes = 0, cast_moved = 0;
  int64_t forward_cast_bytes = 0, forward_cast_bytes_torch = 0;  // AutocastNotes; of preset torch on the same model
  std::optional<int64_t> least_forward_cast_bytes;
  int64_t casts_in_kernels = 0;  // between what a kernel reads and computes with, beside those listed
  int64_t kept_bytes = 0;        // of values that the backward reads
  int64_t kept_bytes_fp32 = 0;   // of the same step in fp32
  double microseconds = 0, microseconds_fp32 = 0;
};

struct Inspection {
  std::string model, graph_name, precision;
  std::string preset, policy;  // "torch 2.11"; the policy file, if there is one
  std::optional<DType> low;
  int64_t batch = 0;
  Machine machine;
  std::vector<InspectedNode> nodes;     // the file's in its order, and the loss
  std::vector<InspectedNode> backward;  // in the order of computation; by the forward node that each belongs to
  std::vector<InspectedNode> update;
  std::vector<InspectedCast> casts;
  std::vector<WeightRange> weights;  // those with values beyond the range first
  std::string weights_unknown;       // why there are none
  InspectionTotals totals;
  std::string step_unknown;  // why there is no training step, and so no backward, cost and totals
  CompileReport report;
  std::map<std::string, Shape> file_shapes;  // as ONNX has them: of inputs, weights, and nodes' first values
};

// Error as the compiler's.
Inspection inspect(const Recipe& recipe, const CompileOptions& options);

}  // namespace halfstep
