// Small models in each of which one node's precision is at fault, and what shows it. Which node was reckoned by hand
// from the sizes of the values, before anything looked for it.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"

namespace halfstep::test {

struct PlantedFault {
  std::string name;
  TestModel model;
  Arguments keys;                  // of the recipe
  std::vector<std::string> nodes;  // one of them is the first cause; empty: nothing is at fault
  std::string why;                 // the reckoning
  int64_t steps = 8;               // in which it shows in the losses
};

inline void PrintTo(const PlantedFault& fault, std::ostream* out) { *out << fault.name << ": " << fault.why; }

// Ten of the kinds that the books tell of, and others that doctor was not written for.
std::vector<PlantedFault> planted_faults();
std::vector<PlantedFault> further_faults();

// Writes one batch, x f32[8,16], ids i64[8,4], labels i64[8] of four classes that x tells, again for each step, so that
// a step that is skipped is made again. Its arguments.
Arguments fault_data(const std::filesystem::path& directory, const PlantedFault& fault);

// Feed-forward models, layer by layer, over x f32[8,16].
class Layers {
 public:
  explicit Layers(int64_t features = 16);

  // Gemm with weights whose products with unit inputs have the deviation `scale`.
  Layers& linear(const std::string& name, int64_t to, double scale, double bias = 0);
  Layers& op(const std::string& op, const std::string& name, const std::vector<std::string>& more = {},
             const AttributeList& attributes = {});
  Layers& norm(const std::string& name);                                          // LayerNormalization
  Layers& with(const std::string& op, const std::string& name, double constant);  // Mul, Add, ... with a scalar
  Layers& from(const std::string& value, int64_t width);                          // goes on from there
  const std::string& last() const { return last_; }
  // Its last value as the logits or, with loss = "from_graph", as the loss.
  TestModel done(const std::string& output = "logits");

  TestModel model;

 private:
  std::string last_ = "x";
  int64_t width_;
  uint32_t seed_ = 0;
};

}  // namespace halfstep::test
