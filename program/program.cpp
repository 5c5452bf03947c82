// The checks of a Program and a CompiledModel before anything runs them, and the names and costs of their steps.
#include "program/program.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "program/gpu_code.h"
#include "program/initial_state.h"
#include "program/program_check.h"

namespace halfstep {
namespace {

constexpr int64_t kLibraryAlignment = 16;

void expect(bool condition, const std::string& message) {
  if (!condition) throw Error(message);
}

int64_t bytes_of(std::span<const int64_t> shape, DType type, const char* operand) {
  return checked_mul(checked_element_count(shape, operand), size_of(type), operand);
}

// Elements from the first to the last of `batch` matrices that lie `stride` apart.
int64_t batch_bytes(int64_t batch, int64_t stride, int64_t matrix, DType type, const char* operand) {
  const int64_t before_last = checked_mul(batch - 1, stride, operand);
  return checked_mul(checked_add(before_last, matrix, operand), size_of(type), operand);
}

std::vector<MemoryUse> operands(const Gemm& g) {
  expect(g.m > 0 && g.n > 0 && g.k > 0 && g.batch > 0, "m, n, k and batch must be positive");
  expect(is_floating(g.operand) && is_floating(g.result) && is_floating(g.bias_type), "types must be floating point");
  expect((g.operand == DType::f64) == (g.result == DType::f64), "operands and result must both be f64 or neither");
  const int64_t a = checked_mul(g.m, g.k, "a"), b = checked_mul(g.k, g.n, "b"), c = checked_mul(g.m, g.n, "c");
  expect(g.stride_a == 0 || g.stride_a >= a, "stride_a is smaller than one matrix");
  expect(g.stride_b == 0 || g.stride_b >= b, "stride_b is smaller than one matrix");
  expect(g.batch == 1 ? g.stride_c >= 0 : g.stride_c >= c, "stride_c is smaller than one matrix");
  expect(g.batch == 1 || g.stride_a > 0 || g.stride_b > 0, "a batch broadcasts both operands");
  std::vector<MemoryUse> list{{"a", g.a, batch_bytes(g.batch, g.stride_a, a, g.operand, "a"), Access::read},
                              {"b", g.b, batch_bytes(g.batch, g.stride_b, b, g.operand, "b"), Access::read},
                              {"c", g.c, batch_bytes(g.batch, g.stride_c, c, g.result, "c"), Access::write}};
  if (g.bias) list.push_back({"bias", *g.bias, checked_mul(g.n, size_of(g.bias_type), "bias"), Access::read});
  // In place it is only written: nothing else that reads it need be waited for.
  if (g.addend && *g.addend != g.c) list.push_back({"addend", *g.addend, list[2].bytes, Access::read});
  return list;
}

void check_window(const Convolution& c) {
  const size_t rank = c.spatial.size();
  expect(rank >= 1 && rank <= 3, fmt::format("1 to 3 spatial axes expected, found {}", rank));
  for (const Shape* s : {&c.window, &c.out_spatial, &c.strides, &c.pads_begin, &c.pads_end, &c.dilations})
    expect(s->size() == rank, fmt::format("window, strides, pads and dilations need {} axes each", rank));
  for (size_t i = 0; i < rank; ++i) {
    expect(c.spatial[i] > 0 && c.window[i] > 0 && c.out_spatial[i] > 0 && c.strides[i] > 0 && c.dilations[i] > 0 &&
               c.pads_begin[i] >= 0 && c.pads_end[i] >= 0,
           fmt::format("sizes, strides and dilations of axis {} must be positive, pads not negative", i));
    const int64_t reach = checked_add(checked_mul(c.dilations[i], c.window[i] - 1, "window"), 1, "window");
    const int64_t padded = checked_add(checked_add(c.spatial[i], c.pads_begin[i], "pads"), c.pads_end[i], "pads");
    expect(reach <= padded, fmt::format("axis {}: the window reaches over {} of {} padded places", i, reach, padded));
    const int64_t out = (padded - reach) / c.strides[i] + 1;
    expect(out == c.out_spatial[i],
           fmt::format("axis {}: output size {} expected, found {}", i, out, c.out_spatial[i]));
  }
}

Shape activation_shape(int64_t batch, const Shape& spatial, int64_t channels) {
  Shape shape{batch};
  shape.insert(shape.end(), spatial.begin(), spatial.end());
  shape.push_back(channels);
  return shape;
}

std::vector<MemoryUse> operands(const Convolution& c) {
  expect(c.batch > 0 && c.in_channels > 0 && c.out_channels > 0 && c.groups > 0,
         "batch, channels and groups must be positive");
  expect(c.in_channels % c.groups == 0 && c.out_channels % c.groups == 0, "groups must divide both channel counts");
  expect(is_floating(c.operand) && is_floating(c.result) && is_floating(c.bias_type), "types must be floating point");
  expect((c.operand == DType::f64) == (c.result == DType::f64), "operands and result must both be f64 or neither");
  expect(c.kind == ConvolutionKind::forward || (!c.bias && !c.relu), "bias and relu belong to forward only");
  check_window(c);
  const auto use = [&](const char* name, Ref ref, const Shape& shape, ConvolutionKind writer) {
    const bool written = c.kind == writer;
    return MemoryUse{name, ref, bytes_of(shape, written ? c.result : c.operand, name),
                     written ? Access::write : Access::read};
  };
  std::vector<MemoryUse> list{
      use("x", c.x, activation_shape(c.batch, c.spatial, c.in_channels), ConvolutionKind::data_grad),
      use("w", c.w, activation_shape(c.out_channels, c.window, c.in_channels / c.groups), ConvolutionKind::filter_grad),
      use("y", c.y, activation_shape(c.batch, c.out_spatial, c.out_channels), ConvolutionKind::forward)};
  if (c.bias)
    list.push_back({"bias", *c.bias, checked_mul(c.out_channels, size_of(c.bias_type), "bias"), Access::read});
  return list;
}

std::vector<MemoryUse> operands(const Attention& a) {
  expect(
      a.batch > 0 && a.heads > 0 && a.key_heads > 0 && a.queries > 0 && a.keys > 0 && a.depth > 0 && a.value_depth > 0,
      "batch, heads, lengths and depths must be positive");
  expect(a.heads % a.key_heads == 0, "key_heads must divide heads");
  expect(is_low(a.operand), "f16 or bf16 operands expected");
  expect(a.packed() ? a.queries == a.keys && a.depth == a.value_depth : a.k && a.v,
         "k and v, or neither of them and one length and depth, expected");
  const int64_t beside = a.packed() ? checked_mul(2, a.key_heads, "heads") : 0;
  const Shape q{a.batch, a.queries, checked_add(a.heads, beside, "heads"), a.depth},
      k{a.batch, a.keys, a.key_heads, a.depth}, v{a.batch, a.keys, a.key_heads, a.value_depth},
      y{a.batch, a.queries, a.heads, a.value_depth};
  const bool backward = a.kind == AttentionKind::backward;
  const auto use = [&](const char* name, Ref ref, const Shape& shape, Access access) {
    return MemoryUse{name, ref, bytes_of(shape, a.operand, name), access};
  };
  std::vector<MemoryUse> list{use("q", a.q, q, Access::read),
                              use("y", a.y, y, backward ? Access::read : Access::write)};
  if (a.k) list.push_back(use("k", *a.k, k, Access::read));
  if (a.v) list.push_back(use("v", *a.v, v, Access::read));
  list.push_back({"stats", a.stats, bytes_of(Shape{a.batch, a.heads, a.queries}, DType::f32, "stats"),
                  backward ? Access::read : Access::write});
  expect(backward ? a.dy && a.dq && a.dk.has_value() == a.k.has_value() && a.dv.has_value() == a.v.has_value()
                  : !a.dy && !a.dq && !a.dk && !a.dv,
         "dy, dq, dk and dv belong to backward, which needs them");
  expect(backward || !a.deterministic, "deterministic belongs to backward only");
  if (backward) {
    list.push_back(use("dy", *a.dy, y, Access::read));
    list.push_back(use("dq", *a.dq, q, Access::write));
    if (a.dk) list.push_back(use("dk", *a.dk, k, Access::write));
    if (a.dv) list.push_back(use("dv", *a.dv, v, Access::write));
  }
  return list;
}

std::vector<MemoryUse> operands(const Recurrent& r) {
  const RecurrentSizes& s = r.sizes;
  expect(s.steps > 0 && s.batch > 0 && s.inputs > 0 && s.hidden > 0 && s.layers > 0,
         "steps, batch, inputs, hidden and layers must be positive");
  constexpr int64_t kMost = INT32_MAX;  // the library's numbers
  expect(std::ranges::max({s.steps, s.batch, s.inputs, s.hidden, s.layers}) <= kMost, "a size is above 2^31 - 1");
  expect(s.directions == 1 || s.directions == 2, "one or two directions expected");
  expect(is_low(r.operand) || r.operand == DType::f32, "f16, bf16 or f32 operands expected");
  const bool backward = r.kind == RecurrentKind::backward, is_lstm = s.has_c();
  expect(r.reserve ? r.reserve_bytes > 0 : r.reserve_bytes == 0, "reserve and its bytes belong together");
  expect(r.c_last.has_value() == (is_lstm && !backward) && (is_lstm || (!r.c && !r.dc && !r.dc_last)),
         "c, c_last and their gradients belong to an lstm");
  expect(backward ? r.reserve && r.dy && r.dx && r.dweights && !r.h_last
                  : r.h_last && !r.dy && !r.dh_last && !r.dc_last && !r.dx && !r.dweights && !r.dh && !r.dc,
         "gradients belong to backward, which needs dy, dx, dweights and reserve, and h_last to forward");
  expect(!backward || (r.h.has_value() == r.dh.has_value() && r.c.has_value() == r.dc.has_value()),
         "dh belongs to h, and dc to c");
  const Shape x{s.steps, s.batch, s.inputs}, y{s.steps, s.batch, s.directions * s.hidden},
      state{s.layers * s.directions, s.batch, s.hidden}, weights{weight_count(s)};
  std::vector<MemoryUse> list;
  const auto use = [&](const char* name, const std::optional<Ref>& ref, const Shape& shape, Access access) {
    if (ref) list.push_back({name, *ref, bytes_of(shape, r.operand, name), access});
  };
  const Access result = backward ? Access::read : Access::write;
  use("x", r.x, x, Access::read), use("weights", r.weights, weights, Access::read), use("y", r.y, y, result);
  use("h", r.h, state, Access::read), use("c", r.c, state, Access::read);
  use("h_last", r.h_last, state, Access::write), use("c_last", r.c_last, state, Access::write);
  if (r.reserve) list.push_back({"reserve", *r.reserve, r.reserve_bytes, Access::write});
  use("dy", r.dy, y, Access::read), use("dh_last", r.dh_last, state, Access::read);
  use("dc_last", r.dc_last, state, Access::read), use("dx", r.dx, x, Access::write);
  use("dweights", r.dweights, weights, Access::write);
  use("dh", r.dh, state, Access::write), use("dc", r.dc, state, Access::write);
  return list;
}

std::vector<MemoryUse> operands(const Copy& copy) {
  expect(copy.bytes > 0, "bytes must be positive");
  return {{"from", copy.from, copy.bytes, Access::read}, {"to", copy.to, copy.bytes, Access::write}};
}

void check_place(const Program& program, const char* operand, Ref ref, int64_t bytes) {
  expect(ref.buffer >= 0 && static_cast<size_t>(ref.buffer) < program.buffers.size(),
         fmt::format("'{}' names buffer {}, the program has {}", operand, ref.buffer, program.buffers.size()));
  const Buffer& buffer = program.buffers[static_cast<size_t>(ref.buffer)];
  const int64_t size = buffer.type.byte_count();
  expect(ref.offset >= 0 && ref.offset <= size && bytes <= size - ref.offset,
         fmt::format("'{}' needs {} bytes at offset {}, buffer '{}' has {}", operand, bytes, ref.offset,
                     to_string(buffer.name), size));
}

bool overlap(const MemoryUse& a, const MemoryUse& b) {
  return a.ref.buffer == b.ref.buffer && a.ref.offset < b.ref.offset + b.bytes && b.ref.offset < a.ref.offset + a.bytes;
}

template <typename Call>
void check_call(const Program& program, const Call& call) {
  const std::vector<MemoryUse> list = operands(call);
  for (const MemoryUse& o : list) {
    check_place(program, o.name.c_str(), o.ref, o.bytes);
    if constexpr (!std::is_same_v<Call, Copy>)
      expect(o.ref.offset % kLibraryAlignment == 0,
             fmt::format("'{}' at offset {} is not aligned to {} bytes", o.name, o.ref.offset, kLibraryAlignment));
  }
  for (const MemoryUse& o : list) {
    if (o.access == Access::read) continue;
    expect(program.buffers[static_cast<size_t>(o.ref.buffer)].kind != BufferKind::input,
           fmt::format("'{}' writes into an input buffer", o.name));
    for (const MemoryUse& other : list)
      expect(&o == &other || !overlap(o, other), fmt::format("'{}' overlaps '{}'", o.name, other.name));
  }
}

void check_call(const Program& program, const KernelLaunch& launch) {
  expect(!launch.kernel.empty(), "a kernel launch needs a kernel name");
  const size_t count = launch.arguments.size();
  expect(launch.extents.empty() || launch.extents.size() == count, "extents: one for each argument expected");
  for (int64_t w : launch.written)
    expect(w >= 0 && static_cast<size_t>(w) < count, fmt::format("written: there is no argument {}", w));
  for (size_t i = 0; i < count; ++i) {
    const int64_t extent = launch.extents.empty() ? 0 : launch.extents[i];
    expect(extent >= 0, fmt::format("the extent of argument {} is negative", i));
    check_place(program, fmt::format("argument {}", i).c_str(), launch.arguments[i], extent);
  }
  expect(std::ranges::all_of(launch.grid, [](int64_t g) { return g > 0; }) && launch.block > 0 && launch.units > 0 &&
             launch.bytes >= 0 && launch.shared >= 0,
         "grid, block and units must be positive, bytes and shared not negative");
}

std::vector<MemoryUse> uses_of(const Program& program, const KernelLaunch& launch) {
  std::vector<MemoryUse> list;
  for (size_t i = 0; i < launch.arguments.size(); ++i) {
    const Ref at = launch.arguments[i];
    const std::string argument = fmt::format("argument {}", i);
    if (launch.extents.empty()) {
      list.push_back(
          {argument, {at.buffer, 0}, program.buffers[static_cast<size_t>(at.buffer)].type.byte_count(), Access::write});
      continue;
    }
    const bool written = std::ranges::find(launch.written, static_cast<int64_t>(i)) != launch.written.end();
    list.push_back({argument, at, launch.extents[i], written ? Access::write : Access::read});
  }
  return list;
}

template <typename Call>
std::vector<MemoryUse> uses_of(const Program&, const Call& call) {
  return operands(call);
}

void check_buffer(const Buffer& buffer) {
  bytes_of(buffer.type.shape, buffer.type.dtype, "type");
  expect(
      buffer.kind != BufferKind::scratch || (buffer.type.dtype == DType::u8 && buffer.type.shape.size() == 1),
      fmt::format("scratch '{}': type u8[bytes] expected, found {}", to_string(buffer.name), to_string(buffer.type)));
}

// Runs `body` and puts `place` before its Error.
template <typename Body>
void at(const std::function<std::string(size_t)>& place, size_t index, const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", place(index), error.what()));
  }
}

void check_permutation(const ParameterSlice& slice) {
  if (slice.permutation.empty()) return;
  std::vector<int64_t> sorted = slice.permutation, identity(slice.shape.size());
  std::ranges::sort(sorted);
  std::iota(identity.begin(), identity.end(), 0);
  expect(sorted == identity, fmt::format("parameter '{}': [{}] is not a permutation of {} axes", slice.name,
                                         fmt::join(slice.permutation, ","), slice.shape.size()));
}

}  // namespace

std::vector<MemoryUse> memory_uses(const Program& program, const Step& step) {
  return std::visit([&](const auto& call) { return uses_of(program, call); }, step.call);
}

std::string_view name(DeviceKind device) { return device == DeviceKind::cpu ? "cpu" : "cuda"; }

std::string_view name(BufferKind kind) {
  constexpr std::string_view kNames[] = {"input", "output", "state", "scratch"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view name(ConvolutionKind kind) {
  constexpr std::string_view kNames[] = {"forward", "data_grad", "filter_grad"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view name(AttentionKind kind) { return kind == AttentionKind::forward ? "forward" : "backward"; }

std::string_view name(RecurrentKind kind) { return kind == RecurrentKind::forward ? "forward" : "backward"; }

bool is_library(const StepCall& call) {
  return std::holds_alternative<Gemm>(call) || std::holds_alternative<Convolution>(call) ||
         std::holds_alternative<Attention>(call) || std::holds_alternative<Recurrent>(call);
}

void check(const Program& program, const PlaceNames& names) {
  std::set<std::pair<BufferKind, Name>> seen;
  for (size_t i = 0; i < program.buffers.size(); ++i)
    at(names.buffer, i, [&] {
      const Buffer& buffer = program.buffers[i];
      check_buffer(buffer);
      expect(seen.emplace(buffer.kind, buffer.name).second,
             fmt::format("{} '{}' appears twice", name(buffer.kind), to_string(buffer.name)));
    });
  for (size_t i = 0; i < program.steps.size(); ++i)
    at(names.step, i, [&] { std::visit([&](const auto& call) { check_call(program, call); }, program.steps[i].call); });
}

void check(const Program& program) {
  check(program,
        {[&](size_t i) {
           return fmt::format("program '{}', buffer {} ('{}')", program.name, i, to_string(program.buffers[i].name));
         },
         [&](size_t i) {
           const Step& step = program.steps[i];
           return fmt::format("program '{}', step {} ({}, '{}')", program.name, i, describe(step), step.origin);
         }});
}

void check(const CompiledModel& model) {
  expect(model.cubins.empty() || (model.device == DeviceKind::cuda && !model.kernels.empty()),
         "machine code for GPUs beside no PTX");
  for (const auto& [architecture, code] : model.cubins) parse_gpu_architecture(architecture);
  std::map<Name, const TensorType*> states;
  std::set<std::string_view> names;
  for (const Program& program : model.programs) {
    check(program);
    expect(names.insert(program.name).second, fmt::format("program '{}' appears twice", program.name));
    for (const Buffer& buffer : program.buffers) {
      if (buffer.kind == BufferKind::input && buffer.name == kStepLearningRate && !model.notes.rates.empty())
        expect(buffer.type.element_count() == std::ssize(model.notes.rates),
               fmt::format("program '{}' takes {} learning rates, the notes have {}", program.name,
                           buffer.type.element_count(), model.notes.rates.size()));
      if (buffer.kind != BufferKind::state) continue;
      const auto [known, added] = states.emplace(buffer.name, &buffer.type);
      expect(added || *known->second == buffer.type,
             fmt::format("state '{}' is {} in one program and {} in program '{}'", to_string(buffer.name),
                         to_string(*known->second), to_string(buffer.type), program.name));
    }
  }
  for (const auto& [state_name, tensor] : model.state) {
    const auto known = states.find(state_name);
    expect(known == states.end() || *known->second == tensor.type,
           fmt::format("state '{}': initial value of type {} expected, found {}", to_string(state_name),
                       to_string(known == states.end() ? tensor.type : *known->second), to_string(tensor.type)));
  }
  int64_t arena_size = 0;
  for (const ParameterSlice& slice : model.parameters) {
    const std::string place = fmt::format("parameter '{}'", slice.name);
    check_permutation(slice);
    expect(slice.offset >= 0, place + ": negative offset");
    arena_size = std::max(arena_size, checked_add(slice.offset, checked_element_count(slice.shape, place), place));
  }
  for (const Name& arena : model.arenas) {
    const auto known = states.find(arena);
    expect(known != states.end(), fmt::format("arena '{}' is no state of any program", to_string(arena)));
    expect(known->second->element_count() >= arena_size,
           fmt::format("arena '{}': at least {} elements expected, found {}", to_string(arena), arena_size,
                       known->second->element_count()));
  }
  for (const auto& [copy, type] : states)
    if (const std::optional<Name> base = base_of_low_copy(model, copy)) {
      const TensorType& arena = *states.at(*base);
      expect(type->shape == arena.shape,
             fmt::format("state '{}' repeats '{}': shape {} expected, found {}", to_string(copy), to_string(*base),
                         to_string(arena.shape), to_string(type->shape)));
    }
}

std::string describe(const Step& step) {
  struct Describe {
    std::string operator()(const KernelLaunch& launch) const { return "kernel " + launch.kernel; }
    std::string operator()(const Gemm& g) const {
      return fmt::format("gemm {}{}x{}x{}", g.batch == 1 ? "" : fmt::format("{}x", g.batch), g.m, g.n, g.k);
    }
    std::string operator()(const Convolution& c) const {
      return fmt::format("convolution {} {} {}->{}", name(c.kind), fmt::join(c.window, "x"), c.in_channels,
                         c.out_channels);
    }
    std::string operator()(const Attention& a) const {
      return fmt::format("attention {} {}x{}x{}x{}", name(a.kind), a.batch * a.heads, a.queries, a.keys, a.depth);
    }
    std::string operator()(const Recurrent& r) const {
      const RecurrentSizes& s = r.sizes;
      return fmt::format("recurrent {} {} {}x{}x{}->{}x{}x{}", name(r.kind), name(s.cell), s.steps, s.batch, s.inputs,
                         s.layers, s.directions, s.hidden);
    }
    std::string operator()(const Copy&) const { return "copy"; }
  };
  return std::visit(Describe{}, step.call);
}

CallCost cost(const Step& step) {
  struct Cost {
    CallCost operator()(const KernelLaunch& launch) const { return {0, launch.bytes}; }
    CallCost operator()(const Gemm& g) const {
      const std::vector<MemoryUse> list = operands(g);
      return {2.0 * g.batch * g.m * g.n * g.k, total(list) + (g.addend == g.c ? list[2].bytes : 0)};
    }
    CallCost operator()(const Convolution& c) const {
      const int64_t channels = c.in_channels / c.groups;  // it divides them
      double multiplications = static_cast<double>(c.batch) * c.out_channels * static_cast<double>(channels);
      for (size_t i = 0; i < c.window.size(); ++i)
        multiplications *= static_cast<double>(c.window[i]) * static_cast<double>(c.out_spatial[i]);
      return {2 * multiplications, total(operands(c))};
    }
    // Two products forward and five backward; half of them under a causal mask.
    CallCost operator()(const Attention& a) const {
      const double scores = static_cast<double>(a.batch * a.heads) * static_cast<double>(a.queries) *
                            static_cast<double>(a.keys) * (a.causal ? 0.5 : 1);
      const bool forward = a.kind == AttentionKind::forward;
      const double depths = static_cast<double>(forward ? a.depth + a.value_depth : 3 * a.depth + 2 * a.value_depth);
      return {2 * scores * depths, total(operands(a))};
    }
    // A product with each weight in each step, and two in the backward; biases are not worth a term.
    CallCost operator()(const Recurrent& r) const {
      const double products = static_cast<double>(weight_count(r.sizes)) * static_cast<double>(r.sizes.steps) *
                              static_cast<double>(r.sizes.batch);
      return {(r.kind == RecurrentKind::forward ? 2 : 4) * products, total(operands(r))};
    }
    CallCost operator()(const Copy& copy) const { return {0, total(operands(copy))}; }
    static int64_t total(const std::vector<MemoryUse>& list) {
      return std::accumulate(list.begin(), list.end(), int64_t{0},
                             [](int64_t sum, const MemoryUse& o) { return sum + o.bytes; });
    }
  };
  return std::visit(Cost{}, step.call);
}

const Program* CompiledModel::find(std::string_view program_name) const {
  const auto found = std::ranges::find(programs, program_name, &Program::name);
  return found == programs.end() ? nullptr : &*found;
}

}  // namespace halfstep
