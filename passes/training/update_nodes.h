// The terms of an optimizer's row as values of a graph: on the arenas, and on each parameter by itself.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/optimizers.h"
#include "ir/builder.h"
#include "passes/rewrite/term_nodes.h"
#include "passes/training/bind_arenas.h"

namespace halfstep {

// Values for all elements of the arenas, made of what differs between parameters.
class ArenaValues {
 public:
  ArenaValues(Builder& builder, const ArenaLayout& layout) : b_(builder), layout_(layout) {}

  // One value for each segment, f32[]; where they differ, chosen by the index of the element: f32[P].
  Value by_segment(const std::function<Value(const ArenaSegment&)>& value);
  Value by_segment(const std::function<double(const ArenaSegment&)>& number);
  // A number, or a tensor of the parameter's shape in its file, for each parameter: f32[P].
  Value by_parameter(const std::function<Value(const ArenaSlice&)>& value);
  // What of a value for all elements is the parameter's, in the layout of its file; one number stays as it is.
  Value part(Value elements, const ArenaSlice& slice);
  // The rate of ArenaLayout::rates[index], f32[].
  Value rate(size_t index);

 private:
  Builder& b_;
  const ArenaLayout& layout_;
};

class UpdateNodes final : public TermNodes<UpdateContext> {
 public:
  struct Operands {
    Value gradient, weights;
    TensorType arena;
  };
  // `set` gives a state the value that it takes.
  UpdateNodes(Builder& builder, const OptimizerRow& row, const HyperParameters& given, const ArenaLayout& layout,
              const Operands& operands, std::function<void(Value state, Value after)> set);

  double parameter(std::string_view name) const override { return value_of(row_, name, given_); }
  Term gradient() override { return term(operands_.gradient); }
  Term weights() override { return term(operands_.weights); }
  Term learning_rate() override;
  Term weight_decay() override;
  Term each(const std::function<Term(ParameterContext&)>& of_each) override;
  Term where_apart(Term apart, Term others) override;
  Term slot(std::string_view name) override { return term(b_.state({Role::slot, std::string(name)}, operands_.arena)); }
  Term count(std::string_view name) override {
    return term(b_.state({Role::slot, std::string(name)}, {DType::f32, {}}));
  }
  void set(Term state, Term after) override { set_(value(state), value(after)); }

 private:
  class OfParameter;

  const OptimizerRow& row_;
  const HyperParameters& given_;
  const ArenaLayout& layout_;
  const Operands operands_;
  const std::function<void(Value, Value)> set_;
  ArenaValues arenas_;
};

}  // namespace halfstep
