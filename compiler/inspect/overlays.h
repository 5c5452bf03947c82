// The report beside the nodes of other programs' graphs.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "compiler/inspect/inspection.h"

namespace halfstep {

// Node data of Model Explorer: for each node of the file the type that it writes, with a colour.
nlohmann::json model_explorer_data(const Inspection& inspection);

// Writes the report's model with what each node reads, sums and writes and why as metadata_props, which Netron shows.
void write_annotated(const Inspection& inspection, const std::filesystem::path& path);

}  // namespace halfstep
