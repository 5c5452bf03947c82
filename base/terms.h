// Formulas of table rows (optimizers, losses), written over terms that the compiler makes nodes of.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace halfstep {

class TermContext;

// A number for each element of what a formula computes on, or one for all of them; of a parameter alone, a tensor.
class Term {
 public:
  Term(TermContext& of, int32_t id) : of_(&of), id_(id) {}
  int32_t id() const { return id_; }

  friend Term operator+(Term a, Term b) { return a.with("add", b); }
  friend Term operator-(Term a, Term b) { return a.with("sub", b); }
  friend Term operator*(Term a, Term b) { return a.with("mul", b); }
  friend Term operator/(Term a, Term b) { return a.with("div", b); }
  friend Term operator+(Term a, double b) { return a + a.constant(b); }
  friend Term operator-(Term a, double b) { return a - a.constant(b); }
  friend Term operator-(double a, Term b) { return b.constant(a) - b; }
  friend Term operator/(double a, Term b) { return b.constant(a) / b; }
  friend Term operator*(Term a, double b) { return a * a.constant(b); }
  friend Term sqrt(Term x) { return x.under("sqrt"); }
  friend Term exp(Term x) { return x.under("exp"); }
  friend Term log(Term x) { return x.under("log"); }
  friend Term abs(Term x) { return x.under("abs"); }
  friend Term softplus(Term x) { return x.under("softplus"); }  // log(1 + exp(x))
  friend Term sign(Term x) { return x.under("sign"); }
  friend Term max(Term a, Term b) { return a.with("max", b); }
  friend Term max(Term a, double b) { return max(a, a.constant(b)); }
  friend Term min(Term a, Term b) { return a.with("min", b); }
  friend Term min(Term a, double b) { return min(a, a.constant(b)); }
  friend Term operator-(Term x) { return x.under("neg"); }
  // if_less where a < b, else `otherwise`.
  friend Term where_less(Term a, Term b, Term if_less, Term otherwise);

 private:
  Term with(std::string_view op, Term b) const;
  Term under(std::string_view op) const;
  Term constant(double value) const;

  TermContext* of_;
  int32_t id_;
};

// What makes terms, by the ops of the IR.
class TermContext {
 public:
  virtual ~TermContext() = default;
  virtual Term constant(double value) = 0;
  virtual Term apply(std::string_view op, std::initializer_list<Term> operands) = 0;
};

inline Term Term::with(std::string_view op, Term b) const { return of_->apply(op, {*this, b}); }
inline Term Term::under(std::string_view op) const { return of_->apply(op, {*this}); }
inline Term Term::constant(double value) const { return of_->constant(value); }

inline Term where_less(Term a, Term b, Term if_less, Term otherwise) {
  return a.of_->apply("select", {a.with("less", b), if_less, otherwise});
}

}  // namespace halfstep
