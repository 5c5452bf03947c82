// The training that a model's file carries as operators, as keys of a recipe, and back.
#pragma once

#include <filesystem>
#include <map>
#include <new>
#include <string>

#include "compiler/recipe.h"

namespace halfstep {

// `given` over what its model's file says of loss, optimizer and weights that are trained, where it carries a training
// step (TrainingInfoProto). A recipe that names its loss or its optimizer takes none of the file's. Throws Error,
// saying what to do, for a step that is not read.
Recipe over_training_of_file(Recipe given);
// The same for what trains nothing: as given where the file's training cannot be read.
Recipe over_training_of_file(const Recipe& given, std::nothrow_t);

// Writes the recipe's model with loss and optimizer as operators of ai.onnx.preview.training. Throws Error for keys
// that these do not say.
void export_with_training(const Recipe& recipe, const std::filesystem::path& path,
                          const std::map<std::string, std::string>& metadata);

}  // namespace halfstep
