#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "cli/measure_report.h"
#include "cli/output.h"
#include "cli/results.h"

namespace halfstep {
namespace {

constexpr std::chrono::seconds kLogInterval(10);

std::string percent(const std::optional<double>& value) { return value ? fmt::format("{:.2f} %", *value * 100) : "-"; }

std::string bar(int64_t done, int64_t all) {
  constexpr int64_t kWidth = 24;
  const int64_t filled = all > 0 ? kWidth * done / all : 0;
  std::string text;
  for (int64_t i = 0; i < kWidth; ++i) text += i < filled ? "█" : "░";
  return text;
}

}  // namespace

TerminalObserver::TerminalObserver(int64_t epochs)
    : epochs_(epochs),
      medium_(::isatty(STDERR_FILENO) != 0 ? terminal : log),
      last_line_(std::chrono::steady_clock::now()) {}

void TerminalObserver::clear_line() {
  if (line_open_) write_controls("\r\033[K");
  line_open_ = false;
}

void TerminalObserver::epoch_begun(int64_t epoch, int64_t) { epoch_ = epoch; }

void TerminalObserver::progressed(const Progress& p) {
  const auto now = std::chrono::steady_clock::now();
  if (medium_ == log && now - last_line_ < kLogInterval) return;
  last_line_ = now;
  const std::string scale = p.last.loss_scale ? fmt::format("  scale {:g}", *p.last.loss_scale) : "";
  const auto& tokens = p.last.tokens;
  const std::string rate = tokens ? fmt::format("{:.0f} tokens/s", tokens->per_second)
                                  : fmt::format("{:.0f} samples/s", p.last.samples_per_second);
  const std::string state =
      fmt::format("{:>5}/{}  loss {:.4f}{}  {}", p.step_in_epoch, p.steps_per_epoch, p.last.loss, scale, rate);
  if (medium_ == log) {
    print_err("epoch {}/{}  step {}\n", epoch_, epochs_, state);
  } else {
    write_controls("\r\033[K");
    print_err("  epoch {}/{}  {} {}", epoch_, epochs_, bar(p.step_in_epoch, p.steps_per_epoch), state);
    line_open_ = true;
  }
  std::fflush(stderr);
}

void TerminalObserver::epoch_finished(const EpochRow& row) {
  clear_line();
  if (!header_printed_)
    print_out("  {:>5}  {:>10}  {:>9}  {:>9}  {:>9}  {:>10}  {:>7}  {:>9}  {:>7}\n", "epoch", "train loss", "train acc",
              "test loss", "test acc", "loss scale", "skipped", row.tokens ? "tokens/s" : "samples/s", "seconds");
  header_printed_ = true;
  print_out("  {:>5}  {:>10.4f}  {:>9}  {:>9}  {:>9}  {:>10}  {:>7}  {:>9.0f}  {:>7.1f}\n", row.epoch, row.loss,
            percent(row.accuracy), row.test ? fmt::format("{:.4f}", row.test->loss) : "-",
            row.test ? percent(row.test->accuracy) : "-", row.loss_scale ? fmt::format("{:g}", *row.loss_scale) : "-",
            row.skipped, row.tokens ? row.tokens->per_second : row.samples_per_second, row.seconds);
  if (!row.losses.empty())
    print_out("         {}{}\n", losses_text(row.losses),
              row.test && !row.test->losses.empty() ? "; test " + losses_text(row.test->losses) : "");
  if (!row.test) return;
  if (const std::string measures = measures_text(row.test->measures); !measures.empty())
    print_out("{}", wrapped("test " + measures, output_width(), "         "));
  for (const std::string& remark : row.test->measures.remarks)
    if (told_.insert(remark).second) print_err("note: epoch {}: {}\n", row.epoch, remark);
}

}  // namespace halfstep
