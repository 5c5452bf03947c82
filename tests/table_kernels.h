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

inline void check_graph_on(DeviceKind device, const Graph& graph, const NamedTensors& leaves, double tolerance) {
  const InterpretResult expected = interpret(graph, leaves);
  const NamedTensors found = compile_graph(graph, device).run(leaves);
  for (const auto& [output, value] : expected.outputs) {
    SCOPED_TRACE("output " + to_string(output));
    expect_near_interpreter(value, found.at(output), tolerance);
  }
}

// A flat concat of nothing but copies, whose memory is not used again before it is read.
inline void check_copied_arena_on(DeviceKind device) {
  const Graph graph = parse_graph(R"(graph g {
    %a = input() {name="a"} : f32[64]
    %b = input() {name="b"} : f32[64]
    %x = input() {name="x"} : f32[64,256]
    %w = input() {name="w"} : f32[256,48]
    %a1 = slice(%a) {limits=[48], starts=[16], steps=[1]}
    %b1 = slice(%b) {limits=[16], starts=[0], steps=[1]}
    %c = concat(%a1, %b1) {axis=0}
    %t = exp(%x)
    %m = matmul(%t, %w)
    %r = reshape(%c) {shape=[1,48]}
    %s = broadcast(%r) {shape=[64,48]}
    %y = add(%m, %s)
    output "y" = %y
  })");
  check_graph_on(device, graph, random_leaves(graph, 4), 1e-4);
}

// So many rows that a thread does three vectors of them, the last threads fewer: rows of 13 vectors, and a plain one.
inline void check_many_rows_on(DeviceKind device) {
  for (const char* text : {R"(graph rows {
    %x = input() {name="x"} : f16[130001,104]
    %b = input() {name="b"} : f32[104]
    %t = cast(%x) {to=f32}
    %r = reshape(%b) {shape=[1,104]}
    %w = broadcast(%r) {shape=[130001,104]}
    %s = mul(%t, %w)
    %y = cast(%s) {to=f16}
    output "y" = %y
  })",
                           R"(graph plain {
    %x = input() {name="x"} : f16[9000008]
    %y = neg(%x)
    output "y" = %y
  })",
                           R"(graph pieces {
    %x = input() {name="x"} : f16[40001,64]
    %z = input() {name="z"} : f16[40001,32]
    %b = input() {name="b"} : f16[1,64]
    %w = broadcast(%b) {shape=[40001,64]}
    %s = mul(%x, %w)
    %c = concat(%s, %z) {axis=1}
    output "c" = %c
  })",
                           R"(graph planes {
    %x = input() {name="x"} : f32[5,3,97,96]
    %t = transpose(%x) {permutation=[0,2,3,1]}
    %p = pad(%t) {low=[0,0,0,0], high=[0,0,0,1]}
    %y = cast(%p) {to=f16}
    output "y" = %y
  })",
                           R"(graph columns_in_place {
    %x = input() {name="x"} : f16[40001,64]
    %w = input() {name="w"} : f16[64,64]
    %m = input() {name="m"} : f16[40001,64]
    %t = matmul(%x, %w)
    %p = mul(%t, %m)
    %f = cast(%p) {to=f32}
    %s = reduce_sum(%f) {axes=[0]}
    %z = matmul(%p, %w)
    output "s" = %s
    output "z" = %z
  })"}) {
    const Graph graph = parse_graph(text);
    check_graph_on(device, graph, random_leaves(graph, 5), table_tolerance(DType::f16));
  }
}

inline void check_samples_on(DeviceKind device, DType element, const std::vector<OpSample>& samples) {
  for (const OpSample& sample : samples) {
    SCOPED_TRACE(std::string(sample.op) + " " + std::string(sample.inputs) + " {" + std::string(sample.attributes) +
                 "}");
    const Graph graph = parse_graph(sample_text(sample, name(element)));
    check_graph_on(device, graph, random_leaves(graph, 21, sample.low, sample.high, sample.bound),
                   table_tolerance(element));
  }
}

inline void check_table_on(DeviceKind device, DType element) {
  EXPECT_GT(op_samples().size(), 70u);
  check_samples_on(device, element, op_samples());
  check_samples_on(device, element, long_samples());
}

}  // namespace halfstep
