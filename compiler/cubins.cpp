#include "compiler/cubins.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "program/gpu_code.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

// Starts `command`, found on the PATH, with its messages in the file `log`.
pid_t start(const std::vector<std::string>& command, const fs::path& log) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  pid_t process = 0;
  const int failed = ::posix_spawnp(&process, arguments[0], &files, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0)
    throw Error(
        fmt::format("cannot start '{}' ({}): install the CUDA Toolkit's compiler and have it on the PATH, or "
                    "leave the machine code to the GPU's driver",
                    command[0], std::generic_category().message(failed)));
  return process;
}

void wait_for(pid_t process, const fs::path& log) {
  int status = 0;
  while (::waitpid(process, &status, 0) < 0)
    if (errno != EINTR) throw Error(fmt::format("ptxas is lost: {}", std::generic_category().message(errno)));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  std::string said = read_file(log);
  while (said.ends_with('\n')) said.pop_back();
  throw Error(fmt::format("ptxas refuses the kernels: {}", said.empty() ? "it says nothing" : said));
}

std::string assemble(const fs::path& ptx, const std::string& architecture) {
  const fs::path code = ptx.parent_path() / (architecture + ".cubin"), log = code.string() + ".log";
  wait_for(start({"ptxas", "-arch=" + architecture, ptx.string(), "-o", code.string()}, log), log);
  return read_file(code);
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts(1);
  for (const char c : list) {
    if (c == ',')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

}  // namespace

void add_cubins(CompiledModel& model, const std::string& architectures) {
  if (model.device != DeviceKind::cuda)
    throw Error("cubins: the step is compiled for the CPU; compile with --device cuda");
  Problems problems;
  for (const std::string& architecture : split(architectures)) try {
      const GpuArchitecture ptx = parse_gpu_architecture(model.architecture);
      const GpuArchitecture code = parse_gpu_architecture(architecture);
      if (ptx.specific ? code.capability != ptx.capability : code.capability < ptx.capability)
        throw Error(fmt::format("'{}' does not run the kernels, which are for {}", architecture, model.architecture));
    } catch (const Error& error) {
      problems.add(std::string("cubins: ") + error.what());
    }
  problems.throw_if_any();
  if (model.kernels.empty()) return;
  const TemporaryDirectory temporary;
  const fs::path ptx = temporary.path() / "kernels.ptx";
  write_file_atomically(ptx, model.kernels);
  for (const std::string& architecture : split(architectures)) model.cubins[architecture] = assemble(ptx, architecture);
}

}  // namespace halfstep
