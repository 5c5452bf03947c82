#include "data/npy_write.h"

#include <zlib.h>

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

}  // namespace

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  write_file_atomically(path, [&](FileSink& sink) {
    sink.write(header(tensor.type));
    sink.write(std::span(tensor.data));
  });
}

void write_npz(const std::filesystem::path& path, const FileTensors& tensors) {
  constexpr size_t kMost = std::numeric_limits<uint32_t>::max();
  size_t all = 0;
  for (const auto& [name, tensor] : tensors) {
    all += tensor.data.size() + 2 * name.size() + 1024;
    if (all > kMost || name.size() > 1 << 15)
      throw Error("'" + path.string() + "': its arrays take more than 4 GiB: write one of them as .npy");
  }
  write_file_atomically(path, [&](FileSink& sink) {
    std::string directory;
    uint32_t offset = 0;
    uint16_t count = 0;
    for (const auto& [array, tensor] : tensors) {
      const std::string name = array + ".npy", head = header(tensor.type);
      uLong crc = crc32_z(0, reinterpret_cast<const Bytef*>(head.data()), head.size());
      crc = crc32_z(crc, reinterpret_cast<const Bytef*>(tensor.data.data()), tensor.data.size());
      const auto bytes = static_cast<uint32_t>(head.size() + tensor.data.size());
      std::string local("PK\x03\x04", 4);
      append_member(local, static_cast<uint32_t>(crc), bytes, name);
      local += name + head;
      sink.write(local);
      sink.write(std::span(tensor.data));
      directory += std::string("PK\x01\x02\x14\x00", 6);
      append_member(directory, static_cast<uint32_t>(crc), bytes, name);
      append(directory, uint16_t{0}, uint16_t{0}, uint16_t{0}, uint32_t{0}, offset);  // comment, disk, attributes
      directory += name;
      offset += static_cast<uint32_t>(local.size() + tensor.data.size());
      ++count;
    }
    std::string end("PK\x05\x06\x00\x00\x00\x00", 8);
    append(end, count, count, static_cast<uint32_t>(directory.size()), offset, uint16_t{0});
    sink.write(directory + end);
  });
}

}  // namespace halfstep
