// A model's weights out of a checkpoint, before it is compiled.
#pragma once

#include <string>

#include "base/tensor.h"
#include "frontend/import/import.h"

namespace halfstep {

// Puts `weights`, in the layout of the file, in the place of the model's own; `where` names them in errors. What they
// lack keeps its value, as heads do that no loss trained, and a remark says so. Error where one fits no weight.
void take_weights(ImportedModel& model, const FileTensors& weights, const std::string& where);

}  // namespace halfstep
