#include "tests/passes/named_passes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "ir/builder.h"
#include "ir/text.h"
#include "passes/fusion/carry_states.h"
#include "passes/fusion/chunk_rows.h"
#include "passes/fusion/compute_in_readers.h"
#include "passes/fusion/fuse.h"
#include "passes/fusion/order_calls.h"
#include "passes/model/attach_loss.h"
#include "passes/model/attach_preprocessing.h"
#include "passes/model/choose_attention.h"
#include "passes/model/choose_layouts.h"
#include "passes/model/inference.h"
#include "passes/model/multiply_patches.h"
#include "passes/model/pad_channels.h"
#include "passes/model/pad_classes.h"
#include "passes/model/recognise.h"
#include "passes/model/recognise_attention.h"
#include "passes/model/stack_recurrent.h"
#include "passes/pipeline.h"
#include "passes/precision/autocast.h"
#include "passes/precision/place_casts.h"
#include "passes/rewrite/add_epilogues.h"
#include "passes/rewrite/canonicalise.h"
#include "passes/rewrite/expand_composites.h"
#include "passes/rewrite/hoist_max_pool.h"
#include "passes/rewrite/join_sums.h"
#include "passes/rewrite/rules.h"
#include "passes/rewrite/simplify.h"
#include "passes/training/add_update.h"
#include "passes/training/bind_arenas.h"
#include "passes/training/check_factors.h"
#include "passes/training/differentiate.h"
#include "passes/training/reduce_filter_gradients.h"
#include "passes/training/tap_values.h"
#include "passes/training/thin_products.h"
#include "passes/training/unbind_arenas.h"

namespace halfstep {
namespace {

LossScaling scaling_of(CaseOptions& o) {
  LossScaling scaling;
  scaling.mode = o.choice<LossScaleMode>(
      "scale", {{"none", LossScaleMode::none}, {"fixed", LossScaleMode::fixed}, {"dynamic", LossScaleMode::dynamic}});
  scaling.initial = o.number("initial", scaling.initial);
  scaling.interval = o.integer("interval", scaling.interval);
  scaling.floor = o.number("floor", scaling.floor);
  scaling.hysteresis = o.integer("hysteresis", 1);
  scaling.spares = o.choice<LossScaling::Spares>(
      "spares", {{"after_growth", LossScaling::after_growth}, {"after_each_step", LossScaling::after_each_step}});
  scaling.losses = o.numbers("losses");
  scaling.scales =
      o.choice<LossScaling::Scales>("scales", {{"shared", LossScaling::shared}, {"of_each", LossScaling::of_each}});
  return scaling;
}

OptimizerOptions optimizer_of(CaseOptions& o) {
  OptimizerOptions options;
  options.name = o.text("optimizer", "sgd");
  for (const HyperParameter& parameter : find_optimizer(options.name)->parameters)
    options.parameters.emplace(parameter.name, o.number(std::string(parameter.name), parameter.value));
  options.weight_decay = o.number("weight_decay", 0);
  options.no_decay = o.list("no_decay");
  if (const double norm = o.number("clip_norm", 0); norm > 0) options.clip_norm = norm;
  if (const double most = o.number("clip_value", 0); most > 0) options.clip_value = most;
  if (const double share = o.number("clip_adaptive", 0); share > 0) options.clip_adaptive = share;
  if (const double decay = o.number("ema", 0); decay > 0) options.ema = decay;
  if (const std::vector<std::string> own = o.list("own_rate"); !own.empty())
    options.groups.push_back({.patterns = own, .rate = ParameterGroup::own});
  options.accumulation = o.integer("accumulation", 1);
  options.scaling = scaling_of(o);
  return options;
}

std::string report_text(const AutocastReport& report) {
  std::string text;
  for (const PrecisionRow& row : report)
    text += "// " + to_string(row.origin) + " " + row.op + ": " + std::string(name(row.operand)) + ", " +
            (row.accumulator ? std::string(name(*row.accumulator)) : "-") + ", " + std::string(name(row.result)) +
            ": " + row.reason + "\n";
  return text;
}

PrecisionRule rule_of(const std::string& text) {
  static const std::map<std::string, Precision> precisions{
      {"low", Precision::low}, {"fp32", Precision::full}, {"follow", Precision::follow}, {"widest", Precision::widest}};
  PrecisionRule rule;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ';');) {
    const std::string key = part.substr(0, part.find('=')), value = part.substr(part.find('=') + 1);
    if (key == "precision")
      rule.precision = precisions.at(value);
    else if (key == "regex")
      rule.node = value, rule.form = PrecisionRule::regex;
    else
      (key == "node"       ? rule.node
       : key == "operator" ? rule.op
       : key == "subgraph" ? rule.subgraph
       : key == "tensor"   ? rule.tensor
       : key == "reason"   ? rule.reason
                           : rule.source) = value;
  }
  return rule;
}

std::string run_autocast(const Graph& graph, CaseOptions& o) {
  AutocastOptions options;
  const std::string low = o.text("low", "f16");
  options.low = parse_dtype(low);
  options.preset = o.text("preset", "halfstep");
  options.removed = o.list("remove");
  for (const std::string& p : o.list("allow")) options.rules.push_back(allow_rule(p));
  for (const std::string& p : o.list("deny")) options.rules.push_back(deny_rule(p));
  for (const std::string& p : o.list("infer")) options.rules.push_back(infer_rule(p));
  // "node=fc*;tensor=result;precision=fp32", and so on.
  for (const std::string& text : o.list("rule")) options.rules.push_back(rule_of(text));
  // "name:Operator" and "part:whole".
  const auto pairs = [&](const std::string& key, std::map<std::string, std::string>& into) {
    for (const std::string& p : o.list(key)) into[p.substr(0, p.find(':'))] = p.substr(p.find(':') + 1);
  };
  pairs("onnx", options.sources.operators);
  pairs("parts", options.sources.part_of);
  pairs("scopes", options.sources.scopes);
  for (const auto& [name, op] : options.sources.operators) options.sources.known_operators.insert(op);
  AutocastReport report;
  AutocastNotes notes;
  const Graph result = autocast(graph, options, &report, &notes);
  std::string text = print(result) + report_text(report);
  for (const std::string& remark : notes.remarks) text += "// remark: " + remark + "\n";
  return text;
}

std::vector<double> numbers_of(const std::string& text, char separator) {
  std::vector<double> numbers;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, separator);) numbers.push_back(std::stod(part));
  return numbers;
}

// "output=class;labels=y;weight=0.5"
LossTerm loss_term(const std::string& text) {
  LossTerm term;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ';');) {
    const std::string key = part.substr(0, part.find('=')), value = part.substr(part.find('=') + 1);
    if (key == "weight")
      term.weight = std::stod(value);
    else if (key == "ignore_index")
      term.loss.ignore_index = std::stoll(value);
    else if (key == "kind")
      term.loss.kind = value;
    else if (find_loss_key(key))
      term.loss.parameters[key] = numbers_of(value, ':');
    else
      (key == "name" ? term.name : key == "labels" ? term.loss.labels : term.loss.output) = value;
  }
  return term;
}

std::string run_attach_loss(const Graph& graph, CaseOptions& o) {
  LossOptions options;
  options.kind = o.text("kind", options.kind);
  for (const LossKey& key : loss_keys())
    if (const std::string name(key.name); key.kind != LossKey::whole && !o.text(name).empty())
      options.parameters[name] = o.numbers(name);
  options.output = o.text("output");
  if (const int64_t axis = o.integer("class_axis", 0); axis != 0) options.class_axis = axis;
  if (o.text("model_outputs", "kept") == "dropped") options.model_outputs = LossOptions::dropped;
  if (const std::string ignore = o.text("ignore_index"); !ignore.empty()) options.ignore_index = std::stoll(ignore);
  if (o.text("samples") == "mixed") options.samples = LossOptions::mixed;
  for (const std::string& text : o.list("terms")) options.terms.push_back(loss_term(text));
  std::vector<std::string> remarks;
  std::string text = print(attach_loss(graph, options, &remarks));
  for (const std::string& remark : remarks) text += "// remark: " + remark + "\n";
  return text;
}

std::string run_attach_preprocessing(const Graph& graph, CaseOptions& o) {
  PreprocessingOptions options;
  options.input = o.text("input");
  options.scale = o.number("scale", options.scale);
  options.mean = o.numbers("mean");
  options.std = o.numbers("std");
  return print(attach_preprocessing(graph, options));
}

std::string run_differentiate(const Graph& graph, CaseOptions& o) {
  const int64_t accumulation = o.integer("accumulation", 1);
  return print(differentiate(graph, {.scaling = scaling_of(o), .accumulation = accumulation}));
}

std::string run_choose_attention(const Graph& graph, CaseOptions& o) {
  const bool ordered = o.text("form", "library") == "deterministic";
  return print(choose_attention(graph, ordered ? AttentionForm::deterministic : AttentionForm::library));
}

// On a graph with parameter leaves and gradients: the layout is planned from the leaves.
std::string run_add_update(const Graph& graph, CaseOptions& o) {
  const OptimizerOptions options = optimizer_of(o);
  const ArenaLayout layout = plan_arenas(graph, arena_order(options));
  const Graph bound = bind_arenas(graph, layout);
  const std::string program = o.text("program", "train");
  return print(program == "accumulate"  ? add_accumulation(bound, options, layout)
               : program == "gradients" ? add_gradients(bound, options, layout)
                                        : add_update(bound, options, layout));
}

// Of a step as run_add_update makes it.
std::string run_unbind_arenas(const Graph& graph, CaseOptions& o) {
  const OptimizerOptions options = optimizer_of(o);
  const ArenaLayout layout = plan_arenas(graph, arena_order(options));
  return print(unbind_arenas(add_update(bind_arenas(graph, layout), options, layout), layout));
}

// Of a step that run_add_update makes of what mark_taps and differentiate leave.
std::string run_tap_values(const Graph& graph, CaseOptions& o) {
  const OptimizerOptions options = optimizer_of(o);
  const Graph marked = differentiate(mark_taps(graph), {.scaling = options.scaling});
  const ArenaLayout layout = plan_arenas(marked, arena_order(options));
  std::vector<Tap> taps;
  const TapOptions tapped{.most_counted = o.integer("counted", 0), .samples = o.integer("samples", 0)};
  const Graph result = tap_values(add_update(bind_arenas(marked, layout), options, layout), layout, tapped, taps);
  std::string text = print(result);
  for (const Tap& tap : taps)
    text += fmt::format("// {} '{}' {}: {} counted, {} samples at {}; from {}; read by {}; of {}\n",
                        static_cast<int>(tap.kind), tap.node, to_string(tap.type), tap.counted, tap.samples,
                        tap.first_sample, fmt::join(tap.inputs, ","), fmt::join(tap.readers, ","),
                        fmt::join(tap.parameters, ","));
  return text;
}

std::string run_recompute(const Graph& graph, CaseOptions& o) {
  Recomputation done;
  const Graph result = recompute(graph, o.integer("budget", 0), 0, done);
  return print(result) + fmt::format("// {} values: {} bytes instead of {}, {} more read and written\n", done.values,
                                     done.bytes, done.bytes_before, done.more_traffic);
}

std::string run_chunk_rows(const Graph& graph, CaseOptions& o) {
  const ChunkOptions options{.fewest_bytes = o.integer("fewest_bytes", 0),
                             .enough_bytes = o.integer("enough_bytes", 0),
                             .fewest_rows = o.integer("fewest_rows", 4),
                             .most_traffic = o.number("most_traffic", 1e9)};
  Chunking done;
  const Graph result = chunk_rows(graph, options, done);
  return print(result) + fmt::format("// {} products in {} chunks: {} bytes of {}, {} more read and written\n",
                                     done.products, done.chunks, done.bytes, done.bytes_before, done.more_traffic);
}

RunPass plain(Graph (*pass)(const Graph&)) {
  return [pass](const Graph& graph, CaseOptions&) { return print(pass(graph)); };
}

}  // namespace

const std::map<std::string, RunPass>& named_passes() {
  static const std::map<std::string, RunPass> all{
      {"add_epilogues",
       [](const Graph& g, CaseOptions& o) {
         return print(add_epilogues(g, o.integer("relu", 0) != 0 ? ProductRelu::in_products : ProductRelu::apart));
       }},
      {"add_update", run_add_update},
      {"attach_loss", run_attach_loss},
      {"attach_preprocessing", run_attach_preprocessing},
      {"autocast", run_autocast},
      {"bind_arenas", [](const Graph& graph, CaseOptions&) { return print(bind_arenas(graph, plan_arenas(graph))); }},
      {"canonicalise", plain(canonicalise)},
      {"choose_attention", run_choose_attention},
      {"chunk_rows", run_chunk_rows},
      {"choose_layouts", plain(choose_layouts)},
      {"differentiate", run_differentiate},
      {"expand_composites", [](const Graph& graph, CaseOptions&) { return print(expand_composites(graph)); }},
      {"fuse", plain(fuse)},
      {"hoist_max_pool", plain(hoist_max_pool)},
      {"multiply_patches",
       [](const Graph& g, CaseOptions& o) { return print(multiply_patches(g, o.integer("alignment", 16))); }},
      {"pad_channels",
       [](const Graph& g, CaseOptions& o) { return print(pad_channels(g, o.integer("alignment", 16))); }},
      {"pad_classes", [](const Graph& g, CaseOptions& o) { return print(pad_classes(g, o.integer("alignment", 16))); }},
      {"inference", plain(inference)},
      {"join_sums", plain(join_sums)},
      {"order_calls", plain(order_calls)},
      {"place_casts", plain(place_casts)},
      {"recognise", plain(recognise)},
      {"recognise_attention", plain(recognise_attention)},
      {"carry_states", plain(carry_states)},
      {"check_factors", plain(check_factors)},
      {"compute_in_readers", plain(compute_in_readers)},
      {"depthwise_windows", plain(depthwise_windows)},
      {"reduce_filter_gradients",
       [](const Graph& g, CaseOptions& o) {
         return print(reduce_filter_gradients(
             g, o.integer("depthwise", 0) != 0 ? DepthwiseForm::windows : DepthwiseForm::calls));
       }},
      {"recompute", run_recompute},
      {"simplify", plain(simplify)},
      {"stack_recurrent", plain(stack_recurrent)},
      {"thin_products", plain(thin_products)},
      {"mark_taps", plain(mark_taps)},
      {"tap_values", run_tap_values},
      {"unbind_arenas", run_unbind_arenas},
  };
  return all;
}

}  // namespace halfstep
