#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <ctime>

#include "base/error.h"
#include "tests/untrusted/cases.h"

namespace halfstep::test {
namespace {

// What a child tells, also when it dies.
struct Shared {
  int64_t current, accepted, refused;
  int64_t failed;  // 1: `what` tells of the case `current`
  char what[1024];
};

int64_t peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

// The child goes on until a case fails.
[[noreturn]] void run_child(Shared& shared, int64_t begin, int64_t end, const Limits& limits,
                            const std::function<void(int64_t)>& run) {
  const auto fail = [&](const std::string& what) {
    std::strncpy(shared.what, what.c_str(), sizeof shared.what - 1);
    shared.failed = 1;
    _exit(0);
  };
  for (int64_t i = begin; i < end; ++i) {
    shared.current = i;
    alarm(static_cast<unsigned>(20 * limits.seconds) + 1);
    const int64_t memory = peak_megabytes();
    const std::clock_t start = std::clock();
    try {
      run(i);
      ++shared.accepted;
    } catch (const Error&) {
      ++shared.refused;
    } catch (const std::exception& e) {
      fail(std::string("no Error but: ") + e.what());
    }
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    if (seconds > limits.seconds) fail(std::to_string(seconds) + " s");
    if (peak_megabytes() - memory > limits.megabytes) fail(std::to_string(peak_megabytes() - memory) + " MB");
  }
  shared.current = end;
  _exit(0);
}

}  // namespace

Outcome run_cases(int64_t begin, int64_t end, const Limits& limits, const std::function<void(int64_t)>& run) {
  auto* shared =
      static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  require(shared != MAP_FAILED, "memory that is shared");
  Outcome outcome;
  while (begin < end) {
    *shared = {};
    shared->current = begin;
    const pid_t child = fork();
    require(child >= 0, "a process");
    if (child == 0) run_child(*shared, begin, end, limits, run);
    int status = 0;
    waitpid(child, &status, 0);
    outcome.accepted += shared->accepted, outcome.refused += shared->refused;
    begin = shared->current;
    if (begin == end) break;
    const std::string what = shared->failed        ? shared->what
                             : WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                                   : "exit status " + std::to_string(WEXITSTATUS(status));
    outcome.failures.push_back({begin++, what});
  }
  munmap(shared, sizeof(Shared));
  return outcome;
}

}  // namespace halfstep::test
