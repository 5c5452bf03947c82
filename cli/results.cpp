#include "cli/results.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/measure_report.h"
#include "cli/table.h"
#include "training/measure_json.h"

namespace halfstep {
namespace {

nlohmann::json counters_json(const ExecutorCounters& c) {
  return {{"batches", c.steps},
          {"graph_launches", c.graph_launches},
          {"stream_synchronisations", c.stream_synchronisations},
          {"slot_waits", c.slot_waits},
          {"result_waits", c.result_waits}};
}

void put(nlohmann::json& object, const char* key, const std::vector<LossRow>& losses) {
  for (const LossRow& row : losses) {
    nlohmann::json& entry = object[key][row.name] = {{"loss", row.loss}, {"weight", row.weight}};
    if (row.accuracy) entry["accuracy"] = *row.accuracy;
    if (row.loss_scale) entry["loss_scale"] = *row.loss_scale;
  }
}

void put(nlohmann::json& object, const MeasureReport& report, const std::string& prefix) {
  nlohmann::ordered_json measures;
  put_measures(measures, report, prefix);
  for (const auto& [key, value] : measures.items()) object[key] = nlohmann::json(value);
}

}  // namespace

std::string losses_text(const std::vector<LossRow>& losses) {
  std::string text;
  for (const LossRow& row : losses)
    text += fmt::format("{}{} {:.4f}{}{}", text.empty() ? "" : ", ", row.name, row.loss,
                        row.accuracy ? fmt::format(" ({:.2f} %)", *row.accuracy * 100) : "",
                        row.loss_scale ? fmt::format(" at scale {:g}", *row.loss_scale) : "");
  return text;
}

nlohmann::json tokens_json(const TokenMeasures& tokens, const std::string& prefix) {
  nlohmann::json json{{prefix + "perplexity", tokens.perplexity}, {prefix + "tokens_per_second", tokens.per_second}};
  if (tokens.bits_per_byte) json[prefix + "bits_per_byte"] = *tokens.bits_per_byte;
  return json;
}

std::string tokens_text(const TokenMeasures& tokens) {
  return fmt::format("perplexity {:.2f}{}", tokens.perplexity,
                     tokens.bits_per_byte ? fmt::format(", {:.4f} bits a byte", *tokens.bits_per_byte) : "");
}

std::string best_text(const BestEpoch& best) {
  return fmt::format("  best        epoch {}, {} {:.4f}{}\n", best.epoch, best.measure, best.value,
                     best.checkpoint.empty() ? "" : ": " + best.checkpoint.string());
}

nlohmann::json train_json(const TrainReport& report) {
  nlohmann::json epochs = nlohmann::json::array();
  for (const EpochRow& e : report.epochs) {
    nlohmann::json row{{"epoch", e.epoch},
                       {"loss", e.loss},
                       {"skipped", e.skipped},
                       {"samples_per_second", e.samples_per_second},
                       {"seconds", e.seconds}};
    if (e.accuracy) row["accuracy"] = *e.accuracy;
    put(row, "losses", e.losses);
    if (e.test) put(row, "test_losses", e.test->losses);
    if (e.test) row["test_loss"] = e.test->loss;
    if (e.test && e.test->accuracy) row["test_accuracy"] = *e.test->accuracy;
    if (e.tokens) row.update(tokens_json(*e.tokens, ""));
    if (e.test && e.test->tokens) row.update(tokens_json(*e.test->tokens, "test_"));
    if (e.test) put(row, e.test->measures, "test_");
    if (e.loss_scale) row["loss_scale"] = *e.loss_scale;
    epochs.push_back(std::move(row));
  }
  nlohmann::json json{{"reason", name(report.reason)},
                      {"steps", report.steps},
                      {"seconds", report.seconds},
                      {"checkpoint", report.checkpoint.string()},
                      {"counters", counters_json(report.counters)},
                      {"epochs", epochs}};
  if (report.best)
    json["best"] = {{"measure", report.best->measure},
                    {"value", report.best->value},
                    {"epoch", report.best->epoch},
                    {"step", report.best->step},
                    {"checkpoint", report.best->checkpoint.string()}};
  return json;
}

std::string evaluation_text(const Evaluation& e, size_t columns) {
  return fmt::format("{} samples in {:.1f} s: loss {:.4f}{}{}{}\n", count_text(e.samples), e.seconds, e.loss,
                     e.accuracy ? fmt::format(", accuracy {:.4f}", *e.accuracy) : "",
                     e.tokens ? ", " + tokens_text(*e.tokens) : "",
                     e.losses.empty() ? "" : "; " + losses_text(e.losses)) +
         wrapped(measures_text(e.measures), columns) + class_tables_text(e.measures, columns);
}

nlohmann::json evaluation_json(const Evaluation& e) {
  nlohmann::json json{{"samples", e.samples}, {"loss", e.loss}, {"seconds", e.seconds}};
  if (e.accuracy) json["accuracy"] = *e.accuracy;
  put(json, "losses", e.losses);
  if (e.tokens) json.update(tokens_json(*e.tokens, ""));
  put(json, e.measures, "");
  return json;
}

}  // namespace halfstep
