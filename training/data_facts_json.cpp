#include "training/data_facts_json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace halfstep {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostNames = size_t{1} << 20;

std::vector<std::string> names_in(const Json& object, const char* key) {
  std::vector<std::string> names;
  for (const Json& name : object.value(key, Json::array())) names.push_back(name.get<std::string>());
  if (names.size() > kMostNames) throw Error(std::string("manifest.json: 'data': too many ") + key);
  return names;
}

}  // namespace

Json to_json(const DataFacts& facts) {
  Json json = Json::object();
  if (facts.split_seed) json["split_seed"] = *facts.split_seed;
  if (!facts.split.empty()) json["split"] = facts.split;
  if (!facts.classes.empty()) json["classes"] = facts.classes;
  if (!facts.columns.empty()) json["columns"] = facts.columns;
  if (!facts.labels.empty()) json["labels"] = facts.labels;
  for (const DataFacts::Scaling& s : facts.scalings)
    json["scalings"].push_back({{"column", s.column}, {"mean", s.mean}, {"deviation", s.deviation}});
  return json;
}

DataFacts data_facts_of(const Json& json) try {
  DataFacts facts;
  if (json.contains("split_seed")) {
    if (!json["split_seed"].is_number_unsigned())
      throw Error("manifest.json: 'split_seed': an integer from 0 expected");
    facts.split_seed = json["split_seed"].get<uint64_t>();
  }
  facts.split = json.value("split", "");
  facts.classes = names_in(json, "classes"), facts.columns = names_in(json, "columns");
  facts.labels = names_in(json, "labels");
  for (const Json& s : json.value("scalings", Json::array())) {
    facts.scalings.push_back(
        {s.at("column").get<std::string>(), s.at("mean").get<double>(), s.at("deviation").get<double>()});
    if (!std::isfinite(facts.scalings.back().mean) || !(facts.scalings.back().deviation > 0))
      throw Error("manifest.json: 'scalings': a finite mean and a deviation above 0 expected");
  }
  return facts;
} catch (const Json::exception& e) {
  throw Error(std::string("manifest.json: 'data': ") + e.what());
}

}  // namespace halfstep
