#include "runtime/cpu/dnnl_call.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/checked.h"
#include "base/error.h"
#include "runtime/cpu/convert.h"

namespace halfstep {
namespace {

constexpr int64_t kAlignment = 64;
// Elements a thread converts at least, and elements that stay in its cache between two passes over them.
constexpr int64_t kGrain = 16 << 10, kBlock = 4 << 10;

// Whether these differ in that channels last become blocks of 16, which oneDNN's reorder does at half the memory's rate
// and only after a conversion.
bool only_blocks_channels(const StoredRows& stored, const dnnl::memory::desc& plain, const dnnl::memory::desc& wanted) {
  using dnnl::memory;
  const memory::dims dims = plain.dims();
  return stored.rows == 1 && dims.size() == 4 && plain.data_type() == memory::data_type::f32 &&
         dims[1] % kChannelBlock == 0 && plain == memory::desc(dims, plain.data_type(), memory::format_tag::nhwc) &&
         wanted == memory::desc(dims, plain.data_type(), memory::format_tag::nChw16c);
}

// body(image, part) over all images of [batch, channels, height, width].
template <typename Body>
void for_each_part(const ThreadTeam& team, const dnnl::memory::dims& dims, const Body& body) {
  const int64_t pixels = dims[2] * dims[3];
  team.run(dims[0] * pixels, ceil_div(kGrain, dims[1]), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {
      const int64_t image = at / pixels, first = at % pixels, count = std::min(end - at, pixels - first);
      body(image, PixelRange{pixels, dims[1], first, count});
      at += count;
    }
  });
}

int64_t bytes_of(const dnnl::memory::desc& description) { return static_cast<int64_t>(description.get_size()); }

// body(offset in memory, offset in the dense copy, count), in elements, over all rows.
template <typename Body>
void for_each_run(const ThreadTeam& team, const StoredRows& stored, const Body& body) {
  if (stored.rows == 1)
    return team.run(stored.row, kGrain, [&](int64_t begin, int64_t end) { body(begin, begin, end - begin); });
  team.run(stored.rows, ceil_div(kGrain, stored.row), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i * stored.stride, i * stored.row, stored.row);
  });
}

}  // namespace

dnnl::memory::data_type dnnl_type(DType type) {
  require(type == DType::bf16 || type == DType::f32, "primitives compute in bf16 or f32");
  return type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

std::vector<ComputeTypes> compute_types(const DnnlContext& context, DType operand, DType result, DType bias) {
  std::vector<ComputeTypes> types;
  if (operand == DType::bf16 && context.bf16 == Bf16Products::faster)
    types.push_back({DType::bf16, result == DType::bf16 ? DType::bf16 : DType::f32,
                     bias == DType::bf16 ? DType::bf16 : DType::f32});
  types.push_back({});
  return types;
}

bool is_fast(const dnnl::primitive_desc_base& description) {
  return !std::string_view(description.impl_info_str()).starts_with("ref");
}

int64_t DnnlCall::reserve(int64_t bytes) {
  const int64_t at = workspace_bytes_;
  workspace_bytes_ += round_up(bytes, kAlignment);
  return at;
}

DnnlCall::Operand DnnlCall::operand(int argument, const StoredRows& stored, const dnnl::memory::desc& plain,
                                    const dnnl::memory::desc& wanted) {
  const DType type = plain.data_type() == dnnl::memory::data_type::bf16 ? DType::bf16 : DType::f32;
  Operand operand{argument, stored, type, plain, wanted, {}, {}, only_blocks_channels(stored, plain, wanted),
                  false,    {},     {},   {}};
  if (stored.type != type && !operand.blocked) operand.widened_at = reserve(bytes_of(plain));
  if (plain != wanted) operand.reordered_at = reserve(bytes_of(wanted));
  return operand;
}

void DnnlCall::add_source(int argument, const StoredRows& stored, const dnnl::memory::desc& plain,
                          const dnnl::memory::desc& wanted) {
  sources_.push_back(operand(argument, stored, plain, wanted));
}

void DnnlCall::set_result(int argument, const StoredRows& stored, const dnnl::memory::desc& plain,
                          const dnnl::memory::desc& wanted, std::byte* addend, Activation activation) {
  require(addend == nullptr || plain == wanted, "a result that is added to is not reordered");
  result_ = operand(argument, stored, plain, wanted);
  addend_ = addend;
  activation_ = activation;
}

void DnnlCall::set_primitive(const dnnl::primitive& primitive, const dnnl::memory::desc& scratchpad) {
  primitive_ = primitive;
  scratchpad_ = scratchpad;
  scratchpad_at_ = reserve(bytes_of(scratchpad));
}

void DnnlCall::set_product(const Gemm& sizes) { product_ = sizes; }

void DnnlCall::set_pieces(int64_t pieces, std::initializer_list<int> arguments) {
  require(addend_ == nullptr, "a result that is added to is computed at once");
  pieces_ = pieces;
  result_.in_pieces = true;
  for (Operand& source : sources_) source.in_pieces = std::ranges::find(arguments, source.argument) != arguments.end();
}

void DnnlCall::bind(Operand& operand, std::byte* workspace) {
  std::byte* const plain = operand.widened_at ? workspace + *operand.widened_at : operand.stored.data;
  operand.plain_memory = dnnl::memory(operand.plain, context_.engine, plain);
  operand.wanted_memory = operand.plain_memory;
  if (operand.reordered_at)
    operand.wanted_memory = dnnl::memory(operand.wanted, context_.engine, workspace + *operand.reordered_at);
  arguments_.emplace(operand.argument, operand.wanted_memory);
}

void DnnlCall::bind(std::byte* workspace) {
  for (Operand& source : sources_) {
    bind(source, workspace);
    if (source.reordered_at && !source.blocked)
      source.reorder = dnnl::reorder(source.plain_memory, source.wanted_memory);
  }
  bind(result_, workspace);
  if (result_.reordered_at && !result_.blocked)
    result_.reorder = dnnl::reorder(result_.wanted_memory, result_.plain_memory);
  if (!product_)
    arguments_.emplace(DNNL_ARG_SCRATCHPAD, dnnl::memory(scratchpad_, context_.engine, workspace + scratchpad_at_));
}

// Points the primitive to the piece where it reads or writes what is stored.
StoredRows DnnlCall::piece_of(Operand& operand, int64_t piece) const {
  StoredRows stored = operand.stored;
  if (pieces_ == 1 || !operand.in_pieces) return stored;
  stored.data += piece * stored.row * size_of(stored.type);
  if (!operand.widened_at && !operand.blocked) operand.plain_memory.set_data_handle(stored.data);
  return stored;
}

void DnnlCall::load(Operand& operand, int64_t piece) {
  const StoredRows stored = piece_of(operand, piece);
  if (operand.blocked) {
    float* const blocks = static_cast<float*>(operand.wanted_memory.get_data_handle());
    return for_each_part(context_.team, operand.plain.dims(), [&](int64_t image, const PixelRange& part) {
      const int64_t at = image * part.pixels * part.channels;
      block_channels(stored.type, stored.data + at * size_of(stored.type), blocks + at, part);
    });
  }
  if (operand.widened_at) {
    float* const dense = static_cast<float*>(operand.plain_memory.get_data_handle());
    for_each_run(context_.team, stored, [&](int64_t at, int64_t dense_at, int64_t count) {
      widen(stored.type, stored.data + at * size_of(stored.type), dense + dense_at, count);
    });
  }
  if (operand.reordered_at) operand.reorder.execute(context_.stream, operand.plain_memory, operand.wanted_memory);
}

// Into the memory that the primitive adds to.
void DnnlCall::load_addend() {
  const StoredRows& stored = result_.stored;
  const int64_t size = size_of(stored.type);
  float* const dense = result_.widened_at ? static_cast<float*>(result_.plain_memory.get_data_handle()) : nullptr;
  if (!dense && addend_ == stored.data) return;
  for_each_run(context_.team, stored, [&](int64_t at, int64_t dense_at, int64_t count) {
    if (dense)
      widen(stored.type, addend_ + at * size, dense + dense_at, count);
    else
      std::memcpy(stored.data + at * size, addend_ + at * size, static_cast<size_t>(count * size));
  });
}

void DnnlCall::store_blocks(const StoredRows& stored) {
  float* const blocks = static_cast<float*>(result_.wanted_memory.get_data_handle());
  if (activation_ == Activation::relu)
    context_.team.run(stored.row, kGrain, [&](int64_t begin, int64_t end) {
      relu(DType::f32, reinterpret_cast<std::byte*>(blocks + begin), end - begin);
    });
  for_each_part(context_.team, result_.plain.dims(), [&](int64_t image, const PixelRange& part) {
    const int64_t at = image * part.pixels * part.channels;
    unblock_channels(blocks + at, stored.type, stored.data + at * size_of(stored.type), part);
  });
}

void DnnlCall::store_result(const StoredRows& stored) {
  if (result_.blocked) return store_blocks(stored);
  if (result_.reordered_at) result_.reorder.execute(context_.stream, result_.wanted_memory, result_.plain_memory);
  // Not a oneDNN epilogue: its relu turns NaN into 0, which would hide an overflow.
  const bool activates = activation_ == Activation::relu;
  if (result_.widened_at) {
    float* const dense = static_cast<float*>(result_.plain_memory.get_data_handle());
    for_each_run(context_.team, stored, [&](int64_t at, int64_t dense_at, int64_t count) {
      for (int64_t done = 0; done < count; done += kBlock) {
        const int64_t block = std::min(kBlock, count - done);
        float* const values = dense + dense_at + done;
        if (activates) relu(DType::f32, reinterpret_cast<std::byte*>(values), block);
        narrow(stored.type, values, stored.data + (at + done) * size_of(stored.type), block);
      }
    });
  } else if (activates) {
    for_each_run(context_.team, stored, [&](int64_t at, int64_t, int64_t count) {
      relu(stored.type, stored.data + at * size_of(stored.type), count);
    });
  }
}

void DnnlCall::multiply() {
  const Gemm& g = *product_;
  const auto* const a = static_cast<const float*>(sources_[0].wanted_memory.get_data_handle());
  const auto* const b = static_cast<const float*>(sources_[1].wanted_memory.get_data_handle());
  const dnnl::status status =
      dnnl::sgemm(g.transpose_a ? 'T' : 'N', g.transpose_b ? 'T' : 'N', g.m, g.n, g.k, 1, a, g.transpose_a ? g.m : g.k,
                  b, g.transpose_b ? g.k : g.n, addend_ != nullptr ? 1 : 0,
                  static_cast<float*>(result_.wanted_memory.get_data_handle()), g.n);
  require(status == dnnl::status::success, "oneDNN multiplies dense f32 matrices");
}

void DnnlCall::run() {
  for (Operand& source : sources_)
    if (!source.in_pieces) load(source, 0);
  if (addend_ != nullptr) load_addend();
  for (int64_t piece = 0; piece < pieces_; ++piece) {
    for (Operand& source : sources_)
      if (source.in_pieces) load(source, piece);
    const StoredRows stored = piece_of(result_, piece);
    if (product_)
      multiply();
    else
      primitive_.execute(context_.stream, arguments_);
    store_result(stored);
  }
  context_.stream.wait();
}

}  // namespace halfstep
