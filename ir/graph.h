// Graph: one function over tensors in SSA form. Immutable; only Builder makes nodes. Copies share them, and so do
// graphs of which one is built after the other and no node differs.
#pragma once

#include <compare>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/name.h"
#include "base/shared.h"
#include "base/tensor.h"
#include "ir/attributes.h"

namespace halfstep {

struct Op;
using NodeId = int32_t;

// Result `result` of node `node`. A default Value is absent: an optional operand left out, a cotangent that is zero.
struct Value {
  NodeId node = -1;
  int32_t result = 0;
  explicit constexpr operator bool() const { return node >= 0; }
  friend auto operator<=>(const Value&, const Value&) = default;
};

enum class Phase : uint8_t { forward, loss, backward, update };
std::string_view name(Phase phase);

// Where a node comes from: the ONNX node's name; for a backward node, that of the forward node it belongs to.
struct Origin {
  Shared<std::string> name;
  Phase phase = Phase::forward;
  friend bool operator==(const Origin&, const Origin&) = default;
};
std::string to_string(const Origin& origin);  // "conv1", "conv1 (backward)"

// Its copies in other graphs share all but the operands.
struct Node {
  const Op* op = nullptr;
  std::vector<Value> operands;
  Attributes attributes;
  Shared<std::vector<TensorType>> results;
  Origin origin;
};

// Of an input, parameter or state: its attributes `name` and `role`.
Name leaf_name(const Node& leaf);

// An absent value was read. The importer, where it is the file's fault, names the node instead.
class AbsentValue : public InternalError {
 public:
  explicit AbsentValue(std::source_location where = std::source_location::current())
      : InternalError("a value that is absent is read", where) {}
};

struct NamedValue {
  Name name;
  Value value;
  friend bool operator==(const NamedValue&, const NamedValue&) = default;
};

// At the end of a step the state node `state` takes the value `value`.
struct StateUpdate {
  Value state;
  Value value;
  friend bool operator==(const StateUpdate&, const StateUpdate&) = default;
};

class Graph {
 public:
  const std::string& name() const { return name_; }
  Graph named(std::string name) const;  // the same graph by another name
  // In an order in which every operand stands before its use.
  std::span<const Node> nodes() const { return nodes_; }
  const Node& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  const Node& node(Value v) const {  // throws AbsentValue
    if (!v) [[unlikely]]
      throw AbsentValue();
    return node(v.node);
  }
  NodeId size() const { return static_cast<NodeId>(nodes_.size()); }
  const TensorType& type(Value v) const { return node(v).results[static_cast<size_t>(v.result)]; }

  std::span<const NamedValue> outputs() const { return outputs_; }
  std::span<const StateUpdate> updates() const { return updates_; }
  Value output(const Name& name) const;  // absent if there is none
  // The input, state or parameter node with this name; absent if there is none.
  Value leaf(const Name& name) const;

  // For every node the nodes that read any of its results, each once, in order.
  std::vector<std::vector<NodeId>> users() const;

 private:
  friend class Builder;
  std::string name_;
  std::span<const Node> nodes_;  // the first ones of `storage_`
  std::shared_ptr<const std::vector<Node>> storage_;
  std::vector<NamedValue> outputs_;
  std::vector<StateUpdate> updates_;
};

}  // namespace halfstep
