#include "data/npy_write.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "data/npy.h"

namespace halfstep {
namespace {

// Magic, version, length and dictionary, padded so that the elements are aligned to 64 bytes.
std::string header(const TensorType& type) {
  std::string shape;
  for (const int64_t d : type.shape) shape += std::to_string(d) + ",";
  std::string dictionary =
      "{'descr': '" + std::string(npy_descr(type.dtype)) + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  constexpr size_t kBefore = 10;
  dictionary.append(63 - (kBefore + dictionary.size()) % 64, ' ').push_back('\n');
  const size_t length = dictionary.size();
  require(length <= std::numeric_limits<uint16_t>::max(), "a shape has few axes");
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(length & 0xff) + static_cast<char>(length >> 8) +
         dictionary;
}

template <typename... T>
void append(std::string& to, T... fields) {
  (to.append(reinterpret_cast<const char*>(&fields), sizeof fields), ...);
}

// Of both a member's own header and its row in the directory, from "version needed" to the sizes.
void append_member(std::string& to, uint32_t crc, uint32_t bytes, const std::string& name) {
  constexpr uint16_t kVersion = 20, kUtf8 = 1 << 11, kStored = 0, kMidnight = 0, kFirstDay = 0x21;  // 1 January 1980
  append(to, kVersion, kUtf8, kStored, kMidnight, kFirstDay, crc, bytes, bytes, static_cast<uint16_t>(name.size()),
         uint16_t{0});
}

void check_size(const std::filesystem::path& path, size_t all, const std::string& name) {
  constexpr size_t kMost = std::numeric_limits<uint32_t>::max();
  if (all > kMost || name.size() > 1 << 15)
    throw Error("'" + path.string() + "': its arrays take more than 4 GiB: write one of them as .npy");
}

// One member after the other, then the directory.
class NpzWriter {
 public:
  explicit NpzWriter(FileSink& sink) : sink_(sink) {}

  // `crc` is of header and elements; `write` gives the elements.
  void add(const std::string& array, const TensorType& type, uint32_t crc, const std::function<void()>& write) {
    const std::string name = array + ".npy", head = header(type);
    const auto bytes = static_cast<uint32_t>(head.size() + static_cast<size_t>(type.byte_count()));
    std::string local("PK\x03\x04", 4);
    append_member(local, crc, bytes, name);
    local += name + head;
    sink_.write(local);
    write();
    directory_ += std::string("PK\x01\x02\x14\x00", 6);
    append_member(directory_, crc, bytes, name);
    append(directory_, uint16_t{0}, uint16_t{0}, uint16_t{0}, uint32_t{0}, offset_);  // comment, disk, attributes
    directory_ += name;
    offset_ += static_cast<uint32_t>(local.size() + static_cast<size_t>(type.byte_count()));
    ++count_;
  }
  void finish() {
    std::string end("PK\x05\x06\x00\x00\x00\x00", 8);
    append(end, count_, count_, static_cast<uint32_t>(directory_.size()), offset_, uint16_t{0});
    sink_.write(directory_ + end);
  }

 private:
  FileSink& sink_;
  std::string directory_;
  uint32_t offset_ = 0;
  uint16_t count_ = 0;
};

uint32_t crc_of(uint32_t crc, std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  write_npy(path, tensor.type, [&](FileSink& sink) { sink.write(std::span(tensor.data)); });
}

void write_npy(const std::filesystem::path& path, const TensorType& type, const std::function<void(FileSink&)>& fill) {
  write_file_atomically(path, [&](FileSink& sink) {
    sink.write(header(type));
    fill(sink);
  });
}

void write_npz(const std::filesystem::path& path, const FileTensors& tensors) {
  size_t all = 0;
  for (const auto& [name, tensor] : tensors) {
    all += tensor.data.size() + 2 * name.size() + 1024;
    check_size(path, all, name);
  }
  write_file_atomically(path, [&](FileSink& sink) {
    NpzWriter writer(sink);
    for (const auto& [array, tensor] : tensors) {
      const std::string head = header(tensor.type);
      const uint32_t crc = crc_of(crc_of(0, std::as_bytes(std::span(head))), tensor.data);
      writer.add(array, tensor.type, crc, [&] { sink.write(std::span(tensor.data)); });
    }
    writer.finish();
  });
}

struct NpzSpool::Piece {
  std::string name;
  TensorType type;
  std::string head;
  uint32_t crc = 0;
  std::fstream file;
};

NpzSpool::NpzSpool(const std::filesystem::path& path, std::vector<std::pair<std::string, TensorType>> members)
    : path_(path) {
  size_t all = 0;
  for (auto& [name, type] : members) {
    all += static_cast<size_t>(type.byte_count()) + 2 * name.size() + 1024;
    check_size(path, all, name);
    auto piece = std::make_unique<Piece>();
    piece->name = name, piece->type = type, piece->head = header(type);
    piece->crc = crc_of(0, std::as_bytes(std::span(piece->head)));
    pieces_.push_back(std::move(piece));
  }
  directory_ = create_directory_beside(path);
}

NpzSpool::~NpzSpool() {
  pieces_.clear();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void NpzSpool::add(size_t member, std::span<const std::byte> bytes) {
  Piece& piece = *pieces_[member];
  const auto failed = [&] { return Error("cannot write '" + path_.string() + "': " + std::strerror(errno)); };
  if (!piece.file.is_open())
    piece.file.open(directory_ / std::to_string(member),
                    std::ios::in | std::ios::out | std::ios::trunc | std::ios::binary);
  if (!piece.file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size())))
    throw failed();
  piece.crc = crc_of(piece.crc, bytes);
}

void NpzSpool::finish() {
  write_file_atomically(path_, [&](FileSink& sink) {
    NpzWriter writer(sink);
    for (const auto& piece : pieces_)
      writer.add(piece->name, piece->type, piece->crc, [&] {
        std::fstream& file = piece->file;
        if (!file.is_open()) return;
        if (!file.flush() || !file.seekg(0))
          throw Error("cannot write '" + path_.string() + "': " + std::strerror(errno));
        std::vector<char> part(1 << 20);
        while (file.read(part.data(), static_cast<std::streamsize>(part.size())) || file.gcount() > 0)
          sink.write(std::as_bytes(std::span(part).first(static_cast<size_t>(file.gcount()))));
        if (file.bad()) throw Error("cannot read a part of '" + path_.string() + "' again");
      });
    writer.finish();
  });
}

}  // namespace halfstep
