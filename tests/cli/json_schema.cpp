#include "tests/cli/json_schema.h"

#include <algorithm>
#include <set>

namespace halfstep::test {
namespace {

using nlohmann::json;

bool has_type(const json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer") return value.is_number_integer();
  return type == "number" && value.is_number();
}

class Schema {
 public:
  explicit Schema(const json& root) : root_(root) {}

  void check(const json& schema, const json& value, const std::string& at) {
    static const std::set<std::string> known{
        "$schema", "$defs", "title",   "description", "type",    "properties",           "required", "items",
        "enum",    "const", "minimum", "$ref",        "maximum", "additionalProperties", "anyOf"};
    for (const auto& [key, unused] : schema.items())
      if (!known.contains(key)) problems.push_back("the schema of " + at + " has '" + key + "'");
    if (schema.contains("$ref")) {
      const std::string ref = schema["$ref"];
      check(root_.at(json::json_pointer(ref.substr(1))), value, at);
    }
    if (schema.contains("anyOf")) {
      const auto fits = [&](const json& choice) {
        Schema tried(root_);
        tried.check(choice, value, at);
        return tried.problems.empty();
      };
      if (std::ranges::none_of(schema["anyOf"], fits)) wrong(at, value, "is none of " + schema["anyOf"].dump());
    }
    if (schema.contains("type")) {
      const json types = schema["type"].is_array() ? schema["type"] : json::array({schema["type"]});
      if (std::ranges::none_of(types, [&](const json& type) { return has_type(value, type); }))
        return wrong(at, value, "is no " + types.dump());
    }
    if (schema.contains("enum") && std::ranges::find(schema["enum"], value) == schema["enum"].end())
      wrong(at, value, "is none of " + schema["enum"].dump());
    if (schema.contains("const") && schema["const"] != value) wrong(at, value, "is not " + schema["const"].dump());
    if (value.is_number() && schema.contains("minimum") && value < schema["minimum"]) wrong(at, value, "is too small");
    if (value.is_number() && schema.contains("maximum") && value > schema["maximum"]) wrong(at, value, "is too large");
    if (value.is_array() && schema.contains("items"))
      for (size_t i = 0; i < value.size(); ++i) check(schema["items"], value[i], at + "/" + std::to_string(i));
    if (value.is_object()) check_members(schema, value, at);
  }

  std::vector<std::string> problems;

 private:
  void check_members(const json& schema, const json& value, const std::string& at) {
    const json properties = schema.value("properties", json::object());
    for (const json& name : schema.value("required", json::array()))
      if (!value.contains(std::string(name))) problems.push_back(at + ": " + name.dump() + " is missing");
    for (const auto& [name, member] : value.items()) {
      if (properties.contains(name))
        check(properties[name], member, at + "/" + name);
      else if (const json others = schema.value("additionalProperties", json(true)); others.is_object())
        check(others, member, at + "/" + name);
      else if (others == false)
        problems.push_back(at + ": " + name + " is not in the schema");
    }
  }

  void wrong(const std::string& at, const json& value, const std::string& what) {
    problems.push_back(at + ": " + value.dump().substr(0, 60) + " " + what);
  }

  const json& root_;
};

}  // namespace

std::vector<std::string> schema_problems(const json& schema, const json& value) {
  Schema checked(schema);
  checked.check(schema, value, "");
  return checked.problems;
}

}  // namespace halfstep::test
