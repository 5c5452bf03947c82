#include "runtime/cuda/step_calls.h"

#include <algorithm>

#include "runtime/cuda/check.h"

namespace halfstep {
namespace {

constexpr int64_t kEngineWorkspaceLimit = int64_t{1} << 30;

}  // namespace

StepCalls::StepCalls(const CompiledModel& model, const CudaDevice& device, const DeviceBuffers& buffers,
                     const ExecutorOptions& options, DeviceLane& main, ChoiceStore& choices, LoadTimes& times)
    : model_(model), buffers_(buffers), main_(main), choices_(choices), rows_(device) {
  const Stopwatch kernels;
  find_kernels(device);
  times.kernels = kernels.milliseconds();
  const Stopwatch libraries;
  prepare_libraries(options);
  times.libraries = libraries.milliseconds();
}

void StepCalls::find_kernels(const CudaDevice& device) {
  if (!model_.kernels.empty()) {
    check_architecture(device, model_.architecture);
    module_ = load_kernels(model_, device, choices_, remarks_);
  }
  for (const Program& program : model_.programs) {
    std::vector<Kernel>& kernels = kernels_.emplace_back(program.steps.size());
    for (size_t i = 0; i < program.steps.size(); ++i) {
      const auto* launch = std::get_if<KernelLaunch>(&program.steps[i].call);
      if (!launch) continue;
      at_step(program.steps[i], [&] {
        if (!module_) throw Error("the model has no kernels");
        kernels[i].function = module_->find(launch->kernel);
        kernels[i].shared = module_->allow_shared(kernels[i].function, launch->block, launch->shared);
      });
    }
  }
}

void StepCalls::prepare_libraries(const ExecutorOptions& options) {
  const ContractionOptions contraction{options.allow_tf32, options.autotune};
  std::vector<ConvolutionCall> convolutions;
  for (int p = 0; p < static_cast<int>(model_.programs.size()); ++p) {
    for (const Step& step : model_.programs[static_cast<size_t>(p)].steps) {
      if (const auto* gemm = std::get_if<Gemm>(&step.call)) {
        if (!gemms_) gemms_.emplace(contraction, main_, rows_, choices_);
        at_step(step, [&] { gemms_->prepare(*gemm, addresses(p, 0, *gemm)); });
      } else if (const auto* convolution = std::get_if<Convolution>(&step.call)) {
        convolutions.push_back({convolution, addresses(p, 0, *convolution), step.origin});
      } else if (const auto* attention = std::get_if<Attention>(&step.call)) {
        if (!attentions_) attentions_.emplace(main_.stream, main_.workspace, choices_);
        at_step(step, [&] { attentions_->prepare(*attention, addresses(p, 0, *attention)); });
      } else if (const auto* recurrent = std::get_if<Recurrent>(&step.call)) {
        if (!recurrents_) recurrents_.emplace(contraction, main_.stream, main_.workspace);
        at_step(step, [&] { recurrents_->prepare(*recurrent); });
      }
    }
  }
  if (!convolutions.empty()) {
    const int64_t limit = std::min(kEngineWorkspaceLimit, free_device_bytes() / 4);
    convolutions_.emplace(contraction, main_, rows_, choices_, limit);
    convolutions_->prepare(convolutions);
  }
  main_.workspace.resize(workspace_bytes());
}

int64_t StepCalls::workspace_bytes() const {
  return std::max({int64_t{0}, gemms_ ? gemms_->workspace_bytes() : 0,
                   convolutions_ ? convolutions_->workspace_bytes() : 0,
                   attentions_ ? attentions_->workspace_bytes() : 0, recurrents_ ? recurrents_->workspace_bytes() : 0});
}

GemmAddresses StepCalls::addresses(int program, int slot, const Gemm& gemm) const {
  const auto at = [&](const std::optional<Ref>& ref) {
    return ref ? static_cast<void*>(buffers_.address(program, slot, *ref)) : nullptr;
  };
  return {at(gemm.a), at(gemm.b), at(gemm.c), at(gemm.bias), at(gemm.addend)};
}

CudnnOperands StepCalls::addresses(int program, int slot, const Convolution& convolution) const {
  return {buffers_.address(program, slot, convolution.x), buffers_.address(program, slot, convolution.w),
          buffers_.address(program, slot, convolution.y),
          convolution.bias ? buffers_.address(program, slot, *convolution.bias) : nullptr};
}

AttentionAddresses StepCalls::addresses(int program, int slot, const Attention& a) const {
  const auto at = [&](const std::optional<Ref>& ref) {
    return ref ? static_cast<void*>(buffers_.address(program, slot, *ref)) : nullptr;
  };
  AttentionAddresses found{at(a.q), at(a.k), at(a.v), at(a.y), at(a.stats), at(a.dy), at(a.dq), at(a.dk), at(a.dv)};
  if (!a.packed()) return found;
  const auto behind = [&](void* first, int64_t heads) {
    return first ? static_cast<std::byte*>(first) + heads * a.depth * size_of(a.operand) : nullptr;
  };
  found.k = behind(found.q, a.heads), found.v = behind(found.q, a.heads + a.key_heads);
  found.dk = behind(found.dq, a.heads), found.dv = behind(found.dq, a.heads + a.key_heads);
  return found;
}

void StepCalls::enqueue(int program, int slot, size_t index, const DeviceLane& lane) {
  const Step& step = model_.programs[static_cast<size_t>(program)].steps[index];
  if (const auto* launch = std::get_if<KernelLaunch>(&step.call)) {
    std::vector<std::byte*> pointers;
    for (const Ref& argument : launch->arguments) pointers.push_back(buffers_.address(program, slot, argument));
    std::vector<void*> parameters;
    for (std::byte*& pointer : pointers) parameters.push_back(&pointer);
    const Kernel& kernel = kernels_[static_cast<size_t>(program)][index];
    module_->launch(kernel.function, launch->grid, {launch->block, 1, 1}, kernel.shared, parameters.data(),
                    lane.stream);
  } else if (const auto* gemm = std::get_if<Gemm>(&step.call)) {
    gemms_->run(*gemm, addresses(program, slot, *gemm), lane);
  } else if (const auto* convolution = std::get_if<Convolution>(&step.call)) {
    convolutions_->run(*convolution, addresses(program, slot, *convolution), lane);
  } else if (const auto* attention = std::get_if<Attention>(&step.call)) {
    require(&lane == &main_, "attention runs on the first lane");
    attentions_->run(*attention, addresses(program, slot, *attention));
  } else if (const auto* recurrent = std::get_if<Recurrent>(&step.call)) {
    require(&lane == &main_, "recurrent networks run on the first lane");
    recurrents_->run(*recurrent, [&](const Ref& ref) { return buffers_.address(program, slot, ref); });
  } else {
    const Copy& copy = std::get<Copy>(step.call);
    check(cudaMemcpyAsync(buffers_.address(program, slot, copy.to), buffers_.address(program, slot, copy.from),
                          static_cast<size_t>(copy.bytes), cudaMemcpyDeviceToDevice, lane.stream.get()),
          "cudaMemcpyAsync");
  }
}

}  // namespace halfstep
