#include "program/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"
#include "program/json_text.h"

namespace halfstep {
namespace {

using Json = nlohmann::json;

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMostHeaderBytes = 100'000'000;
constexpr const char* kMetadata = kReservedTensorName.data();

// In the order of DType.
constexpr std::string_view kTypeNames[kDTypeCount] = {"F16", "BF16", "F32", "F64", "U8", "I8", "I32", "I64", "BOOL"};

DType type_from(const std::string& text) {
  const auto found = std::ranges::find(kTypeNames, text);
  if (found == std::end(kTypeNames)) throw Error(fmt::format("unknown element type '{}'", printable(text)));
  return static_cast<DType>(found - std::begin(kTypeNames));
}

struct Entry {
  std::string name;
  TensorType type;
  int64_t begin = 0, end = 0;  // bytes after the header
};

const Json& member(const Json& object, const char* key, bool (Json::*is)() const noexcept, const char* expected) {
  const auto found = object.find(key);
  if (found == object.end() || !((*found).*is)()) throw Error(fmt::format("'{}' must be {}", key, expected));
  return *found;
}

std::vector<int64_t> integers(const Json& object, const char* key) {
  std::vector<int64_t> values;
  for (const Json& value : member(object, key, &Json::is_array, "a list of integers")) {
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) ||
        value.get<int64_t>() < 0)
      throw Error(fmt::format("'{}' must hold integers from 0", key));
    values.push_back(value.get<int64_t>());
  }
  return values;
}

Entry parse_entry(const std::string& name, const Json& json) {
  const std::string place = fmt::format("tensor '{}'", name);
  try {
    if (!json.is_object()) throw Error("an object expected");
    Entry entry{name, {}, 0, 0};
    entry.type.dtype = type_from(member(json, "dtype", &Json::is_string, "a string").get<std::string>());
    entry.type.shape = integers(json, "shape");
    const std::vector<int64_t> offsets = integers(json, "data_offsets");
    if (offsets.size() != 2 || offsets[0] > offsets[1]) throw Error("'data_offsets' must be begin and end");
    entry.begin = offsets[0];
    entry.end = offsets[1];
    const int64_t bytes =
        checked_mul(checked_element_count(entry.type.shape, "shape"), size_of(entry.type.dtype), "shape");
    if (bytes != entry.end - entry.begin)
      throw Error(
          fmt::format("{} needs {} bytes, its offsets hold {}", to_string(entry.type), bytes, entry.end - entry.begin));
    return entry;
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", place, error.what()));
  }
}

void parse_metadata(const Json& json, std::map<std::string, std::string>& metadata) {
  if (!json.is_object()) throw Error("metadata must be an object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) throw Error(fmt::format("metadata '{}' must be a string", key));
    metadata.emplace(key, value.get<std::string>());
  }
}

// Entries in the order of the data, which they cover without gap or overlap.
std::vector<Entry> parse_header(const std::string& text, int64_t data_bytes, Safetensors& content) {
  const Json header = parse_json(text);
  if (!header.is_object()) throw Error("the header is not a JSON object");
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata)
      parse_metadata(value, content.metadata);
    else
      entries.push_back(parse_entry(name, value));
  }
  std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
  int64_t covered = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != covered)
      throw Error(fmt::format("tensor '{}': data at byte {} expected, found {}: the data has a gap or overlap",
                              entry.name, covered, entry.begin));
    covered = entry.end;
  }
  if (covered != data_bytes)
    throw Error(fmt::format("{} bytes of data expected, found {}: the file is {}", covered, data_bytes,
                            covered > data_bytes ? "truncated" : "longer than its header says"));
  return entries;
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) {
    std::error_code error;
    size_ = static_cast<int64_t>(std::filesystem::file_size(path, error));
    if (!error) stream_.open(path, std::ios::binary);
    if (error || !stream_) throw Error(error ? error.message() : std::strerror(errno));
  }
  int64_t size() const { return size_; }
  void read(void* to, int64_t bytes) {
    if (bytes > 0 && !stream_.read(static_cast<char*>(to), bytes)) throw Error("the file is truncated");
  }

 private:
  std::ifstream stream_;
  int64_t size_ = 0;
};

Safetensors read(Reader& reader) {
  unsigned char length_bytes[kLengthBytes];
  reader.read(length_bytes, kLengthBytes);
  uint64_t length = 0;
  for (int i = kLengthBytes; i-- > 0;) length = length << 8 | length_bytes[i];
  if (length > static_cast<uint64_t>(std::min(kMostHeaderBytes, reader.size() - kLengthBytes)))
    throw Error(fmt::format("a header of {} bytes does not fit: truncated or not a safetensors file", length));
  std::string header(length, '\0');
  reader.read(header.data(), static_cast<int64_t>(length));
  Safetensors content;
  const int64_t data_bytes = reader.size() - kLengthBytes - static_cast<int64_t>(length);
  for (const Entry& entry : parse_header(header, data_bytes, content)) {
    Tensor tensor(entry.type);
    reader.read(tensor.data.data(), entry.end - entry.begin);
    content.tensors.emplace(entry.name, std::move(tensor));
  }
  return content;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const FileTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::map<std::string, TensorSource> sources;
  for (const auto& [name, tensor] : tensors)
    sources.emplace(name, TensorSource{tensor.type, [&data = tensor.data](const auto& take) { take(data); }});
  write_safetensors(path, sources, metadata, nullptr);
}

void write_safetensors(const std::filesystem::path& path, const std::map<std::string, TensorSource>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(std::span<const std::byte>)>& written) {
  std::vector<const std::map<std::string, TensorSource>::value_type*> order;
  for (const auto& item : tensors) {
    if (item.first == kMetadata)
      throw Error(fmt::format("cannot write '{}': a tensor named '{}'", path.string(), kMetadata));
    order.push_back(&item);
  }
  // Widest elements first: every tensor then lies aligned to its element.
  std::ranges::stable_sort(order, std::ranges::greater{},
                           [](const auto* item) { return size_of(item->second.type.dtype); });
  Json header = Json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  int64_t offset = 0;
  for (const auto* item : order) {
    const TensorType& type = item->second.type;
    header[item->first] = {{"dtype", kTypeNames[static_cast<size_t>(type.dtype)]},
                           {"shape", type.shape},
                           {"data_offsets", {offset, offset + type.byte_count()}}};
    offset += type.byte_count();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception&) {
    throw Error(fmt::format("cannot write '{}': a name or metadata is not UTF-8", path.string()));
  }
  text.resize(static_cast<size_t>(round_up(static_cast<int64_t>(text.size()), 8)), ' ');
  write_file_atomically(path, [&](FileSink& sink) {
    std::string length(kLengthBytes, '\0');
    for (size_t i = 0; i < length.size(); ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
    const auto write = [&](std::span<const std::byte> bytes) {
      sink.write(bytes);
      if (written) written(bytes);
    };
    write(std::as_bytes(std::span(length)));
    write(std::as_bytes(std::span(text)));
    for (const auto* item : order) {
      int64_t bytes = 0;
      item->second.read([&](std::span<const std::byte> piece) {
        write(piece);
        bytes += static_cast<int64_t>(piece.size());
      });
      require(bytes == item->second.type.byte_count(), "a tensor's pieces are its bytes");
    }
  });
}

Safetensors read_safetensors(const std::filesystem::path& path) {
  try {
    Reader reader(path);
    return read(reader);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read '{}': {}", path.string(), error.what()));
  }
}

}  // namespace halfstep
