// Expressions of a kernel as LLVM instructions, for a vector of consecutive values ("lanes") of the lane variable at a
// time. What does not depend on the lane variable is computed once, as a scalar.
#pragma once

#include <array>
#include <functional>
#include <limits>
#include <optional>
#include <unordered_map>

#include "codegen/emit/emit_scalar.h"
#include "codegen/emit/lane_config.h"
#include "codegen/kernel/kernel.h"

namespace halfstep {

using Values = std::vector<llvm::Value*>;

class ExpressionEmitter {
 public:
  // `arguments`: one pointer per kernel argument; `read_only[i]`: nothing writes argument i while the kernel runs.
  ExpressionEmitter(llvm::IRBuilder<>& ir, const Kernel& kernel, LaneConfig config, Values arguments,
                    std::vector<bool> read_only);

  // The state that a loop body adds to and its end takes back: what is bound and what is known by now.
  struct Scope {
    std::unordered_map<ExpressionId, llvm::Value*> values;
    std::unordered_map<AtomId, llvm::Value*> variables;
    int64_t lane_limit = std::numeric_limits<int64_t>::max();  // all lanes of the lane variable are below it
    llvm::Value* active = nullptr;                             // a vector: which lanes count
    llvm::Value* active_count = nullptr;                       // their number; they are the first ones
    bool reads_kept = false;
  };
  const Scope& scope() const { return scope_; }
  void restore(Scope scope) { scope_ = std::move(scope); }

  // Gives a loop variable a value; for the lane variable, that of lane 0.
  void bind(AtomId variable, llvm::Value* value) { scope_.variables[variable] = value; }
  // Gives `variables`, row-major, the position `linear`; the lane variable counts in vectors of lanes here.
  void bind_linear(const std::vector<AtomId>& variables, llvm::Value* linear);
  void bind_reduction(size_t reduction, llvm::Value* value);
  // `is`: whether this thread met what the row was reduced to, its greatest or least element.
  void bind_met(size_t reduction, llvm::Value* is) { met_[static_cast<int32_t>(reduction)] = is; }
  // On the host: only the first `count` lanes count; nullptr: all. The others are neither loaded nor stored, what they
  // compute is unspecified.
  void set_active(llvm::Value* count);

  // Until the scope is restored the lane variable's values are below `limit`.
  void limit_lanes(int64_t limit) { scope_.lane_limit = limit; }
  std::optional<int64_t> lane_limit(const Expression& e) const;

  // A scalar where the expression does not depend on the lane variable, else a vector of lanes.
  llvm::Value* emit(ExpressionId id);
  llvm::Value* emit_lanes(ExpressionId id) { return splat(ir_, emit(id), config_.lanes); }
  void emit_stores(Store::Domain domain);
  // Whether `condition` hardly ever holds, and whether it does for any lane.
  bool is_rare(ExpressionId condition) const;
  llvm::Value* emit_any(ExpressionId condition);
  // Computes what the expressions need and does not depend on `variables`: before a loop over them.
  void hoist(std::span<const ExpressionId> expressions, VariableSet variables);
  void hoist_stores(Store::Domain domain, VariableSet variables);

  // Shared memory has what `load` reads at the lane variable's values: writes the lanes at hand there; or, until the
  // scope is restored, reads them from there.
  void keep(ExpressionId load, llvm::Value* memory) { kept_ = load, kept_memory_ = memory; }
  void write_kept();
  void read_kept() { scope_.reads_kept = true; }
  // Of a reduction of long rows: the low type that has all of its values, in which its extremum is found.
  std::optional<DType> low_extremum(const Reduction& reduction) const;

  using LoopBody = std::function<Values(llvm::Value* position, const Values& carried)>;
  // for (position = begin; position < end; position += step) carried = body(position, carried); what the body binds or
  // computes is forgotten after it.
  Values loop(llvm::Value* begin, llvm::Value* end, int64_t step, Values carried, const LoopBody& body);
  // body() where `condition` holds, nullptr always, else `otherwise`.
  Values when(llvm::Value* condition, const Values& otherwise, const std::function<Values()>& body);
  void when(llvm::Value* condition, const std::function<void()>& body);

  llvm::Value* index(int64_t value) const { return llvm::ConstantInt::getSigned(config_.index_type, value); }
  llvm::IRBuilder<>& ir() { return ir_; }
  ScalarEmitter& scalars() { return scalars_; }
  const LaneConfig& config() const { return config_; }
  // 0, 1, 2, ... in the index type.
  llvm::Value* lane_numbers(unsigned count);

 private:
  // base + step * lane, or one value per lane.
  struct LaneIndex {
    llvm::Value* base = nullptr;
    int64_t step = 0;
    llvm::Value* each = nullptr;
    bool uniform() const { return each == nullptr && step == 0; }
  };
  LaneIndex emit_index(const Index& index);
  LaneIndex emit_atom(AtomId id);
  LaneIndex emit_division(const Atom& atom);
  LaneIndex emit_value_atom(const Atom& atom);
  llvm::Value* lane_values(const LaneIndex& index);  // a vector, or a scalar where uniform

  llvm::Value* emit_new(ExpressionId id);
  llvm::Value* emit_load(const Expression& e);
  llvm::Value* zero_unless(llvm::Value* condition, llvm::Value* v);
  llvm::Value* load_lanes(const Expression& e, const LaneIndex& at, llvm::Value* guard);
  llvm::Value* load_each(const Expression& e, const LaneIndex& at, llvm::Value* guard);
  bool one_side(const Expression& e, const LaneIndex& at) const;
  llvm::Value* emit_in_range(const Expression& e);
  llvm::Value* emit_select(const Expression& e);
  bool is_one_place(const Expression& e) const;
  llvm::Value* met(const Expression& e) const;
  llvm::Value* emit_exp_below_greatest(const Expression& e);
  llvm::Value* kept_place();
  llvm::Value* emit_place(const Expression& e);
  llvm::Value* emit_uniform(const Expression& e);
  std::array<llvm::Value*, 4> emit_philox(const Expression& e, llvm::Value* block);
  llvm::Value* emit_fold(const Expression& e);
  void emit_store(const Store& store, llvm::Value* value);
  llvm::Type* memory_type(DType dtype, unsigned lanes) const {
    return stored_type(ir_.getContext(), dtype, lanes, config_.device);
  }
  llvm::Value* pointer(int32_t argument, llvm::Value* position);
  struct Piece {  // of a masked access
    llvm::Value *pointer, *mask;
    unsigned first, lanes;
    llvm::Align align;
  };
  unsigned lanes_of_piece(int32_t argument) const;
  std::vector<Piece> pieces(int32_t argument, llvm::Value* position, llvm::Align align, llvm::Value* mask);
  llvm::Value* load_pieces(int32_t argument, llvm::Value* position, llvm::Align align);
  llvm::Value* masked_load(int32_t argument, llvm::Value* position, llvm::Align align, llvm::Value* mask);
  void masked_store(int32_t argument, llvm::Value* value, llvm::Value* position, llvm::Align align, llvm::Value* mask);
  llvm::Instruction* load(int32_t argument, llvm::Type* type, llvm::Value* position, llvm::Align align);
  llvm::Align alignment(int32_t argument, const Index& index) const;
  bool varies(ExpressionId id) const { return (kernel_.expressions.variables(id) & lane_set_) != 0; }

  llvm::IRBuilder<>& ir_;
  const Kernel& kernel_;
  LaneConfig config_;
  Values arguments_;
  std::vector<bool> read_only_;
  ScalarEmitter scalars_;
  VariableSet lane_set_ = 0;
  Scope scope_;
  std::unordered_map<int32_t, llvm::Value*> met_;
  ExpressionId kept_ = kNoExpression;
  llvm::Value* kept_memory_ = nullptr;
};

}  // namespace halfstep
