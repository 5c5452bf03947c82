// A model cut to some of its values: a loss that is part of the graph is taken out again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "frontend/import/import.h"
#include "frontend/onnx/onnx_model.h"

namespace halfstep {

// What went.
struct CutModel {
  std::vector<std::string> inputs, outputs;
  int64_t nodes = 0;
};

// Gives `model` the outputs `names`, outputs that it has or any results of its nodes, in this order: nodes that lead to
// none of them, and inputs and initializers that only those read, are left out, as is a training step of the file's
// own. Results whose type the file does not say get that of an import with `import`, and open sizes. Error naming every
// value that is not there.
CutModel choose_outputs(OnnxModel& model, const std::vector<std::string>& names, const ImportOptions& import);

}  // namespace halfstep
