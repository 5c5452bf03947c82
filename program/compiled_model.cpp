// A compiled step as a directory: the texts, kernels and weights, and a manifest that names them with sizes and
// checksums.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "program/gpu_code.h"
#include "program/host_cpu.h"
#include "program/initial_state.h"
#include "program/json_text.h"
#include "program/notes_json.h"
#include "program/program.h"
#include "program/safetensors.h"
#include "program/signature.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kFormat = "halfstep compiled step";
constexpr int kVersion = 6;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kSignature = "manifest.sig";  // of the manifest, which then has each file's SHA-256
constexpr const char* kWeights = "weights.safetensors";
constexpr int64_t kMostManifestBytes = 1 << 28;

std::string program_file(const std::string& program) { return "program." + program + ".txt"; }
std::string cubin_file(const std::string& architecture) { return "kernels." + architecture + ".cubin"; }
std::string kernels_file(DeviceKind device) { return device == DeviceKind::cuda ? "kernels.ptx" : "kernels.so"; }

uint32_t checksum(std::string_view bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

// Program names become file names, so a manifest must not reach outside its directory with one.
void check_program_name(const std::string& name) {
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; };
  if (name.empty() || !std::ranges::all_of(name, is_plain))
    throw Error(fmt::format("program name '{}': letters, digits, '_' and '-' expected", name));
}

Json manifest_of(const CompiledModel& model, const Json& files) {
  Json programs = Json::array(), cubins = Json::array(), arenas = Json::array(), parameters = Json::array();
  for (const Program& program : model.programs) programs.push_back(program.name);
  for (const auto& [architecture, code] : model.cubins) cubins.push_back(architecture);
  for (const ParameterSlice& slice : model.parameters)
    parameters.push_back(
        {{"name", slice.name}, {"shape", slice.shape}, {"permutation", slice.permutation}, {"offset", slice.offset}});
  for (const Name& arena : model.arenas) arenas.push_back(spelled(arena));
  StepNotes notes = model.notes;
  if (model.device == DeviceKind::cpu && notes.host.empty()) notes.host = host_fingerprint();
  return {{"format", kFormat},
          {"version", kVersion},
          {"device", name(model.device)},
          {"architecture", model.architecture},
          {"programs", programs},
          {"cubins", cubins},
          {"arenas", arenas},
          {"parameters", parameters},
          {"notes", json_of(notes)},
          {"files", files}};
}

Json parse_manifest(const std::string& text) {
  const Json manifest = parse_json(text);
  if (!manifest.is_object() || manifest.value("format", Json()) != kFormat)
    throw Error(fmt::format("{} is not the manifest of a compiled step", kManifest));
  if (manifest.value("version", Json()) != kVersion)
    throw Error(fmt::format("version {} expected, found {}: compile the model again", kVersion,
                            manifest.value("version", Json()).dump()));
  return manifest;
}

Json read_manifest(const fs::path& directory, const std::string& trust) {
  const std::string text = read_file(directory / kManifest, kMostManifestBytes);
  if (trust.empty()) {
    expect_writable_by_owner_alone(directory);
  } else {
    constexpr int64_t kMostSignatureBytes = 1 << 10;
    if (!fs::exists(directory / kSignature))
      throw Error(fmt::format("it is not signed, and --trust takes steps of key '{}' alone: get a signed one", trust));
    expect_signed(text, read_file(directory / kSignature, kMostSignatureBytes), trust);
  }
  return parse_manifest(text);
}

Name name_from(const Json& text) {
  const std::string line = line_of(text);
  std::optional<Name> name = parse_name(line);
  if (!name) throw Error(fmt::format("a name such as slot/momentum expected, found '{}'", line));
  return *name;
}

CompiledModel model_of(const Json& manifest) {
  CompiledModel model;
  const std::string device = line_of(manifest.at("device"));
  if (device != name(DeviceKind::cpu) && device != name(DeviceKind::cuda))
    throw Error(fmt::format("device: cpu or cuda expected, found '{}'", device));
  model.device = device == name(DeviceKind::cpu) ? DeviceKind::cpu : DeviceKind::cuda;
  model.architecture = line_of(manifest.at("architecture"));
  for (const Json& arena : manifest.at("arenas")) model.arenas.push_back(name_from(arena));
  model.notes = notes_from_json(manifest.at("notes"));
  for (const Json& slice : manifest.at("parameters"))
    model.parameters.push_back({line_of(slice.at("name")), counts_in(slice, "shape"), counts_in(slice, "permutation"),
                                count_in(slice, "offset")});
  return model;
}

enum class Checksum : uint8_t { crc32, sha256 };

// The bytes of one listed file, checked against the manifest.
std::string read_listed(const fs::path& directory, const Json& manifest, const std::string& file, Checksum sum) {
  const Json& entry = manifest.at("files").at(file);
  const int64_t bytes = count_in(entry, "bytes");
  std::string content = read_file(directory / file, bytes);
  if (static_cast<int64_t>(content.size()) != bytes)
    throw Error(fmt::format("{}: {} bytes expected, found {}", file, bytes, content.size()));
  if (entry.at("crc32") != checksum(content))
    throw Error(fmt::format("{}: the checksum differs from the manifest's", file));
  if (sum == Checksum::sha256 && sha256(content) != entry.at("sha256").get<std::string>())
    throw Error(fmt::format("{}: it is not what was signed: get the step again", file));
  return content;
}

CompiledModel load(const fs::path& directory, const std::string& trust) {
  const Json manifest = read_manifest(directory, trust);
  const Checksum sum = trust.empty() ? Checksum::crc32 : Checksum::sha256;
  CompiledModel model = model_of(manifest);
  for (const Json& item : manifest.at("programs")) {
    const std::string name = line_of(item);
    check_program_name(name);
    const std::string text = read_listed(directory, manifest, program_file(name), sum);
    try {
      const Program& program = model.programs.emplace_back(parse_program(text));
      for (const Buffer& buffer : program.buffers) line_of(buffer.name.text);
      for (const Step& step : program.steps) line_of(step.origin);
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", program_file(name), error.what()));
    }
    if (model.programs.back().name != name)
      throw Error(fmt::format("{} holds program '{}'", program_file(name), model.programs.back().name));
  }
  if (manifest.at("files").contains(kernels_file(model.device)))
    model.kernels = read_listed(directory, manifest, kernels_file(model.device), sum);
  for (const Json& item : manifest.value("cubins", Json::array())) {
    const std::string architecture = line_of(item);
    parse_gpu_architecture(architecture);
    model.cubins[architecture] = read_listed(directory, manifest, cubin_file(architecture), sum);
  }
  read_listed(directory, manifest, kWeights, sum);
  FileTensors tensors = read_safetensors(directory / kWeights).tensors;
  for (auto& [name, tensor] : tensors) model.state.emplace(name_from(name), std::move(tensor));
  check(model);
  return model;
}

// A directory beside the final one that is removed again unless it was renamed into place.
class PartialDirectory {
 public:
  explicit PartialDirectory(const fs::path& target) : target_(target) {
    path_ = create_directory_beside(target), aside_ = path_.string() + ".replaced";
  }
  ~PartialDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
    fs::remove_all(aside_, ignored);
  }
  PartialDirectory(const PartialDirectory&) = delete;
  PartialDirectory& operator=(const PartialDirectory&) = delete;

  const fs::path& path() const { return path_; }
  // The directory that stood at the target goes with this object.
  void exchange_with_target() {
    sync_directory(path_);
    put_in_place(path_, target_, aside_);
  }

 private:
  fs::path target_, path_, aside_;
};

void save(const CompiledModel& model, const fs::path& target, const std::string& sign) {
  check(model);
  if (fs::exists(fs::symlink_status(target))) {
    try {
      parse_manifest(read_file(target / kManifest, kMostManifestBytes));
    } catch (const Error&) {
      throw Error("it exists and is not a compiled step: choose another directory or remove it");
    }
  }
  fs::create_directories(target.parent_path());
  PartialDirectory partial(target);
  Json files = Json::object();
  const auto write = [&](const std::string& file, std::string_view content) {
    files[file] = {{"bytes", content.size()}, {"crc32", checksum(content)}};
    write_file_atomically(partial.path() / file, content);
  };
  for (const Program& program : model.programs) {
    check_program_name(program.name);
    write(program_file(program.name), print(program));
  }
  if (!model.kernels.empty()) write(kernels_file(model.device), model.kernels);
  for (const auto& [architecture, code] : model.cubins) write(cubin_file(architecture), code);
  size_t bytes = 0;
  uLong sum = crc32_z(0, nullptr, 0);
  std::map<std::string, TensorSource> tensors;
  const auto add = [&](const Name& name, const TensorType& type) {
    tensors.try_emplace(spelled(name), TensorSource{type, [&model, name, dtype = type.dtype](const auto& take) {
                                                      read_initial_state(model, name, dtype, take);
                                                    }});
  };
  for (const auto& [name, tensor] : model.state) add(name, tensor.type);
  for (const Program& program : model.programs)
    for (const Buffer& buffer : program.buffers)
      if (const auto base = base_of_low_copy(model, buffer.name);
          buffer.kind == BufferKind::state && base && model.state.contains(*base))
        add(buffer.name, buffer.type);
  write_safetensors(partial.path() / kWeights, tensors, {}, [&](std::span<const std::byte> written) {
    bytes += written.size();
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(written.data()), written.size());
  });
  files[kWeights] = {{"bytes", bytes}, {"crc32", sum}};
  if (!sign.empty())
    for (auto& [file, entry] : files.items()) entry["sha256"] = sha256(read_file(partial.path() / file));
  const std::string manifest = manifest_of(model, files).dump(1) + "\n";
  write_file_atomically(partial.path() / kManifest, manifest);
  if (!sign.empty()) write_file_atomically(partial.path() / kSignature, signature_of(manifest, sign));
  // Whatever the user's mask says.
  constexpr fs::perms kOfOthers = fs::perms::group_write | fs::perms::others_write;
  fs::permissions(partial.path(), kOfOthers, fs::perm_options::remove);
  for (const auto& entry : fs::directory_iterator(partial.path()))
    fs::permissions(entry.path(), kOfOthers, fs::perm_options::remove);
  partial.exchange_with_target();
}

}  // namespace

void save_compiled(const CompiledModel& model, const std::string& directory, const std::string& sign) {
  try {
    fs::path target = fs::absolute(directory).lexically_normal();
    if (!target.has_filename()) target = target.parent_path();  // "step/" names the same directory as "step"
    save(model, target, sign);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot write compiled step '{}': {}", directory, error.what()));
  } catch (const fs::filesystem_error& error) {
    throw Error(fmt::format("cannot write compiled step '{}': {}", directory, error.code().message()));
  } catch (const Json::exception&) {
    throw Error(fmt::format("cannot write compiled step '{}': a name or note is not UTF-8", directory));
  }
}

CompiledModel load_compiled(const std::string& directory, const std::string& trust) {
  try {
    return load(directory, trust);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot load compiled step '{}': {}", directory, error.what()));
  } catch (const Json::exception& error) {
    throw Error(fmt::format("cannot load compiled step '{}': {}: a field is missing or of the wrong type: {}",
                            directory, kManifest, error.what()));
  }
}

void save_compiled(const CompiledModel& model, const std::string& directory) { save_compiled(model, directory, ""); }

CompiledModel load_compiled(const std::string& directory) { return load_compiled(directory, ""); }

}  // namespace halfstep
