// The cases of an ONNX conformance suite: folders that hold model.onnx and test_data_set_0/{input,output}_<i>.pb.
#pragma once

#include <onnx/onnx_pb.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/tensor.h"

namespace halfstep::conformance {

// All inputs and outputs are tensors: a sequence that is fed is built of its elements inside the model, one that is
// expected is taken apart there.
struct SuiteCase {
  std::string name;
  std::filesystem::path directory;
  onnx::ModelProto model;
  std::vector<onnx::TensorProto> inputs;  // those that are fed, by name
  std::vector<onnx::TensorProto> expected;
};

// Every case at or below `root`, by name.
std::vector<SuiteCase> read_suite(const std::filesystem::path& root);

// Every operator in the model and its branches.
std::set<std::string> operators_of(const onnx::ModelProto& model);

}  // namespace halfstep::conformance
