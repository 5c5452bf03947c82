#include "training/run_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "training/checkpoint.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code unreadable;
  return fs::exists(fs::symlink_status(path, unreadable));
}

bool begins_with(const fs::path& file, std::string_view text) {
  std::ifstream stream(file, std::ios::binary);
  std::string begin(text.size(), '\0');
  stream.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  return stream.gcount() == static_cast<std::streamsize>(begin.size()) && begin == text;
}

bool is_empty_file(const fs::path& file) {
  std::error_code failed;
  return fs::is_regular_file(file, failed) && fs::file_size(file, failed) == 0;
}

bool has_checkpoints(const fs::path& out) {
  const fs::path checkpoints = out / "checkpoints";
  std::error_code unreadable;
  return fs::is_directory(checkpoints, unreadable) && !list_checkpoints(checkpoints).empty();
}

// Files with names that a run would write and that no run wrote.
std::vector<std::string> files_of_others(const fs::path& out, const Recipe& recipe) {
  if (has_checkpoints(out)) return {};  // a run's
  std::vector<std::string> names;
  const fs::path written = out / "recipe.toml", metrics = out / "metrics.jsonl";
  const bool is_runs = begins_with(written, kRunRecipeMark);
  if (is_there(written) && !is_runs) names.push_back("recipe.toml");
  if (is_there(metrics) && fs::is_regular_file(metrics) && !is_empty_file(metrics) &&
      !begins_with(metrics, "{\"kind\":"))
    names.push_back("metrics.jsonl");
  for (const fs::path& name : {trained_file(recipe).filename(), fs::path("precision.json"), fs::path("confusion.svg")})
    if (is_there(out / name) && !is_runs) names.push_back(name.string());
  return names;
}

bool is_free(const fs::path& out) {
  std::error_code unreadable;
  if (!is_there(out)) return true;
  if (!fs::is_directory(out, unreadable)) return false;
  return std::ranges::all_of(fs::directory_iterator(out, unreadable),
                             [](const fs::directory_entry& entry) { return entry.path().filename() == ".lock"; });
}

void make(const fs::path& out) {
  std::error_code failed;
  fs::create_directories(out, failed);
  if (failed) throw Error("cannot create output directory '" + out.string() + "': " + failed.message());
}

std::unique_ptr<FileLock> locked(const fs::path& out) {
  return std::make_unique<FileLock>(out / ".lock", fmt::format("output directory '{}'", out.string()));
}

void recover(const fs::path& out) {
  std::error_code unreadable;
  if (const fs::path checkpoints = out / "checkpoints"; fs::is_directory(checkpoints, unreadable))
    recover_checkpoints(checkpoints);
}

// All but what no run writes.
void remove_run(const fs::path& out) {
  std::error_code failed;
  for (const CheckpointEntry& entry : list_checkpoints(out / "checkpoints")) fs::remove_all(entry.path, failed);
  for (const char* name : {"metrics.jsonl", "recipe.toml"})
    if (!failed) fs::remove(out / name, failed);
  if (failed) throw Error("overwrite: cannot remove what a run left in '" + out.string() + "': " + failed.message());
}

// The directory of the run whose checkpoint, or directory of them, `resume` is; empty: it lies elsewhere.
fs::path run_of(const fs::path& resume) {
  fs::path path = resume.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (path.filename().string().starts_with("step-")) path = path.parent_path();
  if (path.filename() != "checkpoints") return {};
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

RunDirectory take_named(const fs::path& out, const Recipe& recipe) {
  make(out);
  RunDirectory taken{out, locked(out), {}};
  recover(out);
  if (const std::vector<std::string> names = files_of_others(out, recipe); !names.empty()) {
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "'" : ", '") + name + "'";
    throw Error(fmt::format(
        "output directory '{}' holds {}, which no run wrote and this one would: choose another directory with --out",
        out.string(), list));
  }
  if (!recipe.resume.empty() || !has_checkpoints(out)) return taken;
  if (!recipe.overwrite)
    throw Error(
        fmt::format("output directory '{0}' holds the checkpoints of another run: go on with that by --resume "
                    "{0}/checkpoints, choose another directory with --out, or remove that run with --overwrite",
                    out.string()));
  remove_run(out);
  return taken;
}

}  // namespace

fs::path trained_file(const Recipe& recipe) {
  return fs::path(recipe.out) / (fs::path(recipe.model).stem().string() + ".trained.onnx");
}

RunDirectory take_run_directory(const Recipe& recipe) {
  const fs::path out = recipe.out;
  if (recipe.given.contains("out")) return take_named(out, recipe);
  if (const fs::path before = run_of(recipe.resume); !before.empty()) return take_named(before, recipe);
  if (recipe.overwrite) return take_named(out, recipe);
  for (int64_t number = 1;; ++number) {
    fs::path path = out;
    if (number > 1) path += "-" + std::to_string(number);
    if (!is_free(path)) continue;
    make(path);
    RunDirectory taken{path, nullptr, {}};
    try {
      taken.lock = locked(path);
    } catch (const Error&) {
      if (is_there(path / ".lock") && number < 10000) continue;  // another run's, which has just begun
      throw;
    }
    // Another run may have come and gone since.
    if (!is_free(path)) continue;
    if (number > 1)
      taken.remark =
          fmt::format("'{}' is taken: this run writes to '{}'; --out names another", out.string(), path.string());
    return taken;
  }
}

}  // namespace halfstep
