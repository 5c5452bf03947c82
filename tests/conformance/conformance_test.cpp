// The cases of the ONNX conformance suite, compiled and executed, on the CPU and, where there is one, on the GPU.
// Arguments: folders of cases; default: Debian's libonnx-testdata, where it is installed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "frontend/import/import.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "tests/compiled_graph.h"
#include "tests/conformance/agreement.h"
#include "tests/conformance/table.h"
#include "tests/gpu/gpu_test.h"
#include "tests/recorded.h"

namespace halfstep::conformance {
namespace {

namespace fs = std::filesystem;

struct Suite {
  std::string title;
  fs::path root;
  size_t floor;  // cases that agree at least
};

const std::vector<Suite> kInstalled{{"Debian libonnx-testdata 1.12", "/usr/share/libonnx-testdata/data", 984}};

std::vector<Suite>& suites() {
  static std::vector<Suite> chosen = kInstalled;
  return chosen;
}

// Operands that the suite feeds at run time but that must be known when a model is compiled.
enum class Known { none, integers, all_but_first, all };

struct ImportedCase {
  const SuiteCase* suite_case;
  Graph graph;  // its only leaves are inputs
  NamedTensors leaves;
};

// Weights become inputs: programs of one executor share their states by name.
Graph with_inputs_only(const Graph& graph) {
  return rewrite(graph, [](Builder& b, const Node& node, std::span<const Value>) -> std::vector<Value> {
    if (!is_leaf(*node.op) || node.op->name == "input") return {};
    return {b.input(leaf_name(node), node.results[0])};
  });
}

ImportedCase import_knowing(const SuiteCase& suite_case, Known known) {
  onnx::ModelProto model = suite_case.model;
  // The suite's oldest models are of operators that did not change until opset 7.
  for (auto& opset : *model.mutable_opset_import())
    if (canonical_domain(opset.domain()).empty()) opset.set_version(std::max(opset.version(), kOldestOpset));
  ImportedCase result{&suite_case, Builder("none").graph(), {}};
  const TensorReader reader(suite_case.directory);
  for (size_t i = 0; i < suite_case.inputs.size(); ++i) {
    const onnx::TensorProto& tensor = suite_case.inputs[i];
    const bool floating = is_floating(element_type(tensor.data_type()).value_or(DType::f32));
    if ((known == Known::integers && !floating) || (known == Known::all_but_first && i > 0) || known == Known::all)
      *model.mutable_graph()->add_initializer() = tensor;
  }
  const OnnxFile file{suite_case.name, model.SerializeAsString(), suite_case.directory};
  const ImportedModel imported = import_model(file, {.mode = ImportMode::as_exported});
  for (const onnx::TensorProto& tensor : suite_case.inputs) result.leaves[tensor.name()] = reader.read(tensor);
  result.graph = with_inputs_only(imported.graph);
  for (const auto& [name, value] : imported.weights) result.leaves[name] = value;
  result.leaves[kStepSeed] = Tensor::scalar(DType::i64, 1);
  result.leaves[kStepIteration] = Tensor::scalar(DType::i32, 0);
  return result;
}

// Throws the last Error if the case is refused however much is known.
ImportedCase import_case(const SuiteCase& suite_case) {
  for (Known known : {Known::none, Known::integers, Known::all_but_first}) try {
      return import_knowing(suite_case, known);
    } catch (const Error&) {
    }
  return import_knowing(suite_case, Known::all);
}

Outputs executed(Executor& executor, const ImportedCase& imported) {
  Outputs outputs;
  for (const auto& [name, tensor] : run_program(executor, imported.suite_case->name, imported.leaves))
    outputs[name.text] = {tensor.type, tensor.values()};
  return outputs;
}

// Many cases as the programs of one model: modules and executors cost more than most cases do.
std::unique_ptr<Executor> compile(std::span<const ImportedCase> cases, DeviceKind device) {
  KernelModule module = kernel_module(device);
  CompiledModel model;
  model.device = device;
  model.architecture = module.target().architecture;
  for (const ImportedCase& imported : cases) {
    LoweredProgram lowered =
        lower(fuse(simplify(expand_composites(imported.graph))), imported.suite_case->name, module);
    model.programs.push_back(std::move(lowered.program));
    model.state.merge(lowered.constants);
  }
  model.kernels = module.finish();
  return make_executor(std::move(model), kTestExecutor);
}

class SuiteRun {
 public:
  SuiteRun(const Suite& suite, DeviceKind device) : suite_(suite), device_(device), cases_(read_suite(suite.root)) {}

  void run() {
    for (const SuiteCase& suite_case : cases_) interpret_case(suite_case);
    constexpr size_t kBatch = 128;
    for (size_t begin = 0; begin < imported_.size(); begin += kBatch)
      execute_batch(std::span(imported_).subspan(begin, std::min(kBatch, imported_.size() - begin)));
  }

  const Outcomes& outcomes() const { return outcomes_; }
  std::string text() const {
    std::map<std::string, std::set<std::string>> operators;
    for (const SuiteCase& suite_case : cases_) operators[suite_case.name] = operators_of(suite_case.model);
    return section(suite_.title, outcomes_, operators);
  }

 private:
  void interpret_case(const SuiteCase& suite_case) {
    Outcome& outcome = outcomes_[suite_case.name];
    try {
      ImportedCase imported = import_case(suite_case);
      const std::string wrong = disagreement(suite_case, interpret(imported.graph, imported.leaves).outputs);
      if (wrong.empty())
        imported_.push_back(std::move(imported));
      else
        outcome = {Outcome::wrong, "interpreted: " + wrong};
    } catch (const Error& error) {
      outcome = {Outcome::refused, error.what()};
    } catch (const std::exception& error) {
      outcome = {Outcome::wrong, error.what()};
    }
  }

  // A batch that does not compile is halved until the case at fault is alone.
  void execute_batch(std::span<const ImportedCase> batch) {
    std::unique_ptr<Executor> executor;
    try {
      executor = compile(batch, device_);
    } catch (const std::exception& error) {
      if (batch.size() == 1) return mark_wrong(batch[0], error.what());
      execute_batch(batch.first(batch.size() / 2));
      return execute_batch(batch.subspan(batch.size() / 2));
    }
    for (const ImportedCase& imported : batch) try {
        const std::string wrong = disagreement(*imported.suite_case, executed(*executor, imported));
        if (!wrong.empty()) mark_wrong(imported, wrong);
      } catch (const std::exception& error) {
        mark_wrong(imported, error.what());
      }
  }

  void mark_wrong(const ImportedCase& imported, const std::string& why) {
    outcomes_[imported.suite_case->name] = {Outcome::wrong, "compiled: " + why};
  }

  const Suite& suite_;
  const DeviceKind device_;
  const std::vector<SuiteCase> cases_;
  Outcomes outcomes_;
  std::vector<ImportedCase> imported_;
};

// A refusal names its operator, the value whose type it is about, or the opset.
bool named(const std::string& why) {
  if (!refused_operator(why).empty()) return true;
  const std::vector<std::string> places{"input '", "output '", "tensor '", "opset "};
  return std::ranges::any_of(places, [&](const std::string& place) { return why.starts_with(place); });
}

void check_suites(DeviceKind device) {
  for (const Suite& suite : suites()) {
    if (!fs::exists(suite.root)) GTEST_SKIP() << suite.root << " is not installed";
    SuiteRun run(suite, device);
    run.run();
    size_t agree = 0;
    for (const auto& [name, outcome] : run.outcomes()) {
      agree += outcome.kind == Outcome::agrees;
      EXPECT_NE(outcome.kind, Outcome::wrong) << name << ": " << outcome.why;
      EXPECT_TRUE(outcome.kind != Outcome::refused || named(outcome.why)) << name << ": " << outcome.why;
    }
    EXPECT_GE(agree, suite.floor);
    const fs::path path = source_directory() / "docs" / "conformance.md";
    const std::string text = run.text(), page = fs::exists(path) ? read_file(path) : "";
    std::cout << text;
    if (std::getenv("UPDATE_EXPECTED"))
      write_file_atomically(path, with_section(page, suite.title, text));
    else
      EXPECT_EQ(text, section_of(page, suite.title)) << path << ": run with UPDATE_EXPECTED=1";
  }
}

TEST(Conformance, CasesAgreeOnTheCpu) { check_suites(DeviceKind::cpu); }

TEST(Conformance, CasesAgreeOnTheGpu) {
  if (driver_device_count() == 0) GTEST_SKIP() << "no GPU";
  check_suites(DeviceKind::cuda);
}

}  // namespace
}  // namespace halfstep::conformance

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  using namespace halfstep::conformance;
  if (argc > 1) suites().clear();
  for (int i = 1; i < argc; ++i) suites().push_back({fs::path(argv[i]).filename(), argv[i], 0});
  return RUN_ALL_TESTS();
}
