#include "tests/cli/cli_fixture.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <thread>

#include "tests/data/data_files.h"

namespace halfstep::test {
namespace {

using testing::HasSubstr;

// In the child: only calls that are safe after a fork.
[[noreturn]] void execute(const std::vector<char*>& arguments, const std::string& directory, const std::string& out,
                          const std::string& err, const RunOptions& options) {
  const int out_fd = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int err_fd = ::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ::dup2(out_fd, STDOUT_FILENO);
  ::dup2(err_fd, STDERR_FILENO);
  if (options.out_file == "closed")
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, out_fd, err_fd}) ::close(fd);
  if (!options.preload.empty()) ::setenv("LD_PRELOAD", options.preload.c_str(), 1);
  ::signal(SIGINT, SIG_DFL);
  if (options.largest_file != RLIM_INFINITY) {
    const rlimit limit{options.largest_file, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  if (::chdir(directory.c_str()) == 0) ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

Finished wait_for(pid_t child, const RunOptions& options) {
  int status = 0;
  rusage used{};
  bool sent = !options.interrupt_when;
  while (::wait4(child, &status, sent ? 0 : WNOHANG, &used) == 0) {
    if (options.interrupt_when()) {
      ::kill(child, options.signal);
      sent = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          .seconds = seconds(used.ru_utime) + seconds(used.ru_stime),
          .megabytes = used.ru_maxrss / 1024};
}

// Weights that differ from one another and are small.
Tensor weights(const Shape& shape, double phase) {
  Tensor t(TensorType{DType::f32, shape});
  for (int64_t i = 0; i < t.type.element_count(); ++i) t.set(i, 0.4 * std::sin(phase + 1.7 * static_cast<double>(i)));
  return t;
}

}  // namespace

std::filesystem::path executable(const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Finished Cli::run(const Arguments& arguments, const RunOptions& options) const {
  const Arguments all = Arguments{executable(options.executable).string()} + arguments;
  std::vector<char*> pointers;
  for (const std::string& argument : all) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  const TemporaryDirectory captured;
  const bool elsewhere = !options.out_file.empty() && options.out_file != "closed";
  const std::string out = elsewhere ? options.out_file : (captured.path() / "out").string(),
                    err = (captured.path() / "err").string();
  const std::string directory = directory_.path().string();
  ::setenv("CUDA_VISIBLE_DEVICES", "", 1);  // the CPU is what these tests are about
  const pid_t child = ::fork();
  if (child == 0) execute(pointers, directory, out, err, options);
  Finished finished = wait_for(child, options);
  if (!elsewhere) finished.out = read_file(out);
  finished.err = read_file(err);
  return finished;
}

std::string Cli::succeed(const Arguments& arguments) const {
  const Finished finished = run(arguments);
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  return finished.out;
}

void Cli::fail(int code, const Arguments& arguments, const Arguments& parts) const {
  const Finished finished = run(arguments);
  EXPECT_EQ(finished.exit_code, code) << finished.err;
  for (const std::string& part : parts) EXPECT_THAT(finished.err, HasSubstr(part));
  const bool json = std::ranges::find(arguments, "--json") != arguments.end();
  EXPECT_THAT(finished.err, testing::StartsWith(json ? "{\"error\":" : "halfstep: "));
  EXPECT_THAT(finished.err, testing::Not(HasSubstr("internal error")));
}

std::string Cli::write(const std::string& name, const std::string& bytes) const {
  write_file_atomically(path(name), bytes);
  return name;
}

std::string Cli::write(const std::string& name, const TestModel& model) const {
  return write(name, model.proto.SerializeAsString());
}

Arguments Cli::data(const Shape& shape, int64_t samples) const {
  const int64_t elements = TensorType{DType::f32, shape}.element_count();
  std::string values, labels, type = "(" + std::to_string(samples);
  for (int64_t i = 0; i < samples; ++i) {
    const int64_t label = i % 3;
    append(labels, label);
    for (int64_t j = 0; j < elements; ++j)
      append(values,
             static_cast<float>((j % 3 == label ? 1.0 : -0.5) + 0.3 * std::sin(static_cast<double>(i * 7 + j))));
  }
  for (int64_t d : shape) type += ", " + std::to_string(d);
  write("x.npy", npy("<f4", type + ")", values));
  write("y.npy", npy("<i8", "(" + std::to_string(samples) + ",)", labels));
  return {"--data", "x=x.npy,labels=y.npy", "--test_data", "x=x.npy,labels=y.npy"};
}

TestModel tiny_mlp(int64_t hidden) {
  TestModel m(17);
  m.input("x", {2, 4}).weight("w1", weights({hidden, 4}, 0)).weight("b1", weights({hidden}, 1));
  m.weight("w2", weights({3, hidden}, 2))
      .weight("b2", weights({3}, 3))
      .weight("ratio", Tensor::scalar(DType::f32, 0.3));
  m.node("Gemm", {"x", "w1", "b1"}, {"h"}, {{"transB", int64_t{1}}}, "fc1").node("Relu", {"h"}, {"r"}, {}, "relu");
  m.node("Dropout", {"r", "ratio"}, {"d"}, {}, "drop");
  m.node("Gemm", {"d", "w2", "b2"}, {"logits"}, {{"transB", int64_t{1}}}, "fc2").output("logits");
  return m;
}

TestModel tiny_convnet() {
  TestModel m(17);
  m.input("x", {2, 1, 6, 6}).weight("w", weights({4, 1, 3, 3}, 0)).weight("fc.weight", weights({3, 16}, 1));
  m.weight("bn.scale", ramp({4}, 1, 0.1)).weight("bn.bias", ramp({4}, 0, 0.1));
  m.weight("bn.mean", ramp({4}, 0, 0)).weight("bn.var", ramp({4}, 1, 0));
  m.node("Conv", {"x", "w"}, {"c"}, {{"kernel_shape", Ints{3, 3}}}, "conv");
  m.node("BatchNormalization", {"c", "bn.scale", "bn.bias", "bn.mean", "bn.var"}, {"n"}, {}, "bn");
  m.node("Relu", {"n"}, {"r"}, {}, "relu");
  m.node("MaxPool", {"r"}, {"p"}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}}, "pool");
  m.node("Flatten", {"p"}, {"f"}, {}, "flatten");
  m.node("Gemm", {"f", "fc.weight"}, {"logits"}, {{"transB", int64_t{1}}}, "fc").output("logits");
  return m;
}

}  // namespace halfstep::test
