// An engine of cuDNN with its knobs, as text: what a plan is built from again.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/cuda/cudnn_graph.h"

namespace halfstep {

struct EngineChoice {
  int64_t engine = -1;                             // the library's number
  std::vector<std::pair<int64_t, int64_t>> knobs;  // type and value, as the library lists them
  friend bool operator==(const EngineChoice&, const EngineChoice&) = default;
};

std::string print(const EngineChoice& choice);  // "engine 47 knobs 3=1,12=0"
std::optional<EngineChoice> parse_engine_choice(std::string_view text);

EngineChoice choice_of(const CudnnDescriptor& configuration);
struct RebuiltConfiguration {
  std::vector<CudnnDescriptor> parts;  // must outlive it
  CudnnDescriptor configuration;
};
// Throws Error if this engine does not do `graph` with these knobs.
RebuiltConfiguration make_configuration(const EngineChoice& choice, const CudnnDescriptor& graph,
                                        const CudnnDescriptor* properties = nullptr);

// A built plan with the machine code that the library compiled for it; Error where it cannot tell or take one.
std::string serialized(const CudnnPlan& plan);
CudnnPlan deserialize_plan(cudnnHandle_t handle, std::string_view text);

}  // namespace halfstep
