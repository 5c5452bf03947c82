// The cases of an ONNX conformance suite: folders that hold model.onnx and test_data_set_0/{input,output}_<i>.pb.
#pragma once

#include <onnx/onnx_pb.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/tensor.h"

namespace halfstep::conformance {

struct SuiteCase {
  std::string name;
  std::filesystem::path directory;
  onnx::ModelProto model;
};

// Every case at or below `root`, by name.
std::vector<SuiteCase> read_suite(const std::filesystem::path& root);

// Every operator in the model and its branches.
std::set<std::string> operators_of(const onnx::ModelProto& model);

struct ExpectedOutput {
  std::string name;
  Tensor value;
  double tolerance;  // relative
};

struct CaseData {
  std::vector<onnx::TensorProto> inputs;  // named as the model's inputs
  std::vector<ExpectedOutput> outputs;
};

// Throws Error where a value has no type of ours.
CaseData read_data(const SuiteCase& suite_case);

}  // namespace halfstep::conformance
