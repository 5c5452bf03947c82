// Untrusted files: cases made from a seed, and a runner that survives what they do.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "frontend/onnx/model_proto.h"

namespace halfstep::test {

using Random = std::mt19937_64;

inline int64_t below(Random& random, int64_t limit) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(limit));
}
template <typename T>
const T& one_of(Random& random, const std::vector<T>& choices) {
  return choices[static_cast<size_t>(below(random, static_cast<int64_t>(choices.size())))];
}

// ---- what cases are run by ----

struct Failure {
  int64_t index = 0;
  std::string what;  // "signal 11", "InternalError: ...", "3.1 s", "400 MB"
};

struct Outcome {
  int64_t accepted = 0, refused = 0;  // by an Error
  std::vector<Failure> failures;
};

struct Limits {
  double seconds = 1;       // of the processor
  int64_t megabytes = 200;  // beyond what a run has before it
};

// Runs the cases [begin, end) in children, which are replaced when one dies.
Outcome run_cases(int64_t begin, int64_t end, const Limits& limits, const std::function<void(int64_t)>& run);

// ---- cases ----

// What `check` does with a file's bytes: read, import, and the passes up to the gradients. Throws what they throw.
void check_bytes(const std::string& bytes, const std::string& directory);

// One to four changes of the message: names, operands, results, types, sizes, attributes, whole nodes; or of bytes.
std::string mutated_model(const std::string& bytes, Random& random);
// One to four changes of bytes, or a part that is missing, repeated or exchanged.
std::string mutated_bytes(const std::string& bytes, Random& random);

// A model of one operator in one opset, with some of its operands and results left out.
struct OperatorCase {
  std::string op;
  int64_t opset = 0;
  uint32_t operands = 0, results = 0;  // sets
  int operand_count = 0, result_count = 0;
};
// Every operator in every opset that changed it, with every set of operands and results.
std::vector<OperatorCase> operator_cases();
onnx::ModelProto operator_model(const OperatorCase& c, Random& random);

// A reader of files: small ones to begin with, and what reads one.
struct ReaderCase {
  std::string name;
  std::vector<std::string> seeds;
  std::function<void(const std::string& bytes, const std::string& directory)> read;
};
std::vector<ReaderCase> reader_cases(const std::string& directory);

}  // namespace halfstep::test
