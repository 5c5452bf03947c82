// Program: what the runtime executes, kernel launches and library calls over numbered buffers at planned offsets. A
// plain value: it prints, and parses back to an equal one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/tensor.h"
#include "program/calls.h"
#include "program/notes.h"

namespace halfstep {

enum class DeviceKind : uint8_t { cpu, cuda };
std::string_view name(DeviceKind device);

// input: written by the host before every step. output: read by the host after it. state: lives on the device across
// steps and is shared by name between programs; checkpoints leave transient ones out. scratch: the planned arena, one
// per program.
enum class BufferKind : uint8_t { input, output, state, scratch };
std::string_view name(BufferKind kind);

struct Buffer {
  Name name;
  BufferKind kind = BufferKind::scratch;
  TensorType type;  // scratch: u8[bytes]
  friend bool operator==(const Buffer&, const Buffer&) = default;
};

using StepCall = std::variant<KernelLaunch, Gemm, Convolution, Attention, Recurrent, Copy>;
// Whether a library does it, not a kernel of the program.
bool is_library(const StepCall& call);

struct Step {
  StepCall call;
  std::string origin;  // the user's node names it computes, with "(backward)" where it does: for profiles and errors
  friend bool operator==(const Step&, const Step&) = default;
};

struct Program {
  std::string name;  // "train", "accumulate", "evaluate"
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  friend bool operator==(const Program&, const Program&) = default;
};

// Throws Error naming the buffer or step: references outside the buffers, misaligned or overlapping operands, sizes.
void check(const Program& program);
std::string print(const Program& program);
// Throws Error with the line number. The result is checked.
Program parse_program(std::string_view text);

// "kernel fused_12", "gemm 128x512x784", "convolution data_grad 3x3 32->64", "copy".
std::string describe(const Step& step);
struct CallCost {
  double flops = 0;   // of library calls
  int64_t bytes = 0;  // operands read and written once
};
CallCost cost(const Step& step);

// Where one parameter lies in every arena buffer (parameters, gradients, slots, low copies), in elements.
struct ParameterSlice {
  std::string name;  // the ONNX initializer
  Shape shape;       // as stored in the arena
  // Stored axis i is axis permutation[i] of the ONNX tensor; empty: as in ONNX.
  std::vector<int64_t> permutation;
  int64_t offset = 0;
  friend bool operator==(const ParameterSlice&, const ParameterSlice&) = default;
};
// Everything a step needs to run, and nothing of the compiler. Saved as a directory by save_compiled.
struct CompiledModel {
  DeviceKind device = DeviceKind::cpu;
  std::string architecture;  // "sm_80"; an LLVM CPU name such as "x86-64-v3"
  std::vector<Program> programs;
  std::string kernels;  // PTX text, or the bytes of an ELF shared object; may be empty
  // cuda: the same kernels as machine code, by architecture ("sm_90"). Other GPUs take the PTX.
  std::map<std::string, std::string> cubins;
  NamedTensors state;        // initial contents of state buffers by name; absent: read_initial_state
  std::vector<Name> arenas;  // the state buffers that are laid out by `parameters`
  std::vector<ParameterSlice> parameters;
  StepNotes notes;

  const Program* find(std::string_view program_name) const;
};

// Checks every program, and that they agree on shared state, its initial contents, the arenas and the parameters.
void check(const CompiledModel& model);
// program.<name>.txt, kernels.ptx and .<architecture>.cubin, or kernels.so, weights.safetensors, manifest.json. Written
// to a temporary directory beside `directory` and renamed; replaces an older compiled step and nothing else. Notes the
// CPU it was compiled on. load_compiled checks sizes and checksums before it allocates or parses, and the model before
// it returns it.
void save_compiled(const CompiledModel& model, const std::string& directory);
CompiledModel load_compiled(const std::string& directory);

}  // namespace halfstep
