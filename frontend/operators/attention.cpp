// Attention and RotaryEmbedding as ONNX has them.
#include <cmath>
#include <limits>

#include "frontend/import/operators.h"
#include "frontend/operators/attention_mask.h"

namespace halfstep {
namespace {

enum Operand : size_t { kQ, kK, kV, kMask, kPastKey, kPastValue, kLengths };

// The sizes that several operands share, which an exporter writes into a mask.
void align_operands(NodeContext& c) {
  if (c.has_operand(kPastKey) || !c.has_operand(kMask)) return;
  const size_t length = c.shape(kQ).size() - 2, mask = c.shape(kMask).size();
  const auto mask_axis = [&](size_t from_end) {
    return from_end <= mask ? std::optional(mask - from_end) : std::nullopt;
  };
  const size_t key_length = c.shape(kQ).size() == 4 ? 2 : 1;
  const auto align = [&](std::vector<std::optional<size_t>> axes) {
    axes.resize(c.operand_count());
    c.align(axes);
  };
  align({length, std::nullopt, std::nullopt, mask_axis(2)});
  align({std::nullopt, key_length, key_length, mask_axis(1)});
  align({0, 0, 0, mask_axis(4)});
}

// attn_mask may be shorter than the keys: those behind it are not seen.
Value padded_mask(NodeContext& c, int64_t keys) {
  const Value mask = c.operand(kMask);
  const Shape shape = c.b.shape(mask);
  if (shape.empty() || shape.back() == 1 || shape.back() >= keys) return mask;
  Ints high(shape.size(), 0);
  high.back() = keys - shape.back();
  const double hidden = c.b.dtype(mask) == DType::boolean ? 0 : -std::numeric_limits<double>::infinity();
  return c.b.call("pad", {mask}, {{"low", Ints(shape.size(), 0)}, {"high", high}, {"value", hidden}});
}

struct Heads {
  Value q, k, v;  // [batch, heads, length, depth]; k and v with what the caches hold
};

Heads read_heads(NodeContext& c) {
  const bool split = c.shape(kQ).size() == 3;
  const auto heads = [&](size_t i, const char* count) {
    const Value v = c.operand(i);
    if (split) return split_heads(c, v, c.integer(count));
    if (c.b.shape(v).size() != 4) c.fail("[batch, heads, length, depth] expected, found " + to_string(c.b.shape(v)));
    return v;
  };
  if (c.has_operand(kPastKey) != c.has_operand(kPastValue)) c.fail("past_key and past_value belong together");
  const auto appended = [&](size_t past, Value now) {
    return c.has_operand(past) ? c.b.call("concat", {c.operand(past), now}, {{"axis", int64_t{2}}}) : now;
  };
  c.ignore({"q_num_heads", "kv_num_heads"});
  return {heads(kQ, "q_num_heads"), appended(kPastKey, heads(kK, "kv_num_heads")),
          appended(kPastValue, heads(kV, "kv_num_heads"))};
}

// What qk_matmul_output shows: the scores, capped (1), masked (2), or the weights (3).
Value scores_output(NodeContext& c, const Heads& h, Value mask, std::span<const Value> attended,
                    const Attributes& attributes) {
  Builder& b = c.b;
  const int64_t mode = c.integer("qk_matmul_output_mode", 0);
  const Shape q = b.shape(h.q), k = b.shape(h.k);
  const int64_t group = q[1] / k[1];
  const Value product = b.matmul(b.reshape(h.q, {q[0] * k[1], group * q[2], q[3]}),
                                 b.reshape(h.k, {k[0] * k[1], k[2], k[3]}), {{"transpose_b", int64_t{1}}});
  Value scores = b.mul(b.reshape(product, {q[0], q[1], q[2], k[2]}), attributes.number("scale"));
  const double cap = attributes.number("softcap");
  if (mode > 0 && cap > 0) scores = b.mul(b.unary("tanh", b.mul(scores, 1 / cap)), cap);
  if (mode < 2) return scores;
  AttentionMask all(b, q[2], k[2]);
  if (attributes.integer("causal") != 0) all.see_window(b.constant(DType::i64, 0), std::nullopt, 0);
  if (mask) b.dtype(mask) == DType::boolean ? all.see_where(mask) : all.add(mask);
  all.add(b.constant(b.dtype(scores), 0));
  scores = b.add(scores, all.value());
  if (mode == 2) return scores;
  const auto column = [&](Value row) { return b.reshape(row, {q[0], q[1], q[2], 1}); };
  const Value exponentials = b.unary("exp", b.sub(scores, column(attended[1])));
  return b.cast(b.div(exponentials, column(attended[2])), b.dtype(h.q));
}

std::vector<Value> import_attention(NodeContext& c) {
  Builder& b = c.b;
  c.ignore({"softmax_precision", "qk_matmul_output_mode"});  // the softmax is in f32 here
  align_operands(c);
  const Heads h = read_heads(c);
  const int64_t queries = b.shape(h.q)[2], keys = b.shape(h.k)[2], depth = b.shape(h.q)[3];
  const int64_t past = c.has_operand(kPastKey) ? c.shape(kPastKey)[2] : 0;
  const bool causal = c.integer("is_causal", 0) != 0;
  const auto window = [&](const char* name) -> std::optional<int64_t> {
    const int64_t size = c.version >= 25 ? c.integer(name, -1) : -1;
    return size < 0 ? std::nullopt : std::optional(size);
  };
  const std::optional<int64_t> left = window("left_window_size"), right = window("right_window_size");

  AttentionMask seen(b, queries, keys);
  Value offset = b.constant(DType::i64, static_cast<double>(past));
  if (c.has_operand(kLengths)) {
    if (c.has_operand(kPastKey)) c.fail("nonpad_kv_seqlen and past_key exclude each other");
    const Value lengths = b.cast(c.operand(kLengths), DType::i64);
    seen.see_where(seen.among_first(lengths));
    const Value column = b.reshape(lengths, {b.type(lengths).element_count(), 1, 1, 1});
    offset = b.sub(column, b.constant(DType::i64, static_cast<double>(queries)));
  }
  if (c.has_operand(kMask)) {
    const Value mask = padded_mask(c, keys);
    b.dtype(mask) == DType::boolean ? seen.see_where(mask) : seen.add(mask);
  }
  const bool plain = causal && past == 0 && !c.has_operand(kLengths);  // the row's own causal
  const std::optional<int64_t> low = left ? std::optional(-*left) : std::nullopt;
  const std::optional<int64_t> high = causal && !plain ? std::optional<int64_t>(0) : right;
  if (low || high) seen.see_window(offset, low, high);

  const double scale = c.number("scale", 0);
  const Attributes attributes{{"scale", scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(depth))},
                              {"causal", int64_t{plain}},
                              {"softcap", c.number("softcap", 0)}};
  const Value mask = seen.value();
  std::vector<Value> operands{h.q, h.k, h.v};
  if (mask) operands.push_back(mask);
  const std::vector<Value> attended = b.call_all(op("attention"), operands, attributes);
  std::vector<Value> results{c.shape(kQ).size() == 3 ? merge_heads(b, attended[0]) : attended[0], h.k, h.v};
  if (c.wants(3)) results.push_back(scores_output(c, h, mask, attended, attributes));
  return results;
}

// cos_cache and sin_cache: tables with position_ids, else already [batch, length, dimensions / 2].
std::vector<Value> import_rotary_embedding(NodeContext& c) {
  Builder& b = c.b;
  const bool merged = c.shape(0).size() == 3;
  const int64_t heads = c.integer("num_heads", 0);
  const Value x = merged ? split_heads(c, c.operand(0), heads) : c.operand(0);
  const Shape shape = b.shape(x);
  if (shape.size() != 4) c.fail("[batch, heads, length, depth] expected, found " + to_string(shape));
  const int64_t some = c.integer("rotary_embedding_dim", 0), dimensions = some > 0 ? some : shape[3];
  const auto angles = [&](size_t i) {
    const Shape table = c.shape(i);
    if (table.empty() || table.back() * 2 != dimensions || dimensions > shape[3])
      c.fail("cosines and sines of " + std::to_string(dimensions / 2) + " angles expected, found " + to_string(table));
    if (c.has_operand(3)) return rotation_rows(b, c.operand(i), c.operand(3));
    if (table.size() != 3) c.fail("cosines and sines [batch, length, angles] expected, found " + to_string(table));
    return b.reshape(c.operand(i), {table[0], 1, table[1], table[2]});
  };
  const Value y = rotate(b, x,
                         {.cos = angles(1),
                          .sin = angles(2),
                          .dimensions = dimensions,
                          .pairs = c.integer("interleaved", 0) != 0 ? Rotation::interleaved : Rotation::halves});
  return {merged ? merge_heads(b, y) : y};
}

const std::vector<OnnxOperator> kRows{
    {"Attention", {23, 24, 25}, 3, 7, import_attention, "no gradient through qk_matmul_output in mode 3"},
    {"RotaryEmbedding", {23}, 3, 4, import_rotary_embedding},
};

}  // namespace

std::span<const OnnxOperator> attention_operators() { return kRows; }

}  // namespace halfstep
