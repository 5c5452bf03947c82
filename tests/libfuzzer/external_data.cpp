// A model whose weight lies beside it: the input's first lines are location, offset and length, the rest is the file.
#include <fstream>

#include "frontend/onnx/model_proto.h"
#include "tests/libfuzzer/target.h"
#include "tests/untrusted/cases.h"

namespace {

std::string model_of(const std::string& location, const std::string& offset, const std::string& length) {
  onnx::ModelProto model;
  model.set_ir_version(8);
  model.add_opset_import()->set_version(17);
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.set_name("g");
  const auto value = [](onnx::ValueInfoProto& info, const char* name, int64_t columns) {
    info.set_name(name);
    auto& type = *info.mutable_type()->mutable_tensor_type();
    type.set_elem_type(onnx::TensorProto::FLOAT);
    for (const int64_t d : {int64_t{2}, columns}) type.mutable_shape()->add_dim()->set_dim_value(d);
  };
  value(*graph.add_input(), "x", 3), value(*graph.add_output(), "y", 4);
  onnx::TensorProto& weight = *graph.add_initializer();
  weight.set_name("w"), weight.set_data_type(onnx::TensorProto::FLOAT), weight.add_dims(3), weight.add_dims(4);
  weight.set_data_location(onnx::TensorProto::EXTERNAL);
  for (const auto& [key, text] :
       {std::pair{"location", &location}, std::pair{"offset", &offset}, std::pair{"length", &length}}) {
    if (text->empty()) continue;
    onnx::StringStringEntryProto& entry = *weight.add_external_data();
    entry.set_key(key), entry.set_value(*text);
  }
  onnx::NodeProto& node = *graph.add_node();
  node.set_op_type("MatMul"), node.add_input("x"), node.add_input("w"), node.add_output("y");
  return model.SerializeAsString();
}

std::string take_line(std::string& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  std::string line = text.substr(0, end);
  text.erase(0, std::min(end + 1, text.size()));
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace halfstep::test;
  std::string rest = text_of(data, size);
  const std::string location = take_line(rest), offset = take_line(rest), length = take_line(rest);
  std::ofstream(directory() + "/w.bin", std::ios::binary) << rest;
  return read_or_refuse([&] { check_bytes(model_of(location, offset, length), directory()); });
}
