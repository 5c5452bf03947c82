#include "program/notes_json.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/error.h"
#include "program/json_text.h"

namespace halfstep {
namespace {

using Json = nlohmann::json;

// The one list of fields: those at their default are left out.
constexpr auto kFields = std::tuple{std::pair{"compiler", &StepNotes::compiler},
                                    std::pair{"host", &StepNotes::host},
                                    std::pair{"recipe", &StepNotes::recipe},
                                    std::pair{"accumulation", &StepNotes::accumulation},
                                    std::pair{"seed", &StepNotes::seed},
                                    std::pair{"learning_rate", &StepNotes::learning_rate},
                                    std::pair{"label_input", &StepNotes::label_input},
                                    std::pair{"classes", &StepNotes::classes},
                                    std::pair{"label_classes", &StepNotes::label_classes},
                                    std::pair{"ignored_label", &StepNotes::ignored_label},
                                    std::pair{"label_bounds", &StepNotes::label_bounds},
                                    std::pair{"table_rows", &StepNotes::table_rows},
                                    std::pair{"losses", &StepNotes::losses},
                                    std::pair{"judged", &StepNotes::judged},
                                    std::pair{"rates", &StepNotes::rates},
                                    std::pair{"preset", &StepNotes::preset},
                                    std::pair{"missing_constants", &StepNotes::missing_constants},
                                    std::pair{"largest_tensors", &StepNotes::largest_tensors}};

template <typename Visit>
void visit_fields(const Visit& visit) {
  std::apply([&](const auto&... field) { (visit(field.first, field.second), ...); }, kFields);
}

template <typename T>
Json written(const T& value) {
  return value;
}
// JSON has no infinities.
Json written(const LabelBounds& bounds) {
  Json json = Json::object();
  if (std::isfinite(bounds.least)) json["least"] = bounds.least;
  if (std::isfinite(bounds.most)) json["most"] = bounds.most;
  return json;
}
template <typename T>
Json written(const std::optional<T>& value) {
  return written(*value);
}
Json written(const std::vector<LossNote>& losses) {
  Json json = Json::array();
  for (const LossNote& loss : losses) {
    json.push_back({{"name", loss.name}, {"labels", loss.labels}, {"weight", loss.weight}, {"classes", loss.classes}});
    if (loss.ignored) json.back()["ignored"] = *loss.ignored;
    if (loss.bounds) json.back()["bounds"] = written(*loss.bounds);
  }
  return json;
}
Json written(const std::vector<JudgedOutput>& outputs) {
  Json json = Json::array();
  for (const JudgedOutput& one : outputs) {
    json.push_back({{"output", one.output},
                    {"labels", one.labels},
                    {"meaning", name(one.meaning)},
                    {"class_axis", one.class_axis}});
    if (!one.loss.empty()) json.back()["loss"] = one.loss;
    if (one.ignored) json.back()["ignored"] = *one.ignored;
    if (one.squared) json.back()["squared"] = true;
    if (one.smoothed) json.back()["smoothed"] = true;
  }
  return json;
}

Json written(const std::vector<RateNote>& rates) {
  Json json = Json::array();
  for (const RateNote& rate : rates) {
    json.push_back({{"from_epoch", rate.from_epoch}});
    if (rate.learning_rate) json.back()["learning_rate"] = *rate.learning_rate;
  }
  return json;
}

void read(const Json& json, std::string& value) { value = line_of(json); }
void read(const Json& json, int64_t& value) { value = integer_of(json); }
void read(const Json& json, double& value) { value = json.get<double>(); }
void read(const Json& json, LabelBounds& bounds) {
  if (json.contains("least")) read(json.at("least"), bounds.least);
  if (json.contains("most")) read(json.at("most"), bounds.most);
}
template <typename T>
void read(const Json& json, std::optional<T>& value) {
  read(json, value.emplace());
}
template <typename T>
void read(const Json& json, std::map<std::string, T>& value) {
  for (const auto& [key, entry] : json.get_ref<const Json::object_t&>()) read(entry, value[line_of(key)]);
}

void read(const Json& json, LossNote& loss) {
  read(json.at("name"), loss.name), read(json.at("labels"), loss.labels), read(json.at("weight"), loss.weight);
  loss.classes = count_in(json, "classes");
  if (json.contains("ignored")) read(json.at("ignored"), loss.ignored);
  if (json.contains("bounds")) read(json.at("bounds"), loss.bounds);
}
void read(const Json& json, std::vector<LossNote>& losses) {
  for (const Json& entry : json.get_ref<const Json::array_t&>()) read(entry, losses.emplace_back());
}
void read(const Json& json, bool& value) { value = json.get<bool>(); }
void read(const Json& json, std::vector<JudgedOutput>& outputs) {
  for (const Json& entry : json.get_ref<const Json::array_t&>()) {
    JudgedOutput& one = outputs.emplace_back();
    read(entry.at("output"), one.output), read(entry.at("labels"), one.labels);
    const std::string meaning = line_of(entry.at("meaning"));
    const std::optional<OutputMeaning> known = parse_meaning(meaning);
    if (!known) throw Error("an output's meaning is '" + meaning + "', which no version of this one writes");
    one.meaning = *known;
    one.class_axis = count_in(entry, "class_axis");
    if (entry.contains("loss")) read(entry.at("loss"), one.loss);
    if (entry.contains("ignored")) read(entry.at("ignored"), one.ignored);
    if (entry.contains("squared")) read(entry.at("squared"), one.squared);
    if (entry.contains("smoothed")) read(entry.at("smoothed"), one.smoothed);
  }
}

constexpr std::string_view kMeanings[] = {"logits",       "probabilities",       "log_probabilities",
                                          "label_logits", "label_probabilities", "values"};

void read(const Json& json, std::vector<RateNote>& rates) {
  for (const Json& entry : json.get_ref<const Json::array_t&>()) {
    RateNote& rate = rates.emplace_back();
    rate.from_epoch = count_in(entry, "from_epoch");
    if (entry.contains("learning_rate")) read(entry.at("learning_rate"), rate.learning_rate);
  }
}

}  // namespace

std::string_view name(OutputMeaning meaning) { return kMeanings[static_cast<size_t>(meaning)]; }
std::optional<OutputMeaning> parse_meaning(std::string_view name) {
  for (size_t i = 0; i < std::size(kMeanings); ++i)
    if (kMeanings[i] == name) return static_cast<OutputMeaning>(i);
  return std::nullopt;
}

Json json_of(const StepNotes& notes) {
  static const StepNotes untold;
  Json json = Json::object();
  visit_fields([&](const char* key, auto field) {
    if (notes.*field != untold.*field) json[key] = written(notes.*field);
  });
  return json;
}

StepNotes notes_from_json(const Json& json) {
  StepNotes notes;
  visit_fields([&](const char* key, auto field) {
    if (json.contains(key)) read(json.at(key), notes.*field);
  });
  return notes;
}

}  // namespace halfstep
