// An engine and its knobs as text; and the configuration made of it again on a described GPU.
#include "runtime/cuda/engine_choice.h"

#include <gtest/gtest.h>

namespace halfstep {
namespace {

TEST(EngineChoice, PrintsAndParsesBack) {
  for (const EngineChoice& choice :
       {EngineChoice{47, {{3, 1}, {12, 0}}}, EngineChoice{0, {}}, EngineChoice{5, {{1, -1}}}})
    EXPECT_EQ(parse_engine_choice(print(choice)), choice) << print(choice);
  EXPECT_EQ(print(EngineChoice{47, {{3, 1}, {12, 0}}}), "engine 47 knobs 3=1,12=0");
}

TEST(EngineChoice, OtherTextIsNone) {
  for (const char* text :
       {"", "engine", "engine 4", "engine x knobs", "engine 4 knobs 3", "engine 4 knobs 3=", "engine 4 knobs 3=1;4=2",
        "engine 4 knobs 3=1,", "engine 4 knobs3=1", "engine 99999999999999999999 knobs"})
    EXPECT_EQ(parse_engine_choice(text), std::nullopt) << text;
}

}  // namespace
}  // namespace halfstep
