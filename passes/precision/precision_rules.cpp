#include "passes/precision/precision_rules.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <functional>
#include <regex>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

bool names(const Op& op, const std::string& text) { return op.name == text || (!op.onnx.empty() && op.onnx == text); }

bool separates(char c) { return c == '/' || c == '.' || c == ':'; }

// Whether `name` is `scope` or stands under it. Exporters separate with '/', '.' and "::", and begin with '/'.
bool stands_under(std::string_view scope, std::string_view name) {
  const auto begun = [](std::string_view text) { return text.starts_with('/') ? text.substr(1) : text; };
  scope = begun(scope), name = begun(name);
  const auto same = [](char a, char b) { return a == b || (separates(a) && separates(b)); };
  if (name.size() < scope.size() || !std::ranges::equal(scope, name.substr(0, scope.size()), same)) return false;
  return name.size() == scope.size() || (!scope.empty() && separates(scope.back())) || separates(name[scope.size()]);
}

// A rule made ready.
struct Matcher {
  const PrecisionRule* rule;
  bool is_operator = false;
  std::optional<std::regex> expression;

  bool fits(const std::string& pattern, const std::string& name) const {
    if (name.empty()) return false;
    switch (rule->form) {
      case PrecisionRule::glob:
        return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
      case PrecisionRule::regex:
        return std::regex_search(name, *expression, std::regex_constants::match_continuous);
      case PrecisionRule::literal:
        return pattern == name;
    }
    return false;
  }
  static bool fits_name(const std::string& pattern, const std::string& name) {
    return !name.empty() && fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
  }
};

// What a rule's selectors are compared with.
struct Candidate {
  const std::string& name;   // of the ONNX node; maybe empty
  const std::string* onnx;   // its operator; nullptr: none
  const std::string* scope;  // nullptr: the file does not tell
  const Op* op;              // nullptr: of a node that is gone
};

class Classes {
 public:
  Classes(const Graph& graph, const std::vector<PrecisionRule>& rules, const SourceNodes& sources)
      : graph_(graph), sources_(sources) {
    for (const auto& [part, whole] : sources.part_of) parts_[whole].push_back(part);
    for (const PrecisionRule& rule : rules) {
      Matcher& m = matchers_.emplace_back(Matcher{&rule, is_operator(rule.pattern, sources), {}});
      if (rule.form == PrecisionRule::regex)
        m.expression = compiled(rule.pattern.empty() ? rule.node : rule.pattern, rule.source);
      const bool of_one_name = rule.form == PrecisionRule::literal && !rule.node.empty() && rule.pattern.empty();
      (of_one_name ? of_name_[rule.node] : of_any_).push_back(matchers_.size() - 1);
    }
    problems_.throw_if_any();
    check();
  }

  PrecisionClasses run(Preset::OperatorRows operator_rows, const std::vector<std::string>& removed) {
    PrecisionClasses result;
    result.of.reserve(graph_.nodes().size());
    std::vector<size_t> matched(matchers_.size(), 0), decided(matchers_.size(), 0), beaten_by(matchers_.size(), 0);
    std::vector<size_t> met;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      const bool is_removed = std::ranges::any_of(removed, [&](const std::string& r) { return names(*node.op, r); });
      const bool rowless = operator_rows == Preset::none || is_removed;
      PrecisionClass c{rowless ? Precision::follow : node.op->precision, ""};
      c.has_row = !rowless;
      met.clear();
      for (size_t i : candidates(node.origin.name)) {
        const PrecisionRule& rule = *matchers_[i].rule;
        if (!applies(matchers_[i], node)) continue;
        if (!rule.tensor.empty()) {
          add_slots(matchers_[i], id, result);
          continue;
        }
        met.push_back(i);
        c = class_of(matchers_[i], *node.op);
      }
      for (size_t i : met) {
        ++matched[i];
        if (matchers_[i].rule->precision == matchers_[met.back()].rule->precision)
          ++decided[i];
        else
          beaten_by[i] = met.back();
      }
      // What is computed between the model's output and its loss is f32, whatever rules say of such operators.
      if (node.origin.phase == Phase::loss && node.op->kernel == KernelKind::pointwise)
        c = {.precision = Precision::full, .source = "", .reason = "computes the loss"};
      result.of.push_back(std::move(c));
    }
    for (size_t i = 0; i < matchers_.size(); ++i) {
      const PrecisionRule& rule = *matchers_[i].rule;
      if (rule.author != PrecisionRule::user || matched[i] == 0 || decided[i] > 0 || beaten_by[i] <= i) continue;
      result.remarks.push_back(fmt::format("{} decides nothing: {}, which says {}, stands behind it and wins",
                                           to_string(rule), to_string(*matchers_[beaten_by[i]].rule),
                                           said(matchers_[beaten_by[i]].rule->precision)));
    }
    for (const auto& [rule, text] : slot_problems_)
      if (!text.empty()) problems_.add(text);
    problems_.throw_if_any();
    return result;
  }

 private:
  static std::string_view said(Precision precision) {
    return precision == Precision::low ? "low" : precision == Precision::full ? "fp32" : name(precision);
  }

  std::optional<std::regex> compiled(const std::string& text, const std::string& source) {
    // libstdc++ parses by recursion, and backtracks unless it is asked to match in polynomial time.
    constexpr size_t kLongest = 1000;
    if (text.size() > kLongest) {
      problems_.add(fmt::format("autocast: {} of {} characters: a regular expression has at most {}", source,
                                text.size(), kLongest));
      return std::nullopt;
    }
    try {
      return std::regex(text, std::regex::ECMAScript | std::regex_constants::__polynomial);
    } catch (const std::regex_error&) {
      problems_.add(fmt::format("autocast: {} '{}' is no regular expression", source, text));
      return std::nullopt;
    }
  }

  static PrecisionClass class_of(const Matcher& m, const Op& op) {
    const PrecisionRule& rule = *m.rule;
    const bool is_user = rule.author != PrecisionRule::preset;
    const bool by_name = is_user && !rule.pattern.empty() && !m.is_operator;
    return {.precision = rule.precision,
            .source = by_name ? fmt::format("{}: pattern '{}'", rule.source, rule.pattern) : rule.source,
            .reason = rule.reason,
            .is_user = is_user,
            .is_fixed = is_user || rule.precision != op.precision};
  }

  const std::string* operator_of(const std::string& name) const {
    const auto op = sources_.operators.find(name);
    return op == sources_.operators.end() ? nullptr : &op->second;
  }
  const std::string* scope_of(const std::string& name) const {
    const auto scope = sources_.scopes.find(name);
    return scope == sources_.scopes.end() ? nullptr : &scope->second;
  }

  static bool matches_operator(const std::string& text, const Candidate& c) {
    return (c.op && names(*c.op, text)) || (c.onnx && *c.onnx == text);
  }
  static bool matches_scope(const std::string& text, const Candidate& c) {
    return stands_under(text, c.name) || (c.scope && stands_under(text, *c.scope));
  }

  bool matches(const Matcher& m, const Candidate& c) const {
    const PrecisionRule& r = *m.rule;
    if (!r.pattern.empty() && !matches_operator(r.pattern, c) && !m.fits(r.pattern, c.name)) return false;
    if (!r.node.empty() && !m.fits(r.node, c.name)) return false;
    if (!r.op.empty() && !matches_operator(r.op, c)) return false;
    return r.subgraph.empty() || matches_scope(r.subgraph, c);
  }

  // The rules that may be about nodes of this name, in order: those that name others need not be tried.
  std::vector<size_t> candidates(const std::string& name) const {
    std::vector<size_t> result = of_any_;
    const auto add = [&](const std::string& named) {
      if (const auto found = of_name_.find(named); found != of_name_.end())
        result.insert(result.end(), found->second.begin(), found->second.end());
    };
    add(name);
    if (const auto parts = parts_.find(name); parts != parts_.end()) std::ranges::for_each(parts->second, add);
    if (result.size() == of_any_.size()) return result;
    std::ranges::sort(result);
    const auto repeated = std::ranges::unique(result);
    result.erase(repeated.begin(), repeated.end());
    return result;
  }

  bool applies(const Matcher& m, const Node& node) const {
    if (m.rule->author == PrecisionRule::preset && m.rule->op.empty())  // every node of the model
      return node.origin.phase == Phase::forward && node.op->leaf == Leaf::none;
    const std::string& name = node.origin.name;
    if (&name != name_) name_ = &name, onnx_ = operator_of(name), scope_ = scope_of(name);
    if (matches(m, {name, onnx_, scope_, node.op})) return true;
    if (parts_.empty() || m.rule->precision != Precision::full || name.empty()) return false;
    const auto parts = parts_.find(name);
    return parts != parts_.end() && std::ranges::any_of(parts->second, [&](const std::string& part) {
             return matches(m, {part, operator_of(part), scope_of(part), nullptr});
           });
  }

  // The slots that are the ONNX node's own: what comes into it and what leaves it.
  void add_slots(const Matcher& m, NodeId id, PrecisionClasses& result) {
    if (users_.empty()) users_ = graph_.users();
    const Node& node = graph_.node(id);
    if (node.op->leaf != Leaf::none) return;
    const std::string& wanted = m.rule->tensor;
    std::string& problem = slot_problems_.try_emplace(m.rule, unmatched_slot(*m.rule)).first->second;
    const auto inside = [&](NodeId other) {
      return !node.origin.name.empty() && graph_.node(other).origin == node.origin &&
             graph_.node(other).op->leaf == Leaf::none;
    };
    const auto add = [&](std::optional<size_t> operand) {
      result.slots[id].push_back({operand, m.rule->precision, m.rule->source});
      problem.clear();
    };
    if (wanted == "result") {
      const auto gives = [&](NodeId other) {
        const std::vector<NodeId>& users = users_[static_cast<size_t>(other)];
        return users.empty() || !std::ranges::all_of(users, inside);
      };
      // What a Gemm adds its bias to is not rounded before.
      NodeId at = id;
      if (m.rule->precision == Precision::full && node.attributes.find("result"))
        while (!gives(at) && users_[static_cast<size_t>(at)].size() == 1) {
          at = users_[static_cast<size_t>(at)].front();
          if (graph_.node(at).op->kernel != KernelKind::movement) break;
        }
      if (gives(at)) add(std::nullopt);
      return;
    }
    if (moves_for_its_own(graph_, id, users_[static_cast<size_t>(id)])) return;  // its reader has the slot
    for (size_t i = 0; i < node.operands.size(); ++i) {
      if (!node.operands[i]) continue;
      const Value v = moved_from(graph_, id, node.operands[i]);
      if (inside(v.node)) continue;
      const Node& maker = graph_.node(v);
      const std::string_view own = node.op->operands[std::min(i, node.op->operands.size() - 1)].name;
      const bool leaf_fits = is_leaf(*maker.op) && m.fits_name(wanted, maker.attributes.text("name"));
      if (wanted != std::to_string(place_in_file(graph_, id, i, sources_)) && wanted != own && !leaf_fits &&
          !m.fits_name(wanted, maker.origin.name))
        continue;
      add(i);
      // In f32 nothing rounds it on its way either.
      if (m.rule->precision == Precision::full)
        for (Value at = node.operands[i]; at != v; at = graph_.node(at).operands[0])
          result.slots[at.node].push_back({std::nullopt, m.rule->precision, m.rule->source});
    }
  }

  static std::string unmatched_slot(const PrecisionRule& rule) {
    return fmt::format(
        "autocast: {}: tensor '{}' is no slot of what it matches: 'result', an operand's number or its name expected",
        rule.source, rule.tensor);
  }

  bool any_candidate(const std::function<bool(const Candidate&)>& wanted) const {
    return std::ranges::any_of(graph_.nodes(),
                               [&](const Node& node) {
                                 const std::string& name = node.origin.name;
                                 return wanted({name, operator_of(name), scope_of(name), node.op});
                               }) ||
           std::ranges::any_of(sources_.operators, [&](const auto& node) {
             return wanted({node.first, &node.second, scope_of(node.first), nullptr});
           });
  }

  std::vector<std::string> known_operators() const {
    std::vector<std::string> known(sources_.known_operators.begin(), sources_.known_operators.end());
    for (const Op* op : all_ops()) known.push_back(std::string(op->onnx.empty() ? op->name : op->onnx));
    return known;
  }
  std::vector<std::string> known_nodes() const {
    std::vector<std::string> known;
    for (const Node& node : graph_.nodes()) known.push_back(node.origin.name);
    for (const auto& [name, op] : sources_.operators) known.push_back(name);
    return known;
  }

  void add_problem(const PrecisionRule& rule, const std::string& text, std::string_view what,
                   const std::vector<std::string>& known) {
    const std::string near = nearest(text, known);
    problems_.add(fmt::format("autocast: {} '{}' {}{}", rule.source, text, what,
                              near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
  }

  // Each selector by itself, then all together.
  void check() {
    for (const Matcher& m : matchers_) {
      const PrecisionRule& r = *m.rule;
      if (r.author != PrecisionRule::user) continue;
      size_t problems = 0;
      const auto expect = [&](bool holds, const std::string& text, std::string_view what,
                              const std::vector<std::string>& known) {
        if (!holds) ++problems, add_problem(r, text, what, known);
      };
      if (!r.pattern.empty() && !m.is_operator &&
          !any_candidate([&](const Candidate& c) { return m.fits(r.pattern, c.name); })) {
        std::vector<std::string> known = known_operators();
        for (std::string& node : known_nodes()) known.push_back(std::move(node));
        expect(false, r.pattern, "is no operator and matches no node of the model", known);
      }
      if (!r.node.empty())
        expect(any_candidate([&](const Candidate& c) { return m.fits(r.node, c.name); }), r.node,
               "matches no node of the model", known_nodes());
      if (!r.op.empty()) expect(is_operator(r.op, sources_), r.op, "is no operator", known_operators());
      if (!r.subgraph.empty())
        expect(any_candidate([&](const Candidate& c) { return matches_scope(r.subgraph, c); }), r.subgraph,
               "is no subgraph of the model", known_nodes());
      const bool places = !r.node.empty() || !r.subgraph.empty();
      if (problems == 0 && places && !any_candidate([&](const Candidate& c) { return matches(m, c); }))
        problems_.add(fmt::format("autocast: {}: no node matches all of its selectors", to_string(r)));
    }
    problems_.throw_if_any();
  }

  const Graph& graph_;
  const SourceNodes& sources_;
  Problems problems_;
  std::vector<Matcher> matchers_;
  std::vector<size_t> of_any_;
  std::unordered_map<std::string_view, std::vector<size_t>> of_name_;  // rules of one name each
  std::map<std::string, std::vector<std::string>> parts_;
  std::vector<std::vector<NodeId>> users_;
  std::map<const PrecisionRule*, std::string> slot_problems_;
  // Of the node before, which most often is that of the same node of the file.
  mutable const std::string *name_ = nullptr, *onnx_ = nullptr, *scope_ = nullptr;
};

}  // namespace

bool moves_for_its_own(const Graph& graph, NodeId id, const std::vector<NodeId>& users) {
  const Node& node = graph.node(id);
  return node.op->kernel == KernelKind::movement && !node.origin.name.empty() && !users.empty() &&
         std::ranges::all_of(users, [&](NodeId user) { return graph.node(user).origin == node.origin; });
}

Value moved_from(const Graph& graph, NodeId reader, Value v) {
  const Origin& origin = graph.node(reader).origin;
  for (;;) {
    const Node& maker = graph.node(v);
    if (origin.name.empty() || maker.op->kernel != KernelKind::movement || maker.origin != origin ||
        maker.operands.empty())
      return v;
    v = maker.operands[0];
  }
}

size_t place_in_file(const Graph& graph, NodeId id, size_t operand, const SourceNodes& sources) {
  const Node& node = graph.node(id);
  const auto known = sources.operands.find(node.origin.name);
  if (known == sources.operands.end() || !node.operands[operand]) return operand;
  const Node& maker = graph.node(moved_from(graph, id, node.operands[operand]));
  const std::string& name = is_leaf(*maker.op) ? maker.attributes.text("name") : *maker.origin.name;
  const auto is_it = [&](const std::string& source) {
    if (source == name) return true;
    const auto whole = sources.part_of.find(source);
    return whole != sources.part_of.end() && whole->second == name;
  };
  const std::vector<std::string>& sources_of_node = known->second;
  if (operand < sources_of_node.size() && is_it(sources_of_node[operand])) return operand;
  const auto found = std::ranges::find_if(sources_of_node, is_it);
  return found == sources_of_node.end() ? operand : static_cast<size_t>(found - sources_of_node.begin());
}

PrecisionRule allow_rule(std::string pattern) { return {std::move(pattern), Precision::low, "allow list"}; }
PrecisionRule deny_rule(std::string pattern) { return {std::move(pattern), Precision::full, "deny list"}; }
PrecisionRule infer_rule(std::string pattern) { return {std::move(pattern), Precision::follow, "infer list"}; }

std::string to_string(const PrecisionRule& rule) {
  std::string text = rule.source;
  const auto add = [&](std::string_view kind, const std::string& value) {
    if (!value.empty()) text += fmt::format("{} {}'{}'", text == rule.source ? ":" : ",", kind, value);
  };
  add("", rule.pattern);
  add("node ", rule.node);
  add("operator ", rule.op);
  add("subgraph ", rule.subgraph);
  add("tensor ", rule.tensor);
  return text;
}

bool is_operator(const std::string& name, const SourceNodes& sources) {
  return sources.known_operators.contains(name) ||
         std::ranges::any_of(all_ops(), [&](const Op* op) { return names(*op, name); });
}

std::vector<PrecisionRule> preset_rules(const Preset& preset) {
  std::vector<PrecisionRule> rules;
  for (const PresetRow& row : preset.rows)
    rules.push_back({.precision = row.precision,
                     .source = fmt::format("{}, {}", to_string(preset), row.list),
                     .op = row.pattern == "*" ? "" : std::string(row.pattern),
                     .author = PrecisionRule::preset});
  return rules;
}

PrecisionClasses precision_classes(const Graph& graph, const std::vector<PrecisionRule>& rules,
                                   const SourceNodes& sources, Preset::OperatorRows operator_rows,
                                   const std::vector<std::string>& removed) {
  return Classes(graph, rules, sources).run(operator_rows, removed);
}

std::map<std::string, std::string> parts_taken_in(const Graph& before, const Graph& after) {
  // A constant that kept the name of a node does not stand for it.
  const auto computing = [](const Graph& graph) {
    std::vector<char> computes;
    for (const Node& node : graph.nodes()) {
      bool on_data = is_leaf(*node.op);
      for (Value v : node.operands) on_data |= v && computes[static_cast<size_t>(v.node)];
      computes.push_back(on_data);
    }
    return computes;
  };
  std::unordered_set<std::string_view> there;
  const std::vector<char> computes_after = computing(after), computes_before = computing(before);
  for (NodeId id = 0; id < after.size(); ++id)
    if (computes_after[static_cast<size_t>(id)] && !is_leaf(*after.node(id).op))
      there.insert(*after.node(id).origin.name);
  std::map<std::string, std::string> taken_in;
  const std::vector<std::vector<NodeId>> users = before.users();
  std::vector<Shared<std::string>> nearest_name(before.nodes().size());
  const auto look = [&](NodeId id, auto&& neighbours) {
    const Node& node = before.node(id);
    Shared<std::string>& found = nearest_name[static_cast<size_t>(id)];
    if (!computes_before[static_cast<size_t>(id)] || !found.empty()) return;
    if (!is_leaf(*node.op) && there.contains(*node.origin.name)) {
      found = node.origin.name;
      return;
    }
    for (NodeId other : neighbours)
      if (found.empty() && !is_leaf(*before.node(other).op)) found = nearest_name[static_cast<size_t>(other)];
    if (!found.empty() && !is_leaf(*node.op) && !node.origin.name.empty()) taken_in.emplace(node.origin.name, found);
  };
  for (NodeId id = before.size(); id-- > 0;) look(id, users[static_cast<size_t>(id)]);
  std::vector<NodeId> makers;
  for (NodeId id = 0; id < before.size(); ++id) {
    makers.clear();
    for (Value v : before.node(id).operands)
      if (v) makers.push_back(v.node);
    look(id, makers);
  }
  return taken_in;
}

}  // namespace halfstep
