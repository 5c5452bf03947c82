// Data files built byte by byte: IDX, NPY and zip, plain or compressed.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/tensor.h"

namespace halfstep {

inline std::filesystem::path write(const TemporaryDirectory& directory, const std::string& name,
                                   const std::string& bytes) {
  const std::filesystem::path path = directory.path() / name;
  write_file_atomically(path, bytes);
  return path;
}

template <typename T>
void append(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// zlib's window codes: 31 gzip, -15 bare deflate.
inline std::string compress(const std::string& bytes, int window) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}
inline std::string gzip(const std::string& bytes) { return compress(bytes, 31); }

inline std::string idx_header(uint8_t code, const std::vector<uint32_t>& dimensions) {
  std::string bytes{'\0', '\0', static_cast<char>(code), static_cast<char>(dimensions.size())};
  for (const uint32_t d : dimensions)
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(d >> shift);
  return bytes;
}

inline std::string idx_u8(const std::vector<uint32_t>& dimensions, const std::string& elements) {
  return idx_header(8, dimensions) + elements;
}

// A version 1 header around any dictionary text, so that bad ones can be written too.
inline std::string npy(const std::string& dictionary, const std::string& elements) {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  append(bytes, static_cast<uint16_t>(dictionary.size()));
  return bytes + dictionary + elements;
}

inline std::string npy(const std::string& descr, const std::string& shape, const std::string& elements) {
  return npy("{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n", elements);
}

enum class ZipSizes : uint8_t { bits32, bits64 };

struct ZipMember {
  std::string name;
  std::string content;
  uint16_t method = 0;  // 0 stored, 8 deflated
  uint16_t flags = 0;
  uint32_t crc_error = 0;  // xor-ed into the checksum
};

inline std::string zip(const std::vector<ZipMember>& members, ZipSizes sizes = ZipSizes::bits32) {
  const bool wide = sizes == ZipSizes::bits64;
  std::string bytes, directory;
  for (const ZipMember& m : members) {
    const std::string data = m.method == 8 ? compress(m.content, -15) : m.content;
    const uint32_t crc = static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(m.content.data()),
                                                     static_cast<uInt>(m.content.size()))) ^
                         m.crc_error;
    const uint64_t offset = bytes.size();
    std::string common;  // shared by the local and the central header
    for (const uint16_t v : {uint16_t{45}, m.flags, m.method, uint16_t{0}, uint16_t{0}}) append(common, v);
    append(common, crc);
    append(common, wide ? 0xffffffffu : static_cast<uint32_t>(data.size()));
    append(common, wide ? 0xffffffffu : static_cast<uint32_t>(m.content.size()));
    append(common, static_cast<uint16_t>(m.name.size()));
    std::string extra;
    if (wide) {
      append(extra, uint16_t{1});
      append(extra, uint16_t{24});
      append(extra, uint64_t{m.content.size()});
      append(extra, uint64_t{data.size()});
      append(extra, offset);
    }
    append(bytes, 0x04034b50u);
    bytes += common;
    append(bytes, static_cast<uint16_t>(extra.size()));
    bytes += m.name + extra + data;
    append(directory, 0x02014b50u);
    append(directory, uint16_t{45});
    directory += common;
    append(directory, static_cast<uint16_t>(extra.size()));
    directory += std::string(10, '\0');  // comment length, disk, attributes
    append(directory, wide ? 0xffffffffu : static_cast<uint32_t>(offset));
    directory += m.name + extra;
  }
  const uint64_t at = bytes.size();
  bytes += directory;
  if (wide) {
    const uint64_t end = bytes.size();
    append(bytes, 0x06064b50u);
    append(bytes, uint64_t{44});
    bytes += std::string(12, '\0');
    append(bytes, uint64_t{members.size()});
    append(bytes, uint64_t{members.size()});
    append(bytes, uint64_t{directory.size()});
    append(bytes, at);
    append(bytes, 0x07064b50u);
    append(bytes, uint32_t{0});
    append(bytes, end);
    append(bytes, uint32_t{1});
  }
  append(bytes, 0x06054b50u);
  append(bytes, uint32_t{0});
  const uint16_t count = wide ? 0xffff : static_cast<uint16_t>(members.size());
  append(bytes, count);
  append(bytes, count);
  append(bytes, wide ? 0xffffffffu : static_cast<uint32_t>(directory.size()));
  append(bytes, wide ? 0xffffffffu : static_cast<uint32_t>(at));
  append(bytes, uint16_t{0});
  return bytes;
}

}  // namespace halfstep
