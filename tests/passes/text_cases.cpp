// Every tests/passes/<pass>/<sentence>.ir: options, input graph, divider, expected graph or error.
//
//   // pass: NAME option=value ...
//   graph ... { ... }
//   ----
//   graph ... { ... }            or        error: the whole message
//
// UPDATE_EXPECTED=1 rewrites what stands below the divider.
//
// What a pass keeps (its row in passes/pipeline.cpp) is checked on every case that gives a graph. A case of which that
// cannot hold has the option unchecked=why.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "ir/builder.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/fusion/carry_states.h"
#include "passes/fusion/compute_in_readers.h"
#include "passes/fusion/fuse.h"
#include "passes/fusion/order_calls.h"
#include "passes/model/attach_loss.h"
#include "passes/model/attach_preprocessing.h"
#include "passes/model/choose_attention.h"
#include "passes/model/choose_layouts.h"
#include "passes/model/inference.h"
#include "passes/model/multiply_patches.h"
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
#include "tests/random_tensors.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDivider = "----\n";

// The options of a case. Every one must be asked for, so that a misspelt option fails the case.
class Options {
 public:
  void set(const std::string& key, const std::string& value) { values_[key] = value; }

  std::string text(const std::string& key, const std::string& otherwise = "") {
    const auto found = values_.find(key);
    if (found == values_.end()) return otherwise;
    used_.insert(key);
    return found->second;
  }
  double number(const std::string& key, double otherwise) {
    const std::string value = text(key);
    return value.empty() ? otherwise : std::stod(value);
  }
  int64_t integer(const std::string& key, int64_t otherwise) {
    return static_cast<int64_t>(number(key, static_cast<double>(otherwise)));
  }
  std::vector<std::string> list(const std::string& key) {
    std::vector<std::string> items;
    std::istringstream stream(text(key));
    for (std::string item; std::getline(stream, item, ',');) items.push_back(item);
    return items;
  }
  std::vector<double> numbers(const std::string& key) {
    std::vector<double> result;
    for (const std::string& item : list(key)) result.push_back(std::stod(item));
    return result;
  }
  template <typename T>
  T choice(const std::string& key, std::initializer_list<std::pair<const char*, T>> choices) {
    const std::string value = text(key, choices.begin()->first);
    for (const auto& [name, choice] : choices)
      if (value == name) return choice;
    throw InternalError("option " + key + "=" + value);
  }
  void require_all_used() const {
    for (const auto& [key, value] : values_) require(used_.contains(key), ("unknown option " + key).c_str());
  }

 private:
  std::map<std::string, std::string> values_;
  std::set<std::string> used_;
};

LossScaling scaling_of(Options& o) {
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

OptimizerOptions optimizer_of(Options& o) {
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

std::string run_autocast(const Graph& graph, Options& o) {
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

std::string run_attach_loss(const Graph& graph, Options& o) {
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

std::string run_attach_preprocessing(const Graph& graph, Options& o) {
  PreprocessingOptions options;
  options.input = o.text("input");
  options.scale = o.number("scale", options.scale);
  options.mean = o.numbers("mean");
  options.std = o.numbers("std");
  return print(attach_preprocessing(graph, options));
}

std::string run_differentiate(const Graph& graph, Options& o) {
  const int64_t accumulation = o.integer("accumulation", 1);
  return print(differentiate(graph, {.scaling = scaling_of(o), .accumulation = accumulation}));
}

std::string run_choose_attention(const Graph& graph, Options& o) {
  const bool ordered = o.text("form", "library") == "deterministic";
  return print(choose_attention(graph, ordered ? AttentionForm::deterministic : AttentionForm::library));
}

// On a graph with parameter leaves and gradients: the layout is planned from the leaves.
std::string run_add_update(const Graph& graph, Options& o) {
  const OptimizerOptions options = optimizer_of(o);
  const ArenaLayout layout = plan_arenas(graph, arena_order(options));
  const Graph bound = bind_arenas(graph, layout);
  const std::string program = o.text("program", "train");
  return print(program == "accumulate"  ? add_accumulation(bound, options, layout)
               : program == "gradients" ? add_gradients(bound, options, layout)
                                        : add_update(bound, options, layout));
}

// Of a step as run_add_update makes it.
std::string run_unbind_arenas(const Graph& graph, Options& o) {
  const OptimizerOptions options = optimizer_of(o);
  const ArenaLayout layout = plan_arenas(graph, arena_order(options));
  return print(unbind_arenas(add_update(bind_arenas(graph, layout), options, layout), layout));
}

// Of a step that run_add_update makes of what mark_taps and differentiate leave.
std::string run_tap_values(const Graph& graph, Options& o) {
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

std::string run_recompute(const Graph& graph, Options& o) {
  Recomputation done;
  const Graph result = recompute(graph, o.integer("budget", 0), 0, done);
  return print(result) + fmt::format("// {} values: {} bytes instead of {}, {} more read and written\n", done.values,
                                     done.bytes, done.bytes_before, done.more_traffic);
}

using RunPass = std::function<std::string(const Graph&, Options&)>;

RunPass plain(Graph (*pass)(const Graph&)) {
  return [pass](const Graph& graph, Options&) { return print(pass(graph)); };
}

const std::map<std::string, RunPass>& passes() {
  static const std::map<std::string, RunPass> all{
      {"add_epilogues",
       [](const Graph& g, Options& o) {
         return print(add_epilogues(g, o.integer("relu", 0) != 0 ? ProductRelu::in_products : ProductRelu::apart));
       }},
      {"add_update", run_add_update},
      {"attach_loss", run_attach_loss},
      {"attach_preprocessing", run_attach_preprocessing},
      {"autocast", run_autocast},
      {"bind_arenas", [](const Graph& graph, Options&) { return print(bind_arenas(graph, plan_arenas(graph))); }},
      {"canonicalise", plain(canonicalise)},
      {"choose_attention", run_choose_attention},
      {"choose_layouts", plain(choose_layouts)},
      {"differentiate", run_differentiate},
      {"expand_composites", [](const Graph& graph, Options&) { return print(expand_composites(graph)); }},
      {"fuse", plain(fuse)},
      {"hoist_max_pool", plain(hoist_max_pool)},
      {"multiply_patches",
       [](const Graph& g, Options& o) { return print(multiply_patches(g, o.integer("alignment", 16))); }},
      {"pad_classes", [](const Graph& g, Options& o) { return print(pad_classes(g, o.integer("alignment", 16))); }},
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
       [](const Graph& g, Options& o) {
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

struct Case {
  std::string header, input, expected;
};

Case read_case(const fs::path& path) {
  const std::string text = read_file(path);
  const size_t line = text.find('\n'), divider = text.find(kDivider);
  Case result{text.substr(0, line + 1), text.substr(line + 1), ""};
  if (divider != std::string::npos) {
    result.input = text.substr(line + 1, divider - line - 1);
    result.expected = text.substr(divider + kDivider.size());
  }
  return result;
}

struct Header {
  std::string pass;
  Options options;
};

Header read_header(const Case& c) {
  std::istringstream header(c.header);
  std::string slashes, keyword, pass;
  header >> slashes >> keyword >> pass;
  require(slashes == "//" && keyword == "pass:" && passes().contains(pass), "a case begins with '// pass: NAME'");
  Options options;
  for (std::string word; header >> word;) {
    const size_t at = word.find('=');
    require(at != std::string::npos, "an option is name=value");
    options.set(word.substr(0, at), word.substr(at + 1));
  }
  return {pass, options};
}

std::string run_case(const Case& c) {
  auto [pass, options] = read_header(c);
  options.text("unchecked");
  const Graph input = parse_graph(c.input);
  verify(input);
  try {
    const std::string result = passes().at(pass)(input, options);
    options.require_all_used();
    verify(parse_graph(result));
    return result;
  } catch (const Error& e) {
    return std::string("error: ") + e.what() + "\n";
  }
}

class TextCase : public testing::TestWithParam<fs::path> {};

TEST_P(TextCase, GivesTheExpectedGraph) {
  const Case c = read_case(GetParam());
  const std::string found = run_case(c);
  if (std::getenv("UPDATE_EXPECTED"))
    write_file_atomically(GetParam(), c.header + c.input + std::string(kDivider) + found);
  else
    EXPECT_EQ(found, c.expected) << GetParam();
}

// A parameter, or its gradient, of `from` as `to` stores it.
Tensor stored_in(const Graph& to, const Graph& from, const Name& name, Tensor value) {
  const Ints before = from.node(from.leaf(name)).attributes.ints("permutation");
  const Ints after = to.node(to.leaf(name)).attributes.ints("permutation");
  if (!before.empty()) value = value.transpose(inverse(before));
  return after.empty() ? value : value.transpose(after);
}

// Values for the leaves of `to`: those of `from`, as parameters or as slices of arenas, and what only `to` has.
NamedTensors leaves_for(const Graph& to, const Graph& from, const NamedTensors& leaves) {
  NamedTensors result = random_leaves(to, 101);
  const ArenaLayout layout = plan_arenas(from);
  for (auto& [name, value] : result) {
    if (const auto same = leaves.find(name); same != leaves.end())
      value = is(to.node(to.leaf(name)), "parameter") ? stored_in(to, from, name, same->second) : same->second;
    else if (is_floating(value.type.dtype) && name == arena_name(value.type.dtype))
      for (const ArenaSlice& slice : layout.slices)
        for (int64_t i = 0; i < slice.size(); ++i) value.set(slice.offset + i, leaves.at(slice.name).at(i));
  }
  return result;
}

using Results = std::map<Name, InterpretedTensor>;

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i]))) << "[" << i << "]";
}

// What nothing reads any more has no gradient.
void expect_same(const Results& expected, const Results& found, double tolerance) {
  for (const auto& [name, tensor] : expected) {
    SCOPED_TRACE(to_string(name));
    const auto same = found.find(name);
    if (same == found.end() && name.is(Role::gradient)) {
      expect_near(tensor.values, std::vector<double>(tensor.values.size()), tolerance);
      continue;
    }
    ASSERT_NE(same, found.end()) << "not computed any more";
    EXPECT_EQ(same->second.type.shape, tensor.type.shape);
    expect_near(same->second.values, tensor.values, tolerance);
  }
}

constexpr double kSameValues = 1e-6, kSameGradients = 1e-5;

void expect_same_results(const Graph& before, const Graph& after, double tolerance) {
  NamedTensors leaves = random_leaves(before, 3);
  for (auto& [name, value] : leaves)  // exact in a low copy of it
    if (is(before.node(before.leaf(name)), "parameter")) value = value.cast(DType::f16).cast(value.type.dtype);
  const InterpretOptions exact{.rounding = Rounding::none, .observe = nullptr};
  InterpretResult expected = interpret(before, leaves, exact);
  const InterpretResult found = interpret(after, leaves_for(after, before, leaves), exact);
  ASSERT_FALSE(expected.outputs.empty());
  for (auto& [name, gradient] : expected.outputs) {
    if (!name.is(Role::gradient) || !found.outputs.contains(name)) continue;
    const Tensor value = Tensor::from_values(gradient.type, gradient.values);
    const Tensor stored = stored_in(after, before, name.text, value);
    gradient = {stored.type, stored.values()};
  }
  expect_same(expected.outputs, found.outputs, tolerance);
  expect_same(expected.updates, found.updates, tolerance);
}

class ValueCase : public TextCase {};

TEST_P(ValueCase, KeepsTheValues) {
  const Case c = read_case(GetParam());
  expect_same_results(parse_graph(c.input), parse_graph(run_case(c)), kSameValues);
}

// With the floating-point inputs as parameters, and a loss that weighs all elements of all outputs differently.
Graph with_gradients(const Graph& graph) {
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b, [](Builder& builder, const Node& node, std::span<const Value>) {
    const bool trained = is(node, "input") && is_floating(node.results[0].dtype);
    if (!trained) return std::vector<Value>();
    const auto [dtype, shape] = node.results[0];
    return std::vector{builder.cast(builder.parameter(node.attributes.text("name"), {DType::f32, shape}), dtype)};
  });
  Value loss = b.constant(DType::f32, 0);
  uint64_t seed = 0;
  for (const NamedValue& o : graph.outputs()) {
    const Value v = map(o.value);
    if (!is_floating(b.dtype(v))) continue;
    const Value weights = b.constant(random_tensor({DType::f32, b.shape(v)}, ++seed, -1, 1, 0));
    loss = b.add(loss, b.sum_to(b.mul(b.cast(v, DType::f32), weights), {}));
  }
  b.output(kLoss, loss);
  return differentiate(std::move(b).finish());
}

class GradientCase : public TextCase {};

TEST_P(GradientCase, KeepsTheGradients) {
  const Case c = read_case(GetParam());
  const Graph before = with_gradients(parse_graph(c.input)), after = with_gradients(parse_graph(run_case(c)));
  ASSERT_GT(before.outputs().size(), 1u) << "nothing has a gradient";
  expect_same_results(before, after, kSameGradients);
}

std::string folder_of(const fs::path& path) { return path.parent_path().filename().string(); }

std::vector<fs::path> cases() {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(HALFSTEP_SOURCE_DIR) / "tests/passes"))
    if (entry.path().extension() == ".ir") paths.push_back(entry.path());
  std::ranges::sort(paths);
  return paths;
}

ValueCheck::Kind check_of(const std::string& folder) {
  for (const PassRow& row : pipeline_rows())
    if (std::ranges::find(row.cases, folder) != row.cases.end()) return row.check.kind;
  return ValueCheck::none;
}

// Of the passes that are checked in this way, what gives a graph.
std::vector<fs::path> cases_checked(ValueCheck::Kind least) {
  std::vector<fs::path> paths = cases();
  std::erase_if(paths, [&](const fs::path& path) {
    const Case c = read_case(path);
    return check_of(folder_of(path)) < least || c.expected.starts_with("error:") ||
           !read_header(c).options.text("unchecked").empty();
  });
  return paths;
}

constexpr auto kNameOfCase = [](const auto& info) { return folder_of(info.param) + "__" + info.param.stem().string(); };
INSTANTIATE_TEST_SUITE_P(Passes, TextCase, testing::ValuesIn(cases()), kNameOfCase);
INSTANTIATE_TEST_SUITE_P(Passes, ValueCase, testing::ValuesIn(cases_checked(ValueCheck::values)), kNameOfCase);
INSTANTIATE_TEST_SUITE_P(Passes, GradientCase, testing::ValuesIn(cases_checked(ValueCheck::values_and_gradients)),
                         kNameOfCase);

// The suites of this executable that the text names as "Suite.*".
std::vector<std::string> suites_named(const std::string& text) {
  std::vector<std::string> names;
  const std::regex suite("(\\w+)\\.\\*");
  for (std::sregex_iterator at(text.begin(), text.end(), suite), end; at != end; ++at) names.push_back((*at)[1]);
  return names;
}

bool has_suite(const std::string& name) {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i)
    if (all.GetTestSuite(i)->name() == name) return true;
  return false;
}

TEST(ValueChecks, EveryPassHasOneOrSaysWhyNot) {
  std::set<std::string> folders, checked, known;
  for (const fs::path& path : cases()) folders.insert(folder_of(path));
  for (const fs::path& path : cases_checked(ValueCheck::values)) checked.insert(folder_of(path));
  for (const PassRow& row : pipeline_rows()) {
    SCOPED_TRACE(row.name);
    EXPECT_FALSE(row.cases[0].empty());
    for (const std::string_view cases : row.cases) {
      if (cases.empty()) continue;
      const std::string folder(cases);
      known.insert(folder);
      EXPECT_TRUE(folders.contains(folder)) << "no cases in tests/passes/" << folder;
      EXPECT_EQ(check_of(folder), row.check.kind) << folder << " is checked as another row says";
      EXPECT_EQ(checked.contains(folder), row.check.kind != ValueCheck::none) << folder;
    }
    const std::vector<std::string> instead = suites_named(std::string(row.check.reason));
    EXPECT_EQ(instead.empty(), row.check.kind != ValueCheck::none) << "checked by its cases or by the tests it names";
    for (const std::string& suite : instead) EXPECT_TRUE(has_suite(suite)) << "no tests " << suite;
  }
  EXPECT_EQ(known, folders) << "cases of a pass that no row names";
}

}  // namespace
}  // namespace halfstep
