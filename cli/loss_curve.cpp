#include "cli/loss_curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace halfstep {
namespace {

constexpr size_t kRows = 8, kUsualColumns = 80;
constexpr std::array<std::string_view, 9> kBlocks{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::vector<double> means(std::span<const double> losses, size_t count) {
  std::vector<double> columns;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i * losses.size() / count, end = (i + 1) * losses.size() / count;
    double sum = 0, finite = 0;
    for (const double loss : losses.subspan(begin, end - begin))
      if (std::isfinite(loss)) sum += loss, ++finite;
    columns.push_back(finite > 0 ? sum / finite : kNone);
  }
  return columns;
}

}  // namespace

void LossRecorder::step_finished(const StepRow& row) {
  if (losses_.empty()) first_step_ = row.step;
  losses_.push_back(row.skipped ? kNone : row.loss);
}

std::string loss_curve(std::span<const double> losses, int64_t first_step, size_t columns) {
  constexpr size_t kLabel = 12;  // "  0.1234567 ┤"
  const size_t width = std::max<size_t>(columns == 0 ? kUsualColumns : columns, kLabel + 9) - kLabel - 1;
  const std::vector<double> values = means(losses, std::min(width, losses.size()));
  double least = kNone, largest = kNone;
  for (const double v : values)
    if (std::isfinite(v)) least = std::fmin(least, v), largest = std::fmax(largest, v);
  if (!std::isfinite(least)) return "";
  // In eighths of a line; the least one is seen too.
  constexpr double kEighths = 8.0 * kRows;
  std::vector<size_t> heights;
  for (const double v : values) {
    const double share = largest > least ? (v - least) / (largest - least) : 0;
    heights.push_back(std::isfinite(v) ? static_cast<size_t>(std::lround(1 + share * (kEighths - 1))) : 0);
  }
  std::string text;
  for (size_t row = kRows; row-- > 0;) {
    const bool labelled = row + 1 == kRows || row == 0;
    std::string line = fmt::format("  {:>9} {}", labelled ? fmt::format("{:.4g}", row == 0 ? least : largest) : "",
                                   labelled ? "┤" : "│");
    for (const size_t height : heights) line += kBlocks[std::min<size_t>(8, height - std::min(height, 8 * row))];
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  const std::string first = fmt::format("step {}", first_step),
                    last = losses.size() > 1
                               ? fmt::format("step {}", first_step + static_cast<int64_t>(losses.size()) - 1)
                               : "";
  const size_t used = first.size() + last.size(), gap = values.size() > used ? values.size() - used : 1;
  std::string axis = std::string(kLabel + 1, ' ') + first + std::string(gap, ' ') + last;
  axis.erase(axis.find_last_not_of(' ') + 1);
  return text + axis + "\n";
}

}  // namespace halfstep
