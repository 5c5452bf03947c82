// The whole op table, compiled: every sample gives on a device what the interpreter says.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "ir/interpret.h"
#include "ir/text.h"
#include "tests/compiled_graph.h"
#include "tests/op_samples.h"
#include "tests/random_tensors.h"

namespace halfstep {

// f32 kernels sum in another order and approximate functions to a few units in the last place; a low result may round
// the other way, and a low intermediate value that stays f32 inside a kernel differs by one rounding.
inline double table_tolerance(DType type) { return type == DType::f32 ? 2e-5 : type == DType::f16 ? 3e-3 : 2e-2; }

inline void expect_near_interpreter(const InterpretedTensor& expected, const Tensor& found, double tolerance) {
  ASSERT_EQ(found.type, expected.type);
  double scale = 1;
  for (double v : expected.values)
    if (std::isfinite(v)) scale = std::max(scale, std::abs(v));
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const double e = expected.values[i], f = found.at(static_cast<int64_t>(i));
    if (std::isnan(e) && std::isnan(f)) continue;
    if (is_floating(expected.type.dtype) && std::isfinite(e))
      ASSERT_NEAR(f, e, tolerance * scale) << "element " << i;
    else
      ASSERT_EQ(f, e) << "element " << i;
  }
}

// Reductions so long that they are made in parts: rows of one and of several runs, a column, everything.
inline const std::vector<OpSample>& long_samples() {
  static const std::vector<OpSample> samples{{"reduce_sum", "{f}[2,40000]", "axes=[1]"},
                                             {"reduce_sum", "{f}[64,3,1024]", "axes=[0,2]"},
                                             {"reduce_max", "{f}[100,2,999]", "axes=[0,2]"},
                                             {"reduce_sum", "{f}[7000,33]", "axes=[0]"},
                                             {"reduce_min", "{f}[70001]", "axes=[0]"}};
  return samples;
}

inline void check_samples_on(DeviceKind device, DType element, const std::vector<OpSample>& samples) {
  for (const OpSample& sample : samples) {
    SCOPED_TRACE(std::string(sample.op) + " " + std::string(sample.inputs) + " {" + std::string(sample.attributes) +
                 "}");
    const Graph graph = parse_graph(sample_text(sample, name(element)));
    const NamedTensors leaves = random_leaves(graph, 21, sample.low, sample.high, sample.bound);
    const InterpretResult expected = interpret(graph, leaves);
    CompiledGraph compiled = compile_graph(graph, device);
    const NamedTensors found = compiled.run(leaves);
    for (const auto& [output, value] : expected.outputs) {
      SCOPED_TRACE("output " + output);
      expect_near_interpreter(value, found.at(output), table_tolerance(element));
    }
  }
}

inline void check_table_on(DeviceKind device, DType element) {
  EXPECT_GT(op_samples().size(), 70u);
  check_samples_on(device, element, op_samples());
  check_samples_on(device, element, long_samples());
}

}  // namespace halfstep
