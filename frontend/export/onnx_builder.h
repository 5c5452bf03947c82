// ONNX nodes of the standard domain, one after the other, with the types of all values: what the rows of
// operator_rows.h are written with.
#pragma once

#include <onnx/onnx_pb.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/tensor.h"
#include "ir/attributes.h"

namespace halfstep {

inline constexpr int64_t kTrainingGraphOpset = 20;  // ONNX Runtime 1.17 and later
inline constexpr int64_t kTrainingGraphIrVersion = 9;

int32_t onnx_type(DType type);
// Little-endian raw data, as `name`.
onnx::TensorProto tensor_message(const std::string& name, const Tensor& tensor);
onnx::ValueInfoProto value_message(const std::string& name, const TensorType& type);

struct OnnxValue {
  std::string name;  // empty: absent
  TensorType type = {};
  explicit operator bool() const { return !name.empty(); }
};

using OnnxAttribute = std::pair<std::string_view, std::variant<int64_t, std::string, Ints>>;
using OnnxAttributes = std::vector<OnnxAttribute>;

class OnnxBuilder {
 public:
  // Writes to `graph`. Its own values are called PREFIX0, PREFIX1, ... without those of `taken`.
  OnnxBuilder(onnx::GraphProto& graph, std::set<std::string> taken, std::string prefix = "v")
      : graph_(graph), taken_(std::move(taken)), prefix_(std::move(prefix)) {}

  // Nodes made from here on are called "ORIGIN", "ORIGIN/1", ...
  void set_origin(const std::string& origin) { origin_ = origin; }

  OnnxValue node(std::string_view op, const std::vector<OnnxValue>& operands, TensorType result,
                 const OnnxAttributes& attributes = {});
  // A node of one type, with numpy broadcasting; comparisons give booleans.
  OnnxValue unary(std::string_view op, const OnnxValue& x) { return node(op, {x}, x.type); }
  OnnxValue binary(std::string_view op, const OnnxValue& x, const OnnxValue& y);
  OnnxValue compare(std::string_view op, const OnnxValue& x, const OnnxValue& y);
  OnnxValue select(const OnnxValue& condition, const OnnxValue& if_true, const OnnxValue& if_false);

  OnnxValue constant(const Tensor& tensor);  // an initializer; equal ones are one
  OnnxValue scalar(DType type, double value) { return constant(Tensor::scalar(type, value)); }
  OnnxValue integers(const Ints& values);  // i64[n]

  // Each gives x itself where nothing would change.
  OnnxValue cast(const OnnxValue& x, DType to);
  OnnxValue reshape(const OnnxValue& x, const Shape& shape);
  OnnxValue transpose(const OnnxValue& x, const Ints& permutation);
  OnnxValue expand(const OnnxValue& x, const Shape& shape);
  OnnxValue slice(const OnnxValue& x, const Ints& starts, const Ints& limits, const Ints& steps = {});
  OnnxValue pad(const OnnxValue& x, const Ints& low, const Ints& high, double value = 0);
  OnnxValue concat(const std::vector<OnnxValue>& operands, size_t axis);
  OnnxValue reduce(std::string_view op, const OnnxValue& x, const Ints& axes);  // keeps the axes with size 1

  // From finish on `value` is called `name`, if it may: it is made by a node and not renamed yet. Else an Identity
  // is written.
  void rename(const OnnxValue& value, const std::string& name);
  // Gives values their names and writes their types.
  void finish();

 private:
  std::string fresh_name();

  onnx::GraphProto& graph_;
  std::set<std::string> taken_;
  std::string prefix_;
  std::string origin_;
  std::map<std::string, int> origins_;                                    // how many nodes have each name
  std::map<std::string, TensorType> made_;                                // by nodes
  std::map<std::string, std::string> new_names_;                          // of those
  std::map<std::pair<std::string, std::string>, std::string> constants_;  // type and bytes
  std::map<std::pair<std::string, DType>, OnnxValue> casts_;
  int64_t count_ = 0;
};

}  // namespace halfstep
