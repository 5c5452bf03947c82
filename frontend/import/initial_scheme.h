// How fresh weights are drawn: each operator's default, or one scheme for all of a model.
#pragma once

#include <set>
#include <string>

#include "base/initial_schemes.h"
#include "frontend/import/initializer.h"
#include "ir/graph.h"

namespace halfstep {

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
