#include "runtime/cuda/engine_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace halfstep {
namespace {

// Numbers between fixed words.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}
  bool at_end() const { return rest_.empty(); }
  bool take(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  bool take(int64_t& number) {
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return error == std::errc();
  }

 private:
  std::string_view rest_;
};

}  // namespace

std::string print(const EngineChoice& choice) {
  std::string text = fmt::format("engine {} knobs", choice.engine);
  for (const auto& [type, value] : choice.knobs)
    text += fmt::format("{}{}={}", &type == &choice.knobs.front().first ? " " : ",", type, value);
  return text;
}

std::optional<EngineChoice> parse_engine_choice(std::string_view text) {
  Reader reader(text);
  EngineChoice choice;
  if (!reader.take("engine ") || !reader.take(choice.engine) || !reader.take(" knobs")) return std::nullopt;
  while (!reader.at_end()) {
    auto& [type, value] = choice.knobs.emplace_back();
    if (!reader.take(choice.knobs.size() == 1 ? " " : ",") || !reader.take(type) || !reader.take("=") ||
        !reader.take(value))
      return std::nullopt;
  }
  return choice;
}

EngineChoice choice_of(const CudnnDescriptor& configuration) {
  EngineChoice choice;
  const CudnnDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  if (configuration.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw) != 1 ||
      engine.get(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &choice.engine) != 1)
    throw Error("cuDNN does not tell the engine of a configuration");
  const int64_t count = configuration.get(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
  std::vector<CudnnDescriptor> knobs;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (int64_t i = 0; i < count; ++i) handles.push_back(knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR).get());
  const int64_t filled = count == 0 ? 0
                                    : configuration.get(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, count, handles.data());
  for (int64_t i = 0; i < std::min(count, filled); ++i) {
    const CudnnDescriptor& knob = knobs[static_cast<size_t>(i)];
    cudnnBackendKnobType_t type{};
    int64_t value = 0;
    knob.get(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
    knob.get(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &value);
    choice.knobs.emplace_back(static_cast<int64_t>(type), value);
  }
  return choice;
}

RebuiltConfiguration make_configuration(const EngineChoice& choice, const CudnnDescriptor& graph,
                                        const CudnnDescriptor* properties) {
  RebuiltConfiguration rebuilt{{}, CudnnDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)};
  rebuilt.parts.reserve(1 + choice.knobs.size());
  CudnnDescriptor& engine = rebuilt.parts.emplace_back(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
  engine.set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, choice.engine);
  if (properties) engine.set(CUDNN_ATTR_ENGINE_DEVICEPROP, *properties);
  engine.finalize();
  std::vector<cudnnBackendDescriptor_t> knobs;
  for (const auto& [type, value] : choice.knobs) {
    CudnnDescriptor& knob = rebuilt.parts.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, static_cast<cudnnBackendKnobType_t>(type));
    knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, value);
    knob.finalize();
    knobs.push_back(knob.get());
  }
  rebuilt.configuration.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
  if (!knobs.empty())
    rebuilt.configuration.set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                              std::span<const cudnnBackendDescriptor_t>(knobs));
  rebuilt.configuration.finalize();
  return rebuilt;
}

std::string serialized(const CudnnPlan& plan) {
  const auto attribute = CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
  std::string text(static_cast<size_t>(plan.plan.get(attribute, CUDNN_TYPE_CHAR, 0, nullptr)), '\0');
  text.resize(
      static_cast<size_t>(plan.plan.get(attribute, CUDNN_TYPE_CHAR, static_cast<int64_t>(text.size()), text.data())));
  return text;
}

CudnnPlan deserialize_plan(cudnnHandle_t handle, std::string_view text) {
  CudnnDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, std::span<const char>(text));
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle);
  plan.finalize();
  int64_t workspace = 0;
  plan.get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &workspace);
  return {nullptr, CudnnDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR), std::move(plan), workspace};
}

}  // namespace halfstep
