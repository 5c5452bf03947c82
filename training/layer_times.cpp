#include "training/layer_times.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "training/random_inputs.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

struct PhaseEnding {
  std::string_view text;
  double LayerTime::* time;
};
// As origins of steps end; those of the forward have none.
constexpr PhaseEnding kEndings[] = {
    {"(loss)", &LayerTime::forward}, {"(backward)", &LayerTime::backward}, {"(update)", &LayerTime::update}};

}  // namespace

std::vector<LayerTime> by_layer(std::span<const StepTime> calls) {
  std::vector<LayerTime> layers;
  for (const StepTime& call : calls) {
    std::string layer = call.origin;
    double LayerTime::* time = &LayerTime::forward;
    for (const PhaseEnding& ending : kEndings) {
      if (!layer.ends_with(ending.text)) continue;
      time = ending.time;
      layer.resize(layer.size() - ending.text.size());
      if (layer.ends_with(' ')) layer.pop_back();
    }
    auto row = std::ranges::find(layers, layer, &LayerTime::layer);
    if (row == layers.end()) row = layers.insert(row, {.layer = layer});
    ++row->calls, (*row).*time += call.microseconds;
  }
  std::ranges::stable_sort(layers, std::ranges::greater{}, &LayerTime::total);
  return layers;
}

std::vector<LayerTime> time_layers(Executor& executor, double learning_rate) {
  constexpr double kMilliseconds = 2000;
  constexpr int kFewest = 3, kMost = 20;
  const int program = program_index(executor.model(), "train");
  fill_random(executor.model(), executor.model().programs[static_cast<size_t>(program)], learning_rate,
              executor.begin_step(program));
  const double estimate = std::max(executor.time_steps(program, 1).front(), 1e-3);
  return by_layer(executor.profile(program, std::clamp(static_cast<int>(kMilliseconds / estimate), kFewest, kMost)));
}

void write_layer_times(const std::filesystem::path& file, const std::vector<LayerTime>& layers) {
  double all = 0;
  for (const LayerTime& row : layers) all += row.total();
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const LayerTime& row : layers)
    rows.push_back({{"layer", row.layer},
                    {"scope", row.scope},
                    {"calls", row.calls},
                    {"forward", row.forward},
                    {"backward", row.backward},
                    {"update", row.update},
                    {"share", all > 0 ? row.total() / all : 0}});
  const nlohmann::ordered_json json{{"layers", rows}, {"microseconds", all}};
  write_file_atomically(file, json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace halfstep
