#include "data/token_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/checked.h"
#include "data/npy.h"

namespace halfstep {
namespace {

constexpr size_t kPiece = size_t{1} << 16;  // tokens

template <typename T>
void widen(std::span<const std::byte> bytes, std::span<int64_t> into) {
  for (size_t i = 0; i < into.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
    into[i] = static_cast<int64_t>(value);
  }
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& path) : file_(path) {
  const std::string extension = path.extension().string();
  if (extension == ".npy") {
    open_npy(path);
  } else {
    if (extension == ".u16" || extension == ".bin") element_ = Element::u16;
    if (extension == ".u32") element_ = Element::u32;
    text_ = element_ == Element::u8;
    if (file_.size() % element_bytes() != 0)
      throw Error("token file " + name() + ": " + std::to_string(file_.size()) + " bytes are no whole number of " +
                  std::to_string(element_bytes()) + "-byte tokens: is it truncated, or of another type?");
    size_ = file_.size() / element_bytes();
  }
  if (size_ == 0) throw Error("token file " + name() + ": it is empty");
}

TokenFile::TokenFile(const std::filesystem::path& path, const Tokenizer& tokenizer) : file_(path) {
  constexpr int64_t kMostBytes = int64_t{1} << 31;
  if (file_.size() > kMostBytes)
    throw Error("text file " + name() + ": " + std::to_string(file_.size()) +
                " bytes are more than are encoded at once: encode it beforehand to a token file (.u16, .u32)");
  std::string text(static_cast<size_t>(file_.size()), '\0');
  text.resize(file_.read_at(0, std::as_writable_bytes(std::span(text))));
  encoded_ = tokenizer.encode(text);
  size_ = static_cast<int64_t>(encoded_.size());
  if (size_ == 0) throw Error("text file " + name() + ": it has no tokens");
  bytes_per_token_ = static_cast<double>(text.size()) / static_cast<double>(size_);
}

void TokenFile::open_npy(const std::filesystem::path& path) {
  struct TypeCode {
    std::string_view descr;
    Element element;
  };
  constexpr std::array<TypeCode, 5> kTypeCodes{{{"|u1", Element::u8},
                                                {"<u2", Element::u16},
                                                {"<u4", Element::u32},
                                                {"<i4", Element::i32},
                                                {"<i8", Element::i64}}};
  const std::unique_ptr<ByteSource> source = open_data_file(path);
  const NpyHeader header = read_npy_header(*source);
  const auto code = std::ranges::find(kTypeCodes, header.descr, &TypeCode::descr);
  if (code == kTypeCodes.end() || header.shape.size() != 1)
    throw Error("token file " + name() + ": '" + header.descr + "' with " + std::to_string(header.shape.size()) +
                " axes: expected one axis of uint8, uint16, uint32, int32 or int64");
  element_ = code->element;
  size_ = header.shape[0];
  const int64_t announced = checked_mul(size_, element_bytes(), "token file " + name());
  offset_ = file_.size() - source->most_remaining();
  if (announced != source->most_remaining())
    throw Error("token file " + name() + ": its header announces " + std::to_string(announced) + " bytes, but " +
                std::to_string(source->most_remaining()) + " follow");
}

int64_t TokenFile::element_bytes() const {
  switch (element_) {
    case Element::u8:
      return 1;
    case Element::u16:
      return 2;
    case Element::u32:
    case Element::i32:
      return 4;
    case Element::i64:
      return 8;
  }
  throw InternalError("unknown type of tokens");
}

void TokenFile::read(int64_t first, std::span<int64_t> into) const {
  require(first >= 0 && first <= size_ - static_cast<int64_t>(into.size()), "tokens inside the file");
  if (!encoded_.empty()) {
    std::copy_n(encoded_.begin() + first, into.size(), into.begin());
    return;
  }
  std::vector<std::byte> bytes(std::min(into.size(), kPiece) * static_cast<size_t>(element_bytes()));
  while (!into.empty()) {
    const std::span<int64_t> piece = into.first(std::min(into.size(), kPiece));
    const std::span<std::byte> part = std::span(bytes).first(piece.size() * static_cast<size_t>(element_bytes()));
    if (file_.read_at(offset_ + first * element_bytes(), part) != part.size())
      throw Error("token file " + name() + ": it became shorter while it was read");
    switch (element_) {
      case Element::u8:
        widen<uint8_t>(part, piece);
        break;
      case Element::u16:
        widen<uint16_t>(part, piece);
        break;
      case Element::u32:
        widen<uint32_t>(part, piece);
        break;
      case Element::i32:
        widen<int32_t>(part, piece);
        break;
      case Element::i64:
        widen<int64_t>(part, piece);
        break;
    }
    first += static_cast<int64_t>(piece.size());
    into = into.subspan(piece.size());
  }
}

void check_tokens(const TokenSpan& tokens, int64_t vocabulary) {
  constexpr int64_t kByteValues = 256;
  if (tokens.file->is_text() && vocabulary >= kByteValues) return;
  std::vector<int64_t> piece(kPiece);
  for (int64_t at = tokens.begin; at < tokens.end;) {
    const std::span<int64_t> part = std::span(piece).first(std::min(kPiece, static_cast<size_t>(tokens.end - at)));
    tokens.file->read(at, part);
    const auto bad = std::ranges::find_if(part, [&](int64_t token) { return token < 0 || token >= vocabulary; });
    if (bad != part.end())
      throw Error("token file " + tokens.file->name() + ": token " + std::to_string(*bad) + " at position " +
                  std::to_string(at + (bad - part.begin())) + ", expected 0 to " + std::to_string(vocabulary - 1) +
                  ": was it made for another vocabulary, or is it of another type than its name says?");
    at += static_cast<int64_t>(part.size());
  }
}

}  // namespace halfstep
