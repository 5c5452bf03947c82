// Precision assignments in the user's terms: a row for each node of the ONNX file.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "compiler/compile.h"

namespace halfstep {

// The model's nodes by name.
class OnnxNodeIndex {
 public:
  // Of nodes that outlive it.
  explicit OnnxNodeIndex(const std::vector<OnnxNode>& nodes);

  // The ONNX operator of the node that `origin` names, or what stands for it where we added it ourselves.
  std::string operator_of(const Origin& origin, std::string_view ir_op) const;
  // As ONNX has the node's first value, where it has as many elements as `shape`, else `shape`.
  Shape shape_in_file(const std::string& node, const Shape& shape) const;
  // For rows in the model's order, which passes do not keep: preprocessing is first, the loss last.
  size_t position_of(const Origin& origin) const;

 private:
  const std::vector<OnnxNode>& nodes_;
  std::unordered_map<std::string_view, size_t> positions_;
};

// What became of a node of the file.
enum class Fate : uint8_t {
  computed,  // it is a node of the graph
  part,      // of another, that was recognised or moved over it
  merged,    // with another that computes the same
  folded,    // its results are constants
  constant,  // it is one
  weight,    // a Constant that is trained
  inlined,   // a function or a branch, whose nodes have rows of their own
  unused,    // no output needs it
  added,     // it is none of the file's: the loss, preprocessing, a batch norm put back
};
std::string_view name(Fate fate);

// The reason of a node that was folded.
inline constexpr std::string_view kFolded = "folded: constant";

struct NodeRow : PrecisionRow {
  NodeRow() = default;
  NodeRow(const PrecisionRow& row) : PrecisionRow(row) {}

  Fate fate = Fate::computed;
  std::string into;                      // part, merged: the name of the node
  std::optional<size_t> file_node = {};  // its number among the file's
  bool typed = true;                     // false: it computes nothing, and its types are nobody's
};

// One row for each node of the file's main graph, in the file's order, instead of one per IR node: that of its main IR
// node, with the ONNX operator. Behind a function or a branch the rows of its nodes. Preprocessing and the loss are one
// row each, first and last.
std::vector<NodeRow> by_onnx_node(const CompileReport& report);

std::string precision_summary(const std::map<DType, int>& counts);
// "9 nodes write f16, 4 write f32": of those that compute something.
template <typename Rows>
std::string precision_summary(const Rows& rows) {
  std::map<DType, int> counts;
  for (const NodeRow& row : rows)
    if (row.typed && is_floating(row.result) && row.fate != Fate::folded && row.fate != Fate::constant)
      ++counts[row.result];
  return precision_summary(counts);
}

// Which of the IR nodes of an ONNX node says what it is: the lowest.
int rank(const Op& op, DType result);

}  // namespace halfstep
