#include "runtime/cuda/buffers.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes_text.h"
#include "base/checked.h"
#include "base/error.h"
#include "program/program_check.h"

namespace halfstep {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int kSlots = 4, kSlotsOfLargeInputs = 2;
constexpr int64_t kLargeInputs = int64_t{64} << 20;
constexpr size_t kReportedBuffers = 5;
constexpr int64_t kSmallResults = 4096;

int64_t checked_bytes(const Buffer& buffer) {
  const std::string what = fmt::format("buffer '{}'", to_string(buffer.name));
  const int64_t bytes = checked_mul(checked_element_count(buffer.type.shape, what), size_of(buffer.type.dtype), what);
  return checked_add(bytes, kAlignment, what) - kAlignment;  // leaves room to round up
}

// Appends to a block and returns the offset.
int64_t append(int64_t& block, int64_t bytes) {
  const int64_t offset = block;
  block = round_up(checked_add(block, checked_add(bytes, kAlignment, "device memory"), "device memory") - kAlignment,
                   kAlignment);
  return offset;
}

struct Need {
  std::string what;
  int64_t bytes = 0;
};

void check_fits(std::vector<Need> needs, const CompiledModel& model, const CudaDevice& device) {
  int64_t total = 0;
  for (const Need& need : needs) total = checked_add(total, need.bytes, "device memory");
  if (total <= device.free_bytes) return;
  std::ranges::stable_sort(needs, std::ranges::greater(), &Need::bytes);
  std::string largest;
  for (const Need& need : std::span(needs).first(std::min(needs.size(), kReportedBuffers))) {
    largest += fmt::format("{}{} {}", largest.empty() ? "" : ", ", need.what, bytes_text(need.bytes));
  }
  if (!model.notes.largest_tensors.empty()) largest += fmt::format("; in scratch: {}", model.notes.largest_tensors);
  throw Error(fmt::format("the model needs {} of device memory, {} are free on {}; largest: {}; use a smaller batch",
                          bytes_text(total), bytes_text(device.free_bytes), device.name, largest));
}

// Whether nothing but kernels that write outputs touches them. One that does not tell what it writes may only read.
bool kernels_write_outputs(const Program& program) {
  return std::ranges::all_of(program.steps, [&](const Step& step) {
    const auto* launch = std::get_if<KernelLaunch>(&step.call);
    const bool tells = launch && !launch->extents.empty();
    return std::ranges::all_of(memory_uses(program, step), [&](const MemoryUse& use) {
      const bool output = program.buffers[static_cast<size_t>(use.ref.buffer)].kind == BufferKind::output;
      return !output || (tells && use.access == Access::write);
    });
  });
}

}  // namespace

DeviceBuffers::DeviceBuffers(const CompiledModel& model, const CudaDevice& device) {
  std::vector<Need> needs;
  std::map<Name, TensorType> state_types;
  int64_t scratch_bytes = 0, input_bytes = 0, output_bytes = 0;
  for (const Program& program : model.programs) {
    ProgramPlaces& places = programs_.emplace_back();
    for (const Buffer& buffer : program.buffers) {
      Place place{buffer.kind, 0, checked_bytes(buffer), nullptr};
      const auto index = static_cast<int32_t>(places.places.size());
      switch (buffer.kind) {
        case BufferKind::input:
          place.offset = append(places.inputs.bytes, place.bytes);
          places.inputs.entries.push_back({index, place.offset, buffer.type});
          break;
        case BufferKind::output:
          place.offset = append(places.outputs.bytes, place.bytes);
          places.outputs.entries.push_back({index, place.offset, buffer.type});
          break;
        case BufferKind::scratch:
          place.offset = append(places.scratch_bytes, place.bytes);
          break;
        case BufferKind::state:
          if (state_types.emplace(buffer.name, buffer.type).second) {
            needs.push_back({fmt::format("state '{}'", to_string(buffer.name)), place.bytes});
          }
          break;
      }
      places.places.push_back(place);
    }
    scratch_bytes = std::max(scratch_bytes, places.scratch_bytes);
    input_bytes = std::max(input_bytes, places.inputs.bytes);
    output_bytes = std::max(output_bytes, places.outputs.bytes);
    places.writes_results = places.outputs.bytes <= kSmallResults && kernels_write_outputs(program);
  }
  const int slots = input_bytes > kLargeInputs ? kSlotsOfLargeInputs : kSlots;
  needs.push_back({"scratch", scratch_bytes});
  needs.push_back({fmt::format("inputs of {} steps", slots), checked_mul(input_bytes, slots, "device memory")});
  needs.push_back({"outputs", output_bytes});
  check_fits(std::move(needs), model, device);

  for (const auto& [name, type] : state_types) states_.emplace(name, State{type, DeviceMemory(type.byte_count())});
  scratch_ = DeviceMemory(scratch_bytes);
  outputs_ = DeviceMemory(output_bytes);
  for (int slot = 0; slot < slots; ++slot) inputs_.emplace_back(input_bytes), results_.emplace_back(output_bytes);
  for (size_t p = 0; p < programs_.size(); ++p) {
    for (size_t b = 0; b < programs_[p].places.size(); ++b) {
      Place& place = programs_[p].places[b];
      if (place.kind == BufferKind::state) place.state = &states_.at(model.programs[p].buffers[b].name);
    }
  }
}

std::byte* DeviceBuffers::address(int program, int slot, const Ref& ref) const {
  const std::vector<Place>& places = programs_[static_cast<size_t>(program)].places;
  require(ref.buffer >= 0 && static_cast<size_t>(ref.buffer) < places.size(), "a reference names no buffer");
  const Place& place = places[static_cast<size_t>(ref.buffer)];
  require(ref.offset >= 0 && ref.offset <= place.bytes, "a reference lies outside of its buffer");
  std::byte* block = nullptr;
  switch (place.kind) {
    case BufferKind::input:
      block = inputs(slot);
      break;
    case BufferKind::output:
      block = writes_results(program) ? results(slot) : outputs();
      break;
    case BufferKind::scratch:
      block = scratch_.data();
      break;
    case BufferKind::state:
      block = place.state->memory.data();
      break;
  }
  return block + place.offset + ref.offset;
}

const DeviceBuffers::State& DeviceBuffers::state(const Name& name) const {
  const auto found = states_.find(name);
  if (found != states_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, state] : states_) names.push_back(to_string(known));
  const std::string near = nearest(to_string(name), names);
  throw Error(fmt::format("the model has no state '{}'{}", to_string(name),
                          near.empty() ? "" : fmt::format("; did you mean '{}'", near)));
}

int64_t DeviceBuffers::state_bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, state] : states_) bytes += state.memory.size();
  return bytes;
}

}  // namespace halfstep
