// docs/architecture.md, enforced: which folder may include what, how long files are, that every pass has a case.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "ir/op.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

struct FolderRule {
  std::set<std::string> folders;    // whose headers it may include
  std::set<std::string> libraries;  // and which external ones, by the first part of the include
};

// The tables of docs/architecture.md. A row holds what no row below it does; an entry allows its folder with all in it,
// or one header.
const std::map<std::string, FolderRule>& rules() {
  static const std::set<std::string> of_frontend{"fmt", "onnx", "google"};
  static const std::map<std::string, FolderRule> table{
      {"base", {{"base"}, {}}},
      {"ir", {{"base", "ir"}, {"fmt"}}},
      {"frontend/onnx", {{"base", "ir", "frontend/onnx"}, of_frontend}},
      {"frontend/repairs", {{"base", "ir", "frontend/onnx", "frontend/repairs"}, of_frontend}},
      {"frontend/import", {{"base", "ir", "frontend/onnx", "frontend/repairs", "frontend/import"}, of_frontend}},
      {"frontend/operators", {{"base", "ir", "frontend/onnx", "frontend/import", "frontend/operators"}, of_frontend}},
      {"frontend/export",
       {{"base", "ir", "frontend/onnx", "frontend/repairs", "frontend/import/import.h",
         "frontend/import/import_model.h", "frontend/import/respecialise.h", "frontend/export"},
        of_frontend}},
      {"frontend/diagnose",
       {{"base", "ir", "frontend/onnx", "frontend/repairs", "frontend/import", "frontend/diagnose"}, of_frontend}},
      {"passes", {{"base", "ir", "passes"}, {"fmt"}}},
      {"passes/rewrite", {{"base", "ir", "passes/rewrite"}, {"fmt"}}},
      {"passes/model", {{"base", "ir", "passes/rewrite", "passes/model"}, {"fmt"}}},
      {"passes/precision", {{"base", "ir", "passes/rewrite", "passes/precision"}, {"fmt"}}},
      {"passes/training", {{"base", "ir", "passes/rewrite", "passes/training"}, {"fmt"}}},
      {"passes/fusion", {{"base", "ir", "passes/rewrite", "passes/fusion"}, {"fmt"}}},
      {"program", {{"base", "program"}, {"fmt", "zlib.h", "nlohmann"}}},
      {"codegen/target", {{"base", "program/program.h", "codegen/target"}, {"fmt", "llvm", "lld"}}},
      {"codegen/kernel", {{"base", "ir", "codegen/target", "codegen/kernel"}, {"fmt"}}},
      {"codegen/emit",
       {{"base", "ir", "program/program.h", "codegen/target", "codegen/kernel", "codegen/emit"},
        {"fmt", "llvm", "lld"}}},
      {"codegen/lower",
       {{"base", "ir", "program/program.h", "program/program_check.h", "codegen/target", "codegen/kernel",
         "codegen/emit", "codegen/lower"},
        {"fmt"}}},
      {"runtime", {{"base", "program", "runtime"}, {"fmt"}}},
      {"runtime/cpu", {{"base", "program", "runtime"}, {"fmt", "dnnl.hpp", "omp.h"}}},
      {"runtime/cuda",
       {{"base", "program", "runtime"},
        {"fmt", "cuda", "cuda.h", "cudaTypedefs.h", "cuda_runtime_api.h", "cublasLt.h", "cudnn.h", "cudnn_backend.h",
         "library_types.h", "cuda_fp16.h", "nvtx3"}}},
      {"data",
       {{"base", "program/program.h", "program/json_text.h", "data"},
        {"fmt", "nlohmann", "zlib.h", "png.h", "jpeglib.h", "jerror.h"}}},
      {"training", {{"base", "program", "runtime", "data", "training"}, {"fmt", "nlohmann", "zlib.h"}}},
      {"compiler",
       {{"base", "ir", "frontend", "passes", "program", "codegen", "runtime", "data", "training", "compiler"},
        {"fmt", "nlohmann", "toml++"}}},
      {"cli",
       {{"base", "ir", "frontend", "passes", "program", "codegen", "runtime", "data", "training", "compiler", "cli"},
        {"fmt", "nlohmann", "CLI"}}},
      {"cli/page",
       {{"base", "ir", "frontend", "passes", "program", "codegen", "runtime", "data", "training", "compiler", "cli"},
        {"fmt", "nlohmann", "graphviz"}}},
      {"run",
       {{"base", "program", "runtime", "data", "training", "cli/command_texts.h", "cli/guarded.h", "cli/layer_report.h",
         "cli/measure_report.h", "cli/output.h", "cli/predict_report.h", "cli/progress.h", "cli/results.h", "run"},
        {"fmt", "nlohmann"}}},
      {"api", {{"base", "program", "runtime", "data", "training", "api", "include"}, {}}},
      {"api/compiler",
       {{"base", "ir", "frontend", "passes", "program", "codegen", "runtime", "data", "training", "compiler", "api",
         "include"},
        {"fmt", "nlohmann"}}},
      {"include", {{}, {"halfstep", "stddef.h", "stdint.h"}}},
  };
  return table;
}

std::vector<fs::path> sources_of(const std::string& folder) {
  std::vector<fs::path> files;
  const fs::path root = fs::path(HALFSTEP_SOURCE_DIR) / folder;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string extension = entry.path().extension();
    const std::string inside = folder + "/" + fs::relative(entry.path(), root).string();
    const bool has_own_row = std::ranges::any_of(rules(), [&](const auto& row) {
      return row.first.starts_with(folder + "/") && inside.starts_with(row.first + "/");
    });
    if ((extension == ".h" || extension == ".hpp" || extension == ".cpp") && !has_own_row)
      files.push_back(entry.path());
  }
  return files;
}

std::vector<std::string> lines_of(const fs::path& path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Why `include` may not stand in a file of a folder with `rule`; empty: it may.
std::string forbidden(const std::string& include, bool quoted, const FolderRule& rule) {
  if (quoted) {
    for (const std::string& allowed : rule.folders)
      if (include == allowed || include.starts_with(allowed + "/")) return "";
    return "the folder may not include " + include;
  }
  const std::string first = include.substr(0, include.find('/'));
  // The standard library and POSIX have no folder, or one of these.
  static const std::set<std::string> system_folders{"sys", "netinet"};
  static const std::set<std::string> system_headers{"dlfcn.h", "fnmatch.h",   "fcntl.h", "unistd.h",  "signal.h",
                                                    "spawn.h", "immintrin.h", "sched.h", "pthread.h", "cpuid.h"};
  if (include.find('.') == std::string::npos && include.find('/') == std::string::npos) return "";
  if (system_folders.contains(first) || system_headers.contains(include)) return "";
  for (const std::string& library : rule.libraries)
    if (first == library || include == library) return "";
  return "the folder may not include <" + include + ">";
}

TEST(Architecture, EveryArrowIsInTheTable) {
  const std::regex pattern("^\\s*#\\s*include\\s*([<\"])([^>\"]+)[>\"]");
  for (const auto& [folder, rule] : rules())
    for (const fs::path& file : sources_of(folder)) {
      int number = 0;
      for (const std::string& line : lines_of(file)) {
        ++number;
        std::smatch match;
        if (!std::regex_search(line, match, pattern)) continue;
        const std::string why = forbidden(match[2], match[1] == "\"", rule);
        EXPECT_TRUE(why.empty()) << file << ":" << number << ": " << why;
      }
    }
}

TEST(Architecture, ForbiddenArrowsAreSeen) {
  EXPECT_NE(forbidden("passes/fusion/fuse.h", true, rules().at("codegen/kernel")), "");
  EXPECT_NE(forbidden("passes/fusion/fuse.h", true, rules().at("passes/rewrite")), "");
  EXPECT_NE(forbidden("frontend/import/import.h", true, rules().at("frontend/repairs")), "");
  EXPECT_NE(forbidden("onnx/onnx-ml.pb.h", false, rules().at("ir")), "");
  EXPECT_NE(forbidden("runtime/executor.h", true, rules().at("codegen/lower")), "");
  EXPECT_NE(forbidden("cuda_runtime_api.h", false, rules().at("runtime")), "");
  EXPECT_NE(forbidden("llvm/IR/Module.h", false, rules().at("runtime")), "");
  EXPECT_NE(forbidden("llvm/IR/Module.h", false, rules().at("codegen/lower")), "");
  EXPECT_NE(forbidden("compiler/session.h", true, rules().at("api")), "");
  EXPECT_NE(forbidden("cli/output.h", true, rules().at("compiler")), "");
  EXPECT_NE(forbidden("base/error.h", true, rules().at("include")), "");
  EXPECT_EQ(forbidden("program/program.h", true, rules().at("codegen/lower")), "");
  EXPECT_EQ(forbidden("vector", false, rules().at("base")), "");
}

// A folder without a row would be one that nothing holds to its place.
TEST(Architecture, EveryFolderHasARow) {
  std::set<std::string> tops;
  for (const auto& [folder, rule] : rules()) tops.insert(folder.substr(0, folder.find('/')));
  for (const std::string& top : tops)
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(HALFSTEP_SOURCE_DIR) / top)) {
      const std::string extension = entry.path().extension();
      if (extension != ".h" && extension != ".hpp" && extension != ".cpp") continue;
      const std::string file = fs::relative(entry.path(), HALFSTEP_SOURCE_DIR).string();
      EXPECT_TRUE(std::ranges::any_of(rules(), [&](const auto& row) { return file.starts_with(row.first + "/"); }))
          << file;
    }
}

// Every folder is a library of one namespace: two types of one name would be one to the dynamic linker.
TEST(Architecture, TypesOfHeadersHaveNamesOfTheirOwn) {
  const std::regex type("^(class|struct) (\\w+)( final)?( :|\\s*\\{)");
  std::map<std::string, fs::path> seen;
  for (const auto& [folder, rule] : rules())
    for (const fs::path& file : sources_of(folder)) {
      if (file.extension() != ".h") continue;
      for (const std::string& line : lines_of(file)) {
        std::smatch match;
        if (!std::regex_search(line, match, type)) continue;
        const auto [at, added] = seen.emplace(match[2], file);
        EXPECT_TRUE(added) << match[2] << " stands in " << at->second << " and in " << file;
      }
    }
  EXPECT_GE(seen.size(), 100u);
}

TEST(Architecture, FilesStayShort) {
  constexpr size_t kLongestSource = 600, kLongestHeader = 150;
  std::vector<std::string> folders{"tests"};
  for (const auto& [folder, rule] : rules()) folders.push_back(folder);
  for (const std::string& folder : folders)
    for (const fs::path& file : sources_of(folder)) {
      // What a program includes is one header.
      const bool is_short = file.extension() == ".h" && folder != "tests" && folder != "include";
      const size_t limit = is_short ? kLongestHeader : kLongestSource;
      EXPECT_LE(lines_of(file).size(), limit) << file;
    }
}

// Names from files are made safe, and lost output is noticed, in one place.
TEST(Architecture, OnlyOneFilePrints) {
  const std::regex print(R"(fmt::print\(|std::(cout|cerr|clog)|\b(printf|fprintf|puts|fputs|fwrite)\()");
  for (const auto& [folder, rule] : rules())
    for (const fs::path& file : sources_of(folder)) {
      if (file.filename() == "output.cpp") continue;
      for (const std::string& line : lines_of(file))
        EXPECT_FALSE(std::regex_search(line, print)) << file << ": " << line;
    }
}

// What the README shows of the API is what the tests Consumers and Python build and run.
TEST(Architecture, SnippetsOfTheReadmeAreLinesOfTheConsumers) {
  const fs::path root = HALFSTEP_SOURCE_DIR;
  std::set<std::string> lines;
  for (const char* file :
       {"tests/consumers/c/lenet.c", "tests/consumers/cpp/compile_model.cpp", "tests/consumers/cpp/train_compiled.cpp",
        "python/examples/train_numpy.py", "python/examples/train_torch.py"})
    for (const std::string& line : lines_of(root / file)) lines.insert(line);
  bool inside = false;
  int shown = 0, of_python = 0;
  for (const std::string& line : lines_of(root / "README.md")) {
    if (line.starts_with("```")) {
      inside = line == "```c" || line == "```cpp" || line == "```python";
      if (line == "```python") ++of_python;
    } else if (inside) {
      EXPECT_TRUE(lines.contains(line)) << line;
      ++shown;
    }
  }
  EXPECT_GE(shown, 10);
  EXPECT_GE(of_python, 2);
}

TEST(Architecture, EveryPassHasACase) {
  const fs::path cases = fs::path(HALFSTEP_SOURCE_DIR) / "tests" / "passes";
  // Rules and their driver (rules.h) are no pass of their own.
  const std::regex pass("^Graph (\\w+)\\(const Graph& graph");
  int passes = 0;
  for (const auto& [folder, rule] : rules())
    for (const fs::path& file : sources_of(folder)) {
      if (!folder.starts_with("passes") || file.extension() != ".h" || file.filename() == "rules.h") continue;
      for (const std::string& line : lines_of(file)) {
        std::smatch match;
        if (!std::regex_search(line, match, pass)) continue;
        const std::string name = match[1];
        // Two functions of one header share its folder.
        const bool found = fs::is_directory(cases / name) || fs::is_directory(cases / file.stem());
        EXPECT_TRUE(found) << name << " in " << file << " has no case in tests/passes/";
        ++passes;
      }
    }
  EXPECT_GE(passes, 10);
}

// No pass and no emitter names an op to decide a precision or a gradient.
TEST(Architecture, PrecisionAndGradientsAreColumns) {
  const std::regex names_an_op(
      "(->name|\\.name|is\\([^)]*,)\\s*(==|\")\\s*\"?(matmul|convolution|softmax|batch_norm|relu|add|mul|exp)\"");
  for (const char* file : {"passes/precision/autocast.cpp", "passes/training/differentiate.cpp"})
    for (const std::string& line : lines_of(fs::path(HALFSTEP_SOURCE_DIR) / file))
      EXPECT_FALSE(std::regex_search(line, names_an_op)) << file << ": " << line;
}

// Whether a line asks which op a node is, or calls one by its name. An op's name may stand in a message.
bool names_an_op(const std::string& line) {
  static const std::regex asks("op(->|\\.)name\\b"), in_message("std::string\\((\\w+\\.)?op(->|\\.)name\\)"),
      literal("\"(\\w+)\"");
  if (std::regex_search(std::regex_replace(line, in_message, ""), asks)) return true;
  for (std::sregex_iterator at(line.begin(), line.end(), literal); at != std::sregex_iterator(); ++at)
    if (find_op(at->str(1))) return true;
  return false;
}

// What these folders want to know of an op is a column of its row, so that a new op is one row.
TEST(Architecture, CodegenFusionAndResizingNameNoOp) {
  std::vector<fs::path> files{fs::path(HALFSTEP_SOURCE_DIR) / "frontend/import/respecialise.cpp",
                              fs::path(HALFSTEP_SOURCE_DIR) / "frontend/import/respecialise.h"};
  for (const char* folder : {"codegen/target", "codegen/kernel", "codegen/emit", "codegen/lower", "passes/fusion"})
    for (const fs::path& file : sources_of(folder)) files.push_back(file);
  EXPECT_GE(files.size(), 30u);
  // Not of ops: the functions of the C library, and a form of kernels.
  const std::regex other("function\\(emit_|call_library\\(|^      return \"scatter\";");
  for (const fs::path& file : files)
    for (const std::string& line : lines_of(file)) {
      const bool emits = file.parent_path().filename() == "emit" && std::regex_search(line, other);
      EXPECT_TRUE(emits || !names_an_op(line)) << file << ": " << line;
    }
}

TEST(Architecture, NamesOfOpsAreSeen) {
  EXPECT_TRUE(names_an_op("if (node.op->name != wanted) return;"));
  EXPECT_TRUE(names_an_op("  if (row.op == op.name) continue;"));
  EXPECT_TRUE(names_an_op("  b.call(\"reduce_sum\", {x})"));
  EXPECT_TRUE(names_an_op("  {\"relu\", &read_relu},"));
  EXPECT_FALSE(names_an_op("throw Error(std::string(n.op->name) + \" is unknown\");"));
  EXPECT_FALSE(names_an_op("node.attributes.ints(\"strides\")"));
}

}  // namespace
}  // namespace halfstep
