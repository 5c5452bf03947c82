#include "training/run_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "base/error.h"
#include "training/checkpoint.h"
#include "training/layer_times.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code unreadable;
  return fs::exists(fs::symlink_status(path, unreadable));
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

// What runs write beside checkpoints and event files, and how it is told from the user's.
struct WrittenFile {
  std::string_view name, ending;  // no ending: this is all of its name
  std::string_view mark;          // that it begins with
  RunWrites by;                   // and by those that write more
};
constexpr WrittenFile kWritten[] = {
    {"recipe.toml", "", kRunRecipeMark, RunWrites::records_and_model},
    {"precision.json", "", "{\"compile\":{", RunWrites::records_and_model},
    {"metrics.jsonl", "", "{\"kind\":", RunWrites::records},
    {kLayerTimesFile, "", kLayerTimesMark, RunWrites::records},
    {"confusion.", "svg", kConfusionMark, RunWrites::records},  // confusion.LOSS.svg, too
};

const WrittenFile* row_of(const fs::path& file) {
  const std::string name = file.filename().string();
  const auto* row = std::ranges::find_if(kWritten, [&](const WrittenFile& one) {
    return one.ending.empty() ? name == one.name
                              : name.starts_with(one.name) && name.substr(one.name.size()).ends_with(one.ending);
  });
  return row == std::end(kWritten) ? nullptr : &*row;
}

// Versions before the mark wrote a recipe of all keys, a line each and nothing else. Nobody writes so many by hand.
bool is_unmarked_recipe(const fs::path& file) {
  constexpr size_t kFewestKeys = 40;
  constexpr int64_t kMostBytes = 1 << 20;
  std::error_code unreadable;
  if (!fs::is_regular_file(file, unreadable) || fs::file_size(file, unreadable) > kMostBytes) return false;
  std::ifstream lines(file, std::ios::binary);
  std::set<std::string> keys;
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find(" = ");
    if (equals == std::string::npos || find_key(line.substr(0, equals)) == nullptr ||
        !keys.insert(line.substr(0, equals)).second)
      return false;
  }
  return keys.size() >= kFewestKeys;
}

bool is_a_runs(const fs::path& file, const WrittenFile& row) {
  return is_empty_file(file) || begins_with(file, row.mark) || (row.mark == kRunRecipeMark && is_unmarked_recipe(file));
}

bool is_event_file(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.starts_with("events.out.tfevents.") && name.ends_with(".halfstep");
}

std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code unreadable;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, unreadable)) files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

// Nothing tells a trained model from one of the user's but the recipe beside it.
bool has_recipe(const fs::path& out) {
  return begins_with(out / "recipe.toml", kRunRecipeMark) || is_unmarked_recipe(out / "recipe.toml");
}

// Files with names that a run would write and that no run wrote.
std::vector<std::string> files_of_others(const fs::path& out, const Recipe& recipe, RunWrites writes) {
  std::vector<std::string> names;
  const bool draws = std::ranges::any_of(recipe.measures, [](const auto& name) { return name.ends_with("confusion"); });
  for (const fs::path& file : files_in(out)) {
    const WrittenFile* row = row_of(file);
    std::error_code unreadable;
    if (row == nullptr || row->by > writes || (row->mark == kConfusionMark && !draws) || fs::is_other(file, unreadable))
      continue;
    if (!is_a_runs(file, *row)) names.push_back(file.filename().string());
  }
  if (const fs::path trained = out / trained_file(recipe).filename();
      writes == RunWrites::records_and_model && is_there(trained) && !has_recipe(out))
    names.push_back(trained.filename().string());
  return names;
}

bool is_free(const fs::path& out) {
  std::error_code unreadable;
  if (!is_there(out)) return true;
  const fs::directory_iterator entries(out, unreadable);
  return !unreadable && std::ranges::all_of(entries, [](const fs::directory_entry& entry) {
    return entry.path().filename() == ".lock";
  });
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

// What a run wrote, and nothing else; the recipe last, which tells whose the rest is.
void remove_run(const fs::path& out, const Recipe& recipe) {
  std::error_code failed;
  const auto remove = [&](const fs::path& path) {
    if (!failed) fs::remove_all(path, failed);
  };
  for (const CheckpointEntry& entry : list_checkpoints(out / "checkpoints")) remove(entry.path);
  for (const fs::path& file : files_in(out / "tensorboard"))
    if (is_event_file(file)) remove(file);
  if (has_recipe(out)) remove(out / trained_file(recipe).filename());
  for (const fs::path& file : files_in(out))
    if (const WrittenFile* row = row_of(file); row != nullptr && row->mark != kRunRecipeMark && is_a_runs(file, *row))
      remove(file);
  if (has_recipe(out)) remove(out / "recipe.toml");
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

RunDirectory take_named(const fs::path& out, const Recipe& recipe, RunWrites writes) {
  make(out);
  RunDirectory taken{out, locked(out), {}};
  recover(out);
  if (const std::vector<std::string> names = files_of_others(out, recipe, writes); !names.empty()) {
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "'" : ", '") + name + "'";
    throw Error(fmt::format(
        "output directory '{}' holds {}, which no run wrote and this one would: choose another directory with --out, "
        "or move what is yours",
        out.string(), list));
  }
  if (!recipe.resume.empty() || !has_checkpoints(out)) return taken;
  if (!recipe.overwrite)
    throw Error(
        fmt::format("output directory '{0}' holds the checkpoints of another run: go on with that by --resume "
                    "{0}/checkpoints, choose another directory with --out, or remove that run with --overwrite",
                    out.string()));
  remove_run(out, recipe);
  return taken;
}

}  // namespace

fs::path trained_file(const Recipe& recipe) {
  return fs::path(recipe.out) / (fs::path(recipe.model).stem().string() + ".trained.onnx");
}

bool begins_with(const fs::path& file, std::string_view mark) {
  std::ifstream stream(file, std::ios::binary);
  std::string begin(mark.size(), '\0');
  stream.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  return stream.gcount() == static_cast<std::streamsize>(begin.size()) && begin == mark;
}

RunDirectory take_run_directory(const Recipe& recipe, RunWrites writes) {
  const fs::path out = recipe.out;
  if (recipe.given.contains("out")) return take_named(out, recipe, writes);
  if (const fs::path before = run_of(recipe.resume); !before.empty()) return take_named(before, recipe, writes);
  if (recipe.overwrite) return take_named(out, recipe, writes);
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
