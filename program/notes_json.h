// The notes of a compiled step in its manifest.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "program/notes.h"

namespace halfstep {

// Fields at their default are left out.
nlohmann::json json_of(const StepNotes& notes);
// Throws Error for a control character in a text, nlohmann::json::exception for a field of another type.
StepNotes notes_from_json(const nlohmann::json& json);

}  // namespace halfstep
