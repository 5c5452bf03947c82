// Whether a model is ready to train, and what its user should know about how it was exported.
#pragma once

#include "frontend/import/import.h"
#include "frontend/onnx/onnx_model.h"

namespace halfstep {

struct Finding {
  std::string kind;  // "tied weights": of the report's row
  std::string text;
  std::string remedy;  // empty: nothing needs to be done
};

struct WeightCount {
  int64_t tensors = 0, elements = 0;
};

struct Diagnostics {
  std::vector<std::string> problems;  // empty: the model can be imported with these options
  ImportedModel imported;             // where there are no problems
  std::vector<std::string> remarks;
  std::vector<Finding> findings;
  std::string producer;  // "pytorch 2.11.0"
  int64_t opset = 0, nodes = 0;
  std::map<std::string, std::string> inputs;  // type by name, as exported: "f32[2,3,224,224]", "i64[batch,128]"
  std::map<std::string, int64_t> operators;   // how many nodes each ONNX operator has
  WeightCount trainable, frozen, statistics;  // parameters; the same by --freeze; what training updates otherwise
};

// A floating initializer of the main graph.
struct StoredTensor {
  std::string name;
  Shape shape;
  std::string tied_to;  // the one that it repeats; empty: none
};
std::vector<StoredTensor> floating_initializers(const OnnxModel& model);

Diagnostics check_model(const OnnxModel& model, const ImportOptions& options = {});

}  // namespace halfstep
