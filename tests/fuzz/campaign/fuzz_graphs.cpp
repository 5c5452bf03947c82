// Campaigns of random graphs: fuzz_graphs --graphs=100000 --seed=0 --device=cpu|cuda --jobs=16 [--precisions=all|one]
// [--out=DIR]. Every job is a process of its own, so that a crash is one failing graph; each failure is shrunk and,
// with
// --out, written as a case. fuzz_graphs CASE.ir... checks cases; --print shows the graphs. Exit 1 if anything failed.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "ir/text.h"
#include "tests/fuzz/case_text.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/random_graph.h"
#include "tests/fuzz/shrink.h"

namespace halfstep::fuzz {
namespace {

constexpr uint64_t kBatch = 8;

struct Campaign {
  uint64_t graphs = 2000, seed = 0, jobs = 1;
  DeviceKind device = DeviceKind::cpu;
  bool all_precisions = true;  // else one precision and target a graph, in turn
  bool print = false;          // the graphs instead of checking them
  std::string out;
  std::vector<std::string> cases;
};

Campaign parse_arguments(int count, char** arguments) {
  Campaign c;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    const size_t equals = argument.find('=');
    const std::string key = argument.substr(0, equals),
                      value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (key == "--graphs")
      c.graphs = std::stoull(value);
    else if (key == "--seed")
      c.seed = std::stoull(value);
    else if (key == "--jobs")
      c.jobs = std::max<uint64_t>(1, std::stoull(value));
    else if (key == "--device" && (value == "cpu" || value == "cuda"))
      c.device = value == "cuda" ? DeviceKind::cuda : DeviceKind::cpu;
    else if (key == "--precisions" && (value == "all" || value == "one"))
      c.all_precisions = value == "all";
    else if (key == "--out")
      c.out = value;
    else if (key == "--print")
      c.print = true;
    else if (!argument.starts_with("-"))
      c.cases.push_back(argument);
    else
      throw Error("unknown argument '" + argument + "'");
  }
  return c;
}

std::vector<KernelTarget> targets_of(DeviceKind device) {
  if (device == DeviceKind::cuda) return {{DeviceKind::cuda, "sm_80"}};
  return cpu_targets();
}

CheckOptions options_for(const Campaign& c, uint64_t seed) {
  CheckOptions options{.targets = targets_of(c.device)};
  if (c.device == DeviceKind::cuda || seed / kBatch % 4 >= 2) options.forms = kGpuForms;
  options.recomputes = seed / kBatch % 2 != 0;
  if (c.all_precisions) return options;
  options.precisions = {options.precisions[seed % options.precisions.size()]};
  options.targets = {options.targets[seed / kBatch % options.targets.size()]};
  return options;
}

// Lines for the parent: "begin SEED", "fail SEED MESSAGE", "ops OP...", "smooth", "exact", "done N".
class Job {
 public:
  Job(const Campaign& c, int to) : c_(c), to_(to) {}

  void batch(uint64_t at) {
    std::map<uint64_t, std::vector<uint64_t>> by_precision;  // one compilation for seeds of equal options
    for (uint64_t seed = at; seed < std::min(at + kBatch, c_.seed + c_.graphs); ++seed)
      by_precision[c_.all_precisions ? 0 : seed % 3].push_back(seed);
    for (const auto& [precision, seeds] : by_precision) check(seeds);
  }

 private:
  void line(const std::string& text) {
    const std::string whole = text + "\n";
    if (::write(to_, whole.data(), whole.size()) < 0) std::abort();
  }

  void check(const std::vector<uint64_t>& seeds) {
    std::vector<FuzzCase> cases;
    line(fmt::format("begin {} {}", seeds.front(), seeds.back()));
    for (uint64_t seed : seeds) cases.push_back(random_case(seed));
    const CheckOptions options = options_for(c_, seeds.front());
    const std::vector<Checked> checked = check_cases(cases, options);
    for (size_t i = 0; i < cases.size(); ++i) {
      std::string ops = "ops";
      for (const std::string& op : checked[i].ops) ops += " " + op;
      line(ops + (checked[i].smooth ? "\nsmooth" : "") + (checked[i].exact ? "\nexact" : ""));
      for (const Failure& f : checked[i].failures) line(fmt::format("fail {} {}", seeds[i], one_line(to_string(f))));
      if (!checked[i].failures.empty() && !c_.out.empty())
        write_case(seeds[i], cases[i], checked[i].failures[0], options);
    }
    line(fmt::format("done {}", seeds.size()));
  }

  static std::string one_line(std::string text) {
    std::ranges::replace(text, '\n', ' ');
    return text.substr(0, 300);
  }

  void write_case(uint64_t seed, const FuzzCase& failing, const Failure& failure, CheckOptions options) {
    std::erase_if(options.precisions, [&](auto low) { return precision_name(low) != failure.precision; });
    std::erase_if(options.targets, [&](const KernelTarget& t) {
      return !failure.architecture.empty() && t.architecture != failure.architecture;
    });
    std::string what = to_string(failure);
    const FuzzCase small = shrink(failing, [&](const FuzzCase& candidate) {
      const Checked checked = check_cases({candidate}, options)[0];
      for (const Failure& f : checked.failures)
        if (f.truth == failure.truth) {
          what = to_string(f);
          return true;
        }
      return false;
    });
    std::filesystem::create_directories(c_.out);
    write_file_atomically(std::filesystem::path(c_.out) / fmt::format("seed_{}.ir", seed),
                          "// " + one_line(what) + "\n" + print_case(small));
  }

  const Campaign& c_;
  int to_;
};

struct Totals {
  uint64_t graphs = 0, smooth = 0, exact = 0;
  std::set<uint64_t> failed;
  std::map<std::string, uint64_t> ops;

  void read(const std::string& line) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "ops")
      for (std::string op; words >> op;) ++ops[op];
    else if (kind == "smooth")
      ++smooth;
    else if (kind == "exact")
      ++exact;
    else if (kind == "done") {
      uint64_t count = 0;
      words >> count;
      graphs += count;
    } else if (kind == "fail") {
      uint64_t seed = 0;
      words >> seed;
      failed.insert(seed);
      fmt::print("seed {}:{}\n", seed, line.substr(line.find(' ', 5)));
    }
  }
};

// One job; after a crash the rest of its batches go to a new process, the crashed batch graph by graph.
void run_job(const Campaign& c, uint64_t first, int to) {
  uint64_t next = first;
  const uint64_t batches = (c.graphs + kBatch - 1) / kBatch;
  const auto child = [&](const auto& body) {
    const pid_t process = ::fork();
    if (process == 0) {
      Job job(c, to);
      body(job);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(process, &status, 0);
    return status == 0;
  };
  // A process takes a few batches: what libraries keep is freed with it.
  constexpr uint64_t kBatches = 25;
  for (; next < batches; next += c.jobs * kBatches) {
    const auto each = [&](const auto& visit) {
      for (uint64_t k = 0; k < kBatches; ++k)
        if (const uint64_t at = next + k * c.jobs; at < batches) visit(c.seed + at * kBatch);
    };
    bool whole = child([&](Job& job) { each([&](uint64_t at) { job.batch(at); }); });
    if (whole) continue;
    each([&](uint64_t at) {
      for (uint64_t seed = at; seed < std::min(at + kBatch, c.seed + c.graphs); ++seed) {
        Campaign alone = c;
        alone.seed = seed, alone.graphs = 1;
        const pid_t process = ::fork();
        if (process == 0) {
          Job(alone, to).batch(seed);
          ::_exit(0);
        }
        int status = 0;
        ::waitpid(process, &status, 0);
        if (status == 0) continue;
        const std::string end = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status)) : "an exception";
        const std::string text = fmt::format("fail {} ended by {}\n", seed, end);
        if (::write(to, text.data(), text.size()) < 0) std::abort();
      }
    });
  }
}

int check_files(const Campaign& c) {
  int failed = 0;
  for (const std::string& path : c.cases) {
    const Checked checked = check_cases(
        {parse_case(read_file(path))},
        {.targets = targets_of(c.device), .forms = c.device == DeviceKind::cuda ? kGpuForms : TargetForms{}})[0];
    for (const Failure& f : checked.failures) fmt::print("{}: {}\n", path, to_string(f));
    failed += !checked.failures.empty();
  }
  fmt::print("{} cases, {} failed\n", c.cases.size(), failed);
  return failed == 0 ? 0 : 1;
}

int run(int count, char** arguments) {
  const Campaign c = parse_arguments(count, arguments);
  if (!c.cases.empty()) return check_files(c);
  if (c.print)
    for (uint64_t i = 0; i < c.graphs; ++i)
      fmt::print("// seed {}\n{}", c.seed + i, print_case(random_case(c.seed + i)));
  if (c.print) return 0;
  const auto start = std::chrono::steady_clock::now();
  int ends[2];
  if (::pipe(ends) != 0) throw Error("no pipe");
  for (uint64_t job = 0; job < c.jobs; ++job) {
    const pid_t process = ::fork();
    if (process == 0) {
      ::close(ends[0]);
      run_job(c, job, ends[1]);
      ::_exit(0);
    }
  }
  ::close(ends[1]);
  // Lines are shorter than what a pipe takes at once, and so whole.
  FILE* lines = ::fdopen(ends[0], "r");
  Totals totals;
  std::array<char, 4096> buffer;
  while (std::fgets(buffer.data(), static_cast<int>(buffer.size()), lines)) {
    std::string line = buffer.data();
    if (!line.empty() && line.back() == '\n') line.pop_back();
    totals.read(line);
    std::fflush(stdout);
  }
  while (::wait(nullptr) > 0) {
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print(
      "{} graphs from seed {} on {}: {} failed, {} beside the exact graph, {} with central differences, {} ops, {:.0f} "
      "s\n",
      totals.graphs, c.seed, name(c.device), totals.failed.size(), totals.exact, totals.smooth, totals.ops.size(),
      seconds);
  for (const auto& [op, graphs] : totals.ops) fmt::print("{} {}\n", op, graphs);
  return totals.failed.empty() ? 0 : 1;
}

}  // namespace
}  // namespace halfstep::fuzz

int main(int count, char** arguments) {
  try {
    return halfstep::fuzz::run(count, arguments);
  } catch (const std::exception& e) {
    fmt::print(stderr, "fuzz_graphs: {}\n", e.what());
    return 2;
  }
}
