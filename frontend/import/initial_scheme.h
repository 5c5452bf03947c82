// How fresh weights are drawn: each operator's default, or one scheme for all of a model.
#pragma once

#include <set>
#include <string>

#include "frontend/import/initializer.h"
#include "ir/graph.h"

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

// What the scheme makes of the operators' rules in a graph.
class InitialRules {
 public:
  InitialRules(const Graph& graph, InitialScheme scheme);

  Initializer operator()(const std::string& parameter, const Initializer& rule) const;
  InitialScheme::Kind kind() const { return scheme_.kind; }  // automatic: settled
  std::string text() const;                                  // "normal 0.02"

 private:
  InitialScheme scheme_;
  bool convolutions_ = true;        // the scheme is theirs too
  std::set<std::string> residual_;  // weights whose products are added to a stream
  double residual_factor_ = 1;
};

// "uniform ±0.051", "normal 0.02", "1".
std::string to_string(const Initializer& rule);

}  // namespace halfstep
