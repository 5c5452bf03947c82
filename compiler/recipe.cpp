#include "compiler/recipe.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <ranges>

#include "base/error.h"
#include "base/file.h"
#include "training/recipe_groups.h"
#include "training/recipe_keys.h"
#include "training/recipe_losses.h"

namespace halfstep {
namespace {

std::string toml_text(const toml::node& node, char separator = ',') {
  if (const auto* s = node.as_string()) return s->get();
  if (const auto* i = node.as_integer()) return std::to_string(i->get());
  if (const auto* d = node.as_floating_point()) return fmt::format("{}", d->get());
  if (const auto* b = node.as_boolean()) return b->get() ? "true" : "false";
  if (const auto* a = node.as_array()) {
    std::string text;
    for (const toml::node& element : *a) text += (text.empty() ? "" : std::string(1, separator)) + toml_text(element);
    return text;
  }
  throw Error("a number, text, truth value or list expected");
}

// [[loss]] tables as the value of key `losses`.
std::string losses_text(const toml::array& tables) {
  std::string text;
  for (size_t number = 1; const toml::node& node : tables) {
    std::vector<std::pair<std::string, std::string>> keys;
    for (const auto& [name, value] : *node.as_table())
      keys.emplace_back(std::string(name.str()), toml_text(value, kListSeparator));
    if (keys.empty()) throw Error(fmt::format("loss {}: it is empty", number));
    ++number;
    text += (text.empty() ? "" : ";") + keys_text(keys, "losses");
  }
  return text;
}

// [[group]] tables as the value of key `groups`.
std::string groups_text(const toml::array& tables) {
  std::string text;
  for (size_t number = 1; const toml::node& node : tables) {
    std::vector<std::pair<std::string, std::string>> keys;
    for (const auto& [name, value] : *node.as_table()) {
      std::string all;
      if (const auto* list = value.as_array())
        for (const toml::node& one : *list)
          all += (all.empty() ? "" : std::string(1, kBetweenPatterns)) + toml_text(one);
      else
        all = toml_text(value);
      keys.emplace_back(std::string(name.str()), std::move(all));
    }
    if (keys.empty()) throw Error(fmt::format("group {}: it is empty", number));
    ++number;
    text += (text.empty() ? "" : ";") + keys_text(keys, "groups");
  }
  return text;
}

std::string toml_literal(const RecipeKey& k, const std::string& value) {
  if (k.unit.starts_with("NUMBER") || k.unit == "true|false") return value;
  std::string quoted;
  for (char c : value) quoted += (c == '"' || c == '\\') ? std::string("\\") + c : std::string(1, c);
  return "\"" + quoted + "\"";
}

}  // namespace

void read_recipe_text(Recipe& recipe, const std::string& text, const std::string& source,
                      const std::filesystem::path& base) {
  toml::table table;
  try {
    table = toml::parse(text, source);
  } catch (const toml::parse_error& e) {
    throw Error(fmt::format("{}, line {}: {}", source, e.source().begin.line, e.description()));
  }
  struct Entry {
    std::string name;
    const toml::node* node;
    toml::source_index line() const { return node->source().begin.line; }
  };
  std::vector<Entry> entries;  // in the order of the file
  for (const auto& [name, node] : table) entries.push_back({std::string(name.str()), &node});
  std::ranges::stable_sort(entries, {}, &Entry::line);
  Problems problems;
  for (const Entry& entry : entries) try {
      const bool is_loss = entry.name == "loss";
      const toml::array* tables = is_loss || entry.name == "group" ? entry.node->as_array() : nullptr;
      if (tables && tables->is_homogeneous(toml::node_type::table)) {
        set_key(recipe, is_loss ? "losses" : "groups", is_loss ? losses_text(*tables) : groups_text(*tables));
        continue;
      }
      const RecipeKey* k = find_key(entry.name);
      std::string value = k ? toml_text(*entry.node) : "";
      if (k) value = from_folder(base, *k, value);
      set_key(recipe, entry.name, value);
    } catch (const Error& e) {
      problems.add(fmt::format("{}, line {}: {}", source, entry.line(), e.what()));
    }
  problems.throw_if_any();
}

void read_recipe(Recipe& recipe, const std::filesystem::path& path) {
  constexpr int64_t kLargestRecipe = 1 << 20;
  read_recipe_text(recipe, read_file(path, kLargestRecipe), "recipe '" + path.string() + "'", path.parent_path());
}

std::string to_toml(const Recipe& recipe) {
  std::string text;
  for (const RecipeKey& k : recipe_keys()) {
    std::string value = k.get(recipe);
    if (value.empty()) continue;
    value = from_folder(std::filesystem::current_path(), k, value);
    std::string list;
    for (const auto part : std::views::split(value, ','))
      list += (list.empty() ? "" : ", ") + toml_literal(k, std::string(part.begin(), part.end()));
    text += k.name + " = " + (k.unit.ends_with(",...") ? "[" + list + "]" : toml_literal(k, value)) + "\n";
  }
  return text;
}

}  // namespace halfstep
