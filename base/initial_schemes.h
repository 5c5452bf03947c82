// How fresh weights are drawn: what a recipe may name, and what the import draws by.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace halfstep {

struct InitialScheme {
  enum Kind : uint8_t {
    automatic,  // normal for layers and tables of models with attention, else pytorch
    pytorch,    // of its layers: He's uniform with a = sqrt(5), recurrent ones by their width, tables of unit variance
    xavier,     // Glorot's uniform, biases 0, tables uniform within 0.05: Keras
    normal,     // of deviation `deviation`, biases 0; what adds to a residual stream by 1 / sqrt(its additions): GPT-2
  } kind = automatic;
  double deviation = 0.02;
};

struct InitialSchemeRow {
  std::string_view name;
  InitialScheme::Kind kind;
};
inline std::span<const InitialSchemeRow> initial_schemes() {
  static constexpr InitialSchemeRow kRows[] = {{"auto", InitialScheme::automatic},
                                               {"pytorch", InitialScheme::pytorch},
                                               {"xavier", InitialScheme::xavier},
                                               {"normal", InitialScheme::normal}};
  return kRows;
}

}  // namespace halfstep
