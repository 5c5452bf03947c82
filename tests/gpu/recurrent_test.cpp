// Recurrent networks as a call against their expansion, which the interpreter evaluates.
#include "base/recurrent.h"

#include <fmt/format.h>

#include "tests/gpu/gpu_test.h"
#include "tests/table_kernels.h"

namespace halfstep {
namespace {

struct Form {
  RecurrentSizes sizes;
  bool h = false, c = false;          // given
  bool last_h = true, last_c = true;  // with cotangents
};

std::string graph_text(const Form& f, std::string_view type, bool gradients) {
  const RecurrentSizes& s = f.sizes;
  const std::string state = fmt::format("{}[{},{},{}]", type, s.layers * s.directions, s.batch, s.hidden),
                    y = fmt::format("{}[{},{},{}]", type, s.steps, s.batch, s.directions * s.hidden),
                    attributes = fmt::format("cell=\"{}\", hidden={}, layers={}, directions={}, bias={}, training={}",
                                             name(s.cell), s.hidden, s.layers, s.directions, s.biased ? 1 : 0,
                                             gradients ? 1 : 0);
  std::string text = fmt::format(
      "graph g {{\n  %x = input() {{name=\"x\"}} : {0}[{1},{2},{3}]\n"
      "  %w = input() {{name=\"w\"}} : {0}[{4}]\n",
      type, s.steps, s.batch, s.inputs, weight_count(s));
  const auto input = [&](bool given, const char* leaf, const std::string& of) {
    if (given) text += fmt::format("  %{0} = input() {{name=\"{0}\"}} : {1}\n", leaf, of);
    return given ? fmt::format("%{}", leaf) : std::string("_");
  };
  const std::string h = input(f.h, "h", state), c = input(f.c, "c", state);
  const std::string c_last = s.has_c() ? "%cl, " : "";
  text +=
      fmt::format("  %y, %hl, {}%r = recurrent(%x, %w, {}, {}) {{{}}}\n  output \"y\" = %y\n  output \"hl\" = %hl\n",
                  c_last, h, c, attributes);
  if (s.has_c()) text += "  output \"cl\" = %cl\n";
  if (!gradients) return text + "}\n";
  const std::string dy = input(true, "dy", y), dh = input(f.last_h, "dhl", state),
                    dc = input(s.has_c() && f.last_c, "dcl", state);
  std::vector<std::string> results{"dx", "dw"};
  if (f.h) results.push_back("dh");
  if (f.c) results.push_back("dc");
  text += fmt::format("  %{} = recurrent_grad({}, {}, {}, %x, %w, %y, %r, {}, {}) {{{}}}\n", fmt::join(results, ", %"),
                      dy, dh, dc, h, c, attributes);
  for (const std::string& r : results) text += fmt::format("  output \"{0}\" = %{0}\n", r);
  return text + "}\n";
}

std::vector<Form> forms() {
  const RecurrentSizes small{.steps = 7, .batch = 3, .inputs = 5, .hidden = 3};
  std::vector<Form> all;
  for (const RecurrentCell cell : {RecurrentCell::lstm, RecurrentCell::gru, RecurrentCell::tanh, RecurrentCell::relu})
    for (const int64_t layers : {1, 2})
      for (const int64_t directions : {1, 2}) {
        Form form{.sizes = small};
        form.sizes.cell = cell, form.sizes.layers = layers, form.sizes.directions = directions;
        form.h = directions == layers, form.c = form.h && form.sizes.has_c();
        form.sizes.biased = directions == 1 || layers == 1;
        form.last_h = layers == 1, form.last_c = directions == 1;
        all.push_back(form);
      }
  Form wide{.sizes = {.steps = 12, .batch = 8, .inputs = 64, .hidden = 64, .layers = 2}};
  all.push_back(wide);
  wide.sizes.cell = RecurrentCell::gru, wide.sizes.inputs = 40, wide.sizes.directions = 2;
  all.push_back(wide);
  all.push_back({.sizes = {.steps = 1, .batch = 1, .inputs = 1, .hidden = 1}});
  return all;
}

class RecurrentCall : public GpuTest {
 protected:
  void expect_expansion(std::string_view type, double tolerance) {
    for (const Form& form : forms())
      for (const bool gradients : {true, false}) {
        const std::string text = graph_text(form, type, gradients);
        SCOPED_TRACE(text);
        const Graph graph = parse_graph(text);
        // A relu near 0 is another one after a rounding: of positive numbers it never is.
        const double low = form.sizes.cell == RecurrentCell::relu ? 0.05 : -0.5;
        const NamedTensors leaves = random_leaves(graph, 5, low, 0.5);
        const InterpretResult expected = interpret(graph, leaves);
        CompiledGraph compiled = compile_graph(graph, DeviceKind::cuda, LibraryCalls::keep);
        const NamedTensors found = compiled.run(leaves), again = compiled.run(leaves);
        for (const auto& [output, value] : expected.outputs) {
          SCOPED_TRACE("output " + to_string(output));
          expect_near_interpreter(value, found.at(output), tolerance);
          EXPECT_EQ(found.at(output).data, again.at(output).data) << "the same bits each time";
        }
      }
  }
};

TEST_F(RecurrentCall, GivesWhatItsExpansionDoesOnTheGpuInF32) { expect_expansion("f32", 2e-5); }
TEST_F(RecurrentCall, GivesWhatItsExpansionDoesOnTheGpuInF16) { expect_expansion("f16", 3e-3); }
TEST_F(RecurrentCall, GivesWhatItsExpansionDoesOnTheGpuInBf16) { expect_expansion("bf16", 2e-2); }

// What the forward keeps is written over by a gradient: the second one still reads what the first one did.
TEST_F(RecurrentCall, TwoGradientsOfOneForward) {
  const Graph graph = parse_graph(R"(graph g {
    %x = input() {name="x"} : f16[6,4,8]
    %w = input() {name="w"} : f16[576]
    %d = input() {name="d"} : f16[6,4,8]
    %e = input() {name="e"} : f16[6,4,8]
    %y, %h, %c, %r = recurrent(%x, %w) {cell="lstm", hidden=8}
    %dx, %dw = recurrent_grad(%d, _, _, %x, %w, %y, %r) {cell="lstm", hidden=8}
    %ex, %ew = recurrent_grad(%e, _, _, %x, %w, %y, %r) {cell="lstm", hidden=8}
    output "dx" = %dx
    output "dw" = %dw
    output "ex" = %ex
    output "ew" = %ew
  })");
  const NamedTensors leaves = random_leaves(graph, 5, -0.5, 0.5);
  const InterpretResult expected = interpret(graph, leaves);
  const NamedTensors found = compile_graph(graph, DeviceKind::cuda, LibraryCalls::keep).run(leaves);
  for (const auto& [output, value] : expected.outputs) {
    SCOPED_TRACE("output " + to_string(output));
    expect_near_interpreter(value, found.at(output), 3e-3);
  }
}

}  // namespace
}  // namespace halfstep
