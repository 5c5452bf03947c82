// The one kernel emitter: fused regions in, PTX text or an ELF shared object out.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "codegen/target/target.h"
#include "ir/graph.h"

namespace halfstep {

struct EmittedArgument {
  enum class Kind : uint8_t { operand, output, partial } kind = Kind::operand;
  int32_t number = 0;
  bool written = false;  // a partial is written by one launch and read by the next
  friend bool operator==(const EmittedArgument&, const EmittedArgument&) = default;
};

// One launch of a region, in the calling convention of KernelLaunch (program/program.h).
struct EmittedLaunch {
  std::string kernel;
  std::vector<EmittedArgument> arguments;  // 16-byte aligned
  std::array<int64_t, 3> grid{1, 1, 1};
  int64_t block = 1;
  int64_t units = 1;
  int64_t bytes = 0;
  int64_t shared = 0;
};

// Output `output` may lie where operand `operand` does: nothing reads the operand once an element of it is written.
struct Overlay {
  int32_t operand = 0, output = 0;
  friend bool operator==(const Overlay&, const Overlay&) = default;
};

struct EmittedRegion {
  std::vector<EmittedLaunch> launches;  // in order; none if every output is empty
  std::vector<int64_t> partial_bytes;   // scratch that lives from the first launch to the last
  std::vector<Overlay> overlays;        // of equal bytes
};

class KernelModule {
 public:
  // Throws Error if the target is unknown or too old.
  explicit KernelModule(KernelTarget target);
  ~KernelModule();
  KernelModule(const KernelModule&) = delete;
  KernelModule& operator=(const KernelModule&) = delete;

  // Adds the kernels of a region: its inputs are named "0", "1", ... by operand number, its outputs are in order.
  // Regions of equal structure share their kernels. Only arguments that `overlays` lists may overlap, wholly. Throws
  // InternalError if no kernel has the form.
  const EmittedRegion& emit(const Graph& region);

  const KernelTarget& target() const;
  // LLVM IR as emitted, before optimisation.
  std::string ir_text() const;
  // Compiles: PTX text, or the bytes of a shared object. Call once; nothing can be emitted afterwards.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace halfstep
