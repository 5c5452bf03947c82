#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/doctor_report.h"
#include "cli/output.h"
#include "cli/page/doctor_page.h"
#include "cli/page/embed.h"
#include "compiler/doctor.h"
#include "compiler/policy.h"
#include "compiler/policy_text.h"

extern char** environ;

namespace halfstep {
namespace {

namespace fs = std::filesystem;

// For a shell.
std::string in_quotes(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

std::string with_policy(std::string command, const std::string& policy) {
  constexpr std::string_view kPlace = "{policy}";
  for (size_t at = 0; (at = command.find(kPlace, at)) != std::string::npos;) {
    const std::string quoted = in_quotes(policy);
    command.replace(at, kPlace.size(), quoted);
    at += quoted.size();
  }
  return command;
}

// Whether the user's command ends with 0. What it prints goes to stderr: stdout is ours.
bool succeeds(const std::string& command, const std::string& policy) {
  std::vector<std::string> variables;
  for (char** v = environ; *v != nullptr; ++v)
    if (!std::string_view(*v).starts_with("HALFSTEP_POLICY=")) variables.emplace_back(*v);
  variables.push_back("HALFSTEP_POLICY=" + policy);
  std::vector<char*> environment;
  for (std::string& v : variables) environment.push_back(v.data());
  environment.push_back(nullptr);
  std::string shell = "/bin/sh", option = "-c", text = with_policy(command, policy);
  char* const arguments[] = {shell.data(), option.data(), text.data(), nullptr};
  // Our threads block signals; its own get none from us.
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_init(&attributes), posix_spawn_file_actions_init(&actions);
  sigset_t none, all;
  sigemptyset(&none), sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none), posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  pid_t child = 0;
  const int failed = posix_spawn(&child, shell.c_str(), &actions, &attributes, arguments, environment.data());
  posix_spawnattr_destroy(&attributes), posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw Error("--check: /bin/sh cannot be started");
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) throw Error("--check: the command's end is not known");
  if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGINT || WTERMSIG(status) == SIGTERM))
    throw Error("--check: the command was stopped by a signal");
  if (WIFEXITED(status) && (WEXITSTATUS(status) == 126 || WEXITSTATUS(status) == 127))
    throw Error(fmt::format("--check: the shell finds no such command: {}", command));
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::string policy_path(const CommandOptions& options) {
  return fs::absolute(options.target.empty() ? "doctor.policy.toml" : options.target).lexically_normal().string();
}

std::string recipe_beside(const std::string& policy) {
  std::string recipe = fs::path(policy).replace_extension().string();
  if (recipe.ends_with(".policy")) recipe.resize(recipe.size() - 7);
  return recipe + ".recipe.toml";
}

// The first words of every file that is written; a file that begins otherwise is the user's.
constexpr std::string_view kMadeHere = "made by halfstep doctor";

bool is_of_user(const std::string& file) {
  if (std::error_code unknown; !fs::exists(file, unknown)) return false;
  std::string begin(2 + kMadeHere.size(), '\0');
  std::ifstream(file, std::ios::binary).read(begin.data(), static_cast<std::streamsize>(begin.size()));
  return begin != fmt::format("# {}", kMadeHere);
}

// What is read must not be written over, nor what the user wrote.
void check_kept(const Recipe& recipe, const CommandOptions& options, Problems& problems) {
  std::vector<fs::path> read;
  if (!recipe.policy.empty()) read = policy_files(recipe.policy);
  if (!options.recipe_file.empty()) read.push_back(fs::weakly_canonical(options.recipe_file));
  std::vector<std::string> written{policy_path(options)};
  if (options.check.empty()) written.push_back(recipe_beside(written[0]));
  for (const std::string& file : written) {
    if (std::ranges::find(read, fs::weakly_canonical(file)) != read.end())
      problems.add(fmt::format("'{}' is read and would be written over: name another policy file with -o", file));
    else if (is_of_user(file))
      problems.add(fmt::format(
          "'{}' is there, was not made by halfstep doctor and would be written over: name another policy file with -o",
          file));
  }
}

void write_policy(const std::string& path, const Recipe& recipe,
                  const std::vector<std::pair<std::string, std::string>>& denied,
                  const std::vector<std::string>& remarks) {
  write_file_atomically(path, policy_text(recipe, denied, remarks, fs::path(path).parent_path()));
}

// What would end it only after all its runs.
void check_request(const Recipe& recipe, const CommandOptions& options) {
  if (!options.check.empty() && !options.inspect.html.empty())
    throw UsageError("--html shows what runs of doctor's measured, and --check runs a command: leave one of them out");
  Problems problems;
  if (options.check.empty() && options.random_steps == 0 && recipe.data.empty())
    problems.add(
        "no training data is given: name it with --data or in the recipe, or take random inputs with --random 20");
  if (recipe.precision == "fp32") problems.add("precision is fp32: there is nothing to compare; choose fp16 or bf16");
  try {
    precision_policy(recipe);
    check_kept(recipe, options, problems);
  } catch (const Error& e) {
    problems.add(e.what());
  }
  for (const std::string& file : {policy_path(options), options.inspect.html}) {
    if (file.empty()) continue;
    const fs::path folder = fs::absolute(file).parent_path();
    if (std::error_code unknown; !fs::is_directory(folder, unknown))
      problems.add(fmt::format("'{}' cannot be written: there is no folder '{}'", file, folder.string()));
    else if (::access(folder.c_str(), W_OK) != 0)
      problems.add(fmt::format("'{}' cannot be written: its folder is write-protected", file));
  }
  if (const std::string& page = options.inspect.html; !page.empty())
    if (const auto refusal = refusal_of_page(page)) problems.add(*refusal);
  problems.throw_if_any();
}

ExitCode run_check_of_user(const Recipe& recipe, const CommandOptions& options) {
  const std::string policy = policy_path(options);
  const auto write = [&](const std::vector<std::string>& nodes, const std::vector<std::string>& remarks) {
    std::vector<std::pair<std::string, std::string>> denied;
    for (const std::string& node : nodes) denied.push_back({node, "bisected with --check"});
    write_policy(policy, recipe, denied, remarks);
  };
  const Bisection b = bisect(recipe, choose_device(recipe), [&](const std::vector<std::string>& denied) {
    write(denied, {fmt::format("{} --check, on its way", kMadeHere)});
    const bool good = succeeds(options.check, policy);
    print_err("halfstep: {} nodes in fp32: {}\n", denied.size(), good ? "good" : "bad");
    return good;
  });
  write(b.denied, {fmt::format("{} --check {}", kMadeHere, in_quotes(options.check)),
                   fmt::format("the fewest of {} nodes that must run in fp32 for it to succeed", b.candidates)});
  if (options.format == Format::json) {
    print_out("{}\n", json_text({{"schema_version", 1},
                                 {"check", options.check},
                                 {"candidates", b.candidates},
                                 {"runs", b.runs},
                                 {"policy", {{"file", policy}, {"rules", b.denied}}}}));
  } else {
    print_out("{} of {} nodes must run in fp32 for the command to succeed ({} runs):\n", b.denied.size(), b.candidates,
              b.runs);
    for (const std::string& node : b.denied) print_out("  '{}'\n", node);
    print_out("  policy  {}\n", policy);
  }
  return ExitCode::not_ready;
}

// The policy with what is denied, and the whole recipe where settings change.
DoctorFiles write_files(const Diagnosis& d, const CommandOptions& options) {
  DoctorFiles files;
  if (d.remedy.empty()) return files;
  files.policy = policy_path(options);
  std::vector<std::string> remarks{
      fmt::format("{} for '{}': {}", kMadeHere, d.recipe.model,
                  d.remedy.outcome == Remedy::proven ? "with it training matches fp32" : "it is better, not healthy")};
  for (const auto& [key, value] : d.remedy.settings)
    remarks.push_back(fmt::format("the recipe needs {} = {}", key, value));
  if (!d.recipe.allow.empty())
    remarks.push_back(
        "the recipe's allow wins over the rules of a file: leave it out, or train the recipe beside this");
  write_policy(files.policy, with_settings(d.recipe, d.remedy), d.remedy.denied, remarks);
  files.recipe = recipe_beside(files.policy);
  write_file_atomically(files.recipe, fmt::format("# {}, beside {}\n", kMadeHere, files.policy) +
                                          to_toml(with_remedy(d.recipe, d.remedy)));
  return files;
}

}  // namespace

ExitCode run_doctor(const Recipe& recipe, const CommandOptions& options) {
  check_request(recipe, options);
  if (!options.check.empty()) return run_check_of_user(recipe, options);
  const bool random = options.random_steps > 0;
  std::optional<Data> data;
  if (!random) data = open_data(recipe);
  const Batches batches{.data = data ? &*data : nullptr, .steps = random ? options.random_steps : options.steps};
  DoctorOptions doctor;
  if (options.tap_elements >= 0) doctor.taps.most_counted = options.tap_elements;
  if (options.format == Format::text)
    doctor.progress = [](const std::string& what) { print_err("halfstep: {}\n", what); };
  const Diagnosis d = diagnose(recipe, choose_device(recipe), batches, doctor);
  const DoctorFiles files = write_files(d, options);
  if (const std::string& page = options.inspect.html; !page.empty())
    write_file_atomically(page, doctor_page(d, files, files.policy.empty() ? "" : read_file(files.policy)));
  if (options.format == Format::json)
    print_out("{}\n", json_text(doctor_json(d, files)));
  else
    print_out("{}", doctor_text(d, files, options.detail == CommandOptions::all));
  return d.before.findings.empty() ? ExitCode::success : ExitCode::not_ready;
}

}  // namespace halfstep
