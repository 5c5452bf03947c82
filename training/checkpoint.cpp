#include "training/checkpoint.h"

#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "program/json_text.h"
#include "program/safetensors.h"
#include "training/data_facts_json.h"
#include "training/grad_scaler.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kVersion = 1;
constexpr int64_t kMostManifestBytes = 1 << 28;
constexpr std::string_view kPrefix = "step-";
// Names of checkpoints that are being written, replaced (where two directories cannot change places) and removed; the
// dot keeps them out of listings. A run that dies may leave the first two whole.
constexpr std::string_view kPartialPrefix = ".partial-", kReplacedPrefix = ".replaced-", kRemovedPrefix = ".removed-";

struct TensorFile {
  const char* name;
  FileTensors ModelState::* tensors;
};
constexpr TensorFile kTensorFiles[] = {{"weights.safetensors", &ModelState::weights},
                                       {"slots.safetensors", &ModelState::slots}};

uint32_t checksum(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}
uint32_t checksum_of_text(const Json& json) {
  const std::string text = json.dump();
  return checksum(std::as_bytes(std::span(text)));
}

std::string directory_name(int64_t step) {
  std::string digits = std::to_string(step);
  return std::string(kPrefix) + std::string(9 - std::min<size_t>(9, digits.size()), '0') + digits;
}

std::optional<int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  int64_t step = 0;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* end = name.data() + name.size();
  const auto [stopped, status] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (status != std::errc{} || stopped != end || step < 0 || name != directory_name(step)) return std::nullopt;
  return step;
}

Json describe(const Tensor& tensor) {
  return {{"dtype", name(tensor.type.dtype)}, {"shape", tensor.type.shape}, {"crc32", checksum(tensor.data)}};
}

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

Json manifest_of(const Checkpoint& checkpoint) {
  const TrainState& s = checkpoint.train;
  Json manifest{{"format", "halfstep checkpoint"},
                {"version", kVersion},
                {"step", s.step},
                {"epoch", s.epoch},
                {"position", s.position},
                {"iteration", s.iteration},
                {"seed", s.seed},
                {"samples", s.samples},
                {"epoch_totals",
                 {{"steps", s.totals.steps},
                  {"skipped", s.totals.skipped},
                  {"samples", s.totals.samples},
                  {"loss", s.totals.loss},
                  {"loss_labels", s.totals.loss_labels},
                  {"correct", json_of(s.totals.correct)},
                  {"counted", s.totals.counted},
                  {"loss_scale", json_of(s.totals.loss_scale)}}}};
  if (!s.data.empty()) manifest["data"] = to_json(s.data);
  for (const LossSums& sums : s.totals.losses)
    manifest["epoch_totals"]["losses"].push_back(
        {{"loss", sums.loss}, {"counted", sums.counted}, {"correct", json_of(sums.correct)}, {"judged", sums.judged}});
  if (s.skipped != SkippedSteps()) manifest["schedule"] = {{"skipped", s.skipped.counted}, {"later", s.skipped.later}};
  if (const PlateauState& p = s.plateau; p != PlateauState())
    manifest["plateau"] = {{"measure", p.measure},
                           {"best", json_of(p.best)},
                           {"bad_epochs", p.bad_epochs},
                           {"cooldown", p.cooldown},
                           {"rate", json_of(p.rate)}};
  if (const BestState& b = s.best; b != BestState())
    manifest["best"] = {{"measure", b.measure}, {"value", json_of(b.value)},       {"epoch", b.epoch},
                        {"step", b.step},       {"improved", json_of(b.improved)}, {"waited", b.waited}};
  // The values themselves are tensors of slots.safetensors; here they are for the reader.
  for (const auto& [key, slot] :
       {std::pair{"loss_scale", "loss_scale.scale"}, {"loss_scale_tracker", "loss_scale.tracker"}})
    if (const auto found = checkpoint.model.slots.find(slot); found != checkpoint.model.slots.end())
      manifest[key] = found->second.at(0);
  for (const TensorFile& file : kTensorFiles) {
    Json& entries = manifest["files"][file.name] = Json::object();
    for (const auto& [tensor_name, tensor] : checkpoint.model.*file.tensors) entries[tensor_name] = describe(tensor);
  }
  manifest["crc32"] = checksum_of_text(manifest);
  return manifest;
}

std::optional<double> optional_number(const Json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

int64_t bounded_count_in(const Json& object, const char* key) try {
  constexpr int64_t kMost = int64_t{1} << 53;  // counting on does not overflow
  const int64_t count = count_in(object, key);
  if (count > kMost) throw Error("'" + std::string(key) + "': at most 2^53 expected, found " + std::to_string(count));
  return count;
} catch (const Error& e) {
  throw Error("manifest.json: " + std::string(e.what()));
}

std::optional<double> finite_in(const Json& object, const char* key) {
  const std::optional<double> value = optional_number(object.at(key));
  if (value && !std::isfinite(*value))
    throw Error("manifest.json: '" + std::string(key) + "': a finite number expected");
  return value;
}

// What only some runs have.
void read_rules(const Json& manifest, TrainState& s) {
  if (manifest.contains("schedule")) {
    const Json& schedule = manifest.at("schedule");
    s.skipped = {.counted = bounded_count_in(schedule, "skipped"), .later = counts_in(schedule, "later")};
    if (s.skipped.counted > s.step || !std::ranges::is_sorted(s.skipped.later) ||
        (!s.skipped.later.empty() && s.skipped.later.back() >= s.step))
      throw Error("manifest.json: 'schedule': skipped steps before step " + std::to_string(s.step) + " expected");
  }
  if (manifest.contains("plateau")) {
    const Json& plateau = manifest.at("plateau");
    s.plateau = {.measure = plateau.at("measure"),
                 .best = finite_in(plateau, "best"),
                 .bad_epochs = bounded_count_in(plateau, "bad_epochs"),
                 .cooldown = bounded_count_in(plateau, "cooldown"),
                 .rate = finite_in(plateau, "rate")};
  }
  if (manifest.contains("best")) {
    const Json& best = manifest.at("best");
    s.best = {.measure = best.at("measure"),
              .value = finite_in(best, "value"),
              .epoch = bounded_count_in(best, "epoch"),
              .step = bounded_count_in(best, "step"),
              .improved = finite_in(best, "improved"),
              .waited = bounded_count_in(best, "waited")};
  }
}

// What the checksum covers may be anyone's all the same.
TrainState state_of(const Json& manifest) {
  TrainState s;
  s.step = bounded_count_in(manifest, "step");
  s.epoch = bounded_count_in(manifest, "epoch");
  s.position = bounded_count_in(manifest, "position");
  s.iteration = bounded_count_in(manifest, "iteration");
  if (!manifest.at("seed").is_number_unsigned()) throw Error("manifest.json: 'seed': an integer from 0 expected");
  s.seed = manifest.at("seed");
  s.samples = bounded_count_in(manifest, "samples");
  if (s.samples > 0 && s.position > s.samples)
    throw Error("manifest.json: 'position': at most the " + std::to_string(s.samples) + " samples expected, found " +
                std::to_string(s.position));
  if (manifest.contains("data")) s.data = data_facts_of(manifest["data"]);
  const Json& totals = manifest.at("epoch_totals");
  s.totals = {
      .steps = bounded_count_in(totals, "steps"),
      .skipped = bounded_count_in(totals, "skipped"),
      .samples = bounded_count_in(totals, "samples"),
      // A sum that is not finite is null in JSON.
      .loss = optional_number(totals.at("loss")).value_or(std::numeric_limits<double>::quiet_NaN()),
      // Before, steps counted alike.
      .loss_labels = totals.value("loss_labels", totals.at("steps").get<double>() - totals.at("skipped").get<double>()),
      .correct = optional_number(totals.at("correct")),
      .counted = totals.at("counted"),
      .loss_scale = optional_number(totals.at("loss_scale"))};
  for (const Json& sums : totals.value("losses", Json::array()))
    s.totals.losses.push_back(
        {.loss = optional_number(sums.at("loss")).value_or(std::numeric_limits<double>::quiet_NaN()),
         .counted = sums.at("counted"),
         .correct = optional_number(sums.at("correct")),
         .judged = sums.value("judged", sums.at("counted").get<double>())});
  read_rules(manifest, s);
  return s;
}

Json read_manifest(const fs::path& path) {
  Json manifest = parse_json(read_file(path, kMostManifestBytes));
  if (!manifest.is_object() || !manifest.contains("crc32")) throw Error("manifest.json is not a manifest or truncated");
  const Json found = manifest["crc32"];
  manifest.erase("crc32");
  if (found != checksum_of_text(manifest)) throw Error("manifest.json: checksum differs");
  if (manifest.value("format", "") != "halfstep checkpoint") throw Error("manifest.json: not a checkpoint's");
  if (const Json version = manifest.value("version", Json()); version != kVersion)
    throw Error("manifest.json: format version " + version.dump() + ", expected " + std::to_string(kVersion));
  return manifest;
}

// Throws Error saying what is wrong, without naming the checkpoint.
Checkpoint read_intact(const fs::path& path) try {
  const Json manifest = read_manifest(path / "manifest.json");
  Checkpoint checkpoint{state_of(manifest), {}};
  for (const TensorFile& file : kTensorFiles) {
    FileTensors& tensors = checkpoint.model.*file.tensors;
    tensors = read_safetensors(path / file.name).tensors;
    const Json& entries = manifest.at("files").at(file.name);
    for (const auto& [tensor_name, entry] : entries.items()) {
      const std::string where = std::string(file.name) + ": tensor '" + tensor_name + "'";
      const auto found = tensors.find(tensor_name);
      if (found == tensors.end()) throw Error(where + " is missing");
      if (describe(found->second) != entry) throw Error(where + ": type, shape or checksum differ from the manifest");
    }
    if (tensors.size() != entries.size()) throw Error(std::string(file.name) + ": tensors the manifest does not list");
  }
  return checkpoint;
} catch (const Json::exception& e) {
  throw Error(std::string("manifest.json: ") + e.what());
}

std::optional<fs::path> next_older_intact(const fs::path& path, int64_t step) {
  for (const CheckpointEntry& entry : list_checkpoints(path.parent_path().empty() ? "." : path.parent_path())) {
    if (entry.step >= step) continue;
    try {
      read_intact(entry.path);
      return entry.path;
    } catch (const Error&) {
      continue;  // corrupt as well
    }
  }
  return std::nullopt;
}

bool is_intact(const fs::path& path) {
  try {
    read_intact(path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

fs::path hidden_path(const fs::path& directory, std::string_view prefix, const std::string& name) {
  return directory / (std::string(prefix) + name);
}

// Names of the checkpoints that have a copy under `prefix`.
std::vector<std::string> hidden_names(const fs::path& directory, std::string_view prefix) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && step_of(name.substr(prefix.size()))) names.push_back(name.substr(prefix.size()));
  }
  return names;
}

// The newest one, which a run that died may have left hidden. Nothing is moved: the run may be alive.
fs::path newest_checkpoint(const fs::path& directory) {
  const std::vector<CheckpointEntry> entries = list_checkpoints(directory);
  int64_t newest = entries.empty() ? -1 : entries.front().step;
  fs::path found = entries.empty() ? fs::path() : entries.front().path;
  for (const std::string_view prefix : {kPartialPrefix, kReplacedPrefix})
    for (const std::string& name : hidden_names(directory, prefix))
      if (const fs::path path = hidden_path(directory, prefix, name); *step_of(name) > newest && is_intact(path))
        newest = *step_of(name), found = path;
  if (newest < 0) throw Error("'" + directory.string() + "' holds no checkpoint (step-*)");
  return found;
}

fs::path resolve(const fs::path& path) {
  const fs::path clean = path.has_filename() ? path : path.parent_path();
  if (step_of(clean) || fs::exists(clean / "manifest.json")) return clean;
  return newest_checkpoint(clean);
}

// The rename comes first, so that a removal cut short leaves nothing that looks like a checkpoint.
void remove_checkpoint(const fs::path& directory, const fs::path& path) {
  const fs::path hidden = hidden_path(directory, kRemovedPrefix, path.filename().string());
  std::error_code ignored;
  fs::remove_all(hidden, ignored);
  fs::rename(path, hidden, ignored);
  fs::remove_all(hidden, ignored);
}

// Whether the checkpoint is there already, byte for byte.
bool is_written(const fs::path& path, const Json& manifest) {
  try {
    Json written = read_manifest(path / "manifest.json"), wanted = manifest;
    wanted.erase("crc32");
    return written == wanted && is_intact(path);
  } catch (const Error&) {
    return false;
  } catch (const Json::exception&) {
    return false;
  }
}

}  // namespace

void recover_checkpoints(const fs::path& directory) {
  std::error_code ignored;
  for (const std::string_view prefix : {kPartialPrefix, kReplacedPrefix, kRemovedPrefix})
    for (const std::string& name : hidden_names(directory, prefix)) {
      const fs::path path = hidden_path(directory, prefix, name);
      if (prefix != kRemovedPrefix && !fs::exists(directory / name) && is_intact(path))
        put_in_place(path, directory / name, path);
      else
        fs::remove_all(path, ignored);
    }
}

void prepare_checkpoint_directory(const fs::path& directory) {
  std::error_code error;
  const bool created = fs::create_directories(directory, error);
  if (error) throw Error("cannot create checkpoint directory '" + directory.string() + "': " + error.message());
  if (created) sync_directory(directory.has_parent_path() ? directory.parent_path() : ".");
  if (::access(directory.c_str(), W_OK | X_OK) != 0)
    throw Error("cannot write checkpoint directory '" + directory.string() + "': " + std::strerror(errno));
}

fs::path save_checkpoint(const fs::path& directory, Executor& executor, const TrainState& state, int keep) {
  prepare_checkpoint_directory(directory);
  recover_checkpoints(directory);
  const Checkpoint checkpoint{state, read_model_state(executor)};
  const Json manifest = manifest_of(checkpoint);
  const std::string name = directory_name(state.step);
  const fs::path final_path = directory / name, partial = hidden_path(directory, kPartialPrefix, name),
                 replaced = hidden_path(directory, kReplacedPrefix, name);
  std::error_code ignored;
  if (!is_written(final_path, manifest)) try {
      prepare_checkpoint_directory(partial);
      for (const TensorFile& file : kTensorFiles)
        write_safetensors(partial / file.name, checkpoint.model.*file.tensors);
      if (const auto scalers = grad_scalers_of(executor.model(), checkpoint.model.slots))
        write_file_atomically(partial / "grad_scaler.json", to_json(*scalers));
      write_file_atomically(partial / "manifest.json", manifest.dump(1) + "\n");
      put_in_place(partial, final_path, replaced);
      for (const fs::path& old : {partial, replaced}) fs::remove_all(old, ignored);
    } catch (...) {
      fs::remove_all(partial, ignored);
      throw;
    }
  const std::vector<CheckpointEntry> entries = list_checkpoints(directory);
  for (size_t i = static_cast<size_t>(keep); keep > 0 && i < entries.size(); ++i)
    if (entries[i].path != final_path && !(state.best.value && entries[i].step == state.best.step))
      remove_checkpoint(directory, entries[i].path);
  return final_path;
}

std::vector<CheckpointEntry> list_checkpoints(const fs::path& directory) {
  std::vector<CheckpointEntry> entries;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error))
    if (const std::optional<int64_t> step = step_of(entry.path())) entries.push_back({entry.path(), *step});
  if (error) throw Error("cannot read checkpoint directory '" + directory.string() + "': " + error.message());
  std::ranges::sort(entries, std::ranges::greater{}, &CheckpointEntry::step);
  return entries;
}

Checkpoint read_checkpoint(const fs::path& path) {
  const fs::path resolved = resolve(path);
  try {
    return read_intact(resolved);
  } catch (const Error& e) {
    std::string message = "checkpoint '" + resolved.string() + "' is corrupt: " + e.what();
    if (const std::optional<int64_t> step = step_of(resolved))
      if (const std::optional<fs::path> older = next_older_intact(resolved, *step))
        throw Error(message + ": use the older intact one '" + older->string() + "'");
    throw Error(message + ": no older intact one is there");
  }
}

TrainState load_checkpoint(const fs::path& path, Executor& executor) {
  const Checkpoint checkpoint = read_checkpoint(path);
  write_model_state(executor, checkpoint.model, "checkpoint '" + path.string() + "'");
  return checkpoint.train;
}

DataFacts read_data_facts(const fs::path& path) {
  const fs::path resolved = resolve(path);
  try {
    const Json manifest = read_manifest(resolved / "manifest.json");
    return manifest.contains("data") ? data_facts_of(manifest["data"]) : DataFacts();
  } catch (const Json::exception& e) {
    throw Error("checkpoint '" + resolved.string() + "' is corrupt: manifest.json: " + e.what());
  } catch (const Error&) {
    return read_checkpoint(path).train.data;  // says what is wrong, and offers another
  }
}

FileTensors read_checkpoint_weights(const fs::path& path, WeightsKind kind) {
  return weights_of(read_checkpoint(path).model, kind);
}

fs::path checkpoint_of_step(const fs::path& directory, int64_t step) {
  const fs::path path = directory / directory_name(step);
  std::error_code unreadable;
  return fs::is_directory(path, unreadable) ? path : fs::path();
}

}  // namespace halfstep
