#include "compiler/provenance.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"
#include "base/sha256.h"
#include "base/version.h"
#include "training/data_facts_json.h"
#include "training/measures.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kLargestHashed = uintmax_t{1} << 30;

// The files of "PATH", "NAME=FILE,NAME=FILE" or a directory.
std::vector<fs::path> files_of(const std::string& data) {
  std::vector<fs::path> files;
  std::istringstream pieces(data);
  for (std::string piece; std::getline(pieces, piece, ',');) {
    const fs::path path = piece.substr(piece.find('=') == std::string::npos ? 0 : piece.find('=') + 1);
    std::error_code unreadable;
    if (fs::is_directory(path, unreadable)) {
      for (const fs::directory_entry& entry : fs::directory_iterator(path, unreadable))
        if (entry.is_regular_file(unreadable)) files.push_back(entry.path());
    } else if (fs::is_regular_file(path, unreadable)) {
      files.push_back(path);
    }
  }
  std::ranges::sort(files);
  return files;
}

std::string describe_data(const std::string& data) {
  nlohmann::json rows = nlohmann::json::array();
  for (const fs::path& file : files_of(data)) try {
      nlohmann::json row{{"file", file.filename().string()}, {"bytes", fs::file_size(file)}};
      if (fs::file_size(file) <= kLargestHashed) row["sha256"] = sha256_of_file(file);
      rows.push_back(std::move(row));
    } catch (const std::exception&) {
      rows.push_back({{"file", file.filename().string()}});  // the model is written all the same
    }
  return rows.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Last names of paths.
std::string without_places(const std::string& paths) {
  std::string result;
  std::istringstream pieces(paths);
  for (std::string piece; std::getline(pieces, piece, ',');) {
    const size_t begin = piece.find('=') == std::string::npos ? 0 : piece.find('=') + 1;
    result += (result.empty() ? "" : ",") + piece.substr(0, begin) + fs::path(piece.substr(begin)).filename().string();
  }
  return result;
}

std::string recipe_text(Recipe recipe) {
  for (std::string* path : {&recipe.model, &recipe.data, &recipe.test_data, &recipe.class_names, &recipe.schedule_file,
                            &recipe.policy, &recipe.calibration_data, &recipe.grad_scaler, &recipe.trust})
    *path = without_places(*path);
  recipe.resume.clear();
  recipe.out = Recipe().out;  // runs that differ in their place alone write the same model
  std::string text = to_toml(recipe);
  const std::string here = fs::current_path().string() + "/";  // which it puts before names
  for (size_t at; (at = text.find(here)) != std::string::npos;) text.erase(at, here.size());
  return text;
}

}  // namespace

std::map<std::string, std::string> provenance(const Recipe& recipe, std::optional<int64_t> steps,
                                              const DataFacts& facts) {
  std::map<std::string, std::string> metadata{{"halfstep.version", version()},
                                              {"halfstep.precision", recipe.precision},
                                              {"halfstep.recipe", recipe_text(recipe)}};
  if (!recipe.data.empty()) metadata["halfstep.data"] = describe_data(recipe.data);
  const auto text = [](const nlohmann::json& json) {
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  const std::vector<std::string> classes =
      recipe.class_names.empty() ? facts.classes : read_class_names(recipe.class_names, 0);
  if (!classes.empty()) metadata["class_names"] = text(classes);
  if (!facts.empty()) metadata["halfstep.data_facts"] = text(to_json(facts));
  if (steps) metadata["halfstep.steps"] = std::to_string(*steps);
  return metadata;
}

std::string remark_on_columns(const DataFacts& facts) {
  if (facts.scalings.empty()) return "";
  return "the model takes its columns as they were standardised, (x - mean) / deviation; halfstep.data_facts in its "
         "metadata says by what";
}

std::optional<Recipe> recipe_of_run(const std::string& checkpoint) {
  // OUT/checkpoints or OUT/checkpoints/step-000000469
  const fs::path path = fs::absolute(checkpoint).lexically_normal();
  for (fs::path directory = path; directory.has_relative_path(); directory = directory.parent_path()) {
    if (directory.filename() != "checkpoints") continue;
    const fs::path file = directory.parent_path() / "recipe.toml";
    std::error_code unreadable;
    if (!fs::is_regular_file(file, unreadable)) return std::nullopt;
    try {
      Recipe recipe;
      read_recipe(recipe, file);
      return recipe;
    } catch (const Error&) {
      return std::nullopt;  // of another version
    }
  }
  return std::nullopt;
}

}  // namespace halfstep
