#include "frontend/repairs/merged_parameters.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/combine_hashes.h"
#include "base/error.h"
#include "frontend/onnx/exporter_metadata.h"
#include "frontend/onnx/tables.h"
#include "frontend/onnx/validate.h"

namespace halfstep {
namespace {

// Operands that are parameters of the operator's module, and what PyTorch calls them there.
struct Slot {
  std::string_view op;
  int operand;
  std::string_view name;
  enum Meaning : uint8_t { module, formula } meaning = module;  // a formula has operands of several modules
};

constexpr Slot kSlots[] = {
    {"LayerNormalization", 1, "weight"},
    {"LayerNormalization", 2, "bias"},
    {"SimplifiedLayerNormalization", 1, "weight"},
    {"RMSNormalization", 1, "weight"},
    {"GroupNormalization", 1, "weight"},
    {"GroupNormalization", 2, "bias"},
    {"InstanceNormalization", 1, "weight"},
    {"InstanceNormalization", 2, "bias"},
    {"BatchNormalization", 1, "weight"},
    {"BatchNormalization", 2, "bias"},
    {"BatchNormalization", 3, "running_mean"},
    {"BatchNormalization", 4, "running_var"},
    {"Conv", 2, "bias"},
    {"ConvTranspose", 2, "bias"},
    {"Gemm", 2, "bias"},
    {"PRelu", 1, "weight"},
    {"Add", 0, "bias", Slot::formula},
    {"Add", 1, "bias", Slot::formula},
    {"Mul", 0, "weight", Slot::formula},
    {"Mul", 1, "weight", Slot::formula},
};

const Slot* find_slot(const onnx::NodeProto& node, int operand) {
  const auto* slot = std::ranges::find_if(
      kSlots, [&](const Slot& s) { return s.operand == operand && s.op == std::string_view(node.op_type()); });
  return slot == std::end(kSlots) ? nullptr : slot;
}

// Operators that have a matrix of weights. Masks, which layers share without being one, are matrices elsewhere.
constexpr std::string_view kReadersOfMatrices[] = {"MatMul", "Gemm", "Conv",   "ConvTranspose",
                                                   "LSTM",   "GRU",  "Gather", "Einsum"};

int64_t long_axes(const onnx::TensorProto& tensor) {
  return std::ranges::count_if(tensor.dims(), [](int64_t size) { return size > 1; });
}

bool is_float(const onnx::TensorProto& tensor) {
  const std::optional<DType> dtype = element_type(tensor.data_type());
  return dtype && is_floating(*dtype);
}

bool has_vectors_read_twice(const onnx::GraphProto& graph) {
  std::unordered_map<std::string_view, int> reads;
  for (const onnx::TensorProto& tensor : graph.initializer())
    if (is_float(tensor) && long_axes(tensor) == 1) reads[tensor.name()] = 0;
  if (reads.empty()) return false;
  for (const onnx::NodeProto& node : graph.node())
    for (const std::string& input : node.input())
      if (const auto found = reads.find(input); found != reads.end() && ++found->second > 1) return true;
  return false;
}

// How the values of a graph hang together.
class Wiring {
 public:
  enum Direction : uint8_t { up, down };

  Wiring(const onnx::GraphProto& graph, const std::map<std::string, Tie>& ties) : nodes_(graph.node()) {
    std::unordered_set<std::string_view> fixed;  // values that depend on no input
    for (const onnx::TensorProto& tensor : graph.initializer()) {
      fixed.insert(tensor.name());
      if (!is_float(tensor) || long_axes(tensor) < 2) continue;
      const auto tie = ties.find(tensor.name());
      matrices_[tensor.name()] = tie == ties.end() ? tensor.name() : tie->second.to;
    }
    for (int i = 0; i < nodes_.size(); ++i) {
      for (int k = 0; k < nodes_[i].input_size(); ++k) readers_[nodes_[i].input(k)].push_back({i, k});
      for (const std::string& output : nodes_[i].output()) makers_[output] = i;
    }
    for (int i : order_nodes(nodes_).order) {
      const onnx::NodeProto& node = nodes_[i];
      const auto is_fixed = [&](const std::string& v) { return v.empty() || fixed.contains(v); };
      if (!std::ranges::all_of(node.input(), is_fixed) || (node.input().empty() && node.op_type() != "Constant"))
        continue;
      const std::string matrix = matrix_of(node);
      for (const std::string& output : node.output()) {
        fixed.insert(output);
        if (!matrix.empty()) matrices_[output] = matrix;
        makers_.erase(output);
      }
    }
  }

  std::span<const ParameterUse> uses_of(const std::string& value) const {
    const auto found = readers_.find(value);
    return found == readers_.end() ? std::span<const ParameterUse>() : found->second;
  }

  // The nearest node that has a matrix of weights; `way` is a hash of which, and of how it is reached.
  struct Anchor {
    int node = -1;  // none nearby
    size_t way = 0;
  };
  Anchor anchor(ParameterUse use, Direction direction) const {
    constexpr size_t kMostNodes = 32;
    const auto along = [&](size_t way, ParameterUse step) {
      return combine(combine(way, static_cast<size_t>(step.operand)), hash(nodes_[step.node].op_type()));
    };
    std::deque<Anchor> next{{use.node, along(direction, use)}};
    std::set<int> seen{use.node};
    const auto go_to = [&](ParameterUse step, size_t way) {
      if (seen.size() < kMostNodes && seen.insert(step.node).second) next.push_back({step.node, along(way, step)});
      return seen.size() < kMostNodes;
    };
    for (; !next.empty(); next.pop_front()) {
      const auto [at, way] = next.front();
      const onnx::NodeProto& node = nodes_[at];
      if (const std::string matrix = matrix_of(node);
          !matrix.empty() && std::ranges::find(kReadersOfMatrices, node.op_type()) != std::end(kReadersOfMatrices))
        return {at, combine(way, hash(matrix))};
      if (direction == up) {
        for (int k = 0; k < node.input_size(); ++k)
          if (const auto maker = makers_.find(node.input(k)); maker != makers_.end())
            if (!go_to({maker->second, k}, way)) break;
      } else {
        for (const std::string& output : node.output())
          for (const ParameterUse& reader : uses_of(output))
            if (!go_to(reader, way)) break;
      }
    }
    return {};
  }

 private:
  static size_t hash(const std::string& text) { return std::hash<std::string>()(text); }

  std::string matrix_of(const onnx::NodeProto& node) const {
    for (const std::string& input : node.input())
      if (const auto found = matrices_.find(input); found != matrices_.end()) return found->second;
    return "";
  }

  const NodeList& nodes_;
  std::unordered_map<std::string_view, int> makers_;            // of values that depend on an input
  std::unordered_map<std::string_view, std::string> matrices_;  // the matrix that a value is, or is computed from alone
  std::unordered_map<std::string_view, std::vector<ParameterUse>> readers_;
};

class Search {
 public:
  Search(const onnx::GraphProto& graph, const TensorReader& reader, const std::map<std::string, Tie>& ties)
      : graph_(graph), reader_(reader), wiring_(graph, ties) {
    for (const onnx::TensorProto& tensor : graph.initializer()) names_.insert(tensor.name());
    for (const onnx::ValueInfoProto& input : graph.input()) names_.insert(input.name());
    for (const onnx::NodeProto& node : graph.node()) names_.insert(node.output().begin(), node.output().end());
  }

  std::vector<SharedInitializer> run() {
    std::vector<SharedInitializer> result;
    for (const onnx::TensorProto& tensor : graph_.initializer()) {
      if (!is_float(tensor) || long_axes(tensor) != 1) continue;
      const std::span<const ParameterUse> all = wiring_.uses_of(tensor.name());
      std::vector<ParameterUse> uses(all.begin(), all.end());
      std::erase_if(uses, [&](const ParameterUse& use) { return !slot(use); });
      if (uses.size() < 2 || !may_be_merged(tensor, uses.size() == all.size())) continue;
      const std::vector<std::vector<ParameterUse>> groups = grouped(uses);
      if (groups.size() < 2) continue;
      SharedInitializer shared{&tensor, {}};
      for (const std::vector<ParameterUse>& group : groups)
        shared.parameters.push_back({shared.parameters.empty() ? tensor.name() : unused_name(group.front()), group});
      result.push_back(std::move(shared));
    }
    return result;
  }

 private:
  const Slot* slot(ParameterUse use) const { return find_slot(graph_.node(use.node), use.operand); }

  bool may_be_merged(const onnx::TensorProto& tensor, bool read_nowhere_else) const try {
    if (type_of(tensor).element_count() == 0) return false;
    if (reader_.missing_file(tensor)) return read_nowhere_else;
    if (is_table(tensor, reader_)) return false;
    const Tensor value = reader_.read(tensor);
    for (int64_t i = 1; i < value.type.element_count(); ++i)
      if (value.at(i) != value.at(0)) return false;
    return true;
  } catch (const Error&) {
    return false;  // import says what is wrong with its data
  }

  // Uses of one parameter, each.
  std::vector<std::vector<ParameterUse>> grouped(const std::vector<ParameterUse>& uses) const {
    std::vector<size_t> earlier(uses.size());  // a use of the same group, or itself
    std::iota(earlier.begin(), earlier.end(), size_t{0});
    const auto first = [&](size_t use) {
      while (earlier[use] != use) use = earlier[use] = earlier[earlier[use]];
      return use;
    };
    std::map<std::string, std::vector<std::pair<int, size_t>>> alike;  // anchor and use, by the way between them
    for (size_t i = 0; i < uses.size(); ++i) {
      const onnx::NodeProto& node = graph_.node(uses[i].node);
      const std::string module = module_of(node);
      if (!module.empty() && slot(uses[i])->meaning == Slot::module) {
        alike[module + " " + std::string(slot(uses[i])->name)].emplace_back(uses[i].node, i);
        continue;
      }
      for (Wiring::Direction direction : {Wiring::up, Wiring::down})
        if (const Wiring::Anchor anchor = wiring_.anchor(uses[i], direction); anchor.node >= 0)
          alike[module + " " + std::to_string(anchor.way)].emplace_back(anchor.node, i);
    }
    // Everything that hangs on the same node, as parallel norms do, is used in one call: by several modules.
    for (const auto& [way, members] : alike)
      for (const auto& [anchor, use] : members)
        if (anchor != members.front().first) {
          const size_t a = first(use), b = first(members.front().second);
          earlier[std::max(a, b)] = std::min(a, b);
        }
    std::map<size_t, std::vector<ParameterUse>> groups;
    for (size_t i = 0; i < uses.size(); ++i) groups[first(i)].push_back(uses[i]);
    std::vector<std::vector<ParameterUse>> result;
    for (auto& [index, group] : groups) result.push_back(std::move(group));
    return result;
  }

  std::string unused_name(ParameterUse use) {
    const onnx::NodeProto& node = graph_.node(use.node);
    const std::string last = "." + std::string(slot(use)->name);
    const std::string module = module_of(node), by_node = node_name(node, use.node) + last;
    std::string name = module.empty() ? by_node : module + last;
    if (names_.contains(name)) name = by_node;
    for (int& count = name_uses_[by_node]; !names_.insert(name).second;)
      name = by_node + "_" + std::to_string(++count + 1);
    return name;
  }

  const onnx::GraphProto& graph_;
  const TensorReader& reader_;
  Wiring wiring_;
  std::set<std::string> names_;
  std::map<std::string, int> name_uses_;  // how often a name was made unique
};

}  // namespace

std::vector<SharedInitializer> find_merged_parameters(const onnx::GraphProto& graph, const TensorReader& reader,
                                                      const std::map<std::string, Tie>& ties) {
  if (!has_vectors_read_twice(graph)) return {};
  return Search(graph, reader, ties).run();
}

}  // namespace halfstep
