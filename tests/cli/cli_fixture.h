// Runs the real executable on small models and data in a directory of its own.
#pragma once

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/tensor.h"
#include "tests/frontend/test_model.h"

namespace halfstep::test {

using Arguments = std::vector<std::string>;

struct RunOptions {
  rlim_t largest_file = RLIM_INFINITY;        // writes beyond fail, as on a full disk
  std::function<bool()> interrupt_when = {};  // polled while it runs; true: it gets `signal` once
  int signal = SIGINT;
  std::string out_file = {};  // takes stdout instead of Finished.out; "closed": no standard descriptor is open
  std::string preload = {};   // a shared object
  std::string executable = "halfstep";
};

struct Finished {
  int exit_code = -1;  // 128 + signal where one ended it
  double seconds = 0;  // of the processor
  int64_t megabytes = 0;
  std::string out = {}, err = {};
};

// Beside the test.
std::filesystem::path executable(const std::string& name);

class Cli : public testing::Test {
 protected:
  // In the directory, so that relative paths are inside it.
  Finished run(const Arguments& arguments, const RunOptions& options = {}) const;
  // As `run`; a failure unless it exits with 0. Its stdout.
  std::string succeed(const Arguments& arguments) const;
  // A failure unless it exits with `code` and says all `parts` on stderr, and nothing but data on stdout.
  void fail(int code, const Arguments& arguments, const Arguments& parts) const;

  std::filesystem::path path(const std::string& name) const { return directory_.path() / name; }
  std::string write(const std::string& name, const std::string& bytes) const;
  std::string write(const std::string& name, const TestModel& model) const;
  std::string read(const std::string& name) const { return read_file(path(name)); }
  // Arguments for data sets of `samples` separable points, as NPY files: "x" f32[n, shape...] and "labels" i64[n].
  Arguments data(const Shape& shape, int64_t samples = 64) const;

 private:
  TemporaryDirectory directory_;
};

// x f32[2,4] -> logits f32[2,3] over Gemm "fc1" to [2,hidden], Relu, Dropout, Gemm "fc2".
TestModel tiny_mlp(int64_t hidden = 8);
// x f32[2,1,6,6] -> logits f32[2,3] over Conv "conv", BatchNormalization "bn", Relu, MaxPool, Flatten, Gemm "fc".
TestModel tiny_convnet();

// Concatenated lists of arguments.
Arguments operator+(Arguments a, const Arguments& b);

}  // namespace halfstep::test
