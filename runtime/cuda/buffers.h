// Where the buffers of a model's programs lie in device memory.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "program/program.h"
#include "runtime/cuda/device.h"

namespace halfstep {

// The inputs, or the outputs, of one program side by side in one block.
struct BlockLayout {
  struct Entry {
    int32_t buffer = 0;
    int64_t offset = 0;
    TensorType type;
  };
  std::vector<Entry> entries;  // in program order
  int64_t bytes = 0;
};

// States are shared by name between programs, scratch and outputs are used by one program at a time. Inputs exist once
// per slot, so that the next steps' inputs arrive while a step runs.
class DeviceBuffers {
 public:
  // Throws Error, with the largest buffers, if they need more than the device's free memory.
  DeviceBuffers(const CompiledModel& model, const CudaDevice& device);

  int slots() const { return static_cast<int>(inputs_.size()); }
  const BlockLayout& input_layout(int program) const { return programs_[static_cast<size_t>(program)].inputs; }
  const BlockLayout& output_layout(int program) const { return programs_[static_cast<size_t>(program)].outputs; }
  int64_t input_bytes() const { return inputs_[0].size(); }  // the largest program's
  std::byte* inputs(int slot) const { return inputs_[static_cast<size_t>(slot)].data(); }
  // Where a slot's results are read. Small ones that kernels write and nobody reads are written right there, over the
  // bus: a copy takes longer than the rest of a small step. Others are to be copied from outputs().
  std::byte* results(int slot) const { return results_[static_cast<size_t>(slot)].data(); }
  bool writes_results(int program) const { return programs_[static_cast<size_t>(program)].writes_results; }
  std::byte* outputs() const { return outputs_.data(); }
  std::byte* address(int program, int slot, const Ref& ref) const;

  struct State {
    TensorType type;
    DeviceMemory memory;
  };
  // By buffer name; throws Error for an unknown one.
  const State& state(const Name& name) const;
  const std::map<Name, State>& states() const { return states_; }
  int64_t state_bytes() const;
  int64_t scratch_bytes() const { return scratch_.size(); }

 private:
  struct Place {
    BufferKind kind = BufferKind::scratch;
    int64_t offset = 0;  // in the block of its kind
    int64_t bytes = 0;
    const State* state = nullptr;
  };
  struct ProgramPlaces {
    std::vector<Place> places;  // by buffer
    BlockLayout inputs, outputs;
    int64_t scratch_bytes = 0;
    bool writes_results = false;
  };

  std::vector<ProgramPlaces> programs_;
  std::map<Name, State> states_;
  DeviceMemory scratch_, outputs_;
  std::vector<DeviceMemory> inputs_;   // by slot
  std::vector<PinnedMemory> results_;  // by slot
};

}  // namespace halfstep
