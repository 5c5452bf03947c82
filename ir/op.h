// The op row: everything the compiler knows about an operator stands in one place.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "ir/index_map.h"
#include "ir/scalar.h"

namespace halfstep {

class Builder;

// How autocast treats a node's floating operands and results.
enum class Precision : uint8_t {
  low,          // operands cast to the low type; low result (contractions)
  full,         // operands cast to f32; f32 result
  full_inside,  // reads what is there, computes in f32, writes what its consumers want (softmax, norms, reductions)
  widest,       // operands cast to the widest operand type
  follow,       // operands of mixed types promote; otherwise types are left as they are
};
std::string_view name(Precision precision);

// Which emitter or library runs the op. `composite` ops must be expanded before lowering, `attention` and `recurrent`
// where no library has them.
enum class KernelKind : uint8_t {
  leaf,
  pointwise,
  movement,
  reduction,
  window,
  random,
  gemm,
  convolution,
  attention,
  recurrent,
  composite,
  fused
};
std::string_view name(KernelKind kind);

enum class Leaf : uint8_t { none, input, parameter, state, constant };
// The gradient of an operation with respect to its data (of attention q, k and v; of a recurrent layer its weights and
// states too), or its filter.
enum class Gradient : uint8_t { none, data, filter };

struct OperandSpec {
  std::string_view name;
  enum Arity : uint8_t { one, optional, variadic } arity = one;
  // A floating operand that autocast never casts: statistics, masters, scales.
  enum Cast : uint8_t { castable, keep } cast = castable;
  // control: computed before the op, and not read by it.
  enum Dependency : uint8_t { data, control } dependency = data;
};

// What an attribute says about the axes of operand 0, so that layout rewrites can permute it without knowing the op.
// last_axes: those from here on, which must stay the last.
enum class AxisRole : uint8_t { none, axis, axes, per_axis, last_axes };

struct AttributeSpec {
  std::string_view name;
  Attribute default_value;  // also fixes the kind
  enum Need : uint8_t { required, defaulted } need = required;
  AxisRole role = AxisRole::none;
};

struct TypeContext {
  const Attributes& attributes;
  std::span<const TensorType* const> operands;  // nullptr: absent
  const TensorType& operand(size_t i) const { return *operands[i]; }
};

struct VjpContext {
  Builder& builder;
  const Node& node;
  std::span<const Value> operands;    // in the graph being built
  std::span<const Value> results;     // in the graph being built
  std::span<const Value> cotangents;  // one per result; absent: zero
};

struct ExpandContext {
  Builder& builder;
  const Node& node;
  std::span<const Value> operands;
};

// Throws Error "<what is wrong>"; the builder adds the op and the node's name.
using TypeRule = std::vector<TensorType> (*)(const TypeContext&);
using VjpRule = std::vector<Value> (*)(const VjpContext&);  // one per operand; absent: zero
// The rule of a function whose derivative is zero almost everywhere: no cotangent reaches an operand.
std::vector<Value> zero_vjp(const VjpContext& c);
using ExpandRule = std::vector<Value> (*)(const ExpandContext&);
using ScalarBody = Scalar (*)(const Attributes&, std::span<const Scalar>);
// Operand and result elements as doubles, row-major; results come in sized.
struct EvaluateContext {
  const Node& node;
  std::span<const TensorType> types;
  std::span<const std::vector<double>* const> operands;
  std::span<std::vector<double>> results;
};
using EvaluateRule = void (*)(const EvaluateContext&);
using CostRule = double (*)(const Node&, std::span<const TensorType>);  // floating-point operations
using ReadsRule = IndexReads (*)(const TypeContext&);
// For each operand the axis whose size an axis of the result follows, slice by slice; absent: all slices read the whole
// operand.
using OperandAxes = std::vector<std::optional<size_t>>;
using ResizeRule = std::optional<OperandAxes> (*)(const Node&, size_t axis);  // absent: slices depend on each other

struct Op {
  std::string_view name;
  std::string_view onnx = "";  // the ONNX operator, where it is one-to-one
  std::vector<OperandSpec> operands = {};
  std::vector<AttributeSpec> attributes = {};
  TypeRule type = nullptr;
  Precision precision = Precision::follow;
  VjpRule vjp = nullptr;
  std::string_view not_differentiable = "";  // the reason, where vjp is missing
  KernelKind kernel = KernelKind::pointwise;
  Leaf leaf = Leaf::none;
  Gradient gradient = Gradient::none;   // windows, convolutions, attention, recurrent layers
  ScalarOp combine = ScalarOp::add;     // reductions and windows: what makes one of several elements
  IndexMap index_map = IndexMap::none;  // movement only
  ReadsRule reads = nullptr;            // where the index map follows from the attributes
  ResizeRule resize = nullptr;          // nullptr: derived from body or reads
  ScalarBody body = nullptr;            // pointwise only
  ExpandRule expand = nullptr;          // as smaller ops
  ExpandRule inference = nullptr;       // what stands for the op in an evaluation graph; nullptr: the op itself
  EvaluateRule evaluate = nullptr;      // nullptr: derived from body or expand
  CostRule cost = nullptr;              // nullptr: one operation a result element
};

// A leaf with a name.
inline bool is_leaf(const Op& op) { return op.leaf != Leaf::none && op.leaf != Leaf::constant; }

// The one table, joined from the families in ir/ops/.
std::span<const Op* const> all_ops();
const Op* find_op(std::string_view name);  // nullptr if there is none
const Op& op(std::string_view name);       // InternalError if there is none

}  // namespace halfstep
