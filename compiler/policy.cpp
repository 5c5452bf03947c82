#include "compiler/policy.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/file.h"
#include "frontend/import/operator_names.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargestPolicy = 1 << 20;
constexpr std::array<std::pair<std::string_view, Precision>, 4> kPrecisions{
    {{"low", Precision::low}, {"fp32", Precision::full}, {"follow", Precision::follow}, {"widest", Precision::widest}}};

struct Selector {
  std::string_view name;
  std::string PrecisionRule::* member;
};
constexpr std::array<Selector, 4> kSelectors{{{"node", &PrecisionRule::node},
                                              {"operator", &PrecisionRule::op},
                                              {"subgraph", &PrecisionRule::subgraph},
                                              {"tensor", &PrecisionRule::tensor}}};

std::string did_you_mean(const std::string& word, const std::vector<std::string>& known) {
  const std::string near = nearest(word, known);
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", near);
}

const SourceNodes& known_operators() {
  static const SourceNodes sources{.known_operators = onnx_operator_names(), .operators = {}};
  return sources;
}

class Reader {
 public:
  PrecisionPolicy read(const fs::path& path) {
    PrecisionPolicy policy{.preset = "", .removed = {}, .rules = {}};
    read_over(policy, path, "policy '" + path.string() + "'");
    problems_.throw_if_any();
    return policy;
  }
  const std::vector<fs::path>& files() const { return files_; }

 private:
  struct Entry {
    std::string name;
    const toml::node* node;
    toml::source_index line() const { return node->source().begin.line; }
  };

  void add(const fs::path& path, toml::source_index line, const std::string& problem) {
    problems_.add(fmt::format("policy '{}', line {}: {}", path.string(), line, problem));
  }

  // In the order of the file.
  static std::vector<Entry> entries_of(const toml::table& table) {
    std::vector<Entry> entries;
    for (const auto& [name, node] : table) entries.push_back({std::string(name.str()), &node});
    std::ranges::stable_sort(entries, {}, &Entry::line);
    return entries;
  }

  void read_over(PrecisionPolicy& policy, const fs::path& path, const std::string& place) {
    const fs::path canonical = fs::weakly_canonical(path);
    if (const auto seen = std::ranges::find(open_, canonical); seen != open_.end()) {
      std::string cycle;
      for (auto at = seen; at != open_.end(); ++at) cycle += at->filename().string() + " -> ";
      problems_.add(fmt::format("{}: extends itself: {}{}", place, cycle, canonical.filename().string()));
      return;
    }
    toml::table table;
    try {
      table = toml::parse(read_file(path, kLargestPolicy), path.string());
    } catch (const toml::parse_error& e) {
      return add(path, e.source().begin.line, std::string(e.description()));
    } catch (const Error& e) {
      problems_.add(fmt::format("{}: {}", place, e.what()));
      return;
    }
    open_.push_back(canonical), files_.push_back(canonical);
    const std::vector<Entry> entries = entries_of(table);
    const auto each = [&](std::string_view name, const std::function<void(const toml::node&)>& visit) {
      for (const Entry& entry : entries)
        if (entry.name == name) visit(*entry.node);
    };
    for (const Entry& entry : entries)
      if (const std::vector<std::string> keys{"version", "extends", "remove", "rule"};
          std::ranges::find(keys, entry.name) == keys.end())
        add(path, entry.line(), fmt::format("no key '{}'{}", entry.name, did_you_mean(entry.name, keys)));
    each("version", [&](const toml::node& node) {
      if (node.value<int64_t>() != 1) add(path, node.source().begin.line, "version: 1 expected, the format's");
    });
    if (!table.contains("version")) add(path, 1, "version = 1 expected, the format's");
    each("extends", [&](const toml::node& node) {
      for (const auto& [name, line] : texts(path, node, "extends")) extend(policy, path, name, line);
    });
    each("remove", [&](const toml::node& node) {
      for (const auto& [pattern, line] : texts(path, node, "remove")) remove(policy, path, pattern, line);
    });
    each("rule", [&](const toml::node& node) { add_rules(policy, path, node); });
    open_.pop_back();
  }

  // A text or a list of them, each with its line.
  std::vector<std::pair<std::string, toml::source_index>> texts(const fs::path& path, const toml::node& node,
                                                                std::string_view key) {
    std::vector<std::pair<std::string, toml::source_index>> result;
    const auto take = [&](const toml::node& element) {
      if (const auto* text = element.as_string())
        result.emplace_back(text->get(), element.source().begin.line);
      else
        add(path, element.source().begin.line, fmt::format("{}: a list of texts expected", key));
    };
    if (const auto* list = node.as_array())
      for (const toml::node& element : *list) take(element);
    else
      take(node);
    return result;
  }

  void extend(PrecisionPolicy& policy, const fs::path& path, const std::string& name, toml::source_index line) {
    if (const Preset* preset = preset_or_null(name)) {
      if (!policy.preset.empty() && policy.preset != preset->name)
        return add(
            path, line,
            fmt::format("extends: preset '{}' beside '{}', which {}: a policy begins from one preset; leave one out",
                        preset->name, policy.preset, preset_from_));
      preset_from_ = fmt::format("'{}', line {}, extends", path.string(), line);
      policy.preset = preset->name;
      return;
    }
    const fs::path file = path.parent_path() / name;
    if (name.ends_with(".toml") || fs::exists(file))
      return read_over(policy, file, fmt::format("policy '{}', line {}", path.string(), line));
    std::vector<std::string> known;
    for (const Preset& preset : presets()) known.emplace_back(preset.name);
    add(path, line,
        fmt::format("extends: no preset '{}'{}; there are: {}; a policy file ends with .toml", name,
                    did_you_mean(name, known), fmt::join(known, ", ")));
  }

  void remove(PrecisionPolicy& policy, const fs::path& path, const std::string& pattern, toml::source_index line) {
    const auto is_removed = [&](const PrecisionRule& rule) {
      return rule.pattern == pattern || rule.node == pattern || rule.op == pattern || rule.subgraph == pattern;
    };
    bool found = std::erase_if(policy.rules, is_removed) > 0;
    if (is_operator(pattern, known_operators())) policy.removed.push_back(pattern), found = true;
    if (found) return;
    std::vector<std::string> known(known_operators().known_operators.begin(), known_operators().known_operators.end());
    for (const PrecisionRule& rule : policy.rules)
      for (const Selector& selector : kSelectors) known.push_back(rule.*selector.member);
    add(path, line,
        fmt::format("remove: no rule of what this file extends has '{}'{}", pattern, did_you_mean(pattern, known)));
  }

  void add_rules(PrecisionPolicy& policy, const fs::path& path, const toml::node& node) {
    const auto* list = node.as_array();
    if (!list || !list->is_array_of_tables())
      return add(path, node.source().begin.line, "rule: [[rule]] expected, a table for each rule");
    for (const toml::node& element : *list) add_rule(policy, path, *element.as_table());
  }

  void add_rule(PrecisionPolicy& policy, const fs::path& path, const toml::table& table) {
    PrecisionRule rule;
    rule.source = fmt::format("{}:{}", path.filename().string(), table.source().begin.line);
    bool has_precision = false, has_selector = false;
    for (const Entry& entry : entries_of(table)) {
      const auto* text = entry.node->as_string();
      const auto selector = std::ranges::find(kSelectors, entry.name, &Selector::name);
      if (selector == kSelectors.end() && entry.name != "precision" && entry.name != "reason") {
        const std::vector<std::string> keys{"node", "operator", "subgraph", "tensor", "precision", "reason"};
        add(path, entry.line(), fmt::format("rule: no key '{}'{}", entry.name, did_you_mean(entry.name, keys)));
        continue;
      }
      if (!text || text->get().empty()) {
        add(path, entry.line(), fmt::format("rule: {}: a text expected", entry.name));
        continue;
      }
      if (selector != kSelectors.end()) {
        rule.*selector->member = text->get();
        has_selector |= entry.name != "tensor";
      } else if (entry.name == "reason") {
        rule.reason = text->get();
      } else {
        const auto known = std::ranges::find(kPrecisions, text->get(), &std::pair<std::string_view, Precision>::first);
        has_precision = true;
        if (known == kPrecisions.end())
          add(path, entry.line(),
              fmt::format("rule: precision: low, fp32, follow or widest expected, found '{}'", text->get()));
        else
          rule.precision = known->second;
        if (known != kPrecisions.end() && table.contains("tensor") && rule.precision != Precision::low &&
            rule.precision != Precision::full)
          add(path, entry.line(), "rule: precision: of a tensor low or fp32 expected");
      }
    }
    const toml::source_index line = table.source().begin.line;
    if (!has_precision) add(path, line, "rule: it lacks precision: low, fp32, follow or widest");
    if (!has_selector) add(path, line, "rule: it selects nothing: node, operator or subgraph expected");
    policy.rules.push_back(std::move(rule));
  }

  Problems problems_;
  std::vector<fs::path> files_;
  std::string preset_from_;     // what names the preset
  std::vector<fs::path> open_;  // files being read, each extended by the one before
};

void add_lists(std::vector<PrecisionRule>& rules, const std::vector<std::string>& patterns,
               PrecisionRule::NameForm form, std::string PrecisionRule::* selector, Precision precision,
               const std::string& source) {
  for (const std::string& pattern : patterns) {
    PrecisionRule rule{.precision = precision, .source = source, .form = form};
    rule.*selector = pattern;
    rules.push_back(std::move(rule));
  }
}

}  // namespace

PrecisionPolicy read_policy(const fs::path& path) { return Reader().read(path); }

std::vector<fs::path> policy_files(const fs::path& path) {
  Reader reader;
  reader.read(path);
  return reader.files();
}

bool is_policy(const fs::path& path) {
  try {
    const toml::table table = toml::parse(read_file(path, kLargestPolicy), path.string());
    return !table.contains("model") &&
           (table.contains("extends") || table.contains("rule") || table.contains("remove"));
  } catch (const toml::parse_error&) {
    return false;
  }
}

const Preset& preset_of(const PrecisionPolicy& policy) { return find_preset(policy.preset); }

PrecisionPolicy precision_policy(const Recipe& r) {
  PrecisionPolicy policy{.preset = "", .removed = {}, .rules = {}};
  if (!r.policy.empty()) policy = read_policy(r.policy);
  const Preset& asked = find_preset(r.preset);
  if (policy.preset.empty()) policy.preset = asked.name;
  if (r.given.contains("preset") && policy.preset != asked.name)
    throw Error(fmt::format("preset: {} is given, but policy '{}' extends {}: leave one of them out", r.preset,
                            r.policy, policy.preset));
  std::vector<PrecisionRule>& rules = policy.rules;
  for (const std::string& pattern : r.allow) rules.push_back(allow_rule(pattern));
  for (const std::string& pattern : r.deny) rules.push_back(deny_rule(pattern));
  for (const std::string& pattern : r.infer) rules.push_back(infer_rule(pattern));
  using Rule = PrecisionRule;
  add_lists(rules, r.nodes_to_exclude, Rule::regex, &Rule::node, Precision::full, "nodes_to_exclude");
  add_lists(rules, r.op_types_to_exclude, Rule::glob, &Rule::op, Precision::full, "op_types_to_exclude");
  const std::vector<PrecisionRule> ranges = range_rules(r);
  rules.insert(rules.end(), ranges.begin(), ranges.end());
  add_lists(rules, r.nodes_to_include, Rule::regex, &Rule::node, Precision::low, "nodes_to_include");
  add_lists(rules, r.op_types_to_include, Rule::glob, &Rule::op, Precision::low, "op_types_to_include");
  return policy;
}

}  // namespace halfstep
