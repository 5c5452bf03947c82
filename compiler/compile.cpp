#include "compiler/compile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <set>
#include <unordered_map>

#include "base/bytes_text.h"
#include "base/error.h"
#include "base/file.h"
#include "base/version.h"
#include "codegen/emit/module.h"
#include "codegen/lower/lower.h"
#include "compiler/checkpoint_weights.h"
#include "compiler/judged_outputs.h"
#include "compiler/parameter_groups.h"
#include "compiler/policy.h"
#include "data/token_feed.h"
#include "frontend/import/import_model.h"
#include "frontend/import/operator_names.h"
#include "ir/op.h"
#include "ir/text.h"
#include "program/initial_state.h"
#include "program/safetensors.h"
#include "runtime/cuda_probe.h"
#include "training/measures.h"
#include "training/notes.h"
#include "training/run_setup.h"

namespace halfstep {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::optional<DType> low_type(const std::string& precision) {
  if (precision == "fp16") return DType::f16;
  if (precision == "bf16") return DType::bf16;
  return std::nullopt;
}

// By the parameters' names.
std::unordered_map<std::string_view, Ints> stored_permutations(const Graph& graph) {
  std::unordered_map<std::string_view, Ints> result;
  for (const Node& node : graph.nodes())
    if (is_leaf(*node.op)) {
      const Attribute* permutation = node.attributes.find("permutation");
      result.emplace(node.attributes.text("name"), permutation ? std::get<Ints>(*permutation) : Ints());
    }
  return result;
}

// `stored` is the ONNX tensor with its axes in the order `from`; the result has them in the order `to`.
Tensor restored(Tensor stored, Ints from, Ints to) {
  if (from == to) return stored;
  Ints identity(stored.type.shape.size());
  std::iota(identity.begin(), identity.end(), 0);
  if (from.empty()) from = identity;
  if (to.empty()) to = identity;
  Ints permutation;
  for (int64_t axis : to) permutation.push_back(std::ranges::find(from, axis) - from.begin());
  return stored.transpose(permutation);
}

// Initial contents of the states: of the arena, whose low copy follows from it, and of the tensors that are not
// trained.
void fill_initial_state(CompiledModel& model, const ArenaLayout& arenas, const ImportedModel& imported,
                        std::optional<DType> rounded_weights) {
  std::set<std::string> in_arena;
  std::set<Name> states;
  Tensor arena = gather_parameters(arenas, imported.graph, [&](const std::string& name) {
    const auto reader = imported.weight_readers.find(name);
    require(reader != imported.weight_readers.end(), "every parameter is a leaf with a value");
    return reader->second();
  });
  if (rounded_weights) arena = arena.cast(*rounded_weights).cast(DType::f32);
  for (const ArenaSlice& slice : arenas.slices) in_arena.insert(slice.name);
  for (const Program& program : model.programs)
    for (const Buffer& buffer : program.buffers)
      if (buffer.kind == BufferKind::state) states.insert(buffer.name);
  const bool kept = states.count(arena_name(DType::f32)) > 0;
  for (DType low : {DType::f16, DType::bf16})
    if (states.count(arena_name(low)) && !(kept && base_of_low_copy(model, arena_name(low))))
      model.state[arena_name(low)] = arena.cast(low);
  if (kept) model.state[arena_name(DType::f32)] = std::move(arena);
  for (const auto& [name, read] : imported.weight_readers)
    if (states.count(name) && !in_arena.count(name)) model.state[name] = read();
}

// What checkpoints and compiled steps could not hold, before anything is compiled.
void check_names(const Graph& model) {
  for (const Node& node : model.nodes())
    if (is_leaf(*node.op) && node.op->name != "input" && leaf_name(node) == Name(std::string(kReservedTensorName)))
      throw Error(
          fmt::format("tensor '{0}': safetensors files, which checkpoints are, have an entry of that name themselves: "
                      "give it another in the model",
                      kReservedTensorName));
}

// Reads every weight once, before anything is compiled.
void check_weights(const ImportedModel& imported) {
  Problems problems;
  for (const auto& [name, read] : imported.weight_readers) try {
      const Tensor tensor = read();
      const std::span<const float> values = tensor.as<float>();
      const auto bad = std::ranges::find_if(values, [](float v) { return !std::isfinite(v); });
      if (bad != values.end())
        problems.add(
            fmt::format("tensor '{}': element {} of {} is {}: export the model again, or start from fresh weights "
                        "with --init fresh",
                        name, bad - values.begin(), values.size(), *bad));
    } catch (const Error& e) {
      problems.add(e.what());
    }
  problems.throw_if_any();
}

// Where the values of indices come from: through copies of other shapes, and past what makes negative ones count from
// the end.
Value chosen_from(const Graph& model, Value indices) {
  for (;;) {
    const Node& node = model.node(indices);
    if (node.operands.size() == 1)
      indices = node.operands[0];
    else if (node.op->name == "select")
      indices = node.operands[2];
    else
      return indices;
  }
}

// Rows of the table that an input's values choose from, where they do: an id beyond them would be read from elsewhere.
std::map<std::string, int64_t> table_rows(const Graph& model) {
  std::map<std::string, int64_t> rows;
  for (const Node& node : model.nodes()) {
    if (node.op->name != "gather") continue;
    const size_t axis = static_cast<size_t>(node.attributes.integer("axis"));
    const Value indices = chosen_from(model, node.operands[1]);
    if (model.node(indices).op->name != "input" || !leaf_name(model.node(indices)).is(Role::model)) continue;
    const int64_t found = model.type(node.operands[0]).shape[axis];
    const auto [entry, fresh] = rows.emplace(model.node(indices).attributes.text("name"), found);
    if (!fresh) entry->second = std::min(entry->second, found);
  }
  return rows;
}

void note_losses(StepNotes& notes, const Recipe& recipe, const LossOptions& loss, const Graph& model) {
  notes.classes = class_count(model, loss);
  if (recipe.classes > 0) notes.label_classes = recipe.classes;
  notes.ignored_label = loss.ignore_index;
  if (const std::string labels = label_input(loss); loss.terms.empty() && !labels.empty()) {
    notes.label_input = labels;
    notes.label_bounds = label_bounds(loss);
  }
  for (const LossTerm& term : named_terms(model, loss))
    notes.losses.push_back({.name = term.name,
                            .labels = label_input(term.loss),
                            .weight = term.weight,
                            .classes = class_count(model, term.loss).value_or(0),
                            .ignored = term.loss.ignore_index,
                            .bounds = label_bounds(term.loss)});
  notes.judged = judged_outputs(model, loss);
}

StepNotes notes_of(const Recipe& recipe, const LossOptions& loss, const CompiledModel& model,
                   const ImportedModel& imported, TrainingPipelineOptions::Purpose purpose) {
  Recipe settled = recipe;
  settled.device = name(model.device), settled.architecture = model.architecture;
  settled.resume.clear(), settled.trust.clear(), settled.grad_scaler.clear();
  StepNotes notes;
  notes.compiler = version();
  notes.recipe = notes_of(settled);
  notes.accumulation = recipe.accumulation, notes.seed = recipe.seed, notes.learning_rate = recipe.learning_rate;
  if (has_loss(purpose))
    note_losses(notes, recipe, loss, imported.graph);
  else
    notes.judged = judged_where_known(imported.graph, loss);
  notes.table_rows = table_rows(imported.graph);
  for (const std::string& remark : imported.remarks)
    if (remark.starts_with("WARNING: the data of the constant")) notes.missing_constants = remark;
  return notes;
}

// For the error of a device whose memory is too small.
std::string largest_values(std::vector<std::pair<int64_t, std::string>> values) {
  constexpr size_t kNamed = 4;
  const size_t count = std::min(kNamed, values.size());
  std::partial_sort(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count), values.end(), std::greater());
  std::string text;
  for (size_t i = 0; i < count; ++i) text += (i ? ", " : "") + values[i].second;
  return text;
}

int64_t state_bytes(std::span<const Program> programs) {
  std::map<Name, int64_t> bytes;
  for (const Program& program : programs)
    for (const Buffer& buffer : program.buffers)
      if (buffer.kind == BufferKind::state) bytes[buffer.name] = buffer.type.byte_count();
  int64_t sum = 0;
  for (const auto& [name, count] : bytes) sum += count;
  return sum;
}

}  // namespace

Tensor gather_parameters(const ArenaLayout& arenas, const Graph& imported,
                         const std::function<Tensor(const std::string&)>& weight) {
  Tensor arena(TensorType{DType::f32, {arenas.size}});
  const auto permutations = stored_permutations(imported);
  for (const ArenaSlice& slice : arenas.slices) {
    const auto permutation = permutations.find(slice.name);
    require(permutation != permutations.end(), "every parameter is a leaf");
    const Tensor stored = restored(weight(slice.name), permutation->second, slice.permutation);
    require(stored.type == TensorType{DType::f32, slice.shape}, "a parameter has the type of its slice");
    std::ranges::copy(stored.as<float>(), arena.as<float>().begin() + slice.offset);
  }
  return arena;
}

DeviceKind choose_device(const Recipe& recipe) {
  if (recipe.device == "cpu") return DeviceKind::cpu;
  if (recipe.device == "cuda") return DeviceKind::cuda;
  return probe_cuda(0).available ? DeviceKind::cuda : DeviceKind::cpu;
}

Recipe portable(Recipe recipe, DeviceKind device) {
  if (device == DeviceKind::cpu && recipe.architecture.empty()) recipe.architecture = "x86-64-v3";
  return recipe;
}

LossOptions::ModelOutputs outputs_of_runs(const Recipe& recipe) {
  return recipe.keep_outputs ? LossOptions::kept_for_evaluation : LossOptions::dropped;
}

LossScaling loss_scaling(const Recipe& r) {
  if (r.loss_scale == "none") return {.mode = LossScaleMode::none};
  if (const std::optional<double> scale = fixed_scale(r)) return {.mode = LossScaleMode::fixed, .initial = *scale};
  if (r.min_scale > r.initial_scale)
    throw Error(
        fmt::format("min_scale {} is above initial_scale {}, the first loss scale, which an overflow would raise",
                    r.min_scale, r.initial_scale));
  return {.mode = LossScaleMode::dynamic,
          .initial = r.initial_scale,
          .growth = r.growth_factor,
          .backoff = r.backoff_factor,
          .interval = r.growth_interval,
          .floor = r.min_scale,
          .hysteresis = r.hysteresis,
          .spares = r.consecutive_hysteresis ? LossScaling::after_each_step : LossScaling::after_growth};
}

namespace {

// The floating input; of several the one of the highest rank.
std::string image_input(const Graph& model) {
  std::vector<const Node*> inputs;
  size_t rank = 0;
  for (const Node& node : model.nodes())
    if (node.op->name == "input" && leaf_name(node).is(Role::model) && is_floating(node.results[0].dtype)) {
      inputs.push_back(&node);
      rank = std::max(rank, node.results[0].shape.size());
    }
  std::erase_if(inputs, [&](const Node* node) { return node->results[0].shape.size() < rank; });
  if (inputs.size() > 1)
    throw Error(
        fmt::format("scale, mean and std: the model has several floating inputs of {} axes, '{}' and '{}' among "
                    "them: leave them out and store floating numbers",
                    rank, inputs[0]->attributes.text("name"), inputs[1]->attributes.text("name")));
  return inputs.empty() ? "" : inputs[0]->attributes.text("name");
}

AttentionForm attention_form(const std::string& name) {
  return name == "library"         ? AttentionForm::library
         : name == "deterministic" ? AttentionForm::deterministic
                                   : AttentionForm::expanded;
}

void check_losses(const Recipe& recipe) {
  Problems problems;
  if (recipe.objective != "labels" && (recipe.mixup > 0 || recipe.cutmix > 0))
    problems.add(fmt::format("mixup and cutmix: objective {} has no images to mix: leave them out", recipe.objective));
  if (!recipe.losses.empty() && recipe.objective == "masked_token")
    problems.add("objective masked_token: there are several losses, and it has one: leave [[loss]] out");
  if (recipe.objective != "labels" && recipe.losses.empty() && find_loss(recipe.loss)->labels != LossFunction::classes)
    problems.add(
        fmt::format("objective {}: its labels are tokens, which loss {} does not take: softmax_cross_entropy does",
                    recipe.objective, recipe.loss));
  problems.throw_if_any();
}

// Whether the mean is over labels that count alone, or by their weights.
bool weighs_labels(const OutputLoss& loss) {
  const LossFunction& function = function_of(loss);
  return (loss.ignore_index && function.reads("ignore_index")) ||
         (loss.parameters.contains("class_weights") && function.labels == LossFunction::classes);
}

// Of several losses: a backward each where they have a scale each, and where accumulated batches are to be weighed by
// labels, of which each loss has its own.
void separate_losses(const Recipe& recipe, LossScaling& scaling) {
  const bool each = recipe.loss_scales == "each" && scaling.mode == LossScaleMode::dynamic;
  const bool weighs = recipe.accumulation > 1 && std::ranges::any_of(recipe.losses, [](const LossTerm& term) {
                        return term.weight != 0 && weighs_labels(term.loss);
                      });
  if (!each && !weighs) return;
  for (const LossTerm& term : recipe.losses) scaling.losses.push_back(term.weight);
  if (std::ranges::all_of(scaling.losses, [](double weight) { return weight == 0; })) scaling.losses.clear();
  if (each && !scaling.losses.empty()) scaling.scales = LossScaling::of_each;
}

// By node: the weight, input or node behind each operand.
std::map<std::string, std::vector<std::string>> operand_sources(const std::vector<FileNode>& nodes) {
  std::unordered_map<std::string_view, std::string_view> makers;
  for (const FileNode& node : nodes)
    for (const std::string& result : node.results) makers.emplace(result, node.name);
  std::map<std::string, std::vector<std::string>> sources;
  for (const FileNode& node : nodes) {
    std::vector<std::string>& of_node = sources[node.name];
    for (const std::string& operand : node.operands) {
      const auto maker = makers.find(operand);
      of_node.emplace_back(maker == makers.end() ? operand : maker->second);
    }
  }
  return sources;
}

}  // namespace

TrainingPipelineOptions pipeline_options(const Recipe& r, const ImportedModel& imported) {
  const Graph& model = imported.graph;
  TrainingPipelineOptions o;
  if (r.scale || !r.mean.empty() || !r.std.empty()) {
    PreprocessingOptions p{
        .input = "", .scale = r.scale.value_or(1.0 / 255), .mean = r.mean, .std = r.std, .channel_axis = 1};
    p.input = image_input(model);
    o.preprocessing.push_back(std::move(p));
  }
  check_losses(r);
  static_cast<OutputLoss&>(o.loss) = one_loss(r);
  o.loss.terms = r.losses;
  if (r.mixup > 0 || r.cutmix > 0) o.loss.samples = LossOptions::mixed;
  if (r.objective == "masked_token") {
    if (r.ignore_index && *r.ignore_index != kUncounted)
      throw Error(fmt::format("ignore_index: objective masked_token labels what it does not hide {}: leave it out",
                              kUncounted));
    o.loss.ignore_index = kUncounted;
  }
  o.autocast.low = low_type(r.precision);
  PrecisionPolicy policy = precision_policy(r);
  const Preset& preset = preset_of(policy);
  o.autocast.preset = preset.name;
  o.autocast.removed = std::move(policy.removed), o.autocast.rules = std::move(policy.rules);
  o.autocast.sources.known_operators = onnx_operator_names();
  for (const OnnxNode& node : imported.nodes) o.autocast.sources.operators.emplace(node.name, node.op);
  for (const FileNode& node : imported.file_nodes)
    if (!node.module.empty()) o.autocast.sources.scopes.emplace(node.name, node.module);
  o.autocast.sources.part_of = parts_at_import(imported);
  o.autocast.sources.operands = operand_sources(imported.file_nodes);
  OptimizerOptions& opt = o.optimizer;
  opt.name = r.optimizer, opt.parameters = r.optimizer_parameters;
  opt.no_decay = r.no_decay;
  opt.weight_decay = r.weight_decay;
  opt.groups = parameter_groups(r);
  for (const UnfreezeRule& rule : r.unfreeze) opt.unfreeze.emplace_back(rule.pattern, rule.epoch);
  if (r.clip_norm > 0) opt.clip_norm = r.clip_norm;
  if (r.clip_value > 0) opt.clip_value = r.clip_value;
  if (r.clip_adaptive > 0) opt.clip_adaptive = r.clip_adaptive;
  if (r.ema > 0) opt.ema = r.ema;
  opt.scaling = loss_scaling(r);
  if (preset.loss_scale == Preset::one && r.loss_scale == "auto")
    opt.scaling = {.mode = LossScaleMode::fixed, .initial = 1};
  separate_losses(r, opt.scaling);
  if (preset.masters == Preset::rounded) opt.weights = o.autocast.low;
  opt.accumulation = r.accumulation;
  return o;
}

namespace {

// What doctor reads of a layer's own values it finds where the layer is unrolled.
ImportOptions::RecurrentLayers recurrent_layers(const Recipe& recipe, DeviceKind device,
                                                const CompileOptions& options) {
  const bool calls = device == DeviceKind::cuda && recipe.recurrent == "library" && !options.taps;
  return calls ? ImportOptions::as_calls : ImportOptions::unrolled;
}

}  // namespace

CompiledTraining compile_training(const Recipe& recipe, DeviceKind device, const CompileOptions& options) {
  const Clock::time_point start = Clock::now();
  const ImportOptions::RecurrentLayers recurrent = recurrent_layers(recipe, device, options);
  ImportedModel imported = options.stop_after.empty()
                               ? import_for(recipe, options.constants, ImportOptions::on_demand, recurrent)
                               : import_graph(recipe, ImportOptions::of_batches, recurrent);
  if (imported.dropouts_left_out > 0 && options.purpose != TrainingPipelineOptions::predicting)
    imported.remarks.push_back(
        fmt::format("the file is a trained model, written for inference without its dropouts ({} of them): further "
                    "training has none; a run that goes on by --resume keeps them",
                    imported.dropouts_left_out));
  if (options.weights) take_weights(imported, *options.weights, options.weights_from);
  const double import_seconds = seconds_since(start);
  CompiledTraining result = compile_imported(recipe, std::move(imported), device, options);
  result.report.times.insert(result.report.times.begin(), {"import", import_seconds});
  result.report.seconds += import_seconds;
  return result;
}

// All programs of a step, and what they need.
struct LoweredPrograms {
  std::vector<Program> programs;
  NamedTensors constants;
  std::vector<std::pair<int64_t, std::string>> values;  // in scratch
  int64_t steps = 0, scratch_bytes = 0, scratch_floor = 0;
};

LoweredPrograms lower_all(const std::vector<Graph>& graphs, KernelModule& module, int64_t apart) {
  LoweredPrograms all;
  for (const Graph& graph : graphs) {
    LoweredProgram lowered = lower(graph, graph.name(), module, apart);
    all.steps += static_cast<int64_t>(lowered.program.steps.size());
    all.scratch_floor = std::max(all.scratch_floor, lowered.scratch_floor);
    all.values.insert(all.values.end(), lowered.values.begin(), lowered.values.end());
    for (const Buffer& buffer : lowered.program.buffers)
      if (buffer.kind == BufferKind::scratch) all.scratch_bytes = std::max(all.scratch_bytes, buffer.type.byte_count());
    all.constants.merge(lowered.constants);
    all.programs.push_back(std::move(lowered.program));
  }
  return all;
}

void check_budget(const Recipe& recipe, const CompileReport& report, const std::string& largest) {
  const int64_t needed = report.state_bytes + report.scratch_bytes;
  if (!recipe.memory_budget || needed <= recipe.memory_budget->bytes) return;
  throw Error(
      fmt::format("the step needs {} ({} of states, {} of values, computed again or in chunks where they can be), "
                  "memory_budget is {}: "
                  "give more, or a smaller batch; the largest values are {}",
                  bytes_text(needed), bytes_text(report.state_bytes), bytes_text(report.scratch_bytes),
                  bytes_text(recipe.memory_budget->bytes), largest));
}

CompiledTraining compile_imported(const Recipe& recipe, ImportedModel imported, DeviceKind device,
                                  const CompileOptions& options) {
  const Clock::time_point start = Clock::now();
  CompiledTraining result;
  CompileReport& report = result.report;
  check_names(imported.graph);
  check_weights(imported);
  report.remarks = imported.remarks;
  TrainingPipelineOptions passes = pipeline_options(recipe, imported);
  passes.stop_after = options.stop_after;
  if (device == DeviceKind::cuda) passes.forms = kGpuForms;
  if (recipe.memory_budget) passes.memory_budget = recipe.memory_budget->bytes;
  passes.overlapping_calls = overlapping_calls(device);
  passes.dump = options.dump;
  passes.programs = options.programs;
  const bool runs = options.purpose == TrainingPipelineOptions::compiling && !options.taps;
  if (recipe.tensorboard_gradients && runs && options.stop_after.empty())
    passes.programs = TrainingPipelineOptions::training_and_gradients;
  passes.loss.model_outputs = options.model_outputs;
  if (options.model_outputs == LossOptions::dropped && options.purpose == TrainingPipelineOptions::compiling &&
      !recipe.measures.empty() && need_outputs(recipe.measures, judged_outputs(imported.graph, passes.loss)))
    passes.loss.model_outputs = LossOptions::kept_for_evaluation;
  passes.arenas = options.arenas;
  passes.purpose = options.purpose;
  passes.taps = options.taps;
  // Taps are of the sum's gradients.
  if (passes.taps) passes.optimizer.scaling.losses.clear(), passes.optimizer.scaling.scales = LossScaling::shared;
  if (device == DeviceKind::cuda) passes.attention = attention_form(recipe.attention);
  if (recipe.classes > 0 && has_loss(options.purpose))
    if (const std::optional<int64_t> logits = class_count(imported.graph, passes.loss)) check_classes(recipe, *logits);
  PipelineResult graphs = run_training_pipeline(imported.graph, passes);
  result.taps = std::move(graphs.taps);
  report.onnx_nodes = std::move(imported.nodes);
  report.file_nodes = std::move(imported.file_nodes);
  report.preset = to_string(find_preset(passes.autocast.preset));
  report.precision = std::move(graphs.precision);
  report.autocast = std::move(graphs.autocast);
  report.remarks.insert(report.remarks.end(), report.autocast.remarks.begin(), report.autocast.remarks.end());
  report.part_of = std::move(graphs.part_of);
  report.parts = std::move(graphs.parts);
  report.remarks.insert(report.remarks.end(), graphs.remarks.begin(), graphs.remarks.end());
  report.times.insert(report.times.end(), graphs.times.begin(), graphs.times.end());
  if (!options.stop_after.empty()) {
    result.stopped = std::move(graphs);
    return result;
  }

  const Clock::time_point kernels = Clock::now();
  CompiledModel& model = result.model;
  model.device = device;
  const bool named = !recipe.architecture.empty() && recipe.architecture != "native";
  model.architecture = named ? recipe.architecture : device == DeviceKind::cuda ? "sm_80" : host_cpu();
  std::optional<KernelModule> module(std::in_place, KernelTarget{device, model.architecture});
  const int64_t apart = recipe.memory_budget ? 0 : apart_bytes(device);
  LoweredPrograms lowered = lower_all(graphs.graphs, *module, apart);
  // The pass estimates what the plan needs; where it fell short it gets less.
  for (int tries = 0; recipe.memory_budget && graphs.recomputation && tries < 5; ++tries) {
    const int64_t excess = lowered.scratch_bytes + state_bytes(lowered.programs) - recipe.memory_budget->bytes;
    if (excess <= 0) break;
    *passes.memory_budget -= std::max(excess, recipe.memory_budget->bytes / 256);
    graphs = run_training_pipeline(imported.graph, passes);
    lowered = lower_all(graphs.graphs, module.emplace(KernelTarget{device, model.architecture}), apart);
  }
  report.steps = lowered.steps, report.scratch_bytes = lowered.scratch_bytes;
  report.scratch_floor = lowered.scratch_floor;
  model.state = std::move(lowered.constants), model.programs = std::move(lowered.programs);
  report.times.push_back({"lower", seconds_since(kernels)});
  const Clock::time_point emission = Clock::now();
  if (!options.dump.empty()) write_file_atomically(options.dump / "kernels.ll", module->ir_text());
  model.kernels = module->finish();
  report.times.push_back({"kernels", seconds_since(emission)});
  if (!options.dump.empty()) {
    for (const Program& program : model.programs)
      write_file_atomically(options.dump / ("program." + program.name + ".txt"), print(program));
    if (device == DeviceKind::cuda) write_file_atomically(options.dump / "kernels.ptx", model.kernels);
  }
  model.arenas = graphs.arena_states;
  for (const ArenaSlice& slice : graphs.arenas.slices) {
    model.parameters.push_back({slice.name, slice.shape, slice.permutation, slice.offset});
    report.parameters += slice.size();
  }
  model.state.merge(graphs.initial_states);
  fill_initial_state(model, graphs.arenas, imported, passes.optimizer.weights);
  model.notes = notes_of(recipe, passes.loss, model, imported, options.purpose);
  model.notes.rates = rate_notes(recipe, graphs.arenas);
  model.notes.preset = report.preset;
  model.notes.largest_tensors = largest_values(std::move(lowered.values));
  check(model);
  report.state_bytes = state_bytes(model.programs);
  report.recomputation = graphs.recomputation, report.chunking = graphs.chunking;
  check_budget(recipe, report, model.notes.largest_tensors);
  report.seconds = seconds_since(start);
  return result;
}

}  // namespace halfstep
