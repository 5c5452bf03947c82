// What a written ONNX model says about its making, in its metadata_props.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "compiler/recipe.h"
#include "data/data_facts.h"

namespace halfstep {

// halfstep.version, halfstep.precision, halfstep.recipe (TOML; paths by their last name alone: a model travels),
// halfstep.data (JSON: name, bytes and SHA-256 of each file that is still there, of files beyond 1 GiB no hash),
// halfstep.steps where known, halfstep.data_facts (JSON: columns, what they were standardised by) and class_names where
// the run learned some of its data.
std::map<std::string, std::string> provenance(const Recipe& recipe, std::optional<int64_t> steps,
                                              const DataFacts& facts = {});
// What the user of an exported model should know of `facts`; empty: nothing.
std::string remark_on_columns(const DataFacts& facts);

// The recipe that the run which wrote `checkpoint` kept beside it; absent where there is none.
std::optional<Recipe> recipe_of_run(const std::string& checkpoint);

}  // namespace halfstep
