#include "codegen/lower/lower.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <span>

#include "base/checked.h"
#include "base/error.h"
#include "codegen/kernel/schedule.h"
#include "codegen/lower/places.h"
#include "ir/op.h"
#include "ir/recurrent.h"
#include "ir/views.h"
#include "program/program_check.h"

namespace halfstep {
namespace {

constexpr int64_t kAlignment = 256;

// The memory that a step names, before its places are planned: Ref::buffer is a StorageId.
template <typename Visit>
void for_each_ref(Step& step, Visit&& visit) {
  struct Visitor {
    Visit& f;
    void operator()(KernelLaunch& c) const { std::for_each(c.arguments.begin(), c.arguments.end(), f); }
    void operator()(Gemm& c) const {
      f(c.a), f(c.b), f(c.c);
      for (std::optional<Ref>* ref : {&c.bias, &c.addend})
        if (*ref) f(**ref);
    }
    void operator()(Convolution& c) const {
      f(c.x), f(c.w), f(c.y);
      if (c.bias) f(*c.bias);
    }
    void operator()(Attention& c) const {
      f(c.q), f(c.y), f(c.stats);
      for (std::optional<Ref>* ref : {&c.k, &c.v, &c.dy, &c.dq, &c.dk, &c.dv})
        if (*ref) f(**ref);
    }
    void operator()(Recurrent& c) const {
      f(c.x), f(c.weights), f(c.y);
      for (std::optional<Ref>* ref : {&c.h, &c.c, &c.h_last, &c.c_last, &c.reserve, &c.dy, &c.dh_last, &c.dc_last,
                                      &c.dx, &c.dweights, &c.dh, &c.dc})
        if (*ref) f(**ref);
    }
    void operator()(Copy& c) const { f(c.from), f(c.to); }
  };
  std::visit(Visitor{visit}, step.call);
}

class Lowering {
 public:
  Lowering(const Graph& graph, KernelModule& module, int64_t apart, LoweredProgram& result)
      : graph_(graph), module_(module), apart_(apart), result_(result), places_(graph, result) {}

  void run() {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (is_library(node(id))) end_awaited(id);
      lower_node(id);
      last_step_.push_back(static_cast<int>(result_.program.steps.size()) - 1);
    }
    finish_outputs_and_updates();
    plan_scratch();
  }

 private:
  const Node& node(NodeId id) const { return graph_.node(id); }

  // References hold a storage's number until the scratch is planned.
  Ref ref(Place p) const { return {static_cast<int32_t>(p.storage), p.offset}; }
  Place operand_place(Value v);
  bool read_beside(StorageId storage) const;
  void lay_over(NodeId id, std::span<const Overlay> overlays, std::span<const Place> operands);
  void end_awaited(NodeId id);
  void lower_node(NodeId id);
  void lower_fused(NodeId id);
  void lower_gemm(NodeId id);
  void lower_convolution(NodeId id);
  void lower_attention(NodeId id);
  void lower_recurrent(NodeId id);
  Ref overwritten(NodeId id, size_t operand);
  void lower_arena(NodeId id);
  void finish_outputs_and_updates();
  void find_lifetimes();
  void plan_scratch();
  void add_step(StepCall call, const Origin& origin) {
    result_.program.steps.push_back({std::move(call), to_string(origin)});
  }
  void add_copy(Place from, Place to, int64_t bytes, const Origin& origin) {
    if (bytes > 0 && from != to) add_step(Copy{ref(from), ref(to), bytes}, origin);
  }

  const Graph& graph_;
  KernelModule& module_;
  const int64_t apart_;
  LoweredProgram& result_;
  Places places_;
  std::vector<int> last_step_;        // by node, of those that are lowered
  std::map<int, int> awaited_until_;  // by step: the last one that may run beside it, where a call waits for it
};

// A view that starts where no argument may is copied.
Place Lowering::operand_place(Value v) {
  const Place from = places_.resolve(v);
  if (from.offset % kArgumentAlignment == 0) return from;
  const int64_t bytes = graph_.type(v).byte_count();
  const Place copy = places_.scratch(bytes);
  add_copy(from, copy, bytes, node(v.node).origin);
  return copy;
}

// What library calls read that this one waits for is free when it starts.
void Lowering::end_awaited(NodeId id) {
  for (Value event : awaited(graph_, node(id))) {
    while (is_view(graph_, node(event.node))) event = node(event.node).operands[0];
    if (!is_library(node(event.node))) continue;
    awaited_until_.emplace(last_step_[static_cast<size_t>(event.node)],
                           static_cast<int>(result_.program.steps.size()) - 1);
  }
}

void Lowering::lower_node(NodeId id) {
  const Node& n = node(id);
  if (n.op->kernel == KernelKind::leaf || is_view(graph_, n)) return;
  if (is_arena(n)) return lower_arena(id);
  switch (n.op->kernel) {
    case KernelKind::fused:
      return lower_fused(id);
    case KernelKind::gemm:
      return lower_gemm(id);
    case KernelKind::convolution:
      return lower_convolution(id);
    case KernelKind::attention:
      return lower_attention(id);
    case KernelKind::recurrent:
      return lower_recurrent(id);
    default:
      throw InternalError(std::string(n.op->name) + " '" + to_string(n.origin) + "' was not fused before lowering");
  }
}

// Whether a library call may still read it while the next step runs.
bool Lowering::read_beside(StorageId storage) const {
  const std::vector<Step>& steps = result_.program.steps;
  const auto beside = static_cast<size_t>(overlapping_calls(module_.target().device));
  const auto recent = std::span(steps).last(std::min(steps.size(), beside));
  return std::ranges::any_of(recent, [&](const Step& step) {
    return is_library(step.call) && std::ranges::any_of(memory_uses(result_.program, step), [&](const MemoryUse& use) {
             return use.access == Access::read && use.ref.buffer == static_cast<int32_t>(storage);
           });
  });
}

// Results take the memory of operands that end here, where the kernels allow it.
void Lowering::lay_over(NodeId id, std::span<const Overlay> overlays, std::span<const Place> operands) {
  std::set<int32_t> taken;
  for (const Overlay& o : overlays) {
    const size_t operand = static_cast<size_t>(o.operand);
    if (places_.has({id, o.output}) || taken.contains(o.operand) || !places_.ends_here(id, operand, operands) ||
        read_beside(operands[operand].storage))
      continue;
    places_.put({id, o.output}, operands[operand]);
    taken.insert(o.operand);
  }
}

void Lowering::lower_fused(NodeId id) {
  const Node& n = node(id);
  const EmittedRegion region = module_.emit(n.attributes.region("body"));
  std::vector<Place> operands, results, partials;
  for (Value v : n.operands) operands.push_back(operand_place(v));
  lay_over(id, region.overlays, operands);
  for (int32_t r = 0; r < static_cast<int32_t>(n.results.size()); ++r) results.push_back(places_.of_result({id, r}));
  for (int64_t bytes : region.partial_bytes) partials.push_back(places_.scratch(bytes));
  if (const auto written_over = operand_written_over(n.attributes.region("body"))) {
    const Place from = operands[*written_over], to = results[0];
    add_copy(from, to, n.results[0].byte_count(), n.origin);
  }
  for (const EmittedLaunch& launch : region.launches) {
    KernelLaunch step{launch.kernel, {}, launch.grid, launch.block, launch.units, launch.bytes, {}, {}};
    for (const EmittedArgument& a : launch.arguments) {
      const size_t number = static_cast<size_t>(a.number);
      const Place p = a.kind == EmittedArgument::Kind::operand  ? operands[number]
                      : a.kind == EmittedArgument::Kind::output ? results[number]
                                                                : partials[number];
      if (a.written) step.written.push_back(static_cast<int64_t>(step.arguments.size()));
      step.extents.push_back(a.kind == EmittedArgument::Kind::operand  ? graph_.type(n.operands[number]).byte_count()
                             : a.kind == EmittedArgument::Kind::output ? n.results[number].byte_count()
                                                                       : region.partial_bytes[number]);
      step.arguments.push_back(ref(p));
    }
    add_step(std::move(step), n.origin);
  }
}

void Lowering::lower_gemm(NodeId id) {
  const Node& n = node(id);
  const TensorType &a = graph_.type(n.operands[0]), &b = graph_.type(n.operands[1]), &c = n.results[0];
  Gemm gemm;
  const size_t rank = c.shape.size();
  gemm.transpose_a = n.attributes.integer("transpose_a"), gemm.transpose_b = n.attributes.integer("transpose_b");
  gemm.relu = n.attributes.integer("rectified");
  gemm.m = c.shape[rank - 2], gemm.n = c.shape[rank - 1], gemm.k = a.shape[rank - (gemm.transpose_a ? 2 : 1)];
  gemm.batch = rank == 3 ? c.shape[0] : 1;
  gemm.stride_a = gemm.m * gemm.k, gemm.stride_b = gemm.k * gemm.n, gemm.stride_c = gemm.m * gemm.n;
  gemm.operand = b.dtype, gemm.result = gemm.bias_type = c.dtype;
  std::vector<Place> operands;
  for (Value v : n.operands) operands.push_back(v ? operand_place(v) : Place{SIZE_MAX, 0});
  gemm.a = ref(operands[0]), gemm.b = ref(operands[1]);
  if (optional_operand(n, kProductBias)) gemm.bias = ref(operands[kProductBias]);
  if (optional_operand(n, kProductAddend)) {
    gemm.addend = ref(operands[kProductAddend]);
    const Overlay over_the_addend{static_cast<int32_t>(kProductAddend), 0};
    lay_over(id, {&over_the_addend, 1}, operands);
  }
  gemm.c = ref(places_.of_result({id, 0}));
  add_step(std::move(gemm), n.origin);
}

void Lowering::lower_convolution(NodeId id) {
  const Node& n = node(id);
  const bool data_grad = n.op->gradient == Gradient::data, filter_grad = n.op->gradient == Gradient::filter;
  Convolution c;
  c.kind = data_grad     ? ConvolutionKind::data_grad
           : filter_grad ? ConvolutionKind::filter_grad
                         : ConvolutionKind::forward;
  const Value result{id, 0};
  const Value x = data_grad ? result : n.operands[0],
              w = data_grad     ? n.operands[0]
                  : filter_grad ? result
                                : n.operands[1],
              y = data_grad || filter_grad ? n.operands[1] : result;
  const Shape &xs = graph_.type(x).shape, &ws = graph_.type(w).shape, &ys = graph_.type(y).shape;
  const size_t axes = xs.size() - 2;
  const auto list = [&](std::string_view name, int64_t otherwise) {
    const Ints& values = n.attributes.ints(name);
    return values.empty() ? Ints(axes, otherwise) : values;
  };
  c.batch = xs.front(), c.in_channels = xs.back(), c.out_channels = ys.back(),
  c.groups = n.attributes.integer("groups");
  c.spatial.assign(xs.begin() + 1, xs.end() - 1), c.window.assign(ws.begin() + 1, ws.end() - 1);
  c.out_spatial.assign(ys.begin() + 1, ys.end() - 1);
  c.strides = list("strides", 1), c.dilations = list("dilations", 1);
  c.pads_begin = list("pads_begin", 0), c.pads_end = list("pads_end", 0);
  c.operand = graph_.type(n.operands[0]).dtype, c.result = c.bias_type = n.results[0].dtype;
  const auto at = [&](Value v) { return v == result ? ref(places_.of_result(v)) : ref(operand_place(v)); };
  c.x = at(x), c.w = at(w), c.y = at(y);
  add_step(std::move(c), n.origin);
}

void Lowering::lower_attention(NodeId id) {
  const Node& n = node(id);
  const bool backward = n.op->gradient != Gradient::none;
  const size_t first = backward ? 3 : 0;  // of q, k and v
  const int64_t key_heads = n.attributes.integer("key_heads");
  const auto at = [&](size_t operand) { return ref(operand_place(n.operands[operand])); };
  const auto result = [&](int32_t number) { return ref(places_.of_result({id, number})); };
  Attention a;
  a.kind = backward ? AttentionKind::backward : AttentionKind::forward;
  const Shape& q = graph_.type(n.operands[first]).shape;
  a.batch = q[0], a.queries = a.keys = q[1], a.heads = q[2] - 2 * key_heads, a.depth = a.value_depth = q[3];
  a.key_heads = key_heads;
  a.scale = n.attributes.number("scale"), a.causal = n.attributes.integer("causal") != 0;
  a.operand = graph_.type(n.operands[first]).dtype;
  a.q = at(first);
  if (key_heads == 0) {
    const Shape &k = graph_.type(n.operands[first + 1]).shape, &v = graph_.type(n.operands[first + 2]).shape;
    a.keys = k[1], a.key_heads = k[2], a.value_depth = v[3];
    a.k = at(first + 1), a.v = at(first + 2);
  }
  if (backward) {
    a.deterministic = n.attributes.integer("deterministic") != 0;
    a.dy = at(0), a.y = at(1), a.stats = at(2), a.dq = result(0);
    if (a.k) a.dk = result(1), a.dv = result(2);
  } else {
    a.y = result(0), a.stats = result(1);
  }
  add_step(std::move(a), n.origin);
}

void Lowering::lower_recurrent(NodeId id) {
  const Node& n = node(id);
  const bool backward = n.op->gradient != Gradient::none;
  const size_t x = backward ? 3 : 0;  // then weights
  const auto at = [&](size_t i) -> std::optional<Ref> {
    const Value v = optional_operand(n, i);
    return v ? std::optional(ref(operand_place(v))) : std::nullopt;
  };
  const auto result = [&](int32_t number) { return ref(places_.of_result({id, number})); };
  Recurrent r;
  r.kind = backward ? RecurrentKind::backward : RecurrentKind::forward;
  r.sizes = recurrent_sizes(n.attributes, graph_.type(n.operands[x])), r.operand = graph_.type(n.operands[x]).dtype;
  r.x = *at(x), r.weights = *at(x + 1);
  const auto last = static_cast<int32_t>(n.results.size()) - 1;
  if (backward) {
    r.dy = at(0), r.dh_last = at(1), r.dc_last = at(2), r.y = *at(5), r.h = at(7), r.c = at(8);
    r.reserve_bytes = graph_.type(n.operands[6]).byte_count();
    r.reserve = overwritten(id, 6);
    r.dx = result(0), r.dweights = result(1);
    if (r.h) r.dh = result(2);
    if (r.c) r.dc = result(last);
  } else {
    r.h = at(2), r.c = at(3);
    r.y = result(0), r.h_last = result(1);
    if (r.sizes.has_c()) r.c_last = result(2);
    r.reserve_bytes = n.results[static_cast<size_t>(last)].byte_count();
    if (r.reserve_bytes > 0) r.reserve = result(last);
  }
  add_step(std::move(r), n.origin);
}

// The place of an operand that the call writes over: a copy of it, unless nothing else reads it from here on.
Ref Lowering::overwritten(NodeId id, size_t operand) {
  const Node& n = node(id);
  std::vector<Place> places;
  for (Value v : n.operands) places.push_back(v ? places_.resolve(v) : Place{SIZE_MAX, 0});
  if (places_.ends_here(id, operand, places)) return ref(places[operand]);
  const int64_t bytes = graph_.type(n.operands[operand]).byte_count();
  const Place copy = places_.scratch(bytes);
  add_copy(places[operand], copy, bytes, n.origin);
  return ref(copy);
}

// Copies the pieces that could not be computed in place.
void Lowering::lower_arena(NodeId id) {
  const Place arena = places_.resolve({id, 0});
  int64_t offset = 0;
  for (Value v : node(id).operands) {
    const int64_t bytes = graph_.type(v).byte_count();
    if (!places_.fills_gaps(v)) add_copy(places_.resolve(v), {arena.storage, offset}, bytes, node(id).origin);
    offset += bytes;
  }
}

// Copies read their sources, so all sources must still hold their values: outputs first, then updates.
void Lowering::finish_outputs_and_updates() {
  const auto copy_to = [&](Value v, Place to) {
    add_copy(places_.resolve(v), to, graph_.type(v).byte_count(), node(v.node).origin);
  };
  for (size_t i = 0; i < graph_.outputs().size(); ++i) copy_to(graph_.outputs()[i].value, places_.of_output(i));
  for (const StateUpdate& u : graph_.updates()) copy_to(u.value, places_.resolve(u.state));
}

// What a value in memory is, each step that names it is alive in, and those between.
void Lowering::find_lifetimes() {
  int number = 0;
  for (Step& step : result_.program.steps) {
    int beside = is_library(step.call) ? number + overlapping_calls(module_.target().device) : number;
    if (const auto until = awaited_until_.find(number); until != awaited_until_.end())
      beside = std::max(number, std::min(beside, until->second));
    for_each_ref(step, [&](const Ref& r) {
      const Storage& s = places_.storages()[static_cast<size_t>(r.buffer)];
      if (s.buffer >= 0) return;
      Lifetime& life = places_.lifetimes()[s.life];
      life.first = std::min(life.first, number);
      life.last = std::max(life.last, beside);
    });
    ++number;
  }
  for (Lifetime& life : places_.lifetimes())
    if (life.first > life.last) life = {};  // of values that no step makes: they are empty
}

void Lowering::plan_scratch() {
  find_lifetimes();
  const MemoryPlan plan = plan_memory(places_.lifetimes(), kAlignment, apart_);
  result_.scratch_floor = plan.floor;
  const int32_t scratch = static_cast<int32_t>(result_.program.buffers.size());
  bool named = false;  // also by steps that read nothing of it, as of an empty tensor
  const auto settle = [&](Ref& r) {
    const Storage& s = places_.storages()[static_cast<size_t>(r.buffer)];
    if (s.buffer >= 0)
      r = {s.buffer, r.offset};
    else
      r = {scratch, r.offset + plan.offsets[s.life]}, named = true;
  };
  for (Step& step : result_.program.steps) for_each_ref(step, settle);
  if (named) result_.program.buffers.push_back({"scratch", BufferKind::scratch, {DType::u8, {plan.bytes}}});
}

}  // namespace

int overlapping_calls(DeviceKind device) { return device == DeviceKind::cuda ? 3 : 0; }

int64_t apart_bytes(DeviceKind device) { return device == DeviceKind::cuda ? int64_t{24} << 20 : 0; }

LoweredProgram lower(const Graph& graph, const std::string& program_name, KernelModule& module, int64_t apart) {
  LoweredProgram result;
  result.program.name = program_name;
  Lowering(graph, module, apart, result).run();
  return result;
}

}  // namespace halfstep
