// Readers of data, checkpoints, compiled steps, programs, graphs and recipes.
#include <fmt/format.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "compiler/recipe.h"
#include "data/data.h"
#include "data/image.h"
#include "data/npy.h"
#include "data/tokenizer.h"
#include "ir/text.h"
#include "program/program.h"
#include "program/safetensors.h"
#include "tests/data/image_writing.h"
#include "tests/training/fake_executor.h"
#include "tests/untrusted/cases.h"
#include "training/checkpoint.h"

namespace halfstep::test {
namespace {

namespace fs = std::filesystem;

std::string little(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i, value >>= 8) text += static_cast<char>(value);
  return text;
}

std::string npy(const std::string& descr, const std::string& shape, size_t data, bool fortran = false) {
  std::string header =
      "{'descr': '" + descr + "', 'fortran_order': " + (fortran ? "True" : "False") + ", 'shape': " + shape + ", }";
  header.resize(118, ' ');
  return std::string("\x93NUMPY\x01\x00", 8) + little(118, 2) + header + std::string(data, '\1');
}

// One stored member.
std::string npz(const std::string& array) {
  const uLong checksum = crc32_z(0, reinterpret_cast<const Bytef*>(array.data()), array.size());
  const std::string name = "x.npy", sizes = little(checksum, 4) + little(array.size(), 4) + little(array.size(), 4);
  const std::string local = std::string("PK\3\4") + little(20, 2) + little(0, 8) + sizes + little(name.size(), 2) +
                            little(0, 2) + name + array;
  const std::string central = std::string("PK\1\2") + little(20, 2) + little(20, 2) + little(0, 8) + sizes +
                              little(name.size(), 2) + little(0, 16) + name;
  return local + central + std::string("PK\5\6") + little(0, 4) + little(1, 2) + little(1, 2) +
         little(central.size(), 4) + little(local.size(), 4) + little(0, 2);
}

std::string idx(uint8_t type, const std::vector<uint8_t>& dims, size_t data) {
  std::string text{'\0', '\0', static_cast<char>(type), static_cast<char>(dims.size())};
  for (uint8_t d : dims) text += std::string{'\0', '\0', '\0', static_cast<char>(d)};
  return text + std::string(data, '\1');
}

std::string tar(const std::string& name, const std::string& data) {
  std::string header(512, '\0');
  header.replace(0, name.size(), name).replace(124, 11, fmt::format("{:011o}", data.size()));
  header.replace(148, 8, 8, ' ');
  header[156] = '0';
  int sum = 0;
  for (const char c : header) sum += static_cast<uint8_t>(c);
  header.replace(148, 7, fmt::format("{:06o}", sum) + '\0');
  return header + data + std::string((512 - data.size() % 512) % 512, '\0');
}

Program small_program() {
  Program p;
  p.name = "train";
  p.buffers = {{"x", BufferKind::input, {DType::f32, {4, 8}}},
               {"loss", BufferKind::output, {DType::f32, {}}},
               {"parameters", BufferKind::state, {DType::f32, {20}}},
               {"scratch", BufferKind::scratch, {DType::u8, {65536}}}};
  p.steps = {{KernelLaunch{"fused_0", {{0, 0}, {3, 128}}, {7, 1, 2}, 256, 32, 4096}, "relu"},
             {Copy{{3, 100}, {1, 0}, 4}, "loss"}};
  return p;
}

CompiledModel small_step() {
  CompiledModel m;
  m.architecture = "x86-64";
  m.programs = {small_program()};
  m.kernels = std::string(
      "\x7f"
      "ELF\0\1\2",
      7);
  m.state["parameters"] = Tensor({DType::f32, {20}});
  m.arenas = {"parameters"};
  m.parameters = {{"w", {2, 3}, {1, 0}, 0}, {"b", {4}, {}, 16}};
  m.notes.recipe = {{"model", "m.onnx"}};
  return m;
}

// Of pieces of words, and of bytes with one merge.
constexpr const char* kPieces =
    R"({"model": {"type": "WordPiece", "max_input_chars_per_word": 9, "vocab": {"[UNK]": 0, "a": 1, "##b": 2, "##bc": 3}},
"normalizer": {"type": "BertNormalizer", "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"},
"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {}}],
"special_tokens": {"x": {"ids": [7]}}}})";

std::string byte_level() {
  std::string vocabulary;
  for (uint32_t c = 0x21; c < 0x144; ++c) {
    if ((c >= 0x7f && c <= 0xa0) || c == 0xad) continue;
    std::string character(1, static_cast<char>(c));
    if (c >= 0x80) character = {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
    vocabulary += fmt::format("\"{}{}\": {}, ", c == '"' || c == '\\' ? "\\" : "", character, c);
  }
  return R"({"added_tokens": [{"id": 300, "content": "<s>", "lstrip": true, "rstrip": true}],
"pre_tokenizer": {"type": "ByteLevel"}, "post_processor": {"type": "Sequence", "processors":
[{"type": "RobertaProcessing", "cls": ["<s>", 300], "sep": ["<s>", 300]}]}, "model": {"type": "BPE", "vocab": {)" +
         vocabulary + R"("ab": 1}, "merges": ["a b"]}})";
}

constexpr const char* kGraph =
    "graph g {\n  %x = input() {name=\"x\"} : f32[4,3]\n  %w = parameter() {name=\"w\"} : f32[2,3]\n"
    "  %y = matmul(%x, %w) {transpose_b=1} @\"fc\"\n  output \"y\" = %y\n}\n";
constexpr const char* kRecipe =
    "model = \"m.onnx\"\nbatch = 8\nmean = [0.5, 0.25]\nshape = \"x=8,3,4,4\"\nprecision = \"bf16\"\n"
    "special_tokens = [1, 2]\nset = \"sr=16000\"\nnesterov = true\nlearning_rate = 1e-3\n";

// Not to last: it is read at once.
void write_whole(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// Writes the case to a file of that name, and gives it to the reader.
ReaderCase of_file(std::string name, const std::string& file, std::vector<std::string> seeds,
                   std::function<void(const fs::path&)> read) {
  return {std::move(name), std::move(seeds), [file, read](const std::string& bytes, const std::string& directory) {
            const fs::path path = fs::path(directory) / file;
            write_whole(path, bytes);
            read(path);
          }};
}

// A manifest whose checksum is right, whatever else it says.
std::string with_checksum(const std::string& manifest) {
  nlohmann::json json = nlohmann::json::parse(manifest, nullptr, false);
  if (!json.is_object()) return manifest;
  json.erase("crc32");
  const std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  json["crc32"] = crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size());
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The same for a file of a directory whose others stay as they are.
ReaderCase of_part(const std::string& name, const fs::path& part, const std::function<void()>& read) {
  const std::string seed = read_file(part);
  return {name, {seed}, [part, read](const std::string& bytes, const std::string&) {
            write_whole(part, bytes);
            read();
          }};
}

}  // namespace

std::vector<ReaderCase> reader_cases(const std::string& directory) {
  const fs::path root = directory, step = root / "compiled";
  save_compiled(small_step(), step.string());
  FakeExecutor executor;
  const fs::path first = save_checkpoint(root / "first", executor, {.step = 3}, 0),
                 second = save_checkpoint(root / "second", executor, {.step = 3}, 0);
  write_safetensors(root / "seed.safetensors", {{"w", Tensor({DType::f32, {2, 3}})}, {"b", Tensor({DType::i64, {}})}},
                    {{"k", "v"}});
  const auto dataset = [](const std::string& prefix, const DataOptions& options = {}) {
    return [=](const fs::path& path) { open_dataset(prefix + path.string(), Split::train, options); };
  };
  const auto compiled = [step] { load_compiled(step.string()); };
  const auto restored = [](const fs::path& checkpoint) { return [checkpoint] { read_checkpoint(checkpoint); }; };
  std::vector<ReaderCase> cases{
      of_file("npy", "case.npy", {npy("<f4", "(2, 3)", 24), npy("<i8", "(2,)", 16), npy("|u1", "(2, 2, 2)", 8, true)},
              dataset("x=")),
      of_file("npz", "case.npz", {npz(npy("<f4", "(2, 3)", 24)), npz(npy("<i8", "(4,)", 32))}, dataset("")),
      of_file("npz in its file", "case.npz", {npz(npy("<f4", "(2, 3)", 24))}, dataset("", {.data_memory = {0}})),
      of_file("csv", "case.csv",
              {"a,b,label\n1,2,x\n3,4.5,y\n", "\"a \"\"q\"\"\";\"b\"\r\n1;0\r\n2;1\r\n", "1\t2\n3\t4\n"}, dataset("")),
      of_file("tar", "case.tar",
              {tar("a.png", "x") + tar("a.cls", "1") + std::string(1024, '\0'),
               tar("b/c.d.jpg", std::string(600, 'y')) + std::string(1024, '\0')},
              dataset("")),
      of_file(
          "tar of arrays", "case.tar",
          {tar("a.npy", npy("<f4", "(2, 3)", 24)) + tar("a.json", R"({"k": {"l": [1, 2]}})") + std::string(1024, '\0')},
          dataset("", {.data_memory = {0}, .label_column = {"k.l"}})),
      of_file("image", "case.png", {png_file(3, 4, pattern(3, 4, 3)), jpeg_file(9, 9, pattern(9, 9, 3))},
              [](const fs::path& path) {
                const std::string bytes = read_file(path);
                decode_image(std::as_bytes(std::span(bytes)), "case", 3, 1 << 16);
              }),
      of_file("idx", "case.idx", {idx(8, {2, 3}, 6), idx(13, {4}, 16), idx(12, {}, 4)}, dataset("x=")),
      of_file("tokens", "case.npy", {npy("<i4", "(6,)", 24), npy("<u2", "(6,)", 12)},
              [](const fs::path& path) {
                const TokenFile file(path);
                std::vector<int64_t> tokens(static_cast<size_t>(std::min<int64_t>(file.size(), 64)));
                file.read(0, tokens);
              }),
      of_file("tokenizer", "case.json", {byte_level(), kPieces},
              [](const fs::path& path) {
                read_tokenizer(path)->encode("abc <s>  \u00c9a\u0301, 12 \u4e2d\u6587 don't \xff\xe4\xb8 abcbcab<s");
              }),
      of_file("safetensors", "case.safetensors", {read_file(root / "seed.safetensors")},
              [](const fs::path& path) { read_safetensors(path); }),
      of_part("checkpoint manifest", first / "manifest.json", restored(first)),
      of_part("checkpoint weights", second / "weights.safetensors", restored(second)),
      of_part("compiled manifest", step / "manifest.json", compiled),
  };
  const fs::path manifest = first / "manifest.json";
  cases.push_back(
      {"checkpoint counts", {read_file(manifest)}, [manifest, first](const std::string& bytes, const std::string&) {
         write_whole(manifest, with_checksum(bytes));
         read_checkpoint(first);
       }});
  cases.push_back({"program", {print(small_program())}, [](const std::string& bytes, const std::string&) {
                     parse_program(bytes);
                   }});
  cases.push_back({"graph", {kGraph}, [](const std::string& bytes, const std::string&) { parse_graph(bytes); }});
  cases.push_back({"recipe", {kRecipe}, [](const std::string& bytes, const std::string& folder) {
                     Recipe recipe;
                     read_recipe_text(recipe, bytes, "case.toml", folder);
                   }});
  return cases;
}

}  // namespace halfstep::test
