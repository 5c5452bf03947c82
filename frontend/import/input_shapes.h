// The sizes of a model's data inputs: as it was exported, and as they are wanted.
#pragma once

#include <map>
#include <string>

#include "base/error.h"
#include "frontend/import/import.h"
#include "frontend/import/sizes.h"
#include "frontend/onnx/model_proto.h"

namespace halfstep {

// The dimensions of the data inputs. One that the file leaves open is exported as it is wanted.
using InputShapes = std::map<std::string, Dimensions>;

// What options ask for that the inputs cannot be goes to `problems`.
InputShapes resolve_inputs(const onnx::GraphProto& graph, const ImportOptions& options, Problems& problems);
// With every size wanted as it was exported.
InputShapes as_exported(const InputShapes& shapes);
bool sizes_differ(const InputShapes& shapes);
// "the model was exported at x=[2,3] and is read at x=[8,3]".
std::string describe_sizes(const InputShapes& shapes);

}  // namespace halfstep
