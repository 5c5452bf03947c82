#include "passes/pipeline.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "ir/builder.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/fusion/carry_states.h"
#include "passes/fusion/chunk_rows.h"
#include "passes/fusion/compute_in_readers.h"
#include "passes/fusion/fuse.h"
#include "passes/fusion/order_calls.h"
#include "passes/model/choose_layouts.h"
#include "passes/model/inference.h"
#include "passes/model/multiply_patches.h"
#include "passes/model/pad_channels.h"
#include "passes/model/pad_classes.h"
#include "passes/model/recognise.h"
#include "passes/model/stack_recurrent.h"
#include "passes/model/written_as_one.h"
#include "passes/precision/place_casts.h"
#include "passes/precision/rows_of_parts.h"
#include "passes/rewrite/canonicalise.h"
#include "passes/rewrite/expand_composites.h"
#include "passes/rewrite/hoist_max_pool.h"
#include "passes/rewrite/join_sums.h"
#include "passes/rewrite/simplify.h"
#include "passes/training/depthwise_windows.h"
#include "passes/training/differentiate.h"
#include "passes/training/reduce_filter_gradients.h"
#include "passes/training/thin_products.h"
#include "passes/training/unbind_arenas.h"

namespace halfstep {
namespace {

struct Pipeline {
  const TrainingPipelineOptions& options;
  const Graph& model;
  PipelineResult result;

  void each(Graph (*pass)(const Graph&)) {
    for (Graph& graph : result.graphs) graph = pass(graph);
  }
  Graph& at(std::string_view name) {
    return *std::ranges::find(result.graphs, name, [](const Graph& g) -> const std::string& { return g.name(); });
  }
};

void preprocess(Pipeline& p) {
  for (const PreprocessingOptions& options : p.options.preprocessing)
    p.at("forward") = attach_preprocessing(p.at("forward"), options);
}

void attach_the_loss(Pipeline& p) {
  if (!has_loss(p.options.purpose)) return;
  p.at("forward") = attach_loss(p.at("forward"), p.options.loss, &p.result.remarks);
}

void cast_automatically(Pipeline& p) {
  const bool reports = p.options.purpose != TrainingPipelineOptions::checking;
  AutocastOptions options = p.options.autocast;
  std::map<std::string, std::string> parts = parts_taken_in(p.model, p.at("forward"));
  for (const auto& [part, whole] : p.options.autocast.sources.part_of) {
    const auto further = parts.find(whole);
    parts.emplace(part, further == parts.end() ? whole : further->second);
  }
  options.sources.part_of = p.result.part_of = std::move(parts);
  p.at("forward") = autocast(p.at("forward"), options, reports ? &p.result.precision : nullptr, &p.result.autocast);
  if (reports && has_rows_of_parts(p.options.autocast))
    p.result.parts = rows_of_parts(p.model, p.options.autocast, written_as_one(p.model));
}

Graph without_model_outputs(const Graph& graph) {
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b);
  for (const NamedValue& output : graph.outputs())
    if (!output.name.is(Role::model)) b.output(output.name, map(output.value));
  for (const StateUpdate& u : graph.updates()) b.update(map(u.state), map(u.value));
  return std::move(b).finish();
}

// From here the training step and evaluation go their own ways, over the same arenas.
void split_evaluation(Pipeline& p) {
  const Graph forward = std::move(p.at("forward"));
  p.result.arenas = plan_arenas(forward, arena_order(p.options.optimizer));
  p.result.graphs.clear();
  if (p.options.purpose == TrainingPipelineOptions::predicting) {
    p.result.graphs.push_back(inference(forward));
    return;
  }
  const bool evaluation_alone = p.options.loss.model_outputs == LossOptions::kept_for_evaluation;
  p.result.graphs.push_back((evaluation_alone ? without_model_outputs(forward) : forward).named("train"));
  if (p.options.purpose == TrainingPipelineOptions::compiling) p.result.graphs.push_back(inference(forward));
}

void choose_calls(Pipeline& p) {
  for (Graph& graph : p.result.graphs) graph = choose_attention(graph, p.options.attention);
}

void expand(Pipeline& p) {
  const bool calls = p.options.attention != AttentionForm::expanded;
  for (Graph& graph : p.result.graphs)
    graph = expand_composites(graph, calls ? LibraryCalls::keep : LibraryCalls::keep_recurrent);
}

void differentiate_training(Pipeline& p) {
  if (p.options.purpose == TrainingPipelineOptions::predicting) return;
  const OptimizerOptions& optimizer = p.options.optimizer;
  p.at("train") = differentiate(p.at("train"), {.scaling = optimizer.scaling, .accumulation = optimizer.accumulation});
}

void bind_to_arenas(Pipeline& p) {
  for (Graph& graph : p.result.graphs) graph = bind_arenas(graph, p.result.arenas);
}

void add_updates(Pipeline& p) {
  if (p.options.purpose == TrainingPipelineOptions::predicting) {
    p.result.arena_states = arena_states(p.at("evaluate"), p.result.arenas);
    return;
  }
  const OptimizerOptions& optimizer = p.options.optimizer;
  const Graph differentiated = p.at("train");
  p.at("train") = add_update(differentiated, optimizer, p.result.arenas);
  if (optimizer.accumulation > 1)
    p.result.graphs.insert(p.result.graphs.begin() + 1, add_accumulation(differentiated, optimizer, p.result.arenas));
  p.result.arena_states = arena_states(p.at("train"), p.result.arenas);
  if (p.options.programs == TrainingPipelineOptions::training_and_gradients) {
    p.result.graphs.push_back(add_gradients(differentiated, optimizer, p.result.arenas));
    if (std::ranges::find(p.result.arena_states, Name(kGradientArena)) == p.result.arena_states.end())
      p.result.arena_states.push_back(kGradientArena);
  }
  p.result.initial_states = initial_states(optimizer);
}

void mark_what_is_tapped(Pipeline& p) {
  if (p.options.taps) p.at("train") = mark_taps(p.at("train"));
}

void tap_training(Pipeline& p) {
  if (p.options.taps) p.at("train") = tap_values(p.at("train"), p.result.arenas, *p.options.taps, p.result.taps);
}

void take_arenas_apart(Pipeline& p) {
  if (p.options.arenas == TrainingPipelineOptions::taken_apart)
    for (Graph& graph : p.result.graphs) graph = unbind_arenas(graph, p.result.arenas);
}

void make_windows(Pipeline& p) {
  if (p.options.forms.depthwise == DepthwiseForm::windows) p.each(depthwise_windows);
}

void reduce_gradients(Pipeline& p) {
  for (Graph& graph : p.result.graphs) graph = reduce_filter_gradients(graph, p.options.forms.depthwise);
}

void make_epilogues(Pipeline& p) {
  for (Graph& graph : p.result.graphs) graph = add_epilogues(graph, p.options.forms.product_relu);
}

void make_thin_products(Pipeline& p) {
  if (p.options.forms.thin_products == ThinProducts::sums) p.each(thin_products);
}

void check_the_factors(Pipeline& p) {
  if (p.options.forms.overflow_check == OverflowCheck::factors) p.each(check_factors);
}

// Bytes of the states of all graphs: the steps of one executor share them.
int64_t state_bytes(const std::vector<Graph>& graphs) {
  std::map<Name, int64_t> bytes;
  for (const Graph& graph : graphs)
    for (const Node& node : graph.nodes())
      if (is_leaf(*node.op) && !is(node, "input")) bytes[leaf_name(node)] = node.results[0].byte_count();
  int64_t sum = 0;
  for (const auto& [name, size] : bytes) sum += size;
  return sum;
}

// A graph with some products in chunks, and what else has to be done for it to keep within a budget.
struct Chunked {
  Graph graph;
  Chunking chunks = {};
  Recomputation again = {};

  double more_traffic() const {
    constexpr double kFlopsEachByte = 160;  // what a GPU computes while it reads one
    return static_cast<double>(chunks.more_traffic + again.more_traffic) + again.more_flops / kFlopsEachByte;
  }
  bool better_than(const Chunked& other, int64_t budget) const {
    const bool fits = again.bytes <= budget, other_fits = other.again.bytes <= budget;
    if (fits != other_fits) return fits;
    return fits ? more_traffic() < other.more_traffic() : again.bytes < other.again.bytes;
  }
};

constexpr double kMostTraffic = 32;

// Whole where that keeps within the budget, or in the number of chunks with which the least is read and written again.
Chunked best_chunks(const Graph& graph, int64_t budget, int overlap, ChunkOptions options) {
  const auto weigh = [&](Chunked c) {
    recompute(order_calls(compute_in_readers(fuse(c.graph))), budget, overlap, c.again);
    return c;
  };
  Chunked best = weigh({.graph = graph});
  if (best.again.bytes_before <= budget) return best;
  int64_t chunks = 0;
  for (const double most_traffic : {0.5, 2.0, 8.0, kMostTraffic}) {
    options.most_traffic = most_traffic;
    Chunked next{.graph = {}};
    next.graph = chunk_rows(graph, options, next.chunks);
    if (std::exchange(chunks, next.chunks.chunks) == next.chunks.chunks) continue;
    if (best.again.bytes <= budget && next.more_traffic() >= best.more_traffic()) break;
    next = weigh(std::move(next));
    if (next.better_than(best, budget)) best = std::move(next);
  }
  return best;
}

// A product may be cut that is a considerable share of a budget that the step is beyond.
void chunk_within_budget(Pipeline& p) {
  constexpr int64_t kConsiderable = 16, kSmall = 32;  // shares of the budget
  const std::optional<int64_t>& budget = p.options.memory_budget;
  if (!budget && !p.options.chunks) return;
  const int overlap = p.options.overlapping_calls;
  const int64_t states = state_bytes(p.result.graphs);
  for (Graph& graph : p.result.graphs) {
    Chunked found{.graph = graph};
    if (p.options.chunks) {
      found.graph = chunk_rows(graph, *p.options.chunks, found.chunks);
    } else {
      const ChunkOptions options{
          .fewest_bytes = *budget / kConsiderable, .enough_bytes = *budget / kSmall, .most_traffic = kMostTraffic};
      Chunking possible;
      chunk_rows(graph, options, possible);
      if (possible.products == 0) continue;
      found = best_chunks(graph, *budget - states, overlap, options);
    }
    graph = std::move(found.graph);
    if (graph.name() == "train") p.result.chunking = found.chunks;
  }
}

void recompute_within_budget(Pipeline& p) {
  if (!p.options.memory_budget) return;
  const int64_t budget = *p.options.memory_budget - state_bytes(p.result.graphs);
  for (Graph& graph : p.result.graphs) {
    Recomputation done;
    graph = recompute(graph, budget, p.options.overlapping_calls, done);
    if (graph.name() == "train") p.result.recomputation = done;
  }
}

struct Pass : PassRow {
  void (*run)(Pipeline&);
};

constexpr ValueCheck kValues{ValueCheck::values}, kGradients{ValueCheck::values_and_gradients};
constexpr ValueCheck kPreprocessing{
    ValueCheck::none,
    "the input changes its meaning: AttachPreprocessing.* computes both graphs on bytes and on floats"};
constexpr ValueCheck kEvaluation{
    ValueCheck::none, "evaluation computes something else where the rows' inference column says so: Inference.*"};
constexpr ValueCheck kUpdate{ValueCheck::none,
                             "adds updates of states: Optimizer.* and TorchReference.* compare these with PyTorch's"};

constexpr ValueCheck kUnbind{ValueCheck::none,
                             "other states hold the weights: UnbindArenas.* computes both graphs on the same ones"};

constexpr ValueCheck kTapped{ValueCheck::none, "its outputs are new ones: Taps.* reads them back and counts by hand"};

// The architecture on one page.
constexpr Pass kPasses[] = {
    {{"canonicalise", {"canonicalise"}, kGradients}, [](Pipeline& p) { p.each(canonicalise); }},
    {{"recognise", {"recognise", "recognise_attention"}, kGradients}, [](Pipeline& p) { p.each(recognise); }},
    {{"canonicalise_recognised", {"canonicalise"}, kGradients}, [](Pipeline& p) { p.each(canonicalise); }},
    {{"attach_preprocessing", {"attach_preprocessing"}, kPreprocessing}, preprocess},
    {{"attach_loss", {"attach_loss"}, kValues}, attach_the_loss},
    {{"choose_layouts", {"choose_layouts"}, kGradients}, [](Pipeline& p) { p.each(choose_layouts); }},
    {{"simplify_model", {"simplify"}, kGradients}, [](Pipeline& p) { p.each(simplify); }},
    {{"autocast", {"autocast"}, kGradients}, cast_automatically},
    {{"place_forward_casts", {"place_casts"}, kGradients}, [](Pipeline& p) { p.each(place_casts); }},
    {{"simplify_forward", {"simplify"}, kGradients}, [](Pipeline& p) { p.each(simplify); }},
    {{"pad_classes", {"pad_classes"}, kGradients},
     [](Pipeline& p) { p.at("forward") = pad_classes(p.at("forward"), p.options.forms.product_alignment); }},
    {{"multiply_patches", {"multiply_patches"}, kGradients},
     [](Pipeline& p) { p.at("forward") = multiply_patches(p.at("forward"), p.options.forms.product_alignment); }},
    {{"pad_channels", {"pad_channels"}, kGradients},
     [](Pipeline& p) { p.at("forward") = pad_channels(p.at("forward"), p.options.forms.product_alignment); }},
    {{"split_evaluation", {"inference"}, kEvaluation}, split_evaluation},
    {{"choose_attention", {"choose_attention"}, kGradients}, choose_calls},
    {{"stack_recurrent", {"stack_recurrent"}, kGradients}, [](Pipeline& p) { p.each(stack_recurrent); }},
    {{"hoist_max_pool", {"hoist_max_pool"}, kGradients}, [](Pipeline& p) { p.each(hoist_max_pool); }},
    {{"mark_taps", {"mark_taps"}, kValues}, mark_what_is_tapped},
    {{"differentiate", {"differentiate"}, kValues}, differentiate_training},
    {{"bind_arenas", {"bind_arenas"}, kValues}, bind_to_arenas},
    {{"add_update", {"add_update"}, kUpdate}, add_updates},
    {{"unbind_arenas", {"unbind_arenas"}, kUnbind}, take_arenas_apart},
    {{"tap_values", {"tap_values"}, kTapped}, tap_training},
    {{"expand_composites", {"expand_composites"}, kValues}, expand},
    {{"join_sums", {"join_sums"}, kValues}, [](Pipeline& p) { p.each(join_sums); }},
    {{"depthwise_windows", {"depthwise_windows"}, kValues}, make_windows},
    {{"reduce_filter_gradients", {"reduce_filter_gradients"}, kValues}, reduce_gradients},
    {{"simplify", {"simplify"}, kGradients}, [](Pipeline& p) { p.each(simplify); }},
    {{"place_casts", {"place_casts"}, kGradients}, [](Pipeline& p) { p.each(place_casts); }},
    {{"add_epilogues", {"add_epilogues"}, kGradients}, make_epilogues},
    {{"thin_products", {"thin_products"}, kValues}, make_thin_products},
    {{"check_factors", {"check_factors"}, kValues}, check_the_factors},
    {{"simplify_placed", {"simplify"}, kGradients}, [](Pipeline& p) { p.each(simplify); }},
    {{"chunk_rows", {"chunk_rows"}, kValues}, chunk_within_budget},
    {{"fuse", {"fuse"}, kValues}, [](Pipeline& p) { p.each(fuse); }},
    {{"compute_in_readers", {"compute_in_readers"}, kValues}, [](Pipeline& p) { p.each(compute_in_readers); }},
    {{"order_calls", {"order_calls"}, kValues}, [](Pipeline& p) { p.each(order_calls); }},
    {{"recompute", {"recompute"}, kValues}, recompute_within_budget},
    {{"carry_states", {"carry_states"}, kValues}, [](Pipeline& p) { p.each(carry_states); }},
};

void verify_all(const Pipeline& p, std::string_view pass) {
  for (const Graph& graph : p.result.graphs) try {
      verify(graph);
    } catch (const InternalError& e) {
      throw InternalError(fmt::format("after pass '{}', graph '{}': {}", pass, graph.name(), e.what()));
    }
}

// Writes the graphs whose text the pass changed.
class Dump {
 public:
  explicit Dump(const std::filesystem::path& directory) : directory_(directory) {
    if (!directory_.empty()) std::filesystem::create_directories(directory_);
  }

  void write(size_t index, std::string_view pass, const std::vector<Graph>& graphs) {
    if (directory_.empty()) return;
    std::vector<std::string> texts;
    for (const Graph& graph : graphs) {
      texts.push_back(print(graph));
      if (std::ranges::find(before_, texts.back()) == before_.end())
        write_file_atomically(directory_ / fmt::format("{:02}_{}.{}.ir", index, pass, graph.name()), texts.back());
    }
    before_ = std::move(texts);
  }

 private:
  const std::filesystem::path& directory_;
  std::vector<std::string> before_;
};

void check_stop(const std::string& stop_after) {
  const std::vector<std::string> names = pipeline_passes();
  if (stop_after.empty() || std::ranges::find(names, stop_after) != names.end()) return;
  const std::string suggestion = nearest(stop_after, names);
  throw Error(fmt::format("no pass '{}'{}; the passes are: {}", stop_after,
                          suggestion.empty() ? "" : fmt::format(", did you mean '{}'?", suggestion),
                          fmt::join(names, ", ")));
}

}  // namespace

const Graph* PipelineResult::find(std::string_view name) const {
  for (const Graph& graph : graphs)
    if (graph.name() == name) return &graph;
  return nullptr;
}

std::vector<std::string> pipeline_passes() {
  std::vector<std::string> names;
  for (const Pass& pass : kPasses) names.emplace_back(pass.name);
  return names;
}

std::vector<PassRow> pipeline_rows() { return {std::begin(kPasses), std::end(kPasses)}; }

PipelineResult run_training_pipeline(const Graph& model, const TrainingPipelineOptions& options) {
  using Clock = std::chrono::steady_clock;
  check_stop(options.stop_after);
  Pipeline pipeline{options, model, {}};
  pipeline.result.graphs.push_back(model.named("forward"));
  Dump dump(options.dump);
  dump.write(0, "import", pipeline.result.graphs);
  for (size_t i = 0; i < std::size(kPasses); ++i) {
    const Pass& pass = kPasses[i];
    const auto start = Clock::now();
    pass.run(pipeline);
    pipeline.result.times.push_back(
        {std::string(pass.name), std::chrono::duration<double>(Clock::now() - start).count()});
    const bool last = i + 1 == std::size(kPasses) || pass.name == options.stop_after;
    if (last || options.verification == TrainingPipelineOptions::after_each_pass) verify_all(pipeline, pass.name);
    dump.write(i + 1, pass.name, pipeline.result.graphs);
    if (last) break;
  }
  return std::move(pipeline.result);
}

}  // namespace halfstep
