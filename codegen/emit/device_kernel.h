// One kernel on its way to a GPU: what its forms share.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "codegen/emit/device_shape.h"
#include "codegen/emit/emit_kernel.h"
#include "codegen/kernel/columns_tile.h"

namespace halfstep {

constexpr unsigned kSharedSpace = 3, kGlobalSpace = 1;

class DeviceKernel {
 public:
  DeviceKernel(llvm::Module& module, const Kernel& kernel, const std::string& name)
      : module_(module), kernel_(kernel), ir_(module.getContext()), lane_(kernel.lane_variable()) {
    const std::vector<ArgumentUse> uses = argument_uses(kernel);
    function_ = declare_kernel(module, kernel, name, uses, kGlobalSpace, {});
    function_->setCallingConv(llvm::CallingConv::PTX_Kernel);
    ir_.SetInsertPoint(llvm::BasicBlock::Create(module.getContext(), "entry", function_));
    lanes_ = choose_lanes(kernel);
    index_type_ = fits_32_bits(kernel) ? ir_.getInt32Ty() : ir_.getInt64Ty();
    LaneConfig config{DeviceKind::cuda, lane_, lanes_, index_type_};
    config.rare_equalities =
        kernel.form == Kernel::Form::rows && lanes_ > 1 && row_shape(kernel, lanes_).threads > kWarp;
    config.long_rows = config.rare_equalities && !row_shape(kernel, lanes_).cached;
    emitter_ = make_emitter(ir_, kernel, config, argument_pointers(module, kernel, function_, kGlobalSpace), uses);
  }

  LaunchShape emit() {
    LaunchShape shape;
    switch (kernel_.form) {
      case Kernel::Form::pointwise:
        shape = pointwise();
        break;
      case Kernel::Form::rows:
        shape = rows();
        break;
      case Kernel::Form::columns:
        shape = columns();
        break;
      case Kernel::Form::scatter:
        shape = scatter();
        break;
    }
    ir_.CreateRetVoid();
    const auto annotate = [&](const char* name, int64_t n) {
      llvm::LLVMContext& context = module_.getContext();
      llvm::Metadata* number = llvm::ConstantAsMetadata::get(ir_.getInt32(static_cast<uint32_t>(n)));
      module_.getOrInsertNamedMetadata("nvvm.annotations")
          ->addOperand(llvm::MDNode::get(
              context, {llvm::ConstantAsMetadata::get(function_), llvm::MDString::get(context, name), number}));
    };
    annotate("maxntidx", shape.block);
    if (shape.resident > 1) annotate("minctasm", shape.resident);
    return shape;
  }

 private:
  ExpressionEmitter& e() { return *emitter_; }
  llvm::Value* constant(int64_t v) { return e().index(v); }
  llvm::Value* special(llvm::Intrinsic::ID id) {
    return ir_.CreateZExtOrTrunc(ir_.CreateIntrinsic(id, {}, {}), index_type_);
  }
  llvm::Value* thread() { return special(llvm::Intrinsic::nvvm_read_ptx_sreg_tid_x); }
  llvm::Value* block() { return special(llvm::Intrinsic::nvvm_read_ptx_sreg_ctaid_x); }
  void barrier() { ir_.CreateIntrinsic(llvm::Intrinsic::nvvm_barrier0, {}, {}); }
  int64_t vectors(const std::vector<AtomId>& variables) const {
    return std::max<int64_t>(kernel_.points(variables) / lanes_, 1);
  }

  LaunchShape pointwise();
  int64_t shared_row() const;
  int64_t pointwise_steps(int64_t count, int64_t row) const;
  LaunchShape rows();
  LaunchShape columns();
  LaunchShape scatter();

  // enter(position) and body(carried, counts) at begin, begin + step, ... before end, of which there are at most
  // `most`. Several steps stand together, all entered before the first one's body, so that they do not wait for each
  // other's loads; one whose `counts` is false is past the end and at some other position.
  using Enter = std::function<void(llvm::Value* position)>;
  using Body = std::function<Values(const Values& carried, llvm::Value* counts)>;
  Values strided_loop(llvm::Value* begin, llvm::Value* end, int64_t step, int64_t most, Values carried,
                      const Enter& enter, const Body& body);

  // One thread's share of a row: step i works on vector i * threads + number of those the row has.
  struct Row : RowShape {
    int64_t plain = 0;              // of these first vectors the lane variable is below every limit it is compared with
    llvm::Value* number = nullptr;  // of the thread in its row
    llvm::Value* end = nullptr;     // vectors of this row
    llvm::Value* begin = nullptr;   // first vector, counted over the whole reduced extent
    int64_t most_kept = 0;          // whole steps over vectors that shared memory has from the first pass on
    llvm::Value* kept = nullptr;    // those it has room for
  };
  int64_t plain_vectors(const RowShape& row) const;
  ExpressionId kept_load() const;
  void keep(Row& row);
  enum class Pass : uint8_t { first, later };
  Values row_pass(const Row& row, Pass pass, Values carried, const Body& body);
  Values own_results(const std::vector<size_t>& reductions, const Values& sums);
  Values combine_row(const Row& row, const std::vector<size_t>& reductions, Values sums);
  Values combine_columns(const std::vector<size_t>& reductions, Values sums, int64_t width, int64_t block);
  llvm::Value* shuffle(llvm::Value* value, int64_t distance);
  llvm::GlobalVariable* shared(DType dtype, int64_t count);

  llvm::Module& module_;
  const Kernel& kernel_;
  llvm::IRBuilder<> ir_;
  AtomId lane_;
  llvm::Function* function_ = nullptr;
  unsigned lanes_ = 1;
  llvm::IntegerType* index_type_ = nullptr;
  std::unique_ptr<ExpressionEmitter> emitter_;
  std::vector<std::unordered_map<ExpressionId, llvm::Value*>> cached_steps_;  // what each step of a cached row knows
};

}  // namespace halfstep
