#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

#include "base/bytes_text.h"
#include "cli/measure_report.h"
#include "cli/output.h"
#include "cli/results.h"
#include "cli/table.h"

namespace halfstep {
namespace {

constexpr std::chrono::seconds kLogInterval(10);
// A share of the time that training waits for data which is worth telling.
constexpr double kMuchWaiting = 0.1;
constexpr size_t kBar = 24, kShortestBar = 5;

std::string percent(const std::optional<double>& value) { return value ? fmt::format("{:.2f} %", *value * 100) : "-"; }

std::string repeated(std::string_view character, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += character;
  return text;
}

std::string rate_text(const StepRow& row) {
  return row.tokens ? fmt::format("{:.0f} tokens/s", row.tokens->per_second)
                    : fmt::format("{:.0f} samples/s", row.samples_per_second);
}

// Where a terminal is too narrow for the usual rows, they stand closer.
constexpr size_t kRow[] = {5, 10, 9, 9, 9, 10, 7, 9, 7}, kNarrowRow[] = {5, 10, 9, 9, 8, 8, 5, 9, 7};
bool is_narrow() {
  constexpr size_t kUsualRow = 93;
  return output_width() > 0 && output_width() < kUsualRow;
}
std::string epoch_line(const std::array<std::string, std::size(kRow)>& cells) {
  const bool narrow = is_narrow();
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i)
    line += fmt::format("{}{:>{}}", narrow ? " " : "  ", cells[i], narrow ? kNarrowRow[i] : kRow[i]);
  return line + "\n";
}

// What a line says behind the step, and how soon it is left out where there is no room: the largest first.
struct Part {
  std::string text;
  int rank;
};

bool waits_much(const std::optional<double>& share) { return share && *share >= kMuchWaiting; }

std::vector<Part> parts_of(const Progress& p, const RunLength& length, const std::optional<double>& seconds_left) {
  std::vector<Part> parts{{fmt::format("loss {:.4f}", p.last.loss), 0}};
  if (p.last.accuracy) parts.push_back({fmt::format("acc {:5.1f} %", *p.last.accuracy * 100), 4});
  if (p.last.loss_scale) parts.push_back({fmt::format("scale {:g}", *p.last.loss_scale), 6});
  if (p.skipped > 0) parts.push_back({fmt::format("{} skipped", p.skipped), 5});
  parts.push_back({rate_text(p.last), 2});
  if (waits_much(p.data_wait)) parts.push_back({fmt::format("wait {:.0f} %", *p.data_wait * 100), 3});
  if (length.memory_bytes > 0) parts.push_back({bytes_text(length.memory_bytes), 7});
  if (seconds_left) parts.push_back({"ETA " + duration_text(*seconds_left), 1});
  return parts;
}

size_t width_of(const std::vector<Part>& parts) {
  size_t width = 0;
  for (const Part& part : parts) width += part.text.size() + 2;
  return width;
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(std::lround(std::clamp(seconds, 0.0, 1e9)));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{} d {:02} h", whole / 86400, whole / 3600 % 24);
}

ProgressLine progress_line(const Progress& p, int64_t epoch, const RunLength& length,
                           const std::optional<double>& seconds_left, size_t columns) {
  const std::string before = fmt::format("  epoch {}/{} ", epoch, length.epochs);
  // As wide at every step, so that nothing moves.
  const std::string all = std::to_string(p.steps_per_epoch);
  const std::string steps = fmt::format(" {:>{}}/{}", p.step_in_epoch, all.size(), all);
  std::vector<Part> parts = parts_of(p, length, seconds_left);
  const auto rest = [&] { return before.size() + steps.size() + width_of(parts); };
  while (parts.size() > 1 && rest() + kShortestBar > columns)
    parts.erase(std::ranges::max_element(parts, {}, &Part::rank));
  const size_t free = columns > rest() ? columns - rest() : 0;
  const size_t bar = free < kShortestBar ? 0 : std::min(kBar, free);
  const auto share = [&](int64_t done, int64_t all) {
    return all > 0 ? static_cast<size_t>(static_cast<int64_t>(bar) * std::min(done, all) / all) : 0;
  };
  const size_t done = share(p.step_in_epoch, p.steps_per_epoch);
  std::string after = steps;
  for (const Part& part : parts) after += "  " + part.text;
  if (before.size() + bar + after.size() > columns) after.resize(columns > before.size() ? columns - before.size() : 0);
  return {before.substr(0, columns), repeated("█", done), repeated("░", bar - done), after};
}

TerminalObserver::TerminalObserver(const RunLength& length, Steps steps)
    : length_(length),
      steps_(steps),
      medium_(::isatty(STDERR_FILENO) != 0 && steps == summed ? terminal : log),
      began_(Clock::now()),
      last_line_(Clock::now()) {}

void TerminalObserver::clear_line() {
  if (line_open_) write_controls("\r\033[K");
  line_open_ = false;
}

void TerminalObserver::clear() {
  clear_line();
  if (curve_lines_ > 0) write_controls(fmt::format("\033[{}A\033[J", curve_lines_));
  curve_lines_ = 0;
}

// Below the rows, until the next one comes; not where it would fill the screen.
void TerminalObserver::draw_curve() {
  constexpr size_t kRoomForRows = 6;
  const std::string curve = loss_curve(losses_.losses(), losses_.first_step(), error_width() - 1);
  const auto lines = static_cast<size_t>(std::ranges::count(curve, '\n'));
  if (lines == 0 || lines + kRoomForRows > error_height()) return;
  write_err(curve);
  std::fflush(stderr);
  curve_lines_ = lines;
}

void TerminalObserver::epoch_begun(int64_t epoch, int64_t) { epoch_ = epoch; }

void TerminalObserver::step_finished(const StepRow& row) {
  if (!first_step_) first_step_ = row.step, began_ = Clock::now();
  if (medium_ == terminal) losses_.step_finished(row);
  if (steps_ != each) return;
  const std::string scale = row.loss_scale ? fmt::format("  scale {:g}", *row.loss_scale) : "";
  print_err("epoch {}/{}  step {}  loss {:.6g}{}  rate {:.4g}{}\n", epoch_, length_.epochs, row.step, row.loss, scale,
            row.learning_rate, row.skipped ? "  skipped" : "");
}

// From the time that this run's steps took, evaluations among them.
std::optional<double> TerminalObserver::seconds_left(const Progress& p) const {
  const int64_t done = first_step_ ? p.last.step - *first_step_ : 0;
  if (done < 1 || p.steps_per_epoch < 1) return std::nullopt;
  int64_t left = (length_.epochs - epoch_) * p.steps_per_epoch + (p.steps_per_epoch - p.step_in_epoch);
  if (length_.max_steps > 0) left = std::min(left, length_.max_steps - p.last.step);
  const double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
  return seconds / static_cast<double>(done) * static_cast<double>(std::max<int64_t>(0, left));
}

void TerminalObserver::progressed(const Progress& p) {
  const auto now = Clock::now();
  if (steps_ == each || (medium_ == log && now - last_line_ < kLogInterval)) return;
  last_line_ = now;
  const std::optional<double> left = seconds_left(p);
  if (medium_ == log) {
    std::string text =
        fmt::format("epoch {}/{}  step {}/{}", epoch_, length_.epochs, p.step_in_epoch, p.steps_per_epoch);
    for (const Part& part : parts_of(p, length_, left)) text += "  " + part.text;
    print_err("{}\n", text);
  } else {
    // One column less than there are: some terminals go to the next line with the last one.
    const ProgressLine line = progress_line(p, epoch_, length_, left, error_width() - 1);
    const bool coloured = wants_colour();
    write_controls("\r\033[K");
    write_err(line.before);
    if (coloured) write_controls("\033[32m");
    write_err(line.done);
    if (coloured) write_controls("\033[0m");
    write_err(line.left + line.after);
    line_open_ = true;
  }
  std::fflush(stderr);
}

void TerminalObserver::epoch_finished(const EpochRow& row) {
  clear();
  std::fflush(stderr);
  if (!header_printed_)
    print_out("{}", epoch_line({"epoch", "train loss", "train acc", "test loss", "test acc",
                                is_narrow() ? "scale" : "loss scale", is_narrow() ? "skips" : "skipped",
                                row.tokens ? "tokens/s" : "samples/s", "seconds"}));
  header_printed_ = true;
  print_out(
      "{}",
      epoch_line({fmt::format("{}", row.epoch), fmt::format("{:.4f}", row.loss), percent(row.accuracy),
                  row.test ? fmt::format("{:.4f}", row.test->loss) : "-", row.test ? percent(row.test->accuracy) : "-",
                  row.loss_scale ? fmt::format("{:g}", *row.loss_scale) : "-", fmt::format("{}", row.skipped),
                  fmt::format("{:.0f}", row.tokens ? row.tokens->per_second : row.samples_per_second),
                  fmt::format("{:.1f}", row.seconds)}));
  if (waits_much(row.data_wait))
    print_out("         {:.0f} % of the time went by waiting for data\n", *row.data_wait * 100);
  if (!row.losses.empty())
    print_out("         {}{}\n", losses_text(row.losses),
              row.test && !row.test->losses.empty() ? "; test " + losses_text(row.test->losses) : "");
  if (row.test) {
    if (const std::string measures = measures_text(row.test->measures); !measures.empty())
      print_out("{}", wrapped("test " + measures, output_width(), "         "));
    for (const std::string& remark : row.test->measures.remarks)
      if (told_.insert(remark).second) print_err("note: epoch {}: {}\n", row.epoch, remark);
  }
  if (medium_ == terminal) draw_curve();
}

}  // namespace halfstep
