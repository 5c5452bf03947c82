#include "operator_cases.h"

namespace halfstep::test {
namespace {

const Tensor kPhoto = floats({1, 1, 3, 4}, {1, -2, 4, 3, 0, 5, -1, 2, 7, 1, 1, -3});
const Tensor kPoints = floats({1, 1, 3, 2}, {-0.3, 0.2, 0.9, -1.4, 1.7, 0.1});  // of which two are outside

}  // namespace

std::vector<Case> grid_cases() {
  return {
      {"GridSample",
       16,
       {x({1, 1, 2, 2}, {1, 2, 3, 4}), x({1, 1, 2, 2}, {0, 0, -1, 1})},
       {{"align_corners", int64_t{1}}},
       {{2.5, 3}}},
      {"GridSample",
       20,
       {x({1, 1, 2}, {1, 2}), x({1, 3, 1}, {-0.5, 0.5, 3})},
       {{"mode", std::string("nearest")}},
       {{1, 2, 0}}},
      // Cubic: as PyTorch 2.11's grid_sample.
      {"GridSample",
       16,
       {x(kPhoto), x(kPoints)},
       {{"mode", std::string("bicubic")}, {"padding_mode", std::string("zeros")}, {"align_corners", int64_t{0}}},
       {{4.853428, -0.124704, -0.008352}}},
      {"GridSample",
       20,
       {x(kPhoto), x(kPoints)},
       {{"mode", std::string("cubic")}, {"padding_mode", std::string("zeros")}, {"align_corners", int64_t{1}}},
       {{4.873504, 2.306576, -0.05107}}},
      {"GridSample",
       16,
       {x(kPhoto), x(kPoints)},
       {{"mode", std::string("bicubic")}, {"padding_mode", std::string("border")}, {"align_corners", int64_t{0}}},
       {{4.76826, 2.889751, 1.280279}}},
      {"GridSample",
       20,
       {x(kPhoto), x(kPoints)},
       {{"mode", std::string("cubic")}, {"padding_mode", std::string("border")}, {"align_corners", int64_t{1}}},
       {{4.854207, 3.395499, 1.529249}}},
      {"GridSample",
       16,
       {x(kPhoto), x(kPoints)},
       {{"mode", std::string("bicubic")}, {"padding_mode", std::string("reflection")}, {"align_corners", int64_t{0}}},
       {{4.76826, 2.853353, -1.328875}}},
      {"GridSample",
       20,
       {x(kPhoto), x(kPoints)},
       {{"mode", std::string("cubic")}, {"padding_mode", std::string("reflection")}, {"align_corners", int64_t{1}}},
       {{4.755234, 3.082714, -0.963346}}},
  };
}

}  // namespace halfstep::test
