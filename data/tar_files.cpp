#include "data/tar_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "base/printable.h"
#include "data/image_files.h"
#include "data/image_folder.h"

namespace halfstep {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kMostNameBytes = 1 << 16;  // of a member, and of what a pax header says
constexpr int64_t kMostLabelBytes = 64;

using Header = std::array<char, kBlock>;

std::string text_at(const Header& header, size_t at, size_t bytes) {
  const char* begin = header.data() + at;
  return {begin, std::find(begin, begin + bytes, '\0')};
}

// Octal digits, or where the first bit is set a number of 8 bytes.
int64_t number_at(const Header& header, size_t at, size_t bytes, const std::string& where) {
  uint64_t value = 0;
  if ((static_cast<uint8_t>(header[at]) & 0x80) != 0) {
    for (size_t i = 1; i < bytes; ++i) {
      if (value >> 55 != 0) throw Error(where + ": a header holds a size beyond 64 bits");
      value = value << 8 | static_cast<uint8_t>(header[at + i]);
    }
    return static_cast<int64_t>(value);
  }
  for (size_t i = at; i < at + bytes; ++i) {
    if (header[i] == ' ' || header[i] == '\0') continue;
    if (header[i] < '0' || header[i] > '7') throw Error(where + ": a header holds no octal number");
    value = value << 3 | static_cast<uint64_t>(header[i] - '0');
  }
  return static_cast<int64_t>(value);
}

bool checks(const Header& header, int64_t sum) {
  int64_t found = 0;
  for (size_t i = 0; i < header.size(); ++i) found += i >= 148 && i < 156 ? ' ' : static_cast<uint8_t>(header[i]);
  return found == sum;
}

// Of the records "LENGTH KEY=VALUE\n" of a pax header.
void read_pax(const std::string& records, std::string& name, int64_t& size, const std::string& where) {
  for (size_t at = 0; at < records.size();) {
    size_t length = 0;
    const auto [end, error] = std::from_chars(records.data() + at, records.data() + records.size(), length);
    const auto digits = static_cast<size_t>(end - (records.data() + at));
    if (error != std::errc() || length <= digits + 1 || length > records.size() - at)
      throw Error(where + ": a pax header is corrupt");
    const std::string record = records.substr(at + digits + 1, length - digits - 2);
    at += length;
    if (record.starts_with("path=")) name = record.substr(5);
    if (!record.starts_with("size=")) continue;
    int64_t value = -1;
    std::from_chars(record.data() + 5, record.data() + record.size(), value);
    if (value < 0) throw Error(where + ": a pax header is corrupt");
    size = value;
  }
}

// What stands before the first dot of its last part, and behind it in small letters.
std::pair<std::string, std::string> key_and_ending(const std::string& name) {
  const size_t slash = name.rfind('/'), dot = name.find('.', slash == std::string::npos ? 0 : slash + 1);
  if (dot == std::string::npos) return {name, ""};
  std::string ending = name.substr(dot + 1);
  std::ranges::transform(ending, ending.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return {name.substr(0, dot), ending};
}

bool is_image(const std::string& ending) { return ending == "jpg" || ending == "jpeg" || ending == "png"; }

class TarImages final : public ImageFiles {
 public:
  struct Place {
    uint32_t shard = 0;
    int64_t offset = 0, size = 0;
  };
  TarImages(std::vector<std::shared_ptr<const DataFile>> shards, std::vector<Place> places)
      : shards_(std::move(shards)), places_(std::move(places)) {}

  int64_t size() const override { return static_cast<int64_t>(places_.size()); }
  std::string name(int64_t image) const override {
    const Place& place = places_[static_cast<size_t>(image)];
    return fmt::format("image at byte {} of {}", place.offset, shards_[place.shard]->name());
  }
  std::vector<std::byte> read(int64_t image) const override {
    const Place& place = places_[static_cast<size_t>(image)];
    std::vector<std::byte> bytes(static_cast<size_t>(place.size));
    if (shards_[place.shard]->read_at(place.offset, bytes) != bytes.size())
      throw Error(name(image) + ": the archive became shorter while it was read");
    return bytes;
  }
  int64_t group(int64_t image) const override { return places_[static_cast<size_t>(image)].shard; }

 private:
  std::vector<std::shared_ptr<const DataFile>> shards_;
  std::vector<Place> places_;
};

class ShardReading {
 public:
  void read(const std::string& path) {
    auto file = std::make_shared<const DataFile>(path);
    const std::vector<TarMember> members = read_tar_index(*file);
    std::string key;
    std::optional<TarMember> image, label;
    for (size_t i = 0; i <= members.size(); ++i) {
      const auto [next, ending] =
          i < members.size() ? key_and_ending(members[i].name) : std::pair<std::string, std::string>();
      if (i == members.size() || next != key) {
        end_sample(*file, key, image, label);
        image.reset(), label.reset(), key = next;
      }
      if (i == members.size()) break;
      if (is_image(ending)) {
        if (image) throw Error(fmt::format("{}: sample '{}' has two images", file->name(), printable(key)));
        image = members[i];
      } else if (ending == "cls") {
        label = members[i];
      } else {
        ++others_["." + printable(ending)];
      }
    }
    shards_.push_back(std::move(file));
  }

  Dataset finish(const DataRequest& request) {
    const std::string where = "tar shards '" + request.specification + "'";
    if (places_.empty()) throw Error(where + ": no sample has a .jpg or .png");
    if (!labels_.empty() && labels_.size() != places_.size())
      throw Error(fmt::format("{}: {} of {} images have a label (.cls): all or none expected", where, labels_.size(),
                              places_.size()));
    Dataset dataset;
    dataset.facts = request.facts;
    dataset.remarks.push_back(fmt::format("{}: {} images in {} {}{}", where, places_.size(), shards_.size(),
                                          shards_.size() == 1 ? "archive" : "archives",
                                          labels_.empty() ? ", without labels" : ""));
    if (!others_.empty()) {
      std::string text;
      for (const auto& [ending, count] : others_)
        text += fmt::format("{}{} '{}'", text.empty() ? "" : ", ", count, ending);
      dataset.remarks.push_back(fmt::format("{}: passed over: {}", where, text));
    }
    if (!labels_.empty()) {
      Tensor array({DType::i64, {static_cast<int64_t>(labels_.size())}});
      std::ranges::copy(labels_, array.as<int64_t>().begin());
      dataset.arrays.push_back({"labels", std::move(array)});
    }
    ImageSpan images{std::make_shared<const TarImages>(std::move(shards_), std::move(places_)),
                     {},
                     request.split == Split::train,
                     request.options};
    images.rows.resize(static_cast<size_t>(images.files->size()));
    std::iota(images.rows.begin(), images.rows.end(), int64_t{0});
    dataset.images = std::move(images);
    leave_out_bad_images(dataset);
    return dataset;
  }

 private:
  void end_sample(const DataFile& file, const std::string& key, const std::optional<TarMember>& image,
                  const std::optional<TarMember>& label) {
    if (!image) return;
    places_.push_back({static_cast<uint32_t>(shards_.size()), image->offset, image->size});
    if (!label) return;
    std::string text(static_cast<size_t>(std::min(label->size, kMostLabelBytes)), '\0');
    file.read_at(label->offset, std::as_writable_bytes(std::span(text)));
    int64_t value = 0;
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ' || text.back() == '\r')) text.pop_back();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      throw Error(fmt::format("{}: sample '{}': its .cls holds '{}', a whole number expected", file.name(),
                              printable(key), printable(text)));
    labels_.push_back(value);
  }

  std::vector<std::shared_ptr<const DataFile>> shards_;
  std::vector<TarImages::Place> places_;
  std::vector<int64_t> labels_;
  std::map<std::string, int64_t> others_;
};

}  // namespace

std::vector<std::string> expand_braces(const std::string& pattern) {
  constexpr int64_t kMostNames = 1'000'000;
  const size_t open = pattern.find('{'), close = pattern.find('}', open);
  if (open == std::string::npos) return {pattern};
  const std::string inside = close == std::string::npos ? "" : pattern.substr(open + 1, close - open - 1);
  const size_t dots = inside.find("..");
  int64_t first = 0, last = -1;
  const auto read = [&](const std::string& text, int64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && value >= 0 && !text.empty();
  };
  if (dots == std::string::npos || !read(inside.substr(0, dots), first) || !read(inside.substr(dots + 2), last) ||
      last < first || last - first >= kMostNames)
    throw Error("data '" + pattern +
                "': a range such as {000..009} expected between the braces, the smaller number "
                "first and at most a million in all");
  std::vector<std::string> names;
  for (const std::string& rest : expand_braces(pattern.substr(close + 1)))
    for (int64_t i = first; i <= last; ++i) {
      names.push_back(fmt::format("{}{:0{}}{}", pattern.substr(0, open), i, dots, rest));
      if (static_cast<int64_t>(names.size()) > kMostNames)
        throw Error("data '" + pattern + "': more than a million names");
    }
  return names;
}

std::vector<TarMember> read_tar_index(const DataFile& file) {
  std::vector<TarMember> members;
  std::string long_name;
  int64_t long_size = -1;  // of the next member; -1: its header says it
  Header header{};
  bool ended = false;
  for (int64_t at = 0; at < file.size();) {
    const std::string where = fmt::format("{}, byte {}", file.name(), at);
    if (file.read_at(at, std::as_writable_bytes(std::span(header))) != header.size())
      throw Error(where + ": the archive is cut off");
    ended = std::ranges::all_of(header, [](char c) { return c == '\0'; });
    if (ended) break;
    if (at == 0 && header[0] == '\x1f' && header[1] == '\x8b')
      throw Error(file.name() + ": it is compressed, and images are read where they lie: unpack it to a plain .tar");
    if (!checks(header, number_at(header, 148, 8, where)))
      throw Error(where + ": no header of a tar archive is here, or it is corrupt");
    const char kind = header[156];
    const int64_t size = long_size >= 0 && kind != 'x' && kind != 'L' ? long_size : number_at(header, 124, 12, where);
    at += kBlock;
    if (size > file.size() - at)
      throw Error(
          fmt::format("{}: a member of {} bytes reaches beyond the archive's end: is it cut off?", where, size));
    if (kind == 'x' || kind == 'L') {
      if (size > kMostNameBytes)
        throw Error(where + ": a name of more than " + std::to_string(kMostNameBytes) + " bytes");
      std::string text(static_cast<size_t>(size), '\0');
      file.read_at(at, std::as_writable_bytes(std::span(text)));
      if (kind == 'L')
        long_name = text.substr(0, text.find('\0'));
      else
        read_pax(text, long_name, long_size, where);
    } else {
      if (kind == '0' || kind == '\0') {
        std::string name = text_at(header, 0, 100);
        if (const std::string prefix = text_at(header, 345, 155);
            !prefix.empty() && std::memcmp(header.data() + 257, "ustar", 6) == 0)
          name = prefix + "/" + name;
        members.push_back({long_name.empty() ? name : long_name, at, size});
      }
      long_name.clear(), long_size = -1;
    }
    at += round_up(size, kBlock);
  }
  // Blocks of zeros end an archive, so that one that lost its last members is seen.
  if (!ended) throw Error(file.name() + ": the archive does not end as they do, with zeros: is it cut off?");
  return members;
}

Dataset open_tar_shards(const DataRequest& request) {
  ShardReading reading;
  for (const std::string& path : expand_braces(request.specification)) reading.read(path);
  return reading.finish(request);
}

}  // namespace halfstep
