// What doctor found, as text and as JSON (docs/schemas/doctor.schema.json).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "compiler/doctor.h"

namespace halfstep {

struct DoctorFiles {
  std::string policy, recipe;  // empty: not written
};

// `all`: a row for each tensor, else the most striking ones.
std::string doctor_text(const Diagnosis& diagnosis, const DoctorFiles& files, bool all);
nlohmann::json doctor_json(const Diagnosis& diagnosis, const DoctorFiles& files);

}  // namespace halfstep
