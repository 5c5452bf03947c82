#include "compiler/inspect/assignment.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/error.h"
#include "base/file.h"
#include "program/json_text.h"

namespace halfstep {
namespace {

using nlohmann::json;

constexpr int64_t kLargestReport = int64_t{1} << 30;

std::string title_of(const std::string& precision, const std::string& preset, const std::string& policy) {
  return fmt::format("{}, preset {}{}", precision, preset, policy.empty() ? "" : ", policy " + policy);
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {}

  Assignment read() const {
    const json file = [&] {
      try {
        return parse_json(read_file(path_, kLargestReport));
      } catch (const Error& e) {
        fail(e.what());
      }
    }();
    if (file.is_discarded() || !file.is_object()) fail("it is no JSON object");
    if (!file.contains("schema_version") || file["schema_version"] != 1) fail("'schema_version' is not 1");
    // One after the other: the first that is missing is told.
    const std::string precision = text(file, "precision"), preset = text(file, "preset"), policy = text(file, "policy");
    Assignment assignment{title_of(precision, preset, policy), text(file, "model"), {}};
    if (!file.contains("nodes") || !file["nodes"].is_array()) fail("it has no list 'nodes'");
    for (const json& node : file["nodes"]) {
      if (!node.is_object()) fail("an element of 'nodes' is no object");
      assignment.nodes.push_back({text(node, "node"), text(node, "operator"), text(node, "operand"),
                                  text(node, "accumulator"), text(node, "result"), text(node, "reason"),
                                  text(node, "rule"), slots_of(node)});
    }
    return assignment;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("'{}': {}: give what `halfstep inspect --json` wrote", path_.string(), what));
  }
  // Empty for null.
  std::string text(const json& object, const char* key) const {
    if (!object.contains(key) || !(object[key].is_string() || object[key].is_null()))
      fail(fmt::format("no text '{}'", key));
    return object[key].is_null() ? "" : line_of(object[key]);
  }

  std::map<std::string, std::string> slots_of(const json& node) const {
    std::map<std::string, std::string> slots;
    if (!node.contains("slots")) return slots;
    if (!node["slots"].is_object()) fail("'slots' of a node is no object");
    for (const auto& [slot, type] : node["slots"].items()) slots.emplace(slot, text(node["slots"], slot.c_str()));
    return slots;
  }

  const std::filesystem::path& path_;
};

}  // namespace

Assignment assignment_of(const Inspection& inspection) {
  Assignment assignment{title_of(inspection.precision, inspection.preset, inspection.policy), inspection.model, {}};
  for (const InspectedNode& node : inspection.nodes) {
    assignment.nodes.push_back({node.origin.name, node.op, node.typed ? std::string(name(node.operand)) : "",
                                node.accumulator ? std::string(name(*node.accumulator)) : "",
                                node.typed ? std::string(name(node.result)) : "", node.reason, node.rule});
    for (const auto& [slot, type] : node.slots) assignment.nodes.back().slots.emplace(to_string(slot), name(type));
  }
  return assignment;
}

const std::string& AssignedNode::of_slot(const std::string& slot) const {
  const auto found = slots.find(slot);
  return found != slots.end() ? found->second : slot == "result" ? result : operand;
}

Assignment read_assignment(const std::filesystem::path& path) { return Reader(path).read(); }

AssignmentDiff diff(const Assignment& first, const Assignment& second) {
  const auto key = [](const AssignedNode& node) {
    return std::pair(std::string_view(node.name), std::string_view(node.op));
  };
  const auto types = [](const AssignedNode& node) { return std::tie(node.operand, node.accumulator, node.result); };
  const auto same_slots = [](const AssignedNode& a, const AssignedNode& b) {
    const auto same = [&](const auto& slot) { return a.of_slot(slot.first) == b.of_slot(slot.first); };
    return std::ranges::all_of(a.slots, same) && std::ranges::all_of(b.slots, same);
  };
  std::multimap<std::pair<std::string_view, std::string_view>, const AssignedNode*> others;
  for (const AssignedNode& node : second.nodes) others.emplace(key(node), &node);
  AssignmentDiff result;
  for (const AssignedNode& node : first.nodes) {
    const auto other = others.find(key(node));
    if (other == others.end()) {
      result.only_first.push_back(&node);
      continue;
    }
    if (types(node) == types(*other->second) && same_slots(node, *other->second))
      ++result.same;
    else
      result.changed.emplace_back(&node, other->second);
    others.erase(other);
  }
  for (const AssignedNode& node : second.nodes)
    if (const auto [begin, end] = others.equal_range(key(node));
        std::any_of(begin, end, [&](const auto& left) { return left.second == &node; }))
      result.only_second.push_back(&node);
  return result;
}

}  // namespace halfstep
