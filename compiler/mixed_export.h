// The model in the types that autocast gives its nodes, as an ONNX file.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/tensor.h"
#include "compiler/inspect/inspection.h"
#include "frontend/export/choose_outputs.h"
#include "frontend/export/mixed_precision.h"

namespace halfstep {

// What each node of the file computes in, by its first result. A contraction is low where it reads the low type; other
// nodes where they read and write it, but for those that were recognised together (a norm, an activation, the scores of
// an attention), which an engine has no one kernel for: they compute in f32 and are cast behind.
MixedPrecision mixed_precision_of(const Inspection& inspection);

struct MixedExport {
  Inspection inspection;
  int64_t low_nodes = 0, casts = 0, low_weights = 0;
  int64_t weight_bytes = 0, weight_bytes_before = 0;
  std::vector<std::pair<std::string, int64_t>> lost_weights = {};
  CutModel cut = {};
};
// Writes the recipe's model as one of inference, with the weights of `trained` where there are some, cut to `outputs`
// where some are named (choose_outputs); in fp32 without casts. Error as export_model.
MixedExport export_mixed(const Recipe& recipe, const FileTensors& trained, const std::filesystem::path& path,
                         const std::map<std::string, std::string>& metadata,
                         const std::vector<std::string>& outputs = {});
// The same in the types of the file.
CutModel export_cut(const Recipe& recipe, const FileTensors& trained, const std::filesystem::path& path,
                    const std::map<std::string, std::string>& metadata, const std::vector<std::string>& outputs);

}  // namespace halfstep
