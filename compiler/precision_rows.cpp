#include "compiler/precision_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "ir/op.h"

namespace halfstep {
namespace {

constexpr const char* kInlined = "inlined: its nodes have rows of their own";

class OnnxRows {
 public:
  explicit OnnxRows(const CompileReport& report) : report_(report) {
    find_places();
    take_main_nodes();
    find_alone();
    for (size_t i = 0; i < report.onnx_nodes.size(); ++i) add_imported(i);
    for (size_t i = 0; i < report.file_nodes.size(); ++i)
      if (!imported_[i]) add_left_out(i);
  }

  std::vector<NodeRow> rows() && {
    std::ranges::stable_sort(placed_, {}, &Placed::place);
    std::vector<NodeRow> rows;
    rows.reserve(placed_.size());
    for (Placed& row : placed_) {
      if (row.row.fate != Fate::added && is_of_file(row)) row.row.file_node = row.place.first - 1;
      rows.push_back(std::move(row.row));
    }
    return rows;
  }

 private:
  using Place = std::pair<size_t, size_t>;  // in the file, from 1, then in the order of the import
  struct Placed {
    Place place;
    NodeRow row;
  };

  // The node of the file that each imported one is, or stands behind; its number there plus 1.
  void find_places() {
    std::unordered_map<std::string_view, size_t> by_result, by_name;
    for (size_t i = 0; i < report_.file_nodes.size(); ++i) {
      if (report_.file_nodes[i].has_name) by_name.emplace(report_.file_nodes[i].name, i);
      for (const std::string& result : report_.file_nodes[i].results)
        if (!result.empty()) by_result.emplace(result, i);
    }
    imported_.assign(report_.file_nodes.size(), 0);
    size_t file = 0;
    for (size_t i = 0; i < report_.onnx_nodes.size(); ++i) {
      const OnnxNode& node = report_.onnx_nodes[i];
      bool of_file = false;
      if (!node.result.empty()) {
        // Positions, and so names made of them, move where repairs add and remove nodes; results get other names where
        // a batch norm is put behind one.
        for (const auto* names : {&by_result, &by_name}) {
          const auto found = names->find(names == &by_name ? node.name : node.result);
          if (of_file || found == names->end() || imported_[found->second]) continue;
          of_file = report_.file_nodes[found->second].op == node.op;
          if (of_file) imported_[found->second] = 1, file = found->second + 1;
        }
      }
      places_.push_back({file, i});
      added_.push_back(!node.result.empty() && !of_file);
      positions_.emplace(node.name, i);
    }
  }

  Place place_of(const Origin& origin) const {
    if (const auto found = positions_.find(*origin.name); found != positions_.end()) return places_[found->second];
    return origin.phase == Phase::forward ? Place{0, 0}
                                          : Place{report_.file_nodes.size() + 1, report_.onnx_nodes.size()};
  }

  // Rather than of a function's body.
  bool is_of_file(const Placed& row) const {
    const auto imported = positions_.find(*row.row.origin.name);
    return imported == positions_.end() ? row.row.fate == Fate::weight || row.row.fate == Fate::unused
                                        : !report_.onnx_nodes[imported->second].result.empty();
  }

  // Of the rows of IR nodes the one that stands for the node of the file.
  static std::vector<PrecisionRow> main_rows(const AutocastReport& report) {
    std::vector<PrecisionRow> rows;
    std::map<std::pair<std::string, Phase>, size_t> known;
    for (const PrecisionRow& row : report) {
      const auto [at, added] = known.emplace(std::pair(row.origin.name, row.origin.phase), rows.size());
      if (added) {
        rows.push_back(row);
        continue;
      }
      PrecisionRow& of_node = rows[at->second];
      std::map<FileSlot, DType> slots = std::move(of_node.slots);
      slots.insert(row.slots.begin(), row.slots.end());
      if (rank(op(row.op), row.result) < rank(op(of_node.op), of_node.result))
        of_node = row;
      else if (op(of_node.op).kernel == KernelKind::reduction && is_floating(row.result))
        of_node.result = row.result;  // a mean's product, the logarithm of a sum
      of_node.slots = std::move(slots);
    }
    return rows;
  }

  void take_main_nodes() {
    for (PrecisionRow& row : main_rows(report_.precision)) placed_.push_back({place_of(row.origin), std::move(row)});
    for (size_t i = 0; i < placed_.size(); ++i) {
      NodeRow& row = placed_[i].row;
      const auto found = positions_.find(*row.origin.name);
      if (found == positions_.end()) {
        row.fate = Fate::added;
        if (row.origin.phase == Phase::forward) row.op = "preprocessing";
      } else {
        row.op = report_.onnx_nodes[found->second].op;
        if (added_[found->second]) row.fate = Fate::added;
      }
      if (row.origin.phase == Phase::forward) row_of_.emplace(*row.origin.name, i);
    }
  }

  // What the preset says of each imported node alone. One that the import left no node of gives on what it reads.
  void find_alone() {
    if (report_.parts.empty()) return;
    std::unordered_map<std::string, PrecisionRow> known;
    for (const PrecisionRow& row : main_rows(report_.parts)) known.emplace(*row.origin.name, row);
    std::vector<std::optional<DType>> read(report_.onnx_nodes.size());  // of the first operand that is no constant
    alone_.resize(report_.onnx_nodes.size());
    for (size_t i = 0; i < alone_.size(); ++i) {
      const OnnxNode& node = report_.onnx_nodes[i];
      std::optional<PrecisionRow>& row = alone_[i];
      if (const auto found = known.find(node.name); found != known.end() && !node.drawn)
        row = found->second;
      else if (node.same_as && *node.same_as < i)
        row = alone_[*node.same_as];
      else if (const auto type = node.drawn ? node.drawn : read[i])
        row.emplace().operand = *type, row->result = *type;
      for (size_t reader : node.readers)
        if (row && !node.folded && !node.drawn && !read[reader]) read[reader] = row->result;
    }
  }

  NodeRow& add(Place place, const std::string& name, const std::string& op, Fate fate) {
    NodeRow& row = placed_.emplace_back(Placed{place, {}}).row;
    row.origin.name = name, row.op = op, row.fate = fate;
    return row;
  }

  void add_imported(size_t i) {
    const OnnxNode& node = report_.onnx_nodes[i];
    if (row_of_.contains(node.name)) return;
    if (node.folded) {
      const bool is_constant = node.op == "Constant";
      NodeRow& row = add(places_[i], node.name, node.op, is_constant ? Fate::constant : Fate::folded);
      row.operand = row.result = *node.folded;
      row.reason = is_constant ? "constant" : kFolded;
      return;
    }
    const bool has_body =
        i + 1 < report_.onnx_nodes.size() && report_.onnx_nodes[i + 1].name.starts_with(node.name + "/");
    const auto whole = report_.part_of.find(node.name);
    const auto row = whole == report_.part_of.end() ? row_of_.end() : row_of_.find(whole->second);
    if (row != row_of_.end()) {
      const bool merged = node.same_as && report_.onnx_nodes[*node.same_as].name == whole->second;
      const PrecisionRow found = i < alone_.size() && alone_[i] ? *alone_[i] : placed_[row->second].row;
      NodeRow& part = add(places_[i], node.name, node.op, merged ? Fate::merged : Fate::part);
      part.operand = found.operand, part.accumulator = found.accumulator, part.result = found.result;
      part.into = whole->second;
      part.reason = fmt::format("{} '{}'", merged ? "merged with" : "part of", whole->second);
      if (has_body) part.fate = Fate::inlined, part.reason = kInlined;
      return;
    }
    NodeRow& none = add(places_[i], node.name, node.op, has_body ? Fate::inlined : Fate::unused);
    none.typed = false;
    none.reason = has_body ? kInlined : "unused: nothing that is computed reads it";
  }

  // Of what the import was not asked for.
  void add_left_out(size_t i) {
    if (read_.empty())
      for (size_t j = 0; j < report_.file_nodes.size(); ++j)
        if (imported_[j]) read_.insert(report_.file_nodes[j].operands.begin(), report_.file_nodes[j].operands.end());
    const FileNode& node = report_.file_nodes[i];
    const bool weight = node.op == "Constant" && std::ranges::any_of(node.results, [&](const std::string& result) {
                          return read_.contains(result);
                        });
    NodeRow& row = add({i + 1, 0}, node.name, node.op, weight ? Fate::weight : Fate::unused);
    row.typed = false;
    row.reason = weight ? "a weight of the model" : "unused: no output needs it";
  }

  const CompileReport& report_;
  std::vector<char> imported_;  // of the file's nodes
  std::vector<Place> places_;   // of the imported nodes
  std::vector<char> added_;     // of these: none of the file's
  std::unordered_map<std::string_view, size_t> positions_;
  std::vector<Placed> placed_;
  std::unordered_map<std::string, size_t> row_of_;  // of a node of the graph: its place in `placed_`
  std::vector<std::optional<PrecisionRow>> alone_;  // empty but for presets that decide node by node
  std::unordered_set<std::string_view> read_;       // names of tensors that imported nodes read
};

}  // namespace

OnnxNodeIndex::OnnxNodeIndex(const std::vector<OnnxNode>& nodes) : nodes_(nodes) {
  for (size_t i = 0; i < nodes.size(); ++i) positions_.emplace(nodes[i].name, i);
}

std::string OnnxNodeIndex::operator_of(const Origin& origin, std::string_view ir_op) const {
  if (const auto found = positions_.find(*origin.name); found != positions_.end()) return nodes_[found->second].op;
  return origin.phase == Phase::forward ? "preprocessing" : std::string(ir_op);
}

Shape OnnxNodeIndex::shape_in_file(const std::string& node, const Shape& shape) const {
  const auto found = positions_.find(node);
  if (found == positions_.end() || !nodes_[found->second].shape) return shape;
  const Shape& known = *nodes_[found->second].shape;
  const bool same = TensorType{DType::f32, known}.element_count() == TensorType{DType::f32, shape}.element_count();
  return same ? known : shape;
}

size_t OnnxNodeIndex::position_of(const Origin& origin) const {
  if (const auto found = positions_.find(*origin.name); found != positions_.end()) return found->second + 1;
  return origin.phase == Phase::forward ? 0 : nodes_.size() + 1;
}

std::string_view name(Fate fate) {
  constexpr std::array<std::string_view, 9> kNames{"computed", "part",    "merged", "folded", "constant",
                                                   "weight",   "inlined", "unused", "added"};
  return kNames[static_cast<size_t>(fate)];
}

std::string precision_summary(const std::map<DType, int>& counts) {
  std::string text;
  for (const auto& [type, count] : counts)
    text += fmt::format("{}{} {}write {}", text.empty() ? "" : ", ", count, text.empty() ? "nodes " : "", name(type));
  return text;
}

// The library call before the loop, the loop before the move. What gives a value comes before what only prepares
// indices for it.
int rank(const Op& op, DType result) {
  if (!is_floating(result)) return 4;
  switch (op.kernel) {
    case KernelKind::gemm:
    case KernelKind::convolution:
    case KernelKind::attention:
    case KernelKind::recurrent:
      return 0;
    case KernelKind::composite:
    case KernelKind::reduction:
    case KernelKind::window:
    case KernelKind::random:
      return 1;
    case KernelKind::pointwise:
      return 2;
    default:
      return 3;
  }
}

std::vector<NodeRow> by_onnx_node(const CompileReport& report) { return OnnxRows(report).rows(); }

}  // namespace halfstep
