// A training step as an ONNX model of standard operators, for other engines.
#pragma once

#include <filesystem>

#include "base/tensor.h"
#include "frontend/export/export.h"
#include "ir/graph.h"

namespace halfstep {

// Writes `step`, a graph without composites, arenas and fused nodes, to `path`:
//   inputs        those of the graph, ours as "step.learning_rate"; then every state that the step updates, with
//                 `initial` as its default, zeros where that has none
//   outputs       those of the graph; then for every state NAME its next value NAME_out
//   initializers  also the states that the step leaves as they are
// A name of ours that is also one of the model's gets a '_' behind it. Throws Error with every name that the model has
// twice.
void export_training_graph(const Graph& step, const NamedTensors& initial, const std::filesystem::path& path,
                           const ExportOptions& options = {});

// The same as an inference model with TrainingInfoProto: the model's graph is `inference` with the weights as its
// initializers; the algorithm is `step`, which reads these weights, with the
// slots as its initializers and NAME -> NAME_out as update bindings; the initialization sets the slots as they are
// before the first step.
void export_training_info(const Graph& inference, const Graph& step, const NamedTensors& initial,
                          const std::filesystem::path& path, const ExportOptions& options = {});

}  // namespace halfstep
