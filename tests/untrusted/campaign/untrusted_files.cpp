// usage: untrusted_files models FOLDER COUNT SEED | operators SEED [EVERY] | readers COUNT SEED | file FILE
//        [--write INDEX FILE] [--seconds S] [--megabytes M]
// Mutants of all models below FOLDER; models of one operator with operands and results left out (every EVERY-th);
// mutants for each reader of files. Prints what failed: a signal, an exception that is no Error, time or memory.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>

#include "base/file.h"
#include "tests/untrusted/cases.h"

namespace {

using namespace halfstep;
using namespace halfstep::test;
namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> words;
  Limits limits;
  int64_t write = -1;
  std::string file;
};

Random random_of(int64_t seed, int64_t index) {
  std::seed_seq sequence{seed, index};
  return Random(sequence);
}

std::vector<std::string> models_below(const std::string& folder) {
  constexpr uintmax_t kLargest = 4 << 20;
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.path().extension() == ".onnx" && entry.file_size() <= kLargest) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Failures of one kind are told once, with where they begin.
int tell(const std::string& what, int64_t tried, const Outcome& outcome) {
  fmt::print("{}: {} cases, {} accepted, {} refused, {} failed\n", what, tried, outcome.accepted, outcome.refused,
             outcome.failures.size());
  for (const Failure& f : outcome.failures) fmt::print("  {}: {}\n", f.index, f.what);
  std::fflush(stdout);
  return outcome.failures.empty() ? 0 : 1;
}

int run(const Options& options) {
  const std::vector<std::string>& words = options.words;
  const TemporaryDirectory directory;
  const auto number = [&](size_t i) { return i < words.size() ? std::atoll(words[i].c_str()) : 0; };
  const auto write = [&](const std::string& bytes) {
    std::ofstream(options.file, std::ios::binary) << bytes;
    return 0;
  };
  if (words.at(0) == "models") {
    const std::vector<std::string> paths = models_below(words.at(1));
    if (paths.empty()) return 2;
    const auto make = [&](int64_t i) {
      Random random = random_of(number(3), i);
      return mutated_model(read_file(paths[static_cast<size_t>(i) % paths.size()]), random);
    };
    if (options.write >= 0) return write(make(options.write));
    return tell(
        fmt::format("mutants of {} models", paths.size()), number(2),
        run_cases(0, number(2), options.limits, [&](int64_t i) { check_bytes(make(i), directory.path().string()); }));
  }
  if (words.at(0) == "operators") {
    const std::vector<OperatorCase> cases = operator_cases();
    const int64_t every = std::max<int64_t>(number(2), 1), count = static_cast<int64_t>(cases.size()) / every;
    const auto make = [&](int64_t i) {
      Random random = random_of(number(1), i);
      return operator_model(cases[static_cast<size_t>(i * every)], random).SerializeAsString();
    };
    if (options.write >= 0) return write(make(options.write));
    const Outcome outcome =
        run_cases(0, count, options.limits, [&](int64_t i) { check_bytes(make(i), directory.path().string()); });
    const int code = tell("models of one operator", count, outcome);
    std::map<std::string, int> by_operator;
    for (const Failure& f : outcome.failures) ++by_operator[cases[static_cast<size_t>(f.index * every)].op];
    for (const auto& [op, failures] : by_operator) fmt::print("  {} {}\n", op, failures);
    return code;
  }
  if (words.at(0) == "file") {  // for a debugger
    check_bytes(read_file(words.at(1)), fs::path(words.at(1)).parent_path().string());
    return 0;
  }
  if (words.at(0) == "readers") {
    int code = 0;
    for (const ReaderCase& reader : reader_cases(directory.path().string()))
      code |= tell(reader.name, number(1), run_cases(0, number(1), options.limits, [&](int64_t i) {
                     Random random = random_of(number(2), i);
                     reader.read(mutated_bytes(one_of(random, reader.seeds), random), directory.path().string());
                   }));
    return code;
  }
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--write" && i + 2 < argc)
      options.write = std::atoll(argv[i + 1]), options.file = argv[i + 2], i += 2;
    else if (word == "--seconds" && i + 1 < argc)
      options.limits.seconds = std::atof(argv[++i]);
    else if (word == "--megabytes" && i + 1 < argc)
      options.limits.megabytes = std::atoll(argv[++i]);
    else
      options.words.push_back(word);
  }
  if (options.words.empty()) {
    std::fputs("untrusted_files models FOLDER COUNT SEED | operators SEED [EVERY] | readers COUNT SEED\n", stderr);
    return 2;
  }
  return run(options);
}
