// The terms of a table row's formula (base/terms.h) as values of a graph.
#pragma once

#include <vector>

#include "base/terms.h"
#include "ir/builder.h"

namespace halfstep {

// `Context` is the row's TermContext. Terms are f32.
template <typename Context>
class TermNodes : public Context {
 public:
  explicit TermNodes(Builder& builder) : b_(builder) {}

  Term constant(double number) override { return term(b_.constant(DType::f32, number)); }
  Term apply(std::string_view op, std::initializer_list<Term> terms) override {
    std::vector<Value> v;
    for (const Term& t : terms) v.push_back(value(t));
    return term(v.size() == 1   ? b_.unary(op, v[0])
                : v.size() == 2 ? b_.binary(op, v[0], v[1])
                                : b_.select(v[0], v[1], v[2]));
  }
  Value value(Term term) const { return values_[static_cast<size_t>(term.id())]; }

 protected:
  Term term(Value v) {
    values_.push_back(v);
    return {*this, static_cast<int32_t>(values_.size()) - 1};
  }

  Builder& b_;

 private:
  std::vector<Value> values_;
};

}  // namespace halfstep
