#include "passes/fusion/body_cost.h"

#include "ir/ops/families.h"

namespace halfstep {

double body_cost(const Node& node) {
  const double element = ops::has_filter(*node.op) ? 6 : 3;  // its index, its guard and its use
  if (node.op->kernel == KernelKind::movement) return 0;
  if (node.op->kernel == KernelKind::random) return 40;
  if (node.op->kernel == KernelKind::window)
    return element * static_cast<double>(TensorType{DType::u8, node.attributes.ints("window")}.element_count());
  if (!node.op->body) return 1;
  // Counts the scalar operations of the body by running it over a carrier that only counts.
  class Counter final : public ScalarArithmetic {
   public:
    double operations = 0;
    Scalar constant(double) override { return {this, 0, nullptr}; }
    Scalar unary(ScalarOp op, Scalar) override {
      return done(op <= ScalarOp::absolute || op >= ScalarOp::round_down ? 1 : 8);
    }
    Scalar binary(ScalarOp op, Scalar, Scalar) override {
      return done(op == ScalarOp::power || op == ScalarOp::remainder ? 20 : op == ScalarOp::divide ? 6 : 1);
    }
    Scalar select(Scalar, Scalar, Scalar) override { return done(1); }
    Scalar convert(DType, Scalar) override { return done(0); }

   private:
    Scalar done(double cost) {
      operations += cost;
      return {this, 0, nullptr};
    }
  } counter;
  const std::vector<Scalar> arguments(node.operands.size(), counter.constant(0));
  node.op->body(node.attributes, arguments);
  return counter.operations;
}

bool windows_overlap(const Node& node) {
  if (node.op->kernel != KernelKind::window) return false;
  const Ints &window = node.attributes.ints("window"), &strides = node.attributes.ints("strides");
  for (size_t i = 0; i < window.size(); ++i)
    if (window[i] > (strides.empty() ? 1 : strides[i])) return true;
  return false;
}

bool is_large_window(const Node& node) {
  constexpr double kLargeWindow = 50;
  return windows_overlap(node) && body_cost(node) > kLargeWindow;
}

}  // namespace halfstep
