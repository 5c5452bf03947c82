#include "codegen/lower/lower.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "codegen/kernel/schedule.h"
#include "codegen/lower/plan_memory.h"
#include "ir/op.h"
#include "ir/views.h"
#include "program/program_check.h"

namespace halfstep {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kArgumentAlignment = 16;  // of what kernels and libraries take

// A piece of memory that values live in: a buffer of its own, or a stretch of the planned scratch arena.
struct Storage {
  int buffer = -1;     // index in the program; -1: scratch, at `life`'s planned offset
  int64_t offset = 0;  // in the buffer
  size_t life = 0;     // index of the lifetime; scratch only
  int64_t bytes = 0;
};

using StorageId = size_t;

struct Place {
  StorageId storage = 0;
  int64_t offset = 0;
};

// The memory that a step names, before its places are planned: Ref::buffer is a StorageId.
template <typename Visit>
void for_each_ref(Step& step, Visit&& visit) {
  struct Visitor {
    Visit& f;
    void operator()(KernelLaunch& c) const { std::for_each(c.arguments.begin(), c.arguments.end(), f); }
    void operator()(Gemm& c) const {
      f(c.a), f(c.b), f(c.c);
      if (c.bias) f(*c.bias);
    }
    void operator()(Convolution& c) const {
      f(c.x), f(c.w), f(c.y);
      if (c.bias) f(*c.bias);
    }
    void operator()(Attention& c) const {
      f(c.q), f(c.k), f(c.v), f(c.y), f(c.stats);
      for (std::optional<Ref>* ref : {&c.dy, &c.dq, &c.dk, &c.dv})
        if (*ref) f(**ref);
    }
    void operator()(Copy& c) const { f(c.from), f(c.to); }
  };
  std::visit(Visitor{visit}, step.call);
}

// Whether element i of `output` depends on `input` only through its element i, so that both may share memory.
bool elementwise_only(const Graph& body, NodeId input, const std::vector<std::vector<NodeId>>& users) {
  std::vector<NodeId> stack{input};
  std::vector<char> seen(body.nodes().size(), 0);
  while (!stack.empty()) {
    const NodeId at = stack.back();
    stack.pop_back();
    for (NodeId user : users[static_cast<size_t>(at)]) {
      const Node& n = body.node(user);
      if (n.op->kernel != KernelKind::pointwise && n.op->index_map != IndexMap::row_major) return false;
      if (!std::exchange(seen[static_cast<size_t>(user)], 1)) stack.push_back(user);
    }
  }
  return true;
}

class Lowering {
 public:
  Lowering(const Graph& graph, const std::string& name, KernelModule& module)
      : graph_(graph),
        users_(graph.users()),
        module_(module),
        places_(graph.nodes().size()),
        last_use_(graph.nodes().size(), -1) {
    result_.program.name = name;
  }

  LoweredProgram run() {
    find_last_uses();
    place_leaves();
    place_arenas();
    place_outputs();
    place_updates();
    place_overwritten();
    for (NodeId id = 0; id < graph_.size(); ++id) lower_node(id);
    finish_outputs_and_updates();
    plan_scratch();
    return std::move(result_);
  }

 private:
  const Node& node(NodeId id) const { return graph_.node(id); }
  NodeId storage_node(NodeId id) const {
    while (is_view(graph_, node(id))) id = node(id).operands[0].node;
    return id;
  }
  Place& place(Value v) {
    auto& row = places_[static_cast<size_t>(v.node)];
    if (row.empty()) row.resize(node(v.node).results.size());
    return row[static_cast<size_t>(v.result)].emplace_or_get();
  }

  struct MaybePlace {
    std::optional<Place> value;
    Place& emplace_or_get() {
      if (!value) value.emplace();
      return *value;
    }
  };
  bool has_place(Value v) const {
    const auto& row = places_[static_cast<size_t>(v.node)];
    return !row.empty() && row[static_cast<size_t>(v.result)].value.has_value();
  }
  void set_place(Value v, Place p) { place(v) = p; }

  // The place of a value, looking through views.
  Place resolve(Value v) {
    int64_t offset = 0;
    while (is_view(graph_, node(v.node))) {
      offset += view_offset(graph_, node(v.node)) * size_of(graph_.type(v).dtype);
      v = node(v.node).operands[0];
    }
    require(has_place(v), "a value is lowered before it is read");
    Place p = place(v);
    p.offset += offset;
    return p;
  }
  // A view that starts where no argument may is copied.
  Place resolve_aligned(Value v) {
    const Place from = resolve(v);
    if (from.offset % kArgumentAlignment == 0) return from;
    const int64_t bytes = graph_.type(v).byte_count();
    const Place copy{add_scratch(bytes), 0};
    add_copy(from, copy, bytes, node(v.node).origin);
    return copy;
  }

  StorageId add_buffer(Name name, BufferKind kind, TensorType type) {
    result_.program.buffers.push_back({std::move(name), kind, type});
    storages_.push_back({static_cast<int>(result_.program.buffers.size()) - 1, 0, 0, type.byte_count()});
    return storages_.size() - 1;
  }
  StorageId add_scratch(int64_t bytes) {
    lifetimes_.push_back({bytes, std::numeric_limits<int>::max(), 0});
    storages_.push_back({-1, 0, lifetimes_.size() - 1, bytes});
    return storages_.size() - 1;
  }

  // References hold a storage's number until the scratch is planned.
  Ref ref(Place p) const { return {static_cast<int32_t>(p.storage), p.offset}; }

  // A constant of zeros that only arenas read: their memory is zero from the start.
  bool fills_gaps(NodeId constant) const;
  void find_last_uses();
  void place_leaves();
  void place_arenas();
  void place_outputs();
  void place_updates();
  void place_overwritten();
  Value overwritten(NodeId id) const;
  Value taken_over(NodeId id) const;
  void lower_node(NodeId id);
  Place result_place(Value v);
  bool read_beside(StorageId storage) const;
  bool ends_here(NodeId id, size_t operand, std::span<const Place> places) const;
  void lay_over(NodeId id, std::span<const Overlay> overlays, std::span<const Place> operands);
  void lower_fused(NodeId id);
  void lower_gemm(NodeId id);
  void lower_convolution(NodeId id);
  void lower_attention(NodeId id);
  void lower_arena(NodeId id);
  void finish_outputs_and_updates();
  void find_lifetimes();
  void plan_scratch();
  bool safe_in_place(const StateUpdate& update) const;
  void add_step(StepCall call, const Origin& origin) {
    result_.program.steps.push_back({std::move(call), to_string(origin)});
  }
  void add_copy(Place from, Place to, int64_t bytes, const Origin& origin) {
    if (bytes > 0) add_step(Copy{ref(from), ref(to), bytes}, origin);
  }

  const Graph& graph_;
  const std::vector<std::vector<NodeId>> users_;
  KernelModule& module_;
  LoweredProgram result_;
  std::vector<std::vector<MaybePlace>> places_;
  std::vector<NodeId> last_use_;  // by storage node: the last node that reads it
  std::vector<Storage> storages_;
  std::set<StorageId> arenas_;
  std::vector<Lifetime> lifetimes_;
};

void Lowering::find_last_uses() {
  for (NodeId id = 0; id < graph_.size(); ++id)
    for (Value v : node(id).operands)
      if (v && !is_view(graph_, node(id))) last_use_[static_cast<size_t>(storage_node(v.node))] = id;
  const auto keep = [&](Value v) { last_use_[static_cast<size_t>(storage_node(v.node))] = graph_.size(); };
  for (const NamedValue& o : graph_.outputs()) keep(o.value);
  for (const StateUpdate& u : graph_.updates()) keep(u.value);
}

bool Lowering::fills_gaps(NodeId id) const {
  if (last_use_[static_cast<size_t>(id)] == graph_.size()) return false;
  for (NodeId user : users_[static_cast<size_t>(id)])
    if (!is_arena(node(user))) return false;
  const std::vector<std::byte>& data = node(id).attributes.tensor("value").data;
  return std::all_of(data.begin(), data.end(), [](std::byte b) { return b == std::byte{0}; });
}

void Lowering::place_leaves() {
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& n = node(id);
    if (n.op->kernel != KernelKind::leaf) continue;
    if (n.op->leaf == Leaf::constant) {
      if (fills_gaps(id)) continue;
      const Tensor& value = n.attributes.tensor("value");
      const Name name(Role::transient, "constant." + result_.program.name + "." + std::to_string(id));
      result_.constants.emplace(name, value);
      set_place({id, 0}, {add_buffer(name, BufferKind::state, value.type), 0});
      continue;
    }
    const BufferKind kind = n.op->leaf == Leaf::input ? BufferKind::input : BufferKind::state;
    set_place({id, 0}, {add_buffer(leaf_name(n), kind, n.results[0]), 0});
  }
}

// An arena with gaps is a buffer of its own, zero at first: the gaps between its pieces are never written. A piece that
// nobody else has placed is computed right into the arena.
void Lowering::place_arenas() {
  int number = 0;
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& n = node(id);
    if (!is_arena(n)) continue;
    const bool gaps = std::any_of(n.operands.begin(), n.operands.end(), [&](Value v) {
      return node(v.node).op->leaf == Leaf::constant && fills_gaps(v.node);
    });
    const StorageId storage =
        gaps ? add_buffer({Role::transient, "arena." + result_.program.name + "." + std::to_string(number++)},
                          BufferKind::state, n.results[0])
             : add_scratch(n.results[0].byte_count());
    set_place({id, 0}, {storage, 0});
    arenas_.insert(storage);
    int64_t offset = 0;
    for (Value v : n.operands) {
      Value source = v;
      bool whole = true;
      while (is_view(graph_, node(source.node))) {
        whole &= node(source.node).op->index_map == IndexMap::row_major;
        source = node(source.node).operands[0];
      }
      if (whole && offset % kArgumentAlignment == 0 && !has_place(source) &&
          node(source.node).op->kernel != KernelKind::leaf && !is_arena(node(source.node)))
        set_place(source, {storage, offset});
      offset += graph_.type(v).byte_count();
    }
  }
}

// An output is computed right into its buffer, also if it is a reshape of what a kernel makes.
void Lowering::place_outputs() {
  for (const NamedValue& o : graph_.outputs()) {
    const StorageId storage = add_buffer(o.name, BufferKind::output, graph_.type(o.value));
    Value source = o.value;
    while (node(source.node).op->index_map == IndexMap::row_major) source = node(source.node).operands[0];
    const bool computed = node(source.node).op->kernel != KernelKind::leaf && !is_view(graph_, node(source.node));
    if (computed && !has_place(source)) set_place(source, {storage, 0});
  }
}

// The new value may be written over the old one if nothing reads the old one afterwards, and the kernel that makes it
// reads the old one element by element.
bool Lowering::safe_in_place(const StateUpdate& update) const {
  const NodeId maker = update.value.node;
  if (node(maker).op->kernel != KernelKind::fused || has_place(update.value)) return false;
  if (last_use_[static_cast<size_t>(update.state.node)] > maker) return false;
  const Graph& body = node(maker).attributes.region("body");
  const auto users = body.users();
  NodeId input = -1;
  size_t operand = 0;
  for (NodeId id = 0; id < body.size(); ++id) {
    if (body.node(id).op->leaf != Leaf::input) continue;
    const Value v = node(maker).operands[operand++];
    if (storage_node(v.node) != update.state.node) continue;
    if (v != update.state || input >= 0 || !elementwise_only(body, id, users)) return false;
    input = id;
  }
  return true;
}

void Lowering::place_updates() {
  for (const StateUpdate& u : graph_.updates())
    if (safe_in_place(u)) set_place(u.value, place(u.state));
}

// The operand whose value a region finds in its result's memory; absent: the region writes all of that itself.
Value Lowering::overwritten(NodeId id) const {
  if (node(id).op->kernel != KernelKind::fused) return {};
  const auto number = operand_written_over(node(id).attributes.region("body"));
  return number ? node(id).operands[*number] : Value{};
}

// The value whose memory a region's result may take: that of the overwritten operand, if nothing else reads it by then.
Value Lowering::taken_over(NodeId id) const {
  Value source = overwritten(id);
  if (!source) return {};
  while (node(source.node).op->index_map == IndexMap::row_major) source = node(source.node).operands[0];
  const bool computed = node(source.node).op->kernel != KernelKind::leaf && !is_view(graph_, node(source.node)) &&
                        !is_arena(node(source.node));
  const auto readers =
      std::ranges::count_if(node(id).operands, [&](Value v) { return storage_node(v.node) == source.node; });
  return computed && readers == 1 && last_use_[static_cast<size_t>(source.node)] == id ? source : Value{};
}

// What a region writes over is computed where the result is to be. Last regions first, so that chains of them work.
void Lowering::place_overwritten() {
  for (NodeId id = graph_.size(); id-- > 0;)
    if (has_place({id, 0}))
      if (const Value source = taken_over(id); source && !has_place(source)) set_place(source, place({id, 0}));
}

Place Lowering::result_place(Value v) {
  if (const Value source = taken_over(v.node); source && !has_place(v)) set_place(v, place(source));
  if (!has_place(v)) {
    const TensorType& type = graph_.type(v);
    set_place(v, {add_scratch(type.byte_count()), 0});
    result_.values.emplace_back(type.byte_count(), to_string(type) + " of '" + to_string(node(v.node).origin) + "'");
  }
  return place(v);
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

// Whether nothing but operand number `operand` of a node needs the memory there any more.
bool Lowering::ends_here(NodeId id, size_t operand, std::span<const Place> places) const {
  const Place place = places[operand];
  const Storage& storage = storages_[place.storage];
  const Value v = node(id).operands[operand];
  const NodeId maker = storage_node(v.node);
  return storage.buffer < 0 && !arenas_.contains(place.storage) && place.offset == 0 &&
         storage.bytes == graph_.type(v).byte_count() && node(maker).op->kernel != KernelKind::leaf &&
         last_use_[static_cast<size_t>(maker)] == id && !read_beside(place.storage) &&
         std::ranges::count(places, place.storage, &Place::storage) == 1;
}

// Results take the memory of operands that end here, where the kernels allow it.
void Lowering::lay_over(NodeId id, std::span<const Overlay> overlays, std::span<const Place> operands) {
  std::set<int32_t> taken;
  for (const Overlay& o : overlays) {
    const size_t operand = static_cast<size_t>(o.operand);
    if (has_place({id, o.output}) || taken.contains(o.operand) || !ends_here(id, operand, operands)) continue;
    set_place({id, o.output}, operands[operand]);
    taken.insert(o.operand);
  }
}

void Lowering::lower_fused(NodeId id) {
  const Node& n = node(id);
  const EmittedRegion region = module_.emit(n.attributes.region("body"));
  std::vector<Place> operands, results;
  std::vector<StorageId> partials;
  for (Value v : n.operands) operands.push_back(resolve_aligned(v));
  lay_over(id, region.overlays, operands);
  for (int32_t r = 0; r < static_cast<int32_t>(n.results.size()); ++r) results.push_back(result_place({id, r}));
  for (int64_t bytes : region.partial_bytes) partials.push_back(add_scratch(bytes));
  if (const auto written_over = operand_written_over(n.attributes.region("body"))) {
    const Place from = operands[*written_over], to = results[0];
    const int64_t bytes = n.results[0].byte_count();
    if (bytes > 0 && (from.storage != to.storage || from.offset != to.offset))
      add_step(Copy{ref(from), ref(to), bytes}, n.origin);
  }
  for (const EmittedLaunch& launch : region.launches) {
    KernelLaunch step{launch.kernel, {}, launch.grid, launch.block, launch.units, launch.bytes, {}, {}};
    for (const EmittedArgument& a : launch.arguments) {
      const size_t number = static_cast<size_t>(a.number);
      const Place p = a.kind == EmittedArgument::Kind::operand  ? operands[number]
                      : a.kind == EmittedArgument::Kind::output ? results[number]
                                                                : Place{partials[number], 0};
      if (a.kind != EmittedArgument::Kind::operand) step.written.push_back(static_cast<int64_t>(step.arguments.size()));
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
  gemm.m = c.shape[rank - 2], gemm.n = c.shape[rank - 1], gemm.k = a.shape[rank - (gemm.transpose_a ? 2 : 1)];
  gemm.batch = rank == 3 ? c.shape[0] : 1;
  gemm.stride_a = gemm.m * gemm.k, gemm.stride_b = gemm.k * gemm.n, gemm.stride_c = gemm.m * gemm.n;
  gemm.operand = b.dtype, gemm.result = gemm.bias_type = c.dtype;
  gemm.a = ref(resolve_aligned(n.operands[0])), gemm.b = ref(resolve_aligned(n.operands[1])),
  gemm.c = ref(result_place({id, 0}));
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
  const auto at = [&](Value v) { return v == result ? ref(result_place(v)) : ref(resolve_aligned(v)); };
  c.x = at(x), c.w = at(w), c.y = at(y);
  add_step(std::move(c), n.origin);
}

void Lowering::lower_attention(NodeId id) {
  const Node& n = node(id);
  const bool backward = n.op->gradient != Gradient::none;
  const size_t first = backward ? 3 : 0;  // of q, k and v
  const Shape &q = graph_.type(n.operands[first]).shape, &k = graph_.type(n.operands[first + 1]).shape;
  const auto at = [&](size_t operand) { return ref(resolve_aligned(n.operands[operand])); };
  const auto result = [&](int32_t number) { return ref(result_place({id, number})); };
  Attention a;
  a.kind = backward ? AttentionKind::backward : AttentionKind::forward;
  a.batch = q[0], a.queries = q[1], a.heads = q[2], a.depth = q[3], a.keys = k[1], a.key_heads = k[2];
  a.value_depth = graph_.type(n.operands[first + 2]).shape[3];
  a.scale = n.attributes.number("scale"), a.causal = n.attributes.integer("causal") != 0;
  a.operand = graph_.type(n.operands[first]).dtype;
  a.q = at(first), a.k = at(first + 1), a.v = at(first + 2);
  if (backward) {
    a.deterministic = n.attributes.integer("deterministic") != 0;
    a.dy = at(0), a.y = at(1), a.stats = at(2), a.dq = result(0), a.dk = result(1), a.dv = result(2);
  } else {
    a.y = result(0), a.stats = result(1);
  }
  add_step(std::move(a), n.origin);
}

// Copies the pieces that could not be computed in place.
void Lowering::lower_arena(NodeId id) {
  const Node& n = node(id);
  const Place arena = place({id, 0});
  int64_t offset = 0;
  for (Value v : n.operands) {
    const int64_t bytes = graph_.type(v).byte_count();
    if (node(v.node).op->leaf == Leaf::constant && fills_gaps(v.node)) {
      offset += bytes;
      continue;
    }
    const Place from = resolve(v);
    if (from.storage != arena.storage || from.offset != offset)
      add_copy(from, {arena.storage, offset}, bytes, n.origin);
    offset += bytes;
  }
}

void Lowering::finish_outputs_and_updates() {
  // Copies read their sources, so all sources must still hold their values: outputs first, then updates.
  const auto copy_to = [&](Value v, StorageId to, int64_t offset, const Origin& origin) {
    const Place from = resolve(v);
    if (from.storage == to && from.offset == offset) return;
    add_copy(from, {to, offset}, graph_.type(v).byte_count(), origin);
  };
  for (const NamedValue& o : graph_.outputs())
    for (StorageId s = 0; s < storages_.size(); ++s)
      if (storages_[s].buffer >= 0) {
        const Buffer& b = result_.program.buffers[static_cast<size_t>(storages_[s].buffer)];
        if (b.kind == BufferKind::output && b.name == o.name) copy_to(o.value, s, 0, node(o.value.node).origin);
      }
  for (const StateUpdate& u : graph_.updates()) {
    const Place state = place(u.state);
    copy_to(u.value, state.storage, state.offset, node(u.value.node).origin);
  }
}

// What a value in memory is, each step that names it is alive in, and those between.
void Lowering::find_lifetimes() {
  int number = 0;
  for (Step& step : result_.program.steps) {
    const int longer = is_library(step.call) ? overlapping_calls(module_.target().device) : 0;
    for_each_ref(step, [&](const Ref& r) {
      const Storage& s = storages_[static_cast<size_t>(r.buffer)];
      if (s.buffer >= 0) return;
      Lifetime& life = lifetimes_[s.life];
      life.first = std::min(life.first, number);
      life.last = std::max(life.last, number + longer);
    });
    ++number;
  }
  for (Lifetime& life : lifetimes_)
    if (life.first > life.last) life = {};  // of values that no step makes: they are empty
}

void Lowering::plan_scratch() {
  find_lifetimes();
  const MemoryPlan plan = plan_memory(lifetimes_, kAlignment);
  result_.scratch_floor = plan.floor;
  const int32_t scratch = static_cast<int32_t>(result_.program.buffers.size());
  bool named = false;  // also by steps that read nothing of it, as of an empty tensor
  const auto settle = [&](Ref& r) {
    const Storage& s = storages_[static_cast<size_t>(r.buffer)];
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

LoweredProgram lower(const Graph& graph, const std::string& program_name, KernelModule& module) {
  return Lowering(graph, program_name, module).run();
}

}  // namespace halfstep
