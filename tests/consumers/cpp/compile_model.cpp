// Checks and compiles an ONNX model, and shows what autocast decided: compile_model MODEL.onnx DIRECTORY
#include <halfstep/halfstep.hpp>
#include <iostream>

int main(int argc, char** argv) try {
  if (argc != 3) throw std::invalid_argument("usage: compile_model MODEL.onnx DIRECTORY");
  const halfstep::Options options{{"batch", "16"}, {"precision", "bf16"}, {"device", "cpu"}, {"keep_outputs", "true"}};
  const std::vector<std::string> problems = halfstep::check_model(argv[1], options);
  for (const std::string& problem : problems) std::cerr << problem << '\n';
  if (!problems.empty()) return 1;
  for (const halfstep::PrecisionRow& row : halfstep::inspect_model(argv[1], options))
    std::cout << row.node << " (" << row.op << "): " << row.reason << '\n';
  for (const std::string& remark : halfstep::compile_model(argv[1], options, argv[2])) std::cout << remark << '\n';
  return 0;
} catch (const std::exception& e) {
  std::cerr << "compile_model: " << e.what() << '\n';
  return 1;
}
