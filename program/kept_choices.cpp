#include "program/kept_choices.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "program/signature.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFirstLine = "halfstep kept choices, version 1";
constexpr std::string_view kSeparator = " | ";
constexpr int64_t kMostTextBytes = int64_t{1} << 24, kMostFileBytes = int64_t{1} << 30;
constexpr const char* kFolder = "kept";

uint32_t checksum(std::string_view bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

bool is_line(std::string_view text) {
  return std::ranges::none_of(text, [](unsigned char c) { return c < ' ' || c == 0x7f || c == '|'; });
}

std::string key_text(const ChoiceKey& key) {
  return fmt::format("device: {}\nlibraries: {}\nsettings: {}\n", key.device, key.libraries, key.settings);
}

// "NVIDIA H200, sm_90" → "NVIDIA_H200_sm_90.1a2b3c4d"
std::string file_stem(const ChoiceKey& key) {
  std::string stem;
  for (const char c : key.device) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '-') stem += c;
    if (c == ' ' && !stem.empty() && stem.back() != '_') stem += '_';
  }
  return fmt::format("{}.{:08x}", stem.substr(0, 64), checksum(key_text(key)));
}

class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}
  bool at_end() const { return rest_.empty(); }
  std::string_view next() {
    ++number_;
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) fail(rest_.empty() ? "it ends early" : "a line is cut short");
    const std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return line;
  }
  std::string value_of(std::string_view field) {
    const std::string_view line = next();
    if (!line.starts_with(field) || line.substr(field.size(), 2) != ": ")
      fail(fmt::format("'{}: ' expected, found '{}'", field, line));
    const std::string_view value = line.substr(field.size() + 2);
    if (!is_line(value)) fail("a control character or '|'");
    return std::string(value);
  }
  [[noreturn]] void fail(std::string_view why) const { throw Error(fmt::format("line {}: {}", number_, why)); }

 private:
  std::string_view rest_;
  int number_ = 0;
};

// "file NAME, 1234 bytes, checksum 1a2b3c4d"; the name holds the checksum, so that other bytes get another file.
std::string file_of(const fs::path& choices, std::string_view bytes) {
  return fmt::format("{}.{:08x}.bin", choices.stem().string(), checksum(bytes));
}
std::string entry_for(const std::string& file, std::string_view bytes) {
  return fmt::format("file {}, {}", file, digest(bytes));
}

// Whatever the user's mask says, for its owner alone to write.
void make_folder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST)
    throw Error(fmt::format("cannot make '{}': {}", folder.string(), std::generic_category().message(errno)));
}

}  // namespace

std::string digest(std::string_view bytes) {
  return fmt::format("{} bytes, checksum {:08x}", bytes.size(), checksum(bytes));
}

std::string print(const KeptChoices& kept) {
  std::string text = fmt::format("{}\n{}choices: {}\n", kFirstLine, key_text(kept.key), kept.choices.size());
  for (const auto& [call, choice] : kept.choices) text += fmt::format("{}{}{}\n", call, kSeparator, choice);
  return text + fmt::format("checksum: {:08x}\n", checksum(text));
}

KeptChoices parse_kept_choices(std::string_view text) {
  Lines lines(text);
  if (const std::string_view first = lines.next(); first != kFirstLine)
    lines.fail(fmt::format("'{}' expected, found '{}'", kFirstLine, first.substr(0, 80)));
  KeptChoices kept;
  kept.key.device = lines.value_of("device");
  kept.key.libraries = lines.value_of("libraries");
  kept.key.settings = lines.value_of("settings");
  const std::string count_text = lines.value_of("choices");
  size_t count = 0;
  const auto [end, error] = std::from_chars(count_text.data(), count_text.data() + count_text.size(), count);
  if (error != std::errc() || end != count_text.data() + count_text.size())
    lines.fail(fmt::format("a number of choices expected, found '{}'", count_text));
  for (size_t i = 0; i < count; ++i) {
    const std::string_view line = lines.next();
    const size_t middle = line.find(kSeparator);
    if (middle == std::string_view::npos) lines.fail("'call | choice' expected");
    const std::string_view call = line.substr(0, middle), choice = line.substr(middle + kSeparator.size());
    if (!is_line(call) || !is_line(choice)) lines.fail("a control character or a second '|'");
    if (!kept.choices.emplace(call, choice).second) lines.fail(fmt::format("'{}' appears twice", call));
  }
  lines.value_of("checksum");
  if (!lines.at_end()) lines.fail("nothing expected after the checksum");
  if (print(kept) != text) lines.fail("the checksum is another");
  return kept;
}

ChoiceStore::ChoiceStore(const fs::path& directory, ChoiceKey key) {
  kept_.key = std::move(key);
  if (directory.empty()) return;
  const fs::path folder = directory / kFolder;
  std::error_code unreadable;
  try {
    expect_writable_by_owner_alone(directory);
    if (fs::exists(folder, unreadable)) expect_writable_by_owner_alone(folder);
  } catch (const Error&) {
    remarks_.push_back(
        fmt::format("library calls are tuned at each start, and choices not kept: others than this user "
                    "may write '{}'",
                    directory.string()));
    return;
  }
  file_ = folder / (file_stem(kept_.key) + ".txt");
  writes_ = true;
  if (!fs::exists(file_, unreadable)) return;
  try {
    KeptChoices found = parse_kept_choices(read_file(file_, kMostTextBytes));
    if (found.key != kept_.key) throw Error("it is for another device, other libraries or settings");
    kept_ = std::move(found);
  } catch (const Error& error) {
    remarks_.push_back(
        fmt::format("kept choices '{}' are not used, and tuned again: {}", file_.string(), error.what()));
  }
}

const std::string* ChoiceStore::find(const std::string& call) const {
  const auto found = kept_.choices.find(call);
  return found == kept_.choices.end() ? nullptr : &found->second;
}

void ChoiceStore::keep(const std::string& call, const std::string& choice) {
  require(is_line(call) && is_line(choice), "a choice is one line");
  if (!keeps()) return;
  std::string& value = kept_.choices[call];
  if (value == choice) return;
  value = choice;
  changed_ = true;
}

void ChoiceStore::refuse(const std::string& call, const std::string& why) {
  remarks_.push_back(fmt::format("the kept choice for '{}' is not used, and tuned again: {}", call, why));
  kept_.choices.erase(call);
  changed_ = true;
}

std::optional<std::string> ChoiceStore::find_bytes(const std::string& call) {
  const std::string* const text = find(call);
  if (!text) return std::nullopt;
  try {
    const size_t end = text->find(", ");
    if (!text->starts_with("file ") || end == std::string::npos)
      throw Error(fmt::format("a file expected, found '{}'", *text));
    const std::string file = text->substr(5, end - 5);
    std::string bytes = read_file(file_.parent_path() / fs::path(file).filename(), kMostFileBytes);
    if (const std::string found = entry_for(file_of(file_, bytes), bytes); found != *text)
      throw Error(fmt::format("{} expected, found {}", *text, found));
    return bytes;
  } catch (const Error& error) {
    refuse(call, error.what());
    return std::nullopt;
  }
}

void ChoiceStore::keep_bytes(const std::string& call, std::string_view bytes) {
  if (!writes_) return;
  const std::string file = file_of(file_, bytes);
  try {
    make_folder(file_.parent_path());
    write_file_atomically(file_.parent_path() / file, bytes, Writers::owner_alone);
    keep(call, entry_for(file, bytes));
  } catch (const Error& error) {
    give_up_writing(error.what());
  }
}

// The first failure stands for those behind it.
void ChoiceStore::give_up_writing(const std::string& why) {
  remarks_.push_back(fmt::format("what was tuned is not kept for the next start: {}", why));
  writes_ = false;
}

void ChoiceStore::save() {
  if (!writes_ || !changed_) return;
  try {
    make_folder(file_.parent_path());
    write_file_atomically(file_, print(kept_), Writers::owner_alone);
    changed_ = false;
  } catch (const Error& error) {
    give_up_writing(error.what());
  }
}

}  // namespace halfstep
