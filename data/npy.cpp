#include "data/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/printable.h"

namespace halfstep {
namespace {

constexpr int64_t kMostHeaderBytes = 1 << 20;

struct TypeCode {
  std::string_view descr;
  DType dtype;
};
// bfloat16 is not a NumPy type of its own: the common extension saves it as two-byte void.
constexpr std::array<TypeCode, 11> kTypeCodes{{{"<f2", DType::f16},
                                               {"<V2", DType::bf16},
                                               {"|V2", DType::bf16},
                                               {"<f4", DType::f32},
                                               {"<f8", DType::f64},
                                               {"|u1", DType::u8},
                                               {"|i1", DType::i8},
                                               {"<i4", DType::i32},
                                               {"<i8", DType::i64},
                                               {"|b1", DType::boolean},
                                               {"?", DType::boolean}}};

struct Header {
  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<Shape> shape;
};

// The Python dictionary literal of a header: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Header parse() {
    Header header;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr") {
        header.descr = string();
      } else if (key == "fortran_order") {
        header.fortran_order = boolean();
      } else if (key == "shape") {
        header.shape = tuple();
      } else {
        fail("unknown key '" + key + "'");
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (!text_.empty()) fail("text after the dictionary");
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const { throw Error(where_ + ": bad NPY header: " + reason); }
  void skip_space() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n' || text_[0] == '\t')) text_.remove_prefix(1);
  }
  bool accept(char c) {
    skip_space();
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(std::string("'") + c + "' expected");
  }
  std::string string() {
    skip_space();
    const char quote = text_.empty() ? '\0' : text_[0];
    if (quote == '[') fail("structured arrays are not supported: save one array per field");
    if (quote != '\'' && quote != '"') fail("string expected");
    const size_t end = text_.find(quote, 1);
    if (end == std::string_view::npos) fail("string is not closed");
    std::string value(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return value;
  }
  bool boolean() {
    skip_space();
    for (const auto& [word, value] : {std::pair{std::string_view("True"), true}, {"False", false}})
      if (text_.starts_with(word)) {
        text_.remove_prefix(word.size());
        return value;
      }
    fail("True or False expected");
  }
  Shape tuple() {
    Shape shape;
    expect('(');
    while (!accept(')')) {
      skip_space();
      int64_t dimension = 0;
      const auto [end, status] = std::from_chars(text_.data(), text_.data() + text_.size(), dimension);
      if (status != std::errc{} || dimension < 0) fail("non-negative dimension expected");
      text_.remove_prefix(static_cast<size_t>(end - text_.data()));
      shape.push_back(dimension);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view text_;
  const std::string& where_;
};

std::string read_header_text(ByteSource& source) {
  std::array<uint8_t, 8> magic{};  // kNpyMagic, major and minor version
  read_exactly(source, std::as_writable_bytes(std::span(magic)), "header");
  if (std::memcmp(magic.data(), kNpyMagic.data(), kNpyMagic.size()) != 0)
    throw Error(source.name() + ": not an NPY file");
  if (magic[6] < 1 || magic[6] > 3)
    throw Error(source.name() + ": NPY version " + std::to_string(magic[6]) + " is not supported: expected 1 to 3");
  std::array<uint8_t, 4> length{};
  read_exactly(source, std::as_writable_bytes(std::span(length)).first(magic[6] == 1 ? 2 : 4), "header");
  const int64_t bytes =
      int64_t{length[0]} | int64_t{length[1]} << 8 | int64_t{length[2]} << 16 | int64_t{length[3]} << 24;
  if (bytes > std::min(kMostHeaderBytes, source.most_remaining()))
    throw Error(source.name() + ": NPY header of " + std::to_string(bytes) + " bytes is larger than the file or than " +
                std::to_string(kMostHeaderBytes));
  std::string text(static_cast<size_t>(bytes), '\0');
  read_exactly(source, std::as_writable_bytes(std::span(text)), "header");
  return text;
}

TensorType type_of(const NpyHeader& header, const ByteSource& source) {
  const auto code = std::ranges::find(kTypeCodes, header.descr, &TypeCode::descr);
  if (code == kTypeCodes.end())
    throw Error(source.name() + ": element type '" + printable(header.descr) +
                "' is not supported: save it little-endian as float16, float32, float64, uint8, int8, int32, int64 or "
                "bool");
  return {code->dtype, header.shape};
}

}  // namespace

std::string_view npy_descr(DType dtype) { return std::ranges::find(kTypeCodes, dtype, &TypeCode::dtype)->descr; }

NpyHeader read_npy_header(ByteSource& source) {
  const std::string text = read_header_text(source);
  const Header header = HeaderParser(text, source.name()).parse();
  if (!header.descr || !header.fortran_order || !header.shape)
    throw Error(source.name() + ": bad NPY header: 'descr', 'fortran_order' and 'shape' expected");
  return {*header.descr, *header.fortran_order, *header.shape};
}

Tensor read_npy(ByteSource& source) { return read_npy_samples(source, kAllInMemory).tensor(); }

SampleValues read_npy_samples(ByteSource& source, int64_t memory) {
  const NpyHeader header = read_npy_header(source);
  TensorType type = type_of(header, source);
  if (!header.fortran_order) return read_samples(source, std::move(type), memory);
  // Column-major bytes are the row-major bytes of the transposed array.
  std::ranges::reverse(type.shape);
  std::vector<int64_t> reversed(type.shape.size());
  for (size_t i = 0; i < reversed.size(); ++i) reversed[i] = static_cast<int64_t>(reversed.size() - 1 - i);
  return read_elements(source, std::move(type)).transpose(reversed);
}

TensorType read_npy_type(ByteSource& source) {
  const NpyHeader header = read_npy_header(source);
  if (header.fortran_order && header.shape.size() > 1)
    throw Error(source.name() + ": it is in Fortran order: save it by numpy.ascontiguousarray");
  return type_of(header, source);
}

}  // namespace halfstep
