#include "driver/progress.h"

#include <fmt/format.h>
#include <unistd.h>

namespace halfstep {
namespace {

// A line that is rewritten in place is for people at a terminal; a log gets the epoch rows.
bool interactive() { return ::isatty(STDERR_FILENO) != 0; }

std::string percent(const std::optional<double>& value) { return value ? fmt::format("{:.2f} %", *value * 100) : "-"; }

}  // namespace

void TerminalObserver::clear_line() {
  if (line_open_) std::fputs("\r\033[K", stderr);
  line_open_ = false;
}

void TerminalObserver::epoch_begun(int64_t epoch, int64_t) { epoch_ = epoch; }

void TerminalObserver::progressed(const Progress& p) {
  if (!interactive()) return;
  constexpr int64_t kWidth = 24;
  const int64_t filled = p.steps_per_epoch ? kWidth * p.step_in_epoch / p.steps_per_epoch : 0;
  std::string bar;
  for (int64_t i = 0; i < kWidth; ++i) bar += i < filled ? "█" : "░";
  fmt::print(stderr, "\r\033[Kepoch {}/{} {} {}/{}  loss {:.4f}  scale {:g}  {:.0f} images/s", epoch_, epochs_, bar,
             p.step_in_epoch, p.steps_per_epoch, p.last.loss, p.last.loss_scale.value_or(1), p.last.images_per_second);
  std::fflush(stderr);
  line_open_ = true;
}

void TerminalObserver::epoch_finished(const EpochRow& row) {
  clear_line();
  if (!header_printed_)
    fmt::print("  {:>5}  {:>10}  {:>9}  {:>9}  {:>9}  {:>10}  {:>7}  {:>9}  {:>7}\n", "epoch", "train loss",
               "train acc", "test loss", "test acc", "loss scale", "skipped", "images/s", "seconds");
  header_printed_ = true;
  fmt::print("  {:>5}  {:>10.4f}  {:>9}  {:>9}  {:>9}  {:>10}  {:>7}  {:>9.0f}  {:>7.1f}\n", row.epoch, row.loss,
             percent(row.accuracy), row.test ? fmt::format("{:.4f}", row.test->loss) : "-",
             row.test ? percent(row.test->accuracy) : "-", row.loss_scale ? fmt::format("{:g}", *row.loss_scale) : "-",
             row.skipped, row.images_per_second, row.seconds);
  std::fflush(stdout);
}

}  // namespace halfstep
