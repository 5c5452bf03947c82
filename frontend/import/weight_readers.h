// What reads a graph's weights: from the file, or made afresh.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "frontend/import/import.h"
#include "frontend/import/importer.h"

namespace halfstep {

// "tensor 'a'", "5 tensors 'a', 'b', 'c' and 2 more".
std::string list_tensors(const std::vector<std::string>& names);

// The values of the graph's parameters and states, from the file or initialised: those that `options` say, and those of
// `unfilled`, which the model has no values for. `drawn`: how. Throws Error with everything that the file lacks.
std::map<std::string, std::function<Tensor()>> weight_readers(
    const Graph& graph, const std::shared_ptr<const onnx::ModelProto>& model, const Importer& importer,
    const TensorReader& reader, const ImportOptions& options, const std::set<std::string>& unfilled,
    std::map<std::string, Initializer>& drawn, std::vector<std::string>& remarks);
// Throws Error with all that cannot be read.
FileTensors read_all(const std::map<std::string, std::function<Tensor()>>& readers);
// Of an importer that took constants as zeros.
std::string missing_constants_remark(const Importer& importer);

}  // namespace halfstep
