// What doctor found, as one HTML page that needs nothing else.
#pragma once

#include <string>

#include "cli/doctor_report.h"

namespace halfstep {

// `policy`: what the file holds that was written; empty: none was.
std::string doctor_page(const Diagnosis& diagnosis, const DoctorFiles& files, const std::string& policy);

}  // namespace halfstep
