#include "tests/fuzz/perturbed.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.h"
#include "ir/op.h"
#include "tests/fuzz/random.h"

namespace halfstep::fuzz {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUnit = 0x1p-24;  // the rounding error of f32

double single(double v) { return static_cast<double>(static_cast<float>(v)); }
double last_place(double v) { return std::max(std::abs(v) * 0x1p-23, 0x1p-149); }

// A scalar body as a kernel computes it: `number` is the f32 value, and the handle's bits are how far it may be off.
class SingleArithmetic final : public ScalarArithmetic {
 public:
  static double error(Scalar x) { return std::bit_cast<double>(reinterpret_cast<uintptr_t>(x.handle)); }

  Scalar make(double value, double error) {
    const double number = single(value);
    // Of infinity there is no more or less, nor where an infinite slope meets no error.
    if (!std::isfinite(number) || std::isnan(error)) error = 0;
    return {this, number, reinterpret_cast<void*>(std::bit_cast<uintptr_t>(error))};
  }
  Scalar constant(double value) override { return make(value, 0); }

  Scalar unary(ScalarOp op, Scalar x) override {
    const double v = x.number, e = error(x);
    const auto function = [&](double r, double slope) {
      return make(r, e * slope + kFunctionError * last_place(r) * (r == 0 || std::isinf(r) ? 0 : 1));
    };
    const auto step = [&](double (*round)(double)) { return make(round(v), std::abs(round(v + e) - round(v - e))); };
    switch (op) {
      case ScalarOp::negate:
        return make(-v, e);
      case ScalarOp::absolute:
        return make(std::abs(v), e);
      case ScalarOp::square_root:
        return make(std::sqrt(v), e == 0 ? 0 : std::sqrt(v + e) - std::sqrt(std::max(v - e, 0.0)) + last_place(v));
      case ScalarOp::exponential:
        return function(std::exp(v), std::exp(v + e));
      case ScalarOp::logarithm:
        return function(std::log(v), e == 0 ? 0 : 1 / std::max(v - e, 0.0));
      case ScalarOp::sine:
        return std::abs(v) > 0x1p50 ? make(std::sin(v), 2) : function(std::sin(v), 1);
      case ScalarOp::cosine:
        return std::abs(v) > 0x1p50 ? make(std::cos(v), 2) : function(std::cos(v), 1);
      case ScalarOp::hyperbolic_tangent:
        return function(std::tanh(v), 1);
      case ScalarOp::error_function:
        return function(std::erf(v), 1.2);
      case ScalarOp::logistic:
        return 1.0 / (exp(-x) + 1.0);
      case ScalarOp::normal_distribution:
        return make(std::erfc(v * (std::numbers::sqrt2 / -2)) / 2, e * 0.4 + kDistributionError);
      case ScalarOp::normal_density:
        return make(std::exp(v * v * -0.5) * 0.3989422804014327, e * 0.25 + kDistributionError);
      case ScalarOp::round_down:
        return step(std::floor);
      case ScalarOp::round_up:
        return step(std::ceil);
      case ScalarOp::round_even:
        return step(std::nearbyint);
      case ScalarOp::logical_not:
        return make(v == 0, e);
      default:
        throw InternalError("not a unary scalar op");
    }
  }

  Scalar binary(ScalarOp op, Scalar x, Scalar y) override {
    const double a = x.number, b = y.number, ea = error(x), eb = error(y);
    const bool exact = ea == 0 && eb == 0;
    const auto arithmetic = [&](double r, double e) { return make(r, exact ? 0 : e + last_place(r)); };
    const auto comparison = [&](bool r) { return make(r, !exact && std::abs(a - b) <= ea + eb ? 1 : 0); };
    switch (op) {
      case ScalarOp::add:
        return arithmetic(a + b, ea + eb);
      case ScalarOp::subtract:
        return arithmetic(a - b, ea + eb);
      case ScalarOp::multiply:
        return arithmetic(a * b, std::abs(a) * eb + std::abs(b) * ea + ea * eb);
      case ScalarOp::divide:
        return arithmetic(a / b, eb >= std::abs(b) ? kInfinity : (ea + std::abs(a / b) * eb) / (std::abs(b) - eb));
      case ScalarOp::power: {
        const double r = std::pow(a, b);
        const double moved =
            exact ? 0 : std::abs(r) * (std::abs(b) * ea / std::abs(a) + std::abs(std::log(std::abs(a))) * eb);
        return make(r, std::isfinite(r) && r != 0 && r != 1 ? moved + last_place(r) : 0);
      }
      case ScalarOp::remainder: {
        const double r = std::fmod(a, b), moved = exact ? 0 : ea + std::abs(std::trunc(a / b)) * eb;
        const bool jumps = std::abs(r) <= moved || std::abs(b) - std::abs(r) <= moved;
        return make(r, !exact && jumps ? std::abs(b) + moved : moved);
      }
      case ScalarOp::maximum:
        return make(std::isnan(a) || a > b ? a : b, std::max(ea, eb));
      case ScalarOp::minimum:
        return make(std::isnan(a) || a < b ? a : b, std::max(ea, eb));
      case ScalarOp::equal:
        return comparison(a == b);
      case ScalarOp::less:
        return comparison(a < b);
      case ScalarOp::less_equal:
        return comparison(a <= b);
      case ScalarOp::logical_and:
        return make(a != 0 && b != 0, std::max(ea, eb));
      case ScalarOp::logical_or:
        return make(a != 0 || b != 0, std::max(ea, eb));
      default:
        throw InternalError("not a binary scalar op");
    }
  }

  Scalar select(Scalar condition, Scalar if_true, Scalar if_false) override {
    const Scalar& chosen = condition.number != 0 ? if_true : if_false;
    if (error(condition) == 0) return chosen;
    return make(chosen.number, std::abs(if_true.number - if_false.number) + std::max(error(if_true), error(if_false)));
  }

  Scalar convert(DType to, Scalar x) override {
    if (is_floating(to)) return x;  // the node's own rounding
    return make(to == DType::boolean ? x.number != 0 : round_to(to, std::trunc(x.number)), error(x) > 0 ? 1 : 0);
  }
};

// The power of two of which every value is a multiple; 0 if all are 0.
double quantum(const std::vector<double>& values) {
  double q = 0;
  for (double v : values) {
    if (v == 0 || !std::isfinite(v)) continue;
    int exponent = 0;
    const auto digits = static_cast<uint64_t>(std::abs(std::frexp(v, &exponent)) * 0x1p53);
    const double lowest = std::ldexp(1, exponent - 53 + std::countr_zero(digits));
    q = q == 0 ? lowest : std::min(q, lowest);
  }
  return q;
}

class Run {
 public:
  Run(const Graph& graph, const NamedTensors& leaves, const Perturbation& perturbation, Observe observe)
      : graph_(graph), leaves_(leaves), p_(perturbation), observe_(std::move(observe)), values_(graph.nodes().size()) {}

  InterpretResult run() {
    for (NodeId id = 0; id < graph_.size(); ++id) evaluate(id);
    InterpretResult result;
    for (const NamedValue& o : graph_.outputs()) result.outputs[o.name] = at(o.value);
    for (const StateUpdate& u : graph_.updates()) result.updates[leaf_name(graph_.node(u.state))] = at(u.value);
    return result;
  }

 private:
  const InterpretedTensor& at(Value v) const {
    return values_[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)];
  }

  void evaluate(NodeId id) {
    const Node& node = graph_.node(id);
    std::vector<InterpretedTensor>& results = values_[static_cast<size_t>(id)];
    require(node.op->kernel != KernelKind::composite, "composites are expanded");
    if (is_leaf(*node.op)) {
      results = {{node.results[0], leaves_.at(leaf_name(node)).values()}};
    } else {
      std::vector<const InterpretedTensor*> operands;
      for (Value v : node.operands) operands.push_back(v ? &at(v) : nullptr);
      results = interpret_node(node, operands, Rounding::none);
      if (is_floating(results[0].type.dtype) && p_.rounded != Rounded::low_only && !is_nearest(node))
        move(id, node, operands, results[0]);
    }
    for (InterpretedTensor& r : results) round(node, r);
    if (observe_) observe_(id, results);
  }

  // +1 or -1, or less than that, the same for equal keys.
  double sign(uint64_t key) const {
    const uint64_t bits = mix(key, p_.run);
    const double size = bits & 2 ? 1 : static_cast<double>(bits >> 11) * 0x1p-53;
    return bits & 1 ? size : -size;
  }

  void move(NodeId id, const Node& node, std::span<const InterpretedTensor* const> operands,
            InterpretedTensor& result) {
    switch (node.op->kernel) {
      case KernelKind::pointwise:
        return move_pointwise(node, operands, result);
      case KernelKind::reduction:
        if (node.op->name == "reduce_sum") move_sum(id, node, operands, result, 0);
        return;
      case KernelKind::gemm:
      case KernelKind::convolution:
        return move_sum(id, node, operands, result, 0);
      case KernelKind::window:
        if (node.op->name.starts_with("avg") || node.op->name == "max_pool_grad")
          move_sum(id, node, operands, result, 2);
        return;
      default:
        if (node.op->name == "scatter") move_scatter(id, node, operands, result);
    }
  }

  void move_pointwise(const Node& node, std::span<const InterpretedTensor* const> operands, InterpretedTensor& result) {
    SingleArithmetic arithmetic;
    std::vector<Scalar> arguments(operands.size());
    for (size_t i = 0; i < result.values.size(); ++i) {
      uint64_t key = reinterpret_cast<uintptr_t>(node.op->name.data());
      for (size_t k = 0; k < operands.size(); ++k) {
        const double v = operands[k]->values[i];
        arguments[k] = arithmetic.constant(v);
        key = mix(key, std::bit_cast<uint64_t>(v));
      }
      double& exact = result.values[i];
      if (!std::isfinite(exact)) continue;
      const Scalar found = node.op->body(node.attributes, arguments);
      // What a kernel's body cannot compute at all is no rounding.
      if (!std::isfinite(found.number)) continue;
      // A product may go unrounded into the sum that reads it.
      const bool ieee = SingleArithmetic::error(found) == 0 && p_.device == DeviceKind::cpu && node.op->name != "mul";
      if (ieee && p_.rounded == Rounded::to_type) {
        exact = found.number;
        continue;
      }
      double error = std::abs(found.number - exact) + SingleArithmetic::error(found);
      if (single(exact) != exact || p_.rounded == Rounded::everything) error += kUnit * std::abs(exact);
      exact += sign(key) * error;
    }
  }

  // Whether f32 holds every partial sum. Of operands that were rounded by a perturbation this is known of half the
  // runs: others that they stand for may be summed with an error.
  bool is_exact(double sum, double smallest) const {
    return (p_.rounded == Rounded::to_type || p_.run % 8 < 4) && sum <= smallest * 0x1p24;
  }

  // The order of a sum is not defined: where its positive terms alone, its negative ones or both leave f32, it may be
  // an infinity, the other or NaN.
  bool overflows_by_order(uint64_t key, double magnitudes, double& sum) const {
    constexpr double kLargest = std::numeric_limits<float>::max(), kInfinity = std::numeric_limits<double>::infinity();
    if (!(magnitudes > kLargest) || !std::isfinite(magnitudes)) return false;
    const bool above = magnitudes + sum > 2 * kLargest, below = magnitudes - sum > 2 * kLargest;
    const uint64_t choice = mix(key, p_.run) % 4;
    if (!(choice == 0 ? above : choice == 1 ? below : choice == 2 && above && below)) return false;
    sum = choice == 0 ? kInfinity : choice == 1 ? -kInfinity : std::numeric_limits<double>::quiet_NaN();
    return true;
  }

  // A sum of products of the operands, or of operand 0 where there is one; what is added to a product is a term of its
  // own.
  void move_sum(NodeId id, const Node& node, std::span<const InterpretedTensor* const> operands,
                InterpretedTensor& result, double more) {
    std::vector<InterpretedTensor> magnitudes(operands.size());
    double smallest = 1;
    const size_t factors = node.op->kernel == KernelKind::gemm ? 2 : operands.size();
    for (size_t k = 0; k < operands.size(); ++k) {
      if (!operands[k]) continue;
      InterpretedTensor& m = magnitudes[k] = *operands[k];
      if (is_floating(m.type.dtype)) {
        const double q = quantum(m.values);
        smallest = k < factors ? smallest * q : std::min(smallest, q);
        for (double& v : m.values) v = std::abs(v);
      }
    }
    std::vector<const InterpretedTensor*> pointers;
    for (size_t k = 0; k < operands.size(); ++k) pointers.push_back(operands[k] ? &magnitudes[k] : nullptr);
    const std::vector<double> sums = interpret_node(node, pointers, Rounding::none)[0].values;
    // Padding is skipped, or is a factor 0 of what may be infinite.
    if (node.op->kernel == KernelKind::convolution && mix(static_cast<uint64_t>(id), p_.run) % 2 == 0)
      for (const InterpretedTensor& m : magnitudes)
        if (!std::ranges::all_of(m.values, [](double v) { return std::isfinite(v); }))
          std::ranges::fill(result.values, std::numeric_limits<double>::quiet_NaN());
    const double terms = static_cast<double>(largest_sum(node, operands)) + more;
    const DType operand = operands[0]->type.dtype;
    const bool products = node.op->kernel == KernelKind::gemm || node.op->kernel == KernelKind::convolution;
    const bool tensor_cores = p_.device == DeviceKind::cuda && products && is_low(operand);
    const double unit = tensor_cores ? 2 * kUnit : kUnit;
    const std::vector<double> flushed = flushed_sums(node, magnitudes, terms);
    for (size_t i = 0; i < result.values.size(); ++i) {
      if (overflows_by_order(mix(mix(static_cast<uint64_t>(id), 79), static_cast<uint64_t>(i)), sums[i],
                             result.values[i]))
        continue;
      const double zeroed = flushed.empty() ? 0 : flushed[i];
      const bool matters = zeroed > kUnit * kUnit * sums[i];
      if (!std::isfinite(result.values[i]) || (more == 0 && !matters && !tensor_cores && is_exact(sums[i], smallest)))
        continue;
      const uint64_t key = mix(mix(static_cast<uint64_t>(id), 77), static_cast<uint64_t>(i));
      result.values[i] += sign(key) * (terms * unit * sums[i] + (matters ? zeroed : 0));
      if (tensor_cores && node.op->kernel == KernelKind::convolution)
        result.values[i] = round_to(operand, result.values[i]);
    }
  }

  // The bf16 products of AVX-512 take numbers below the normal ones as 0, and give 0 for them. How much that may be in
  // each sum; empty for other types.
  static std::vector<double> flushed_sums(const Node& node, const std::vector<InterpretedTensor>& magnitudes,
                                          double terms) {
    constexpr double kLeastNormal = 0x1p-126;
    const bool products = node.op->kernel == KernelKind::gemm || node.op->kernel == KernelKind::convolution;
    if (!products || magnitudes[0].type.dtype != DType::bf16) return {};
    std::vector<double> lost(static_cast<size_t>(node.results[0].element_count()), terms * kLeastNormal);
    for (size_t k = 0; k < 2; ++k) {
      InterpretedTensor below = magnitudes[k];
      bool any = false;
      for (double& v : below.values) v = v < kLeastNormal ? v : 0, any |= v != 0;
      if (!any) continue;
      const std::vector<const InterpretedTensor*> pointers{k == 0 ? &below : &magnitudes[0],
                                                           k == 1 ? &below : &magnitudes[1]};
      const std::vector<double> sums = interpret_node(node, pointers, Rounding::none)[0].values;
      for (size_t i = 0; i < lost.size(); ++i) lost[i] += sums[i];
    }
    return lost;
  }

  // An upper bound of how many terms an element sums.
  static int64_t largest_sum(const Node& node, std::span<const InterpretedTensor* const> operands) {
    const int64_t results = std::max<int64_t>(1, node.results[0].element_count());
    if (node.op->kernel == KernelKind::reduction) return operands[0]->type.element_count() / results + 1;
    int64_t most = 1;
    for (const InterpretedTensor* operand : operands)
      if (operand) most = std::max(most, operand->type.element_count());
    return most;
  }

  void move_scatter(NodeId id, const Node& node, std::span<const InterpretedTensor* const> operands,
                    InterpretedTensor& result) {
    const std::string& reduction = node.attributes.text("reduction");
    if (reduction != "add" && reduction != "mul") return;
    InterpretedTensor data = *operands[0], updates = *operands[2];
    const double smallest = std::min(quantum(data.values), quantum(updates.values));
    for (double& v : data.values) v = std::abs(v);
    for (double& v : updates.values) v = std::abs(v);
    const std::vector<const InterpretedTensor*> magnitudes{&data, operands[1], &updates};
    const std::vector<double> sums = interpret_node(node, magnitudes, Rounding::none)[0].values;
    const double terms = static_cast<double>(operands[1]->type.element_count()) + 1;
    for (size_t i = 0; i < result.values.size(); ++i) {
      if (!std::isfinite(result.values[i]) || (reduction == "add" && is_exact(sums[i], smallest))) continue;
      result.values[i] +=
          sign(mix(mix(static_cast<uint64_t>(id), 78), static_cast<uint64_t>(i))) * terms * kUnit * sums[i];
    }
  }

  void round(const Node& node, InterpretedTensor& result) const {
    const DType type = result.type.dtype;
    const bool everything = p_.rounded == Rounded::everything && is_floating(type);
    if (everything && is_low(type) && node.op->name == "cast" && node.origin.phase == Phase::backward)
      return round_gradient(result);
    if (!is_floating(type) || is_low(type) || p_.rounded == Rounded::to_type)
      for (double& v : result.values) v = round_to(type, v);
    if (!everything || !is_rounded(node)) return;
    const bool wide = p_.mixed && mix(hash_of(node.op->name), p_.run) % 2 == 0;
    const DType to = wide ? DType::f32 : p_.type;
    const double least = keeps_exponents(node, result) ? 0x1p-1000 : least_of(to);
    for (double& v : result.values) v = rounded(v, to, least, is_nearest(node));
  }

  void round_gradient(InterpretedTensor& result) const {
    const DType type = result.type.dtype;
    if (p_.run % 4 == 0) return;
    for (double& v : result.values) v = rounded(v, type, least_of(type), false);
  }

  bool is_nearest(const Node& node) const { return p_.nearest && node.origin.phase != Phase::backward; }

  // What is only moved stays as it is, but where several sources become one tensor they are of one type.
  static bool is_rounded(const Node& node) {
    const std::string_view name = node.op->name;
    if (name == "constant") return node.results[0].element_count() != 1;
    if (name == "pad") return node.attributes.number("value") != 0;
    return node.op->kernel != KernelKind::movement || name == "concat" || name == "scatter";
  }

  // Constants below a type's normal numbers are not rounded to it (passes/precision/precision_needs.h), nor what they
  // are put beside. What becomes that small in a computation is.
  bool keeps_exponents(const Node& node, const InterpretedTensor& result) const {
    const std::string_view name = node.op->name;
    if (name == "pad" || name == "concat") return true;
    if (name == "scatter")
      return node.attributes.text("reduction") != "add" && node.attributes.text("reduction") != "mul";
    const double normal = p_.type == DType::f16 ? 0x1p-14 : 0x1p-126;
    return name == "constant" && std::ranges::all_of(result.values, [&](double v) { return !(std::abs(v) >= normal); });
  }

  static double least_of(DType type) {
    return type == DType::f16 ? 0x1p-24 : type == DType::bf16 ? 0x1p-133 : 0x1p-149;
  }

  double rounded(double v, DType type, double least, bool nearest) const {
    if (v == 0 || !std::isfinite(v)) return v;
    const int digits = type == DType::f16 ? 11 : type == DType::bf16 ? 8 : 24;
    const double step = std::max(std::ldexp(1, std::ilogb(v) - digits + 1), least);
    if (nearest) return std::nearbyint(v / step) * step;
    const double below = std::floor(v / step);
    if (below * step == v) return v;
    return (below + (sign(std::bit_cast<uint64_t>(v)) > 0 ? 1 : 0)) * step;
  }

  const Graph& graph_;
  const NamedTensors& leaves_;
  const Perturbation& p_;
  const Observe observe_;
  std::vector<std::vector<InterpretedTensor>> values_;
};

}  // namespace

InterpretResult interpret_perturbed(const Graph& graph, const NamedTensors& leaves, const Perturbation& perturbation,
                                    const Observe& observe) {
  return Run(graph, leaves, perturbation, observe).run();
}

InterpretResult interpret_exactly(const Graph& graph, const NamedTensors& leaves, const Observe& observe) {
  return Run(graph, leaves, {.rounded = Rounded::low_only}, observe).run();
}

}  // namespace halfstep::fuzz
