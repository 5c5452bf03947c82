// Attention as a call against its expansion, which the interpreter evaluates.
#include <fmt/format.h>

#include "tests/gpu/gpu_test.h"
#include "tests/table_kernels.h"

namespace halfstep {
namespace {

struct Form {
  std::string type, query, key, value, y, attributes;
};

std::string graph_text(const Form& f) {
  return fmt::format(
      R"(graph g {{
  %q = input() {{name="q"}} : {0}{1}
  %k = input() {{name="k"}} : {0}{2}
  %v = input() {{name="v"}} : {0}{3}
  %dy = input() {{name="dy"}} : {0}{4}
  %y, %s = flash_attention(%q, %k, %v) {{{5}}}
  %dq, %dk, %dv = flash_attention_grad(%dy, %y, %s, %q, %k, %v) {{{5}}}
  output "y" = %y
  output "s" = %s
  output "dq" = %dq
  output "dk" = %dk
  output "dv" = %dv
}})",
      f.type, f.query, f.key, f.value, f.y, f.attributes);
}

// q, k and v in one value, and their gradients too.
std::string packed_text(const std::string& type, const std::string& qkv, const std::string& y,
                        const std::string& attributes) {
  return fmt::format(
      R"(graph g {{
  %qkv = input() {{name="qkv"}} : {0}{1}
  %dy = input() {{name="dy"}} : {0}{2}
  %y, %s = flash_attention(%qkv) {{{3}}}
  %dqkv = flash_attention_grad(%dy, %y, %s, %qkv) {{{3}}}
  output "y" = %y
  output "s" = %s
  output "dqkv" = %dqkv
}})",
      type, qkv, y, attributes);
}

void expect_as_expanded(const std::string& text, double tolerance) {
  SCOPED_TRACE(text);
  const Graph graph = parse_graph(text);
  const NamedTensors leaves = random_leaves(graph, 5, -1.5, 1.5);
  const InterpretResult expected = interpret(graph, leaves);
  const NamedTensors found = compile_graph(graph, DeviceKind::cuda, LibraryCalls::keep).run(leaves);
  for (const auto& [output, value] : expected.outputs) {
    SCOPED_TRACE("output " + to_string(output));
    expect_near_interpreter(value, found.at(output), tolerance);
  }
}

class AttentionCall : public GpuTest {};

TEST_F(AttentionCall, GivesWhatItsExpansionDoesOnTheGpu) {
  const Form causal{"f16", "[2,96,4,64]", "[2,96,4,64]", "[2,96,4,64]", "[2,96,4,64]", "scale=0.125, causal=1"};
  std::vector<Form> forms{causal};
  const auto add = [&](auto change) {
    forms.push_back(causal);
    change(forms.back());
  };
  add([](Form& f) { f.type = "bf16"; });
  add([](Form& f) { f.attributes = "scale=0.125"; });
  add([](Form& f) { f.attributes = "scale=0.125, causal=1, deterministic=1"; });
  add([](Form& f) { f.key = f.value = "[2,96,2,64]"; });
  add([](Form& f) { f.key = "[2,77,4,64]", f.value = "[2,77,4,64]"; });
  add([](Form& f) { f.query = f.key = "[2,96,4,32]"; });
  add([](Form& f) { f.query = f.y = "[2,7,4,64]"; });
  for (const Form& form : forms) expect_as_expanded(graph_text(form), form.type == "f16" ? 3e-3 : 2e-2);
}

TEST_F(AttentionCall, TakesOperandsBesideEachOther) {
  expect_as_expanded(packed_text("f16", "[2,96,12,64]", "[2,96,4,64]", "scale=0.125, causal=1, key_heads=4"), 3e-3);
  expect_as_expanded(packed_text("f16", "[3,197,12,64]", "[3,197,4,64]", "scale=0.125, key_heads=4"), 3e-3);
  expect_as_expanded(packed_text("f16", "[2,96,8,64]", "[2,96,4,64]", "scale=0.125, causal=1, key_heads=2"), 3e-3);
  expect_as_expanded(packed_text("f16", "[2,80,12,32]", "[2,80,4,32]", "scale=0.125, deterministic=1, key_heads=4"),
                     3e-3);
  expect_as_expanded(packed_text("bf16", "[2,96,12,64]", "[2,96,4,64]", "scale=0.125, causal=1, key_heads=4"), 2e-2);
}

}  // namespace
}  // namespace halfstep
