// usage: fuzz_seeds FOLDER MODEL.onnx ...      writes FOLDER/TARGET/*: what each fuzzer begins with
#include <filesystem>
#include <fstream>
#include <map>

#include "base/file.h"
#include "tests/untrusted/cases.h"

namespace {

using namespace halfstep;
namespace fs = std::filesystem;

// As tests/libfuzzer/CMakeLists.txt gives them to the fuzzers.
const std::map<std::string, std::vector<std::string>>& readers_of_targets() {
  static const std::map<std::string, std::vector<std::string>> table{
      {"safetensors", {"safetensors"}},
      {"checkpoint", {"checkpoint manifest", "checkpoint weights", "checkpoint counts"}},
      {"arrays", {"npy", "npz", "idx", "tokens"}},
      {"tables", {"csv", "tar", "tar of arrays", "image", "npz in its file", "tokenizer"}},
      {"recipe", {"recipe"}},
      {"program", {"program", "graph", "compiled manifest"}},
  };
  return table;
}

void write(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const fs::path folder = argv[1];
  const TemporaryDirectory temporary;
  const std::vector<test::ReaderCase> all = test::reader_cases(temporary.path().string());
  for (const auto& [target, readers] : readers_of_targets())
    for (size_t i = 0; i < readers.size(); ++i)
      for (const test::ReaderCase& reader : all)
        if (reader.name == readers[i])
          for (size_t seed = 0; seed < reader.seeds.size(); ++seed)
            write(folder / target / (std::to_string(i) + "-" + std::to_string(seed)),
                  static_cast<char>('0' + i) + reader.seeds[seed]);
  const std::vector<test::OperatorCase> operators = test::operator_cases();
  constexpr size_t kEvery = 97;
  for (size_t i = 0; i < operators.size(); i += kEvery) {
    test::Random random(i);
    const std::string bytes = test::operator_model(operators[i], random).SerializeAsString();
    for (const char* target : {"onnx_bytes", "onnx_structure"}) write(folder / target / std::to_string(i), bytes);
  }
  for (int i = 2; i < argc; ++i)
    for (const char* target : {"onnx_bytes", "onnx_structure"})
      write(folder / target / fs::path(argv[i]).filename(), read_file(argv[i]));
  write(folder / "external_data" / "whole", "w.bin\n0\n48\n" + std::string(48, '\1'));
  write(folder / "external_data" / "part", "./w.bin\n4096\n48\n" + std::string(4200, '\1'));
  write(folder / "external_data" / "outside", "../w.bin\n\n\n");
}
