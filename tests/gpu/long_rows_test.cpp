// Losses over more classes than a warp's registers hold: rows of blocks, kept in registers and read again; padded
// classes, labels at every place of a vector, and logits that are no numbers.
#include <cmath>
#include <limits>

#include "base/philox.h"
#include "ir/text.h"
#include "tests/compiled_graph.h"
#include "tests/gpu/gpu_test.h"

namespace halfstep {
namespace {

class LongRowsOnTheGpu : public GpuTest {};

// Of [rows, padded] logits the first `classes`: the label's logit below the greatest, the sum of exponentials, where
// the greatest is, and the gradient.
std::string loss_text(int64_t rows, int64_t classes, int64_t padded) {
  const std::string full = "[" + std::to_string(rows) + "," + std::to_string(padded) + "]", n = std::to_string(rows);
  return "graph loss {\n %x = input() {name=\"x\"} : f16" + full + "\n %l = input() {name=\"l\"} : i64[" + n +
         ",1]\n %p = iota() {shape=" + full + ", axis=1}\n %k = constant() {value=i64[1,1](" + std::to_string(classes) +
         ")}\n %end = broadcast(%k) {shape=" + full + "}\n %inside = less(%p, %end)\n %i = constant() " +
         "{value=f16[1,1](-inf)}\n %none = broadcast(%i) {shape=" + full + "}\n %h = select(%inside, %x, %none)\n" +
         " %f = cast(%h) {to=f32}\n %m = reduce_max(%f) {axes=[1]}\n %w = broadcast(%m) {shape=" + full +
         "}\n %s = sub(%f, %w)\n %e = exp(%s)\n %t = reduce_sum(%e) {axes=[1]}\n %d = broadcast(%l) {shape=" + full +
         "}\n %o = eq(%p, %d)\n %z = constant() {value=f32[1,1](0)}\n %zero = broadcast(%z) {shape=" + full +
         "}\n %q = select(%o, %s, %zero)\n %r = reduce_sum(%q) {axes=[1]}\n %g = eq(%f, %w)\n %b = constant() " +
         "{value=i64[1,1](" + std::to_string(padded) + ")}\n %behind = broadcast(%b) {shape=" + full +
         "}\n %a = select(%g, %p, %behind)\n %first = reduce_min(%a) {axes=[1]}\n %c = reciprocal(%t)\n" +
         " %u = broadcast(%c) {shape=" + full + "}\n %y = mul(%e, %u)\n %one = constant() {value=f32[1,1](1)}\n" +
         " %ones = broadcast(%one) {shape=" + full + "}\n %v = sub(%y, %ones)\n %dx = select(%o, %v, %y)\n" +
         " %low = cast(%dx) {to=f16}\n output \"sum\" = %t\n output \"picked\" = %r\n output \"first\" = %first\n" +
         " output \"gradient\" = %low\n}\n";
}

TEST_F(LongRowsOnTheGpu, LossesAreTheCpus) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr int64_t kRows = 24;
  for (const auto& [classes, padded] : {std::pair<int64_t, int64_t>{1309, 1312}, {30522, 30528}, {50257, 50264}}) {
    Tensor x({DType::f16, {kRows, padded}}), labels({DType::i64, {kRows, 1}});
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < padded; ++c)
        x.set(r * padded + c, 16 * philox_uniform(7, 0, 0, static_cast<uint64_t>(r * padded + c)) - 8);
      labels.set(r, static_cast<double>(r < 10 ? r : r == 10 ? -100 : classes - r + 10));
    }
    for (int64_t c = 0; c < padded; ++c) x.set(14 * padded + c, -kInfinity), x.set(15 * padded + c, 3);
    x.set(12 * padded + 900, kInfinity), x.set(13 * padded + 900, std::nan("")), x.set(16 * padded + 8, -kInfinity);
    const Graph graph = parse_graph(loss_text(kRows, classes, padded));
    const auto on = [&](DeviceKind device) { return compile_graph(graph, device).run({{"x", x}, {"l", labels}}); };
    const NamedTensors wanted = on(DeviceKind::cpu), found = on(DeviceKind::cuda);
    for (const auto& [name, tensor] : wanted)
      for (int64_t i = 0; i < tensor.type.element_count(); ++i) {
        const double a = tensor.at(i), b = found.at(name).at(i);
        const bool same = a == b || (std::isnan(a) && std::isnan(b));
        const double bound = tensor.type.dtype == DType::f32 ? 2e-5 : 2e-3;
        ASSERT_TRUE(same || std::abs(a - b) <= 1e-7 + bound * std::abs(a))
            << to_string(name) << " " << i << ": " << a << " and " << b;
      }
  }
}

}  // namespace
}  // namespace halfstep
