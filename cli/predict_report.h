// What a prediction tells when its file is written.
#pragma once

#include <string>

#include "cli/guarded.h"
#include "training/predict.h"

namespace halfstep {

// Text on stderr behind the program's name, or one JSON object on stdout.
void report_prediction(const Predicted& predicted, const std::string& program, const std::string& file,
                       const std::string& precision, Format format);

}  // namespace halfstep
