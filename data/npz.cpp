#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "base/printable.h"
#include "data/npy.h"

namespace halfstep {
namespace {

// Signatures and field offsets are those of the ZIP application note.
constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kEnd64Locator = 0x07064b50;
constexpr int64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint16_t kStored = 0, kDeflated = 8, kEncrypted = 1, kZip64Extra = 1;
constexpr uint32_t kSee64 = 0xffffffff;

struct Member {
  std::string name;
  uint16_t flags = 0, method = 0;
  uint32_t crc = 0;
  int64_t compressed = 0, size = 0, header = 0;
  int64_t data = 0;  // offset of its first byte
};

template <typename T>
T field(std::span<const std::byte> record, size_t offset) {
  T value;
  std::memcpy(&value, record.data() + offset, sizeof value);
  return value;
}

class Archive {
 public:
  explicit Archive(const std::filesystem::path& path)
      : file_(std::make_shared<const DataFile>(path)), where_("data file " + file_->name()) {}

  // By name, what `read` makes of a member's source.
  template <typename Array>
  std::map<std::string, Array> read(const std::function<Array(ByteSource&)>& read) const {
    std::vector<Member> members = directory();
    for (Member& member : members) locate(member);
    refuse_overlaps(members);
    std::map<std::string, Array> arrays;
    for (const Member& member : members) {
      std::string name = member.name;
      if (name.ends_with(".npy")) name.resize(name.size() - 4);
      if (!arrays.emplace(name, read(*source_of(member))).second) fail("two members are named '" + member.name + "'");
    }
    return arrays;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const { throw Error(where_ + ": " + reason); }
  [[noreturn]] void fail_format() const { fail("not a zip archive or a truncated one: get the file again"); }

  std::vector<std::byte> bytes(int64_t offset, int64_t count) const {
    if (offset < 0 || count < 0 || count > file_->size() || offset > file_->size() - count) fail_format();
    std::vector<std::byte> content(static_cast<size_t>(count));
    if (file_->read_at(offset, content) != content.size()) fail_format();
    return content;
  }

  // Entries, bytes and offset of the central directory, from the record at the end or its 64-bit twin.
  std::array<int64_t, 3> find_directory() const {
    constexpr int64_t kMostComment = 0xffff;
    const int64_t tail_bytes = std::min(file_->size(), kEndBytes + kMostComment);
    const int64_t tail_offset = file_->size() - tail_bytes;
    const std::vector<std::byte> tail = bytes(tail_offset, tail_bytes);
    for (int64_t at = tail_bytes - kEndBytes; at >= 0; --at) {
      const std::span<const std::byte> record = std::span(tail).subspan(static_cast<size_t>(at));
      if (field<uint32_t>(record, 0) != kEnd) continue;
      const int64_t locator_offset = tail_offset + at - kLocatorBytes;
      if (locator_offset >= 0) {
        const std::vector<std::byte> locator = bytes(locator_offset, kLocatorBytes);
        if (field<uint32_t>(locator, 0) == kEnd64Locator) {
          const std::vector<std::byte> end = bytes(field<int64_t>(locator, 8), kEnd64Bytes);
          if (field<uint32_t>(end, 0) != kEnd64) fail_format();
          return {field<int64_t>(end, 32), field<int64_t>(end, 40), field<int64_t>(end, 48)};
        }
      }
      return {field<uint16_t>(record, 10), field<uint32_t>(record, 12), field<uint32_t>(record, 16)};
    }
    fail_format();
  }

  std::vector<Member> directory() const {
    const auto [count, size, offset] = find_directory();
    const std::vector<std::byte> content = bytes(offset, size);
    std::vector<Member> members;
    std::span<const std::byte> rest(content);
    for (int64_t i = 0; i < count; ++i) {
      if (rest.size() < kCentralBytes || field<uint32_t>(rest, 0) != kCentralHeader) fail_format();
      Member m;
      m.flags = field<uint16_t>(rest, 8);
      m.method = field<uint16_t>(rest, 10);
      m.crc = field<uint32_t>(rest, 16);
      m.compressed = field<uint32_t>(rest, 20);
      m.size = field<uint32_t>(rest, 24);
      m.header = field<uint32_t>(rest, 42);
      const size_t name = field<uint16_t>(rest, 28), extra = field<uint16_t>(rest, 30);
      const size_t comment = field<uint16_t>(rest, 32);
      if (rest.size() - kCentralBytes < name + extra + comment) fail_format();
      rest = rest.subspan(kCentralBytes);
      m.name.assign(reinterpret_cast<const char*>(rest.data()), name);
      if (holds_control_character(m.name))
        fail("the name of member '" + printable(m.name) + "' holds a control character: rename it");
      read_extra(m, rest.subspan(name, extra));
      rest = rest.subspan(name + extra + comment);
      members.push_back(std::move(m));
    }
    return members;
  }

  // 64-bit sizes and offset stand in an extra field, in this order, each only where the 32-bit field is full.
  void read_extra(Member& m, std::span<const std::byte> extra) const {
    while (extra.size() >= 4) {
      const size_t length = field<uint16_t>(extra, 2);
      if (extra.size() - 4 < length) fail_format();
      if (field<uint16_t>(extra, 0) == kZip64Extra) {
        std::span<const std::byte> values = extra.subspan(4, length);
        for (int64_t* value : {&m.size, &m.compressed, &m.header}) {
          if (*value != kSee64) continue;
          if (values.size() < 8) fail_format();
          *value = field<int64_t>(values, 0);
          values = values.subspan(8);
        }
      }
      extra = extra.subspan(4 + length);
    }
  }

  void locate(Member& m) const {
    const std::vector<std::byte> local = bytes(m.header, kLocalBytes);
    if (field<uint32_t>(local, 0) != kLocalHeader) fail_format();
    m.data = m.header + kLocalBytes + field<uint16_t>(local, 26) + field<uint16_t>(local, 28);
    if (m.compressed < 0 || m.size < 0 || m.compressed > file_->size() || m.data > file_->size() - m.compressed)
      fail_format();
  }

  // Members that share bytes could make a small file decode to any size.
  void refuse_overlaps(std::vector<Member> members) const {
    std::ranges::sort(members, {}, &Member::header);
    for (size_t i = 1; i < members.size(); ++i)
      if (members[i - 1].data + members[i - 1].compressed > members[i].header)
        fail("members '" + members[i - 1].name + "' and '" + members[i].name + "' overlap");
  }

  std::unique_ptr<ByteSource> source_of(const Member& m) const {
    const std::string name = where_ + " member '" + m.name + "'";
    if (m.flags & kEncrypted) throw Error(name + ": encrypted members are not supported");
    if (m.method != kStored && m.method != kDeflated)
      throw Error(name + ": compression method " + std::to_string(m.method) +
                  " is not supported: save with numpy.savez or savez_compressed");
    std::unique_ptr<ByteSource> source = open_range(file_, name, m.data, m.compressed);
    if (m.method == kDeflated) source = open_inflated(std::move(source), Compression::raw_deflate);
    return open_checked(std::move(source), m.crc, m.size);
  }

  std::shared_ptr<const DataFile> file_;
  std::string where_;
};

}  // namespace

FileTensors read_npz(const std::filesystem::path& path) { return Archive(path).read<Tensor>(read_npy); }

std::map<std::string, SampleValues> read_npz_samples(const std::filesystem::path& path, int64_t memory) {
  return Archive(path).read<SampleValues>([memory](ByteSource& source) { return read_npy_samples(source, memory); });
}

}  // namespace halfstep
