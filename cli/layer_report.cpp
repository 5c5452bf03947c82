#include "cli/layer_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/table.h"

namespace halfstep {

std::string layers_text(const std::vector<LayerTime>& layers, size_t columns, size_t most) {
  double all = 0, rest = 0;
  for (const LayerTime& row : layers) all += row.total();
  const size_t shown = std::min(layers.size(), most);
  for (size_t i = shown; i < layers.size(); ++i) rest += layers[i].total();
  const auto share = [&](double time) { return fmt::format("{:.1f}%", all > 0 ? 100 * time / all : 0); };
  const auto time = [](double us) { return us > 0 ? fmt::format("{:.1f}", us) : "-"; };
  Table table({"share", "us", "forward", "backward", "calls", "layer"});
  for (size_t i = 0; i < shown; ++i) {
    const LayerTime& row = layers[i];
    table.add({share(row.total()), time(row.total()), time(row.forward), time(row.backward), std::to_string(row.calls),
               row.layer.empty() ? "of no node" : row.layer});
  }
  std::string text = table.text("  ", columns);
  if (shown < layers.size()) text += fmt::format("  and {} more: {}\n", layers.size() - shown, share(rest));
  return text;
}

}  // namespace halfstep
