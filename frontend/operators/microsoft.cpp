// The fused operators of the domain com.microsoft, as ONNX Runtime's optimizer writes them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/checked.h"
#include "frontend/import/operators.h"
#include "frontend/operators/activations.h"
#include "frontend/operators/attention_mask.h"
#include "frontend/operators/matrix_product.h"

namespace halfstep {
namespace {

// ---- activations ----

Value biased(NodeContext& c) { return c.has_operand(1) ? c.b.add(c.operand(0), c.operand(1)) : c.operand(0); }

std::vector<Value> import_gelu(NodeContext& c) { return {c.b.unary("gelu", biased(c))}; }
std::vector<Value> import_fast_gelu(NodeContext& c) { return {c.b.unary("gelu_tanh", biased(c))}; }

std::vector<Value> import_quick_gelu(NodeContext& c) { return {swish(c, 1.702)}; }

// ---- products ----

// transBatch: the rows of a matrix stand before the batch, [m, batch..., k].
std::vector<Value> import_fused_matmul(NodeContext& c) {
  const auto operand = [&](size_t i, const char* transposes, const char* batch_last) {
    const Value v = c.operand(i);
    const size_t rank = c.b.shape(v).size();
    if (rank == 0) c.fail("a scalar operand has no matrix product");
    Ints permutation;
    for (size_t k = 0; k < rank; ++k) permutation.push_back(static_cast<int64_t>(k));
    const bool moved = c.integer(batch_last, 0) != 0, swapped = c.integer(transposes, 0) != 0;
    if (moved && rank > 2) std::rotate(permutation.begin(), permutation.begin() + 1, permutation.end() - 1);
    if (swapped && rank > 1) std::swap(permutation[rank - 1], permutation[rank - 2]);
    return permute(c.b, v, permutation);
  };
  const double alpha = c.number("alpha", 1);
  const Value product = matrix_product(c, operand(0, "transA", "transBatchA"), operand(1, "transB", "transBatchB"));
  return {alpha == 1 ? product : c.b.mul(product, alpha)};
}

std::vector<Value> import_fused_conv(NodeContext& c) {
  Value y = convolution(c);
  if (c.has_operand(3)) y = c.b.add(y, c.operand(3));
  const std::string name = c.text("activation", "");
  const std::vector<double> coefficients = c.number_list("activation_params");
  return {name.empty() ? y : activate(c.b, y, activation_named(c, name, coefficients))};
}

std::vector<Value> import_fused_gemm(NodeContext& c) {
  const Value y = general_product(c);
  const std::string name = c.text("activation", "");
  std::vector<double> coefficients;
  for (const char* coefficient : {"activation_alpha", "activation_beta", "activation_gamma"})
    if (c.has_attribute(coefficient)) coefficients.push_back(c.number(coefficient, 0));
  return {name.empty() ? y : activate(c.b, y, activation_named(c, name, coefficients))};
}

// ---- norms of sums ----

// scale and bias name the operands, 0 standing for none.
std::vector<Value> norm_of(NodeContext& c, std::string_view norm, Value x, std::vector<size_t> affine, double epsilon) {
  std::vector<Value> operands{x};
  double fresh = 1;
  for (size_t i : affine) {
    if (c.has_operand(i)) c.initialise(c.operand(i), {Initializer::constant, fresh});
    operands.push_back(c.optional_operand(i));
    fresh = 0;
  }
  return c.b.call_all(op(norm), operands,
                      {{"axis", static_cast<int64_t>(c.b.shape(x).size()) - 1}, {"epsilon", epsilon}});
}

Value sum_of(NodeContext& c, size_t bias) {
  const Value sum = c.b.add(c.operand(0), c.operand(1));
  return c.has_operand(bias) ? c.b.add(sum, c.operand(bias)) : sum;
}

std::vector<Value> import_skip_layer_norm(NodeContext& c) {
  const Value sum = sum_of(c, 4);
  std::vector<Value> results = norm_of(c, "layer_norm", sum, {2, 3}, c.number("epsilon", 1e-12));
  results.push_back(sum);
  return results;
}

std::vector<Value> import_skip_rms_norm(NodeContext& c) {
  const Value sum = sum_of(c, 3);
  const std::vector<Value> r = norm_of(c, "rms_norm", sum, {2}, c.number("epsilon", 1e-12));
  return {r[0], Value{}, r[1], sum};
}

// ids [batch, length] as rows of a table, which becomes a parameter of unit variance.
Value embedding(NodeContext& c, size_t table, Value ids) {
  c.initialise(c.operand(table), {Initializer::normal, 1, Initializer::table});
  return c.b.call("gather", {c.operand(table), ids}, {{"axis", int64_t{0}}});
}

std::vector<Value> import_embed_layer_norm(NodeContext& c) {
  Builder& b = c.b;
  c.ignore({"mask_index_type"});
  const Shape ids = c.shape(0);
  if (ids.size() != 2) c.fail("ids [batch, length] expected, found " + to_string(ids));
  Value sum = embedding(c, 2, c.operand(0));
  if (c.has_operand(8)) {
    sum = b.add(sum, embedding(c, 3, c.operand(8)));
  } else {
    const Shape table = c.shape(3);
    if (table.size() != 2 || table[0] < ids[1])
      c.fail("a position for each of " + std::to_string(ids[1]) + " tokens expected, found " + to_string(table));
    c.initialise(c.operand(3), {Initializer::normal, 1, Initializer::table});
    sum = b.add(sum, b.slice(c.operand(3), {0, 0}, {ids[1], table[1]}));
  }
  if (c.has_operand(1) && c.has_operand(4)) sum = b.add(sum, embedding(c, 4, c.operand(1)));
  const Value y = norm_of(c, "layer_norm", sum, {5, 6}, c.number("epsilon", 1e-12))[0];
  Value lengths = b.broadcast(b.constant(DType::i32, 0), {ids[0]});
  if (c.has_operand(7)) lengths = b.reshape(b.reduce("reduce_sum", b.cast(c.operand(7), DType::i32), {1}), {ids[0]});
  return {y, lengths, sum};
}

// ---- attention ----

// A mask of ones and zeros [batch, keys], [batch, queries, keys] or [batch, 1, queries, keys], or the number of keys of
// each sample [batch].
void add_padding(NodeContext& c, size_t operand, AttentionMask& mask) {
  if (!c.has_operand(operand)) return;
  Builder& b = c.b;
  const double hidden = c.number("mask_filter_value", -10000);
  Shape shape = c.shape(operand);
  const Value given = c.operand(operand);
  if (shape.empty() || shape.size() > 4)
    c.fail("a mask [batch, keys] or [batch, queries, keys] expected, found " + to_string(shape));
  Value seen;
  if (shape.size() == 1) {
    seen = mask.among_first(b.cast(given, DType::i64));
  } else {
    while (shape.size() < 4) shape.insert(shape.begin() + 1, 1);
    seen = b.cast(b.reshape(given, shape), DType::boolean);
  }
  mask.add(b.select(seen, b.constant(DType::f32, 0), b.constant(DType::f32, hidden)));
}

void refuse_operands(NodeContext& c, std::initializer_list<std::pair<size_t, const char*>> operands) {
  for (const auto& [i, what] : operands)
    if (c.has_operand(i)) c.fail(std::string("operand '") + what + "' is not supported");
}

// y [batch, heads, queries, depth] merged, with keys and values as they come.
std::vector<Value> attend(NodeContext& c, Value q, Value k, Value v, const AttentionMask& seen, bool causal,
                          double softcap = 0) {
  const double scale = c.number("scale", 0);
  std::vector<Value> operands{q, k, v};
  if (const Value mask = seen.value()) operands.push_back(mask);
  const double depth = static_cast<double>(c.b.shape(q)[3]);
  const Value y = c.b.call(
      "attention", operands,
      {{"scale", scale != 0 ? scale : 1 / std::sqrt(depth)}, {"causal", int64_t{causal}}, {"softcap", softcap}});
  return {merge_heads(c.b, y), k, v};
}

// Of [..., width].
int64_t width_of(NodeContext& c, Value x) {
  if (c.b.shape(x).empty()) c.fail("a tensor with columns expected, found " + to_string(c.b.type(x)));
  return c.b.shape(x).back();
}

// More than this is no number of heads.
int64_t heads_of(NodeContext& c, const std::string& name) {
  const int64_t heads = c.integer(name);
  constexpr int64_t kMostHeads = 1 << 20;
  if (heads < 1 || heads > kMostHeads) c.fail("attribute '" + name + "' is " + std::to_string(heads));
  return heads;
}

// x [..., width], with 0 <= from <= to <= width.
Value columns(Builder& b, Value x, int64_t from, int64_t to) {
  Shape starts(b.shape(x).size(), 0), limits = b.shape(x);
  starts.back() = from, limits.back() = to;
  return b.slice(x, starts, limits);
}

// One product gives q, k and v.
std::vector<Value> import_attention(NodeContext& c) {
  Builder& b = c.b;
  c.ignore({"mask_filter_value", "past_present_share_buffer"});
  refuse_operands(c, {{4, "past"}, {6, "past_sequence_length"}});
  if (c.integer("do_rotary", 0) != 0) c.fail("do_rotary=1 is not supported");
  const int64_t heads = heads_of(c, "num_heads");
  Value qkv = matrix_product(c, c.operand(0), c.operand(1));
  if (c.has_operand(2)) qkv = b.add(qkv, c.operand(2));
  const Shape shape = b.shape(qkv);
  if (shape.size() != 3) c.fail("[batch, length, depth] expected, found " + to_string(c.shape(0)));
  const Ints sizes = c.int_list("qkv_hidden_sizes", Ints(3, shape[2] / 3));
  if (sizes.size() != 3 || sizes[0] < 0 || sizes[1] < 0 || sizes[2] < 0 ||
      checked_add(sizes[0], checked_add(sizes[1], sizes[2], "sizes"), "sizes") != shape[2])
    c.fail("qkv_hidden_sizes " + to_string(sizes) + " do not make up " + std::to_string(shape[2]));
  const Value q = split_heads(c, columns(b, qkv, 0, sizes[0]), heads),
              k = split_heads(c, columns(b, qkv, sizes[0], sizes[0] + sizes[1]), heads),
              v = split_heads(c, columns(b, qkv, sizes[0] + sizes[1], shape[2]), heads);
  AttentionMask seen(b, shape[1], shape[1]);
  add_padding(c, 3, seen);
  if (c.has_operand(5)) seen.add(c.operand(5));
  return {attend(c, q, k, v, seen, c.integer("unidirectional", 0) != 0)[0]};
}

// Query, key and value [batch, length, heads * depth]; key and value may be split into heads already.
std::vector<Value> import_multi_head_attention(NodeContext& c) {
  Builder& b = c.b;
  c.ignore({"mask_filter_value"});
  refuse_operands(c, {{6, "past_key"}, {7, "past_value"}, {8, "past_sequence_length"}, {9, "cache_indirection"}});
  if (!c.has_operand(1) || !c.has_operand(2)) c.fail("packed queries, keys and values are not supported");
  const int64_t heads = heads_of(c, "num_heads");
  int64_t bias_at = 0;
  const auto part = [&](size_t i) {
    Value x = c.operand(i);
    const bool split = b.shape(x).size() == 4;
    if (c.has_operand(3)) {
      if (split) c.fail("a bias beside keys that are split into heads is not supported");
      const int64_t width = width_of(c, x);
      width_of(c, c.operand(3));
      x = b.add(x, columns(b, c.operand(3), bias_at, bias_at + width));
      bias_at += width;
    }
    return split ? x : split_heads(c, x, heads);
  };
  const Value q = part(0), k = part(1), v = part(2);
  AttentionMask seen(b, b.shape(q)[2], b.shape(k)[2]);
  add_padding(c, 4, seen);
  if (c.has_operand(5)) seen.add(c.operand(5));
  return attend(c, q, k, v, seen, c.integer("unidirectional", 0) != 0);
}

// Causal. Without a cache nothing follows from seqlens_k: what lies behind a sample's end, only that can see.
std::vector<Value> import_group_query_attention(NodeContext& c) {
  Builder& b = c.b;
  c.ignore({"kv_num_heads", "do_rotary", "rotary_interleaved", "local_window_size"});
  refuse_operands(c, {{11, "head_sink"}});
  for (const char* name : {"smooth_softmax", "qk_output", "k_quant_type", "v_quant_type", "kv_cache_bit_width"})
    if (c.has_attribute(name) && c.integer(name, 0) > 0)
      c.fail(std::string("attribute '") + name + "' is not supported");
  for (size_t i : {3u, 4u})
    if (c.has_operand(i) && (c.shape(i).size() != 4 || c.shape(i)[2] != 0))
      c.fail("a cache of past keys and values is not supported");
  const int64_t heads = heads_of(c, "num_heads"), key_heads = heads_of(c, "kv_num_heads");
  Value q = c.operand(0), k = c.optional_operand(1), v = c.optional_operand(2);
  if (!k) {  // packed
    const int64_t width = width_of(c, q), depth = width / (heads + 2 * key_heads);
    if (depth * (heads + 2 * key_heads) != width)
      c.fail(std::to_string(width) + " columns do not split into " + std::to_string(heads) + " and twice " +
             std::to_string(key_heads) + " heads");
    const Value packed = q;
    q = columns(b, packed, 0, heads * depth);
    k = columns(b, packed, heads * depth, (heads + key_heads) * depth);
    v = columns(b, packed, (heads + key_heads) * depth, width);
  }
  q = split_heads(c, q, heads), k = split_heads(c, k, key_heads), v = split_heads(c, v, key_heads);
  const int64_t length = b.shape(q)[2], depth = b.shape(q)[3];
  if (b.shape(k)[2] != length) c.fail("as many keys as queries expected where there is no cache");
  if (c.integer("do_rotary", 0) != 0) {
    const Value positions = c.has_operand(9) ? b.cast(c.operand(9), DType::i64)
                                             : b.call("iota", {}, {{"shape", Shape{1, length}}, {"axis", int64_t{1}}});
    width_of(c, c.operand(8));
    const Rotation rotation{rotation_rows(b, c.operand(7), positions), rotation_rows(b, c.operand(8), positions),
                            width_of(c, c.operand(7)) * 2,
                            c.integer("rotary_interleaved", 0) != 0 ? Rotation::interleaved : Rotation::halves};
    if (rotation.dimensions > depth)
      c.fail("heads of " + std::to_string(depth) + " elements have no " + std::to_string(c.shape(7).back()) +
             " angles");
    q = rotate(b, q, rotation), k = rotate(b, k, rotation);
  }
  AttentionMask seen(b, length, length);
  if (const int64_t window = c.integer("local_window_size", -1); window > 0)
    seen.see_window(b.constant(DType::i64, 0), 1 - window, std::nullopt);
  if (c.has_operand(10)) seen.add(c.operand(10));
  return attend(c, q, k, v, seen, true, c.number("softcap", 0));
}

// Positions [batch, length], or [1], the first one's.
std::vector<Value> import_rotary_embedding(NodeContext& c) {
  Builder& b = c.b;
  if (c.integer("is_packed_batching", 0) != 0) c.fail("is_packed_batching=1 is not supported");
  if (c.number("scale", 1) != 1) c.fail("scale is not supported");
  const bool merged = c.shape(0).size() == 3;
  if (c.shape(0).size() < 3 || c.shape(0).size() > 4 || c.shape(2).size() != 2)
    c.fail(
        "[batch, length, depth] or [batch, heads, length, depth] and cos_cache [positions, angles] expected, found " +
        to_string(c.shape(0)) + " and " + to_string(c.shape(2)));
  const int64_t some = c.integer("rotary_embedding_dim", 0), angles = c.shape(2).back();
  int64_t heads = c.integer("num_heads", 0);
  if (merged && heads == 0) heads = c.shape(0)[2] / std::max<int64_t>(1, 2 * angles);
  const Value x = merged ? split_heads(c, c.operand(0), heads) : c.operand(0);
  const Shape shape = b.shape(x);
  const int64_t dimensions = some > 0 ? some : shape.back();
  if (shape.size() != 4 || 2 * angles != dimensions || dimensions > shape[3])
    c.fail("[batch, heads, length, depth] of at least " + std::to_string(2 * angles) + " elements expected, found " +
           to_string(shape));
  Value positions = b.cast(c.operand(1), DType::i64);
  if (b.shape(positions).size() < 2)
    positions =
        b.add(b.call("iota", {}, {{"shape", Shape{1, shape[2]}}, {"axis", int64_t{1}}}), b.reshape(positions, {1, 1}));
  const Value y = rotate(b, x,
                         {rotation_rows(b, c.operand(2), positions), rotation_rows(b, c.operand(3), positions),
                          dimensions, c.integer("interleaved", 0) != 0 ? Rotation::interleaved : Rotation::halves});
  return {merged ? merge_heads(b, y) : y};
}

const std::vector<OnnxOperator> kRows{
    {"com.microsoft.Attention", {1}, 2, 7, import_attention, "no past, no rotation"},
    {"com.microsoft.BiasGelu", {1}, 2, 2, import_gelu},
    {"com.microsoft.EmbedLayerNormalization", {1}, 7, 9, import_embed_layer_norm},
    {"com.microsoft.FastGelu", {1}, 1, 2, import_fast_gelu},
    {"com.microsoft.FusedConv", {1}, 2, 4, import_fused_conv, "1 to 3 spatial axes"},
    {"com.microsoft.FusedGemm", {1}, 2, 3, import_fused_gemm},
    {"com.microsoft.FusedMatMul", {1}, 2, 2, import_fused_matmul},
    {"com.microsoft.Gelu", {1}, 1, 1, import_gelu},
    {"com.microsoft.GroupQueryAttention", {1}, 7, 12, import_group_query_attention, "no cache, no head sink"},
    {"com.microsoft.MultiHeadAttention", {1}, 1, 10, import_multi_head_attention, "not packed, no past"},
    {"com.microsoft.QuickGelu", {1}, 1, 1, import_quick_gelu},
    {"com.microsoft.RotaryEmbedding", {1}, 4, 4, import_rotary_embedding, "not packed"},
    {"com.microsoft.SkipLayerNormalization", {1}, 3, 5, import_skip_layer_norm},
    {"com.microsoft.SkipSimplifiedLayerNormalization", {1}, 3, 4, import_skip_rms_norm},
};

}  // namespace

std::span<const OnnxOperator> microsoft_operators() { return kRows; }

}  // namespace halfstep
