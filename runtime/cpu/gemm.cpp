#include <algorithm>

#include "base/error.h"
#include "runtime/cpu/dnnl_call.h"

namespace halfstep {
namespace {

using dnnl::memory;

// Rows of the product that pay for a packed B, and columns that need it; the least size of a product that sgemm blocks,
// and the fewest multiplications with which it is ahead.
constexpr int64_t kRowsToPack = 512, kColumnsToPack = 512, kLeastSize = 64;
constexpr double kFewestMultiplications = 2.5e8;

// One operand's matrices: [rows, columns], stored transposed if `transposed`.
struct Matrices {
  int64_t rows, columns, batch, stride;
  bool transposed;

  // `stride` 0 is a batch of one, which oneDNN broadcasts.
  memory::desc description(DType type) const {
    const memory::dim across = transposed ? 1 : columns, down = transposed ? rows : 1;
    if (batch == 1) return {memory::dims{rows, columns}, dnnl_type(type), memory::dims{across, down}};
    const memory::dims dims{stride == 0 ? 1 : batch, rows, columns};
    return {dims, dnnl_type(type), memory::dims{stride == 0 ? rows * columns : stride, across, down}};
  }
};

// Converted operands lie densely in the workspace.
memory::desc plain_description(Matrices matrices, DType stored, DType computed) {
  if (stored != computed && matrices.stride != 0) matrices.stride = matrices.rows * matrices.columns;
  return matrices.description(computed);
}

memory::desc any_format(const memory::desc& description) {
  return {description.dims(), description.data_type(), memory::format_tag::any};
}

// Of oneDNN's two products, sgemm packs both operands for the caches, whatever their order; the primitive, which adds a
// bias, multiplies batches and other types, packs a transposed B on its way and reads another one where it lies, row by
// row of a tile: these are pages apart where n is large, and collide in the cache where it is a multiple of 1024.
bool suits_sgemm(const Gemm& g, const ComputeTypes& types) {
  return types.operand == DType::f32 && types.result == DType::f32 && g.batch == 1 && !g.bias &&
         std::min({g.m, g.n, g.k}) >= kLeastSize && (!g.transpose_b || g.m >= kRowsToPack) &&
         static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) >= kFewestMultiplications;
}

// A packed copy costs about as much as 50 rows of the product.
bool is_packed_first(const Gemm& g) {
  return g.batch == 1 && !g.transpose_b && g.m >= kRowsToPack && g.n >= kColumnsToPack;
}

StoredRows stored_rows(std::byte* data, DType type, const Matrices& matrices) {
  const int64_t matrix = matrices.rows * matrices.columns;
  const int64_t count = matrices.stride == 0 ? 1 : matrices.batch;
  if (matrices.stride == matrix || count == 1) return {data, type, 1, count * matrix, 0};
  return {data, type, count, matrix, matrices.stride};
}

void set_result(DnnlCall& call, const Gemm& g, const AddressOf& address, const Matrices& c, const memory::desc& plain) {
  call.set_result(DNNL_ARG_DST, stored_rows(address(g.c), g.result, c), plain, plain,
                  g.addend ? address(*g.addend) : nullptr, g.relu ? Activation::relu : Activation::none);
}

}  // namespace

std::unique_ptr<CpuCall> make_dnnl_call(const Gemm& g, const AddressOf& address, const DnnlContext& context) {
  const Matrices a{g.m, g.k, g.batch, g.stride_a, g.transpose_a}, b{g.k, g.n, g.batch, g.stride_b, g.transpose_b};
  const Matrices c{g.m, g.n, g.batch, g.stride_c, false};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (g.addend) {
    dnnl::post_ops add_previous;
    add_previous.append_sum();
    attributes.set_post_ops(add_previous);
  }
  for (const ComputeTypes& types : compute_types(context, g.operand, g.result, g.bias_type)) {
    const memory::desc a_plain = plain_description(a, g.operand, types.operand);
    const memory::desc b_plain = plain_description(b, g.operand, types.operand);
    const memory::desc c_plain = plain_description(c, g.result, types.result);
    if (suits_sgemm(g, types)) {
      auto call = std::make_unique<DnnlCall>(context);
      call->add_source(DNNL_ARG_SRC, stored_rows(address(g.a), g.operand, a), a_plain, a_plain);
      call->add_source(DNNL_ARG_WEIGHTS, stored_rows(address(g.b), g.operand, b), b_plain, b_plain);
      set_result(*call, g, address, c, c_plain);
      call->set_product(g);
      return call;
    }
    memory::dims bias_dims(c_plain.dims().size(), 1);
    bias_dims.back() = g.n;
    const memory::desc bias(bias_dims, dnnl_type(types.bias), memory::dims(bias_dims.size(), 1));
    const memory::desc b_wanted = is_packed_first(g) ? any_format(b_plain) : b_plain;
    const auto operation =
        g.bias ? dnnl::matmul::desc(a_plain, b_wanted, bias, c_plain) : dnnl::matmul::desc(a_plain, b_wanted, c_plain);
    const dnnl::matmul::primitive_desc description(operation, attributes, context.engine, true);
    const bool last = types.operand == DType::f32;
    if (!description || (!last && !is_fast(description))) continue;
    auto call = std::make_unique<DnnlCall>(context);
    call->add_source(DNNL_ARG_SRC, stored_rows(address(g.a), g.operand, a), a_plain, description.src_desc());
    call->add_source(DNNL_ARG_WEIGHTS, stored_rows(address(g.b), g.operand, b), b_plain, description.weights_desc());
    if (g.bias) call->add_source(DNNL_ARG_BIAS, {address(*g.bias), g.bias_type, 1, g.n, 0}, bias, bias);
    set_result(*call, g, address, c, c_plain);
    call->set_primitive(dnnl::matmul(description), description.scratchpad_desc());
    return call;
  }
  throw InternalError("oneDNN has no fp32 matmul for this gemm");
}

}  // namespace halfstep
