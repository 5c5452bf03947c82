// A oneDNN primitive with what surrounds it: operands that are widened or reordered first, a result that is rounded
// after.
#pragma once

#include <dnnl.hpp>
#include <optional>
#include <unordered_map>
#include <vector>

#include "runtime/cpu/cpu_call.h"
#include "runtime/cpu/product_rate.h"

namespace halfstep {

struct DnnlContext {
  const ThreadTeam& team;
  dnnl::engine engine;
  dnnl::stream stream;
  Bf16Products bf16 = Bf16Products::slower;
};

// `type` is bf16 or f32.
dnnl::memory::data_type dnnl_type(DType type);

// The element types a primitive works in. fp16 is a storage type here.
struct ComputeTypes {
  DType operand = DType::f32, result = DType::f32, bias = DType::f32;
};
// Best first: bf16 as it is on CPUs that multiply it faster, then fp32, which always works.
std::vector<ComputeTypes> compute_types(const DnnlContext& context, DType operand, DType result, DType bias);
// Whether oneDNN has more than its reference loops for this.
bool is_fast(const dnnl::primitive_desc_base& description);

// `rows` runs of `row` elements, `stride` elements apart in memory; the copy in the workspace is dense.
struct StoredRows {
  std::byte* data = nullptr;
  DType type = DType::f32;
  int64_t rows = 1, row = 0, stride = 0;
};

enum class Activation : uint8_t { none, relu };

class DnnlCall final : public CpuCall {
 public:
  explicit DnnlCall(const DnnlContext& context) : context_(context) {}

  // `plain` describes the operand after widening: dense if `stored.type` is not `plain`'s type, as stored else.
  // `wanted` is the primitive's. Copies are made where the descriptions differ.
  void add_source(int argument, const StoredRows& stored, const dnnl::memory::desc& plain,
                  const dnnl::memory::desc& wanted);
  // `addend`: stored as the result is, where the primitive adds to what its result holds; nullptr: it does not.
  void set_result(int argument, const StoredRows& stored, const dnnl::memory::desc& plain,
                  const dnnl::memory::desc& wanted, std::byte* addend, Activation activation);
  void set_primitive(const dnnl::primitive& primitive, const dnnl::memory::desc& scratchpad);
  // In the place of a primitive: the result is the product of the sources of DNNL_ARG_SRC and DNNL_ARG_WEIGHTS, added
  // in that order, f32 and dense.
  void set_product(const Gemm& sizes);
  // The result and these arguments are as described `pieces` times, one behind the other, and computed one by one, so
  // that converted copies stay in the cache.
  void set_pieces(int64_t pieces, std::initializer_list<int> arguments);

  int64_t workspace_bytes() const override { return workspace_bytes_; }
  void bind(std::byte* workspace) override;
  void run() override;

 private:
  struct Operand {
    int argument = 0;
    StoredRows stored;
    DType type = DType::f32;  // of plain and wanted
    dnnl::memory::desc plain, wanted;
    std::optional<int64_t> widened_at, reordered_at;  // places in the workspace
    bool blocked = false;                             // by our own code, in one pass with the conversion
    bool in_pieces = false;
    dnnl::memory plain_memory, wanted_memory;
    dnnl::reorder reorder;
  };

  Operand operand(int argument, const StoredRows& stored, const dnnl::memory::desc& plain,
                  const dnnl::memory::desc& wanted);
  int64_t reserve(int64_t bytes);
  void bind(Operand& operand, std::byte* workspace);
  StoredRows piece_of(Operand& operand, int64_t piece) const;
  void load(Operand& operand, int64_t piece);
  void load_addend();
  void multiply();
  void store_result(const StoredRows& stored);
  void store_blocks(const StoredRows& stored);

  DnnlContext context_;
  std::vector<Operand> sources_;
  Operand result_;
  std::byte* addend_ = nullptr;
  Activation activation_ = Activation::none;
  dnnl::primitive primitive_;
  std::optional<Gemm> product_;
  dnnl::memory::desc scratchpad_;
  int64_t scratchpad_at_ = 0, workspace_bytes_ = 0, pieces_ = 1;
  std::unordered_map<int, dnnl::memory> arguments_;
};

// Gemm and Convolution in f16, bf16 and f32. The context's team must outlive the call.
std::unique_ptr<CpuCall> make_dnnl_call(const Gemm& gemm, const AddressOf& address, const DnnlContext& context);
std::unique_ptr<CpuCall> make_dnnl_call(const Convolution& convolution, const AddressOf& address,
                                        const DnnlContext& context);

}  // namespace halfstep
